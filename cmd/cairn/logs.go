package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
)

func (a *app) logsCommand() *cobra.Command {
	var q client.LogQuery
	var since config.Duration
	var plain bool
	c := &cobra.Command{
		Use:   "logs RUN [TASK]",
		Short: "Show what the tasks of a run printed",
		Long: `Show what the tasks of a run printed, or one of them: by its number or, at the
top of the graph, its name, and count(7) for one of many. What went to standard
output and standard error goes there again. Lines begin with the name of their
task where there may be more than one.

RUN is an ID, or a name: then the newest run of that name.`,
		Example: "  cairn logs 0d5k2m…\n  cairn logs -f 0d5k2m…\n  cairn logs --grep 'error|panic' 0d5k2m…\n  cairn logs --tail 20 nightly 'count(7)'",
		Args:    takes(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if since > 0 {
				q.Since = time.Now().Add(-since.Std())
			}
			cl, id, err := a.newestRun(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			several := true
			if len(args) > 1 {
				n, err := findTask(cmd.Context(), cl, id, args[1])
				if err != nil {
					return err
				}
				q.Task, several = n.ID, n.Kind != "task"
			}
			if q.Follow && q.Tail == 0 {
				return a.followOn(cmd.Context(), cl, id, q, several && !plain)
			}
			return a.follow(cmd.Context(), cl, id, q, several && !plain, new(int))
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

// itemRE is what one of many tasks is called.
var itemRE = regexp.MustCompile(`^(.+)\(([0-9]{1,10})\)$`)

// findTask finds a task or node by its number or its name.
func findTask(ctx context.Context, cl *client.Client, id, task string) (wire.RunNode, error) {
	if task != "" && task[0] >= '0' && task[0] <= '9' {
		return cl.Node(ctx, id, task)
	}
	left := maxNodes
	nodes, err := tree(ctx, cl, id, "", 0, &left)
	if err != nil {
		return wire.RunNode{}, err
	}
	name, item := task, ""
	if m := itemRE.FindStringSubmatch(task); m != nil {
		name, item = m[1], m[2]
	}
	var known []string
	for _, n := range inside(nodes) {
		switch {
		case n.ID == "":
		case n.Name == task:
			return n.RunNode, nil
		case n.Name == name && n.Kind == "tasks":
			return cl.Node(ctx, id, n.ID+"."+item)
		}
		known = append(known, n.Name)
	}
	return wire.RunNode{}, &hinted{fmt.Errorf("run %s has no task %q; at the top are: %s", id, task, brief(strings.Join(known, ", "))), "`cairn runs get " + id + "` shows all; name those below by their numbers"}
}

// followOn follows logs until the run has ended, through a server that is
// started again meanwhile.
func (a *app) followOn(ctx context.Context, cl *client.Client, id string, q client.LogQuery, named bool) error {
	q.Follow = true
	shown, met := 0, false // whether the server was there
	for gap := firstLook; ; gap = min(gap*3/2, longestGap) {
		before := shown
		err := a.follow(ctx, cl, id, q, named, &shown)
		met = met || !errors.As(err, new(*client.Unreachable))
		if err == nil || ctx.Err() != nil || !met || !passing(err) {
			return err
		}
		if shown > before {
			gap = firstLook
		}
		if err := clock.Sleep(ctx, clock.Real(), gap); err != nil {
			return err
		}
	}
}

// follow prints lines of logs but for the first shown ones, and counts in shown
// how far it came.
func (a *app) follow(ctx context.Context, cl *client.Client, id string, q client.LogQuery, named bool, shown *int) error {
	skip := *shown
	open := map[string]string{} // by stream, the task in the middle of whose line it is
	err := cl.Logs(ctx, id, q, func(l wire.LogLine) error {
		if skip > 0 {
			skip--
			return nil
		}
		w := a.stdout
		if l.Stream == "stderr" {
			w = a.stderr
		}
		b := l.Bytes
		if b == nil {
			b = []byte(l.Text)
		}
		if l.Cut > 0 {
			b = fmt.Appendf(nil, "[%s of output not kept]", bytesText(l.Cut))
		}
		if named && open[l.Stream] != l.Task {
			name := cmp.Or(l.Name, l.Task)
			if open[l.Stream] != "" {
				b = append([]byte("\n"), fmt.Appendf(nil, "%s | %s", name, b)...)
			} else {
				b = fmt.Appendf(nil, "%s | %s", name, b)
			}
		}
		open[l.Stream] = l.Task
		if !l.Part {
			open[l.Stream] = ""
			b = append(b, '\n')
		}
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("cannot write the output: %v", err) // no error of the server's
		}
		*shown++
		return nil
	})
	if named && open["stdout"] != "" {
		fmt.Fprintln(a.stdout)
	}
	if named && open["stderr"] != "" {
		fmt.Fprintln(a.stderr)
	}
	return err
}
