package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/config"
)

func (a *app) retentionCommand() *cobra.Command {
	return group("retention", "Preview and run the deletion of unused images", `Retention runs by itself in `+"`cairn serve`"+`. These commands preview it, and run it
now.`, a.retentionPlan(), a.retentionRun(), a.retentionTrustClock())
}

// parseAt reads a time, or a duration from now.
func parseAt(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04Z", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	if d, err := config.ParseDuration(s); err == nil {
		return now.Add(d.Std()), nil
	}
	return time.Time{}, usagef("--at %q is no time: write 2027-01-31, 2027-01-31T12:00:00Z, or 30d for thirty days from now", s)
}

func (a *app) retentionPlan() *cobra.Command {
	var at string
	var all bool
	c := &cobra.Command{
		Use:     "plan",
		Short:   "Show what retention would do, now or at a time to come",
		Long:    "Show what retention would do. With --at, as if nothing changed until then and\nwhat is in use now went on. Nothing is deleted.",
		Example: "  cairn retention plan\n  cairn retention plan --at 30d\n  cairn retention plan --all -o json",
		Args:    takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			now := time.Now()
			if at != "" { // durations count from the server's clock
				st, err := cl.Status(cmd.Context())
				if err != nil {
					return err
				}
				now = st.Now
			}
			when, err := parseAt(at, now)
			if err != nil {
				return err
			}
			plan := struct {
				Summary wire.Summary    `json:"summary"`
				Images  []wire.Decision `json:"images"`
			}{Images: []wire.Decision{}}
			plan.Summary, err = cl.Plan(cmd.Context(), when, all, func(d wire.Decision) error {
				plan.Images = append(plan.Images, d)
				return nil
			})
			if err != nil {
				return err
			}
			err = a.print(plan, func(row func(...string)) {
				if len(plan.Images) == 0 {
					return
				}
				row("ACTION", "IMAGE", "SIZE", "LAST USE", "GOES", "WHY")
				for _, d := range plan.Images {
					last := "-"
					if d.LastUse != nil {
						last = day(d.LastUse.At)
						if d.LastUse.Now {
							last = "now"
						}
					}
					goes := day(d.ExpiresAt)
					if d.Horizon != "at" {
						goes = d.Horizon
					}
					row(d.Action, imageName(d), bytesText(d.Size), last, goes, d.Reason)
				}
			})
			if err != nil || a.output != "table" {
				return err
			}
			s := plan.Summary
			fmt.Fprintf(a.stdout, "%s in %s at %s: %d stay, %d would expire (%s), %d come back, %d hidden, %d would be swept\n",
				count(s.Images, "image", "images"), count(s.Repositories, "repository", "repositories"), day(s.At), s.Keep, s.Expire, bytesText(s.ExpireBytes), s.Revive, s.Hidden, s.Sweep)
			if s.PlanningOnly {
				fmt.Fprintln(a.stderr, "Nothing of this is done by itself: no policy is configured and no reporter was ever enrolled.")
			}
			return nil
		},
	}
	c.Flags().StringVar(&at, "at", "", "a time, or a duration from now (30d)")
	c.Flags().BoolVar(&all, "all", false, "also what stays as it is")
	return a.withOutput(c)
}

// imageName is the shortest name of an image that a person can use.
func imageName(d wire.Decision) string {
	if len(d.Tags) > 0 {
		name := d.Repository + ":" + d.Tags[0]
		if n := len(d.Tags) - 1; n > 0 {
			name += fmt.Sprintf(" +%d", n)
		}
		return name
	}
	return d.Repository + "@" + short(d.Digest)
}

func (a *app) retentionRun() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "run",
		Short: "Run retention once, now",
		Long: `Expire what is unused and sweep what was hidden long enough, now. A run that
would expire every image, and any run while Cairn only plans, is refused
without --yes.`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			r, err := cl.Retention(cmd.Context(), yes)
			if err != nil {
				return err
			}
			err = a.print(r, func(row func(...string)) {
				row(fmt.Sprintf("%d expired (%s), %d came back, %d swept, %d stay", r.Expired, bytesText(r.Bytes), r.Revived, r.Swept, r.Plan.Keep))
			})
			for _, e := range r.Errors {
				fmt.Fprintf(a.stderr, "left as it is: %s\n", e)
			}
			if err == nil && r.Failed > 0 {
				err = fmt.Errorf("%d images could not be expired or swept; they stay as they are", r.Failed)
			}
			return err
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "even if every image would expire")
	return a.withOutput(c)
}

func (a *app) retentionTrustClock() *cobra.Command {
	return &cobra.Command{
		Use:   "trust-clock",
		Short: "Take the server's clock for right although it has seen later times",
		Long: `While the clock is behind a time that Cairn has already seen, nothing is deleted:
either it is wrong now, or it was wrong then. Set it right if it is wrong now.
If it ran ahead before and is right now, say so by this command.`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := cl.TrustClock(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, "the clock is trusted")
			return nil
		},
	}
}
