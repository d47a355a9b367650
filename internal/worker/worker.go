// Package worker is the process beside somebody's program: it takes tasks from
// a work server, runs them, and reports how they ended.
//
// It owns the loop: asking for work ahead of need, one heartbeat for all that
// it holds, outcomes that are kept and sent until the server took them, logs
// as they are printed; and [Local], which runs a task in this container. It
// promises that an outcome it has is not lost while the server is away, that
// what it keeps in memory is bounded by what it was granted, that a task whose
// lease was lost is killed and nothing said of it, and that no process of a
// task outlives it. Tasks run at least once, not exactly once: a server that
// does not hear of a worker gives its tasks to another. It decides nothing
// about retries, and knows of workflows and images nothing.
package worker

import (
	"context"
	crand "crypto/rand"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
)

const (
	// DefaultBeat is how often a worker says that it lives.
	DefaultBeat = 5 * time.Second
	// DefaultLogLimit is how many bytes of output are sent of a task that has
	// no limit of its own.
	DefaultLogLimit = 64 << 20

	longPoll     = 20 * time.Second
	maxBatch     = 256 // outcomes in a call
	minBackoff   = 100 * time.Millisecond
	maxBackoff   = 5 * time.Second
	farewellTime = 20 * time.Second // for what is left to report when told to end
	defaultTerm  = 30 * time.Second
)

// Why a task is ended early: the cause of its context.
var (
	// ErrCanceled: the server says so; the outcome is Canceled.
	ErrCanceled = errors.New("canceled")
	// ErrLost: its lease is held by somebody else. Nothing is said of it.
	ErrLost = errors.New("its lease was lost")
	// ErrStopped: this worker has to go.
	ErrStopped = errors.New("its worker was told to end")
)

// A Server hands out work. Calls that fail are repeated by the worker; so
// outcomes and frames may arrive twice.
type Server interface {
	Ask(ctx context.Context, a task.Ask) (task.Grant, error)
	Beat(ctx context.Context, b task.Beat) (task.Beaten, error)
	// Logs takes frames, see [task.AppendFrame].
	Logs(ctx context.Context, frames []byte) (task.Logged, error)
	Exchange
}

// An Exchange is where the bytes of inputs come from and those of outputs go.
type Exchange interface {
	// Fetch opens the bytes of an input, and says whether they are a folder's.
	Fetch(ctx context.Context, holder task.Ref, in task.Input) (body io.ReadCloser, folder bool, err error)
	// Store keeps what is read as a blob, and where else the output says.
	Store(ctx context.Context, holder task.Ref, out task.Output, folder bool, from io.Reader) (task.Produced, error)
}

// A Job is a task that is run, and where its output goes.
type Job struct {
	Lease task.Lease
	Task  task.Task // whole: what is the lease's own is in it
	Print func(stream byte, p []byte)
	// Address is where others find what a daemon serves; Serves says that it is
	// ready. Its slot is another task's then.
	Address string
	Serves  func()
}

// A Runner runs tasks. Run is called for different slots at the same time, and
// for one slot one after the other, but for daemons that serve. The context ends when the task has to; its
// cause says why. The Ref of the outcome is set by the caller.
type Runner interface {
	Run(ctx context.Context, slot int, j Job) task.Outcome
	Close()
}

// Config of a worker.
type Config struct {
	Name  string // unique among workers; made up when empty
	Pool  string // what it is able to run
	Slots int    // tasks at a time; 1 when 0
	Beat  time.Duration
	// Single: it is for one task, so that a daemon has its slot to itself.
	Single bool
	// Address of what it runs, for others: an IP address; 127.0.0.1 when empty.
	Address string
	// LogLimit in bytes, for tasks without one of their own.
	LogLimit int64
}

// Deps of a worker.
type Deps struct {
	Server Server
	Runner Runner
	Clock  clock.Clock
	Log    *slog.Logger
}

// A Worker works until it is told to end. Make one with [New] and run it once.
type Worker struct {
	cfg   Config
	deps  Deps
	hold  *hold
	logs  *logs
	slots sync.WaitGroup
}

// New makes a worker.
func New(cfg Config, d Deps) (*Worker, error) {
	if cfg.Pool == "" || d.Server == nil || d.Runner == nil {
		return nil, errors.New("a worker needs the name of its pool, a server and a runner")
	}
	if cfg.Name == "" {
		cfg.Name = "worker-" + strings.ToLower(crand.Text())
	}
	cfg.Slots = max(cfg.Slots, 1)
	if cfg.Address == "" {
		cfg.Address = "127.0.0.1"
	}
	if cfg.Beat <= 0 {
		cfg.Beat = DefaultBeat
	}
	if cfg.LogLimit <= 0 {
		cfg.LogLimit = DefaultLogLimit
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return &Worker{cfg: cfg, deps: d, hold: newHold(cfg.Slots, d.Clock), logs: newLogs(d.Server, d.Clock, d.Log)}, nil
}

// Run works until ctx ends, or until the server has no more work for this
// worker (nil). When ctx ends, what runs is told to end and reported.
func (w *Worker) Run(ctx context.Context) error {
	// What outlives ctx: reports, heartbeats, logs.
	after, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	asking, stopAsking := context.WithCancel(after)
	defer stopAsking()
	var services sync.WaitGroup
	services.Go(func() { w.beats(after) })
	services.Go(func() { w.logs.run(after) })
	services.Go(func() { w.reports(after) })
	for slot := range w.cfg.Slots {
		w.slots.Go(func() { w.work(after, slot) })
	}
	asked := make(chan struct{})
	go func() { defer close(asked); w.asks(asking) }()

	drained := w.hold.drained()
	select {
	case <-ctx.Done():
		stopAsking()
		w.hold.stop()
		select {
		case <-drained:
		case <-w.given(after):
			w.deps.Log.Warn("left without having reported everything")
		}
	case <-drained:
	}
	stopAsking()
	<-asked
	end()
	w.hold.close()
	w.slots.Wait()
	services.Wait()
	w.deps.Runner.Close()
	return ctx.Err()
}

// given is closed when all tasks have ended and the time for reporting them is
// over.
func (w *Worker) given(ctx context.Context) <-chan struct{} {
	over := make(chan struct{})
	go func() {
		defer close(over)
		select {
		case <-w.hold.idle():
		case <-ctx.Done():
			return
		}
		_ = clock.Sleep(ctx, w.deps.Clock, farewellTime)
	}()
	return over
}

// asks brings outcomes and takes work until ctx ends or there is none to come.
func (w *Worker) asks(ctx context.Context) {
	for wait := time.Duration(0); ; {
		call, ok := w.hold.call(ctx, true)
		if !ok {
			return
		}
		wait = w.send(ctx, call, wait)
	}
}

// reports brings outcomes while a call for work waits at the server.
func (w *Worker) reports(ctx context.Context) {
	for wait := time.Duration(0); ; {
		call, ok := w.hold.call(ctx, false)
		if !ok {
			return
		}
		wait = w.send(ctx, call, wait)
	}
}

// send makes one call. After one that failed it waits, longer each time.
func (w *Worker) send(ctx context.Context, a task.Ask, wait time.Duration) time.Duration {
	a.Worker, a.Pool = w.cfg.Name, w.cfg.Pool
	g, err := w.deps.Server.Ask(ctx, a)
	if err == nil {
		for _, r := range g.Refused {
			w.deps.Log.Info("an outcome came too late", "run", r.Run, "task", r.Task, "attempt", r.Attempt)
		}
		w.hold.granted(a, g)
		return 0
	}
	w.hold.failed(a)
	if ctx.Err() != nil {
		return 0
	}
	wait = min(max(2*wait, minBackoff), maxBackoff)
	w.deps.Log.Log(ctx, levelOf(wait), "cannot reach the work server", "err", err, "again_in", wait)
	_ = clock.Sleep(ctx, w.deps.Clock, jitter(wait))
	return wait
}

// levelOf keeps a server that restarts from filling logs.
func levelOf(wait time.Duration) slog.Level {
	if wait < maxBackoff {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// jitter spreads workers that lost their server at the same moment.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// beats says what is held, on a thread of its own so that programs that take
// all processors delay it as little as can be.
func (w *Worker) beats(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		every, ok := w.hold.beat(ctx, w.cfg.Beat)
		if !ok {
			return
		}
		began := w.deps.Clock.Mono()
		b, err := w.deps.Server.Beat(ctx, task.Beat{Worker: w.cfg.Name, Held: w.hold.refs(), Wait: every})
		if err == nil {
			w.hold.beaten(b)
		} else if ctx.Err() == nil {
			w.deps.Log.Debug("heartbeat", "err", err)
		}
		if b.Again || len(b.Cancel) > 0 {
			every /= 5 // what is canceled often has company
		}
		if clock.Sleep(ctx, w.deps.Clock, every-(w.deps.Clock.Mono()-began)) != nil {
			return
		}
	}
}

// work runs tasks in one slot.
func (w *Worker) work(ctx context.Context, slot int) {
	for {
		l, ok := w.hold.next(ctx)
		if !ok || w.one(ctx, slot, l) {
			return
		}
	}
}

// one runs a task, and reports whether its slot is somebody else's since.
func (w *Worker) one(ctx context.Context, slot int, l *lease) (left bool) {
	p := w.logs.printer(l.ctx, l.Ref, limitOf(l.task, w.cfg.LogLimit), w.deps.Clock)
	started := w.deps.Clock.Now()
	j := Job{Lease: l.Lease, Task: l.task, Print: p.print, Address: w.cfg.Address, Serves: func() {
		if w.hold.serves(l, w.cfg.Address, w.cfg.Single) && !w.cfg.Single {
			left = true
			w.slots.Go(func() { w.work(ctx, slot) })
		}
	}}
	o := w.deps.Runner.Run(l.ctx, slot, j)
	o.Ref, o.Started, o.Ended = l.Ref, started, w.deps.Clock.Now()
	o.Truncated = p.truncated()
	w.hold.ran(l)
	// What it printed is at the server before its end is: the next task need
	// not wait for that.
	w.slots.Go(func() {
		p.flush(ctx)
		w.hold.finish(l, o)
	})
	return left
}

func limitOf(t task.Task, limit int64) int64 {
	if t.LogLimit > 0 {
		return t.LogLimit
	}
	return limit
}
