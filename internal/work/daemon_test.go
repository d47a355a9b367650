package work_test

import (
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

// That a daemon is ready is taken from whoever holds it, outlives a start, and has
// those go on that need it, whatever the run's bounds; its end is asked for with
// a beat.
func TestDaemon(t *testing.T) {
	r := newRig(t, work.Config{MaxPerRun: 1})
	d := worktest.Task()
	d.Daemon = true
	a := worktest.With(worktest.Call("a", "t", "d"), "at", worktest.Ref("tasks.d.ip"))
	id := r.submit(worktest.Graph("daemon", map[string]*workflow.Template{"main": worktest.DAG(worktest.Call("d", "d"), a), "d": d, "t": worktest.Task("at")}))
	held := r.ask(task.Ask{Worker: "w", Want: 9}).Leases
	if len(held) != 1 {
		t.Fatalf("%d tasks are to be had, want the daemon", len(held))
	}
	forged := held[0].Ref
	forged.Token = "nothing"
	for what, bad := range map[string]task.Serving{"a token that nobody gave": {Ref: forged, Address: "10.0.0.7"}, "what is no address": {Ref: held[0].Ref, Address: "here"}} {
		if g := r.ask(task.Ask{Worker: "w", Want: 9, Serving: []task.Serving{bad}}); len(g.Refused) != 1 || len(g.Leases) != 0 {
			t.Errorf("%s: %+v", what, g)
		}
	}
	ready := []task.Serving{{Ref: held[0].Ref, Address: "10.0.0.7"}}
	r.ask(task.Ask{Worker: "w", Serving: ready})
	r.restart()
	r.ask(task.Ask{Worker: "w", Serving: ready})
	g := r.ask(task.Ask{Worker: "v", Want: 9})
	if len(g.Leases) != 1 || g.Bodies[0].Args[0] != "10.0.0.7" {
		t.Fatalf("%+v", g)
	}
	beat := func() task.Beaten {
		t.Helper()
		b, err := r.s.Beat(t.Context(), task.Beat{Worker: "w", Held: []task.Ref{held[0].Ref}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	r.pass(20 * time.Second)
	if b := beat(); len(b.Cancel)+len(b.Lost) != 0 {
		t.Errorf("a daemon that is needed: %+v", b)
	}
	r.ask(task.Ask{Worker: "v", Outcomes: done(g.Leases[0])})
	if b := beat(); len(b.Cancel) != 1 {
		t.Errorf("a daemon that nothing needs: %+v", b)
	}
	r.ask(task.Ask{Worker: "w", Outcomes: []task.Outcome{{Ref: held[0].Ref, Phase: task.Canceled}}})
	if i := r.get(id); i.Phase != machine.Succeeded || i.Counts.Succeeded != 2 || i.Counts.Crashes != 0 {
		t.Errorf("%+v", i)
	}
	r.settle()
}
