package kube_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/kube/dispatch"
	"cairn.dev/cairn/internal/kube/jobs"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow/front"
	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/images"
)

// farm is a cluster whose pods run tasks: a work server, a dispatcher and a
// controller of Jobs in this process, wired as serve wires them.
type farm struct {
	t        *testing.T
	cluster  *cluster.Cluster
	registry string
	server   *work.Server
	dispatch *dispatch.Dispatcher
	made     *jobs.Controller
	tasks    dispatch.Config
	jobs     jobs.Config
	url      string // of the work server, for pods
	handler  *swap
	dir      string
	clock    *ahead // of the controller of Jobs
	stop     func()

	mu    sync.Mutex
	lines map[string][]string // what tasks print, by run
}

// swap is a handler that can be put in place of another.
type swap struct {
	mu sync.RWMutex
	h  http.Handler
}

func (s *swap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.RLock()
	h := s.h
	s.mu.RUnlock()
	h.ServeHTTP(w, r)
}

func (s *swap) set(h http.Handler) {
	s.mu.Lock()
	s.h = h
	s.mu.Unlock()
}

// ahead is a clock that can be put ahead, for what is looked at but once a minute.
type ahead struct {
	clock.Clock
	by atomic.Int64
}

func (a *ahead) Mono() time.Duration { return a.Clock.Mono() + time.Duration(a.by.Load()) }

const workerImage = "cairn/worker:1"

// newFarm starts a cluster with real nodes and everything else.
func newFarm(t *testing.T, o cluster.Options, edit func(*farm)) *farm {
	t.Helper()
	f := &farm{t: t, dir: t.TempDir(), handler: &swap{h: http.NotFoundHandler()}, clock: &ahead{Clock: clock.Real()}, lines: map[string][]string{}}
	f.registry = registrytest.Serve(t, registry.New(registry.Config{Content: registrytest.Store(t, registrytest.Disk(t))}))
	images.Push(t, f.registry, "library/busybox:1", "library/alpine:3.23")
	worker := images.Program(t, buildWorker(t), workerImage)
	if err := worker.Push(t.Context(), f.registry); err != nil {
		t.Fatal(err)
	}
	f.borrow(o)
	s := httptest.NewServer(f.handler)
	t.Cleanup(s.Close)
	addr, err := f.cluster.Expose(strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	f.url = "http://" + addr
	f.jobs = jobs.Config{Cluster: "prod", Server: f.url, Worker: cluster.NodeRegistry + "/" + workerImage, MaxPerRun: 8,
		REST: &rest.Config{Host: f.cluster.Server, BearerToken: f.cluster.Token, TLSClientConfig: trust(t, f.cluster)}}
	if edit != nil {
		edit(f)
	}
	f.tasks.Cluster, f.tasks.Secret = "prod", []byte("0123456789abcdef")
	f.start()
	t.Cleanup(func() { f.stop() }) // before the cluster is cleaned up
	return f
}

// buildWorker builds the worker as "make worker" does.
func buildWorker(t *testing.T) string { t.Helper(); return built.path(t, "cairn-worker") }

// start starts the server, again after a stop.
func (f *farm) start() {
	f.t.Helper()
	secret := []byte("0123456789abcdef")
	log := slog.New(slog.NewTextHandler(f.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	d, err := db.Open(f.t.Context(), db.Config{Path: filepath.Join(f.dir, "work.db"), Sync: db.Full, Schema: work.Schema})
	if err != nil {
		f.t.Fatal(err)
	}
	f.server, err = work.New(f.t.Context(), work.Config{Secret: secret}, work.Deps{DB: d, Clock: clock.Real(), Log: log, Blobs: &worktest.Blobs{}, Compile: front.Again,
		Ended: func(run string) { f.dispatch.Ended(run) }})
	if err != nil {
		f.t.Fatal(err)
	}
	if f.dispatch, err = dispatch.New(f.tasks, dispatch.Deps{Server: f.server, Clock: clock.Real(), Log: log}); err != nil {
		f.t.Fatal(err)
	}
	f.made, err = jobs.New(f.jobs, jobs.Deps{Demander: f.dispatch, Teller: f.dispatch, Clock: f.clock, Log: log, Images: fixed{},
		Live: func(ctx context.Context, run string) (bool, error) {
			i, err := f.server.Get(ctx, run)
			return err == nil && i.Ended.IsZero(), nil
		},
		Failed: func(ctx context.Context, run string) (bool, error) {
			i, err := f.server.Get(ctx, run)
			return err == nil && i.Phase != machine.Succeeded, nil
		}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.handler.set(dispatch.Door(http.HandlerFunc(f.logs), f.dispatch))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{f.server.Run, f.dispatch.Run, f.made.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				f.t.Error(err)
			}
		})
	}
	f.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := d.Close(); err != nil {
			f.t.Error(err)
		}
	})
}

// fixed knows the images of these tests.
type fixed struct{}

func (fixed) Find(_ context.Context, _, reference string, _ []string) (jobs.Image, error) {
	return jobs.Image{Command: []string{"sh"}}, nil
}

// logs takes what tasks print.
func (f *farm) logs(w http.ResponseWriter, r *http.Request) {
	c, ok := dispatch.Admitted(r.Context())
	if !ok || r.URL.Path != task.PathLogs {
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	for br := bufio.NewReader(r.Body); ; {
		x, err := task.ReadFrame(br)
		if err == io.EOF {
			break
		}
		if err != nil || !f.server.Holds(x.Ref) || x.Run != c.Run && !dispatch.Shared(c.Run) {
			http.Error(w, "not held", http.StatusBadRequest)
			return
		}
		f.mu.Lock()
		f.lines[x.Run] = append(f.lines[x.Run], string(x.Bytes))
		f.mu.Unlock()
	}
	_ = json.NewEncoder(w).Encode(task.Logged{})
}

// run submits a document to the cluster's pool.
func (f *farm) run(doc string) string { f.t.Helper(); return f.runIn("default", doc) }

func (f *farm) runIn(namespace, doc string) string {
	f.t.Helper()
	g, problems := front.Compile("test.yaml", []byte(doc), front.Options{Cluster: true})
	if len(problems) > 0 {
		f.t.Fatalf("%v", problems)
	}
	id, err := f.server.Submit(f.t.Context(), g, "ann", work.Options{Pool: f.dispatch.Pool(), Namespace: namespace})
	if err != nil {
		f.t.Fatal(err)
	}
	return id
}

// ends waits for the end of a run.
func (f *farm) ends(id string, within time.Duration) work.Info {
	f.t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		i, err := f.server.Get(f.t.Context(), id)
		if err != nil {
			f.t.Fatal(err)
		}
		if !i.Ended.IsZero() {
			return i
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("run %s has not ended after %v: %+v\n%s", id, within, i, f.cluster.Kubectl("get", "jobs,pods,events", "-A", "-o", "wide"))
		}
	}
}

// succeeds waits for a run whose tasks all have to.
func (f *farm) succeeds(id string, tasks int, within time.Duration) work.Info {
	f.t.Helper()
	i := f.ends(id, within)
	if i.Phase != machine.Succeeded || int(i.Counts.Succeeded) < tasks {
		nodes, _, _ := f.server.Nodes(f.t.Context(), id, "", "", 20, machine.Filter{})
		f.t.Fatalf("%+v\n%+v", i, nodes)
	}
	return i
}

// document is a workflow of ours with one task.
func document(name string, n int, fields string) string {
	each := ""
	if n > 1 {
		each = fmt.Sprintf(", forEach: {count: %d}", n)
	}
	return fmt.Sprintf("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: %s}\nspec: {tasks: [{name: a, image: 'busybox:1', %s%s}]}\n", name, fields, each)
}
