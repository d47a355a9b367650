package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/workflow/front"
)

func (a *app) schedulesCommand() *cobra.Command {
	return group("schedules", "Workflows that the clock starts",
		"Workflows that the clock starts: CronWorkflows. They are named NAMESPACE/NAME, or\nNAME in the namespace \"default\".",
		a.schedulesLs(), a.schedulesPut(),
		a.setSchedule("suspend", "Start no more runs of a schedule", "suspended", func(ctx context.Context, cl *client.Client, namespace, name string) error {
			_, err := cl.SuspendSchedule(ctx, namespace, name, true)
			return err
		}),
		a.setSchedule("resume", "Start runs of a schedule again; times that passed are not made up for", "resumed", func(ctx context.Context, cl *client.Client, namespace, name string) error {
			_, err := cl.SuspendSchedule(ctx, namespace, name, false)
			return err
		}),
		a.setSchedule("rm", "Forget a schedule; runs that it began go on", "removed", func(ctx context.Context, cl *client.Client, namespace, name string) error {
			return cl.DeleteSchedule(ctx, namespace, name)
		}))
}

func (a *app) schedulesLs() *cobra.Command {
	var namespace string
	c := &cobra.Command{
		Use:   "ls",
		Short: "List schedules",
		Args:  takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			l, err := cl.Schedules(cmd.Context(), namespace)
			if err != nil {
				return err
			}
			return a.print(l, func(row func(...string)) {
				row("NAMESPACE", "NAME", "SCHEDULE", "ZONE", "STATE", "LAST", "NEXT")
				for _, s := range l.Schedules {
					state := "ok"
					switch {
					case s.Suspended:
						state = "suspended"
					case s.Trouble != "":
						state = brief(s.Trouble)
					}
					row(s.Namespace, s.Name, strings.Join(s.Crons, "; "), dash(s.Timezone), state, day(s.Last), day(s.Next))
				}
			})
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "only of this namespace")
	return a.withOutput(c)
}

func (a *app) schedulesPut() *cobra.Command {
	var pool string
	c := &cobra.Command{
		Use:   "put FILE",
		Short: "Store the CronWorkflow of a file, in place of one of its name",
		Long:  "Store the CronWorkflow of a file, in place of one of its name. FILE may be a URL, or\n- for standard input. Templates that it refers to are in the file, too, or on\nthe server.",
		Args:  takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := a.readFiles(cmd.Context(), args)
			if err != nil {
				return err
			}
			o, _ := a.options(cmd.Context(), "")
			if _, problems := front.CompileSchedule(src.name(), src.text, o); len(problems) > 0 {
				return src.wrong(problems)
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			s, err := cl.PutSchedule(cmd.Context(), wire.Document{Name: src.name(), Text: string(src.text)}, pool)
			if err != nil {
				return err
			}
			next := "is suspended"
			if !s.Suspended {
				next = "runs next at " + day(s.Next)
			}
			fmt.Fprintf(a.stdout, "%s/%s %s\n", s.Namespace, s.Name, next)
			return nil
		},
	}
	c.Flags().StringVar(&pool, "pool", "", "the workers that run it (default \"default\")")
	return c
}

// scheduleName reads NAMESPACE/NAME, or NAME alone.
func scheduleName(s string) (namespace, name string) {
	if namespace, name, ok := strings.Cut(s, "/"); ok {
		return namespace, name
	}
	return "default", s
}

// setSchedule is a command that does something to a schedule.
func (a *app) setSchedule(use, short, done string, f func(ctx context.Context, cl *client.Client, namespace, name string) error) *cobra.Command {
	return &cobra.Command{
		Use:   use + " [NAMESPACE/]NAME",
		Short: short,
		Args:  takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			namespace, name := scheduleName(args[0])
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := f(cmd.Context(), cl, namespace, name); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s %s/%s\n", done, namespace, name)
			return nil
		},
	}
}
