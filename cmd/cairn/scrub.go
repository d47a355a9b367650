package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/serve"
)

func (a *app) scrubCommand() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use:   "scrub",
		Short: "Read everything that is stored and compare it with its digest",
		Long: `Read every blob and manifest and compare it with its digest. What is corrupt is
never served again, and listed. The running server does it; with --data, this
process does, on a data folder that no server uses.`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := a.progress("read")
			var rep wire.ScrubReport
			var err error
			if data != "" {
				rep, err = serve.Scrub(cmd.Context(), data, a.logger(config.Default().Log), func(done, total int64) { p.show(wire.Progress{Done: done, Total: total}) })
			} else {
				cl, cerr := a.client()
				if cerr != nil {
					return cerr
				}
				rep, err = cl.Scrub(cmd.Context(), p.show)
			}
			p.end()
			if err != nil {
				return err
			}
			if err := a.print(rep, func(row func(...string)) { scrubTable(rep, row) }); err != nil {
				return err
			}
			return scrubError(rep)
		},
	}
	c.Flags().StringVar(&data, "data", "", "work on this data folder, while no server uses it")
	return a.withOutput(c)
}

// progress of long work, on stderr: a line every other second, so that it
// reads well in a log, too.
type progress struct {
	a    *app
	verb string
	next time.Time
	told bool
}

func (a *app) progress(verb string) *progress {
	return &progress{a: a, verb: verb, next: time.Now().Add(time.Second)}
}

func (p *progress) show(w wire.Progress) {
	if now := time.Now(); now.After(p.next) {
		p.next, p.told = now.Add(2*time.Second), true
		fmt.Fprintf(p.a.stderr, "%s %s of %s\n", p.verb, bytesText(w.Done), bytesText(w.Total))
	}
}

func (p *progress) end() {
	if p.told {
		fmt.Fprintln(p.a.stderr, "done")
	}
}

func scrubTable(r wire.ScrubReport, row func(...string)) {
	row("read", fmt.Sprintf("%s (%s) and %s", count(r.Blobs, "blob", "blobs"), bytesText(r.Bytes), count(r.Manifests, "manifest", "manifests")))
	for _, d := range r.Corrupt {
		row("corrupt", "blob "+string(d))
	}
	for _, d := range r.Missing {
		row("missing", "blob "+string(d))
	}
	for _, m := range r.CorruptManifests {
		row("corrupt", "manifest "+m.Repository+"@"+string(m.Digest))
	}
	if n := len(r.Orphans); n > 0 {
		row("orphans", fmt.Sprintf("%d files nothing refers to; they are removed by themselves", n))
	}
}

// scrubError is how a scrub ends that found damage.
func scrubError(r wire.ScrubReport) error {
	n := len(r.Corrupt) + len(r.Missing) + len(r.CorruptManifests)
	if n == 0 {
		return nil
	}
	return &hinted{fmt.Errorf("%d stored items are damaged; they are not served", n), "push the images that need them again, and check the disk"}
}
