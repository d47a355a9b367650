package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/files"
	"cairn.dev/cairn/internal/worker/keep"
)

const (
	defaultGrace = 30 * time.Second
	// MaxText bounds a result or parameter; larger ones are artifacts.
	MaxText = 1 << 20
)

// An Executor is what all Runners do that start programs here: it brings a
// task's inputs, runs its program under a keeper, and takes its outputs.
type Executor struct {
	Exchange Exchange
	Clock    clock.Clock
	Limits   files.Limits // of folders that are unpacked

	buffers sync.Pool // of *[pumpBytes]byte
}

// pumpBytes is how much of what is printed is read at once.
const pumpBytes = 32 << 10

// A Tree is the root of a task, as files come into it and out. What the
// methods promise is written at those of a [files.Root].
type Tree interface {
	Write(path string, mode fs.FileMode, from io.Reader) error
	Unpack(path string, from io.Reader, limits files.Limits) error
	Open(path string) (*files.Found, error)
}

// A Process starts one program and sees it to its end. A *keep.Keeper is one,
// and what the methods promise is written there.
type Process interface {
	Setup(s keep.Setup) (keep.Who, error)
	Start(p keep.Program, stdout, stderr *os.File) error
	Signal(s syscall.Signal) error
	Wait() (keep.End, error)
}

// A Keeper is both, for one task.
type Keeper interface {
	Tree
	Process
}

// A Setting is where one task's program runs.
type Setting struct {
	Keeper Keeper
	// Entrypoint, Command, Env (NAME=VALUE), Dir and User are those of the image,
	// for tasks that have none of their own.
	Entrypoint, Command []string
	Env                 []string
	Dir, User           string
	// Private is a folder that is this task's own. With OwnHome, HOME and
	// TMPDIR lie there; else HOME is what the image says of the user.
	Private string
	OwnHome bool
	// Processes that there may be at a time; 0 for any number.
	Processes uint64
	// Exec runs another program beside the task's, where that can be had, and is
	// nil where it cannot.
	Exec func(ctx context.Context, args []string) error
	// Set: other containers are part of the task.
	Set *set
	// Killed counts the processes that the kernel killed for want of memory.
	Killed func() int

	home string // of the user, where OwnHome is not set
}

// Run runs a task to its end.
func (x *Executor) Run(ctx context.Context, s Setting, j Job) task.Outcome {
	failed := func(err error) task.Outcome {
		o := task.Outcome{Phase: task.Errored, Exit: -1, Message: err.Error()}
		var refused *Refusal
		o.Infrastructure = !errors.Is(err, errTask) && !(errors.As(err, &refused) && refused.Status/100 == 4)
		return Ended(ctx, o)
	}
	setup, program := s.prepare(j.Task)
	if s.OwnHome && len(j.Task.Inputs) == 0 {
		program.Setup = &setup // nothing comes between
	} else {
		who, err := s.Keeper.Setup(setup)
		if err != nil {
			return failed(whose(err))
		}
		s.home = who.Home
		if err := x.inputs(ctx, s.Keeper, j); err != nil {
			return failed(err)
		}
	}
	program.Env = s.env(j)
	result := &capture{limit: MaxText}
	watch := func(ctx context.Context) (keep.End, error, error) {
		*result = capture{limit: MaxText}
		return x.watch(ctx, s, program, j, result)
	}
	var end keep.End
	var why, err error
	if s.Set == nil {
		end, why, err = watch(ctx)
	} else {
		end, why, err = s.Set.run(ctx, watch)
	}
	if errors.Is(err, errMemory) {
		return Ended(ctx, outcome(keep.End{Exit: 128 + int(syscall.SIGKILL), Signal: int(syscall.SIGKILL)}, errMemory))
	}
	if err != nil {
		return failed(whose(err))
	}
	o := outcome(end, why)
	if s.Set != nil && len(s.Set.failed) > 0 && o.Phase != task.Succeeded {
		o.Message = task.SetMessage(s.Set.failed[0], o.Message, s.Set.failed[1:])
	}
	if ctx.Err() != nil {
		return Ended(ctx, o)
	}
	if end.Failure == "" {
		x.outputs(ctx, s.Keeper, j, result, &o)
	}
	if ctx.Err() != nil && o.Phase == task.Errored {
		return Ended(ctx, o)
	}
	return o
}

// prepare is what has to be there, and what is started then, but for its
// environment.
func (s *Setting) prepare(t task.Task) (keep.Setup, keep.Program) {
	setup := keep.Setup{User: t.User, Home: !s.OwnHome}
	if setup.User == "" {
		setup.User = s.User
	}
	program := keep.Program{Args: s.command(t), Dir: t.WorkDir, Processes: s.Processes}
	if program.Dir == "" {
		program.Dir = s.Dir
	}
	if s.OwnHome {
		setup.Folders = append(setup.Folders, keep.Folder{Path: s.Private + "/home", Mode: 0o700}, keep.Folder{Path: s.Private + "/tmp", Mode: 0o700})
	}
	// Container runtimes make it, too.
	setup.Folders = append(setup.Folders, keep.Folder{Path: program.Dir, Mode: 0o755, Try: true})
	if t.Script != "" {
		file := s.Private + "/script"
		setup.Files = append(setup.Files, keep.File{Path: file, Mode: 0o755, Content: []byte(t.Script)})
		program.Args = append(program.Args, file)
	}
	return setup, program
}

// errTask marks what is the task's own fault.
var errTask = errors.New("task")

// whose marks an error of a keeper if the task is to blame.
func whose(err error) error {
	if errors.Is(err, keep.ErrUser) {
		return fmt.Errorf("%w: %w", errTask, err)
	}
	return err
}

// command is the program and its arguments: what Kubernetes makes of them.
func (s *Setting) command(t task.Task) []string {
	var args []string
	switch {
	case len(t.Command) > 0:
		args = append(append(args, t.Command...), t.Args...)
	case len(t.Args) > 0:
		args = append(append(args, s.Entrypoint...), t.Args...)
	default:
		args = append(append(args, s.Entrypoint...), s.Command...)
	}
	return args
}

// env is the program's environment.
func (s *Setting) env(j Job) []string {
	var env []string
	if s.home != "" {
		env = append(env, "HOME="+s.home)
	}
	env = append(env, s.Env...)
	if s.OwnHome {
		env = append(env, "HOME="+s.Private+"/home", "TMPDIR="+s.Private+"/tmp")
	}
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

// watch runs a program to its end: why is what ended it early, if something did.
func (x *Executor) watch(ctx context.Context, s Setting, p keep.Program, j Job, result *capture) (end keep.End, why error, err error) {
	k, kills := s.Keeper, s.Killed()
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
	readers.Go(func() { x.pump(outR, func(b []byte) { result.take(b); j.Print(task.Stdout, b) }) })
	readers.Go(func() { x.pump(errR, func(b []byte) { j.Print(task.Stderr, b) }) })
	if err != nil {
		readers.Wait()
		return end, nil, err
	}
	over := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { why = x.guard(ctx, k, j.Task, over) })
	if j.Task.Daemon {
		watching.Go(func() {
			if x.ready(s, j, over) {
				j.Serves()
			}
		})
	}
	end, err = k.Wait()
	close(over)
	watching.Wait()
	readers.Wait()
	if why != nil || s.Killed() == kills {
		return end, why, err
	}
	switch {
	case err != nil:
		// The keeper lives in the memory that its program has, and may be what the
		// kernel chose: that is how the program ended, and not a lost worker.
		err = fmt.Errorf("%w: %w", errMemory, err)
	case end.Signal == int(syscall.SIGKILL):
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
func (x *Executor) guard(ctx context.Context, k Process, t task.Task, over <-chan struct{}) error {
	var timeout <-chan time.Time
	if t.Timeout > 0 {
		timeout = x.Clock.After(t.Timeout)
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
		case <-x.Clock.After(grace):
		}
	}
	_ = k.Signal(syscall.SIGKILL)
	return why
}

// pump hands on what is printed, until the end of it.
func (x *Executor) pump(r *os.File, take func([]byte)) {
	defer r.Close()
	buffer, ok := x.buffers.Get().(*[pumpBytes]byte)
	if !ok {
		buffer = new([pumpBytes]byte)
	}
	defer x.buffers.Put(buffer)
	b := buffer[:]
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

// Ended is the outcome of a task whose context may have been ended from outside:
// o, or what the cause of that makes of it.
func Ended(ctx context.Context, o task.Outcome) task.Outcome {
	switch context.Cause(ctx) {
	case ErrCanceled:
		o.Phase, o.Message, o.Infrastructure = task.Canceled, "canceled", false
	case ErrStopped:
		o.Phase, o.Message, o.Infrastructure = task.Errored, ErrStopped.Error(), true
	}
	return o
}
