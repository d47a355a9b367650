package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/front"
)

func (a *app) lintCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "lint FILE...",
		Short: "Say what is wrong in files of workflows, without a server",
		Long: `Say what is wrong in files of workflows, ours and Argo's, each as
FILE:LINE:COLUMN: PATH: what is wrong, and end with exit code 1 if anything is.
No server is needed. - is standard input.`,
		Example: "  cairn lint workflow.yaml\n  cairn lint workflows/*.yaml",
		Args:    takes(1, 100_000),
		RunE: func(cmd *cobra.Command, files []string) error {
			wrong := 0
			for _, f := range files {
				b, err := a.readSource(cmd.Context(), f)
				if err != nil {
					return err
				}
				for _, p := range lint(f, b) {
					wrong++
					fmt.Fprintln(a.stdout, p)
				}
			}
			if wrong > 0 {
				return errors.New(count(wrong, "problem", "problems"))
			}
			return nil
		},
	}
}

// lint is what is wrong in a file, whatever kind of document it holds.
func lint(file string, b []byte) []workflow.Problem {
	kind, problems := front.Kind(file, b)
	switch {
	case len(problems) > 0:
	case kind == "CronWorkflow":
		_, problems = front.CompileSchedule(file, b, front.Options{})
	default:
		_, problems = front.Compile(file, b, front.Options{})
	}
	return problems
}
