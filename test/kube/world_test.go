package kube_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/kube/controller"
	"cairn.dev/cairn/internal/kube/install"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/workflow/front"
	"cairn.dev/cairn/test/cluster"
)

// world is a cluster, a work server with its controller, and a worker that does
// what the words of a task's program say: "fail" fails, "hang" goes on until it
// is told to end, all else succeeds at once.
type world struct {
	t       *testing.T
	cluster *cluster.Cluster
	config  controller.Config
	db      string

	server     *work.Server
	controller *controller.Controller
	stop       func()
	logs       logs
	clock      clock.Clock
}

// logs go to the test's own when it fails.
type logs struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func newWorld(t *testing.T, o cluster.Options, change func(*controller.Config)) *world {
	t.Helper()
	w := &world{t: t, cluster: cluster.Start(t, o), db: filepath.Join(t.TempDir(), "work.db"), clock: clock.Real()}
	// With the rights of cairn install, and no others.
	installed, err := install.Manifest(install.Default())
	if err != nil {
		t.Fatal(err)
	}
	w.cluster.Apply(string(installed))
	token := strings.TrimSpace(w.cluster.Kubectl("create", "token", "cairn", "--namespace=cairn", "--duration=2h"))
	w.config = controller.Config{Cluster: "prod", URL: "https://cairn.example.org",
		REST: &rest.Config{Host: w.cluster.Server, BearerToken: token, TLSClientConfig: trust(t, w.cluster)}}
	if change != nil {
		change(&w.config)
	}
	t.Cleanup(func() {
		w.end()
		if t.Failed() {
			w.logs.mu.Lock()
			defer w.logs.mu.Unlock()
			out := w.logs.b.String()
			t.Log(out[max(0, len(out)-20_000):])
		}
	})
	for _, d := range ours(t) {
		w.cluster.Kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/"+d.Name)
	}
	return w
}

// trust is of the API server. It is no file: the library remembers what stood in
// one of that name for the cluster of another test.
func trust(t *testing.T, c *cluster.Cluster) rest.TLSClientConfig {
	t.Helper()
	ca, err := os.ReadFile(c.CA)
	if err != nil {
		t.Fatal(err)
	}
	return rest.TLSClientConfig{CAData: ca}
}

// term is how long a lease lasts: what a worker had that is gone is waited for
// so long.
const term = 5 * time.Second

// late is a clock that is ahead, so that a minute ends sooner.
type late struct {
	clock.Clock
	by time.Duration
}

func (l late) Now() time.Time { return l.Clock.Now().Add(l.by) }

// endOfMinute is a clock by which a minute ends in a while.
func endOfMinute(in time.Duration) clock.Clock {
	now := time.Now()
	return late{clock.Real(), now.Truncate(time.Minute).Add(2*time.Minute - in).Sub(now)}
}

// start begins the server and all that belongs to it.
func (w *world) start() {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(&w.logs, nil))
	store, err := db.Open(w.t.Context(), db.Config{Path: w.db, Sync: db.Full, Schema: work.Schema})
	if err != nil {
		w.t.Fatal(err)
	}
	var c *controller.Controller
	w.server, err = work.New(w.t.Context(), work.Config{Secret: []byte("0123456789abcdef"), Term: term}, work.Deps{DB: store, Clock: w.clock, Log: log,
		Compile: front.Again, CompileSchedule: front.ScheduleAgain, Changed: func(run string) { c.Changed(run) }})
	if err != nil {
		w.t.Fatal(err)
	}
	if c, err = controller.New(w.config, controller.Deps{Server: w.server, Clock: w.clock, Log: log}); err != nil {
		w.t.Fatal(err)
	}
	w.controller = c
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	wg.Go(func() { w.work(ctx) })
	served, finish := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Run(served) }()
	w.stop = func() {
		cancel()
		wg.Wait()
		finish()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		if err := store.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

// end ends it as a process ends: all that is not in the database is forgotten.
func (w *world) end() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

// work is the worker.
func (w *world) work(ctx context.Context) {
	ask := task.Ask{Worker: "worker", Pool: controller.Pool(w.config.Cluster), Want: 500, Wait: 200 * time.Millisecond}
	held := map[string]task.Ref{}
	for ctx.Err() == nil {
		grant, err := w.server.Work(ctx, ask)
		if err != nil {
			if ctx.Err() == nil {
				w.t.Errorf("work: %v", err)
			}
			return
		}
		ask.Outcomes = nil
		now := time.Now()
		for _, l := range grant.Leases {
			command, args := grant.Bodies[l.Body].Command, grant.Bodies[l.Body].Args
			if l.Own != nil && l.Own.Command != nil { // in place of the body's
				command = l.Own.Command
			}
			if l.Own != nil && l.Own.Args != nil {
				args = l.Own.Args
			}
			program := strings.Join(slices.Concat(command, args), " ")
			o := task.Outcome{Ref: l.Ref, Phase: task.Succeeded, Started: now, Ended: now}
			switch {
			case strings.Contains(program, "hang"):
				held[l.Header()] = l.Ref
				continue
			case strings.Contains(program, "fail"):
				o.Phase, o.Exit, o.Message = task.Failed, 3, "the program ended with exit code 3"
			}
			ask.Outcomes = append(ask.Outcomes, o)
		}
		beat := task.Beat{Worker: "worker"}
		for _, r := range held {
			beat.Held = append(beat.Held, r)
		}
		beaten, err := w.server.Beat(ctx, beat)
		if err != nil {
			continue
		}
		for _, r := range beaten.Cancel {
			delete(held, r.Header())
			ask.Outcomes = append(ask.Outcomes, task.Outcome{Ref: r, Phase: task.Canceled, Exit: -1})
		}
	}
}

// await waits for something that is so sooner or later.
func await(t *testing.T, what string, ok func() (string, bool)) {
	t.Helper()
	last := ""
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		got, yes := ok()
		if yes {
			return
		}
		last = got
	}
	t.Fatalf("it is never so that %s; last seen: %s", what, last)
}

func (w *world) until(what string, ok func() (string, bool)) {
	w.t.Helper()
	await(w.t, what, ok)
}

// reads waits until a path of an object reads so.
func (w *world) reads(object, path, want string) {
	w.t.Helper()
	w.until(fmt.Sprintf("%s of %s is %q", path, object, want), func() (string, bool) {
		got, err := w.cluster.RunKubectl(w.t.Context(), "", "get", object, "-o", "jsonpath={"+path+"}")
		if err != nil {
			return err.Error(), false
		}
		return got, got == want
	})
}

// run is what the server has of an object's run.
func (w *world) run(object string) work.Info {
	w.t.Helper()
	id := w.cluster.Kubectl("get", object, "-o", "jsonpath={.status.run}{.status.cairn.run}")
	i, err := w.server.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatalf("the run %q of %s: %v", id, object, err)
	}
	return i
}

// runPhase waits for the phase of a run.
func (w *world) runPhase(id, want string) {
	w.t.Helper()
	w.until("run "+id+" is "+want, func() (string, bool) {
		i, err := w.server.Get(w.t.Context(), id)
		if err != nil {
			return err.Error(), false
		}
		return i.Phase.String(), i.Phase.String() == want
	})
}

// allRuns wants every run.
var allRuns = work.RunFilter{}
