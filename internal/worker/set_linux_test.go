package worker

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/isolate"
)

// together runs a task of several containers, whose programs are by their names;
// that of main is the task's own.
func together(t *testing.T, own task.Task, programs map[string]string, during func(b *book)) (o task.Outcome, printed string) {
	t.Helper()
	meet := t.TempDir()
	own.Isolation = "pod"
	b := newBook(own)
	l, err := NewLocal(LocalConfig{Place: isolate.Place{Scratch: filepath.Join(t.TempDir(), "scratch"), Single: true}, Meet: meet, Env: os.Environ()}, b, clock.Real(), nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(Config{Name: "w", Pool: "p", Single: true, Beat: 20 * time.Millisecond}, Deps{Server: b, Runner: l, Clock: clock.Real()})
	if err != nil {
		t.Fatal(err)
	}
	members := make(chan error)
	for name, script := range programs {
		m := &Member{Dir: meet, Name: name, Args: []string{"sh", "-c", script}, Env: os.Environ(), Clock: clock.Real()}
		go func() { members <- m.Run(t.Context()) }()
	}
	done := make(chan error)
	go func() { done <- w.Run(t.Context()) }()
	if during != nil {
		during(b)
	}
	o = b.results(t, 1)[0]
	b.with(func() { b.drain = true })
	if err := <-done; err != nil {
		t.Error(err)
	}
	for range programs {
		if err := <-members; err != nil {
			t.Errorf("a member: %v", err)
		}
	}
	return o, b.printed["0/1"]
}

func TestSet(t *testing.T) {
	dir := t.TempDir()
	add := func(name string) string { return fmt.Sprintf("echo %s >> %s/order; ", name, dir) }
	for name, c := range map[string]struct {
		own      string
		set      task.Set
		programs map[string]string
		timeout  time.Duration
		phase    task.Phase
		says     string
		order    []string // one of these is what ran
	}{
		"one after the other": {add("main"), task.Set{Needs: []string{"b"}, Members: []task.Member{{Name: "a"}, {Name: "b", Needs: []string{"a"}}}},
			map[string]string{"a": "sleep 0.1; " + add("a"), "b": add("b")}, 0, task.Succeeded, "", []string{"a b main"}},
		"main first": {add("main"), task.Set{Members: []task.Member{{Name: "a", Needs: []string{"main"}}}},
			map[string]string{"a": add("a")}, 0, task.Succeeded, "", []string{"main a"}},
		"one fails": {add("main"), task.Set{Needs: []string{"a"}, Members: []task.Member{{Name: "a"}, {Name: "b"}}},
			map[string]string{"a": "sleep 0.1; exit 3", "b": add("b")}, 0, task.Failed, "container a: exit code 3", []string{"b"}},
		"main fails": {"exit 4", task.Set{Members: []task.Member{{Name: "a", Needs: []string{"main"}}}},
			map[string]string{"a": add("a")}, 0, task.Failed, "container main: exit code 4", []string{""}},
		"tried again": {"test -e " + dir + "/main && exit; touch " + dir + "/main; exit 1", task.Set{Retries: 1, Needs: []string{"a"}, Members: []task.Member{{Name: "a"}}},
			map[string]string{"a": "test -e " + dir + "/a && exit; touch " + dir + "/a; exit 1"}, 0, task.Succeeded, "", []string{""}},
		"no such program": {"true", task.Set{Members: []task.Member{{Name: "a"}}}, map[string]string{"a": "exec /no/such/program"}, 0, task.Failed, "container a: exit code 127", []string{""}},
		"alone":           {"test -e " + dir + "/alone && exit; touch " + dir + "/alone; exit 1", task.Set{Retries: 1}, nil, 0, task.Succeeded, "", []string{""}},
		"too slow": {"sleep 100", task.Set{Members: []task.Member{{Name: "a", Needs: []string{"main"}}}},
			map[string]string{"a": add("a")}, 200 * time.Millisecond, task.Failed, "longer than its timeout", []string{""}},
		"a member is too slow": {"true", task.Set{Members: []task.Member{{Name: "a"}}},
			map[string]string{"a": "sleep 100"}, 200 * time.Millisecond, task.Failed, "longer than its timeout", []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			_ = os.Remove(dir + "/order")
			c.set.Name = "main"
			own := sh(c.own)
			own.Set, own.Timeout, own.Grace = &c.set, c.timeout, time.Second
			o, _ := together(t, own, c.programs, nil)
			if o.Phase != c.phase || !strings.Contains(o.Message, c.says) {
				t.Errorf("it ended as %s: %q", o.Phase, o.Message)
			}
			b, _ := os.ReadFile(dir + "/order") // where nothing ran, there is none
			if got := strings.Join(strings.Fields(string(b)), " "); !slices.Contains(c.order, got) {
				t.Errorf("ran %q, want %q", got, c.order)
			}
		})
	}
}

// What members print is the task's, its result is main's, and its outputs are
// taken when all have ended.
func TestSetOutputs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out")
	own := sh("echo mine")
	own.Set = &task.Set{Name: "main", Members: []task.Member{{Name: "a", Needs: []string{"main"}}}}
	own.Outputs = []task.Output{{Name: "result", Kind: task.Result}, {Name: "p", Kind: task.Parameter, Path: file}}
	o, printed := together(t, own, map[string]string{"a": "echo theirs; echo late > " + file}, nil)
	if o.Phase != task.Succeeded || text(o, "result") != "mine" || text(o, "p") != "late" || printed != "mine\ntheirs\n" {
		t.Errorf("%+v; result %q, p %q, printed %q", o, text(o, "result"), text(o, "p"), printed)
	}
}

func TestSetIsCanceled(t *testing.T) {
	own := sh("echo up; trap 'exit 0' TERM; sleep 100 & wait")
	own.Grace = 100 * time.Millisecond
	own.Set = &task.Set{Name: "main", Members: []task.Member{{Name: "a"}}}
	o, _ := together(t, own, map[string]string{"a": "trap '' TERM; sleep 100"}, func(b *book) {
		b.until(t, "it runs", func() bool { return b.printed["0/1"] != "" })
		b.with(func() { b.beat = func(beat task.Beat) task.Beaten { return task.Beaten{Cancel: beat.Held} } })
	})
	if o.Phase != task.Canceled {
		t.Errorf("%+v", o)
	}
}

// A container that is gone is not the program's fault.
func TestSetLosesAMember(t *testing.T) {
	own := sh("sleep 0.1")
	own.Set = &task.Set{Name: "main", Members: []task.Member{{Name: "a"}}}
	meet := t.TempDir()
	s := newSet(meet, clock.Real(), Job{Task: own, Print: func(byte, []byte) {}})
	ctx, end := context.WithCancel(t.Context())
	m := &Member{Dir: meet, Name: "a", Args: []string{"sleep", "100"}, Clock: clock.Real()}
	left := make(chan error)
	go func() { left <- m.Run(ctx) }()
	lost := make(chan error)
	go func() {
		_, err := s.member(t.Context(), "a")
		lost <- err
	}()
	l := listen(t, meet)
	go s.accept(l)
	s.await(t.Context(), func() bool { return s.members["a"] != nil })
	end()
	<-left
	if err := <-lost; err == nil || !strings.Contains(err.Error(), "container a is gone") {
		t.Errorf("it says %v", err)
	}
}

func listen(t *testing.T, dir string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, meeting))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}
