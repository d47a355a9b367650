// Package pool runs tasks in containers on this machine.
//
// It owns what lies between a task and its program's start: which image it is
// and for which platform, its layers, which are unpacked once, a root for each
// task that no other task has had, the namespaces around it, what of this
// machine is to be seen in there, and how many tasks run at a time. It promises
// that a task is root of nothing but its own container: its users are a range
// that nobody else here has, its powers end at a user namespace, it gains none
// by setuid programs, and it finds no file, device or setting of the machine
// that it could write. It promises that what an image brings cannot reach out
// of the folder that it is unpacked into, and that an unpacked layer is either
// whole or not there.
//
// It keeps no network apart: tasks have this machine's, its loopback addresses
// included. It limits processors and memory where the machine lets it make
// control groups, and says so where not. A kernel is not a wall against
// programs that attack it: strangers' programs belong on machines of their own.
//
// It is for Linux, as root or as a user who may make user namespaces. [Engine]
// does the same by docker or podman. Elsewhere [New] says what the choices are.
// It knows nothing of runs and retries (work), and how a program is watched is
// package worker's.
package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
	"cairn.dev/cairn/internal/worker/files"
)

const (
	// DefaultMaxBytes is how much of unpacked images is kept.
	DefaultMaxBytes = 20 << 30
	// DefaultProcesses is how many processes and threads a user may have in
	// one task.
	DefaultProcesses = 8192
	// Isolation is what all tasks of a pool get, whatever they ask for: nothing
	// is weaker in a pool, and nothing is stronger on one machine.
	Isolation = "overlay"

	hostName = "task"        // as tasks see it
	private  = "/tmp/.cairn" // a folder in the root, for what is ours
	warmFor  = time.Minute   // that a root waits for a task
)

// ErrNoImage means that there is no such image for this machine: whoever wrote
// the task has to change something. Other errors of an image are those of the
// network or of this machine.
var ErrNoImage = errors.New("no such image")

// Images finds images.
type Images interface {
	// Find is what a reference names, as people write it. The error is
	// [ErrNoImage] when there is none.
	Find(ctx context.Context, reference string) (Found, error)
}

// A Repository is where the parts of an image come from.
type Repository interface {
	// Manifest of a digest that is known.
	Manifest(ctx context.Context, d image.Digest) (*image.Manifest, error)
	// Blob opens a config or a layer. Whoever reads it compares the digest.
	Blob(ctx context.Context, d image.Descriptor) (io.ReadCloser, error)
}

// Found is what a reference names.
type Found struct {
	Name     string // the repository, for people
	Digest   image.Digest
	Manifest *image.Manifest
	From     Repository
}

// defaultUsers begin where no distribution has users, and neither systemd's
// containers nor the ranges that useradd hands out.
var defaultUsers = Users{First: 2_000_000_000, Size: 65536}

// Users is a range of users and groups of this machine that are the tasks'.
type Users struct{ First, Size int }

// Config of a pool.
type Config struct {
	// Dir is a folder that is the pool's alone: unpacked images, the tasks'
	// files, and the claims, which are kept.
	Dir string
	// MaxBytes of unpacked layers; [DefaultMaxBytes] when 0.
	MaxBytes int64
	// MaxImage bounds one unpacked layer.
	MaxImage files.Limits
	// Users are the tasks'; chosen when zero. Only root can have others than
	// those of /etc/subuid.
	Users Users
	// CPU in thousandths of a processor, and Memory in bytes, are what tasks
	// may ask for in sum; all that the machine has when 0.
	CPU, Memory int64
	// Processes that a user may have in one task; [DefaultProcesses] when 0.
	Processes uint64
	// Inputs bounds folders that are unpacked for tasks; the worker's own
	// bounds when zero.
	Inputs files.Limits
}

// Deps of a pool.
type Deps struct {
	Images   Images
	Exchange worker.Exchange
	Clock    clock.Clock
	Log      *slog.Logger
	// HTTP runs tasks that are requests; they are refused when it is nil. A
	// timeout of 0 is its own to choose.
	HTTP func(ctx context.Context, h *task.HTTP, timeout time.Duration) task.Outcome
}

func (c *Config) complete() error {
	if c.Dir == "" {
		return errors.New("a pool needs a folder of its own")
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.MaxImage == (files.Limits{}) {
		c.MaxImage = files.Limits{Bytes: 32 << 30, Entries: 1_000_000}
	}
	if c.Processes == 0 {
		c.Processes = DefaultProcesses
	}
	if c.Inputs == (files.Limits{}) {
		c.Inputs = files.Limits{Bytes: 64 << 30, Entries: 1_000_000}
	}
	if c.Users != (Users{}) && (c.Users.First < 1 || c.Users.Size < 1 || c.Users.First+c.Users.Size > 1<<32-2) {
		return fmt.Errorf("users of tasks: %d from %d on are no range: the first must not be root", c.Users.Size, c.Users.First)
	}
	return nil
}

func (d *Deps) complete() error {
	if d.Images == nil || d.Exchange == nil || d.Clock == nil {
		return errors.New("a pool needs images, an exchange for inputs and outputs, and a clock")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// failed is the outcome of a task that could not be started.
func failed(err error, infrastructure bool) task.Outcome {
	return task.Outcome{Phase: task.Errored, Exit: -1, Message: err.Error(), Infrastructure: infrastructure, Isolation: Isolation}
}

// A choice is one way to run tasks on a machine, and why it cannot be had; nil
// when it can.
type choice struct {
	name string
	err  error
}

// choices is an error that says what was looked at.
func choices(tried ...choice) error {
	all := []any{runtime.GOOS}
	text := "tasks cannot run on this machine (%s): "
	for _, c := range tried {
		text += c.name + ": %w; "
		all = append(all, c.err)
	}
	return fmt.Errorf(text+"start a worker on another machine (cairn worker), or on a cluster", all...)
}
