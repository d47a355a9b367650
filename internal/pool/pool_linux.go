package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
	"cairn.dev/cairn/internal/worker/isolate"
)

// upkeep is how often what waits unused is looked at.
const upkeep = 10 * time.Second

// Pool is a [worker.Runner] whose tasks are containers on this machine. It is
// safe for concurrent use.
type Pool struct {
	cfg      Config
	clock    clock.Clock
	users    *users
	layers   *layers
	roots    *roots
	groups   *groups
	desk     *desk
	executor *worker.Executor

	stop     context.CancelFunc
	services sync.WaitGroup
	closing  sync.Once
}

// New finds out whether containers can be had here, by trying, and clears what
// an earlier process left. Who calls it has called [keep.Main] at the start of
// main. There is one pool at a time for a folder.
func New(cfg Config, d Deps) (*Pool, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if err := d.complete(); err != nil {
		return nil, err
	}
	u, err := prepare(&cfg)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Pool{cfg: cfg, clock: d.Clock, users: u, stop: stop, executor: &worker.Executor{Exchange: d.Exchange, Clock: d.Clock, Limits: cfg.Inputs}}
	if p.layers, err = openLayers(ctx, cfg, u, d.Clock, d.Log); err != nil {
		stop()
		u.close()
		return nil, err
	}
	p.roots = &roots{users: u, layers: p.layers, dir: cfg.Dir, clock: d.Clock, log: d.Log, ctx: ctx,
		warm: map[image.Digest][]*place{}, making: map[image.Digest]int{}, inUse: map[image.Digest]int{}}
	p.desk = newDesk(cfg, d, amount{cpu: int64(runtime.NumCPU()) * 1000, memory: memory()})
	var limited error
	if p.groups, limited = openGroups(); limited != nil {
		d.Log.Info("what tasks use is not limited", "why", limited)
	}
	d.Log.Info("tasks run on this machine, in containers that share its network", "users", u.how, "processors", thousandths(p.desk.budget.all.cpu), "memory", p.desk.budget.all.memory)
	p.services.Go(func() { p.upkeep(ctx) })
	return p, nil
}

// Probe says why containers cannot be had here, and what the choices are; nil
// when they can. Its folder must not be that of a pool that runs.
func Probe(cfg Config) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	u, err := prepare(&cfg)
	if err == nil {
		u.close()
	}
	return err
}

// prepare finds out whether containers can be had.
func prepare(cfg *Config) (*users, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	u, err := findUsers(*cfg)
	if err == nil {
		if err = furnish(cfg.Dir, u); err != nil {
			err = fmt.Errorf("make the pool's folder: %w", err)
		} else {
			err = try(cfg.Dir, u)
		}
		if err != nil {
			u.close()
		}
	}
	if err != nil {
		return nil, choices(choice{"on its own", err}, choice{"docker", engineChoice("docker")}, choice{"podman", engineChoice("podman")})
	}
	return u, nil
}

// memory is all that this machine has, in bytes.
func memory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 1 << 50 // it is not known, and bounds nothing
	}
	return int64(info.Totalram) * int64(info.Unit) //nolint:unconvert // 32 bits on some
}

// furnish makes the pool's folders. Tasks' files of an earlier process go.
func furnish(dir string, u *users) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// The tasks' root may go through it and not look around.
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 0, u.root.First); err != nil {
			return err
		}
	}
	if err := os.Chmod(dir, 0o710); err != nil {
		return err
	}
	for _, sub := range []string{tasksDir, machineDir} {
		if err := u.remove(sub); err != nil {
			return err
		}
	}
	for _, sub := range []string{layersDir, tasksDir, machineDir, claimsDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	if err := u.makeDir(filepath.Join(dir, mountDir)); err != nil {
		return err
	}
	return u.makeDir(filepath.Join(dir, emptyDir))
}

// try puts a root together as tasks get one, of an image with nothing in it.
func try(dir string, u *users) error {
	at := filepath.Join(tasksDir, "try")
	for _, sub := range []string{"u", "w"} {
		if err := u.makeDir(filepath.Join(dir, at, sub)); err != nil {
			return err
		}
	}
	k, err := u.keeper()
	if err != nil {
		return errors.Join(err, u.remove(at))
	}
	err = k.Enter(isolate.Root{At: mountDir, Image: true, Host: hostName,
		Layers: []isolate.Layer{{Path: "/", Lower: []string{emptyDir}, Upper: filepath.Join(at, "u"), Work: filepath.Join(at, "w")}}})
	k.Close()
	return errors.Join(err, u.remove(at))
}

func (p *Pool) upkeep(ctx context.Context) {
	for clock.Sleep(ctx, p.clock, upkeep) == nil {
		p.roots.cool()
		p.layers.collect()
	}
}

// Close ends all containers and waits for them.
func (p *Pool) Close() {
	p.closing.Do(func() {
		p.stop()
		p.services.Wait()
		p.roots.close()
		p.groups.close()
		p.users.close()
	})
}

// Run implements [worker.Runner].
func (p *Pool) Run(ctx context.Context, _ int, j worker.Job) task.Outcome {
	return p.desk.admit(ctx, j.Task, func(name string, im description) (o task.Outcome, err error) {
		at, err := p.roots.get(ctx, name, im, j.Task.Volumes)
		defer func() { p.roots.put(im.digest, at) }()
		if err != nil {
			return o, err
		}
		if at.group, err = p.groups.join(at.keeper.Pid(), amount{cpu: j.Task.CPU, memory: j.Task.Memory}); err != nil {
			return o, fmt.Errorf("limit what it uses: %w", err)
		}
		return p.executor.Run(ctx, worker.Setting{Keeper: at.keeper, Entrypoint: im.entrypoint, Command: im.command, Env: im.env, Dir: im.dir, User: im.user,
			Private: private, Processes: p.cfg.Processes, Killed: at.group.killed}, j), nil
	})
}
