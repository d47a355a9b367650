package controller

import (
	"context"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
)

func TestQueue(t *testing.T) {
	c := clock.NewFake(noon)
	q := newQueue(c)
	k := &kind{}
	a, b := ref{k, "n", "a"}, ref{k, "n", "b"}
	take := func(want string) ref {
		t.Helper()
		r, _, ok := q.pop()
		if got := r.name; ok != (want != "") || got != want {
			t.Fatalf("next is %q, want %q", got, want)
		}
		return r
	}
	take("")
	q.add(a, 2*time.Second)
	q.add(b, time.Second)
	q.add(a, 3*time.Second) // the earlier time counts
	take("")
	c.Advance(time.Second)
	take("b")
	take("")
	c.Advance(time.Second)
	take("a")
	// While somebody looks at it, it is nobody else's; what was asked for
	// meanwhile comes after.
	q.add(a, 5*time.Second)
	q.add(a, 0)
	take("")
	q.done(a)
	take("a")
	q.done(a)
	take("")
	q.add(b, time.Hour)
	q.done(b)
	q.add(b, 0) // an earlier time replaces a later one
	take("b")
}

// Whoever waits is woken by what comes, by time, and by the end.
func TestQueueNext(t *testing.T) {
	c := clock.NewFake(noon)
	q := newQueue(c)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan string)
	go func() {
		for {
			r, err := q.next(ctx)
			if err != nil {
				close(got)
				return
			}
			got <- r.name
			q.done(r)
		}
	}()
	k := &kind{}
	q.add(ref{k, "n", "a"}, 0)
	if s := <-got; s != "a" {
		t.Error(s)
	}
	q.add(ref{k, "n", "b"}, time.Minute)
	for c.Waiting() == 0 { // until it waits for the time
		time.Sleep(time.Millisecond)
	}
	c.Advance(time.Minute)
	if s := <-got; s != "b" {
		t.Error(s)
	}
	cancel()
	if s, ok := <-got; ok {
		t.Errorf("%q after the end", s)
	}
}

func TestBackoff(t *testing.T) {
	for failures, most := range map[int]time.Duration{0: 500 * time.Millisecond, 3: 4 * time.Second, 100: time.Minute} {
		for range 100 {
			if d := backoff(failures); d < most/2 || d > most {
				t.Fatalf("after %d failures: %s", failures, d)
			}
		}
	}
}
