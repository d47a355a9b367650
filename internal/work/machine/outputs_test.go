package machine

import (
	"reflect"
	"testing"

	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

// What a run leaves is, of ours, what its workflow says; of Argo's what has a
// global name.
func TestOutputsOfRuns(t *testing.T) {
	for front, want := range map[string]map[string]workflow.Value{
		"cairn": {"parameters": map[string]any{"sum": "6"}},
		"argo":  {"parameters": map[string]any{"everywhere": "6"}},
	} {
		g := worktest.Graph("g", map[string]*workflow.Template{"main": worktest.DAG(worktest.Call("a", "t")), "t": worktest.Task()})
		g.Front = front
		g.Templates["main"].Outputs = []workflow.Output{{Name: "sum", From: worktest.Lit("6"), Global: map[string]string{"argo": "everywhere"}[front]}}
		s := start(t, g)
		for _, l := range grants(s) {
			s.do(&Ended{Results: []Result{{Node: l.Node, Item: l.Item, Attempt: l.Attempt, Phase: Succeeded}}})
		}
		if got := s.m.Summary(); got.Phase != Succeeded || !reflect.DeepEqual(got.Outputs, want) {
			t.Errorf("%s: %s, %v, want %v", front, got.Phase, got.Outputs, want)
		}
	}
}
