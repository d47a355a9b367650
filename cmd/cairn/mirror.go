package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
)

func (a *app) mirrorCommand() *cobra.Command {
	return group("mirror", "Copies of images of other registries",
		`Copies of images of other registries. Which registries is set under the key
mirrors of the server's configuration; copies come by themselves when somebody
pulls them.`, a.mirrorPullCommand())
}

func (a *app) mirrorPullCommand() *cobra.Command {
	var file string
	var platforms []string
	c := &cobra.Command{
		Use:   "pull REF...",
		Short: "Fetch images before anybody needs them",
		Long: `Fetch images of mirrored registries in whole, before anybody needs them: for a
cluster that will lose its network, or before a large roll-out. References name
the registry first. Set offline: true for the mirror afterwards, and it is never
asked again.`,
		Example: "  cairn mirror pull docker.io/library/busybox:1.37\n  cairn mirror pull --platform linux/amd64 --file images.txt",
		RunE: func(cmd *cobra.Command, refs []string) error {
			if file != "" {
				more, err := a.references(file)
				if err != nil {
					return err
				}
				refs = append(refs, more...)
			}
			if len(refs) == 0 {
				return usagef("name an image, such as docker.io/library/busybox:1.37, or a --file of them")
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			var all []wire.MirrorPulled
			var failed error
			bad := 0
			for _, ref := range refs {
				p := a.progress(ref + ":")
				got, err := cl.MirrorPull(cmd.Context(), wire.MirrorPull{Ref: ref, Platforms: platforms}, p.show)
				p.end()
				if cmd.Context().Err() != nil {
					return cmd.Context().Err()
				}
				if err != nil {
					bad++
					failed = err
					if len(refs) > 1 { // the others still come
						fmt.Fprintf(a.stderr, "%v\n", err)
					}
					continue
				}
				all = append(all, got)
			}
			if err := a.print(all, func(row func(...string)) { pulledTable(all, row) }); err != nil {
				return err
			}
			if bad > 0 && len(refs) > 1 {
				return fmt.Errorf("%d of %d images did not come; the last: %w", bad, len(refs), failed)
			}
			return failed
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "file with a reference per line; - is standard input")
	c.Flags().StringSliceVar(&platforms, "platform", nil, "of images for several platforms, only these, such as linux/amd64 (default all)")
	return a.withOutput(c)
}

// references reads one per line; empty lines and what follows a # is left out.
func (a *app) references(file string) ([]string, error) {
	r := io.Reader(a.stdin)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	var out []string
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		line, _, _ := strings.Cut(sc.Text(), "#")
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out, sc.Err()
}

func pulledTable(all []wire.MirrorPulled, row func(...string)) {
	if len(all) == 0 {
		return
	}
	row("IMAGE", "DIGEST", "IMAGES", "SIZE", "WARNING")
	for _, p := range all {
		ref := p.Repository
		if p.Tag != "" {
			ref += ":" + p.Tag
		}
		row(ref, short(p.Digest), fmt.Sprint(p.Images), bytesText(p.Bytes), p.Warning)
	}
}
