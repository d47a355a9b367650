package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/client-go/rest"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/kube"
	"cairn.dev/cairn/internal/kube/controller"
	"cairn.dev/cairn/internal/kube/dispatch"
	"cairn.dev/cairn/internal/kube/jobs"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow/front"
)

// serverConfig is what the process of the server is told, as JSON.
type serverConfig struct {
	Dir, Listen, Kubeconfig string
	URL                     string // of itself, for pods
	Worker                  string // image
	Copy                    bool   // it is copied, as where image volumes cannot be had
	Pods                    int    // of one run at a time
	Warm                    time.Duration
}

// poolName is what the server calls the cluster.
const poolName = "bench"

// marked begins what is printed by tasks that are waited for.
const marked = "mark-"

// serve is the process that is measured: work server, controller, dispatcher
// and Jobs, wired as cairn serve wires them, and without what is none of theirs.
// It ends with its standard input.
func serve(text string) error {
	var cfg serverConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return fmt.Errorf("read what the server is told: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() { // the parent's end is ours
		_, _ = os.Stdin.Read(make([]byte, 1))
		stop()
	}()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	store, err := db.Open(ctx, db.Config{Path: filepath.Join(cfg.Dir, "work.db"), Sync: db.Full, Schema: work.Schema})
	if err != nil {
		return err
	}
	defer store.Close()
	var tasks *dispatch.Dispatcher
	var objects *controller.Controller
	secret := []byte("0123456789abcdef")
	server, err := work.New(ctx, work.Config{Secret: secret}, work.Deps{DB: store, Clock: clock.Real(), Log: log, Blobs: &worktest.Blobs{},
		Compile: front.Again, CompileSchedule: front.ScheduleAgain,
		Ended: func(run string) { tasks.Ended(run) }, Changed: func(run string) { objects.Changed(run) }})
	if err != nil {
		return err
	}
	if tasks, err = dispatch.New(dispatch.Config{Cluster: poolName, Secret: secret, Warm: cfg.Warm}, dispatch.Deps{Server: server, Clock: clock.Real(), Log: log}); err != nil {
		return err
	}
	api, err := kube.Connect(cfg.Kubeconfig, "")
	if err != nil {
		return err
	}
	pulse := kube.NewPulse(clock.Real())
	api.Wrap(pulse.Wrap)
	pods, err := jobs.New(jobs.Config{Cluster: poolName, REST: api, Server: cfg.URL, Worker: cfg.Worker, FindImageVolume: !cfg.Copy, MaxPerRun: cfg.Pods, Linger: time.Second},
		jobs.Deps{Demander: tasks, Teller: tasks, Ease: pulse.Ease, Clock: clock.Real(), Log: log,
			Live: func(_ context.Context, run string) (bool, error) { return server.Live(run), nil }})
	if err != nil {
		return err
	}
	told := &ends{}
	watched := rest.CopyConfig(api)
	watched.Wrap(told.wrap)
	if objects, err = controller.New(controller.Config{Cluster: poolName, REST: watched}, controller.Deps{Server: server, Ease: pulse.Ease, Clock: clock.Real(), Log: log}); err != nil {
		return err
	}
	m := &marks{holds: server.Holds, seen: map[string]bool{}, more: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+task.PathLogs, m.take)
	mux.HandleFunc("GET /ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /told", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, told.n.Load()) })
	mux.HandleFunc("GET /printed/{text}", m.await)
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return err
	}
	web := &http.Server{Handler: dispatch.Door(mux, tasks), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = web.Serve(l) }()
	defer web.Close()
	var wg sync.WaitGroup
	var errs [4]error
	for i, run := range []func(context.Context) error{server.Run, tasks.Run, pods.Run, objects.Run} {
		wg.Go(func() {
			if err := run(ctx); ctx.Err() == nil {
				errs[i] = fmt.Errorf("a loop of the server has ended: %w", err)
			}
			stop() // one that ends ends all
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// ends counts the ends of runs that the API server was told of: to ask it for
// them would cost it more than to be told.
type ends struct {
	next http.RoundTripper
	n    atomic.Int64
}

func (e *ends) wrap(next http.RoundTripper) http.RoundTripper {
	e.next = next
	return e
}

// RoundTrip implements [http.RoundTripper].
func (e *ends) RoundTrip(r *http.Request) (*http.Response, error) {
	end := false
	if r.Method == http.MethodPatch && r.GetBody != nil {
		if b, err := r.GetBody(); err == nil {
			text, _ := io.ReadAll(b)
			end = bytes.Contains(text, []byte(`"finishedAt":"`))
		}
	}
	resp, err := e.next.RoundTrip(r)
	if end && err == nil && resp.StatusCode < 300 {
		e.n.Add(1)
	}
	return resp, err
}

// marks takes what tasks print, and keeps of it the lines that are waited for.
type marks struct {
	holds func(task.Ref) bool

	mu   sync.Mutex
	seen map[string]bool
	more chan struct{} // closed and replaced when there is one more
}

func (m *marks) take(w http.ResponseWriter, r *http.Request) {
	for in := bufio.NewReader(r.Body); ; {
		f, err := task.ReadFrame(in)
		if err == io.EOF {
			break
		}
		if err != nil || !m.holds(f.Ref) {
			http.Error(w, "not held", http.StatusBadRequest)
			return
		}
		if line := strings.TrimSpace(string(f.Bytes)); strings.HasPrefix(line, marked) {
			m.mu.Lock()
			m.seen[line] = true
			close(m.more)
			m.more = make(chan struct{})
			m.mu.Unlock()
		}
	}
	_ = json.NewEncoder(w).Encode(task.Logged{})
}

// await answers when a line has been printed.
func (m *marks) await(w http.ResponseWriter, r *http.Request) {
	for {
		m.mu.Lock()
		seen, more := m.seen[r.PathValue("text")], m.more
		m.mu.Unlock()
		if seen {
			return
		}
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}
