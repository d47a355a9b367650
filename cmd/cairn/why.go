package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/image"
)

func (a *app) whyCommand() *cobra.Command {
	c := a.onImage("why", "Who uses an image, and when it will go", `Say who uses an image, when it was last used, which policy holds for it, what
keeps it, and when it will go. An image that is gone is looked up in the audit
log.`,
		func(cmd *cobra.Command, cl *client.Client, ref image.Reference) error {
			x, err := cl.Why(cmd.Context(), ref)
			if err != nil {
				return err
			}
			if a.output == "table" {
				fmt.Fprint(a.stdout, x.Text())
			} else if err := a.print(x, nil); err != nil {
				return err
			}
			if x.State == "unknown" {
				return &wire.Problem{Status: http.StatusNotFound, Detail: fmt.Sprintf("explain %s: the image is not known", ref), Hint: "`cairn image ls` lists the images there are"}
			}
			return nil
		})
	c.Example = "  cairn why app/web:1.4\n  cairn why app/web@sha256:2f1d0c -o json"
	return a.withOutput(c)
}
