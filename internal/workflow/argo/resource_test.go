package argo_test

import (
	"encoding/json"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/argo"
	"cairn.dev/cairn/internal/workflow/workflowtest"
)

// resourceDoc is a workflow whose one template is a resource, with these fields
// and, beside it, these.
func resourceDoc(fields, beside string) []byte {
	indent := func(s string) string { return strings.ReplaceAll(s, "\n", "\n      ") }
	return []byte("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: a}\nspec:\n  entrypoint: main\n  serviceAccountName: maker\n  volumeClaimTemplates: [{metadata: {name: work}}]\n" +
		"  arguments: {parameters: [{name: n, value: 3}, {name: text, value: hello}]}\n  templates:\n  - name: main\n" +
		"    inputs: {parameters: [{name: n, value: '3'}, {name: text, value: \"a: b\\nc: [\"}, {name: whole, value: \"apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: w}\"}, {name: object, value: '{\"x\": [1, 2.50]}'}, {name: bad, value: '- a'}]}\n" +
		beside + "    resource:\n      " + indent(fields) + "\n")
}

const aMap = "manifest: |\n  apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: a}"

// What a template says becomes one request, and values stay where their tags
// stood.
func TestResource(t *testing.T) {
	object := `"manifest":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`
	for name, s := range map[string]struct{ fields, beside, want string }{
		"create": {"action: create\n" + aMap, "", `{"action":"create",` + object + `}`},
		"conditions": {"action: apply\nsuccessCondition: status.n == {{inputs.parameters.n}}\nfailureCondition: status.phase in (Failed, Error)\nsetOwnerReference: true\n" + aMap, "",
			`{"action":"apply",` + object + `,"success":"status.n == 3","failure":"status.phase in (Failed, Error)","owner":{"apiVersion":"","kind":"","name":"","uid":""}}`},
		"values": {"action: create\nmanifest: |\n  apiVersion: v1\n  kind: ConfigMap\n  metadata:\n    name: x-{{inputs.parameters.n}}\n    labels: {'{{inputs.parameters.n}}': b}\n  spec:\n    number: {{inputs.parameters.n}}\n    quoted: \"{{inputs.parameters.n}}\"\n    text: {{inputs.parameters.text}}\n    object: {{inputs.parameters.object}}\n    list: [{{inputs.parameters.n}}, y]\n    script: |\n      echo {{inputs.parameters.text}}\n    big: 12345678\n    on: true",
			"", `{"action":"create","manifest":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"labels":{"3":"b"},"name":"x-3"},"spec":{"big":12345678,"list":[3,"y"],"number":3,"object":{"x":[1,2.50]},"on":true,"quoted":"3","script":"echo a: b\nc: [\n","text":"a: b\nc: ["}}}`},
		"a whole value": {"action: create\nmanifest: '{{inputs.parameters.whole}}'", "", `{"action":"create","manifest":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"w"}}}`},
		"from":          {"action: create\nmanifestFrom: {artifact: {name: m, raw: {data: '{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}'}}}", "", `{"action":"create",` + object + `}`},
		"json patch":    {"action: patch\nmergeStrategy: json\nflags: [pod, 'p-{{inputs.parameters.n}}']\nmanifest: |\n  - {op: add, path: /a, value: {{inputs.parameters.n}}}", "", `{"action":"patch","manifest":[{"op":"add","path":"/a","value":3}],"kind":"pod","name":"p-3","patch":"json"}`},
		"merge patch":   {"action: patch\nmergeStrategy: merge\nflags: [pod/p, --subresource=status]\nmanifest: |\n  status: {a: b}", "", `{"action":"patch","manifest":{"status":{"a":"b"}},"kind":"pod","name":"p","patch":"merge","subresource":"status"}`},
		"delete by flags": {"action: delete\nflags: [configmap, --selector, 'a={{inputs.parameters.n}}', -n, other, --ignore-not-found, --cascade=foreground, --grace-period=5]", "",
			`{"action":"delete","kind":"configmap","selector":"a=3","namespace":"other","propagation":"foreground","grace":5,"missing":true}`},
		"delete all":   {"action: delete\nflags: [cm, --all, --force]", "", `{"action":"delete","kind":"cm","all":true,"grace":0}`},
		"no checks":    {"action: create\nflags: [--validate=false]\n" + aMap, "", `{"action":"create",` + object + `,"lenient":true}`},
		"get by words": {"action: get\nflags: [job, j]", "", `{"action":"get","kind":"job","name":"j"}`},
		"outputs": {"action: get\n" + aMap, "    outputs: {parameters: [{name: p, valueFrom: {jsonPath: '{.a}', default: z}}, {name: q, valueFrom: {jqFilter: '.a | length'}}]}\n",
			`{"action":"get",` + object + `,"read":{"p":{"path":"{.a}","default":"z"},"q":{"filter":".a | length"}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			g, ps := argo.Compile("a", resourceDoc(s.fields, s.beside), argo.Options{Cluster: true})
			if len(ps) > 0 {
				t.Fatal(problems(ps))
			}
			if g.Cluster == "" {
				t.Error("it can be run anywhere")
			}
			in := workflowtest.Inputs(map[string]any{"n": "3", "text": "a: b\nc: [", "whole": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: w}", "object": `{"x": [1, 2.50]}`, "bad": "- a"})
			got, err := g.Templates["main"].Leaf.Render(in)
			if err != nil {
				t.Fatal(err)
			}
			b, err := json.Marshal(got.Resource)
			if err != nil || string(b) != s.want {
				t.Errorf("%s, %v\nwant %s", b, err, s.want)
			}
			if p, _ := json.Marshal(got.Pod); string(p) != `{"serviceAccountName":"maker"}` || got.Image != "" {
				t.Errorf("its pod is %s of %q", p, got.Image)
			}
			again, ps := argo.Compile("again", g.Documents, argo.Options{Cluster: true})
			if len(ps) > 0 || again.String() != g.String() {
				t.Errorf("compiled again it is\n%s\n%s", again, problems(ps))
			}
		})
	}
}

// A manifest in an artifact is read where the request is made.
func TestResourceFromArtifact(t *testing.T) {
	for name, s := range map[string]struct {
		inputs, artifact string
		given            map[string]any
		want             string
	}{
		"an input that is handed over": {"artifacts: [{name: m, path: /tmp/m}]", "{name: m}", map[string]any{"m": &workflow.File{Digest: "sha256:a", Size: 7}}, `{"name":"m","path":"/tmp/manifest.yaml","digest":"sha256:a","size":7}`},
		"an input with a source":       {"artifacts: [{name: m, path: /tmp/m, s3: {bucket: b, key: k}}]", "{name: m}", nil, `{"name":"m","path":"/tmp/manifest.yaml","source":{"kind":"s3","url":"b","key":"k","archive":"tar"}}`},
		"text":                         {"artifacts: [{name: m, path: /tmp/m, raw: {data: hi}}]", "{name: m}", nil, `{"name":"m","path":"/tmp/manifest.yaml","content":"aGk="}`},
		"from the web":                 {"parameters: []", "{name: m, http: {url: 'https://example.org/m.yaml'}}", nil, `{"name":"m","path":"/tmp/manifest.yaml","source":{"kind":"http","url":"https://example.org/m.yaml","archive":"tar"}}`},
		"nothing":                      {"artifacts: [{name: m, path: /tmp/m, optional: true}]", "{name: m}", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			doc := "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: a}\nspec:\n  entrypoint: main\n  templates:\n  - name: main\n    inputs: {" + s.inputs + "}\n    resource: {action: apply, manifestFrom: {artifact: " + s.artifact + "}}\n"
			if s.given != nil { // whoever calls it does
				doc = strings.ReplaceAll(doc, "entrypoint: main", "entrypoint: top") + "  - name: top\n    dag: {tasks: [{name: a, template: main, arguments: {artifacts: [{name: m, raw: {data: x}}]}}]}\n"
			}
			g, ps := argo.Compile("a", []byte(doc), argo.Options{Cluster: true})
			if len(ps) > 0 {
				t.Fatal(problems(ps))
			}
			scope := workflowtest.Inputs(nil)
			scope["inputs"] = map[string]any{"artifacts": s.given}
			got, err := g.Templates["main"].Leaf.Render(scope)
			if s.want == "" {
				if err == nil || !strings.Contains(err.Error(), "there is no artifact m") {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := json.Marshal(got.Inputs)
			if err != nil || string(b) != "["+s.want+"]" || got.Resource.From != "m" || got.Resource.Manifest != nil {
				t.Errorf("%s, %v, from %q; want %s", b, err, got.Resource.From, s.want)
			}
		})
	}
}

// A try at its user's expense makes another object.
func TestResourceTries(t *testing.T) {
	g, ps := argo.Compile("a", resourceDoc("action: create\n"+aMap, ""), argo.Options{Cluster: true})
	if len(ps) > 0 {
		t.Fatal(problems(ps))
	}
	in := workflowtest.Inputs(map[string]any{})
	in["retries"] = float64(2)
	if got, err := g.Templates["main"].Leaf.Render(in); err != nil || got.Resource.Try != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestResourceRefused(t *testing.T) {
	for fields, says := range map[string]string{
		aMap:                                  "there is no action",
		"action: creat\n" + aMap:              "one of get, create",
		"action: create":                      "there is no manifest",
		"action: get":                         "there is no manifest",
		"action: create\nmanifest: {a: b}":    "manifest: |",
		"action: create\nmanifest: 'a: ['":    "this is not YAML",
		"action: create\nmanifest: 'a: b'":    "which object?",
		"action: create\nmanifest: '- a'":     "has to be an object",
		"action: create\nmanifest: '{{nix}}'": "no such variable",
		"action: create\nmanifest: |\n  apiVersion: v1\n  kind: A\n  ---\n  apiVersion: v1\n  kind: B": "2 documents",
		"action: create\nmanifest: |\n  a: {{inputs.parameters.none}}":                                 "no such input",
		"action: create\nmergeStrategy: merge\n" + aMap:                                                "goes with action: patch",
		"action: patch\nmergeStrategy: odd\n" + aMap:                                                   "strategic, merge, json",
		"action: patch\nmergeStrategy: json\n" + aMap:                                                  "a list of changes",
		"action: patch\nmergeStrategy: json\nmanifest: '- {op: add}'":                                  "which object?",
		"action: create\nsuccessCondition: status is good\n" + aMap:                                    "no operator",
		"action: create\nflags: [--dry-run=server]\n" + aMap:                                           "--dry-run=server is not supported",
		"action: create\nflags: [-l, a=b]\n" + aMap:                                                    "goes with action: delete",
		"action: delete\nflags: [configmap]":                                                           "which one?",
		"action: delete\nflags: [a, b, c]":                                                             "one kind and one name",
		"action: delete\nflags: [a, b, -n]":                                                            "has no value",
		"action: delete\nflags: [a, b, --cascade=odd]":                                                 "background, foreground and orphan",
		"action: create\nmanifestFrom: {artifact: {name: a, s3: {key: b}}}":                            "there is no bucket",
		"action: create\nmanifestFrom: {artifact: {name: a}}":                                          "no artifact \"a\" among the inputs",
		"action: create\nmanifestFrom: {artifact: {name: a, gcs: {bucket: b}}}":                        "gcs",
		"action: create\nmanifestFrom: {}":                                                             "which artifact?",
		"action: create\nmanifestFrom: {artifact: {name: a, raw: {data: x}}}\n" + aMap:                 "keep one",
		"action: create\nunknown: 1\n" + aMap:                                                          "unknown field",
	} {
		if _, ps := argo.Compile("a", resourceDoc(fields, ""), argo.Options{Cluster: true}); !strings.Contains(problems(ps), says) {
			t.Errorf("%s:\n%s\nwant %q", fields, problems(ps), says)
		}
	}
	for beside, says := range map[string]string{
		"    outputs: {parameters: [{name: p, valueFrom: {jsonPath: .a}}]}\n":                     "with braces",
		"    outputs: {parameters: [{name: p, valueFrom: {jqFilter: '.['}}]}\n":                   "jq:",
		"    outputs: {parameters: [{name: p, valueFrom: {jqFilter: 'input'}}]}\n":                "jq:",
		"    outputs: {parameters: [{name: p, valueFrom: {jqFilter: ., jsonPath: '{.a}'}}]}\n":    "keep one",
		"    outputs: {parameters: [{name: p, valueFrom: {jsonPath: '{.{{workflow.name}}}'}}]}\n": "tags are not supported",
		"    outputs: {parameters: [{name: p, valueFrom: {path: /a}}]}\n":                         "a resource template",
		"    sidecars: [{name: a, image: b}]\n":                                                   "goes with a container",
	} {
		if _, ps := argo.Compile("a", resourceDoc("action: get\n"+aMap, beside), argo.Options{Cluster: true}); !strings.Contains(problems(ps), says) {
			t.Errorf("%s:\n%s\nwant %q", beside, problems(ps), says)
		}
	}
	// What a value makes of a manifest is looked at when it is known.
	g, ps := argo.Compile("a", resourceDoc("action: get\nmanifest: '{{inputs.parameters.text}}'", ""), argo.Options{Cluster: true})
	if len(ps) > 0 {
		t.Fatal(problems(ps))
	}
	if _, err := g.Templates["main"].Leaf.Render(workflowtest.Inputs(map[string]any{"text": "a: ["})); err == nil || !strings.Contains(err.Error(), "this is not YAML") {
		t.Errorf("%v", err)
	}
	if _, ps := argo.Compile("a", resourceDoc("action: get\n"+aMap, ""), argo.Options{}); !strings.Contains(problems(ps), "makes requests to a cluster") {
		t.Errorf("without a cluster:\n%s", problems(ps))
	}
}
