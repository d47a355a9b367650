package workflow_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/workflowtest"
)

// A request is made of a task, and its outputs of the object.
func TestRequest(t *testing.T) {
	doc, err := os.ReadFile("testdata/good/resource.yaml")
	if err != nil {
		t.Fatal(err)
	}
	g, ps := workflow.Compile("resource.yaml", doc, nil)
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	if g.Cluster == "" {
		t.Error("it can be run anywhere")
	}
	in := workflowtest.Inputs(map[string]any{"inputs.name": "a: b", "tasks.make.outputs.name": "demo-1", "inputs.whole": map[string]any{"kind": "A"}})
	in["retries"] = 1.0
	for name, want := range map[string]string{
		"main/make": `{"action":"create","manifest":{"apiVersion":"batch/v1","kind":"Job","metadata":{"generateName":"a: b-"},"spec":{"parallelism":2,"template":{"spec":{"containers":[{"args":["a: b",3],"image":"busybox","name":"a"}]}}}},` +
			`"success":"status.succeeded \u003e 0","failure":"status.failed \u003e 3","owner":{"apiVersion":"","kind":"","name":"","uid":""},"try":1}`,
		"main/look":  `{"action":"patch","manifest":{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"demo-1"},"spec":{"suspend":true}},"patch":"merge","try":1}`,
		"main/whole": `{"action":"apply","manifest":{"kind":"A"},"try":1}`,
	} {
		got, err := g.Templates[name].Leaf.Render(in)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := json.Marshal(got.Resource); string(b) != want {
			t.Errorf("%s is %s\nwant %s", name, b, want)
		}
		if name == "main/make" && (got.Pod["serviceAccountName"] != "maker" || len(got.Outputs) != 1) {
			t.Errorf("%+v", got)
		}
	}
	r := g.Templates["main/make"].Leaf.(workflow.Reader)
	out, err := r.Read(`{"metadata": {"name": "demo-1"}, "status": {"succeeded": 2}}`)
	if err != nil || *out["name"].Text != "demo-1" || *out["status"].Text != `{"succeeded":2}` {
		t.Errorf("%v, %v", out, err)
	}
	if out, err = r.Read(`{"metadata": {"name": "demo-1"}}`); err != nil || *out["status"].Text != `{}` {
		t.Errorf("%v, %v", out, err)
	}
	if _, err = r.Read(""); err == nil || !strings.Contains(err.Error(), "output name") {
		t.Errorf("of nothing: %v", err)
	}
}
