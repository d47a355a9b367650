package pool

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
	"cairn.dev/cairn/internal/worker/files"
	"cairn.dev/cairn/internal/worker/keep"
)

// box is a container of an engine, for one task: a [worker.Keeper]. What goes
// into it is gathered in a file and copied in before it starts; what is in it
// afterwards is copied out.
type box struct {
	e    *Engine
	ctx  context.Context
	name string
	ref  string
	task task.Task
	user string

	file   *os.File // a tar of what goes in
	in     *tar.Writer
	filled bool // something goes in
	start  *exec.Cmd
	ooms   int
	begun  atomic.Bool
	wanted bool // the container exists
}

func (e *Engine) box(ctx context.Context, ref string, j worker.Job) (*box, error) {
	f, err := os.CreateTemp(e.dir, "in-*")
	if err != nil {
		return nil, err
	}
	_ = os.Remove(f.Name()) // it lives as long as it is open
	return &box{e: e, ctx: context.WithoutCancel(ctx), name: label(j.Lease.Ref), ref: ref, task: j.Task, file: f, in: tar.NewWriter(f)}, nil
}

// Setup implements [worker.Process]. Who the user is only the engine knows.
func (b *box) Setup(s keep.Setup) (keep.Who, error) {
	b.user = s.User
	for _, f := range s.Files {
		if err := b.Write(f.Path, f.Mode, bytes.NewReader(f.Content)); err != nil {
			return keep.Who{}, err
		}
	}
	return keep.Who{}, nil
}

// Write implements [worker.Tree].
func (b *box) Write(name string, mode fs.FileMode, from io.Reader) error {
	b.filled = true
	spool, err := os.CreateTemp(b.e.dir, "file-*")
	if err != nil {
		return err
	}
	_ = os.Remove(spool.Name())
	defer spool.Close()
	size, err := io.Copy(spool, from)
	if err != nil {
		return err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := b.in.WriteHeader(&tar.Header{Name: inRoot(name), Typeflag: tar.TypeReg, Mode: int64(mode.Perm()), Size: size}); err != nil {
		return err
	}
	_, err = io.Copy(b.in, spool)
	return err
}

func inRoot(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// Unpack implements [worker.Tree].
func (b *box) Unpack(name string, from io.Reader, limits files.Limits) error {
	b.filled = true
	return files.Copy(b.in, inRoot(name), from, limits)
}

// Start implements [worker.Process].
func (b *box) Start(p keep.Program, stdout, stderr *os.File) error {
	if len(p.Args) == 0 {
		return errors.New("no command")
	}
	if _, err := b.e.ask(b.ctx, nil, b.create(p)...); err != nil {
		return err
	}
	b.wanted = true
	if err := b.folder(p.Dir); err != nil {
		return err
	}
	if err := b.in.Close(); err != nil {
		return err
	}
	if _, err := b.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if b.filled { // podman takes no tar with nothing in it
		if _, err := b.e.ask(b.ctx, b.file, "cp", "-", b.name+":/"); err != nil {
			return err
		}
	}
	b.start = b.e.command(b.ctx, "start", "--attach", b.name)
	b.start.Stdout, b.start.Stderr = stdout, stderr
	// Signals of a terminal are for whoever runs us.
	b.start.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := b.start.Start(); err != nil {
		return err
	}
	b.begun.Store(true)
	return nil
}

// folder makes a task's working folder where the engine does not. One that is
// there has to stay as it is.
func (b *box) folder(dir string) error {
	if b.e.kind != "podman" || b.task.WorkDir == "" {
		return nil
	}
	f, err := b.Open(dir)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, files.ErrNotThere) {
		return err
	}
	b.filled = true
	return b.in.WriteHeader(&tar.Header{Name: inRoot(dir) + "/", Typeflag: tar.TypeDir, Mode: 0o755})
}

// create is how the container is asked for.
func (b *box) create(p keep.Program) []string {
	args := []string{"create", "--name", b.name, "--label", "cairn=task", "--network", "host", "--hostname", hostName,
		"--pull", "never", "--security-opt", "no-new-privileges", "--cap-drop", "ALL", "--pids-limit", strconv.FormatUint(b.e.cfg.Processes, 10), "--workdir", p.Dir}
	if b.e.init {
		args = append(args, "--init")
	}
	for _, c := range []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT"} {
		args = append(args, "--cap-add", c)
	}
	if u := b.e.cfg.Users; u != (Users{}) && b.e.kind == "podman" {
		ids := fmt.Sprintf("0:%d:%d", u.First, u.Size)
		args = append(args, "--uidmap", ids, "--gidmap", ids)
	}
	if b.user != "" {
		args = append(args, "--user", b.user)
	}
	if b.task.Memory > 0 {
		args = append(args, "--memory", strconv.FormatInt(b.task.Memory, 10))
	}
	if b.task.CPU > 0 {
		args = append(args, "--cpu-shares", strconv.FormatInt(max(b.task.CPU*1024/1000, 2), 10))
	}
	for _, v := range b.task.Volumes {
		at := path.Clean(v.Path)
		if v.Claim != "" {
			at = engineVolume(v) + ":" + at
			if v.ReadOnly {
				at += ":ro"
			}
		}
		args = append(args, "--volume", at)
	}
	for _, e := range p.Env {
		args = append(args, "--env", e)
	}
	args = append(args, "--entrypoint", p.Args[0], b.ref)
	return append(args, p.Args[1:]...)
}

// Signal implements [worker.Process].
func (b *box) Signal(s syscall.Signal) error {
	if !b.begun.Load() {
		return nil
	}
	_, err := b.e.ask(b.ctx, nil, "kill", "--signal", strconv.Itoa(int(s)), b.name)
	return err
}

// Wait implements [worker.Process].
func (b *box) Wait() (keep.End, error) {
	attached := b.start.Wait()
	out, err := b.e.ask(b.ctx, nil, "inspect", "--type", "container", b.name)
	if err != nil {
		return keep.End{}, errors.Join(err, attached)
	}
	var all []struct {
		State struct {
			ExitCode  int
			OOMKilled bool
			Error     string
			Status    string
		}
	}
	if err := json.Unmarshal(out, &all); err != nil || len(all) != 1 {
		return keep.End{}, fmt.Errorf("%s inspect: %d containers, %w", b.e.kind, len(all), err)
	}
	state := all[0].State
	if state.OOMKilled {
		b.ooms++
	}
	end := keep.End{Exit: state.ExitCode}
	switch {
	case state.Error != "" || state.Status == "created":
		end.Failure = "start it: " + state.Error
		if state.Error == "" {
			end.Failure = fmt.Sprintf("start it: %v", attached)
		}
	case end.Exit > 128 && end.Exit <= 128+64:
		end.Signal = end.Exit - 128
	}
	return end, nil
}

// killed counts what the kernel killed for want of memory.
func (b *box) killed() int { return b.ooms }

// Open implements [worker.Tree].
func (b *box) Open(name string) (*files.Found, error) {
	ctx, end := context.WithCancel(b.ctx)
	c := b.e.command(ctx, "cp", b.name+":"+path.Clean("/"+name), "-")
	var problem bytes.Buffer
	c.Stderr = &limited{to: &problem, left: 4 << 10}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		end()
		return nil, err
	}
	wait := func() error {
		defer end()
		_, _ = io.Copy(io.Discard, out)
		if err := c.Wait(); err != nil {
			return &engineFailure{what: b.e.kind + " cp", said: strings.TrimSpace(problem.String()), err: err}
		}
		return nil
	}
	found, err := files.FromTar(out, func(whole bool) error {
		if !whole {
			end() // nobody wants the rest
			_ = wait()
			return nil
		}
		return wait()
	})
	if err == nil {
		return found, nil
	}
	var failure *engineFailure
	if said := wait(); errors.As(said, &failure) && failure.absent() {
		err = files.ErrNotThere
	} else if said != nil {
		err = said
	}
	return nil, fmt.Errorf("read %s: %w", name, err)
}

// close removes the container, whatever it does.
func (b *box) close() {
	_ = b.file.Close()
	if !b.wanted {
		return
	}
	if _, err := b.e.ask(b.ctx, nil, "rm", "--force", "--volumes", b.name); err != nil {
		b.e.desk.deps.Log.Error("remove a container", "engine", b.e.kind, "container", b.name, "err", err)
	}
}
