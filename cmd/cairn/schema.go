package main

import (
	"strings"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/config"
)

func (a *app) schemaCommand() *cobra.Command {
	names := []string{"config"}
	return &cobra.Command{
		Use:       "schema NAME",
		Short:     "Print the JSON Schema of a file format: " + strings.Join(names, ", "),
		ValidArgs: names,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := takes(1, 1)(cmd, args); err != nil {
				return err
			}
			if args[0] != "config" {
				return usagef("there is no schema %q: there is %s", args[0], strings.Join(names, ", "))
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdout.Write(config.Schema())
			return err
		},
	}
}
