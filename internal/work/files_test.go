package work_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

// A run that is given what another one made keeps it; and what is gone with
// that one is made again.
func TestFilesOfOtherRuns(t *testing.T) {
	r := newRig(t, work.Config{})
	digest, _, err := r.blobs.Put(t.Context(), "", strings.NewReader("made"))
	if err != nil {
		t.Fatal(err)
	}
	make := worktest.Task()
	make.Memo = &workflow.Memo{Key: worktest.Lit("k"), Cache: "c"}
	make.Outputs = []workflow.Output{{Name: "f", Artifact: true}}
	g := worktest.Graph("memo", map[string]*workflow.Template{"main": worktest.DAG(worktest.Call("make", "make")), "make": make})
	done := func() int {
		t.Helper()
		r.submit(g)
		n := r.work(func(task.Lease) task.Outcome {
			return task.Outcome{Phase: task.Succeeded, Outputs: map[string]task.Produced{"f": {Digest: digest, Size: 4}}}
		})
		r.clock.Advance(time.Second)
		return n
	}
	for i, want := range []int{1, 0} {
		if n := done(); n != want {
			t.Errorf("run %d makes %d, want %d", i, n, want)
		}
	}
	r.blobs.Drop(digest)
	if n := done(); n != 1 {
		t.Errorf("what is gone was made %d times", n)
	}

	if digest, _, err = r.blobs.Put(t.Context(), "", strings.NewReader("given")); err != nil {
		t.Fatal(err)
	}
	plain := worktest.Graph("given", map[string]*workflow.Template{"main": worktest.DAG(worktest.Call("a", "a")), "a": worktest.Task()})
	plain.Args = map[string]workflow.Value{"list": nil}
	id, err := r.s.Submit(t.Context(), r.graphs.Add(plain), "ann", work.Options{Args: map[string]workflow.Value{"list": []any{&workflow.File{Digest: digest, Size: 5}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.s.Resubmit(t.Context(), id, "ann"); err != nil {
		t.Error(err)
	}
	r.blobs.Drop(digest)
	if _, err := r.s.Resubmit(t.Context(), id, "ann"); !errors.Is(err, work.ErrConflict) {
		t.Errorf("resubmitted what is gone: %v", err)
	}
}

// Who hands out what a task names looks at the task, and not at what its worker
// says of it.
func TestTaskOfALease(t *testing.T) {
	r := newRig(t, work.Config{})
	r.submit(worktest.Fan("fan", 3000))
	r.settle()
	g := r.ask(task.Ask{Worker: "w", Want: 1000})
	g2 := r.ask(task.Ask{Worker: "w", Want: 1000})
	for _, g := range []task.Grant{g, g2} {
		if len(g.Leases) == 0 {
			t.Fatal("nothing to do")
		}
		for _, i := range []int{0, len(g.Leases) - 1} {
			l := g.Leases[i]
			want := g.Bodies[l.Body].Args
			if l.Own != nil && l.Own.Args != nil {
				want = l.Own.Args
			}
			got, err := r.s.Task(t.Context(), l.Ref)
			if err != nil || len(want) == 0 || strings.Join(got.Args, " ") != strings.Join(want, " ") {
				t.Errorf("%+v %v, want %v", got, err, want)
			}
			wrong := l.Ref
			wrong.Token += "x"
			if _, err := r.s.Task(t.Context(), wrong); !errors.Is(err, work.ErrNotFound) {
				t.Errorf("with another token: %v", err)
			}
		}
	}
	l := g.Leases[0]
	r.ask(task.Ask{Worker: "w", Outcomes: []task.Outcome{{Ref: l.Ref, Phase: task.Succeeded}}})
	if _, err := r.s.Task(t.Context(), l.Ref); !errors.Is(err, work.ErrNotFound) {
		t.Errorf("after its end: %v", err)
	}
}
