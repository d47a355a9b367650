package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/files"
	"cairn.dev/cairn/internal/worker/isolate"
	"cairn.dev/cairn/internal/worker/keep"
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
	cfg      LocalConfig
	executor *Executor
	log      *slog.Logger
	found    *isolate.Found
	slots    []slot

	mu     sync.Mutex
	n      int  // of roots made so far
	shared bool // a task has run that may have left something
	clears sync.WaitGroup
}

// slot is used by one goroutine at a time.
type slot struct {
	keeper *keep.Keeper // for tasks without a root of their own
	next   chan *place  // being made, for the next task; nil for none
	user   string       // of the last task that ran in the container itself
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
	if err := os.MkdirAll(cfg.Place.Scratch, 0o700); err != nil {
		return nil, fmt.Errorf("make the scratch folder: %w", err)
	}
	left, err := os.ReadDir(cfg.Place.Scratch)
	for _, e := range left { // the folder itself may be a mount point, which stays
		err = errors.Join(err, isolate.Clear(filepath.Join(cfg.Place.Scratch, e.Name())))
	}
	if err != nil {
		return nil, fmt.Errorf("clear the scratch folder: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Local{cfg: cfg, executor: &Executor{Exchange: s, Clock: c, Limits: cfg.Limits}, log: log, slots: make([]slot, cfg.Slots)}
	l.found = isolate.Find(cfg.Place, cfg.Slots, keep.Try)
	if l.found.Namespaces == nil {
		if err := hide(); err != nil {
			return nil, err
		}
	}
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
			_ = os.RemoveAll(l.private(i))
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
	dir    string // of scratch, to be removed; "" for none
	shared bool
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
	return &place{keeper: s.keeper, shared: level == isolate.Shared}, nil
}

// private is the folder of a slot.
func (l *Local) private(n int) string { return "/tmp/.cairn-" + strconv.Itoa(n) }

// untouched reports whether nothing is in the folders that were a task's own,
// so that they may be the next one's. It costs less than to make them anew.
func untouched(private string) bool {
	for dir, within := range map[string]int{private: 2, private + "/home": 0, private + "/tmp": 0} {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || dir != private && info.Mode().Perm() != 0o700 {
			return false
		}
		f, err := os.Open(dir)
		if err != nil {
			return false
		}
		names, err := f.Readdirnames(within + 1)
		_ = f.Close()
		if len(names) != within || err != nil && err != io.EOF {
			return false
		}
	}
	return true
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
	p := &place{keeper: k, dir: dir}
	if err := k.Enter(*root); err != nil {
		l.clear(p)
		return nil, err
	}
	return p, nil
}

// leave ends what a task had.
func (l *Local) leave(s *slot, p *place, level isolate.Level) error {
	if level == isolate.Overlay {
		l.clears.Go(func() { l.clear(p) }) // nobody will see this root again
		return nil
	}
	if level == isolate.Readonly {
		return l.found.Wipe()
	}
	return nil
}

func (l *Local) clear(p *place) {
	p.keeper.Close()
	if err := isolate.Clear(p.dir); err != nil {
		l.log.Error("remove what a task left", "err", err)
	}
}

// run runs a task's program in a place.
func (l *Local) run(ctx context.Context, p *place, n int, j Job) task.Outcome {
	private := l.private(n)
	if p.dir == "" {
		again := p.shared && j.Task.User == l.slots[n].user && untouched(private)
		if !again {
			if err := os.RemoveAll(private); err != nil {
				return task.Outcome{Phase: task.Errored, Exit: -1, Message: err.Error(), Infrastructure: true}
			}
		}
		l.slots[n].user = j.Task.User
		if !p.shared {
			defer os.RemoveAll(private)
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	s := Setting{Keeper: p.keeper, Private: private, OwnHome: true, Dir: dir, Env: l.cfg.Env, Entrypoint: l.cfg.Entrypoint, Command: l.cfg.Command, Killed: OOMKills}
	return l.executor.Run(ctx, s, j)
}
