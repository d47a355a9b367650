package workflow_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/goldentest"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/workflowtest"
)

func problems(ps []workflow.Problem) string {
	var b strings.Builder
	for _, p := range ps {
		fmt.Fprintln(&b, p)
	}
	return b.String()
}

// compile reads a file of either kind.
func compile(file string, doc []byte) (string, []workflow.Problem) {
	if strings.Contains(string(doc), "kind: CronWorkflow") {
		s, ps := workflow.CompileSchedule(file, doc, nil)
		if s == nil {
			return "", ps
		}
		return fmt.Sprintf("schedule %s: %s in %s, overlap %s, late %v, keeps %d and %d\n%s", s.Name, strings.Join(s.Crons, "; "), s.Timezone, s.Overlap, s.Late, s.KeepGood, s.KeepBad, s.Graph), ps
	}
	g, ps := workflow.Compile(file, doc, nil)
	if g == nil {
		return "", ps
	}
	return g.String(), ps
}

func TestGood(t *testing.T) {
	files, _ := filepath.Glob("testdata/good/*.yaml")
	if len(files) < 3 {
		t.Fatalf("only %d files", len(files))
	}
	for _, f := range files {
		doc, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		got, ps := compile(filepath.Base(f), doc)
		if len(ps) > 0 {
			t.Errorf("%s:\n%s", f, problems(ps))
			continue
		}
		goldentest.Check(t, strings.TrimSuffix(f, ".yaml")+".graph", got)
	}
}

func TestBad(t *testing.T) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	if len(files) < 5 {
		t.Fatalf("only %d files", len(files))
	}
	for _, f := range files {
		doc, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		got, ps := compile(filepath.Base(f), doc)
		if len(ps) == 0 {
			t.Errorf("%s: no problems, but\n%s", f, got)
			continue
		}
		goldentest.Check(t, strings.TrimSuffix(f, ".yaml")+".problems", problems(ps))
	}
}

// A task's pod is that of its workflow, but for the fields that it has itself;
// and only a cluster can run it.
func TestPod(t *testing.T) {
	doc, err := os.ReadFile("testdata/good/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	g, ps := workflow.Compile("pod.yaml", doc, nil)
	if len(ps) > 0 || g.Cluster == "" {
		t.Fatalf("%q\n%s", g.Cluster, problems(ps))
	}
	for name, want := range map[string]string{
		"main/a":   "container nodeSelector=map[disk:hdd] serviceAccountName=reader volumeClaimTemplates volumes",
		"main/b":   "nodeSelector=map[disk:ssd] serviceAccountName=reader volumeClaimTemplates",
		"exit/bye": "nodeSelector=map[disk:ssd] serviceAccountName=reader volumeClaimTemplates",
	} {
		x, err := g.Templates[name].Leaf.Render(workflowtest.Inputs(nil))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, k := range slices.Sorted(maps.Keys(x.Pod)) {
			switch k {
			case "nodeSelector", "serviceAccountName":
				k += fmt.Sprint("=", x.Pod[k])
			}
			got = append(got, k)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", name, got, want)
		}
	}
}

// The flow of the essay fits on a page.
func TestShort(t *testing.T) {
	doc, err := os.ReadFile("testdata/good/map.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(doc), "\n"); n >= 25 {
		t.Errorf("list, map and aggregate take %d lines; want under 25", n)
	}
}

// What is kept of a graph is its documents: they give the same graph again.
func TestDocumentsAreEnough(t *testing.T) {
	doc, err := os.ReadFile("testdata/good/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	main, tmpl, _ := strings.Cut(string(doc), "\n---\n")
	asked := 0
	g, ps := workflow.Compile("a", []byte(main), func(kind, namespace, name string) []byte {
		asked++
		if kind != "WorkflowTemplate" || namespace != "lab" || name != "publishing" {
			t.Errorf("asked for %s %s/%s", kind, namespace, name)
		}
		return []byte(tmpl)
	})
	if len(ps) > 0 || asked != 1 {
		t.Fatalf("asked %d times; %s", asked, problems(ps))
	}
	again, ps := workflow.Compile("b", g.Documents, nil)
	if len(ps) > 0 {
		t.Fatal(problems(ps))
	}
	if again.String() != g.String() {
		t.Errorf("again it is\n%s\nand it was\n%s", again, g)
	}
}

// one compiles a workflow of one task and renders it with the values as what
// the task is handed.
func one(t *testing.T, task string, values map[string]any) (*workflow.Template, workflowtest.Scope) {
	t.Helper()
	var in strings.Builder
	for k := range values {
		fmt.Fprintf(&in, "    %s: json\n", strings.TrimPrefix(k, "inputs."))
	}
	doc := "apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: one}\nspec:\n  inputs:\n" + in.String() + "  tasks:\n  - name: a\n    image: busybox\n" + task
	g, ps := workflow.Compile("one", []byte(doc), nil)
	if len(ps) > 0 {
		t.Fatalf("%s\n%s", doc, problems(ps))
	}
	return g.Templates["main/a"], workflowtest.Inputs(values)
}

func TestRender(t *testing.T) {
	tmpl, s := one(t, `
    command: [a, "${{ inputs.v }}", "x-${{ inputs.v }}-${{ inputs.n }}", "${{ inputs.n + 1 }}", "${{ inputs.f }}"]
    env: {E: "${{ inputs.l }}"}
    files: {/in/all: "${{ inputs.l }}", /in/f: "${{ inputs.fs }}"}
`, map[string]any{
		"inputs.v": "${{ run.name }} \"quoted\"\n}}", "inputs.n": float64(3), "inputs.l": []any{"a", map[string]any{"b": true}},
		"inputs.f":  &workflow.File{Name: "../../etc/x.log", Digest: "sha256:1"},
		"inputs.fs": []any{&workflow.File{Name: "a.log", Digest: "sha256:2"}, &workflow.File{Digest: "sha256:3"}},
	})
	got, err := tmpl.Leaf.Render(s)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a", "${{ run.name }} \"quoted\"\n}}", "x-${{ run.name }} \"quoted\"\n}}-3", "4", "/cairn/in/0/x.log"}
	if fmt.Sprintf("%q", got.Command) != fmt.Sprintf("%q", want) {
		t.Errorf("command is %q, want %q", got.Command, want)
	}
	if want := `["a",{"b":true}]`; got.Env[0].Value != want || string(got.Inputs[1].Content) != want {
		t.Errorf("env %q and file %q, want %q", got.Env[0].Value, got.Inputs[1].Content, want)
	}
	var paths []string
	for _, in := range got.Inputs {
		paths = append(paths, in.Path+" "+in.Digest)
	}
	if want := "/cairn/in/0/x.log sha256:1,/in/all ,/in/f/000000-a.log sha256:2,/in/f/000001 sha256:3"; strings.Join(paths, ",") != want {
		t.Errorf("inputs are %s, want %s", strings.Join(paths, ","), want)
	}
}

func TestBounds(t *testing.T) {
	list := make([]any, 3000)
	for i := range list {
		list[i] = float64(i)
	}
	tmpl, s := one(t, `
    command: ["${{ inputs.l.map(a, inputs.l.map(b, inputs.l.map(c, a + b + c))) }}"]
`, map[string]any{"inputs.l": list})
	if _, err := tmpl.Leaf.Render(s); err == nil || !strings.Contains(err.Error(), "cost limit") {
		t.Errorf("an expression without end gave %v", err)
	}
	tmpl, s = one(t, `
    command: ["${{ inputs.v }}"]
`, map[string]any{"inputs.v": "a\x00b"})
	if _, err := tmpl.Leaf.Render(s); err == nil || !strings.Contains(err.Error(), "NUL") {
		t.Errorf("a NUL in an argument gave %v", err)
	}
	tmpl, _ = one(t, `
    command: ["${{ inputs.v }}"]
`, map[string]any{"inputs.v": 1})
	if _, err := tmpl.Leaf.Render(workflowtest.Scope{}); err == nil || !strings.Contains(err.Error(), "inputs.v has no value") {
		t.Errorf("a value that is not there gave %v", err)
	}
}

func TestArguments(t *testing.T) {
	g, ps := workflow.Compile("a", []byte(`apiVersion: cairn.dev/v1alpha1
kind: Workflow
metadata: {name: a}
spec:
  inputs: {n: json, l: {type: lines, default: []}, e: {enum: [x, y], default: x}, f: {type: file, optional: true}}
  tasks: [{name: a, image: busybox}]
`), nil)
	if len(ps) > 0 {
		t.Fatal(problems(ps))
	}
	got, err := g.Arguments(map[string]string{"n": "[1]", "l": "a\nb"}, map[string]workflow.Value{"f": &workflow.File{Digest: "d"}})
	if err != nil || fmt.Sprintf("%v %v %s", got["l"], got["n"], got["f"].(*workflow.File).Digest) != "[a b] [1] d" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, c := range []struct {
		given map[string]string
		files map[string]workflow.Value
		want  string
	}{
		{nil, nil, `"n" is missing`},
		{map[string]string{"n": "{"}, nil, "is not JSON"},
		{map[string]string{"n": "1", "e": "z"}, nil, "none of x, y"},
		{map[string]string{"n": "1", "nn": "z"}, nil, "did you mean n?"},
		{map[string]string{"n": "1"}, map[string]workflow.Value{"g": &workflow.File{}}, `no parameter "g"`},
		{map[string]string{"n": "1"}, map[string]workflow.Value{"n": []any{}}, "given twice"},
		{nil, map[string]workflow.Value{"n": &workflow.File{}}, "takes no file"},
		{map[string]string{"n": "1"}, map[string]workflow.Value{"f": []any{}}, "json does"},
	} {
		if _, err := g.Arguments(c.given, c.files); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v gave %v, want %q", c.given, err, c.want)
		}
	}
}

func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x]\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [*a%d, *a%d]\n", i, i, i-1, i-1)
	}
	_, ps := workflow.Compile("bomb", []byte(b.String()), nil)
	if len(ps) != 1 || !strings.Contains(ps[0].Text, "too large") {
		t.Errorf("got %s", problems(ps))
	}
}

func FuzzCompile(f *testing.F) {
	for _, g := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml"} {
		files, _ := filepath.Glob(g)
		for _, file := range files {
			if b, err := os.ReadFile(file); err == nil {
				f.Add(b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g, ps := workflow.Compile("f", b, nil)
		if (g == nil) == (len(ps) == 0) {
			t.Errorf("a graph %v and %d problems", g != nil, len(ps))
		}
		workflow.CompileSchedule("f", b, nil)
	})
}

// Whatever a value holds comes out as it went in.
func FuzzValue(f *testing.F) {
	for _, s := range []string{"", "a", "${{ run.name }}", "}}", "\"'\n\\", "{{inputs.parameters.x}}", "😀"} {
		f.Add(s)
	}
	doc := "apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: one}\nspec:\n  inputs: {v: text}\n  tasks:\n  - {name: a, image: b, command: ['${{ inputs.v }}', '<${{ inputs.v }}>']}\n"
	g, ps := workflow.Compile("one", []byte(doc), nil)
	if len(ps) > 0 {
		f.Fatal(problems(ps))
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := g.Templates["main/a"].Leaf.Render(workflowtest.Inputs(map[string]any{"inputs.v": s}))
		if strings.Contains(s, "\x00") {
			if err == nil {
				t.Fatal("a NUL went through")
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if got.Command[0] != s || got.Command[1] != "<"+s+">" {
			t.Errorf("%q became %q", s, got.Command)
		}
	})
}

// The schema has each field that the reader has, with a type and with what it is
// for, wherever it stands.
func TestSchema(t *testing.T) {
	var s struct {
		AnyOf []struct{ Properties map[string]any }
	}
	if err := json.Unmarshal(workflow.Schema(), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.AnyOf) != 2 {
		t.Fatalf("%d kinds of documents", len(s.AnyOf))
	}
	fields := 0
	var look func(at string, v any)
	look = func(at string, v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				look(at, e)
			}
		case map[string]any:
			for k, e := range v {
				if k != "properties" {
					look(at, e)
					continue
				}
				for name, f := range e.(map[string]any) {
					fields++
					m, _ := f.(map[string]any)
					if words, _ := m["description"].(string); len(words) < 10 || !strings.HasSuffix(words, ".") {
						t.Errorf("%s.%s is said to be %q", at, name, words)
					}
					look(at+"."+name, f)
				}
			}
		}
	}
	for _, d := range s.AnyOf {
		look("", map[string]any{"properties": d.Properties})
		for k, f := range d.Properties["spec"].(map[string]any)["properties"].(map[string]any) {
			if len(f.(map[string]any)) < 2 {
				t.Errorf("spec.%s has no type", k)
			}
		}
	}
	if fields < 300 {
		t.Errorf("%d fields", fields)
	}
}

// What a task remembers is its own, though another one has the same key: the
// item, often.
func TestCaches(t *testing.T) {
	caches := func(name, task, cache string) string {
		g, ps := workflow.Compile("a", []byte("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: "+name+"}\nspec: {tasks: [{name: "+task+", image: a, forEach: [1], cache: {key: '${{ item }}'"+cache+"}}]}\n"), nil)
		if len(ps) > 0 {
			t.Fatal(problems(ps))
		}
		return g.Templates["main/"+task].Memo.Cache
	}
	for _, c := range []struct{ got, want string }{
		{caches("a", "one", ""), "workflow/a/one"},
		{caches("a-", "one", ""), "workflow/a/one"},
		{caches("a", "two", ""), "workflow/a/two"},
		{caches("b", "one", ""), "workflow/b/one"},
		{caches("b", "one", ", name: all"), "all"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

// A file of an item is put into the task wherever an argument names it, though
// nothing says before that the items are files.
func TestFileInsideAnArgument(t *testing.T) {
	g, ps := workflow.Compile("a", []byte(`apiVersion: cairn.dev/v1alpha1
kind: Workflow
metadata: {name: a}
spec:
  inputs: {items: json}
  tasks:
  - {name: a, image: busybox, forEach: "${{ inputs.items }}", args: ["--in=${{ item }}", "${{ item }}"]}
`), nil)
	if len(ps) > 0 {
		t.Fatal(problems(ps))
	}
	scope := workflowtest.Scope{"inputs": map[string]any{"parameters": map[string]any{"item": &workflow.File{Name: "b.png", Digest: "d"}}}}
	task, err := g.Templates["main/a"].Leaf.Render(scope)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(task.Args, " "); got != "--in=/cairn/in/0/b.png /cairn/in/1/b.png" || len(task.Inputs) != 2 || task.Inputs[0].Digest != "d" {
		t.Errorf("args %s with %+v", got, task.Inputs)
	}
}
