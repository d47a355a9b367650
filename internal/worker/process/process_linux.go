package process

import (
	"context"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/worker"
	"cairn.dev/cairn/internal/worker/isolate"
	"cairn.dev/cairn/internal/worker/resource"
)

// Run works until ctx ends or the server says that this worker is to leave.
// keep.Main has to be called before, first thing in main.
func Run(ctx context.Context, c Config) error {
	if err := c.complete(); err != nil {
		return err
	}
	api, err := c.api()
	if err != nil {
		return err
	}
	runner, err := c.runner(api)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	w, err := worker.New(worker.Config{Name: c.Name, Pool: c.Pool, Slots: c.Slots, Single: c.Single, Address: c.Address}, worker.Deps{Server: &first{HTTP: api, end: end}, Runner: runner, Clock: clock.Real(), Log: c.Log})
	if err != nil {
		return err
	}
	err = w.Run(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// runner is who runs the tasks.
func (c *Config) runner(api *worker.HTTP) (worker.Runner, error) {
	if c.Resources {
		account, err := resource.InCluster(c.Env, resource.AccountDir)
		if err != nil {
			return nil, err
		}
		return resource.New(account, api, clock.Real()), nil
	}
	place := isolate.Place{Scratch: c.Scratch, Fresh: c.Fresh, Keep: c.Keep, Single: c.Single, Bare: c.Bare}
	if c.TokenFile != "" {
		place.Hide = []string{c.TokenFile}
	}
	local, err := worker.NewLocal(worker.LocalConfig{Place: place, Slots: c.Slots, Meet: c.Meet, Env: inherited(c.Env), Entrypoint: c.Entrypoint, Command: c.Command}, api, clock.Real(), c.Log)
	if err != nil {
		return nil, err
	}
	return worker.Requests{Runner: local, Server: api}, nil
}
