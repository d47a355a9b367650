package reap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/upstream"
	"cairn.dev/cairn/internal/usage"
)

// maxImages of one repository; larger ones stay as they are.
const maxImages = 200_000

// A scene is one repository as it was seen, in whole.
type scene struct {
	repo     string
	name     string // in policies
	policy   *retention.Policy
	tags     map[string]image.Digest
	resolved time.Duration // when, monotonic
	images   []content.Image
	known    map[image.Digest]bool
}

// scan looks at a repository and notes what it sees. Whatever the registry
// does not answer in whole makes it fail with a skip.
func (x *run) scan(ctx context.Context, repo string) (*scene, error) {
	s := &scene{repo: repo, name: x.at.name(repo), known: map[image.Digest]bool{}}
	p := retention.Match(x.r.cfg.Policies, s.name)
	if p == nil {
		return nil, skipf("no policy of Cairn's matches %s", s.name)
	}
	s.policy = new(retention.Policy)
	*s.policy = *p
	s.policy.MaxBytes = 0
	// What has no tag is seen as a part of something that has: it goes with
	// that, or nothing would lead to it any more.
	s.policy.UntaggedAfter = 0
	s.resolved = x.r.deps.Clock.Mono()
	var err error
	if s.tags, err = x.at.resolveAll(ctx, repo); err != nil {
		return nil, partly(err)
	}
	if err := x.fetch(ctx, s, slices.Collect(maps.Values(s.tags)), true); err != nil {
		return nil, partly(err)
	}
	if err := x.sight(ctx, s); err != nil {
		return nil, err
	}
	// What refers to images that stay, stays; so only the others are asked
	// about. It is not noted when it was seen, because that does not count.
	for asked := map[image.Digest]bool{}; ; {
		ds, err := x.decide(ctx, s)
		if err != nil {
			return nil, err
		}
		before := len(s.images)
		for i := range ds {
			d := ds[i].Image.Digest
			if ds[i].Action != retention.Expire || asked[d] {
				continue
			}
			asked[d] = true
			refs, err := x.at.referrers(ctx, repo, d)
			if err == nil {
				err = x.fetch(ctx, s, refs, false)
			}
			if err != nil {
				return nil, partly(err)
			}
		}
		if len(s.images) == before {
			return s, nil
		}
		for i := before; i < len(s.images); i++ {
			s.images[i].Pushed = x.r.deps.Clock.Now()
		}
	}
}

// partly is why a repository stays as it is when the registry did not answer.
func partly(err error) error {
	if _, ok := errors.AsType[*upstream.Error](err); ok {
		return skipf("the registry did not answer in whole: %v", err)
	}
	return err
}

// fetch reads manifests and the children of indexes. Those that must be there
// are what a tag names; a child that is certainly not there is no part of the
// image (image-spec: an index may be sparse).
func (x *run) fetch(ctx context.Context, s *scene, digests []image.Digest, must bool) error {
	tagsOf := map[image.Digest][]string{}
	for t, d := range s.tags {
		tagsOf[d] = append(tagsOf[d], t)
	}
	for len(digests) > 0 {
		var todo []image.Digest
		for _, d := range digests {
			if !s.known[d] {
				s.known[d] = true
				todo = append(todo, d)
			}
		}
		slices.Sort(todo) // so that runs repeat
		if len(s.known) > maxImages {
			return skipf("it has more than %d images", maxImages)
		}
		got := make([]*manifest, len(todo))
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(atOnce)
		for i, d := range todo {
			g.Go(func() error {
				m, err := x.at.manifest(gctx, s.repo, string(d), d)
				if err != nil && !must && notThere(err) {
					return nil
				}
				got[i] = m
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		digests = nil
		for _, m := range got {
			if m == nil {
				continue
			}
			im := m.image(s.repo, tagsOf[m.digest])
			s.images = append(s.images, im)
			digests = append(digests, im.Children...)
			if im.Subject != "" { // a signature may be all that leads to an image
				digests = append(digests, im.Subject)
			}
		}
		must = false
	}
	return nil
}

// image is the manifest in the words of retention.
func (m *manifest) image(repo string, tags []string) content.Image {
	im := content.Image{Repository: repo, Digest: m.digest, MediaType: m.mediaType, ArtifactType: m.ArtifactType, Size: int64(len(m.body)), Config: m.CreditConfig()}
	for _, b := range m.Blobs() {
		im.Size += b.Size
	}
	for _, c := range m.Children {
		im.Children = append(im.Children, c.Digest)
	}
	slices.Sort(tags)
	fallback := len(tags) > 0
	var of image.Digest
	for _, t := range tags {
		im.Tags = append(im.Tags, content.Tag{Name: t})
		d, ok := image.FallbackSubject(t)
		fallback = fallback && ok && (of == "" || of == d)
		of = d
	}
	switch {
	case m.Subject != nil:
		im.Subject = m.Subject.Digest
	case fallback: // and nothing else names it
		im.Subject = of
	}
	return im
}

// sight fills in when the images were first seen.
func (x *run) sight(ctx context.Context, s *scene) error {
	now := x.r.deps.Clock.Now()
	var all []sight
	for i := range s.images {
		im := &s.images[i]
		all = append(all, sight{im.Digest, ""})
		for _, t := range im.Tags {
			all = append(all, sight{im.Digest, t.Name})
		}
	}
	var first map[sight]time.Time
	var err error
	if ok, _ := x.r.deps.Ledger.ClockOK(); ok {
		first, err = x.r.memory.see(ctx, x.at.place(s.repo), now, all)
	} else {
		// A time that may be wrong is not written down.
		first, err = x.r.memory.first(ctx, x.at.place(s.repo))
	}
	if err != nil {
		return err
	}
	at := func(g sight) time.Time {
		if t, ok := first[g]; ok {
			return t
		}
		return now
	}
	var newest []time.Time
	for i := range s.images {
		im := &s.images[i]
		im.Pushed = at(sight{im.Digest, ""})
		for k := range im.Tags {
			t := &im.Tags[k]
			t.Pushed = at(sight{im.Digest, t.Name})
			if t.Pushed.After(im.Pushed) { // somebody named it: that is like a push
				im.Pushed = t.Pushed
			}
			if _, fallback := image.FallbackSubject(t.Name); !fallback {
				newest = append(newest, t.Pushed)
			}
		}
	}
	// Tags that were seen for the first time together are equally new: rather
	// all of them than the wrong ones.
	if k := s.policy.KeepLast; k > 0 && k < len(newest) {
		slices.SortFunc(newest, func(a, b time.Time) int { return b.Compare(a) })
		for k < len(newest) && newest[k].Equal(newest[s.policy.KeepLast-1]) {
			k++
		}
		s.policy.KeepLast = k
	}
	return nil
}

// place is what a repository is called in memory.
func (p *place) place(repo string) string { return p.host + "/" + repo }

// decide is what retention makes of the scene now.
func (x *run) decide(ctx context.Context, s *scene) ([]retention.Decision, error) {
	now := x.r.deps.Clock.Now()
	owned := map[image.Digest][]usage.Use{}
	for _, o := range x.r.deps.Owners {
		uses, err := o.InUse(ctx, s.name)
		if err != nil {
			return nil, skipf("what is in use of %s is not known: %v", s.name, err)
		}
		for d, us := range uses {
			owned[d] = append(owned[d], us...)
		}
	}
	pins, err := x.r.deps.Pins.Pins(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("read pins: %w", err)
	}
	for _, p := range pins {
		if p.Expires.IsZero() || p.Expires.After(now) {
			owned[p.Digest] = append(owned[p.Digest], usage.Use{Digest: p.Digest, Repository: p.Repository, Source: usage.Pin, Subject: p.By, At: p.Created, Now: true})
		}
	}
	ok, _ := x.r.deps.Ledger.ClockOK()
	return retention.Decide(s.policy, retention.Facts{
		Repository: s.name, Images: s.images, Last: x.last, Owned: owned, Coverage: usage.NewCoverage(x.doubt(s), s.name), ClockOK: ok, Now: now, Keep: time.Hour,
	}), nil
}

// last is the ledger's answer in which every use may be of an image here,
// whatever repository it names: with or without a host, under a mirror's name,
// or none. A digest is the same image everywhere.
func (x *run) last(d image.Digest, _ string) (anywhere, here usage.Use) {
	u, _ := x.r.deps.Ledger.LastUse(d, "")
	return u, u
}

// doubt is when uses of the repository may have been missed: all the ledger
// knows, whatever its scope, and the time before the first of those who report
// now and may speak of it. Pulls are seen by the other registry, not by us.
func (x *run) doubt(s *scene) []usage.Interval {
	var out []usage.Interval
	all := []string{"**"}
	for _, iv := range x.r.deps.Ledger.Uncovered() {
		iv.Scope = all
		out = append(out, iv)
	}
	before := usage.Interval{Scope: all, From: time.Unix(0, 0), Why: "nobody reported uses"}
	for _, r := range x.r.deps.Ledger.Reporters() {
		if (image.MatchAny(r.Scope, s.name) || image.MatchAny(r.Scope, s.repo)) && (before.To.IsZero() || r.First.Before(before.To)) {
			before.To = r.First
		}
	}
	return append(out, before)
}

// held is why nothing may go now anywhere. An image that nobody used for long
// enough before a doubt began is no exception, as it is where Cairn can bring
// images back.
func (x *run) held() string {
	if ok, why := x.r.deps.Ledger.ClockOK(); !ok {
		return "the clock cannot be trusted: " + why
	}
	if len(x.r.deps.Ledger.Reporters()) == 0 {
		return "nobody reports what runs: pulls from this registry are not seen here, so start cairn agent where its images are used"
	}
	var open []string
	for _, iv := range x.r.deps.Ledger.Uncovered() {
		if iv.To.IsZero() {
			open = append(open, iv.Why)
		}
	}
	if n := len(open); n > 1 {
		return fmt.Sprintf("%s; and %d more", open[0], n-1)
	} else if n == 1 {
		return open[0]
	}
	return ""
}

// Reason is a short sentence for people.
func (d *Decision) Reason() string {
	if d.LastUse.Source == usage.Push {
		switch d.Code {
		case retention.Recent:
			return fmt.Sprintf("first seen %s ago, %s of it covered by reports, and no use since; within %s", retention.Duration(d.since), retention.Duration(d.Age), retention.Duration(d.Limit))
		case retention.Unused:
			return fmt.Sprintf("not used since it was first seen, %s ago, more than %s", retention.Duration(d.Age), retention.Duration(d.Limit))
		case retention.Young:
			return fmt.Sprintf("first seen less than %s ago", retention.Duration(d.Policy.MinAge))
		}
	}
	return d.Decision.Reason()
}
