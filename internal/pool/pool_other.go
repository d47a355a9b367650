//go:build !linux

package pool

import (
	"context"
	"errors"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
)

// Pool does not exist here.
type Pool struct{}

var errLinux = errors.New("containers of Cairn's own are for Linux")

// New fails and says what the choices are.
func New(Config, Deps) (*Pool, error) { return nil, Probe(Config{}) }

// Probe says what the choices are.
func Probe(Config) error {
	return choices(choice{"on its own", errLinux}, choice{"docker", engineChoice("docker")}, choice{"podman", engineChoice("podman")})
}

// Run implements [worker.Runner].
func (*Pool) Run(context.Context, int, worker.Job) task.Outcome { return failed(errLinux, true) }

// Close implements [worker.Runner].
func (*Pool) Close() {}
