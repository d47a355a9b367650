package reap

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/upstream"
)

// Undone says what came of pushing an image again.
type Undone struct {
	Repository string       `json:"repository"`
	Digest     image.Digest `json:"digest"`
	Tags       []string     `json:"tags"` // it has again, or still
	// Left are tags that name another image by now.
	Left []string `json:"left,omitempty"`
}

// ErrBlobs: the registry has collected the blobs of the image already.
var ErrBlobs = errors.New("its blobs are gone from the registry: push the image from where it was built")

// Undo pushes a deleted image again, with the tags that nobody has given to
// another since. Undo what was deleted last first: an index needs its images.
// Its time starts anew.
func (r *Reaper) Undo(ctx context.Context, a Account, rec Record) (Undone, error) {
	out := Undone{Repository: rec.Repository, Digest: rec.Digest, Tags: []string{}}
	if err := rec.check(); err != nil {
		return out, err
	}
	p, err := r.open(ctx, a)
	if err != nil {
		return out, err
	}
	defer p.client.Close()
	if err := p.put(ctx, rec.Repository, string(rec.Digest), rec.MediaType, rec.Manifest); err != nil {
		if e, ok := errors.AsType[*upstream.Error](err); ok && (e.Status == http.StatusBadRequest || e.Status == http.StatusNotFound) {
			err = fmt.Errorf("%w (%w)", ErrBlobs, err)
		}
		return out, fmt.Errorf("push %s@%s: %w", rec.Repository, rec.Digest, err)
	}
	for _, t := range rec.Tags {
		d, err := p.resolve(ctx, rec.Repository, t)
		switch {
		case err == nil && d != rec.Digest:
			out.Left = append(out.Left, t)
			continue
		case err != nil && !notThere(err):
			return out, fmt.Errorf("look at the tag %s of %s: %w", t, rec.Repository, err)
		case err != nil:
			if err := p.put(ctx, rec.Repository, t, rec.MediaType, rec.Manifest); err != nil {
				return out, fmt.Errorf("give the tag %s of %s back: %w", t, rec.Repository, err)
			}
		}
		out.Tags = append(out.Tags, t)
	}
	r.deps.Log.Info("pushed a reaped image again", "registry", p.url, "repository", rec.Repository, "digest", rec.Digest, "tags", out.Tags)
	return out, nil
}

// Deleted calls f with the records of the last 90 days, newest first: of one
// registry, or of all when its URL is empty. What may have been deleted, because
// a registry or Cairn went away in the middle, is among them.
func (r *Reaper) Deleted(ctx context.Context, registry string, f func(Record) error) error {
	host := ""
	if registry != "" {
		p, err := locate(registry)
		if err != nil {
			return err
		}
		host = p.host
	}
	return r.memory.gone(ctx, host, f)
}

// check reports what is wrong with a record that came from outside.
func (r *Record) check() error {
	if err := image.CheckRepository(r.Repository); err != nil {
		return badRequest("%v", err)
	}
	d, err := image.ParseDigest(string(r.Digest))
	if err != nil {
		return badRequest("%v", err)
	}
	for _, t := range r.Tags {
		if err := image.CheckTag(t); err != nil {
			return badRequest("%v", err)
		}
	}
	if len(r.Manifest) > image.MaxManifest || d.Algorithm().FromBytes(r.Manifest) != digest.Digest(r.Digest) {
		return badRequest("the manifest of %s is not what was deleted: its digest differs", r.Digest)
	}
	if _, err := image.ParseManifest(r.MediaType, r.Manifest); err != nil {
		return badRequest("%v", err)
	}
	return nil
}
