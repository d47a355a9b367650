package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
)

func (a *app) runsCommand() *cobra.Command {
	return group("runs", "List, inspect and control runs of workflows",
		`Runs of workflows and of single containers, which `+"`cairn run`"+` starts. They are named
by their IDs, which the lists show, or by their names where it is clear which is meant.`,
		a.runsLs(), a.runsGet(), a.runsCancel(), a.runsRetry(), a.runsSuspend(), a.runsResume(), a.runsResubmit(), a.runsRm(), a.runsSave())
}

func (a *app) runsLs() *cobra.Command {
	var q client.RunQuery
	var most int
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List runs, newest first",
		Example: "  cairn runs ls\n  cairn runs ls --phase live\n  cairn runs ls --namespace team-a --phase failed -o json",
		Args:    takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if most < 0 {
				return usagef("--limit cannot be negative; 0 lists all")
			}
			if q.Schedule != "" {
				namespace, name := scheduleName(q.Schedule)
				q.Schedule = namespace + "/" + name
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			all := wire.RunList{Runs: []wire.Run{}}
			for {
				q.Limit = 1000
				if most > 0 {
					q.Limit = min(q.Limit, most-len(all.Runs))
				}
				page, err := cl.Runs(cmd.Context(), q)
				if err != nil {
					return err
				}
				all.Runs = append(all.Runs, page.Runs...)
				if q.After = page.Next; q.After == "" || most > 0 && len(all.Runs) >= most {
					break
				}
			}
			all.Next = q.After
			if err := a.print(all, func(row func(...string)) {
				row("ID", "NAME", "NAMESPACE", "PHASE", "TASKS", "FAILED", "CANCELED", "CREATED", "TOOK")
				for _, r := range all.Runs {
					row(r.ID, r.Name, r.Namespace, phaseText(r), fmt.Sprintf("%d/%d", r.Tasks.Done(), r.Tasks.Total), fmt.Sprint(r.Tasks.Failed), fmt.Sprint(r.Tasks.Canceled), day(r.Created), took(r))
				}
			}); err != nil {
				return err
			}
			if all.Next != "" && a.output == "table" {
				fmt.Fprintf(a.stderr, "there are more: --limit 0 lists all\n")
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVarP(&q.Namespace, "namespace", "n", "", "only of this namespace")
	f.StringVar(&q.Phase, "phase", "", "only in this phase: live (not ended), running, succeeded, failed, error or canceled")
	f.StringVar(&q.Name, "name", "", "only of this name")
	f.StringVar(&q.Schedule, "schedule", "", "only those that this schedule began: [NAMESPACE/]NAME")
	f.IntVar(&most, "limit", 100, "at most so many; 0: all")
	_ = c.RegisterFlagCompletionFunc("phase", cobra.FixedCompletions([]string{"live", "running", "succeeded", "failed", "error", "canceled"}, cobra.ShellCompDirectiveNoFileComp))
	return a.withOutput(c)
}

func phaseText(r wire.Run) string {
	if r.Suspended && !r.Done() {
		return r.Phase + ", suspended"
	}
	return r.Phase
}

func took(r wire.Run) string {
	if !r.Done() {
		return "-"
	}
	return roughly(r.Ended.Sub(r.Created))
}

// control is a command that does something to runs: to those in the phase, "" for any.
func (a *app) control(use, short, done, phase string, f func(context.Context, *client.Client, string) (wire.Run, error)) *cobra.Command {
	return &cobra.Command{
		Use:   use + " RUN...",
		Short: short,
		Long:  short + ".\n\nRUN is an ID, or the name of the only run that this can be about.",
		Args:  takes(1, 1000),
		RunE: func(cmd *cobra.Command, ids []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			for _, id := range ids {
				id, err := a.onlyRun(cmd.Context(), cl, id, phase)
				if err != nil {
					return err
				}
				r, err := f(cmd.Context(), cl, id)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "%s %s: %s\n", done, id, phaseText(r))
			}
			return nil
		},
	}
}

func (a *app) runsCancel() *cobra.Command {
	var now bool
	c := a.control("cancel", "End runs: their tasks are told to end, then exit handlers run", "canceled", "live", func(ctx context.Context, cl *client.Client, id string) (wire.Run, error) {
		return cl.Cancel(ctx, id, now)
	})
	c.Flags().BoolVar(&now, "now", false, "exit handlers do not run either")
	return c
}

func (a *app) runsRetry() *cobra.Command {
	return a.control("retry", "Begin what failed of ended runs again; what went well stays", "retried", "", func(ctx context.Context, cl *client.Client, id string) (wire.Run, error) {
		return cl.Retry(ctx, id)
	})
}

func (a *app) runsSuspend() *cobra.Command {
	return a.control("suspend", "Begin no more tasks of runs; those that were begun go on", "suspended", "live", func(ctx context.Context, cl *client.Client, id string) (wire.Run, error) {
		return cl.Suspend(ctx, id)
	})
}

func (a *app) runsResume() *cobra.Command {
	var q wire.ResumeRequest
	var set []string
	c := &cobra.Command{
		Use:   "resume RUN",
		Short: "Go on with a run that is suspended, or with a node of it that waits for somebody",
		Example: `  cairn runs resume 0d5k2m…
  cairn runs resume 0d5k2m… --node 4 --set approve=yes
  cairn runs resume 0d5k2m… --node 4 --fail --message 'not like this'`,
		Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Outputs = map[string]string{}
			for _, kv := range set {
				k, v, ok := strings.Cut(kv, "=")
				if !ok {
					return usagef("--set %q: write NAME=VALUE", kv)
				}
				q.Outputs[k] = v
			}
			if q.Node == "" && (q.Fail || len(set) > 0) {
				return usagef("--set and --fail are of a node: name it with --node (`cairn runs get %s` shows those that wait)", args[0])
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			id, err := a.onlyRun(cmd.Context(), cl, args[0], "live")
			if err != nil {
				return err
			}
			r, err := cl.Resume(cmd.Context(), id, q)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "resumed %s: %s\n", id, phaseText(r))
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&q.Node, "node", "", "the node that waits (default: the whole run)")
	f.StringArrayVar(&set, "set", nil, "NAME=VALUE that the node asks for; may be repeated")
	f.BoolVar(&q.Fail, "fail", false, "the node fails")
	f.StringVar(&q.Message, "message", "", "why")
	return c
}

func (a *app) runsResubmit() *cobra.Command {
	return &cobra.Command{
		Use:   "resubmit RUN",
		Short: "Start a new run of the same documents and arguments",
		Args:  takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, id, err := a.newestRun(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			r, err := cl.Resubmit(cmd.Context(), id)
			if err != nil {
				return err
			}
			a.started(r)
			return nil
		},
	}
}

func (a *app) runsRm() *cobra.Command {
	return &cobra.Command{
		Use:   "rm RUN...",
		Short: "Forget ended runs, their logs and their files",
		Args:  takes(1, 1000),
		RunE: func(cmd *cobra.Command, ids []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			for _, id := range ids {
				id, err := a.onlyRun(cmd.Context(), cl, id, "")
				if err != nil {
					return err
				}
				if err := cl.DeleteRun(cmd.Context(), id); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "removed %s\n", id)
			}
			return nil
		},
	}
}

func (a *app) runsSave() *cobra.Command {
	return &cobra.Command{
		Use:     "save RUN NODE NAME [FILE]",
		Short:   "Save a file that a node of a run left",
		Long:    "Save a file that a node of a run left, in FILE or one called as it is; - is standard\noutput. A folder is a tar.",
		Example: "  cairn runs save 0d5k2m… 2 report report.html\n  cairn runs save 0d5k2m… 3.17 pictures - | tar x",
		Args:    takes(3, 4),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, id, err := a.newestRun(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			r, err := cl.Artifact(cmd.Context(), id, args[1], args[2])
			if err != nil {
				return err
			}
			defer r.Close()
			name := args[2]
			if len(args) > 3 {
				name = args[3]
			}
			if name == "-" {
				_, err := io.Copy(a.stdout, r)
				return err
			}
			if strings.ContainsAny(args[2], `/\`) && len(args) == 3 {
				return usagef("%q is no name of a file here: say which with FILE", args[2])
			}
			f, err := os.Create(name)
			if err != nil {
				return err
			}
			n, err := io.Copy(f, r)
			if err := cmp.Or(err, f.Close()); err != nil {
				return fmt.Errorf("save %s: %w", name, err)
			}
			fmt.Fprintf(a.stderr, "saved %s in %s\n", bytesText(n), name)
			return nil
		},
	}
}
