package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/worker/process"
)

func (a *app) workerCommand() *cobra.Command {
	var c process.Config
	var verbose bool
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Run tasks where this is started",
		Long: `Run tasks of a pool where this is started: in a container of the image that they
name, or on a machine that has their programs. Which image a task names is not
looked at; for containers of any image there is the pool of ` + "`cairn serve`" + `, and
Kubernetes. Each task is kept apart from the others as far as the kernel allows,
and the run shows how. Linux only.

The secret, of an account with the action work, is in CAIRN_TOKEN or a file, and
is not given to tasks. It ends when it is interrupted, and its tasks with it:
they are run again elsewhere.`,
		Example: "  cairn worker --server http://cairn.example.org:5080 --slots 4\n  cairn worker --pool gpu --token-file /run/secrets/cairn",
		Args:    takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := client.FromEnvironment(client.Config{Server: a.server}, a.getenv)
			c.Server, c.Token, c.Env = s.Server, s.Token, os.Environ()
			if c.Server == "" {
				c.Server = client.DefaultServer
			}
			if c.Slots < 1 || c.Slots > 10_000 {
				return usagef("--slots %d: from 1 to 10000", c.Slots)
			}
			level := "info"
			if verbose {
				level = "debug"
			}
			c.Log = a.logger(config.Log{Level: level})
			err := process.Run(cmd.Context(), c)
			if errors.Is(err, context.Canceled) && cmd.Context().Err() != nil {
				return nil // it was told to end
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Pool, "pool", "default", "pool that it works for")
	f.IntVar(&c.Slots, "slots", 1, "tasks at a time")
	f.StringVar(&c.Name, "name", "", "its name, unique among workers (default: host name and PID)")
	f.StringVar(&c.TokenFile, "token-file", "", "file with its secret, read again for each request (default $CAIRN_TOKEN)")
	f.StringVar(&c.Scratch, "scratch", "/tmp/cairn-worker", "folder of its own; overlays cannot lie on one that is an overlay itself")
	f.StringArrayVar(&c.Fresh, "fresh", nil, "folder that is new for each task; may be repeated")
	f.StringArrayVar(&c.Keep, "keep", nil, "folder that tasks share; may be repeated")
	f.BoolVar(&c.Single, "single", false, "the container is for one task only")
	f.BoolVarP(&verbose, "verbose", "v", false, "say more")
	return cmd
}
