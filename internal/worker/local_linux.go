package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
	"time"

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
	// Meet is a folder that this container has in common with the others of its
	// pod, for tasks that are in all of them; "" for none.
	Meet   string
	Limits files.Limits // of folders that are unpacked; see [DefaultLimits]
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
	kills    kills

	mu     sync.Mutex
	n      int  // of roots made so far
	shared bool // a task has run that may have left something
	clears sync.WaitGroup
}

// slot is used by one goroutine at a time.
type slot struct {
	keeper *keep.Keeper // for tasks without a root of their own
	user   string       // of the last task that ran in the container itself
	// ready are places for tasks with one, of which there are two in turn: while
	// a task is in one, the other is made ready. nil stands for one that could
	// not be made; without a channel there are none yet.
	ready chan *place
}

// turn is how many places a slot has.
const turn = 2

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
	l := &Local{cfg: cfg, executor: &Executor{Exchange: s, Clock: c, Limits: cfg.Limits}, log: log, slots: make([]slot, cfg.Slots), kills: openKills()}
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
		if s.ready != nil {
			for range turn {
				if p := <-s.ready; p != nil {
					l.clear(p)
				}
			}
		}
	}
	l.clears.Wait()
	l.kills.close()
	if l.cfg.Meet != "" {
		if err := os.WriteFile(filepath.Join(l.cfg.Meet, parted), nil, 0o644); err != nil {
			l.log.Error("tell the other containers of the pod that they may end", "err", err)
		}
	}
}

// Run implements [Runner].
func (l *Local) Run(ctx context.Context, n int, j Job) task.Outcome {
	if j.Task.Daemon && !l.cfg.Place.Single {
		return task.Outcome{Phase: task.Errored, Exit: -1, Message: "a daemon has a container to itself, and this one is for many tasks: run it in the pool of a cluster or of a machine"}
	}
	level, err := l.level(j.Task)
	if err != nil {
		return task.Outcome{Phase: task.Errored, Exit: -1, Message: err.Error()}
	}
	p, err := l.place(&l.slots[n], level, j.Task)
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

// place is where tasks run, one at a time.
type place struct {
	keeper *keep.Keeper
	shared bool

	// Of one with a root of its own:
	dir   string // of scratch, to be removed; "" for none
	again bool   // it may be for the next task
	setup string // what it was set up for; "" for nothing yet
	sweep sync.WaitGroup
}

// place finds one for the next task.
func (l *Local) place(s *slot, level isolate.Level, t task.Task) (*place, error) {
	if level == isolate.Overlay {
		return l.rooted(s, t)
	}
	if level == isolate.Readonly {
		if err := l.found.Wipe(); err != nil {
			return nil, err
		}
	}
	if s.keeper != nil && s.keeper.Spent() {
		s.keeper.Close()
		s.keeper = nil
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

// rooted is a place with a root of its own.
func (l *Local) rooted(s *slot, t task.Task) (*place, error) {
	var volumes []string
	for _, v := range t.Volumes {
		if v.Claim == "" {
			volumes = append(volumes, v.Path)
		}
	}
	if len(volumes) > 0 {
		return l.fresh(volumes)
	}
	if s.ready == nil {
		s.ready = make(chan *place, turn)
		for range turn {
			l.clears.Go(func() { s.ready <- l.ahead() })
		}
	}
	p := <-s.ready
	// What was made for another user is not as this one finds it in a new root.
	setup := t.User + "\x00" + t.WorkDir
	var err error
	switch {
	case p == nil:
		p, err = l.fresh(nil)
	case p.setup != "" && p.setup != setup:
		p, err = l.anew(p)
	}
	if err != nil {
		s.ready <- nil
		return nil, err
	}
	p.setup = setup
	return p, nil
}

// ahead makes a place that nobody waits for; nil where that fails.
func (l *Local) ahead() *place {
	p, err := l.fresh(nil)
	if err != nil {
		l.log.Warn("make a fresh root ahead of need", "err", err)
		return nil
	}
	return p
}

// private is the folder of a slot.
func (l *Local) private(n int) string { return "/tmp/.cairn-" + strconv.Itoa(n) }

// untouched reports whether nothing is in the folders that were a task's own,
// so that they may be the next one's. It costs less than to make them anew.
func untouched(private string) bool {
	for dir, want := range map[string][]string{private: {"home", "tmp"}, private + "/home": nil, private + "/tmp": nil} {
		mode := uint32(0o700)
		if dir == private {
			mode = 0o755
		}
		if names, err := within(dir, mode); err != nil || !slices.Equal(names, want) {
			return false
		}
	}
	return true
}

// within is what is in a folder that has this mode, or the beginning of it.
func within(dir string, mode uint32) ([]string, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&0o7777 != mode {
		return nil, fs.ErrPermission
	}
	var buffer [4096]byte
	n, err := unix.ReadDirent(fd, buffer[:])
	if err != nil {
		return nil, err
	}
	_, _, names := unix.ParseDirent(buffer[:n], -1, nil)
	slices.Sort(names)
	return names, nil
}

// fresh makes a root that no task has had, and somebody who keeps it.
func (l *Local) fresh(volumes []string) (*place, error) {
	k, err := keep.New(l.found.Namespaces)
	if err != nil {
		return nil, err
	}
	p := &place{keeper: k, again: len(volumes) == 0}
	if err := l.enter(p, volumes); err != nil {
		l.clear(p)
		return nil, err
	}
	return p, nil
}

// enter makes a root that no task has had, for who kept another one.
func (l *Local) enter(p *place, volumes []string) error {
	l.mu.Lock()
	l.n++
	p.dir, p.setup = filepath.Join(l.cfg.Place.Scratch, "t"+strconv.Itoa(l.n)), ""
	l.mu.Unlock()
	root, err := l.found.Survey.Root(p.dir, volumes)
	if err != nil {
		return fmt.Errorf("make a fresh root: %w", err)
	}
	return p.keeper.Enter(*root)
}

// anew makes a new root in place of one that has been used.
func (l *Local) anew(p *place) (*place, error) {
	old := p.dir
	if err := l.enter(p, nil); err != nil {
		l.clear(p)
		l.remove(old)
		return nil, err
	}
	p.sweep.Go(func() { l.remove(old) })
	return p, nil
}

// leave ends what a task had.
func (l *Local) leave(s *slot, p *place, level isolate.Level) error {
	switch {
	case level == isolate.Overlay && p.again:
		l.clears.Go(func() { s.ready <- l.renew(p) })
	case level == isolate.Overlay:
		l.clears.Go(func() { l.clear(p) }) // nobody will see this root again
	case level == isolate.Readonly:
		return l.found.Wipe()
	}
	return nil
}

// renew makes a place ready for another task; it is a new one where the old one
// or its keeper cannot be as it was.
func (l *Local) renew(p *place) *place {
	p.sweep.Wait() // what tasks leave is not to grow faster than it is removed
	if p.keeper.Spent() {
		l.clear(p)
		return l.ahead()
	}
	left, err := p.keeper.Renew()
	if errors.Is(err, isolate.ErrAnew) {
		p, err = l.anew(p) // with what is left in its folder
	} else if len(left) > 0 {
		p.sweep.Go(func() { l.remove(left...) })
	}
	if err == nil {
		return p
	}
	l.log.Debug("use a root again", "err", err)
	if p != nil {
		l.clear(p)
	}
	return l.ahead()
}

func (l *Local) clear(p *place) {
	p.keeper.Close()
	p.sweep.Wait()
	l.remove(p.dir)
}

func (l *Local) remove(dirs ...string) {
	for _, dir := range dirs {
		if err := isolate.Clear(dir); err != nil {
			l.log.Error("remove what a task left", "err", err)
		}
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
	s := Setting{Keeper: p.keeper, Private: private, OwnHome: true, Dir: dir, Env: l.cfg.Env, Entrypoint: l.cfg.Entrypoint, Command: l.cfg.Command, Killed: l.kills.count}
	if j.Task.Set != nil {
		meet := l.cfg.Meet
		if len(j.Task.Set.Members) == 0 { // it meets nobody
			meet = l.cfg.Place.Scratch
		}
		if meet == "" {
			return task.Outcome{Phase: task.Errored, Exit: -1, Message: "it is several containers in one pod: it needs the pool of a cluster"}
		}
		s.Set = newSet(meet, l.executor.Clock, j)
	}
	if l.cfg.Place.Single {
		s.Exec = l.beside
	}
	return l.executor.Run(ctx, s, j)
}

// beside runs a program in this container, which is the task's.
func (l *Local) beside(ctx context.Context, args []string) error {
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Env = l.cfg.Env
	c.WaitDelay = time.Second // what it left may hold on to its output
	return c.Run()
}
