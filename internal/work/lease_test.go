package work_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/work/worktest"
)

func (r *rig) settle() {
	r.t.Helper()
	if err := r.s.Settle(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	if err := r.s.Check(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) pass(d time.Duration) {
	r.t.Helper()
	r.clock.Advance(d)
	r.settle()
}

func done(l task.Lease) []task.Outcome {
	return []task.Outcome{{Ref: l.Ref, Phase: task.Succeeded}}
}

func TestLeases(t *testing.T) {
	r := newRig(t, work.Config{Term: 30 * time.Second})
	id := r.submit(worktest.Fan("fan", 1))
	first := r.ask(task.Ask{Worker: "a", Want: 9}).Leases
	if len(first) != 1 || first[0].Attempt != 1 || first[0].Run != id || first[0].Key != id+"/"+first[0].Task {
		t.Fatalf("%+v", first)
	}
	l := first[0]
	if more := r.ask(task.Ask{Worker: "b", Want: 9}).Leases; len(more) != 0 {
		t.Fatalf("it is given twice: %+v", more)
	}
	forged := l
	forged.Token = strings.Repeat("A", len(l.Token))
	if g := r.ask(task.Ask{Worker: "a", Outcomes: done(forged)}); len(g.Refused) != 1 {
		t.Error("a token that nobody gave is taken")
	}
	// Beats keep it, for longer than a term.
	for range 5 {
		r.pass(20 * time.Second)
		if b, err := r.s.Beat(t.Context(), task.Beat{Worker: "a", Held: []task.Ref{l.Ref}}); err != nil || len(b.Lost)+len(b.Cancel) != 0 {
			t.Fatalf("%+v %v", b, err)
		}
	}
	// A start begins a full term, whatever was left of it.
	r.pass(25 * time.Second)
	r.restart()
	r.pass(29 * time.Second)
	if more := r.ask(task.Ask{Worker: "b", Want: 9}).Leases; len(more) != 0 {
		t.Fatalf("a start does not begin the term anew: %+v", more)
	}
	r.pass(30 * time.Second)
	second := r.ask(task.Ask{Worker: "b", Want: 9}).Leases
	if len(second) != 1 || second[0].Attempt != 2 || second[0].Token == l.Token || second[0].Key != l.Key {
		t.Fatalf("%+v", second)
	}
	if b, _ := r.s.Beat(t.Context(), task.Beat{Worker: "a", Held: []task.Ref{l.Ref}}); len(b.Lost) != 1 {
		t.Errorf("who lost a lease does not hear of it: %+v", b)
	}
	if g := r.ask(task.Ask{Worker: "a", Outcomes: done(l)}); len(g.Refused) != 1 {
		t.Error("an outcome without a lease is taken")
	}
	if g := r.ask(task.Ask{Worker: "b", Outcomes: append(done(second[0]), done(second[0])...)}); len(g.Refused) != 1 {
		t.Errorf("of two outcomes %d are refused, want 1", len(g.Refused))
	}
	if i := r.get(id); i.Phase != machine.Succeeded || i.Counts.Succeeded != 1 || i.Counts.Crashes != 1 {
		t.Errorf("%+v", i)
	}
	r.settle()
}

func TestPoison(t *testing.T) {
	r := newRig(t, work.Config{})
	id := r.submit(worktest.Fan("fan", 1))
	for i := range machine.MaxCrashes {
		if n := len(r.ask(task.Ask{Worker: fmt.Sprint("w", i), Want: 1}).Leases); n != 1 {
			t.Fatalf("attempt %d: %d leases", i+1, n)
		}
		r.pass(2 * time.Minute)
	}
	if i := r.get(id); i.Phase != machine.Errored || i.Counts.Retries != 0 {
		t.Errorf("%+v", i)
	}
}

func TestCancelReachesTheWorker(t *testing.T) {
	r := newRig(t, work.Config{})
	id := r.submit(worktest.Fan("fan", 10))
	held := r.ask(task.Ask{Worker: "a", Want: 2}).Leases
	if err := r.s.Cancel(t.Context(), id, "ann", false); err != nil {
		t.Fatal(err)
	}
	r.restart() // what was said before is not forgotten
	b, err := r.s.Beat(t.Context(), task.Beat{Worker: "a", Held: []task.Ref{held[0].Ref, held[1].Ref}})
	if err != nil || len(b.Cancel) != 2 {
		t.Fatalf("%+v %v", b, err)
	}
	r.ask(task.Ask{Worker: "a", Outcomes: []task.Outcome{{Ref: held[0].Ref, Phase: task.Canceled}}, Back: []task.Ref{held[1].Ref}})
	i := r.get(id)
	if i.Phase != machine.Canceled || i.Message != "canceled by ann" {
		t.Errorf("%+v", i)
	}
	// All are accounted for, those that nobody began as well, and also in lists.
	if want := (machine.Counts{Total: 10, Canceled: 10}); i.Counts != want {
		t.Errorf("%+v, want %+v", i.Counts, want)
	}
	if list, _, err := r.s.Runs(t.Context(), work.RunFilter{}, "", 0); err != nil || len(list) != 1 || list[0].Counts != i.Counts {
		t.Errorf("listed as %+v %v", list, err)
	}
	if nodes, _, err := r.s.Nodes(t.Context(), id, "", "", 0, machine.Filter{}); err != nil || len(nodes) != 1 {
		t.Errorf("%+v %v", nodes, err)
	} else if nodes, _, err = r.s.Nodes(t.Context(), id, nodes[0].ID, "", 0, machine.Filter{}); err != nil || len(nodes) != 1 || nodes[0].Canceled != 10 || nodes[0].Items != 10 {
		t.Errorf("%+v %v", nodes, err)
	}
	if err := r.s.Retry(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if c := r.get(id).Counts; c.Total != 10 || c.Done() != 0 {
		t.Errorf("tried again: %+v", c)
	}
	r.settle()
}

func TestWaitersWake(t *testing.T) {
	r := newRig(t, work.Config{})
	got := make(chan task.Grant)
	go func() {
		g, err := r.s.Work(t.Context(), task.Ask{Worker: "a", Want: 1, Wait: time.Minute})
		if err != nil {
			t.Error(err)
		}
		got <- g
	}()
	for r.s.Waiting() == 0 {
		r.settle()
	}
	r.submit(worktest.Fan("fan", 1))
	first := <-got
	if len(first.Leases) != 1 {
		t.Fatalf("%+v", first)
	}
	r.ask(task.Ask{Worker: "a", Outcomes: done(first.Leases[0])})
	r.submit(worktest.Fan("more", 10))
	var held []task.Ref
	for _, l := range r.ask(task.Ask{Worker: "a", Want: 10}).Leases {
		held = append(held, l.Ref)
	}
	go func() {
		g, _ := r.s.Work(t.Context(), task.Ask{Worker: "b", Want: 1, Wait: time.Minute})
		got <- g
	}()
	for r.s.Waiting() == 0 {
		r.settle()
	}
	// Others idle: who holds much gives some back.
	if b, _ := r.s.Beat(t.Context(), task.Beat{Worker: "a", Held: held}); b.Return != 5 {
		t.Errorf("%d are wanted back, of 10", b.Return)
	}
	for _, l := range held {
		r.ask(task.Ask{Worker: "a", Outcomes: done(task.Lease{Ref: l})})
	}
	r.clock.Advance(time.Minute)
	if g := <-got; len(g.Leases) != 0 {
		t.Errorf("%+v", g)
	}
}

// Who is cut off cannot be told from who is silent: its ask may wait at the end
// of a connection that is dead. What is taken from it goes to somebody else.
func TestWhatIsTakenIsNotGivenBackToTheSilent(t *testing.T) {
	r := newRig(t, work.Config{Term: 30 * time.Second})
	r.submit(worktest.Fan("fan", 1))
	if n := len(r.ask(task.Ask{Worker: "a", Want: 1}).Leases); n != 1 {
		t.Fatalf("%d leases", n)
	}
	got := map[string]chan task.Grant{"a": make(chan task.Grant, 1), "b": make(chan task.Grant, 1)}
	for i, name := range []string{"a", "b"} { // a asked first
		go func() {
			g, err := r.s.Work(t.Context(), task.Ask{Worker: name, Want: 1, Wait: time.Minute})
			if err != nil {
				t.Error(err)
			}
			got[name] <- g
		}()
		for r.s.Waiting() <= i {
			r.settle()
		}
	}
	r.pass(31 * time.Second)
	if g := <-got["a"]; len(g.Leases) != 0 {
		t.Fatalf("the silent worker is given what was taken from it: %+v", g.Leases)
	}
	if g := <-got["b"]; len(g.Leases) != 1 || g.Leases[0].Attempt != 2 {
		t.Errorf("somebody else is given %+v, want the second attempt", g.Leases)
	}
}

func TestFairness(t *testing.T) {
	r := newRig(t, work.Config{})
	names := map[string]string{}
	add := func(name, namespace string, priority int) {
		g := worktest.Fan(name, 100)
		g.Namespace, g.Priority = namespace, priority
		names[r.submit(g)] = name
	}
	add("a1", "a", 0)
	add("a2", "a", 0)
	add("a3", "a", 0)
	add("b1", "b", 0)
	turns := map[string]int{}
	for range 60 {
		turns[names[r.ask(task.Ask{Worker: "w", Want: 1}).Leases[0].Run]]++
	}
	if turns["b1"] != 30 || turns["a1"] != 10 || turns["a2"] != 10 || turns["a3"] != 10 {
		t.Errorf("60 turns went to %v: namespaces in turn, then runs", turns)
	}
	add("urgent", "c", 5)
	if l := r.ask(task.Ask{Worker: "w", Want: 1}).Leases[0]; names[l.Run] != "urgent" {
		t.Errorf("%s is served before what is urgent", names[l.Run])
	}
}

func TestCaps(t *testing.T) {
	r := newRig(t, work.Config{MaxActive: 12, MaxPerNamespace: 9, MaxPerRun: 5})
	for i := range 4 {
		g := worktest.Fan(fmt.Sprint("f", i), 100)
		g.Namespace = []string{"a", "b"}[i/3]
		r.submit(g)
	}
	g := r.ask(task.Ask{Worker: "w", Want: 100})
	per := map[string]int{}
	for _, l := range g.Leases {
		per[l.Run]++
	}
	if len(g.Leases) != 12 {
		t.Errorf("%d tasks at a time, want 12 (%v)", len(g.Leases), per)
	}
	r.settle()
	g = r.ask(task.Ask{Worker: "w", Want: 100, Outcomes: done(g.Leases[0])})
	if len(g.Leases) != 1 {
		t.Errorf("after one has ended %d are given", len(g.Leases))
	}
}

func TestOutputsAreBounded(t *testing.T) {
	r := newRig(t, work.Config{MaxText: 1000})
	id := r.submit(worktest.Fan("fan", 1))
	l := r.ask(task.Ask{Worker: "w", Want: 1}).Leases[0]
	text := strings.Repeat("x", 2000)
	r.ask(task.Ask{Worker: "w", Outcomes: []task.Outcome{{Ref: l.Ref, Phase: task.Succeeded, Outputs: map[string]task.Produced{"result": {Text: &text}}}}})
	nodes, _, err := r.s.Nodes(t.Context(), id, "2", "", 0, machine.Filter{})
	if err != nil || len(nodes) != 1 || nodes[0].Phase != machine.Errored || !strings.Contains(nodes[0].Message, "as an artifact") {
		t.Errorf("%+v %v", nodes, err)
	}
}

// A beat that waits hears at once what was canceled; what was taken meanwhile,
// with the one after it.
func TestBeatThatWaits(t *testing.T) {
	for name, taken := range map[string]bool{"what it held": false, "what it took since": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, work.Config{})
			r.submit(worktest.Fan("fan", 1))
			id := r.submit(worktest.Fan("fan", 1))
			leases := r.ask(task.Ask{Worker: "a", Want: 2}).Leases
			held := []task.Ref{leases[0].Ref, leases[1].Ref}
			said, want := held, 1
			if taken {
				said, want = slices.DeleteFunc(slices.Clone(held), func(l task.Ref) bool { return l.Run == id }), 0
			}
			r.settle()
			waiting := r.clock.Waiting()
			heard := make(chan task.Beaten, 1)
			go func() {
				b, err := r.s.Beat(t.Context(), task.Beat{Worker: "a", Held: said, Wait: time.Hour})
				if err != nil {
					t.Error(err)
				}
				heard <- b
			}()
			for r.clock.Waiting() == waiting {
				runtime.Gosched()
			}
			if err := r.s.Cancel(t.Context(), id, "ann", false); err != nil {
				t.Fatal(err)
			}
			if b := <-heard; !b.Again || len(b.Cancel) != want || len(b.Lost) != 0 {
				t.Errorf("heard %+v, want %d canceled", b, want)
			}
			if b, err := r.s.Beat(t.Context(), task.Beat{Worker: "a", Held: held, Wait: time.Hour}); err != nil || len(b.Cancel) != 1 {
				t.Errorf("then %+v %v", b, err)
			}
		})
	}
}

// What a worker held that is known to be gone is given to others at once. It is
// not the task's fault, and yet not for ever.
func TestGone(t *testing.T) {
	r := newRig(t, work.Config{})
	id := r.submit(worktest.Fan("fan", 1))
	for n := range 5 {
		if got := r.ask(task.Ask{Worker: "a", Want: 1}).Leases; len(got) != 1 {
			t.Fatalf("%d leases after %d losses", len(got), n)
		}
		for _, name := range []string{"b", "a"} {
			if err := r.s.Gone(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if i := r.get(id); i.Phase != machine.Errored {
		t.Errorf("after five losses it is %s", i.Phase)
	}
}
