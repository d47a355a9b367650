package argo_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/argo"
	"cairn.dev/cairn/internal/workflow/workflowtest"
)

type scope = workflowtest.Scope

// main compiles a workflow whose one template is given.
func main(t testing.TB, template string) *workflow.Template {
	t.Helper()
	doc := "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: a}\nspec:\n  entrypoint: main\n  arguments: {parameters: [{name: x, value: '1'}, {name: y, value: '1'}]}\n  templates:\n  - name: main\n" + template +
		"\n  - name: fine\n    inputs: {parameters: [{name: v, value: ''}]}\n    container: {image: busybox}\n    outputs: {parameters: [{name: p, valueFrom: {path: /p}}]}\n"
	g, ps := argo.Compile("a", []byte(doc), argo.Options{})
	if len(ps) > 0 {
		t.Fatalf("%s\n%s", doc, problems(ps))
	}
	return g.Templates["main"]
}

// when compiles a condition over inputs.parameters.x and y.
func when(t testing.TB, text string) (workflow.Expr, []workflow.Problem) {
	t.Helper()
	doc := "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: a}\nspec:\n  entrypoint: main\n  templates:\n  - name: main\n    inputs: {parameters: [{name: x, value: ''}, {name: y, value: ''}]}\n    steps: [[{name: a, template: fine, when: " + fmt.Sprintf("%q", text) + "}]]\n  - {name: fine, container: {image: busybox}}\n"
	g, ps := argo.Compile("a", []byte(doc), argo.Options{})
	if len(ps) > 0 {
		return nil, ps
	}
	return g.Templates["main"].DAG.Calls[0].When, nil
}

func TestWhen(t *testing.T) {
	for _, c := range []struct {
		text, x, y string
		want       any // a bool, or part of an error
	}{
		{"{{inputs.parameters.x}} == heads", "heads", "", true},
		{"{{inputs.parameters.x}} == heads", "tails", "", false},
		{"{{inputs.parameters.x}} != heads", "tails", "", true},
		{"{{inputs.parameters.x}} == 3", "3.0", "", true},
		{"{{inputs.parameters.x}} < 10", "9", "", true},
		{"{{inputs.parameters.x}} < {{inputs.parameters.y}}", "10", "9", false},
		{"{{inputs.parameters.x}} < {{inputs.parameters.y}}", "a", "b", true},
		{"'{{inputs.parameters.x}}' == 'a b'", "a b", "", true},
		{"\"pre-{{inputs.parameters.x}}-post\" == pre-a-post", "a", "", true},
		{"pre-{{inputs.parameters.x}} == pre-a", "a", "", true},
		{"{{inputs.parameters.x}} =~ '^a+$'", "aaa", "", true},
		{"{{inputs.parameters.x}} !~ '^a+$'", "aab", "", true},
		{"{{inputs.parameters.x}} in (a, 'b c', 3)", "b c", "", true},
		{"{{inputs.parameters.x}} in (a, b)", "c", "", false},
		{"true", "", "", true},
		{"{{inputs.parameters.x}}", "true", "", true},
		{"!{{inputs.parameters.x}}", "false", "", true},
		{"( {{inputs.parameters.x}} == a && {{inputs.parameters.y}} == b ) || false", "a", "b", true},
		{"{{inputs.parameters.x}} + 1 == 4", "3", "", true},
		{"{{inputs.parameters.x}} % 2 == 0", "4", "", true},
		{"{{=asInt(inputs.parameters.x) > 3}}", "4", "", true},
		{"{{inputs.parameters.x}} == {{inputs.parameters.y}}", "", "", true},
		// What a value holds is not read as part of the condition.
		{"'{{inputs.parameters.x}}' == 'a'", "b' == 'b' || 'a", "", false},
		{"{{inputs.parameters.x}} == a", "b || true", "", false},
		{"{{inputs.parameters.x}}", "1 == 1", "", "neither true nor false"},
		{"{{inputs.parameters.x}} == a", "{{inputs.parameters.y}}", "a", false},
		{"{{inputs.parameters.x}}", "yes", "", "neither true nor false"},
	} {
		e, ps := when(t, c.text)
		if ps != nil {
			t.Errorf("%s: %s", c.text, problems(ps))
			continue
		}
		got, err := e.Eval(workflowtest.Inputs(map[string]any{"x": c.x, "y": c.y}))
		if want, ok := c.want.(string); ok {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s with %q: got %v, %v; want %q", c.text, c.x, got, err, want)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%s with %q and %q: got %v, %v; want %v", c.text, c.x, c.y, got, err, c.want)
		}
	}
	for text, want := range map[string]string{
		"a ==":                "something is missing at its end",
		"(a == b":             "( has no )",
		"a b":                 "Texts with blanks stand in quotes",
		"a == 'b":             "a quote is not closed",
		"a =~ '('":            "no regular expression",
		"a in b":              "in wants a list",
		"{{inputs}} == a":     "there is no such variable here",
		"{{steps.b.status}}":  "there is no such call",
		"{{steps.a.status}}":  "has not ended before",
		"a & b":               "is no operator",
		"{{inputs.parameters": "has no }}",
	} {
		if _, ps := when(t, text); !strings.Contains(problems(ps), want) {
			t.Errorf("%s: got %s; want %q", text, problems(ps), want)
		}
	}
}

func TestDepends(t *testing.T) {
	for _, c := range []struct {
		text  string
		a, b  string
		want  any
		needs string
	}{
		{"a", "", "", nil, "a"},
		{"a && b", "", "", nil, "a b"},
		{"a.Failed", "Failed", "", true, "a"},
		{"a.Failed", "Succeeded", "", false, "a"},
		{"a || b", "Failed", "Skipped", true, "a b"},
		{"!a.Succeeded && (b.AnySucceeded || b.AllFailed)", "Failed", "AllFailed", true, "a b"},
		{"(a.Succeeded||b.Failed)", "Omitted", "Errored", false, "a b"},
	} {
		tmpl := main(t, "    dag:\n      tasks: [{name: a, template: fine}, {name: b, template: fine}, {name: c, template: fine, depends: '"+c.text+"'}]")
		call := tmpl.DAG.Calls[2]
		if got := strings.Join(call.Needs, " "); got != c.needs {
			t.Errorf("%s needs %s, want %s", c.text, got, c.needs)
		}
		if c.want == nil {
			if call.Depends != nil {
				t.Errorf("%s is what the graph does by itself, and has an expression", c.text)
			}
			continue
		}
		got, err := call.Depends.Eval(scope{"needs": map[string]any{"a": map[string]any{c.a: true}, "b": map[string]any{c.b: true}}})
		if err != nil || got != c.want {
			t.Errorf("%s with a %s and b %s is %v, %v; want %v", c.text, c.a, c.b, got, err, c.want)
		}
	}
}

// TestFanOut sees the outputs of a fan-out as Argo shows them: as JSON.
func TestFanOut(t *testing.T) {
	tmpl := main(t, `    steps:
    - - {name: a, template: fine, withItems: [1, 2]}
    - - {name: b, template: fine, arguments: {parameters: [{name: v, value: "{{steps.a.outputs.parameters}} {{steps.a.outputs.parameters.p}}"}]}}
      - {name: c, template: fine, withParam: "{{steps.a.outputs.parameters.p}}"}`)
	s := scope{"steps": map[string]any{"a": map[string]any{"outputs": map[string]any{"parameters": map[string]any{"p": []any{"x", "y"}}}}}}
	got, err := tmpl.DAG.Calls[1].Args[0].Value.Eval(s)
	if want := `[{"p":"x"},{"p":"y"}] ["x","y"]`; err != nil || got != want {
		t.Errorf("got %v, %v; want %s", got, err, want)
	}
	got, err = tmpl.DAG.Calls[2].Each.Items.Eval(s)
	if list, ok := got.([]any); err != nil || !ok || len(list) != 2 {
		t.Errorf("items are %v, %v; want the list itself", got, err)
	}
}

func TestRender(t *testing.T) {
	tmpl := main(t, `    inputs:
      parameters: [{name: x, value: a}]
      artifacts: [{name: f, path: "/in/{{inputs.parameters.x}}", optional: true}, {name: r, path: /in/r, raw: {data: "<{{inputs.parameters.x}}>"}}]
    timeout: "{{inputs.parameters.x}}s"
    script:
      image: "busybox:{{inputs.parameters.x}}"
      command: [sh]
      source: "cat {{inputs.artifacts.f.path}} > {{outputs.parameters.o.path}}; {{pod.name}} {{retries}}"
      env: [{name: A, value: "{{workflow.name}}/{{inputs.parameters.x}}"}]
    outputs:
      parameters: [{name: o, valueFrom: {path: "/out/{{inputs.parameters.x}}"}}]`)
	s := scope{
		"inputs":   map[string]any{"parameters": map[string]any{"x": "7"}, "artifacts": map[string]any{"f": &workflow.File{Digest: "sha256:1"}}},
		"workflow": map[string]any{"name": "w"}, "pod": map[string]any{"name": "p"}, "retries": float64(2),
	}
	got, err := tmpl.Leaf.Render(s)
	if err != nil {
		t.Fatal(err)
	}
	if got.Image != "busybox:7" || got.Script != "cat /in/7 > /out/7; p 2" || got.Env[0].Value != "w/7" || got.Timeout.String() != "7s" || got.Outputs[0].Path != "/out/7" {
		t.Errorf("got %+v", got)
	}
	if len(got.Inputs) != 2 || got.Inputs[0].Path != "/in/7" || got.Inputs[0].Digest != "sha256:1" || string(got.Inputs[1].Content) != "<7>" {
		t.Errorf("inputs are %+v", got.Inputs)
	}
	delete(s, "workflow")
	if _, err := tmpl.Leaf.Render(s); err == nil || !strings.Contains(err.Error(), "{{workflow.name}} has no value here") {
		t.Errorf("a value that is not there gave %v", err)
	}
}

// A default is worked out where the template is called: it would see the inputs
// of whoever calls, under the same names.
func TestDefaultsSeeNoInputs(t *testing.T) {
	for _, in := range []string{"parameters: [{name: x, value: a}, {name: y, value: '{{inputs.parameters.x}}'}]", "{parameters: [{name: x, value: a}], artifacts: [{name: f, raw: {data: '{{inputs.parameters.x}}'}}]}"} {
		doc := "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: a}\nspec:\n  entrypoint: main\n  templates:\n  - name: main\n    inputs:\n      " + in + "\n    steps: [[{name: a, inline: {container: {image: busybox}}}]]\n"
		if _, ps := argo.Compile("a", []byte(doc), argo.Options{}); !strings.Contains(problems(ps), "no such input") {
			t.Errorf("%s: got %s", in, problems(ps))
		}
	}
}

func TestExpressions(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"asInt(inputs.parameters.x) * 2", "14"},
		{"asInt(inputs.parameters.x) + asInt(0.7) + asInt(-1.9)", "6"}, // a duration is no whole number of seconds
		{"inputs.parameters['x'] + 'a'", "7a"},
		{"inputs.parameters.y == 'a' ? 1 : 2", "2"},
		{"toJson(map(1..3, {# * 2}))", "[2,4,6]"},
		{"sprig.trim('  a ') + sprig.repeat(2, 'b')", "abb"},
		{"jsonpath('{\"a\": [{\"b\": 1}, {\"b\": 2}]}', '$.a[*].b')", "[1,2]"},
		{"string(asFloat('1.5') + 1)", "2.5"},
		{"{{inputs.parameters.x}} == 7 ? 'n' : 's'", "n"},
		{"'{{inputs.parameters.y}}' + '!'", `q" + "'; {{=1}}!`},
		{"sprig.repeat(1000000000, 'abc')", "error"},
		{"now()", "error"},
		{"count(1..1000, {count(1..1000, {# > 0}) > 0})", "error"},
		{"sprig.env('HOME')", "error"},
		{"inputs.parameters.x.y.z", "error"},
		{"fromJSON('null')", "error"},
	} {
		tmpl := main(t, "    inputs: {parameters: [{name: x, value: '1'}, {name: y, value: '1'}]}\n    container: {image: busybox, args: ["+fmt.Sprintf("%q", "{{="+c.text+"}}")+"]}")
		got, err := tmpl.Leaf.Render(workflowtest.Inputs(map[string]any{"x": "7", "y": `q" + "'; {{=1}}`}))
		switch {
		case c.want == "error":
			if err == nil {
				t.Errorf("%s gave %q", c.text, got.Args)
			}
		case err != nil || got.Args[0] != c.want:
			t.Errorf("%s gave %+v, %v; want %s", c.text, got, err, c.want)
		}
	}
}

func TestExpressionsThatCannotBe(t *testing.T) {
	for text, want := range map[string]string{
		"inputs.parameters.z":       "there is no inputs.parameters.z",
		"steps.a.status":            "no call \"a\" of this template",
		"workflow.parameters['z']":  "there is no workflow.parameters.z",
		"1 +":                       "unexpected token",
		"repeat('a', 1000)":         "unknown name repeat",
		"asInts(1)":                 "unknown name asInts: did you mean asInt?",
		"{{inputs.parameters.z}}+1": "no such input",
	} {
		doc := "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: a}\nspec:\n  entrypoint: main\n  templates: [{name: main, container: {image: busybox, args: [" + fmt.Sprintf("%q", "{{="+text+"}}") + "]}}]\n"
		if _, ps := argo.Compile("a", []byte(doc), argo.Options{}); !strings.Contains(problems(ps), want) {
			t.Errorf("%s: got %s; want %q", text, problems(ps), want)
		}
	}
}

func TestSuccess(t *testing.T) {
	for _, c := range []struct {
		condition string
		status    int
		want      bool
	}{
		{"", 204, true}, {"", 404, false},
		{"response.statusCode == 404", 404, true},
		{"response.body contains 'ok' && response.headers['X'] == 'y'", 500, true},
	} {
		got, err := argo.Success(c.condition, c.status, "it is ok", map[string]string{"X": "y"})
		if err != nil || got != c.want {
			t.Errorf("%q of %d is %v, %v", c.condition, c.status, got, err)
		}
	}
	if _, err := argo.Success("response.statusCode", 200, "", nil); err == nil {
		t.Error("a number decided")
	}
}

// Every field that a table names has a fate, and none without a reason.
func TestRefusedWithReasons(t *testing.T) {
	doc := "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: a}\nspec:\n  entrypoint: main\n  affinity: {}\n  hostNetwork: true\n  templates:\n  - {name: main, container: {image: busybox, tty: true, livenessProbe: {}}}\n"
	_, ps := argo.Compile("a", []byte(doc), argo.Options{})
	var paths []string
	for _, p := range ps {
		paths = append(paths, fmt.Sprintf("%d:%d %s", p.Line, p.Column, p.Path))
	}
	want := []string{"6:3 spec.affinity", "7:3 spec.hostNetwork", "9:46 spec.templates[0].container.tty", "9:57 spec.templates[0].container.livenessProbe"}
	if !slices.Equal(paths, want) {
		t.Errorf("got %v, want %v\n%s", paths, want, problems(ps))
	}
	_, ps = argo.Compile("a", []byte(strings.Replace(doc, "tty: true, livenessProbe: {}", "name: x", 1)), argo.Options{Cluster: true})
	if len(ps) > 0 {
		t.Errorf("with a cluster: %s", problems(ps))
	}
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: a}\nspec: {entrypoint: a, templates: [{name: a, dag: {tasks: [{name: b, template: a, depends: 'b || !c', when: '{{=item}} in (1)'}]}}]}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, ps := argo.Compile("f", b, argo.Options{})
		if (g == nil) == (len(ps) == 0) {
			t.Errorf("a graph %v and %d problems", g != nil, len(ps))
		}
		argo.Compile("f", b, argo.Options{Cluster: true})
		argo.CompileSchedule("f", b, argo.Options{})
	})
}

func FuzzWhen(f *testing.F) {
	f.Add("{{inputs.parameters.x}} == 'a' && (b in (1, 2)) || !c =~ d", "x")
	f.Fuzz(func(t *testing.T, text, x string) {
		if e, _ := when(t, text); e != nil {
			_, _ = e.Eval(workflowtest.Inputs(map[string]any{"x": x, "y": x}))
		}
	})
}

// Whatever a value holds comes out as it went in, and is compared as it is.
func FuzzValue(f *testing.F) {
	for _, s := range []string{"", "a", "{{inputs.parameters.y}}", "{{=1+1}}", "}}", "\"'\n\\", "' == '", "😀", "1e3", "true"} {
		f.Add(s)
	}
	tmpl := main(f, "    inputs: {parameters: [{name: x, value: '1'}]}\n    script: {image: busybox, command: ['{{inputs.parameters.x}}'], source: '<{{inputs.parameters.x}}{{=inputs.parameters.x}}>'}")
	cond, _ := when(f, "'{{inputs.parameters.x}}' == '{{inputs.parameters.y}}'")
	f.Fuzz(func(t *testing.T, s string) {
		in := workflowtest.Inputs(map[string]any{"x": s, "y": s})
		if v, err := cond.Eval(in); err != nil || v != true {
			t.Errorf("%q is not itself: %v, %v", s, v, err)
		}
		got, err := tmpl.Leaf.Render(in)
		if strings.Contains(s, "\x00") {
			if err == nil {
				t.Error("a NUL went through")
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if got.Command[0] != s || got.Script != "<"+s+s+">" {
			t.Errorf("%q became %q and %q", s, got.Command[0], got.Script)
		}
	})
}

// Argo's times have seconds: what a retry sees of the last attempt is a whole
// number, which its examples read as one.
func TestLastRetry(t *testing.T) {
	doc := "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: a}\nspec:\n  entrypoint: main\n  templates:\n  - name: main\n    retryStrategy: {limit: '3', expression: \"asInt(lastRetry.duration) < 3 && asInt(lastRetry.exitCode) == 2\"}\n    container: {image: busybox}\n"
	g, ps := argo.Compile("a", []byte(doc), argo.Options{})
	if len(ps) > 0 {
		t.Fatal(problems(ps))
	}
	for duration, want := range map[float64]bool{2.981: true, 3.001: false} {
		s := scope{"lastRetry": map[string]any{"duration": duration, "exitCode": float64(2)}}
		if got, err := g.Templates["main"].Retry.When.Eval(s); err != nil || got != want {
			t.Errorf("after %v s: %v, %v", duration, got, err)
		}
	}
}
