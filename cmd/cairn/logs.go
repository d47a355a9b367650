package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/config"
)

func (a *app) logsCommand() *cobra.Command {
	var q client.LogQuery
	var since config.Duration
	var plain bool
	c := &cobra.Command{
		Use:   "logs ID [TASK]",
		Short: "Show what the tasks of a run printed",
		Long: `Show what the tasks of a run printed, or one of them. What went to standard
output and standard error goes there again. Where there are several tasks, lines
begin with the task's.`,
		Example: "  cairn logs 0d5k2m…\n  cairn logs -f 0d5k2m…\n  cairn logs --grep 'error|panic' 0d5k2m…\n  cairn logs --tail 20 0d5k2m… 3.17",
		Args:    takes(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				q.Task = args[1]
			}
			if since > 0 {
				q.Since = time.Now().Add(-since.Std())
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			return a.follow(cmd.Context(), cl, args[0], q, q.Task == "" && !plain)
		},
	}
	f := c.Flags()
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on with what is printed, until the run has ended")
	f.StringVar(&q.Grep, "grep", "", "only lines that this regular expression (RE2) matches")
	f.IntVar(&q.Tail, "tail", 0, "only so many lines from the end (default: all)")
	f.IntVar(&q.Attempt, "attempt", 0, "only of this attempt")
	f.StringVar(&q.Stream, "stream", "", "only this one: stdout or stderr")
	durationVar(f, &since, "since", "only what was printed in the last 10m (default: all)")
	f.BoolVar(&plain, "plain", false, "lines as they are, without their tasks")
	return c
}

// follow prints lines of logs.
func (a *app) follow(ctx context.Context, cl *client.Client, id string, q client.LogQuery, named bool) error {
	begun := map[io.Writer]bool{} // writers in the middle of a line
	return cl.Logs(ctx, id, q, func(l wire.LogLine) error {
		w := a.stdout
		if l.Stream == "stderr" {
			w = a.stderr
		}
		if named && !begun[w] {
			if _, err := fmt.Fprintf(w, "%s | ", l.Task); err != nil {
				return err
			}
		}
		b := l.Bytes
		if b == nil {
			b = []byte(l.Text)
		}
		if begun[w] = l.Part; !l.Part {
			b = append(b, '\n')
		}
		_, err := w.Write(b)
		return err
	})
}
