package work_test

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/worktest"
)

// Runs that somebody handed in are found again by what their keys begin with,
// as long as they have not ended.
func TestKeyed(t *testing.T) {
	r := newRig(t, work.Config{})
	g := r.graphs.Add(worktest.Fan("fan", 1))
	want := map[string]string{}
	for i := range 1100 { // more than a page
		key := fmt.Sprintf("kube/a/%d", i)
		id, err := r.s.Submit(t.Context(), g, "ann", work.Options{Key: key})
		if err != nil {
			t.Fatal(err)
		}
		want[key] = id
	}
	for _, key := range []string{"kube/ab/1", "kube", "", "kube/b/1"} {
		if _, err := r.s.Submit(t.Context(), g, "ann", work.Options{Key: key}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.s.Cancel(t.Context(), want["kube/a/7"], "ann", true); err != nil {
		t.Fatal(err)
	}
	ended := want["kube/a/7"]
	delete(want, "kube/a/7")
	if id, err := r.s.Find(t.Context(), "kube/a/7"); err != nil || id != ended {
		t.Errorf("the one that has ended: %q, %v", id, err)
	}
	for _, key := range []string{"kube/a/x", ""} {
		if id, err := r.s.Find(t.Context(), key); !errors.Is(err, work.ErrNotFound) {
			t.Errorf("key %q: %q, %v", key, id, err)
		}
	}
	for _, when := range []string{"at first", "after a restart"} {
		got, err := r.s.Keyed(t.Context(), "kube/a/")
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %d runs (%v), want %d", when, len(got), err, len(want))
		}
		r.restart()
	}
}

// Whoever shows runs elsewhere hears of each one to which something happened,
// its beginning and its end included, and of no other.
func TestChanged(t *testing.T) {
	r := newRig(t, work.Config{})
	r.end()
	var mu sync.Mutex
	heard := map[string]int{}
	r.changed = func(run string) {
		mu.Lock()
		defer mu.Unlock()
		heard[run]++
	}
	took := func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		m := heard
		heard = map[string]int{}
		return m
	}
	r.start()
	a := r.submit(worktest.Fan("a", 1))
	if m := took(); m[a] == 0 || len(m) != 1 {
		t.Errorf("submitted: heard of %v, want of %s", m, a)
	}
	b := r.submit(worktest.Fan("b", 1))
	took()
	r.work(func(l task.Lease) task.Outcome { return task.Outcome{Ref: l.Ref, Phase: task.Succeeded} })
	if m := took(); m[a] == 0 || m[b] == 0 || len(m) != 2 {
		t.Errorf("both ended: heard of %v", m)
	}
	if i := r.get(a); !i.Phase.Ended() {
		t.Errorf("%s", i.Phase)
	}
	r.ask(task.Ask{Worker: "idle"})
	if m := took(); len(m) != 0 {
		t.Errorf("nothing happened: heard of %v", m)
	}
}
