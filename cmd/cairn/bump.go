package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/bump"
	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/catalog/keychain"
	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/scan"
	"cairn.dev/cairn/internal/serve"
)

func (a *app) bumpCommand() *cobra.Command {
	var s source
	var dryRun, write, major bool
	var only []string
	c := &cobra.Command{
		Use:   "bump --dry-run|--write [DIR]",
		Short: "Move the images that code names to newer ones",
		Long: `Move the images that a folder of code names to newer ones, by the rules in its
.cairn.yaml. --dry-run prints the change as a diff, --write makes it. On standard
error stands, for every image that stays, why.

The registries are asked directly, with the logins of docker and podman; no
server is needed. What only a server knows does not count here: how long an image
has been there (cooldown), limits, schedules, and what people declined.

An edit is made only if the code, read again with it, names exactly the wanted
image, and if nothing else moves but other uses of the same image.`,
		Example: "  cairn bump --dry-run\n  cairn bump --dry-run infra | git apply\n  cairn bump --write infra --only 'docker.io/library/*'",
		Args:    takes(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dryRun == write {
				return usagef("say what is to be done: --dry-run prints the change, --write makes it")
			}
			for _, g := range only {
				if err := image.CheckGlob(g); err != nil {
					return usagef("--only: %w", err)
				}
			}
			f, err := s.read(cmd.Context(), args)
			if err != nil {
				return err
			}
			p, err := a.preview(cmd.Context(), f, only, major)
			if err != nil {
				return err
			}
			return a.bumped(f, p, write)
		},
	}
	s.flags(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print the change as a diff")
	c.Flags().BoolVar(&write, "write", false, "make the change, and print it")
	c.Flags().BoolVar(&major, "major", false, "also new major versions, whatever the rules say of them")
	c.Flags().StringArrayVar(&only, "only", nil, "only images of repositories that this glob matches, such as 'docker.io/library/*'; may be repeated")
	c = a.withOutput(c)
	c.AddCommand(a.bumpStatusCommand(), a.bumpCheckCommand())
	return c
}

// notAsked is why images stay that --only leaves out.
const notAsked = "it is not among --only"

// preview asks the registries and works the change out.
func (a *app) preview(ctx context.Context, f *folder, only []string, major bool) (*bump.Preview, error) {
	keys, err := keychain.New(keychain.Config{Clock: clock.Real(), Getenv: a.getenv})
	if err != nil {
		return nil, err
	}
	remote, err := catalog.NewRemote(catalog.RemoteConfig{Clock: clock.Real(), Log: slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Agent: "cairn/" + serve.Version(version).Version, Keychain: keys, Getenv: a.getenv, Local: true})
	if err != nil {
		return nil, err
	}
	defer remote.Close()
	rules := *f.rules
	rules.For = func(i code.Image) bump.Rule {
		r := f.rules.For(i)
		r.Policy.Cooldown = 0 // nobody here knows since when
		if major {
			r.Policy.Major = "together"
		}
		if ref, err := code.ParseReference(i.Value); err == nil && len(only) > 0 && !image.MatchAny(only, ref.Repository()) {
			r.Ignore = notAsked
		}
		return r
	}
	asked := &asking{Catalog: remote, out: a.stderr, of: repositories(f.result.Images), next: time.Now().Add(time.Second)}
	return bump.NewPreview(ctx, bump.Deps{Scanner: f.scanner, Choose: choose.Choose, Catalog: asked}, f.tree, f.result, &rules, time.Now())
}

// repositories counts those that images are of.
func repositories(images []code.Image) int {
	seen := map[string]bool{}
	for _, i := range images {
		if r, err := code.ParseReference(i.Value); err == nil && i.Fixed == "" {
			seen[r.Repository()] = true
		}
	}
	return len(seen)
}

// asking tells people who wait how far the registries were asked.
type asking struct {
	catalog.Catalog
	out io.Writer
	of  int

	mu   sync.Mutex
	done int
	next time.Time
}

func (k *asking) Tags(ctx context.Context, repository string) ([]catalog.Tag, error) {
	tags, err := k.Catalog.Tags(ctx, repository)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.done++
	if now := time.Now(); now.After(k.next) {
		k.next = now.Add(2 * time.Second)
		fmt.Fprintf(k.out, "asked about %d of %s\n", k.done, count(k.of, "repository", "repositories"))
	}
	return tags, err
}

// bumpView is what `cairn bump -o json` prints.
type bumpView struct {
	Images   []bump.ImageStatus `json:"images"`
	Effects  []code.Effect      `json:"effects"` // all images that move
	Diff     string             `json:"diff"`
	Written  []string           `json:"written,omitempty"` // files
	Problems []code.Problem     `json:"problems,omitempty"`
}

// bumped prints what a preview came to, and writes it if it is wanted.
func (a *app) bumped(f *folder, p *bump.Preview, write bool) error {
	v := bumpView{Images: statuses(p), Effects: p.Change.Effects, Problems: f.problems}
	if v.Effects == nil {
		v.Effects = []code.Effect{}
	}
	var err error
	if v.Diff, err = scan.Diff(f.tree, p.Change.Splices); err != nil {
		return err
	}
	files := map[string]bool{}
	for _, s := range p.Change.Splices {
		files[s.File] = true
	}
	if write {
		if err := f.Write(f.tree, p.Change.Splices); err != nil {
			return err
		}
		v.Written = slices.Sorted(maps.Keys(files))
	}
	if a.output != "table" {
		return a.print(v, nil)
	}
	fmt.Fprint(a.stdout, v.Diff)
	a.stays(v.Images)
	a.problems(f.problems)
	verb := "would move"
	if write {
		verb = "moved"
	}
	fmt.Fprintf(a.stderr, "%s in %s %s, of %d\n", count(len(p.Change.Effects), "image", "images"), count(len(files), "file", "files"), verb, len(v.Images))
	return nil
}

// stateMoved is the state of an image that the change moves.
const stateMoved = "moved"

func statuses(p *bump.Preview) []bump.ImageStatus {
	moved := map[string]string{}
	for _, e := range p.Change.Effects {
		moved[e.Image] = e.To
	}
	list := make([]bump.ImageStatus, 0, len(p.Images))
	for _, w := range p.Images {
		s := bump.ImageStatus{Image: w.Image.ID, Place: w.Image.Place.String(), Address: w.Image.Address, Value: w.Image.Value,
			State: w.State, Reason: w.Reason, To: w.Choice.To, Until: w.Choice.Until}
		if w.Image.Value != "" {
			s.Repository = w.Ref.Repository()
		}
		if s.State == "" {
			s.State, s.Reason = string(w.Choice.State), w.Choice.Reason
		}
		if to, ok := moved[w.Image.ID]; ok {
			s.State, s.To = stateMoved, to
		}
		list = append(list, s)
	}
	return list
}

// stays says why images stay, those together that stay for the same reason.
func (a *app) stays(list []bump.ImageStatus) {
	type why struct{ value, state, reason string }
	places := map[why][]string{}
	var order []why
	for _, s := range list {
		if s.State == stateMoved || s.Reason == notAsked {
			continue
		}
		k := why{s.Value, s.State, s.Reason}
		if places[k] == nil {
			order = append(order, k)
		}
		places[k] = append(places[k], s.Place)
	}
	w := tabwriter.NewWriter(a.stderr, 0, 8, 2, ' ', 0)
	for _, k := range order {
		at := places[k][0]
		if n := len(places[k]) - 1; n > 0 {
			at += fmt.Sprintf(" and %d more", n)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", dash(k.value), at, k.state, k.reason)
	}
	_ = w.Flush()
}
