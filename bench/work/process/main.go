//go:build linux

// Command process measures the worker: how many programs that do nothing it
// runs in a second beside xargs and GNU parallel, and how much longer one takes in a file system
// and namespaces of its own.
//
// It owns a server in memory, which costs next to nothing. It does not measure
// the work server; that is the command above it.
//
//	go run ./bench/work/process
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
	"cairn.dev/cairn/internal/worker/isolate"
	"cairn.dev/cairn/internal/worker/keep"
	"cairn.dev/cairn/test/parts"
)

func main() {
	keep.Main()
	var scratch string
	tasks := flag.Int("tasks", 5000, "programs of each round")
	single := flag.Int("single", 500, "programs that are run one by one")
	rounds := flag.Int("rounds", 3, "rounds, of which the median counts")
	flag.StringVar(&scratch, "scratch", "/var/tmp", "folder for roots: what a folder costs differs much between places of one disk")
	only := flag.String("only", "", "shared or overlay: only that, for a profile")
	flag.Parse()
	if *only != "" {
		r, err := rate(scratch, *tasks, runtime.NumCPU(), *only)
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench/work/process:", err)
			os.Exit(1)
		}
		fmt.Printf("%.0f programs a second\n", r)
		return
	}
	if err := run(scratch, *tasks, *single, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench/work/process:", err)
		os.Exit(1)
	}
}

func run(scratch string, tasks, single, rounds int) error {
	slots := runtime.NumCPU()
	if err := parts.Install(context.Background(), os.Stderr, "parallel"); err != nil {
		return err
	}
	var peer, gnu, shared, overlay []float64
	for range rounds { // side by side, so that what else runs here hits all
		p, err := xargs(tasks, slots)
		if err != nil {
			return err
		}
		s, err := rate(scratch, tasks, slots, "shared")
		if err != nil {
			return err
		}
		o, err := rate(scratch, tasks/4, slots, "overlay")
		if err != nil {
			return err
		}
		g, err := parallel(tasks/8, slots)
		if err != nil {
			return err
		}
		peer, gnu, shared, overlay = append(peer, p), append(gnu, g), append(shared, s), append(overlay, o)
	}
	p, s, o := median(peer), median(shared), median(overlay)
	fmt.Printf("programs a second, %d at a time: xargs %.0f, GNU parallel %.0f, worker without isolation %.0f (%.2f of xargs), overlay %.0f\n", slots, p, median(gnu), s, s/p, o)
	plain, err := alone(single)
	if err != nil {
		return err
	}
	for _, level := range []string{"shared", "overlay"} {
		times, err := one(scratch, single, level)
		if err != nil {
			return err
		}
		fmt.Printf("one after the other, %s: p50 %.1f ms, p99 %.1f ms; plain exec p50 %.1f ms, p99 %.1f ms; on top p50 %.1f ms, p99 %.1f ms\n", level,
			at(times, 50), at(times, 99), at(plain, 50), at(plain, 99), at(times, 50)-at(plain, 50), at(times, 99)-at(plain, 99))
	}
	return nil
}

// xargs is the peer: so many programs, so many at a time.
func xargs(n, slots int) (float64, error) {
	return each(n, "xargs", "-P", strconv.Itoa(slots), "-n", "1", "true")
}

// parallel is GNU's, which gathers what each prints.
func parallel(n, slots int) (float64, error) {
	return each(n, "parallel", "-j", strconv.Itoa(slots), "true")
}

// each is how many programs a second a command starts for lines that it reads.
func each(n int, command ...string) (float64, error) {
	var in strings.Builder
	for i := range n {
		in.WriteString(strconv.Itoa(i) + "\n")
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(in.String())
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w", command[0], err)
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

func rate(scratch string, n, slots int, level string) (float64, error) {
	s := &server{left: n, wanted: n, over: make(chan struct{}), level: level}
	start := time.Now()
	if err := work(scratch, s, slots); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// alone is how long programs take that are started as they are.
func alone(n int) ([]float64, error) {
	var times []float64
	for range n {
		start := time.Now()
		if err := exec.Command("true").Run(); err != nil {
			return nil, err
		}
		times = append(times, float64(time.Since(start))/1e6)
	}
	return times, nil
}

// one is how long tasks take in a single slot: from when the last one was over.
func one(scratch string, n int, level string) ([]float64, error) {
	s := &server{left: n, wanted: n, over: make(chan struct{}), level: level}
	if err := work(scratch, s, 1); err != nil {
		return nil, err
	}
	return s.times, nil
}

func work(scratch string, s *server, slots int) error {
	dir, err := os.MkdirTemp(scratch, "cairn-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := worker.NewLocal(worker.LocalConfig{Place: isolate.Place{Scratch: filepath.Join(dir, "scratch")}, Slots: slots}, s, clock.Real(), nil)
	if err != nil {
		return err
	}
	w, err := worker.New(worker.Config{Name: "bench", Pool: "bench", Slots: slots}, worker.Deps{Server: s, Runner: timed{l, s}, Clock: clock.Real()})
	if err != nil {
		return err
	}
	if err := w.Run(context.Background()); err != nil {
		return err
	}
	return s.failure
}

// timed notes how long each task took.
type timed struct {
	worker.Runner
	s *server
}

func (t timed) Run(ctx context.Context, slot int, j worker.Job) task.Outcome {
	start := time.Now()
	o := t.Runner.Run(ctx, slot, j)
	took := float64(time.Since(start)) / 1e6
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.times = append(t.s.times, took)
	return o
}

// server hands out the same task so many times.
type server struct {
	level string

	mu           sync.Mutex
	left, wanted int
	over         chan struct{}
	times        []float64
	failure      error
}

func (s *server) Ask(ctx context.Context, a task.Ask) (g task.Grant, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range a.Outcomes {
		if o.Phase != task.Succeeded || o.Isolation != s.level {
			s.failure = fmt.Errorf("a task ended %s with isolation %q: %s", o.Phase, o.Isolation, o.Message)
		}
		if s.wanted--; s.wanted == 0 {
			close(s.over)
		}
	}
	g.Term = time.Minute
	g.Bodies = []task.Task{{Command: []string{"true"}, WorkDir: "/", Isolation: s.level}}
	for range min(a.Want, s.left) {
		token := strconv.Itoa(s.left)
		s.left--
		g.Leases = append(g.Leases, task.Lease{Ref: task.Ref{Run: "r", Task: token, Attempt: 1, Token: token}})
	}
	if a.Wait > 0 && len(g.Leases) == 0 {
		s.mu.Unlock()
		select {
		case <-s.over:
		case <-ctx.Done():
		}
		s.mu.Lock()
	}
	g.Drain = s.wanted == 0
	return g, nil
}

func (s *server) Beat(context.Context, task.Beat) (task.Beaten, error) { return task.Beaten{}, nil }
func (s *server) Logs(context.Context, []byte) (task.Logged, error)    { return task.Logged{}, nil }
func (s *server) Fetch(context.Context, task.Ref, task.Input) (io.ReadCloser, bool, error) {
	return nil, false, os.ErrNotExist
}
func (s *server) Store(context.Context, task.Ref, task.Output, bool, io.Reader) (task.Produced, error) {
	return task.Produced{}, os.ErrInvalid
}

func median(v []float64) float64 { return at(v, 50) }

func at(v []float64, percent int) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)*percent/100, len(v)-1)]
}
