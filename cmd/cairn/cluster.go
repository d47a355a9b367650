package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "Who reports uses: clusters, hosts, CI", `Reporters tell Cairn which images are in use: a cluster's agent, a host, a CI
job. One that promised to report every so often and falls silent stops
deletion within its scope, because nobody can tell what started there.`,
		a.clusterLs(), a.clusterForget())
}

func (a *app) clusterLs() *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use:   "ls",
		Short: "List reporters",
		Args:  takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			l, err := cl.Reporters(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(l, func(row func(...string)) {
				row("NAME", "SCOPE", "PERIOD", "LAST HEARD", "IMAGES", "STATE")
				for _, r := range l.Reporters {
					state := "heard"
					if r.Silent {
						state = "SILENT, deletion stops in its scope"
					}
					row(r.Name, strings.Join(r.Scope, ","), r.Period.String(), day(r.Last), fmt.Sprint(r.Digests), state)
				}
			})
		},
	})
}

func (a *app) clusterForget() *cobra.Command {
	return &cobra.Command{
		Use:   "forget NAME",
		Short: "Forget a reporter that will not come back",
		Long: `Forget a reporter: what it stated no longer keeps images, and its silence no
longer stops deletion. The time in which it was silent stays uncovered: images
do not age by it.`,
		Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := cl.Forget(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "forgot %s\n", args[0])
			return nil
		},
	}
}
