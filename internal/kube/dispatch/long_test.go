package dispatch_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/kube/dispatch"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// Requests that are made here are bounded as tasks for pods are.
func TestRequestsAreBounded(t *testing.T) {
	var most, now atomic.Int64
	let := make(chan struct{})
	r := newRigWith(t, dispatch.Config{Ahead: 20, Requests: 4}, func(context.Context, *task.HTTP, time.Duration) task.Outcome {
		most.Store(max(most.Load(), now.Add(1)))
		<-let
		now.Add(-1)
		return task.Outcome{Phase: task.Succeeded}
	})
	id := r.submit("requests", 300, func(workflow.Scope) task.Task { return task.Task{HTTP: &task.HTTP{URL: "http://x/"}} })
	r.until("requests to be made", func() bool { return now.Load() == 4 })
	for range 100 {
		r.tick()
	}
	if n := r.get(id).Counts.Active; n > 20 {
		t.Errorf("%d tasks are held, at most 20 may be", n)
	}
	close(let)
	r.until("its end", func() bool { return r.get(id).Phase == machine.Succeeded })
	if n := most.Load(); n > 4 {
		t.Errorf("%d requests at a time", n)
	}
	other := r.submit("more", 30, func(workflow.Scope) task.Task { return task.Task{HTTP: &task.HTTP{URL: "http://x/"}} })
	r.until("the end of the next", func() bool { return r.get(other).Phase == machine.Succeeded })
}

// Pods that need time to find a server that was started again keep what they
// have, as long as their leases last.
func TestPodsFindTheServerLate(t *testing.T) {
	r := newRig(t, dispatch.Config{Beat: 5 * time.Second})
	id := r.submit("fan", 10, nil)
	x := r.demand(id, 10)
	held := r.ask(x, "pod-1", 2).Leases
	r.restart()
	for range 18 { // seconds until its Service leads there
		r.tick()
	}
	b, err := r.d.Beat(t.Context(), claims(x), task.Beat{Worker: "pod-1", Held: []task.Ref{held[0].Ref, held[1].Ref}})
	if err != nil || len(b.Lost)+len(b.Cancel) != 0 {
		t.Errorf("%+v, %v", b, err)
	}
	if g := r.ask(x, "pod-1", 0, ok(held[0]), ok(held[1])); len(g.Refused) != 0 {
		t.Errorf("what it did is refused: %+v", g.Refused)
	}
}

// A pod whose token is old gets nothing that it might have when it ends.
func TestOldToken(t *testing.T) {
	const life = 10 * time.Hour
	r := newRig(t, dispatch.Config{TokenLife: life})
	x := r.demand(r.submit("fan", 10, nil), 10)
	for age, want := range map[time.Duration]bool{0: false, 4 * time.Hour: false, 6 * time.Hour: true, 9 * time.Hour: true} {
		c := claims(x)
		c.Expires = r.clock.Now().Add(life - age).Unix()
		g, err := r.d.Work(t.Context(), c, task.Ask{Worker: fmt.Sprint("pod-", age), Want: 1})
		if err != nil || g.Drain != want || want == (len(g.Leases) > 0) {
			t.Errorf("%v old: %+v, %v", age, g, err)
		}
	}
}
