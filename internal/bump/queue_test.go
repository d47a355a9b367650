package bump

import (
	"context"
	"testing"
	"time"
)

func TestQueue(t *testing.T) {
	const quiet = 500 * time.Millisecond
	q := newQueue()
	a, b := &repository{name: "a"}, &repository{name: "b"}
	taken := func(now time.Duration, want *repository, wait time.Duration) {
		t.Helper()
		got, _, w := q.take(now)
		if got != want || got == nil && w != wait {
			t.Errorf("at %s: %v and %s to wait, want %v and %s", now, got, w, want, wait)
		}
	}
	taken(0, nil, time.Hour)
	q.plan(a, time.Minute)
	q.plan(b, 2*time.Minute)
	taken(0, nil, time.Minute)
	// What is pushed together is looked at together, and not put off for ever.
	q.soon(a, 0, quiet, nil)
	q.soon(a, 400*time.Millisecond, quiet, nil)
	taken(600*time.Millisecond, nil, 300*time.Millisecond)
	q.soon(a, 800*time.Millisecond, quiet, nil)
	taken(999*time.Millisecond, nil, time.Millisecond)
	taken(time.Second, a, 0)
	// A pass that runs is not made twice at a time; what was asked meanwhile is
	// done after it.
	q.soon(a, 1100*time.Millisecond, quiet, nil)
	taken(3*time.Second, nil, 2*time.Minute-3*time.Second)
	q.release(a, time.Hour, 3*time.Second, quiet)
	taken(3*time.Second, a, 0)
	q.release(a, time.Hour, 3*time.Second, quiet)
	taken(4*time.Second, nil, 2*time.Minute-4*time.Second)
	// Who waits for a pass does not wait for the quiet as well.
	q.soon(a, 2*time.Minute, 0, make(chan error, 1))
	taken(2*time.Minute, a, 0)
	q.soon(a, 2*time.Minute, 0, make(chan error, 1))
	q.release(a, time.Hour, 2*time.Minute, quiet)
	taken(2*time.Minute, a, 0)
	q.release(a, time.Hour, 2*time.Minute, quiet)
	q.remove(b)
	taken(5*time.Minute, nil, time.Hour-5*time.Minute)
}

// TestRun has the engine do by itself what is to be done: look at what is new,
// hear of pushes, wait for the quiet, and answer who asked for a check.
func TestRun(t *testing.T) {
	g := newRig(t)
	g.push("cairn.test/api", "1.1")
	g.push("docker.io/library/nginx", "1.1")
	g.add(map[string]string{"main.tf": main1})
	e := g.engine("a")
	ctx, stop := context.WithCancel(g.ctx)
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s did not happen", what)
			}
			g.clock.Advance(50 * time.Millisecond)
		}
	}
	until("the first look", func() bool { return e.unread.Load() == 0 })
	g.push("cairn.test/api", "1.2")
	e.Pushed(pushed("cairn.test/api", "1.2"), false)
	g.push("cairn.test/api", "1.3")
	e.Pushed(pushed("cairn.test/api", "1.3"), false)
	until("a pull request", func() bool { return len(g.pulls(true)) > 0 })
	g.holds(g.one(), "main.tf", main3)
	commits := 0
	for _, c := range g.forge.Calls() {
		if c.Name == "Commit" {
			commits++
		}
	}
	if commits != 1 {
		t.Errorf("%d commits for tags that were pushed together", commits)
	}

	g.push("cairn.test/api", "1.4")
	checked := make(chan error, 1)
	go func() { checked <- e.Check(ctx, "team/app") }()
	until("the check", func() bool { return len(checked) > 0 })
	if err := <-checked; err != nil {
		t.Fatal(err)
	}
	if p := g.one(); p.Title != "Bump cairn.test/api from 1.1 to 1.4" {
		t.Error(p.Title)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
