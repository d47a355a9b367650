package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/files"
	"cairn.dev/cairn/internal/worker/isolate"
	"cairn.dev/cairn/internal/worker/keep"
)

const (
	defaultGrace = 30 * time.Second
	// MaxText bounds a result or parameter; larger ones are artifacts.
	MaxText = 1 << 20
)

// LocalConfig says in what container a [Local] runs tasks.
type LocalConfig struct {
	Place isolate.Place
	Slots int
	// Env is what every task inherits, as NAME=VALUE.
	Env []string
	// Entrypoint and Command of the container's image, for tasks that have
	// none of their own.
	Entrypoint, Command []string
	Limits              files.Limits // of folders that are unpacked; see [DefaultLimits]
}

// DefaultLimits are those of folders that are unpacked.
func DefaultLimits() files.Limits { return files.Limits{Bytes: 64 << 30, Entries: 1_000_000} }

// Local is the [Runner] that runs tasks in the container that it is in itself.
type Local struct {
	cfg    LocalConfig
	server Server
	clock  clock.Clock
	log    *slog.Logger
	found  *isolate.Found
	slots  []slot

	mu     sync.Mutex
	n      int  // of roots made so far
	shared bool // a task has run that may have left something
	clears sync.WaitGroup
}

// slot is used by one goroutine at a time.
type slot struct {
	keeper *keep.Keeper // for tasks without a root of their own
	next   chan *place  // being made, for the next task; nil for none
}

// NewLocal finds out what isolation can be had. Who calls it has called
// [keep.Main] at the start of main. There is one at a time for a Place.
func NewLocal(cfg LocalConfig, s Server, c clock.Clock, log *slog.Logger) (*Local, error) {
	cfg.Slots = max(cfg.Slots, 1)
	if cfg.Limits == (files.Limits{}) {
		cfg.Limits = DefaultLimits()
	}
	if cfg.Place.Scratch == "" || !filepath.IsAbs(cfg.Place.Scratch) {
		return nil, fmt.Errorf("scratch folder %q: it must be an absolute path", cfg.Place.Scratch)
	}
	// What an earlier worker left must not be taken for anything.
	if err := os.RemoveAll(cfg.Place.Scratch); err != nil && !errors.Is(err, syscall.EBUSY) { // a mount point stays
		return nil, fmt.Errorf("clear the scratch folder: %w", err)
	}
	if err := os.MkdirAll(cfg.Place.Scratch, 0o700); err != nil {
		return nil, fmt.Errorf("make the scratch folder: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Local{cfg: cfg, server: s, clock: c, log: log, slots: make([]slot, cfg.Slots)}
	l.found = isolate.Find(cfg.Place, cfg.Slots, keep.Try)
	for level, err := range l.found.Levels {
		log.Debug("isolation", "level", level, "err", err)
	}
	return l, nil
}

// Levels is what isolation can be had.
func (l *Local) Levels() isolate.Levels { return l.found.Levels }

// Close ends all keepers.
func (l *Local) Close() {
	for i := range l.slots {
		s := &l.slots[i]
		if s.keeper != nil {
			s.keeper.Close()
		}
		if s.next != nil {
			if p := <-s.next; p != nil {
				l.clear(p)
			}
		}
	}
	l.clears.Wait()
}

// Run implements [Runner].
func (l *Local) Run(ctx context.Context, n int, j Job) task.Outcome {
	level, err := l.level(j.Task)
	if err != nil {
		return task.Outcome{Phase: task.Errored, Exit: -1, Message: err.Error()}
	}
	p, err := l.place(&l.slots[n], level, j.Task.Volumes)
	if err != nil {
		return task.Outcome{Phase: task.Errored, Exit: -1, Message: err.Error(), Infrastructure: true, Isolation: string(level)}
	}
	o := l.run(ctx, p, n, j)
	o.Isolation = string(level)
	if err := l.leave(&l.slots[n], p, level); err != nil {
		l.log.Error("clean up after a task", "task", j.Lease.Task, "err", err)
	}
	return o
}

// level is the isolation that a task gets.
func (l *Local) level(t task.Task) (isolate.Level, error) {
	want, err := isolate.ParseLevel(t.Isolation)
	if err != nil {
		return "", err
	}
	var outputs []string
	for _, o := range t.Outputs {
		if o.Path != "" {
			outputs = append(outputs, o.Path)
		}
	}
	level, err := l.found.Levels.Choose(want, outputs, l.found.Fresh)
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shared && level != isolate.Shared {
		return "", fmt.Errorf("isolation %s cannot be had here any more: a task with isolation shared has run in this container", level)
	}
	l.shared = l.shared || level == isolate.Shared
	return level, nil
}

// place is where one task runs.
type place struct {
	keeper *keep.Keeper
	root   *files.Root
	dir    string // of scratch, to be removed; "" for none
}

// place finds one for the next task. One with a root of its own was made while
// the last task ran, if that was such a one.
func (l *Local) place(s *slot, level isolate.Level, volumes []task.Volume) (*place, error) {
	var paths []string
	for _, v := range volumes {
		if v.Claim == "" {
			paths = append(paths, v.Path)
		}
	}
	if level == isolate.Overlay {
		var p *place
		if s.next != nil && len(paths) == 0 {
			p, s.next = <-s.next, nil
		}
		if p == nil {
			var err error
			if p, err = l.fresh(paths); err != nil {
				return nil, err
			}
		}
		if s.next == nil {
			s.next = make(chan *place, 1)
			go func(next chan<- *place) {
				p, err := l.fresh(nil)
				if err != nil {
					l.log.Warn("make a fresh root ahead of need", "err", err)
				}
				next <- p
			}(s.next)
		}
		return p, nil
	}
	if level == isolate.Readonly {
		if err := l.found.Wipe(); err != nil {
			return nil, err
		}
	}
	if s.keeper == nil {
		k, err := keep.New(nil)
		if err != nil {
			return nil, err
		}
		s.keeper = k
	}
	root, err := files.OpenRoot("/")
	if err != nil {
		return nil, err
	}
	return &place{keeper: s.keeper, root: root}, nil
}

// fresh makes a root that no task has had.
func (l *Local) fresh(volumes []string) (*place, error) {
	l.mu.Lock()
	l.n++
	dir := filepath.Join(l.cfg.Place.Scratch, "t"+strconv.Itoa(l.n))
	l.mu.Unlock()
	root, err := l.found.Survey.Root(dir, volumes)
	if err != nil {
		return nil, fmt.Errorf("make a fresh root: %w", err)
	}
	k, err := keep.New(l.found.Namespaces)
	if err != nil {
		return nil, err
	}
	f, err := k.Enter(*root)
	if err != nil {
		l.clear(&place{keeper: k, dir: dir})
		return nil, err
	}
	return &place{keeper: k, root: files.NewRoot(f), dir: dir}, nil
}

// leave ends what a task had.
func (l *Local) leave(s *slot, p *place, level isolate.Level) error {
	if level == isolate.Overlay {
		l.clears.Go(func() { l.clear(p) }) // nobody will see this root again
		return nil
	}
	_ = p.root.Close()
	if level == isolate.Readonly {
		return l.found.Wipe()
	}
	return nil
}

func (l *Local) clear(p *place) {
	p.keeper.Close()
	if p.root != nil {
		_ = p.root.Close()
	}
	if err := os.RemoveAll(p.dir); err != nil {
		l.log.Error("remove what a task left", "err", err)
	}
}

// run brings a task's inputs, runs its program, and takes its outputs.
func (l *Local) run(ctx context.Context, p *place, n int, j Job) task.Outcome {
	failed := func(err error) task.Outcome {
		o := task.Outcome{Phase: task.Errored, Exit: -1, Message: err.Error()}
		var refused *Refusal
		o.Infrastructure = !errors.Is(err, errTask) && !(errors.As(err, &refused) && refused.Status/100 == 4)
		return ended(ctx, o)
	}
	who, owner, err := userOf(p.root, j.Task.User)
	if err != nil {
		return failed(fmt.Errorf("%w: %w", errTask, err))
	}
	home := "/tmp/.cairn-" + strconv.Itoa(n) // of this slot, and removed with the task
	defer func() {
		if p.dir == "" {
			_ = os.RemoveAll(home)
		}
	}()
	if p.dir == "" {
		if err := os.RemoveAll(home); err != nil {
			return failed(err)
		}
	}
	for _, dir := range []string{home + "/home", home + "/tmp"} {
		if err := p.root.Mkdir(dir, 0o700, owner); err != nil {
			return failed(err)
		}
	}
	if err := l.inputs(ctx, p.root, owner, j); err != nil {
		return failed(err)
	}
	program := keep.Program{Args: l.command(j.Task), Env: l.env(j, home), Dir: l.dir(p.root, owner, j.Task), User: who}
	if j.Task.Script != "" {
		if err := p.root.Write(home+"/script", 0o755, owner, strings.NewReader(j.Task.Script)); err != nil {
			return failed(err)
		}
		program.Args = append(program.Args, home+"/script")
	}
	result := &capture{limit: MaxText}
	end, why, err := l.watch(ctx, p.keeper, program, j, result)
	if err != nil {
		return failed(err)
	}
	o := outcome(end, why)
	if ctx.Err() != nil {
		return ended(ctx, o)
	}
	if end.Failure == "" {
		l.outputs(ctx, p.root, j, result, &o)
	}
	return o
}

// errTask marks what is the task's own fault.
var errTask = errors.New("task")

// command is the program and its arguments: what Kubernetes makes of them.
func (l *Local) command(t task.Task) []string {
	var args []string
	switch {
	case len(t.Command) > 0:
		args = append(append(args, t.Command...), t.Args...)
	case len(t.Args) > 0:
		args = append(append(args, l.cfg.Entrypoint...), t.Args...)
	default:
		args = append(append(args, l.cfg.Entrypoint...), l.cfg.Command...)
	}
	return args
}

func (l *Local) env(j Job, home string) []string {
	env := append([]string{}, l.cfg.Env...)
	env = append(env, "HOME="+home+"/home", "TMPDIR="+home+"/tmp")
	for _, e := range j.Task.Env {
		env = append(env, e.Name+"="+e.Value)
	}
	env = append(env, "CAIRN_RUN="+j.Lease.Run, "CAIRN_TASK="+j.Lease.Task,
		"CAIRN_ATTEMPT="+strconv.Itoa(j.Lease.Attempt), "CAIRN_IDEMPOTENCY_KEY="+j.Lease.Key)
	return last(env)
}

// last keeps of each variable the last value, and a PATH where there is none.
func last(env []string) []string {
	at := map[string]int{}
	out := env[:0]
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	if _, ok := at["PATH"]; !ok {
		out = append(out, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	return out
}

// dir is the working directory, which is made as container runtimes do.
func (l *Local) dir(root *files.Root, o *files.Owner, t task.Task) string {
	dir := t.WorkDir
	if dir == "" {
		if dir, _ = os.Getwd(); dir == "" {
			dir = "/"
		}
	}
	if err := root.Mkdir(dir, 0o755, o); err != nil {
		l.log.Debug("make the working directory", "err", err) // the program's start says so
	}
	return dir
}

// watch runs a program to its end: why is what ended it early, if something did.
func (l *Local) watch(ctx context.Context, k *keep.Keeper, p keep.Program, j Job, result *capture) (end keep.End, why error, err error) {
	ooms := oomKills()
	outR, outW, err := os.Pipe()
	if err != nil {
		return end, nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		_, _ = outR.Close(), outW.Close()
		return end, nil, err
	}
	err = k.Start(p, outW, errW)
	_, _ = outW.Close(), errW.Close()
	var readers sync.WaitGroup
	readers.Go(func() { pump(outR, func(b []byte) { result.take(b); j.Print(task.Stdout, b) }) })
	readers.Go(func() { pump(errR, func(b []byte) { j.Print(task.Stderr, b) }) })
	if err != nil {
		readers.Wait()
		return end, nil, err
	}
	over := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { why = l.guard(ctx, k, j.Task, over) })
	end, err = k.Wait()
	close(over)
	watching.Wait()
	readers.Wait()
	if end.Signal == int(syscall.SIGKILL) && why == nil && oomKills() > ooms {
		why = errMemory
	}
	return end, why, err
}

// Why a program was ended, besides the causes of a context.
var (
	errTimeout = errors.New("it ran longer than its timeout")
	errMemory  = errors.New("out of memory")
)

// guard ends a program whose time is over, or that is not wanted any more: it
// is asked to, and killed when its grace is over.
func (l *Local) guard(ctx context.Context, k *keep.Keeper, t task.Task, over <-chan struct{}) error {
	var timeout <-chan time.Time
	if t.Timeout > 0 {
		timeout = l.clock.After(t.Timeout)
	}
	var why error
	select {
	case <-over:
		return nil
	case <-timeout:
		why = fmt.Errorf("%w of %v", errTimeout, t.Timeout)
	case <-ctx.Done():
		why = context.Cause(ctx)
	}
	if why != ErrLost {
		_ = k.Signal(syscall.SIGTERM) // a keeper that is gone is noticed by Wait
		grace := t.Grace
		if grace <= 0 {
			grace = defaultGrace
		}
		select {
		case <-over:
			return why
		case <-l.clock.After(grace):
		}
	}
	_ = k.Signal(syscall.SIGKILL)
	return why
}

// pump hands on what is printed, until the end of it.
func pump(r *os.File, take func([]byte)) {
	defer r.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := r.Read(b)
		if n > 0 {
			take(b[:n])
		}
		if err != nil {
			return
		}
	}
}

// capture keeps what may be a result.
type capture struct {
	limit int
	text  []byte
	more  bool
}

func (c *capture) take(b []byte) {
	n := min(len(b), c.limit-len(c.text))
	c.text = append(c.text, b[:n]...)
	c.more = c.more || n < len(b)
}

// outcome is what the end of a program means.
func outcome(e keep.End, why error) task.Outcome {
	o := task.Outcome{Phase: task.Succeeded, Exit: e.Exit}
	switch {
	case e.Failure != "":
		o.Phase, o.Message = task.Errored, e.Failure
	case why != nil && !errors.Is(why, ErrCanceled) && !errors.Is(why, ErrStopped) && !errors.Is(why, ErrLost):
		o.Phase, o.Message = task.Failed, "killed: "+why.Error()
	case e.Signal != 0:
		o.Phase, o.Message = task.Failed, fmt.Sprintf("killed by signal %d (%s)", e.Signal, syscall.Signal(e.Signal))
	case e.Exit != 0:
		o.Phase, o.Message = task.Failed, fmt.Sprintf("exit code %d", e.Exit)
	}
	return o
}

// ended is the outcome of a task that was ended from outside.
func ended(ctx context.Context, o task.Outcome) task.Outcome {
	switch context.Cause(ctx) {
	case ErrCanceled:
		o.Phase, o.Message, o.Infrastructure = task.Canceled, "canceled", false
	case ErrStopped:
		o.Phase, o.Message, o.Infrastructure = task.Errored, ErrStopped.Error(), true
	}
	return o
}
