package machine

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

// script is a run that is driven by hand.
type script struct {
	t  *testing.T
	m  *Machine
	at time.Time
	fx []Effect
}

func start(t *testing.T, g *workflow.Graph) *script {
	s := &script{t: t, m: New(g), at: begin}
	s.do(Submitted{ID: "r", Name: "r", Namespace: "default"})
	return s
}

func (s *script) do(e Event) {
	s.t.Helper()
	fx, err := s.m.Apply(s.at, e)
	if err != nil {
		s.t.Fatalf("%T: %v", e, err)
	}
	s.fx = append(s.fx, fx...)
}

// all grants everything and ends it by f.
func (s *script) all(f func(Lease) Result) (rounds []int) {
	for range 1000 {
		_, leases := s.m.Grant(s.at, "w", 1000)
		if len(leases) == 0 {
			next := s.m.Next()
			if next.IsZero() {
				return rounds
			}
			s.at = next
			s.do(Tick{})
			continue
		}
		rounds = append(rounds, len(leases))
		var e Ended
		for _, l := range leases {
			r := f(l)
			r.Node, r.Item, r.Attempt = l.Node, l.Item, l.Attempt
			e.Results = append(e.Results, r)
		}
		s.do(&e)
	}
	return rounds
}

func ok(Lease) Result { return Result{Phase: Succeeded} }

func bad(Lease) Result { return Result{Phase: Failed, Exit: 1, Message: "it failed"} }

func (s *script) phases() string {
	out := []string{}
	for i, c := range s.m.root.tmpl.DAG.Calls {
		out = append(out, c.Name+"="+s.m.root.dag.states[i].String())
	}
	return strings.Join(out, " ") + " run=" + s.m.phase.String()
}

func TestDAG(t *testing.T) {
	when := func(c *workflow.Call, e workflow.Expr) *workflow.Call { c.When = e; return c }
	depends := func(c *workflow.Call, what string) *workflow.Call {
		c.Depends = worktest.Is("needs."+c.Needs[0]+"."+what, true)
		return c
	}
	for name, c := range map[string]struct {
		calls []*workflow.Call
		fails string // the call that fails
		want  string
		tweak func(*workflow.Graph)
	}{
		"one after the other": {calls: []*workflow.Call{worktest.Call("a", "t"), worktest.Call("b", "t", "a")}, want: "a=succeeded b=succeeded run=succeeded"},
		"a failure omits":     {calls: []*workflow.Call{worktest.Call("a", "t"), worktest.Call("b", "t", "a")}, fails: "a", want: "a=failed b=omitted run=failed"},
		"skipped lets go on":  {calls: []*workflow.Call{when(worktest.Call("a", "t"), worktest.Lit(false)), worktest.Call("b", "t", "a")}, want: "a=skipped b=succeeded run=succeeded"},
		"a failure is handled": {calls: []*workflow.Call{worktest.Call("a", "t"), depends(worktest.Call("b", "t", "a"), "Failed")}, fails: "a",
			want: "a=failed b=succeeded run=succeeded"},
		"nothing to handle": {calls: []*workflow.Call{worktest.Call("a", "t"), depends(worktest.Call("b", "t", "a"), "Failed")}, want: "a=succeeded b=omitted run=succeeded"},
		"a failure that is allowed": {calls: []*workflow.Call{worktest.Call("a", "t"), worktest.Call("b", "t", "a")}, fails: "a", want: "a=failed b=succeeded run=succeeded",
			tweak: func(g *workflow.Graph) { g.Templates["main"].DAG.Calls[0].AllowFailed = true }},
		"a wrong condition": {calls: []*workflow.Call{when(worktest.Call("a", "t"), worktest.Ref("tasks.x.outputs.result"))}, want: "a=error run=error"},
		"targets": {calls: []*workflow.Call{worktest.Call("a", "t"), worktest.Call("b", "t", "a"), worktest.Call("c", "t", "b")}, want: "a=succeeded b=succeeded c=omitted run=succeeded",
			tweak: func(g *workflow.Graph) { g.Templates["main"].DAG.Targets = []string{"b"} }},
	} {
		t.Run(name, func(t *testing.T) {
			g := worktest.Graph("g", map[string]*workflow.Template{"main": worktest.DAG(c.calls...), "t": worktest.Task()})
			if c.tweak != nil {
				c.tweak(g)
			}
			s := start(t, g)
			s.all(func(l Lease) Result {
				if n := s.m.nodes[l.Node]; n.call.Name == c.fails {
					return bad(l)
				}
				return ok(l)
			})
			if got := s.phases(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestRetries(t *testing.T) {
	for name, c := range map[string]struct {
		retry   *workflow.Retry
		result  func(Lease) Result
		want    int // attempts
		elapsed time.Duration
		message string
	}{
		"none":          {result: bad, want: 1, message: "it failed"},
		"twice":         {retry: &workflow.Retry{Limit: worktest.Lit("2"), Delay: time.Second, Factor: 2}, result: bad, want: 3, elapsed: 3 * time.Second, message: "it failed"},
		"bounded delay": {retry: &workflow.Retry{Limit: worktest.Lit(3.0), Delay: time.Second, Factor: 10, MaxDelay: 2 * time.Second}, result: bad, want: 4, elapsed: 5 * time.Second, message: "it failed"},
		"by exit code":  {retry: &workflow.Retry{When: worktest.Is("lastRetry.exitCode", 7.0)}, result: bad, want: 1, message: "it failed"},
		"errors only":   {retry: &workflow.Retry{On: "error"}, result: bad, want: 1, message: "it failed"},
		"for a time":    {retry: &workflow.Retry{Delay: time.Second, For: 3 * time.Second}, result: bad, want: 4, elapsed: 3 * time.Second, message: "it failed"},
		"lost workers do not count": {retry: &workflow.Retry{Limit: worktest.Lit(0.0)}, result: func(Lease) Result { return Result{Phase: Errored, Infrastructure: true, Message: "no image"} },
			want: MaxCrashes, elapsed: 15 * time.Second, message: "set aside after 5 lost attempts: no image"},
	} {
		t.Run(name, func(t *testing.T) {
			task := worktest.Task()
			task.Retry = c.retry
			s := start(t, worktest.Graph("g", map[string]*workflow.Template{"main": worktest.DAG(worktest.Call("a", "t")), "t": task}))
			rounds := s.all(c.result)
			a := s.m.root.dag.children[0]
			if len(rounds) != c.want || s.at.Sub(begin) != c.elapsed || a.message != c.message {
				t.Errorf("%d attempts in %s: %q; want %d in %s: %q", len(rounds), s.at.Sub(begin), a.message, c.want, c.elapsed, c.message)
			}
		})
	}
}

func TestFanOut(t *testing.T) {
	g := worktest.Fan("fan", 1000)
	g.Templates["main"].DAG.Calls[0].Each.Parallelism = 100
	s := start(t, g)
	if rounds := s.all(ok); len(rounds) != 10 || s.m.phase != Succeeded {
		t.Errorf("%v %s", rounds, s.m.phase)
	}
	if n := len(s.m.Snapshot()); n > 200 {
		t.Errorf("the state of a thousand items takes %d bytes", n)
	}
}

func TestRecursionEnds(t *testing.T) {
	s := start(t, worktest.Graph("g", map[string]*workflow.Template{"main": worktest.DAG(worktest.Call("again", "main"))}))
	if s.m.phase != Errored || !strings.Contains(s.m.message, "nested more than 100 deep") {
		t.Errorf("%s: %s", s.m.phase, s.m.message)
	}
}

func TestRetryFailedOnly(t *testing.T) {
	s := start(t, worktest.Fan("fan", 100))
	s.all(func(l Lease) Result {
		if l.Item%10 == 0 {
			return bad(l)
		}
		return ok(l)
	})
	if s.m.phase != Failed || s.m.counts.Failed != 10 {
		t.Fatalf("%s %+v", s.m.phase, s.m.counts)
	}
	s.do(Retried{})
	rounds := s.all(func(l Lease) Result {
		if l.Attempt != 2 {
			t.Errorf("item %d is tried as attempt %d: its old token would fit", l.Item, l.Attempt)
		}
		return ok(l)
	})
	if s.m.phase != Succeeded || !reflect.DeepEqual(rounds, []int{10}) || s.m.counts.Succeeded != 100 {
		t.Errorf("%s %v %+v", s.m.phase, rounds, s.m.counts)
	}
}

func TestEventsThatDoNotFit(t *testing.T) {
	s := start(t, worktest.Fan("fan", 10))
	before := s.m.Snapshot()
	for _, e := range []Event{
		Submitted{}, Granted{Worker: "w", Picks: []Pick{{99, 0, 1}}}, Granted{Worker: "w", Picks: []Pick{{2, 5, 1}}}, Granted{Worker: "w", Picks: []Pick{{2, 0, 11}}},
		Resumed{Node: 2}, Resumed{Node: 77}, Retried{},
	} {
		if _, err := s.m.Apply(s.at, e); err == nil {
			t.Errorf("%#v was taken", e)
		}
	}
	if !bytes.Equal(before, s.m.Snapshot()) {
		t.Error("an event that was refused changed something")
	}
}

// Every event, written and read.
var events = []Event{
	Submitted{ID: "a", Name: "b", Namespace: "c", By: "d", Args: map[string]workflow.Value{"x": []any{1.5, nil, true, "s", map[string]any{"k": false}}}, Scheduled: begin},
	Granted{Worker: "w", Picks: []Pick{{1, 2, 3}, {4, 5, 6}}},
	&Ended{Results: []Result{{Node: 1, Item: 1, Attempt: 1, Phase: Succeeded}, {Node: 1, Item: 2, Attempt: 1, Phase: Succeeded}, {Node: 2, Attempt: 3, Phase: Failed, Exit: 137, Message: "m", Isolation: "overlay",
		Outputs: map[string]task.Produced{"f": {Digest: "sha256:0", Size: 7, Folder: true}}, Started: 5, Ended: 6}, {Node: 3, Phase: Errored, Exit: -1, Infrastructure: true}}},
	Lost{[]Ref{{1, 2}}}, Back{[]Ref{{3, 4}}}, Tick{},
	Listed{Node: 1, N: 3, Ref: "json:sha256:0"}, Listed{Node: 1, N: 1, Items: []workflow.Value{&workflow.File{Name: "n", Digest: "d", Size: 1, Source: &task.Source{Kind: "http", URL: "u", Headers: map[string]string{"a": "b"}}},
		&workflow.File{Source: &task.Source{Kind: "s3", URL: "b", Key: "k", Endpoint: "e", Region: "r", Archive: "auto"}}}},
	Fetched{Node: 1, From: 2, Items: []workflow.Value{"x"}}, Gathered{Node: 1, Outputs: map[string]workflow.Value{"result": []any{}}, Error: "e"},
	Locked{1, 2}, Remembered{Node: 1, Found: true, Outputs: map[string]workflow.Value{}}, Cancel{By: "ann", Now: true}, Paused{}, Continued{},
	Resumed{Node: 1, Fail: true, Message: "no"}, Retried{}, Judged{[]Verdict{{Pick{1, 2, 3}, ""}, {Pick{4, 5, 6}, "wrong"}}},
}

func TestEventsAreReadAsWritten(t *testing.T) {
	b := AppendHeader(nil, begin)
	for _, e := range events {
		b = AppendEvent(b, e)
	}
	at, got, err := Decode(b)
	if err != nil || !at.Equal(begin) || !reflect.DeepEqual(got, events) {
		t.Errorf("%v %v\n%#v\nwant\n%#v", at, err, got, events)
	}
	for n := range len(b) {
		if _, got, err := Decode(b[:n]); err == nil && len(got) == len(events) {
			t.Errorf("%d bytes of %d are enough", n, len(b))
		}
	}
}

// A batch of 32 that went well costs about as much as one.
func TestEventsAreSmall(t *testing.T) {
	var e Ended
	for i := range uint32(32) {
		e.Results = append(e.Results, Result{Node: 3, Item: 1_000_000 + i, Attempt: 1, Phase: Succeeded})
	}
	if n := len(AppendEvent(AppendEvent(AppendHeader(nil, begin), &e), Granted{Worker: "worker-17", Picks: []Pick{{3, 1_000_032, 32}}})); n > 48 {
		t.Errorf("32 tasks take %d bytes of the log", n)
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range events {
		f.Add(AppendEvent(AppendHeader(nil, begin), e))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		at, got, err := Decode(b)
		if err != nil {
			return
		}
		again := AppendHeader(nil, at)
		for _, e := range got {
			again = AppendEvent(again, e)
		}
		_, second, err := Decode(again)
		if err != nil || len(second) != len(got) {
			t.Fatalf("what was read cannot be written and read: %v", err)
		}
	})
}

// No snapshot and no event makes a machine panic or run on without end.
func FuzzRestore(f *testing.F) {
	for seed := uint64(1); seed < 20; seed++ {
		w := newWorld()
		for _, s := range worktest.History(seed, 30) {
			if err := w.step(s); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(uint16(0), w.runs[0].m.Snapshot())
	}
	g := worktest.Fan("fan", 5)
	f.Add(uint16(1), start(&testing.T{}, g).m.Snapshot())
	f.Fuzz(func(t *testing.T, seed uint16, b []byte) {
		graph := g
		if seed != 1 {
			graph = worktest.Random(uint64(seed))
		}
		m, err := Restore(graph, b)
		if err != nil {
			return
		}
		if _, err := Restore(graph, m.Snapshot()); err != nil {
			t.Fatalf("what was restored cannot be: %v", err)
		}
		_ = m.Summary()
	})
}
