package main

import (
	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/serve"
)

func (a *app) versionCommand() *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use:   "version",
		Short: "What this binary was built from",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			v := serve.Version()
			return a.print(v, func(row func(...string)) {
				row("cairn " + v.Version)
				if v.Commit != "" {
					row("commit " + v.Commit)
				}
				row(v.Go)
			})
		},
	})
}
