package machine

import (
	"strings"
	"testing"

	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

// Which calls matter may be known only when the run is; it is not forgotten
// with a restart.
func TestTargetOfArguments(t *testing.T) {
	for target, want := range map[string]string{
		"b":    "a=succeeded b=succeeded c=omitted run=succeeded",
		"b  c": "a=succeeded b=succeeded c=succeeded run=succeeded",
		"":     "a=succeeded b=succeeded c=succeeded run=succeeded",
		"d":    `target: there is no call "d"`,
	} {
		t.Run(target, func(t *testing.T) {
			g := worktest.Graph("g", map[string]*workflow.Template{"t": worktest.Task(),
				"main": worktest.DAG(worktest.Call("a", "t"), worktest.Call("b", "t", "a"), worktest.Call("c", "t", "a"))})
			g.Templates["main"].DAG.Target = worktest.Ref("workflow.parameters.target")
			s := &script{t: t, m: New(g), at: begin}
			s.do(Submitted{ID: "r", Name: "r", Namespace: "default", Args: map[string]workflow.Value{"target": target}})
			if phase, ended := s.m.Ended(); ended {
				if phase != Errored || !strings.Contains(s.m.Summary().Message, want) {
					t.Errorf("%s: %s", phase, s.m.Summary().Message)
				}
				return
			}
			var err error
			if s.m, err = Restore(g, s.m.Snapshot()); err != nil {
				t.Fatal(err)
			}
			s.all(ok)
			if got := s.phases(); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}
