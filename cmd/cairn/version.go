package main

import (
	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/serve"
)

// version is set by the linker for releases.
var version = ""

func (a *app) versionCommand() *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use:   "version",
		Short: "What this binary was built from",
		Args:  takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			v := serve.Version(version)
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
