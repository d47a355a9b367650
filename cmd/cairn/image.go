package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

func (a *app) imageCommand() *cobra.Command {
	return group("image", "List, inspect, pin, remove and restore images", `Images are named REPOSITORY, REPOSITORY:TAG or REPOSITORY@DIGEST; without tag
and digest, the tag is "latest".`,
		a.imageLs(), a.imageInspect(), a.imagePin(), a.imageUnpin(), a.imageRm(), a.imageRestore())
}

func (a *app) imageLs() *cobra.Command {
	var state string
	var parts bool
	c := &cobra.Command{
		Use:   "ls [REPOSITORY]",
		Short: "List images",
		Long: `List images by repository, newest first. REPOSITORY is a name or a glob such as
'app/**'. Images that belong to another one (the platforms of an index,
signatures and other referrers) are listed with --parts.`,
		Example: "  cairn image ls\n  cairn image ls 'app/**' --state expired\n  cairn image ls -o json",
		Args:    takes(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := client.ImageQuery{State: state, Parts: parts}
			if len(args) > 0 {
				q.Repository = args[0]
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			all := wire.ImageList{Images: []wire.Image{}}
			for {
				page, err := cl.Images(cmd.Context(), q)
				if err != nil {
					return err
				}
				all.Images = append(all.Images, page.Images...)
				if q.After = page.Next; q.After == "" {
					break
				}
			}
			return a.print(all, func(row func(...string)) {
				row("REPOSITORY", "TAGS", "DIGEST", "SIZE", "PUSHED", "STATE")
				for _, i := range all.Images {
					row(i.Repository, dash(tagNames(i.Tags)), short(i.Digest), bytesText(i.Size), day(i.Pushed), stateOf(i))
				}
			})
		},
	}
	c.Flags().StringVar(&state, "state", "live", "live, expired, deleted or all")
	_ = c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]cobra.Completion{"live", "expired", "deleted", "all"}, cobra.ShellCompDirectiveNoFileComp))
	c.Flags().BoolVar(&parts, "parts", false, "also images that belong to another one")
	return a.withOutput(c)
}

func tagNames(tags []content.Tag) string {
	names := make([]string, len(tags))
	for i, t := range tags {
		names[i] = t.Name
	}
	return strings.Join(names, ",")
}

func stateOf(i wire.Image) string {
	if i.HiddenAt.IsZero() {
		return i.State
	}
	return i.State + " since " + day(i.HiddenAt)
}

// onImage is the shape of every command that does something to one image.
func (a *app) onImage(use, short, long string, f func(cmd *cobra.Command, cl *client.Client, ref image.Reference) error) *cobra.Command {
	return &cobra.Command{
		Use:   use + " REF",
		Short: short,
		Long:  long,
		Args:  takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			ref, err := cl.Ref(args[0])
			if err != nil {
				return &usageError{err}
			}
			return f(cmd, cl, ref)
		},
	}
}

func (a *app) imageInspect() *cobra.Command {
	c := a.onImage("inspect", "Show one image with its edges, tags and pins", "Show one image, in any state. `cairn why` says who uses it.",
		func(cmd *cobra.Command, cl *client.Client, ref image.Reference) error {
			i, err := cl.Image(cmd.Context(), ref)
			if err != nil {
				return err
			}
			return a.print(i, func(row func(...string)) {
				row("Image:", i.Repository+"@"+string(i.Digest))
				row("Tags:", dash(tagNames(i.Tags)))
				row("State:", stateOf(i))
				if i.Reason != "" {
					row("Reason:", i.Reason)
				}
				row("Media type:", i.MediaType)
				if i.ArtifactType != "" {
					row("Artifact type:", i.ArtifactType)
				}
				row("Size:", bytesText(i.Size))
				row("Pushed:", day(i.Pushed))
				if i.Config != "" {
					row("Config:", string(i.Config))
				}
				if i.Subject != "" {
					row("Refers to:", string(i.Subject))
				}
				for _, d := range i.Children {
					row("Child:", string(d))
				}
				for _, p := range i.Pins {
					row("Pin:", pinText(p))
				}
			})
		})
	return a.withOutput(c)
}

func pinText(p content.Pin) string {
	s := "since " + day(p.Created)
	if p.By != "" {
		s += " by " + p.By
	}
	if p.Expires.IsZero() {
		s += ", for ever"
	} else {
		s += ", until " + day(p.Expires)
	}
	if p.Reason != "" {
		s += ": " + p.Reason
	}
	return s
}

func (a *app) imagePin() *cobra.Command {
	var reason string
	var forHow config.Duration
	c := a.onImage("pin", "Keep an image whoever uses it or not", "Keep an image until it is unpinned, or for some time. An expired image comes back.",
		func(cmd *cobra.Command, cl *client.Client, ref image.Reference) error {
			i, err := cl.Pin(cmd.Context(), ref, reason, forHow)
			if err != nil {
				return err
			}
			until := "for ever"
			for _, p := range i.Pins {
				if !p.Expires.IsZero() {
					until = "until " + day(p.Expires)
				}
			}
			fmt.Fprintf(a.stdout, "pinned %s@%s %s\n", i.Repository, i.Digest, until)
			return nil
		})
	c.Flags().StringVar(&reason, "reason", "", "why, for those who ask `cairn why`")
	durationVar(c.Flags(), &forHow, "for", "how long, such as 90d (default: for ever)")
	return c
}

func (a *app) imageUnpin() *cobra.Command {
	return a.onImage("unpin", "End a pin", "End a pin. The image then goes by its last use again.",
		func(cmd *cobra.Command, cl *client.Client, ref image.Reference) error {
			if err := cl.Unpin(cmd.Context(), ref); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "unpinned %s\n", ref)
			return nil
		})
}

func (a *app) imageRm() *cobra.Command {
	var reason string
	c := a.onImage("rm", "Remove an image", `Remove an image with all its tags. It is gone for clients at once; until it is
swept (7 days unless configured), `+"`cairn image restore`"+` brings it back. To remove
one tag only, use `+"`cairn tag --rm`"+`.`,
		func(cmd *cobra.Command, cl *client.Client, ref image.Reference) error {
			i, err := cl.DeleteImage(cmd.Context(), ref, reason)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "removed %s@%s", i.Repository, i.Digest)
			if len(i.Tags) > 0 {
				fmt.Fprintf(a.stdout, " (tags %s)", tagNames(i.Tags))
			}
			fmt.Fprintf(a.stdout, "\nundo: cairn image restore %s@%s\n", i.Repository, i.Digest)
			return nil
		})
	c.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	return c
}

func (a *app) imageRestore() *cobra.Command {
	return a.onImage("restore", "Bring an expired or removed image back", "Bring an image back, with what belongs to it and those of its tags that were\nnot pushed since.",
		func(cmd *cobra.Command, cl *client.Client, ref image.Reference) error {
			r, err := cl.Restore(cmd.Context(), ref)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "restored %s@%s", r.Image.Repository, r.Image.Digest)
			if len(r.Tags) > 0 {
				fmt.Fprintf(a.stdout, " as %s", strings.Join(r.Tags, ", "))
			}
			fmt.Fprintln(a.stdout)
			if len(r.Taken) > 0 {
				fmt.Fprintf(a.stderr, "left alone, because they were pushed since: %s\n", strings.Join(r.Taken, ", "))
			}
			return nil
		})
}
