package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/config"
)

// app is what every command shares: the streams, the environment and the
// flags that all of them take.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	getenv func(string) string

	server string // --server
	output string // --output
}

// run executes one command line and returns the exit code (see exit.go).
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return a.report(cmd, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "cairn",
		Short: "A container registry that deletes images by last use",
		Long: `Cairn is an OCI registry in one binary. It knows who uses each image (pulls,
containers on your hosts, pins) and deletes an image thirty days after the
last use, in two steps, and says why.

  cairn demo                  see it work, in a temporary folder
  cairn serve --open          run a registry on 127.0.0.1:5080
  cairn why app/web:1.4       who uses this image, and when it will go`,
		SilenceUsage:               true,
		SilenceErrors:              true,
		SuggestionsMinimumDistance: 2,
		Args:                       cobra.ArbitraryArgs,
		RunE:                       onlyHolds,
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.PersistentFlags().StringVar(&a.server, "server", "", "address of the server (default "+client.DefaultServer+", or $"+client.ServerVariable+")")
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "work", Title: "Workflows:"},
		&cobra.Group{ID: "images", Title: "Images:"},
		&cobra.Group{ID: "code", Title: "Code:"},
		&cobra.Group{ID: "manage", Title: "Manage:"},
	)
	in := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
		}
		root.AddCommand(cmds...)
	}
	in("run", a.demoCommand(), a.serveCommand(), a.agentCommand(), a.credentialCommand(), a.configCommand(), a.scrubCommand(), a.installCommand(), a.uninstallCommand())
	in("work", a.runCommand(), a.runsCommand(), a.logsCommand(), a.lintCommand(), a.schedulesCommand(), a.templatesCommand(), a.workerCommand())
	in("images", a.whyCommand(), a.imageCommand(), a.tagCommand(), a.mirrorCommand())
	in("code", a.scanCommand(), a.bumpCommand())
	in("manage", a.statusCommand(), a.retentionCommand(), a.reapCommand(), a.clusterCommand(), a.tokenCommand())
	root.AddCommand(a.versionCommand(), a.schemaCommand(), exitCodesTopic())
	return root
}

// group is a command that only holds others.
func group(use, short, long string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args:  cobra.ArbitraryArgs,
		RunE:  onlyHolds,
	}
	c.SuggestionsMinimumDistance = 2
	c.AddCommand(subs...)
	return c
}

// onlyHolds runs a command that only holds others.
func onlyHolds(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		err = fmt.Errorf("%w; did you mean %q?", err, cmd.CommandPath()+" "+s[0])
	}
	return &usageError{err}
}

// client connects to the server that flags and environment name.
func (a *app) client() (*client.Client, error) {
	c, err := client.New(client.FromEnvironment(client.Config{Server: a.server}, a.getenv))
	if err != nil {
		return nil, &usageError{err}
	}
	return c, nil
}

// withOutput gives a listing command --output.
func (a *app) withOutput(c *cobra.Command) *cobra.Command {
	c.Flags().StringVarP(&a.output, "output", "o", "table", "format: "+strings.Join(outputs, ", "))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	before := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(outputs, a.output) {
			return usagef("--output %q is not a format: use %s", a.output, strings.Join(outputs, ", "))
		}
		return before(cmd, args)
	}
	return c
}

// durationVar is a flag for a length of time whose zero value goes without
// saying.
func durationVar(f *pflag.FlagSet, d *config.Duration, name, usage string) {
	f.Var(d, name, usage)
	f.Lookup(name).DefValue = "0"
}
