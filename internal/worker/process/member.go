package process

import (
	"context"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/worker"
)

// Member runs a program as one container of a task that has several, when its
// lead, which meets it in the folder, says so. env is the process's own.
func Member(ctx context.Context, meet, name string, args, env []string) error {
	m := worker.Member{Dir: meet, Name: name, Args: args, Env: inherited(env), Clock: clock.Real()}
	return m.Run(ctx)
}
