package worker

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/isolate"
)

// A daemon that is ready is told of, until somebody hears it, and leaves its slot
// to others; it is ended when nobody needs it.
func TestDaemonLeavesItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(words("serve"))
		begun, done, _ := begin(t, 1, b)
		<-begun
		b.with(func() { b.down = true })
		synctest.Wait()
		b.with(func() { b.down = false })
		b.until(t, "the daemon serves", func() bool { return b.serving["0"] == "127.0.0.1" })
		b.with(func() { b.tasks = append(b.tasks, words("ok"), words("ok")) })
		b.until(t, "the others end beside it", func() bool { return len(b.outcomes) == 2 })
		b.with(func() {
			b.beat = func(beat task.Beat) task.Beaten { return task.Beaten{Cancel: beat.Held} }
		})
		if o := b.results(t, 3); o[0].Phase != task.Canceled {
			t.Errorf("it ended as %+v", o[0])
		}
		b.with(func() { b.drain = true })
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The server may hold a heartbeat, to say at once what is canceled. Then others
// follow, but not all at once.
func TestHeartbeatsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(words("serve"))
		begun, done, _ := begin(t, 1, b)
		<-begun
		for _, again := range []bool{false, true} {
			b.with(func() { b.beats, b.beat = nil, func(task.Beat) task.Beaten { return task.Beaten{Again: again} } })
			time.Sleep(20 * time.Second)
			b.with(func() {
				least, most := 3, 5
				if again { // what went before may last a while
					least, most = 15, 21
				}
				if n := len(b.beats); n < least || n > most {
					t.Errorf("again %t: %d beats in 20 s, want %d to %d", again, n, least, most)
				}
				for _, beat := range b.beats {
					if beat.Wait != DefaultBeat {
						t.Errorf("a beat lets the server wait %v", beat.Wait)
					}
				}
			})
		}
		b.with(func() {
			b.beat = func(beat task.Beat) task.Beaten { return task.Beaten{Cancel: beat.Held} }
		})
		b.results(t, 1)
		b.with(func() { b.drain = true })
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What a probe asks, and what it takes for an answer.
func TestProbe(t *testing.T) {
	status := http.StatusServiceUnavailable
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ready" || r.Header.Get("X-Who") != "cairn" || r.Host != "web" {
			t.Errorf("it was asked %s of %s, %v", r.URL, r.Host, r.Header)
		}
		w.WriteHeader(status)
	}))
	defer web.Close()
	_, text, err := net.SplitHostPort(web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	ask := &task.Probe{HTTP: "http", Port: port, Path: "/ready", Headers: map[string]string{"X-Who": "cairn", "host": "web"}}
	for s, good := range map[int]bool{200: true, 204: true, 302: true, 399: true, 400: false, 503: false} {
		status = s
		if err := probe(t.Context(), Setting{}, "127.0.0.1", ask); (err == nil) != good {
			t.Errorf("status %d: %v", s, err)
		}
	}
	if err := probe(t.Context(), Setting{}, "127.0.0.1", &task.Probe{Port: port}); err != nil {
		t.Errorf("a port that is open: %v", err)
	}
	if err := probe(t.Context(), Setting{}, "127.0.0.1", &task.Probe{Exec: []string{"true"}}); err == nil {
		t.Error("a program was run where none can be")
	}
	web.Close()
	if err := probe(t.Context(), Setting{}, "127.0.0.1", &task.Probe{Port: port}); err == nil {
		t.Error("a port that is closed is taken for an open one")
	}
}

// A program is ready when its probe went well as often in a row as it has to; one
// that ended never is.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &Executor{Clock: clock.Real()}
		answers := []bool{false, true, false, true, true}
		s := Setting{Exec: func(context.Context, []string) error {
			good := answers[0]
			answers = answers[1:]
			if !good {
				return context.DeadlineExceeded
			}
			return nil
		}}
		p := &task.Probe{Exec: []string{"x"}, Delay: 3 * time.Second, Period: 2 * time.Second, Times: 2}
		begin := time.Now()
		if !x.ready(s, Job{Task: task.Task{Ready: p}}, nil) || time.Since(begin) != 11*time.Second {
			t.Errorf("ready after %v", time.Since(begin))
		}
		over := make(chan struct{})
		close(over)
		if x.ready(s, Job{Task: task.Task{Ready: &task.Probe{Exec: []string{"x"}, Delay: time.Hour}}}, over) {
			t.Error("what has ended is ready")
		}
	})
}

// In a container of its own a program can be asked by another one, which sees
// nothing of ours.
func TestDaemonInItsContainer(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "up")
	d := sh("sleep 0.2; echo > " + mark + "; trap 'exit 0' TERM; sleep 100 & wait")
	d.Isolation, d.Daemon, d.Grace = "pod", true, time.Second
	d.Ready = &task.Probe{Exec: []string{"sh", "-c", `test -e ` + mark + ` && test "$INHERITED" = 1 && test -z "$CAIRN_TOKEN"`}, Period: 10 * time.Millisecond}
	t.Setenv("CAIRN_TOKEN", "secret")
	b := newBook(d)
	l, err := NewLocal(LocalConfig{Place: isolate.Place{Scratch: filepath.Join(t.TempDir(), "scratch"), Single: true}, Env: []string{"INHERITED=1", "PATH=/usr/bin:/bin"}}, b, clock.Real(), nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(Config{Name: "w", Pool: "p", Single: true, Address: "10.0.0.7", Beat: 20 * time.Millisecond}, Deps{Server: b, Runner: l, Clock: clock.Real()})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- w.Run(t.Context()) }()
	b.until(t, "it serves", func() bool { return b.serving["0"] == "10.0.0.7" })
	b.with(func() { b.beat = func(beat task.Beat) task.Beaten { return task.Beaten{Cancel: beat.Held} } })
	if o := b.results(t, 1)[0]; o.Phase != task.Canceled {
		t.Errorf("it ended as %+v", o)
	}
	b.with(func() { b.drain = true })
	if err := <-done; err != nil {
		t.Error(err)
	}
}
