package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// reapPassword is the variable with the password of the registry to reap.
const reapPassword = "CAIRN_REAP_PASSWORD"

func (a *app) reapCommand() *cobra.Command {
	var at reapFlags
	q := wire.ReapRequest{}
	var file string
	c := &cobra.Command{
		Use:   "reap",
		Short: "Apply retention to a registry that is not Cairn's",
		Long: `Show what retention would delete at another registry, and with --yes delete it.
What decides is this server's ledger of who uses which image, and its policies,
of which the first decides that matches host/repository. The server talks to the
registry. An image's time there starts when Cairn first saw it, and only a look
sees it: let one of these commands run regularly, every hour for instance.

What is deleted is written to a file first to last, from which
` + "`cairn reap undo`" + ` pushes it again until the registry collects its blobs.

Images that no tag leads to cannot be seen, and stay.`,
		Example: `  cairn reap --registry https://registry.example.org
  cairn reap --registry https://registry.example.org --repository 'app/**' --yes`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if q.ReapAccount, err = a.reapAccount(at); err != nil {
				return err
			}
			return a.reap(cmd.Context(), q, file)
		},
	}
	at.add(c.Flags())
	c.Flags().StringSliceVar(&q.Repositories, "repository", nil, "only this repository, or those that match this glob; may be repeated")
	c.Flags().BoolVar(&q.Yes, "yes", false, "delete; without it, nothing is")
	c.Flags().BoolVar(&q.All, "all", false, "also show what stays")
	c.Flags().IntVar(&q.PerHour, "per-hour", 0, "delete at most so many images in any hour (default 100)")
	c.Flags().StringVar(&file, "undo-file", "", "file for what is deleted (default cairn-reap-HOST-TIME.jsonl)")
	c.AddCommand(a.reapUndoCommand(), a.reapDeletedCommand())
	c.SuggestionsMinimumDistance = 2
	return a.withOutput(c)
}

// reap runs and prints.
func (a *app) reap(ctx context.Context, q wire.ReapRequest, file string) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	out := struct {
		Summary wire.ReapSummary    `json:"summary"`
		Images  []wire.ReapDecision `json:"images"`
		Skipped []wire.ReapSkipped  `json:"skipped"`
		Deleted []reaped            `json:"deleted"`
	}{Images: []wire.ReapDecision{}, Skipped: []wire.ReapSkipped{}, Deleted: []reaped{}}
	undo := &undoFile{name: file}
	if q.Yes {
		if err := undo.open(q.Registry); err != nil {
			return err
		}
		defer undo.close()
	}
	out.Summary, err = cl.Reap(ctx, q, client.ReapEvents{
		Decided: func(d wire.ReapDecision) error { out.Images = append(out.Images, d); return nil },
		Skipped: func(s wire.ReapSkipped) error { out.Skipped = append(out.Skipped, s); return nil },
		Deleted: func(r wire.ReapRecord) error {
			out.Deleted = append(out.Deleted, reaped{r.Registry, r.Repository, r.Digest, r.Tags, r.At, r.Reason})
			return undo.add(r)
		},
	})
	// What was done is told even if it broke off.
	perr := a.print(out, func(row func(...string)) {
		if len(out.Images) == 0 {
			return
		}
		row("ACTION", "IMAGE", "SIZE", "FIRST SEEN", "LAST USE", "GOES", "WHY")
		for _, d := range out.Images {
			last := "-"
			if d.LastUse != nil && d.LastUse.Now {
				last = "now"
			} else if d.LastUse != nil && d.LastUse.Source != usage.Push {
				last = day(d.LastUse.At)
			}
			goes := day(d.ExpiresAt)
			if d.Horizon != "at" {
				goes = d.Horizon
			}
			row(d.Action, imageName(d.Decision), bytesText(d.Size), day(d.FirstSeen), last, goes, d.Reason)
		}
	})
	for _, s := range out.Skipped {
		name := s.Repository
		if s.Digest != "" {
			name += "@" + short(s.Digest)
		}
		fmt.Fprintf(a.stderr, "left as it is: %s: %s\n", name, s.Why)
	}
	if undo.n > 0 {
		fmt.Fprintf(a.stderr, "%s deleted; to push them again: cairn reap undo --registry %s %s\n", count(undo.n, "image", "images"), q.Registry, undo.name)
	}
	if err == nil {
		err = perr
	}
	if err != nil {
		return err
	}
	s := out.Summary
	if a.output == "table" {
		did := fmt.Sprintf("%d would be deleted (%s)", s.Expire, bytesText(s.ExpireBytes))
		if !s.DryRun {
			did = fmt.Sprintf("%d of %d deleted", s.Deleted, s.Expire)
		}
		fmt.Fprintf(a.stdout, "%s in %s at %s: %d stay, %s\n", count(s.Images, "image", "images"), count(s.Repositories, "repository", "repositories"), s.Registry, s.Keep, did)
	}
	if s.Held != "" {
		fmt.Fprintf(a.stderr, "nothing goes now: %s\n", s.Held)
	}
	if s.Waiting > 0 {
		again := ""
		if !s.Again.IsZero() {
			again = "; run it again from " + day(s.Again) + " on"
		}
		fmt.Fprintf(a.stderr, "%s had to wait: at most %d go in an hour%s\n", count(s.Waiting, "image", "images"), s.PerHour, again)
	}
	if s.Failed > 0 {
		return fmt.Errorf("%s could not be deleted, or may not have been", count(s.Failed, "image", "images"))
	}
	if s.Held != "" && !s.DryRun {
		return &heldError{"nothing could be deleted: " + s.Held, "`cairn status` shows what holds it up"}
	}
	return nil
}

// reaped is what is printed of a deleted image; all of it is in the file.
type reaped struct {
	Registry   string       `json:"registry"`
	Repository string       `json:"repository"`
	Digest     image.Digest `json:"digest"`
	Tags       []string     `json:"tags"`
	At         time.Time    `json:"at"`
	Reason     string       `json:"reason"`
}

// undoFile takes what was deleted, one JSON object per line.
type undoFile struct {
	name string
	f    *os.File
	n    int
}

// open makes the file before anything is deleted. One that is there is not
// written over.
func (u *undoFile) open(registry string) (err error) {
	if u.name == "" {
		host := registry
		if _, after, ok := strings.Cut(registry, "://"); ok {
			host = after
		}
		host = strings.NewReplacer("/", "_", ":", "_").Replace(strings.Trim(host, "/"))
		u.name = fmt.Sprintf("cairn-reap-%.100s-%s.jsonl", host, time.Now().UTC().Format("20060102T150405.000Z"))
	}
	if u.f, err = os.OpenFile(u.name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return fmt.Errorf("make the file for what is deleted: %w; name another with --undo-file", err)
	}
	return nil
}

func (u *undoFile) add(r wire.ReapRecord) error {
	b, err := json.Marshal(r)
	if err == nil {
		_, err = u.f.Write(append(b, '\n'))
	}
	if err == nil {
		err = u.f.Sync()
	}
	u.n++
	return err
}

// close removes a file in which nothing is.
func (u *undoFile) close() {
	_ = u.f.Close()
	if u.n == 0 {
		_ = os.Remove(u.name)
	}
}

func (a *app) reapUndoCommand() *cobra.Command {
	var at reapFlags
	c := &cobra.Command{
		Use:   "undo FILE",
		Short: "Push again what `cairn reap` deleted",
		Long: `Push the manifests and tags in a file that ` + "`cairn reap --yes`" + ` wrote, the last
first. That works as long as the registry has their blobs, which it keeps until
it collects its garbage. A tag that names another image by now stays there.`,
		Example: "  cairn reap undo --registry https://registry.example.org cairn-reap-registry.example.org-20270131T120000.000Z.jsonl",
		Args:    takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			records, err := readRecords(args[0])
			if err != nil {
				return err
			}
			if at.registry == "" && len(records) > 0 {
				at.registry = records[0].Registry
			}
			acc, err := a.reapAccount(at)
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			done := []wire.ReapUndone{}
			var failed []error
			for _, r := range slices.Backward(records) {
				if r.Registry != strings.TrimRight(acc.Registry, "/") {
					return usagef("%s@%s is of %s: give --registry as it was given then, or split the file", r.Repository, short(r.Digest), r.Registry)
				}
				u, err := cl.ReapUndo(cmd.Context(), wire.ReapUndo{ReapAccount: acc, Record: r})
				switch {
				case err == nil:
					done = append(done, u)
				case errors.As(err, new(*client.Unreachable)), cmd.Context().Err() != nil:
					return err
				default: // the others may still come
					failed = append(failed, err)
					fmt.Fprintf(a.stderr, "%v\n", err)
				}
			}
			err = a.print(done, func(row func(...string)) {
				row("IMAGE", "TAGS", "LEFT")
				for _, u := range done {
					row(u.Repository+"@"+short(u.Digest), dash(strings.Join(u.Tags, ",")), dash(strings.Join(u.Left, ",")))
				}
			})
			if len(failed) > 0 {
				return fmt.Errorf("%d of %d images could not be pushed again; the last: %w", len(failed), len(records), failed[len(failed)-1])
			}
			return err
		},
	}
	at.add(c.Flags())
	return a.withOutput(c)
}

func (a *app) reapDeletedCommand() *cobra.Command {
	var registry, file string
	c := &cobra.Command{
		Use:     "deleted",
		Short:   "List what was deleted from other registries",
		Long:    "List what was deleted from other registries in the last 90 days, newest first.\nWith --undo-file, write it for `cairn reap undo`: the server has it, too.",
		Example: "  cairn reap deleted\n  cairn reap deleted --registry https://registry.example.org --undo-file all.jsonl",
		Args:    takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var records []wire.ReapRecord
			if err := cl.ReapDeleted(cmd.Context(), registry, func(r wire.ReapRecord) error { records = append(records, r); return nil }); err != nil {
				return err
			}
			if file != "" {
				u := &undoFile{name: file}
				if err := u.open(registry); err != nil {
					return err
				}
				defer u.close()
				for _, r := range slices.Backward(records) {
					if err := u.add(r); err != nil {
						return err
					}
				}
			}
			list := []reaped{}
			for _, r := range records {
				list = append(list, reaped{r.Registry, r.Repository, r.Digest, r.Tags, r.At, r.Reason})
			}
			return a.print(list, func(row func(...string)) {
				row("DELETED", "REGISTRY", "IMAGE", "TAGS", "WHY")
				for _, r := range list {
					row(day(r.At), r.Registry, r.Repository+"@"+short(r.Digest), dash(strings.Join(r.Tags, ",")), r.Reason)
				}
			})
		},
	}
	c.Flags().StringVar(&registry, "registry", "", "only from this one")
	c.Flags().StringVar(&file, "undo-file", "", "also write it to this file")
	return a.withOutput(c)
}

// readRecords reads a file of deleted images.
func readRecords(name string) ([]wire.ReapRecord, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []wire.ReapRecord
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 16<<20)
	for n := 1; sc.Scan(); n++ {
		var r wire.ReapRecord
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s:%d: it is no line that `cairn reap` wrote: %w", name, n, err)
		}
		out = append(out, r)
	}
	return out, sc.Err()
}

// reapFlags say which registry, and how to sign on.
type reapFlags struct {
	registry, username, passwordFile string
}

func (r *reapFlags) add(f *pflag.FlagSet) {
	f.StringVar(&r.registry, "registry", "", "URL of the registry, such as https://registry.example.org")
	f.StringVar(&r.username, "username", "", "account to sign on with")
	f.StringVar(&r.passwordFile, "password-file", "", "file with its password (default $"+reapPassword+")")
}

func (a *app) reapAccount(r reapFlags) (wire.ReapAccount, error) {
	out := wire.ReapAccount{Registry: r.registry, Username: r.username}
	if r.registry == "" {
		return out, usagef("name the registry: --registry https://registry.example.org")
	}
	if r.passwordFile != "" {
		b, err := os.ReadFile(r.passwordFile)
		if err != nil {
			return out, fmt.Errorf("read the password: %w", err)
		}
		out.Password = strings.TrimRight(string(b), "\r\n")
	} else if r.username != "" {
		if out.Password = a.getenv(reapPassword); out.Password == "" {
			return out, usagef("--username needs its password in %s or --password-file", reapPassword)
		}
	}
	return out, nil
}
