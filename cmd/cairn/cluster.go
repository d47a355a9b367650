package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
)

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "Who reports uses: clusters, hosts, CI", `Reporters tell Cairn which images are in use: a cluster's agent, a host, a CI
job. One that promised to report every so often and falls silent stops
deletion within its scope, because nobody can tell what started there.`,
		a.clusterLs(), a.clusterInspect(), a.clusterForget())
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
				row("NAME", "SCOPE", "PERIOD", "LAST HEARD", "NODES", "IMAGES", "STATE")
				for _, r := range l.Reporters {
					state := "heard"
					if r.Silent {
						state = "SILENT, deletion stops in its scope"
					}
					row(r.Name, strings.Join(r.Scope, ","), r.Period.String(), day(r.Last), nodes(r), fmt.Sprint(r.Digests), state)
				}
			})
		},
	})
}

// nodes is how many a reporter has, if it says.
func nodes(r wire.Reporter) string {
	n := 0
	for _, p := range r.Platforms {
		n += p.Count
	}
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func (a *app) clusterInspect() *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use:   "inspect NAME",
		Short: "Show what one reporter says is in use",
		Long: `Show what one reporter says is in use now, by whom, and so kept from deletion; and
when it was last heard. A cluster that signs on with its own tokens is called
cluster/NAME in lists; NAME will do here.`,
		Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			r, err := cl.Reporter(cmd.Context(), args[0], 0)
			if p, ok := errors.AsType[*wire.Problem](err); ok && p.Status == http.StatusNotFound && !strings.Contains(args[0], "/") {
				r, err = cl.Reporter(cmd.Context(), "cluster/"+args[0], 0)
			}
			if err != nil {
				return err
			}
			return a.print(r, func(row func(...string)) { reporterTable(r, row) })
		},
	})
}

func reporterTable(r wire.ReporterUses, row func(...string)) {
	state := "heard"
	if r.Reporter.Silent {
		state = "SILENT, deletion stops in its scope"
	}
	row("Name:", r.Reporter.Name)
	row("Scope:", strings.Join(r.Reporter.Scope, ","))
	row("Since:", day(r.Reporter.First))
	row("Last heard:", day(r.Reporter.Last)+", "+state+", every "+r.Reporter.Period.String())
	for i, p := range r.Reporter.Platforms {
		label := ""
		if i == 0 {
			label = "Nodes:"
		}
		row(label, fmt.Sprintf("%d %s/%s", p.Count, p.OS, p.Architecture))
	}
	row("In use:", count(r.Reporter.Digests, "use", "uses"))
	for _, u := range r.Uses {
		cells := []string{"", short(u.Digest), u.Source.String(), u.Subject}
		if u.Nodes > 0 {
			cells = append(cells, count(u.Nodes, "node", "nodes"))
		}
		row(cells...)
	}
	if n := r.Reporter.Digests - len(r.Uses); n > 0 {
		row("", fmt.Sprintf("and %d more", n))
	}
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
