package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/image"
)

func (a *app) tagCommand() *cobra.Command {
	var rm bool
	c := &cobra.Command{
		Use:   "tag REF TAG | tag --rm REF",
		Short: "Give an image a tag, move a tag, or remove one",
		Long: `Give the image REF one more tag. A tag that names another image moves; that
image then has thirty days (or what its policy says) from this moment, so that
going back works. With --rm, remove the tag REF and leave the image.`,
		Example: "  cairn tag app/web@sha256:… stable\n  cairn tag app/web:1.4 stable\n  cairn tag --rm app/web:old",
		Args: func(cmd *cobra.Command, args []string) error {
			want := 2
			if rm {
				want = 1
			}
			return takes(want, want)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			ref, err := cl.Ref(args[0])
			if err != nil {
				return &usageError{err}
			}
			if rm {
				if ref.Digest != "" {
					return usagef("%s names an image, not a tag: write REPOSITORY:TAG, or use `cairn image rm` for the image", args[0])
				}
				if err := cl.DeleteTag(cmd.Context(), ref); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "removed the tag %s\n", ref)
				return nil
			}
			if err := image.CheckTag(args[1]); err != nil {
				return &usageError{err}
			}
			i, err := cl.SetTag(cmd.Context(), ref, args[1])
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s:%s is now %s\n", i.Repository, args[1], i.Digest)
			return nil
		},
	}
	c.Flags().BoolVar(&rm, "rm", false, "remove the tag")
	return c
}
