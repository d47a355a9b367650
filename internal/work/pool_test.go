package work_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/work/worktest"
)

func (r *rig) submitTo(pool, name string, n int) string {
	r.t.Helper()
	id, err := r.s.Submit(r.t.Context(), r.graphs.Add(worktest.Fan(name, n)), "ann", work.Options{Pool: pool})
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func TestPoolsGetTheirOwn(t *testing.T) {
	r := newRig(t, work.Config{})
	there := r.submitTo("cluster/a", "there", 3)
	here := r.submitTo("", "here", 3)
	for _, c := range []struct {
		pool, run string
	}{{"cluster/b", ""}, {"cluster/a", there}, {"", here}, {work.DefaultPool, ""}, {"cluster/a", ""}} {
		g := r.ask(task.Ask{Worker: "w" + c.pool, Pool: c.pool, Want: 9})
		for _, l := range g.Leases {
			if l.Run != c.run {
				t.Errorf("pool %q got a task of run %s", c.pool, l.Run)
			}
		}
		if want := c.run != ""; want != (len(g.Leases) == 3) {
			t.Errorf("pool %q got %d tasks", c.pool, len(g.Leases))
		}
	}
	if i := r.get(there); i.Pool != "cluster/a" {
		t.Errorf("%+v", i)
	}
	if i := r.get(here); i.Pool != work.DefaultPool {
		t.Errorf("%+v", i)
	}
	r.settle()
}

func TestPoolStaysWithTheRun(t *testing.T) {
	r := newRig(t, work.Config{})
	id := r.submitTo("far", "fan", 1)
	fail := func(pool string) {
		t.Helper()
		r.restart()
		if g := r.ask(task.Ask{Worker: "x", Want: 1}); len(g.Leases) != 0 {
			t.Fatal("after a start it is another pool's")
		}
		g := r.ask(task.Ask{Worker: "w", Pool: pool, Want: 1})
		if len(g.Leases) != 1 {
			t.Fatalf("pool %s has %d tasks", pool, len(g.Leases))
		}
		r.ask(task.Ask{Worker: "w", Pool: pool, Outcomes: []task.Outcome{{Ref: g.Leases[0].Ref, Phase: task.Failed, Exit: 1}}})
	}
	fail("far")
	r.settle()
	if err := r.s.Retry(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	fail("far")
	again, err := r.s.Resubmit(t.Context(), id, "ann")
	if err != nil {
		t.Fatal(err)
	}
	if i := r.get(again); i.Pool != "far" {
		t.Errorf("%+v", i)
	}
	fail("far")

	x := r.schedule("allow", 0, "0 3 * * *")
	if err := r.s.PutSchedule(t.Context(), x, "ann", "far"); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.pass(3 * time.Hour)
	if s := r.s.Schedules(); len(s) != 1 || s[0].Pool != "far" {
		t.Errorf("%+v", s)
	}
	fail("far")
}

func TestPoolNames(t *testing.T) {
	r := newRig(t, work.Config{})
	for _, bad := range []string{"a b", "a\n", strings.Repeat("x", 201)} {
		if _, err := r.s.Submit(t.Context(), r.graphs.Add(worktest.Fan("fan", 1)), "ann", work.Options{Pool: bad}); !errors.Is(err, work.ErrInvalid) {
			t.Errorf("submit to %.20q: %v", bad, err)
		}
		if _, err := r.s.Work(t.Context(), task.Ask{Worker: "w", Pool: bad, Want: 1}); !errors.Is(err, work.ErrInvalid) {
			t.Errorf("ask for %.20q: %v", bad, err)
		}
	}
}

// Somebody who waits in a pool says nothing to those of others.
func TestReturnIsForThePool(t *testing.T) {
	for _, c := range []struct {
		waits string
		want  int
	}{{"a", 4}, {"b", 0}} {
		r := newRig(t, work.Config{})
		r.submitTo("a", "fan", 8)
		var held []task.Ref
		for _, l := range r.ask(task.Ask{Worker: "w", Pool: "a", Want: 8}).Leases {
			held = append(held, l.Ref)
		}
		got := make(chan struct{})
		go func() {
			defer close(got)
			_, _ = r.s.Work(t.Context(), task.Ask{Worker: "idle", Pool: c.waits, Want: 1, Wait: time.Minute})
		}()
		for r.s.Waiting() == 0 {
			r.settle()
		}
		b, err := r.s.Beat(t.Context(), task.Beat{Worker: "w", Held: held})
		if err != nil || b.Return != c.want {
			t.Errorf("somebody waits in pool %s: %d leases are wanted back, want %d (%v)", c.waits, b.Return, c.want, err)
		}
		r.end()
		<-got
		r.start()
	}
}

func TestRelease(t *testing.T) {
	r := newRig(t, work.Config{Term: 30 * time.Second})
	id := r.submit(worktest.Fan("fan", 6))
	old := r.ask(task.Ask{Worker: "holder", Want: 4}).Leases
	other := r.ask(task.Ask{Worker: "other", Want: 1}).Leases
	r.restart()
	r.pass(10 * time.Second)
	// Somebody to whom the holder handed one on lives.
	if _, err := r.s.Beat(t.Context(), task.Beat{Worker: "pod", Held: []task.Ref{old[0].Ref}}); err != nil {
		t.Fatal(err)
	}
	if err := r.s.Release(t.Context(), "holder", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	r.settle()
	for i, want := range []bool{true, false, false, false} {
		if got := r.s.Holds(old[i].Ref); got != want {
			t.Errorf("lease %d: held %v, want %v", i, got, want)
		}
	}
	if !r.s.Holds(other[0].Ref) {
		t.Error("what another worker holds is given back as well")
	}
	if n := len(r.ask(task.Ask{Worker: "holder", Want: 9}).Leases); n != 4 {
		t.Errorf("%d tasks can be had, want the 3 given back and the one that was left", n)
	}
	if err := r.s.Release(t.Context(), "holder", 0); err != nil {
		t.Fatal(err)
	}
	if err := r.s.Release(t.Context(), "nobody", 0); err != nil {
		t.Fatal(err)
	}
	r.settle()
	if i := r.get(id); i.Counts.Crashes != 0 || i.Counts.Active != 1 {
		t.Errorf("giving back is spending: %+v", i)
	}
}

func TestHolds(t *testing.T) {
	r := newRig(t, work.Config{})
	r.submit(worktest.Fan("fan", 1))
	l := r.ask(task.Ask{Worker: "w", Want: 1}).Leases[0]
	forge := func(f func(*task.Ref)) task.Ref { x := l.Ref; f(&x); return x }
	for name, c := range map[string]struct {
		ref  task.Ref
		want bool
	}{
		"the lease":       {l.Ref, true},
		"another attempt": {forge(func(r *task.Ref) { r.Attempt++ }), false},
		"another run":     {forge(func(r *task.Ref) { r.Run = "x" }), false},
		"another token":   {forge(func(r *task.Ref) { r.Token = strings.ToUpper(r.Token) + "x" }), false},
		"no task":         {forge(func(r *task.Ref) { r.Task = "?" }), false},
	} {
		if got := r.s.Holds(c.ref); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	r.ask(task.Ask{Worker: "w", Outcomes: done(l)})
	if r.s.Holds(l.Ref) {
		t.Error("a lease is held after its outcome")
	}
}

// Who hands tasks on says of which runs it wants how many.
func TestLend(t *testing.T) {
	r := newRig(t, work.Config{})
	names := map[string]string{}
	for i := range 3 {
		name := fmt.Sprint("r", i)
		names[r.submitTo("far", name, 10)] = name
	}
	room := map[string]int{"r0": 2, "r1": 0, "r2": 5}
	got := map[string]int{}
	g, err := r.s.Lend(t.Context(), task.Ask{Worker: "holder", Pool: "far", Want: 100}, func(run, namespace string) int {
		if namespace != "default" {
			t.Errorf("run %s is of namespace %q", run, namespace)
		}
		return room[names[run]]
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range g.Leases {
		got[names[l.Run]]++
	}
	if got["r0"] != 2 || got["r1"] != 0 || got["r2"] != 5 {
		t.Errorf("there is room for %v, and %v came", room, got)
	}
	r.settle()
	if i := r.get(g.Leases[0].Run); i.Phase != machine.Running {
		t.Errorf("%+v", i)
	}
}
