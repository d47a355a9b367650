package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
)

// acts is a runner whose tasks do what their first word says.
type acts struct{ begun chan string }

func (a acts) Run(ctx context.Context, _ int, j Job) task.Outcome {
	a.begun <- j.Lease.Task
	switch j.Task.Command[0] {
	case "print":
		j.Print(task.Stdout, []byte(strings.Join(j.Task.Command[1:], " ")))
	case "serve":
		j.Serves()
		<-ctx.Done()
		return Ended(ctx, task.Outcome{Phase: task.Failed, Exit: 143})
	case "wait":
		<-ctx.Done()
		return Ended(ctx, task.Outcome{Phase: task.Failed, Exit: 143})
	}
	return task.Outcome{Phase: task.Succeeded}
}

func (acts) Close() {}

// begin starts a worker in a bubble, whose clock is that of the bubble.
func begin(t *testing.T, slots int, b *book) (begun chan string, done chan error, stop func()) {
	t.Helper()
	begun, done = make(chan string, 1000), make(chan error, 1)
	w, err := New(Config{Name: "w", Pool: "p", Slots: slots}, Deps{Server: b, Runner: acts{begun}, Clock: clock.Real()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	go func() { done <- w.Run(ctx) }()
	return begun, done, stop
}

func words(s ...string) task.Task { return task.Task{Command: s} }

func TestServerIsAwayForMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(words("print", "a\nb"), words("ok"), words("ok"))
		b.down = true
		_, done, _ := begin(t, 1, b)
		time.Sleep(time.Minute)
		b.with(func() { b.down = false })
		b.results(t, 1)
		b.with(func() {
			b.down = true
			b.tasks = append(b.tasks, words("print", "late"), words("ok"))
		})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		calls := b.calls
		b.with(func() { b.down = false })
		b.results(t, 5)
		if b.printed["0/1"] != "a\nb" || b.printed["3/1"] != "late" {
			t.Errorf("printed %q", b.printed)
		}
		if b.twice > 0 || calls > 500 {
			t.Errorf("%d outcomes came twice; %d calls, most of them in vain", b.twice, calls)
		}
		b.with(func() { b.drain = true })
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What was granted long ago, and never begun, may be somebody else's by now.
func TestNothingIsBegunWithoutTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(words("wait"), words("ok"))
		b.beat = func(task.Beat) task.Beaten { return task.Beaten{Term: 30 * time.Second} }
		w := newHold(1, clock.Real())
		w.mean = time.Millisecond // takes ahead of need
		begun, done := make(chan string, 10), make(chan error, 1)
		worker := &Worker{cfg: Config{Name: "w", Slots: 1, Beat: DefaultBeat, LogLimit: 1}, deps: Deps{Server: b, Runner: acts{begun}, Clock: clock.Real(), Log: quiet()}, hold: w}
		worker.logs = newLogs(b, clock.Real(), quiet())
		ctx, stop := context.WithCancel(t.Context())
		go func() { done <- worker.Run(ctx) }()
		<-begun
		b.with(func() { b.down = true })
		time.Sleep(time.Minute)
		w.mu.Lock()
		w.leases["token0"].end(ErrCanceled) // the first one is over
		w.mu.Unlock()
		time.Sleep(time.Minute)
		if len(begun) > 0 {
			t.Error("a task was begun although its lease must have ended")
		}
		b.with(func() { b.down = false })
		b.results(t, 2)
		stop()
		<-done
	})
}

func TestBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(words("wait"), words("wait"), words("wait"), words("ok"))
		begun, done, stop := begin(t, 3, b)
		for range 3 {
			<-begun
		}
		b.with(func() {
			b.beat = func(beat task.Beat) task.Beaten {
				return task.Beaten{Cancel: []task.Ref{b.given["token0"]}, Lost: []task.Ref{b.given["token1"]}}
			}
		})
		b.until(t, "canceled", func() bool { return b.outcomes["0"].Phase == task.Canceled })
		<-begun // in the slot of one of them
		b.until(t, "the last one", func() bool { return b.outcomes["3"].Phase == task.Succeeded })
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, said := b.outcomes["1"]; said || b.twice > 0 {
			t.Error("something was said of a task whose lease was lost")
		}
		last := b.beats[len(b.beats)-1]
		if len(last.Held) != 1 || last.Held[0].Task != "2" || last.Worker != "w" {
			t.Errorf("the last heartbeat says %+v", last)
		}
		stop()
		b.until(t, "the one that was stopped", func() bool { return b.outcomes["2"].Infrastructure })
		if err := <-done; err != context.Canceled {
			t.Errorf("ended with %v", err)
		}
	})
}

// Whoever told it to end waits for it, and for what becomes of its tasks.
func TestToldToEnd(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		t.Run(fmt.Sprintf("%d tasks for one slot", n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBook(slices.Repeat([]task.Task{words("wait")}, n)...)
				begun, done, stop := begin(t, 1, b)
				if n > 0 {
					<-begun
				}
				synctest.Wait()
				told := time.Now()
				stop()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				if took := time.Since(told); took > 0 {
					t.Errorf("it ended after %v", took)
				}
				b.with(func() {
					if o := b.outcomes["0"]; n > 0 && (o.Phase != task.Errored || !o.Infrastructure) {
						t.Errorf("of its task was told %+v", o)
					}
				})
			})
		})
	}
}

func TestUnbegunIsGivenBack(t *testing.T) {
	h := newHold(1, clock.Real())
	h.mean = time.Millisecond
	a, ok := h.call(t.Context(), true)
	if !ok || a.Want < 10 || a.Want > 1+aheadMax {
		t.Fatalf("asked %+v", a)
	}
	var g task.Grant
	for i := range 5 {
		g.Leases = append(g.Leases, task.Lease{Ref: task.Ref{Task: fmt.Sprint(i), Token: fmt.Sprint(i)}, Body: 0})
	}
	g.Leases = append(g.Leases, task.Lease{Ref: task.Ref{Task: "x", Token: "x"}, Body: 7}) // there is no such body
	g.Bodies = []task.Task{{}}
	h.granted(a, g)
	first, _ := h.next(t.Context())
	h.beaten(task.Beaten{Return: 2})
	a, _ = h.call(t.Context(), true)
	if names := tasks(a.Back); names != "x 4 3" {
		t.Errorf("gave back %q", names)
	}
	h.failed(a) // and again
	h.beaten(task.Beaten{Drain: true})
	h.finish(first, task.Outcome{Ref: first.Ref})
	if _, ok := h.call(t.Context(), true); ok {
		t.Error("asks for work although it is drained")
	}
	a, _ = h.call(t.Context(), false)
	if names := tasks(a.Back); names != "x 4 3 1 2" || len(a.Outcomes) != 1 || a.Want != 0 {
		t.Errorf("at the end: %+v", a)
	}
	h.granted(a, task.Grant{})
	<-h.drained()
}

func tasks(refs []task.Ref) string {
	var s []string
	for _, r := range refs {
		s = append(s, r.Task)
	}
	return strings.Join(s, " ")
}

// A program that prints more than the server takes is slowed down, not kept in
// memory; and it can be ended meanwhile.
func TestPrintsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.down = true
		l := newLogs(b, clock.Real(), quiet())
		ctx, end := context.WithCancel(t.Context())
		defer end()
		go l.run(ctx)
		its, cancel := context.WithCancel(t.Context())
		p := l.printer(its, task.Ref{Task: "t", Token: "x"}, 1<<40, clock.Real())
		over := make(chan bool)
		go func() {
			for range 1000 {
				p.print(task.Stdout, make([]byte, task.MaxFrame))
			}
			close(over)
		}()
		synctest.Wait()
		if l.size > logBuffer || l.size < logBuffer/2 {
			t.Errorf("%d bytes wait", l.size)
		}
		cancel()
		<-over
		if p.truncated() == 0 {
			t.Error("nothing is said of what was not kept")
		}
	})
}

func TestLinesAreWhole(t *testing.T) {
	b := newBook()
	l := newLogs(b, clock.Real(), quiet())
	p := l.printer(t.Context(), task.Ref{Task: "t", Token: "x"}, 25, clock.Real())
	for _, s := range []string{"on", "e\ntw", "o\nthree\n", "four five six seven\n", "eight"} {
		p.print(task.Stdout, []byte(s))
	}
	p.print(task.Stderr, []byte("err"))
	cut := p.truncated()
	var got []string
	for _, f := range l.frames {
		f, err := task.ReadFrame(reader(f))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d:%d:%s", f.Stream, f.Offset, f.Bytes))
	}
	if want := []string{"1:0:one\n", "1:4:two\nthree\n", "1:14:four five s", "1:42:"}; !slices.Equal(got, want) || cut != 8+5+1+3-1+1 {
		t.Errorf("frames %q, %d cut", got, cut)
	}
}

func TestHTTP(t *testing.T) {
	var asked []string
	mux := http.NewServeMux()
	answer := func(pattern string, out any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			ref, _ := task.ParseLease(r.Header.Get(task.HeaderLease))
			if r.URL.Path == task.PathArtifact {
				w.Header().Set(task.HeaderFolder, "true")
			}
			asked = append(asked, fmt.Sprintf("%s %s %s %s %.40s", r.Method, r.URL.Path, r.Header.Get("Authorization"), ref.Task, body))
			_ = json.NewEncoder(w).Encode(out)
		})
	}
	answer("POST "+task.PathWork, task.Grant{Term: time.Second})
	answer("POST "+task.PathBeat, task.Beaten{Return: 3})
	answer("POST "+task.PathLogs, task.Logged{})
	answer("POST "+task.PathBlob, task.Produced{Digest: "sha256:d", Size: 1})
	answer("GET "+task.PathBlob+"{digest}", "blob")
	answer("POST "+task.PathArtifact, "source")
	s := httptest.NewServer(mux)
	defer s.Close()
	h, err := NewHTTP(s.URL, func() (string, error) { return "s3cret", nil })
	if err != nil {
		t.Fatal(err)
	}
	ref := task.Ref{Run: "r", Task: "é", Token: "t"}
	if g, err := h.Ask(t.Context(), task.Ask{Worker: "w"}); err != nil || g.Term != time.Second {
		t.Error(g, err)
	}
	if b, err := h.Beat(t.Context(), task.Beat{}); err != nil || b.Return != 3 {
		t.Error(b, err)
	}
	if _, err := h.Logs(t.Context(), []byte("frames")); err != nil {
		t.Error(err)
	}
	if p, err := h.Store(t.Context(), ref, task.Output{}, false, strings.NewReader("bytes")); err != nil || p.Digest != "sha256:d" {
		t.Error(p, err)
	}
	for _, in := range []task.Input{{Digest: "sha256:e"}, {Source: &task.Source{Kind: "http"}}} {
		r, folder, err := h.Fetch(t.Context(), ref, in)
		if err != nil {
			t.Fatal(err)
		}
		if folder != (in.Source != nil) { // it is as the server says
			t.Errorf("%+v is a folder: %v", in, folder)
		}
		_ = r.Close()
	}
	got := strings.Join(asked, "\n")
	want := `POST /api/v1/work/ask Bearer s3cret  {"worker":"w","pool":"","want":0}
POST /api/v1/work/beat Bearer s3cret  {"worker":"","held":null}
POST /api/v1/work/logs Bearer s3cret  frames
POST /api/v1/work/blobs/ Bearer s3cret é bytes
GET /api/v1/work/blobs/sha256:e Bearer s3cret é ` + `
POST /api/v1/work/artifacts Bearer s3cret é {"name":"","path":"","source":{"kind":"h`
	if got != want {
		t.Errorf("asked\n%s\nwant\n%s", got, want)
	}
	s.Config.Handler = http.NotFoundHandler()
	if _, err := h.Ask(t.Context(), task.Ask{}); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "127.0.0.1:80", "ftp://x", "http://"} {
		if _, err := NewHTTP(bad, nil); err == nil {
			t.Errorf("took %q", bad)
		}
	}
}
