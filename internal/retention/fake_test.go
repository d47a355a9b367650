package retention

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// registry is a content in memory, just enough for the engine. Its hooks let
// a test change things at the worst moment.
type registry struct {
	clock  clock.Clock
	repos  map[string][]content.Image
	blobs  map[image.Digest]map[image.Digest]int64 // of a manifest
	pins   []content.Pin
	audit  []content.AuditEntry
	broken map[string]error // by repository

	beforeExpire func(content.Expiry) // in the transaction
}

func newRegistry(c clock.Clock) *registry {
	return &registry{clock: c, repos: map[string][]content.Image{}, blobs: map[image.Digest]map[image.Digest]int64{}, broken: map[string]error{}}
}

func (r *registry) push(repo, n string, opts ...opt) {
	im := content.Image{Repository: repo, Digest: dg(n), Pushed: r.clock.Now(), Size: 100, Version: 1}
	for _, o := range opts {
		o(&im)
	}
	r.repos[repo] = append(r.repos[repo], im)
}

func (r *registry) find(repo string, d image.Digest) *content.Image {
	for i := range r.repos[repo] {
		if r.repos[repo][i].Digest == d {
			return &r.repos[repo][i]
		}
	}
	return nil
}

// states lists the images as name:state, by name.
func (r *registry) states(repo string) string {
	var out []string
	for _, im := range r.repos[repo] {
		out = append(out, name(im.Digest)+":"+im.State.String())
	}
	slices.Sort(out)
	return fmt.Sprint(out)
}

func (r *registry) Scan(ctx context.Context, after string, f func(string, []content.Image) error) error {
	for _, repo := range slices.Sorted(maps.Keys(r.repos)) {
		if repo <= after {
			continue
		}
		if err := f(repo, slices.Clone(r.repos[repo])); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (r *registry) ImagesOf(_ context.Context, repo string) ([]content.Image, error) {
	if err := r.broken[repo]; err != nil {
		return nil, err
	}
	return slices.Clone(r.repos[repo]), nil
}

func (r *registry) BlobsOf(_ context.Context, repo string, f func(manifest, blob image.Digest, size int64) error) error {
	for _, im := range r.repos[repo] {
		for b, n := range r.blobs[im.Digest] {
			if err := f(im.Digest, b, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *registry) Pins(_ context.Context, repo string) ([]content.Pin, error) {
	var out []content.Pin
	for _, p := range r.pins {
		if repo == "" || p.Repository == repo {
			out = append(out, p)
		}
	}
	return out, nil
}

func (r *registry) each(items []content.Expiry, action string, f func(*content.Image)) ([]error, error) {
	errs := make([]error, len(items))
	for i, it := range items {
		if r.beforeExpire != nil {
			r.beforeExpire(it)
		}
		im := r.find(it.Repository, it.Digest)
		switch {
		case im == nil, im.Version != it.Version:
			errs[i] = content.ErrChanged
		case r.broken[string(it.Digest)] != nil:
			errs[i] = r.broken[string(it.Digest)]
		case it.StillUnused != nil && !it.StillUnused():
			errs[i] = content.ErrChanged
		default:
			f(im)
			r.audit = append(r.audit, content.AuditEntry{ID: int64(len(r.audit) + 1), At: r.clock.Now(), Action: action, Repository: it.Repository,
				Digest: it.Digest, Actor: "retention", Reason: it.Reason, Uses: it.Uses})
		}
	}
	return errs, nil
}

func (r *registry) Expire(_ context.Context, items []content.Expiry) ([]error, error) {
	return r.each(items, "expire", func(im *content.Image) {
		im.State, im.HiddenAt = content.Expired, r.clock.Now()
		im.Version++
	})
}

func (r *registry) Sweep(_ context.Context, items []content.Expiry) ([]error, error) {
	return r.each(items, "sweep", func(im *content.Image) {
		repo := im.Repository
		i := slices.IndexFunc(r.repos[repo], func(x content.Image) bool { return x.Digest == im.Digest })
		r.repos[repo] = slices.Delete(r.repos[repo], i, i+1)
	})
}

func (r *registry) Revive(_ context.Context, repo string, d image.Digest, _ string) error {
	if im := r.find(repo, d); im == nil || im.State == content.Deleted {
		return content.ErrManifestUnknown
	} else if im.State == content.Expired {
		im.State, im.HiddenAt = content.Live, time.Time{}
		im.Version++
	}
	return nil
}

func (r *registry) Peek(_ context.Context, repo, ref string) (content.Image, error) {
	if r.repos[repo] == nil {
		return content.Image{}, content.ErrRepositoryUnknown
	}
	for _, im := range r.repos[repo] {
		if string(im.Digest) == ref || slices.ContainsFunc(im.Tags, func(t content.Tag) bool { return t.Name == ref }) {
			return im, nil
		}
	}
	return content.Image{}, content.ErrManifestUnknown
}

func (r *registry) Audit(_ context.Context, repo string, before int64, n int) ([]content.AuditEntry, error) {
	var out []content.AuditEntry
	for i := len(r.audit) - 1; i >= 0 && len(out) < n; i-- {
		if a := r.audit[i]; a.Repository == repo && (before == 0 || a.ID < before) {
			out = append(out, a)
		}
	}
	return out, nil
}

// ledger is a usage.Ledger in memory.
type ledger struct {
	uses     map[image.Digest][]usage.Use
	doubt    []usage.Interval
	enrolled bool
	clock    string // why it is not trusted
	feed     []image.Digest
}

func (l *ledger) use(u usage.Use) {
	if l.uses == nil {
		l.uses = map[image.Digest][]usage.Use{}
	}
	l.uses[u.Digest] = append(l.uses[u.Digest], u)
	l.feed = append(l.feed, u.Digest)
}

func (l *ledger) LastUse(d image.Digest, repo string) (anywhere, here usage.Use) {
	return lookup(l.uses)(d, repo)
}
func (l *ledger) Uses(d image.Digest) []usage.Use { return l.uses[d] }
func (l *ledger) Uncovered() []usage.Interval     { return l.doubt }
func (l *ledger) EverEnrolled() bool              { return l.enrolled }
func (l *ledger) ClockOK() (bool, string)         { return l.clock == "", l.clock }
func (l *ledger) Changed(since uint64) ([]image.Digest, uint64, bool) {
	return l.feed[since:], uint64(len(l.feed)), false
}

// owner is somebody who knows what is in use.
type owner struct {
	uses map[image.Digest][]usage.Use
	err  error
}

func (o *owner) InUse(context.Context, string) (map[image.Digest][]usage.Use, error) {
	return o.uses, o.err
}

var errBroken = errors.New("broken")
