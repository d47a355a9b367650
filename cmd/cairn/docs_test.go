package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

const reference = "../../docs/cli.md"

// docs/cli.md is what the commands say about themselves.
func TestReferenceIsCurrent(t *testing.T) {
	a := &app{getenv: func(string) string { return "" }}
	var b strings.Builder
	b.WriteString(`# Commands

    cairn help

This page is written by ` + "`go test ./cmd/cairn -update`" + ` from what the commands say about themselves.

Commands talk to a running server: the one that ` + "`--server`" + ` names, else ` + "`CAIRN_SERVER`" + `, else http://127.0.0.1:5080. Their secret is in
` + "`CAIRN_TOKEN`" + `, else in the file ` + "`cairn/token`" + ` of your configuration folder (` + "`~/.config`" + ` on Linux). Durations read ` + "`30d`, `12h`, `6s`" + `. Images
are named ` + "`repository[:tag][@digest]`" + `, with or without the server's host in front; a digest may be shortened to the twelve digits that lists show.

Every listing takes ` + "`--output table|json|yaml`" + `. Scripts can rely on the names in JSON and YAML, which are the same and are described by
` + "`/api/openapi.json`" + `; tables are for people. Errors and progress go to standard error; nothing is coloured.

## Exit codes

` + "```\n" + exitCodes + "```\n")
	describe(&b, a.root())
	if *update {
		if err := os.WriteFile(reference, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("docs/cli.md is not what the commands say; write it anew by: go test ./cmd/cairn -update")
	}
}

func describe(b *strings.Builder, c *cobra.Command) {
	for _, c := range c.Commands() {
		if !c.IsAvailableCommand() || c.Name() == "help" {
			continue
		}
		c.InitDefaultHelpFlag()
		text := c.Long
		if text == "" {
			text = c.Short + "."
		}
		if c.Name() == "completion" && c.Parent() == c.Root() { // cobra's own, at length
			fmt.Fprintf(b, "\n## cairn completion\n\nCompletion for bash, zsh, fish or powershell; `cairn completion bash --help` says how to load it.\n")
			continue
		}
		level := "##"
		if c.Parent() != c.Root() {
			level = "###"
		}
		fmt.Fprintf(b, "\n%s %s\n\n%s\n", level, c.CommandPath(), text)
		parent := c.HasAvailableSubCommands()
		if parent && !c.HasExample() { // it does nothing by itself
			describe(b, c)
			continue
		}
		fmt.Fprintf(b, "\n```\n%s\n", c.UseLine())
		if f := c.NonInheritedFlags().FlagUsages(); f != "" {
			fmt.Fprintf(b, "\n%s", f)
		}
		b.WriteString("```\n")
		if c.Example != "" {
			fmt.Fprintf(b, "\n```sh\n%s\n```\n", strings.ReplaceAll(c.Example, "\n  ", "\n")[2:])
		}
		if parent {
			describe(b, c)
		}
	}
}
