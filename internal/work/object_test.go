package work_test

import (
	"errors"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

// shouter is a leaf whose output is its object, in capitals.
type shouter struct{ worktest.Leaf }

func (shouter) Read(object string) (map[string]task.Produced, error) {
	if object == "bad" {
		return nil, errors.New("output loud: it is bad")
	}
	loud := strings.ToUpper(object)
	return map[string]task.Produced{"loud": {Text: &loud}}, nil
}

// What a task ended with becomes what its workflow wants of it, whatever else is
// called so.
func TestObjects(t *testing.T) {
	for object, want := range map[string]string{"hello": "HELLO", "": "", "bad": ""} {
		r := newRig(t, work.Config{})
		reads := &workflow.Template{Name: "a", Leaf: shouter{}, Outputs: []workflow.Output{{Name: "loud"}}}
		plain := worktest.Task()
		plain.Outputs = []workflow.Output{{Name: task.Object}}
		id := r.submit(worktest.Graph("g", map[string]*workflow.Template{"main": worktest.DAG(worktest.Call("a", "a"), worktest.Call("b", "b")), "a": reads, "b": plain}))
		outcomes := []task.Outcome{}
		r.work(func(task.Lease) task.Outcome {
			o := task.Outcome{Phase: task.Succeeded, Outputs: map[string]task.Produced{task.Object: {Text: &object}}}
			outcomes = append(outcomes, o)
			return o
		})
		for _, o := range outcomes {
			if o.Outputs[task.Object].Text == nil {
				t.Error("what was reported was changed")
			}
		}
		nodes, _, err := r.s.Nodes(t.Context(), id, "", "", 20, machine.Filter{})
		if err != nil || len(nodes) == 0 {
			t.Fatal(nodes, err)
		}
		seen := 0
		below, _, err := r.s.Nodes(t.Context(), id, nodes[0].ID, "", 20, machine.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range below {
			x, err := r.s.Node(t.Context(), id, n.ID)
			if err != nil {
				t.Fatal(err)
			}
			params, _ := x.Outputs["parameters"].(map[string]any)
			switch {
			case n.Name == "b" && params[task.Object] == object:
				seen++
			case n.Name == "a" && object == "bad" && n.Phase == machine.Failed && strings.Contains(n.Message, "it is bad") && len(params) == 0:
				seen++
			case n.Name == "a" && object != "bad" && params["loud"] == want && len(params) == 1:
				seen++
			default:
				t.Errorf("%q: %s is %v (%s) with %v", object, n.Name, n.Phase, n.Message, params)
			}
		}
		if seen != 2 {
			t.Errorf("%d nodes", seen)
		}
	}
}

// What only a cluster can run is not taken for a pool that is none.
func TestClusterOnly(t *testing.T) {
	r := newRig(t, work.Config{})
	g := worktest.Graph("g", map[string]*workflow.Template{"main": worktest.Task()})
	g.Cluster = "it wants one"
	r.graphs.Add(g)
	if _, err := r.s.Submit(t.Context(), g, "ann", work.Options{}); !errors.Is(err, work.ErrInvalid) || !strings.Contains(err.Error(), "because it wants one") {
		t.Errorf("submitted: %v", err)
	}
	if _, err := r.s.Submit(t.Context(), g, "ann", work.Options{Pool: work.ClusterPool + "prod"}); err != nil {
		t.Error(err)
	}
}
