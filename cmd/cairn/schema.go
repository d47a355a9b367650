package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/rules"
	"cairn.dev/cairn/internal/workflow"
)

func (a *app) schemaCommand() *cobra.Command {
	// Each is the schema of one file: cairn.yaml, .cairn.yaml of bumps, and
	// documents of workflows.
	schemas := map[string]func() []byte{"config": config.Schema, "bump": rules.Schema, "workflow": workflow.Schema}
	names := slices.Sorted(maps.Keys(schemas))
	return &cobra.Command{
		Use:       "schema NAME",
		Short:     "Print the JSON Schema of a file format: " + strings.Join(names, ", "),
		ValidArgs: names,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := takes(1, 1)(cmd, args); err != nil {
				return err
			}
			if schemas[args[0]] == nil {
				return usagef("there is no schema %q: there are %s", args[0], strings.Join(names, ", "))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			_, err := a.stdout.Write(schemas[args[0]]())
			return err
		},
	}
}
