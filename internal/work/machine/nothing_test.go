package machine

import (
	"reflect"
	"testing"

	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

// What is gathered of no items is empty, and there: whoever maps a list that is
// empty gets an empty list.
func TestNothingIsGathered(t *testing.T) {
	want := map[string]workflow.Value{"result": []any{}, "parameters": map[string]any{"p": []any{}}, "artifacts": map[string]any{"f": []any{}}}
	outputs := []workflow.Output{{Name: "r", Result: true}, {Name: "p"}, {Name: "f", Artifact: true}}
	for name, c := range map[string]struct {
		items []any
		when  workflow.Expr
		inner bool // the items are DAGs
		phase Phase
	}{
		"no items":                {phase: Skipped},
		"no items of a DAG":       {inner: true, phase: Skipped},
		"all are skipped":         {items: []any{"a", "b"}, when: worktest.Lit(false), phase: Succeeded},
		"all are skipped of DAGs": {items: []any{"a", "b"}, when: worktest.Lit(false), inner: true, phase: Succeeded},
	} {
		t.Run(name, func(t *testing.T) {
			each := worktest.Call("each", "t")
			each.Each, each.When = &workflow.Each{Items: worktest.Lit(c.items)}, c.when
			g := worktest.Graph("g", map[string]*workflow.Template{"main": worktest.DAG(each), "t": worktest.Task(), "leaf": worktest.Task()})
			if c.inner {
				g.Templates["t"] = worktest.DAG(worktest.Call("a", "leaf"))
				g.Templates["t"].Name = "t"
			}
			g.Templates["t"].Outputs = outputs
			s := start(t, g)
			s.do(Listed{Node: s.m.root.dag.children[0].id, N: uint32(len(c.items)), Items: c.items})
			for _, l := range grants(s) { // as the server does with those that their condition skips
				s.do(Judged{Verdicts: []Verdict{{Pick: Pick{Node: l.Node, Item: l.Item, Count: 1}}}})
			}
			n := s.m.root.dag.children[0]
			if s.m.phase != Succeeded || n.phase != c.phase || !reflect.DeepEqual(n.outputs, want) {
				t.Errorf("the run is %s, the items are %s and left %v", s.m.phase, n.phase, n.outputs)
			}
		})
	}
}

func grants(s *script) []Lease {
	_, leases := s.m.Grant(s.at, "w", 100)
	return leases
}
