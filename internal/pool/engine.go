package pool

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
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

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
)

const (
	// engineTime is what a question to an engine may take, besides those that
	// wait for a program.
	engineTime = 2 * time.Minute
	maxAnswer  = 1 << 20
)

// EngineConfig says which program makes the containers.
type EngineConfig struct {
	// Command is docker or podman, and what is said before the verb.
	Command []string
	Config
}

// Engine is a [worker.Runner] that has docker or podman make its containers.
// Images are found as a [Pool] finds them, and handed to the engine: it asks no
// registry. They stay there until somebody prunes them. Tasks are not root
// of the machine: podman is told whose users they are, and a docker that keeps
// none for them is refused. It is safe for concurrent use.
type Engine struct {
	cfg      EngineConfig
	desk     *desk
	executor *worker.Executor
	dir      string
	kind     string // docker or podman
	init     bool   // it has a first process for containers, that reaps and hands signals on

	loading sync.Mutex // one image at a time: an engine does not share either
}

// NewEngine asks the engine whether it is there.
func NewEngine(ctx context.Context, cfg EngineConfig, d Deps) (*Engine, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if err := d.complete(); err != nil {
		return nil, err
	}
	if len(cfg.Command) == 0 {
		return nil, errors.New("an engine needs a program: docker or podman")
	}
	if err := findEngine(cfg.Command[0]); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, dir: filepath.Join(cfg.Dir, "engine"), kind: filepath.Base(cfg.Command[0]),
		executor: &worker.Executor{Exchange: d.Exchange, Clock: d.Clock, Limits: cfg.Inputs}}
	if e.kind == "podman" && os.Geteuid() == 0 && e.cfg.Users == (Users{}) {
		e.cfg.Users = defaultUsers // else its root is the machine's
	}
	if err := os.RemoveAll(e.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return nil, err
	}
	e.init = e.kind != "podman" || findEngine("/usr/libexec/podman/catatonit") == nil || findEngine("catatonit") == nil
	has, err := e.machine(ctx)
	if err != nil {
		return nil, err
	}
	e.desk = newDesk(cfg.Config, d, has)
	d.Log.Info("tasks run in containers of another engine, which share its network", "engine", e.kind, "processors", thousandths(e.desk.budget.all.cpu), "memory", e.desk.budget.all.memory)
	return e, nil
}

// engineChoice says what of an engine is to be had, and how.
func engineChoice(name string) error {
	if err := findEngine(name); err != nil {
		return err
	}
	return fmt.Errorf("it is there: say work.pool: %s", name)
}

// findEngine says why a program is not to be had.
func findEngine(name string) error {
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf("there is no %s in PATH", name)
	}
	return nil
}

// machine is what the engine's machine has, which need not be this one.
func (e *Engine) machine(ctx context.Context) (amount, error) {
	out, err := e.ask(ctx, nil, "info", "--format", "json")
	if err != nil {
		return amount{}, fmt.Errorf("%s does not answer (is it running, and may this user use it?): %w", e.kind, err)
	}
	var info struct {
		dockerInfo
		Host struct { // podman
			CPUs     int64 `json:"cpus"`
			MemTotal int64 `json:"memTotal"`
		} `json:"host"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return amount{}, fmt.Errorf("%s info: %w", e.kind, err)
	}
	if e.kind == "docker" && runtime.GOOS == "linux" && info.rootful() {
		return amount{}, errors.New("docker's root is the root of this machine, which no task may be: set userns-remap in its daemon.json, run it rootless, or say work.pool: on or podman")
	}
	return amount{cpu: 1000 * cmp.Or(info.NCPU, info.Host.CPUs, int64(runtime.NumCPU())), memory: cmp.Or(info.MemTotal, info.Host.MemTotal, 1<<50)}, nil
}

// dockerInfo is what docker tells of itself.
type dockerInfo struct {
	NCPU            int64
	MemTotal        int64
	SecurityOptions []string
	OperatingSystem string
}

// rootful reports whether root of a container is root of the machine: docker has
// no users of its own for them, and no machine of its own either.
func (i *dockerInfo) rootful() bool {
	for _, o := range i.SecurityOptions {
		if name, _, _ := strings.Cut(o, ","); name == "name=userns" || name == "name=rootless" {
			return false
		}
	}
	return i.OperatingSystem != "Docker Desktop"
}

// Close implements [worker.Runner].
func (e *Engine) Close() {}

// Run implements [worker.Runner].
func (e *Engine) Run(ctx context.Context, _ int, j worker.Job) task.Outcome {
	return e.desk.admit(ctx, j.Task, func(name string, im description) (o task.Outcome, err error) {
		ref, err := e.load(ctx, im)
		if err != nil {
			return o, fmt.Errorf("hand image %s to %s: %w", name, e.kind, err)
		}
		b, err := e.box(ctx, ref, j)
		if err != nil {
			return o, err
		}
		defer b.close()
		o = e.executor.Run(ctx, worker.Setting{Keeper: b, Entrypoint: im.entrypoint, Command: im.command, Env: im.env, Dir: im.dir, User: im.user,
			Private: private, Killed: b.killed}, j)
		return o, nil
	})
}

// command is a call of the engine.
func (e *Engine) command(ctx context.Context, args ...string) *exec.Cmd {
	all := append(append([]string{}, e.cfg.Command[1:]...), args...)
	c := exec.CommandContext(ctx, e.cfg.Command[0], all...)
	c.WaitDelay = 5 * time.Second
	return c
}

// ask makes a call that is answered soon.
func (e *Engine) ask(ctx context.Context, in io.Reader, args ...string) ([]byte, error) {
	ctx, end := context.WithTimeout(ctx, engineTime)
	defer end()
	var out, problem bytes.Buffer
	c := e.command(ctx, args...)
	c.Stdin, c.Stdout, c.Stderr = in, &limited{to: &out, left: maxAnswer}, &limited{to: &problem, left: 4 << 10}
	if err := c.Run(); err != nil {
		return nil, &engineFailure{what: e.kind + " " + args[0], said: strings.TrimSpace(problem.String()), err: err}
	}
	return out.Bytes(), nil
}

// engineFailure is what an engine says of a call that failed.
type engineFailure struct {
	what, said string
	err        error
}

func (f *engineFailure) Error() string { return fmt.Sprintf("%s: %v: %s", f.what, f.err, f.said) }
func (f *engineFailure) Unwrap() error { return f.err }

// absent reports whether the engine says that there is no such thing.
func (f *engineFailure) absent() bool {
	said := strings.ToLower(f.said)
	for _, words := range []string{"no such", "could not find", "not found", "not known", "could not be found", "does not exist"} {
		if strings.Contains(said, words) {
			return true
		}
	}
	return false
}

// limited forgets what is too much.
type limited struct {
	to   io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if _, err := l.to.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// load has the engine know an image, by a name that is its digest's.
func (e *Engine) load(ctx context.Context, im description) (string, error) {
	ref := "cairn.local/task:" + im.digest.Encoded()
	if _, err := e.ask(ctx, nil, "image", "inspect", "--format", "{{.Id}}", ref); err == nil {
		return ref, nil
	}
	e.loading.Lock()
	defer e.loading.Unlock()
	if _, err := e.ask(ctx, nil, "image", "inspect", "--format", "{{.Id}}", ref); err == nil {
		return ref, nil
	}
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(im.archive(ctx, ref, w)) }()
	var problem bytes.Buffer
	c := e.command(ctx, "load")
	c.Stdin, c.Stderr = r, &limited{to: &problem, left: 4 << 10}
	err := c.Run()
	_ = r.CloseWithError(io.ErrClosedPipe)
	if err != nil {
		return "", &engineFailure{what: e.kind + " load", said: strings.TrimSpace(problem.String()), err: err}
	}
	return ref, nil
}

// verified copies a blob, and fails before its end if it is another one.
func verified(ctx context.Context, from Repository, d image.Descriptor, to io.Writer) error {
	body, err := from.Blob(ctx, d)
	if err != nil {
		return err
	}
	defer body.Close()
	v := d.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(to, v), io.LimitReader(body, d.Size))
	if err != nil {
		return err
	}
	if n != d.Size || !v.Verified() {
		return fmt.Errorf("what came as %s does not have that digest", d.Digest)
	}
	return nil
}

// label is what names a container in the lists of its engine.
func label(r task.Ref) string {
	return "cairn-" + digest.FromString(r.Run + "\x00" + r.Task + "\x00" + strconv.Itoa(r.Attempt) + "\x00" + r.Token).Encoded()[:24]
}
