package bump

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/image"
)

// askAtOnce bounds the repositories of images that are asked for at once; who is
// asked bounds it further, by host.
const askAtOnce = 8

// answers are what the catalog said during one pass: each thing is asked once.
type answers struct {
	ctx context.Context
	c   catalog.Catalog

	mu     sync.Mutex
	tags   map[string]answer[[]catalog.Tag]
	named  map[string]answer[image.Digest]
	images map[string]answer[catalog.Image]
}

type answer[T any] struct {
	v   T
	err error
}

func newAnswers(ctx context.Context, c catalog.Catalog) *answers {
	return &answers{ctx: ctx, c: c, tags: map[string]answer[[]catalog.Tag]{}, named: map[string]answer[image.Digest]{}, images: map[string]answer[catalog.Image]{}}
}

// fetch asks for the tags of the repositories, several at once.
func (a *answers) fetch(repositories []string) {
	var g errgroup.Group
	g.SetLimit(askAtOnce)
	for _, repo := range repositories {
		g.Go(func() error {
			tags, err := a.c.Tags(a.ctx, repo)
			a.mu.Lock()
			a.tags[repo] = answer[[]catalog.Tag]{tags, err}
			a.mu.Unlock()
			return nil
		})
	}
	_ = g.Wait() // an error is an answer about its repository
}

// digest is what a tag names: as the listing says, if it does.
func (a *answers) digest(repo, tag string) (image.Digest, error) {
	key := repo + ":" + tag
	if n, ok := a.named[key]; ok {
		return n.v, n.err
	}
	for _, t := range a.tags[repo].v {
		if t.Name == tag && t.Digest != "" {
			a.named[key] = answer[image.Digest]{t.Digest, nil}
			return t.Digest, nil
		}
	}
	d, err := a.c.Lookup(a.ctx, repo, tag)
	a.named[key] = answer[image.Digest]{d, err}
	return d, err
}

func (a *answers) image(repo string, d image.Digest) (catalog.Image, error) {
	key := repo + "@" + string(d)
	if im, ok := a.images[key]; ok {
		return im.v, im.err
	}
	im, err := a.c.Image(a.ctx, repo, d)
	a.images[key] = answer[catalog.Image]{im, err}
	return im, err
}

// describe is what is known of the image that a reference names, for people;
// nil when that is nothing.
func (a *answers) describe(ref code.Reference) *catalog.Image {
	d := ref.Digest
	if d == "" {
		var err error
		if d, err = a.digest(ref.Repository(), ref.Tag); err != nil {
			return nil
		}
	}
	im, err := a.image(ref.Repository(), d)
	if err != nil {
		return nil
	}
	im.Digest = d
	return &im
}

// pick chooses for every image of a reading.
func (e *Engine) pick(a *answers, x *reading, now time.Time) []*Wanted {
	out := make([]*Wanted, 0, len(x.result.Images))
	rules := make([]Rule, 0, len(x.result.Images))
	asked := map[string]bool{}
	var ask []string
	for _, im := range x.result.Images {
		w := &Wanted{Image: im}
		rule := x.rules.For(im)
		w.Group, w.Labels, w.Reviewers, w.Automerge = rule.Group, rule.Labels, rule.Reviewers, rule.Automerge
		value := im.Value
		if im.Chart { // its version may have a '+', which is written '_' in tags
			value = strings.ReplaceAll(value, "+", "_")
		}
		ref, err := code.ParseReference(value)
		w.Ref = ref
		switch {
		case rule.Ignore != "":
			w.State, w.Reason = StateIgnored, rule.Ignore
		case im.Fixed != "" || im.Value == "":
			w.State, w.Reason = StateFixed, im.Fixed
			if w.Reason == "" {
				w.Reason = "which image it is cannot be told from the code alone"
			}
		case err != nil:
			w.State, w.Reason = StateFixed, err.Error()
		default:
			if repo := ref.Repository(); !asked[repo] {
				asked[repo] = true
				ask = append(ask, repo)
			}
		}
		out, rules = append(out, w), append(rules, rule)
	}
	a.fetch(ask)
	nodes := e.nodes()
	// One choice serves all places that say the same under the same rule.
	memo := map[string]choose.Choice{}
	for i, w := range out {
		if w.State != "" {
			continue
		}
		key := fmt.Sprintf("%s\x00%+v", w.Image.Value, rules[i].Policy)
		c, ok := memo[key]
		if !ok {
			p := rules[i].Policy
			p.Nodes = nodes
			c = e.chooseOne(a, w, p, now)
			memo[key] = c
		}
		w.Choice = c
	}
	return out
}

// nodes are the platforms of all nodes that somebody tells of, sorted.
func (e *Engine) nodes() []image.Platform {
	if e.deps.Ledger == nil {
		return nil
	}
	var out []image.Platform
	for _, r := range e.deps.Ledger.Reporters() {
		for _, p := range r.Platforms {
			out = append(out, image.Platform{OS: p.OS, Architecture: p.Architecture})
		}
	}
	slices.SortFunc(out, func(a, b image.Platform) int { return strings.Compare(a.String(), b.String()) })
	return slices.CompactFunc(out, func(a, b image.Platform) bool { return a.String() == b.String() })
}

func (e *Engine) chooseOne(a *answers, w *Wanted, p choose.Policy, now time.Time) choose.Choice {
	repo := w.Ref.Repository()
	tags := a.tags[repo]
	if tags.err != nil {
		reason := fmt.Sprintf("the registry does not list the tags of %s: %v", repo, tags.err)
		if errors.Is(tags.err, catalog.ErrNotFound) {
			reason = fmt.Sprintf("the registry has no %s, or does not show it to us: is the name right, and may this server read it?", repo)
		}
		return choose.Choice{State: choose.Unknown, Reason: reason}
	}
	return e.deps.Choose(w.Image.Value, p, choose.Facts{
		Now: now, Tags: tags.v,
		Look: func(tag string) (catalog.Image, error) {
			d, err := a.digest(repo, tag)
			if err != nil {
				return catalog.Image{}, err
			}
			return a.image(repo, d)
		},
		Inspect: func(d image.Digest) (catalog.Image, error) { return a.image(repo, d) },
	})
}
