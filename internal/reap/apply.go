package reap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/upstream"
)

const (
	// fresh is for how long what all tags of a repository name is believed
	// while its images are deleted. The tags of what goes are asked about each
	// time.
	fresh = 10 * time.Second
	// looks is how often a repository is looked at that changes meanwhile.
	looks = 3
)

// repository tells what becomes of one repository, and does it.
func (x *run) repository(ctx context.Context, repo string) error {
	for look := 1; ; look++ {
		s, err := x.scan(ctx, repo)
		if err != nil {
			return err
		}
		ds, err := x.decide(ctx, s)
		if err != nil {
			return err
		}
		if look == 1 {
			if err := x.tell(ds); err != nil {
				return err
			}
		}
		if !x.q.Delete || x.sum.Held != "" {
			return nil
		}
		changed, err := x.apply(ctx, s, ds)
		if err != nil || !changed {
			return err
		}
		if look == looks {
			return skipf("its tags move while it is looked at; what is left is for the next run")
		}
	}
}

// tell says what is planned.
func (x *run) tell(ds []retention.Decision) error {
	x.sum.Repositories++
	now := x.r.deps.Clock.Now()
	for i := range ds {
		d := Decision{Decision: ds[i], FirstSeen: ds[i].Image.Pushed}
		d.since = max(0, now.Sub(d.FirstSeen))
		x.sum.Images++
		if d.Action == retention.Expire {
			x.sum.Expire++
			x.sum.ExpireBytes += d.Image.Size
		} else {
			x.sum.Keep++
		}
		if err := x.sink.Decided(&d); err != nil {
			return err
		}
	}
	return nil
}

// apply deletes what ds say, image by image with what belongs to it. It reports
// whether it stopped because the repository is no longer what it was.
func (x *run) apply(ctx context.Context, s *scene, ds []retention.Decision) (changed bool, err error) {
	w := &work{run: x, s: s, there: map[image.Digest]bool{}, goes: map[image.Digest]bool{}, above: map[image.Digest][]image.Digest{}}
	for i := range ds {
		w.there[ds[i].Image.Digest] = true
	}
	for i := range ds {
		im := ds[i].Image
		w.goes[im.Digest] = ds[i].Action == retention.Expire
		for _, c := range im.Children {
			if c != im.Digest {
				w.above[c] = append(w.above[c], im.Digest)
			}
		}
		if im.Subject != "" && im.Subject != im.Digest && w.there[im.Subject] {
			w.above[im.Digest] = append(w.above[im.Digest], im.Subject)
		}
	}
	for _, root := range digestsOf(s.images) {
		if !w.goes[root] || !w.there[root] || !w.free(root, nil) {
			continue
		}
		unit := w.unit(root)
		ok, err := x.room(ctx, s, unit)
		if err != nil {
			return false, err
		}
		if !ok {
			continue
		}
		if changed, err := w.unchanged(ctx, unit); changed || err != nil {
			return changed, err
		}
		if err := w.delete(ctx, unit); err != nil {
			return false, err
		}
	}
	return false, nil
}

func digestsOf(images []content.Image) []image.Digest {
	var out []image.Digest
	for i := range images {
		out = append(out, images[i].Digest)
	}
	return out
}

// room reports whether the unit may go within the limit.
func (x *run) room(ctx context.Context, s *scene, unit []image.Digest) (bool, error) {
	if len(unit) > x.sum.PerHour {
		x.sum.Waiting += len(unit)
		return false, x.sink.Skipped(Skipped{Repository: s.repo, Digest: unit[0], Why: fmt.Sprintf("it and what belongs to it are %d images, more than the %d that may go in an hour", len(unit), x.sum.PerHour)})
	}
	if !x.sum.Again.IsZero() { // one after the other: a small one does not overtake
		x.sum.Waiting += len(unit)
		return false, nil
	}
	n, oldest, err := x.r.memory.since(ctx, x.at.host, x.r.deps.Clock.Now().Add(-time.Hour))
	if err != nil {
		return false, err
	}
	if n+len(unit) > x.sum.PerHour {
		x.sum.Waiting += len(unit)
		x.sum.Again = oldest.Add(time.Hour)
		return false, nil
	}
	return true, nil
}

// work is the execution of the plan of one repository.
type work struct {
	*run
	s     *scene
	there map[image.Digest]bool
	goes  map[image.Digest]bool
	above map[image.Digest][]image.Digest // indexes and subjects that are there
}

// free reports whether nothing that is there needs the image or is referred to
// by it, but for what goes with it.
func (w *work) free(d image.Digest, with map[image.Digest]bool) bool {
	for _, a := range w.above[d] {
		if w.there[a] && !with[a] {
			return false
		}
	}
	return true
}

// unit is the image and what can go with it: who needs comes before what it
// needs. What it shares with others goes with the last of them: as long as one
// is left, that leads there.
func (w *work) unit(root image.Digest) []image.Digest {
	in := map[image.Digest]bool{root: true}
	out := []image.Digest{root}
	for again := true; again; {
		again = false
		for i := range w.s.images {
			d := w.s.images[i].Digest
			if w.goes[d] && !in[d] && len(w.above[d]) > 0 && w.free(d, in) && slices.ContainsFunc(w.above[d], func(a image.Digest) bool { return in[a] }) {
				in[d], again = true, true
				out = append(out, d)
			}
		}
	}
	return out
}

// unchanged reports whether the repository is no longer what the plan was made
// for. Deleting an image by its digest removes every tag it has by then.
func (w *work) unchanged(ctx context.Context, unit []image.Digest) (changed bool, err error) {
	s := w.s
	if now := w.r.deps.Clock.Mono(); now-s.resolved > fresh {
		tags, err := w.at.resolveAll(ctx, s.repo)
		if err != nil {
			return false, partly(err)
		}
		if !maps.Equal(tags, s.tags) {
			return true, nil
		}
		s.resolved = now
	}
	for _, t := range slices.Sorted(maps.Keys(s.tags)) {
		if !slices.Contains(unit, s.tags[t]) {
			continue
		}
		d, err := w.at.resolve(ctx, s.repo, t)
		if notThere(err) || err == nil && d != s.tags[t] {
			return true, nil
		}
		if err != nil {
			return false, partly(err)
		}
	}
	names, err := w.at.tags(ctx, s.repo)
	if err != nil {
		return false, partly(err)
	}
	slices.Sort(names)
	return !slices.Equal(names, slices.Sorted(maps.Keys(s.tags))), nil
}

// unused judges an image again, by what is known this moment.
func (w *work) unused(ctx context.Context, d image.Digest) (reason string, ok bool, err error) {
	ds, err := w.decide(ctx, w.s)
	if err != nil {
		return "", false, err
	}
	for i := range ds {
		if ds[i].Image.Digest == d {
			return (&Decision{Decision: ds[i]}).Reason(), ds[i].Action == retention.Expire, nil
		}
	}
	return "", false, nil
}

// delete deletes the images of a unit. A skip ends the work on the repository.
func (w *work) delete(ctx context.Context, unit []image.Digest) error {
	s := w.s
	bodies := make([]*manifest, len(unit))
	for i, d := range unit {
		m, err := w.at.manifest(ctx, s.repo, string(d), d)
		if err != nil {
			return partly(err)
		}
		bodies[i] = m
	}
	for i, d := range unit {
		reason, ok, err := w.unused(ctx, d)
		if err != nil {
			return err
		}
		why := "it was used, or something came into doubt, since the plan was made"
		if held := w.held(); held != "" {
			ok, why = false, held
		}
		if !ok { // and so does what is below it
			w.sum.Changed += len(unit) - i
			s.images = slices.DeleteFunc(s.images, func(im content.Image) bool { return !w.there[im.Digest] })
			return w.sink.Skipped(Skipped{Repository: s.repo, Digest: d, Why: why})
		}
		r := Record{Registry: w.at.url, Repository: s.repo, Digest: d, MediaType: bodies[i].mediaType, Tags: []string{}, At: w.r.deps.Clock.Now(), Reason: reason, Manifest: bodies[i].body}
		for _, t := range slices.Sorted(maps.Keys(s.tags)) {
			if s.tags[t] == d {
				r.Tags = append(r.Tags, t)
			}
		}
		if err := w.one(ctx, r); err != nil {
			return err
		}
		if err := w.sink.Deleted(r); err != nil {
			return err
		}
	}
	// Only now: what goes with an image was judged as a part of it.
	s.images = slices.DeleteFunc(s.images, func(im content.Image) bool { return !w.there[im.Digest] })
	return nil
}

// one deletes one image, of which the record is kept first.
func (w *work) one(ctx context.Context, r Record) error {
	id, err := w.r.memory.about(ctx, w.at.host, r)
	if err != nil {
		return err
	}
	settle := func(state int) error {
		return w.r.memory.settle(ctx, id, state, w.at.place(r.Repository), r.Digest)
	}
	failed := func(format string, args ...any) error {
		w.sum.Failed++
		return skipf("%s: %s", r.Digest, fmt.Sprintf(format, args...))
	}
	err = w.at.driver.delete(ctx, r.Repository, r.Digest)
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		switch e.Status {
		case http.StatusMethodNotAllowed, http.StatusUnauthorized, http.StatusForbidden:
			w.sum.Failed++
			return errors.Join(settle(stayed), fmt.Errorf("delete %s@%s: %w; the registry has to allow deletion (distribution: REGISTRY_STORAGE_DELETE_ENABLED=true), to this account", r.Repository, r.Digest, err))
		}
	}
	// What it says is not believed, whichever it is.
	there, look := w.at.resolve(ctx, r.Repository, string(r.Digest))
	switch {
	case notThere(look):
		if err := settle(gone); err != nil {
			return err
		}
	case look == nil && there == r.Digest:
		if e := settle(stayed); e != nil {
			return e
		}
		if err == nil {
			return failed("the registry says that it is deleted, and still has it")
		}
		return failed("it was not deleted: %v", err)
	default:
		said := "done"
		if err != nil {
			said = err.Error()
		}
		// It counts as gone, and can be listed, until somebody knows
		return failed("whether it was deleted is not known (it said: %s; then: %v); it can be pushed again from `cairn reap deleted`", said, look)
	}
	delete(w.there, r.Digest)
	maps.DeleteFunc(w.s.tags, func(_ string, d image.Digest) bool { return d == r.Digest })
	w.sum.Deleted++
	return nil
}
