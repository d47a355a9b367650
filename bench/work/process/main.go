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
	var c config
	flag.IntVar(&c.tasks, "tasks", 4000, "programs of each round")
	flag.IntVar(&c.single, "single", 500, "programs that are run one by one")
	flag.IntVar(&c.rounds, "rounds", 5, "rounds, of which the median counts")
	flag.StringVar(&c.memory, "memory", "/dev/shm", "folder for roots that is in memory")
	flag.StringVar(&c.disk, "disk", "/var/tmp", "folder for roots that is on a disk: what a folder costs differs much between places of one disk")
	out := flag.String("o", "", "write a report in Markdown to this file")
	only := flag.String("only", "", "shared or overlay: only that, in memory, for a profile")
	flag.Parse()
	if err := run(c, *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench/work/process:", err)
		os.Exit(1)
	}
}

type config struct {
	tasks, single, rounds int
	memory, disk          string
}

func run(c config, only, out string) error {
	if only != "" {
		r, err := rate(c.memory, c.tasks, runtime.NumCPU(), only)
		fmt.Printf("%.0f programs a second\n", r)
		return err
	}
	if err := parts.Install(context.Background(), os.Stderr, "parallel"); err != nil {
		return err
	}
	r, err := measure(c)
	if err != nil {
		return err
	}
	fmt.Print(r)
	if out == "" {
		return nil
	}
	return os.WriteFile(out, []byte(r), 0o644)
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
	s := &server{left: n, wanted: n, over: make(chan struct{}), level: level, command: []string{"true"}}
	start := time.Now()
	if err := work(scratch, s, slots); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// alone is how long programs take that are started as they are.
func alone(n int, command []string) ([]float64, error) {
	var times []float64
	for range n {
		start := time.Now()
		if err := exec.Command(command[0], command[1:]...).Run(); err != nil {
			return nil, err
		}
		times = append(times, float64(time.Since(start))/1e6)
	}
	return times, nil
}

// one is how long tasks take in a single slot: from when the last one was over.
func one(scratch string, n int, level string, command []string) ([]float64, error) {
	s := &server{left: n, wanted: n, over: make(chan struct{}), level: level, command: command}
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
	level   string
	command []string

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
	g.Bodies = []task.Task{{Command: s.command, WorkDir: "/", Isolation: s.level}}
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
