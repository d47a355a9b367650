package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/demo"
)

func (a *app) demoCommand() *cobra.Command {
	var cfg demo.Config
	c := &cobra.Command{
		Use:   "demo",
		Short: "See the main job work, in a temporary folder",
		Long: `Start Cairn in a temporary folder on this machine, push images, report one of
them in use, let a month pass, and see what goes, what stays and why; then code
that moves to a newer image, and containers that are run. The clock of the month
is the only thing replaced. The server stays up until Ctrl-C.`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Run(cmd.Context(), cfg, demo.Deps{Out: a.stdout, Cairn: a.within})
		},
	}
	c.Flags().BoolVar(&cfg.Exit, "exit", false, "end after the story")
	c.Flags().BoolVar(&cfg.RealTime, "real-time", false, "with the real clock: images go after seconds")
	c.Flags().StringVar(&cfg.Listen, "listen", "", "address to listen on (default: a free port of 127.0.0.1)")
	return c
}

// within runs a command line of its own against the server at url, as a person
// would in another terminal.
func (a *app) within(ctx context.Context, out io.Writer, url string, args ...string) error {
	var stderr strings.Builder
	env := func(name string) string {
		if name == client.ServerVariable {
			return url
		}
		return ""
	}
	if code := run(ctx, args, strings.NewReader(""), out, &stderr, env); code != exitOK {
		return errors.New(strings.TrimSpace(stderr.String()))
	}
	return nil
}
