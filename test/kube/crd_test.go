package kube_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/kube/crd"
	"cairn.dev/cairn/test/cluster"
)

// definitions applies kinds as users do: with a plain kubectl apply, which
// keeps the whole object in an annotation.
func definitions(t *testing.T, c *cluster.Cluster, list ...crd.Definition) {
	t.Helper()
	b, err := crd.YAML(list...)
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(string(b))
	for _, d := range list {
		c.Kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/"+d.Name)
		if why := c.Kubectl("get", "crd", d.Name, "-o", `jsonpath={.status.conditions[?(@.type=="NonStructuralSchema")].message}`); why != "" {
			t.Errorf("%s: %s", d.Name, why)
		}
	}
}

// ours are the kinds of cairn.dev.
func ours(t *testing.T) []crd.Definition {
	t.Helper()
	list, err := crd.Ours()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// openName is a name that ends with a dash: one to begin with, which objects of a
// cluster have in generateName.
var openName = regexp.MustCompile(`metadata: \{name: ([a-z]+-)([,}])`)

// What is right is taken, and what is wrong is refused by the API server
// itself, with the place.
func TestDefinitions(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, cluster.Options{})
	definitions(t, c, ours(t)...)
	definitions(t, c, crd.Argo()...)
	doc := func(spec string) string {
		return "apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: x}\nspec: " + spec
	}
	task := func(rest string) string { return doc("{tasks: [{name: a, " + rest + "}]}") }
	for _, tt := range []struct{ name, doc, want string }{
		{"the least", task(`image: alpine`), ""},
		{"all forms of values", doc(`
  inputs: {a: text, b: {type: json, default: [1, 2], optional: true}}
  outputs: {c: "${{ tasks.b.outputs.r }}", d: {type: text, value: x}}
  timeout: 90
  keep: 30d
  parallelism: 3
  locks: [one, {name: two, size: 3}]
  tasks:
  - {name: a, image: alpine, command: [echo, 1, true, 1.5], env: {A: 1, B: true, C: x}, user: 1000, resources: {cpu: 0.5, memory: 64Mi}, retries: 3}
  - {name: b, image: alpine, needs: [a], runs: always, forEach: [1, {a: b}], retries: {limit: 2, on: error, factor: 1.5}, outputs: {r: text, f: {type: file, path: /out/f}}, user: app, timeout: 1.5}
  - {name: c, uses: other, with: {a: [1], b: x}, forEach: {count: 3}}
  - {name: d, suspend: true}
  - {name: e, suspend: {for: 10m}}
  onExit: {name: z, image: alpine, script: "echo $A", command: [sh]}
`), ""},
		{"no tasks", doc(`{tasks: []}`), "spec.tasks"},
		{"no spec", "apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: x}\n", "spec: Required value"},
		{"an unknown field", task(`image: alpine, comand: [x]`), `unknown field "spec.tasks[0].comand"`},
		{"two of one name", doc(`{tasks: [{name: a, image: x}, {name: a, image: x}]}`), "spec.tasks[1]: Duplicate value"},
		{"a name with a dash", doc(`{tasks: [{name: a-b, image: x}]}`), "spec.tasks[0].name"},
		{"nothing to do", doc(`{tasks: [{name: a}]}`), "spec.tasks[0]"},
		{"two things to do", task(`image: x, uses: other`), "one of image, uses, resource and suspend"},
		{"runs without needs", task(`image: x, runs: always`), "name some"},
		{"a word that is none", task(`image: x, isolation: strong`), "spec.tasks[0].isolation: Unsupported value"},
		{"a map in place of a size", task(`image: x, resources: {cpu: {a: b}}`), "spec.tasks[0].resources.cpu"},
		{"a list in place of a text", task(`image: [x]`), "spec.tasks[0].image"},
		{"parallelism of nothing", doc(`{parallelism: 0, tasks: [{name: a, image: x}]}`), "spec.parallelism"},
		{"a name that is too long", strings.Replace(task(`image: x`), "name: x", "name: "+strings.Repeat("x", 64), 1), "at most 63 characters"},
		{"cron", "apiVersion: cairn.dev/v1alpha1\nkind: CronWorkflow\nmetadata: {name: x}\nspec: {schedules: [\"0 3 * * *\"], workflow: {tasks: [{name: a, image: x}]}}", ""},
		{"cron with a task that is wrong", "apiVersion: cairn.dev/v1alpha1\nkind: CronWorkflow\nmetadata: {name: x}\nspec: {schedules: \"0 3 * * *\", workflow: {tasks: [{name: a}]}}", "spec.workflow.tasks[0]"},
		{"argo", "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: x}\nspec: {entrypoint: main, templates: [{name: main, container: {image: x}}]}", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := c.RunKubectl(t.Context(), tt.doc, "apply", "--dry-run=server", "-f", "-")
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want an error with %q", err, tt.want)
			}
		})
	}
	// What the compiler takes, the API server takes as well.
	c.Apply("{apiVersion: v1, kind: Namespace, metadata: {name: lab}}")
	for _, pattern := range []string{"../../internal/workflow/testdata/good/*.yaml", "../../examples/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) < 3 {
			t.Fatalf("%s: %d files: %v", pattern, len(files), err)
		}
		for _, file := range files {
			t.Run(filepath.Base(file), func(t *testing.T) {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.RunKubectl(t.Context(), openName.ReplaceAllString(string(b), "metadata: {generateName: $1$2"), "create", "--dry-run=server", "-f", "-"); err != nil {
					t.Errorf("refused: %v", err)
				}
			})
		}
	}
	for _, place := range []string{"workflow.spec", "workflow.spec.tasks", "workflow.status", "workflow.status.counts", "workflow.status.conditions", "workflow.status.failed", "cronworkflow.status", "cronworkflow.spec", "cronworkflow.spec.workflow.tasks.resource"} {
		if out := c.Kubectl("explain", place, "--api-version=cairn.dev/v1alpha1"); strings.Contains(out, "<no description>") || !strings.Contains(out, "FIELDS:") {
			t.Errorf("kubectl explain %s:\n%s", place, out)
		}
	}
	// Short names find ours, though Argo's kinds are there, too.
	if out := c.Kubectl("get", "wf,cronwf,wftmpl", "-o", "name"); out != "" {
		t.Errorf("get: %q", out)
	}
	if out := c.Kubectl("api-resources", "--categories=cairn", "-o", "name"); len(strings.Fields(out)) != 3 {
		t.Errorf("the category cairn holds %q", out)
	}
}
