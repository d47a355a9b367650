package machine

import (
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

// daemons is a workflow whose call "d" is a daemon that "a" needs.
func daemons(change func(*workflow.Graph)) *workflow.Graph {
	d := worktest.Task()
	d.Daemon = true
	a := worktest.With(worktest.Call("a", "t", "d"), "at", worktest.Ref("tasks.d.ip"))
	g := worktest.Graph("g", map[string]*workflow.Template{"main": worktest.DAG(worktest.Call("d", "d"), a), "d": d, "t": worktest.Task("at")})
	if change != nil {
		change(g)
	}
	return g
}

// take grants what there is, by the names of the calls.
func (s *script) take() map[string]Lease {
	out := map[string]Lease{}
	_, leases := s.m.Grant(s.at, "w", 100)
	for _, l := range leases {
		out[strings.SplitN(s.m.label(s.m.nodes[l.Node]), ":", 2)[0]] = l
	}
	return out
}

func (s *script) end(l Lease, r Result) {
	s.t.Helper()
	r.Node, r.Item, r.Attempt = l.Node, l.Item, l.Attempt
	s.do(&Ended{[]Result{r}})
}

func (s *script) serve(l Lease, at string) {
	s.t.Helper()
	s.do(Serving{l.Node, l.Item, l.Attempt, at})
}

// stops are the leases that were told to end since the last call.
func (s *script) stops() (out []Lease) {
	for _, e := range s.fx {
		if x, is := e.(Stop); is {
			out = append(out, Lease{Ref{x.Node, x.Item}, x.Attempt})
		}
	}
	s.fx = nil
	return out
}

// Whoever needs a daemon begins when it is ready, has its address, and its end is
// that of the daemon, which is no failure.
func TestDaemon(t *testing.T) {
	s := start(t, daemons(func(g *workflow.Graph) { g.Parallelism = 1 }))
	d := s.take()["d"]
	if got := s.take(); len(got) != 0 {
		t.Fatalf("%v began before the daemon was ready", got)
	}
	s.serve(d, "10.0.0.7")
	s.serve(d, "10.0.0.7") // an answer was lost
	a := s.take()["a"]
	out, _, err := s.m.Render(a.Ref, nil, false)
	if err != nil || len(out.Args) != 1 || out.Args[0] != "10.0.0.7" {
		t.Fatalf("a was rendered as %+v, %v", out, err)
	}
	v, _ := s.m.View(d.Ref, false)
	if v.Phase != Running || v.Address != "10.0.0.7" {
		t.Errorf("the daemon is %+v", v)
	}
	if len(s.stops()) > 0 {
		t.Error("it was stopped while somebody needed it")
	}
	s.end(a, Result{Phase: Succeeded})
	if got := s.stops(); len(got) != 1 || got[0] != d {
		t.Errorf("%v were told to end, want %v", got, d)
	}
	if _, over := s.m.Ended(); over {
		t.Error("the run ended before its daemon")
	}
	s.end(d, Result{Phase: Canceled, Exit: 143})
	if p, over := s.m.Ended(); p != Succeeded || !over || s.m.counts.Succeeded != 2 || s.m.counts.Serving != 0 {
		t.Errorf("the run is %v, %+v", p, s.m.counts)
	}
}

// What else may become of a daemon, and of the run then.
func TestDaemonEnds(t *testing.T) {
	ready := func(s *script) (d, a Lease) {
		d = s.take()["d"]
		s.serve(d, "10.0.0.7")
		return d, s.take()["a"]
	}
	for name, c := range map[string]struct {
		change func(*workflow.Graph)
		do     func(s *script)
		want   string
	}{
		"before it is ready": {do: func(s *script) { s.end(s.take()["d"], Result{Phase: Failed, Exit: 1}) }, want: "d=failed a=omitted run=failed"},
		"by itself, before it is ready": {do: func(s *script) {
			s.end(s.take()["d"], Result{Phase: Succeeded})
		}, want: "d=succeeded a=error run=error"}, // which has no address
		"by itself, while it is needed": {do: func(s *script) {
			d, a := ready(s)
			s.end(d, Result{Phase: Failed, Exit: 1, Message: "exit code 1"})
			s.end(a, Result{Phase: Succeeded})
		}, want: "d=succeeded a=succeeded run=succeeded"},
		"its worker is gone": {do: func(s *script) {
			d, a := ready(s)
			s.do(Lost{[]Ref{d.Ref}})
			d = s.take()["d"]
			s.serve(d, "10.0.0.8")
			if v, _ := s.m.View(d.Ref, false); v.Address != "10.0.0.8" || d.Attempt != 2 {
				s.t.Errorf("after the loss it is %+v", v)
			}
			s.end(a, Result{Phase: Succeeded})
			s.end(d, Result{Phase: Canceled})
		}, want: "d=succeeded a=succeeded run=succeeded"},
		"its worker is gone when nobody needs it": {do: func(s *script) {
			d, a := ready(s)
			s.end(a, Result{Phase: Succeeded})
			s.do(Lost{[]Ref{d.Ref}})
		}, want: "d=succeeded a=succeeded run=succeeded"},
		"who needs it fails": {do: func(s *script) {
			d, a := ready(s)
			s.end(a, Result{Phase: Failed, Exit: 1})
			s.end(d, Result{Phase: Canceled})
		}, want: "d=succeeded a=failed run=failed"},
		"the run is canceled": {do: func(s *script) {
			d, a := ready(s)
			s.do(Cancel{By: "ann"})
			if n := len(s.stops()); n != 2 {
				s.t.Errorf("%d tasks were stopped, want both", n)
			}
			s.end(d, Result{Phase: Canceled})
			s.end(a, Result{Phase: Canceled})
		}, want: "d=succeeded a=canceled run=canceled"},
		"the run has had its time": {change: func(g *workflow.Graph) { g.Deadline = time.Minute }, do: func(s *script) {
			d, a := ready(s)
			s.at = s.at.Add(time.Hour)
			s.do(Tick{})
			s.end(a, Result{Phase: Canceled})
			s.end(d, Result{Phase: Canceled})
		}, want: "d=succeeded a=canceled run=failed"},
		"it is tried again": {change: func(g *workflow.Graph) { g.Templates["d"].Retry = &workflow.Retry{Limit: worktest.Lit(1.0)} }, do: func(s *script) {
			d, a := ready(s)
			s.end(d, Result{Phase: Failed, Exit: 1})
			d = s.take()["d"]
			s.end(a, Result{Phase: Succeeded})
			s.end(d, Result{Phase: Canceled})
		}, want: "d=succeeded a=succeeded run=succeeded"},
		"the run is retried": {do: func(s *script) {
			d, a := ready(s)
			s.end(a, Result{Phase: Failed, Exit: 1})
			s.end(d, Result{Phase: Canceled})
			s.do(Retried{})
			again, a := ready(s)
			if again.Node == d.Node {
				s.t.Error("the daemon that ended serves again")
			}
			s.end(a, Result{Phase: Succeeded})
			s.end(again, Result{Phase: Canceled})
		}, want: "d=succeeded a=succeeded run=succeeded"},
		"alone": {change: func(g *workflow.Graph) { g.Templates["main"].DAG.Calls = g.Templates["main"].DAG.Calls[:1] }, do: func(s *script) {
			d := s.take()["d"]
			s.serve(d, "10.0.0.7")
			s.end(d, Result{Phase: Canceled})
		}, want: "d=succeeded run=succeeded"},
		"one for each item": {change: func(g *workflow.Graph) {
			calls := g.Templates["main"].DAG.Calls
			calls[0].Each = &workflow.Each{Items: worktest.Lit([]any{"x", "y"})}
			calls[1].Args[0].Value = worktest.Lit("")
		}, do: func(s *script) {
			s.do(Listed{Node: 2, N: 2, Items: []workflow.Value{"x", "y"}})
			held := s.take()
			s.serve(held["d(0"], "10.0.0.7")
			if got := s.take(); len(got) > 0 {
				s.t.Errorf("%v began before both were ready", got)
			}
			s.serve(held["d(1"], "10.0.0.8")
			s.end(s.take()["a"], Result{Phase: Succeeded})
			for _, l := range s.stops() {
				s.end(l, Result{Phase: Canceled})
			}
		}, want: "d=succeeded a=succeeded run=succeeded"},
		"as the entry": {change: func(g *workflow.Graph) { g.Entry = "d" }, do: func(s *script) {
			_, leases := s.m.Grant(s.at, "w", 1)
			s.serve(leases[0], "10.0.0.7")
			s.end(leases[0], Result{Phase: Canceled})
		}, want: "run=succeeded"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, daemons(c.change))
			c.do(s)
			got := "run=" + s.m.phase.String()
			if s.m.root.dag != nil {
				got = s.phases()
			}
			if got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			again, err := Restore(s.m.graph, s.m.Snapshot())
			if err != nil || string(again.Snapshot()) != string(s.m.Snapshot()) {
				t.Errorf("what is stored is not what was: %v", err)
			}
		})
	}
}
