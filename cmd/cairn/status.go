package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
)

func (a *app) statusCommand() *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use:   "status",
		Short: "How the server is doing, and what stops deletion",
		Args:  takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			s, err := cl.Status(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(s, func(row func(...string)) { statusTable(s, cl.Server(), row) })
		},
	})
}

func statusTable(s wire.Status, server string, row func(...string)) {
	mode := ""
	if s.Open {
		mode = ", open: no sign-on"
	}
	row("server", fmt.Sprintf("%s, cairn %s, %s%s", server, s.Version.Version, day(s.Now), mode))
	n := s.Content
	images := fmt.Sprintf("%d in %s", n.Live, count(n.Repositories, "repository", "repositories"))
	if n.Expired+n.Deleted > 0 {
		images += fmt.Sprintf("; hidden and restorable: %d expired, %d removed", n.Expired, n.Deleted)
	}
	row("images", images)
	row("stored", fmt.Sprintf("%s in %s", bytesText(n.BlobBytes), count(n.Blobs, "blob", "blobs")))
	if n.Corrupt > 0 {
		row("", fmt.Sprintf("%d blobs are CORRUPT and not served: push the images that need them again, and check the disk (`cairn scrub`)", n.Corrupt))
	}
	r := s.Retention
	state := "working"
	switch {
	case r.PlanningOnly:
		state = "ONLY PLANS: no policy is configured and no reporter was ever enrolled"
	case r.Held != nil:
		state = fmt.Sprintf("HELD: the policies would expire everything, %s", count(r.Held.Live, "image", "images"))
	case r.Clock != "":
		state = "STOPPED: the clock is in doubt: " + r.Clock
	case len(r.Uncovered) > 0:
		state = "STOPPED where somebody is silent"
	case r.LastError != "":
		state = "FAILING: " + r.LastError
	}
	row("retention", state)
	for _, u := range r.Uncovered {
		row("", fmt.Sprintf("nothing in %s is deleted: %s", strings.Join(u.Scope, ", "), u.Why))
	}
	if r.Cure != "" {
		row("", "cure: "+r.Cure)
	}
	if r.Clock != "" {
		row("", "or, if it is right now and ran ahead before: cairn retention trust-clock")
	}
	for _, e := range r.Errors {
		row("", e)
	}
	if l := r.LastRun; l != nil {
		did := fmt.Sprintf("%d expired, %d came back, %d swept", l.Expired, l.Revived, l.Swept)
		if !l.Applied {
			did = fmt.Sprintf("%d would have expired", l.Plan.Expire)
		}
		row("last run", fmt.Sprintf("%s: %s; next %s", day(l.Started), did, day(r.NextRun)))
	}
	reporters := fmt.Sprintf("%d", s.Reporters)
	if n := len(s.Silent); n > 0 {
		reporters += fmt.Sprintf(", %d of them silent", n)
	}
	row("reporters", reporters)
}
