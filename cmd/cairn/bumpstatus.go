package main

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
)

func (a *app) bumpStatusCommand() *cobra.Command {
	return a.bumpLister(&cobra.Command{
		Use:   "status [REPOSITORY]",
		Short: "Why there is a pull request, or none, for each image of the code",
		Long: `Say, for every image that the code of a repository names, which pull request
moves it to a newer one, or why there is none. REPOSITORY is forge/owner/name, or
owner/name where only one forge has it; without one, all that the server watches.`,
		Example: "  cairn bump status\n  cairn bump status acme/infra -o json",
		Args:    takes(0, 1),
	}, (*client.Client).BumpStatus)
}

func (a *app) bumpCheckCommand() *cobra.Command {
	return a.bumpLister(&cobra.Command{
		Use:   "check REPOSITORY",
		Short: "Look at a repository of code now",
		Long: `Make the server look at a repository of code now, and open, update or close the
pull requests that it is time for. It answers when that is done, as cairn bump
status does.`,
		Example: "  cairn bump check acme/infra",
		Args:    takes(1, 1),
	}, (*client.Client).BumpCheck)
}

// bumpLister is a command that asks for statuses.
func (a *app) bumpLister(c *cobra.Command, ask func(*client.Client, context.Context, string, func(wire.BumpRepository) error) error) *cobra.Command {
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, err := a.client()
		if err != nil {
			return err
		}
		list := []wire.BumpRepository{}
		if err := ask(cl, cmd.Context(), strings.Join(args, ""), func(r wire.BumpRepository) error {
			list = append(list, r)
			return nil
		}); err != nil {
			return err
		}
		return a.print(list, func(row func(...string)) { bumpTable(list, row) })
	}
	return a.withOutput(c)
}

func bumpTable(list []wire.BumpRepository, row func(...string)) {
	row("REPOSITORY", "PLACE", "IMAGE", "STATE", "WHY")
	for _, r := range list {
		switch {
		case r.Error != "":
			why := r.Error
			if r.Cure != "" {
				why += "; " + r.Cure
			}
			row(r.Key(), "-", "-", "failing", oneLine(why))
		case r.Checked.IsZero():
			row(r.Key(), "-", "-", "waiting", "it was not read yet")
		case r.Note != "":
			row(r.Key(), "-", "-", "quiet", r.Note)
		case len(r.Images) == 0:
			row(r.Key(), "-", "-", "empty", fmt.Sprintf("no image was found in it at %.12s", dash(r.Head)))
		}
		for _, i := range r.Images {
			why := i.Reason
			if i.To != "" && i.Pull == "" {
				why = "to " + i.To + ": " + why
			}
			row(r.Key(), i.Place, dash(i.Value), i.State, oneLine(why))
		}
		for _, p := range r.Problems {
			row(r.Key(), p.Place.String(), "-", "unread", oneLine(p.Text))
		}
	}
}

// oneLine keeps what came from elsewhere within its row, and from telling the
// terminal anything.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) }), " ")
}
