package catalog

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/upstream"
)

// remoteRepository is a [source].
type remoteRepository struct {
	*host
	repo  string        // as its registry calls it
	name  string        // with the host
	stall time.Duration // how long the next bytes may take
}

// ask puts a question when it is its turn.
func (p remoteRepository) ask(ctx context.Context, q upstream.Question, use func(*http.Response) error) error {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-p.slots }()
	ctx, patient, cancel := upstream.Patient(ctx, p.stall)
	defer cancel()
	q.Repository = p.repo
	resp, e := p.client.Ask(ctx, q)
	if e != nil {
		if e.Kind == upstream.NotFound {
			return fmt.Errorf("%w: %w", ErrNotFound, e)
		}
		return e
	}
	resp.Body = patient(resp.Body)
	defer resp.Body.Close()
	return use(resp)
}

// resolve asks what a tag names, by a question that costs nobody a pull.
func (p remoteRepository) resolve(ctx context.Context, tag string) (image.Digest, error) {
	var d image.Digest
	err := p.ask(ctx, upstream.Question{Method: http.MethodHead, What: "manifests/" + tag}, func(resp *http.Response) error {
		// A page for people has no such type; and then what else it says is not
		// worth much.
		if manifestType(resp.Header.Get("Content-Type")) {
			d, _ = image.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
		}
		return nil
	})
	if err != nil || d != "" {
		return d, err
	}
	d, _, err = p.manifest(ctx, tag)
	return d, err
}

func manifestType(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	switch strings.TrimSpace(t) {
	case image.MediaTypeIndex, image.MediaTypeManifest, image.MediaTypeDockerList, image.MediaTypeDockerManifest:
		return true
	}
	return false
}

func (p remoteRepository) manifest(ctx context.Context, reference string) (image.Digest, *image.Manifest, error) {
	want, _ := image.ParseDigest(reference)
	var m *image.Manifest
	err := p.ask(ctx, upstream.Question{Method: http.MethodGet, What: "manifests/" + reference}, func(resp *http.Response) error {
		if want == "" {
			// What it says of a tag has to be so, too.
			want, _ = image.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
		}
		body, parsed, e := p.client.ReadManifest(resp, want)
		if e != nil {
			return e
		}
		if want == "" {
			want = digest.FromBytes(body)
		}
		m = parsed
		return nil
	})
	return want, m, err
}

func (p remoteRepository) blob(ctx context.Context, d image.Descriptor) ([]byte, error) {
	if d.Size > maxBlob {
		return nil, fmt.Errorf("%s has %d bytes; more than %d are not read", d.Digest, d.Size, maxBlob)
	}
	var b []byte
	err := p.ask(ctx, upstream.Question{Method: http.MethodGet, What: "blobs/" + string(d.Digest)}, func(resp *http.Response) (err error) {
		if b, err = p.read(resp, maxBlob); err != nil {
			return err
		}
		if err := checkBlob(b, d.Digest); err != nil {
			return upstream.Unreachablef(p.host.name, "lies: %v (%s)", err, upstream.Describe(resp))
		}
		return nil
	})
	return b, err
}

// maxReferrerPages bounds the list of what refers to one image.
const maxReferrerPages = 10

func (p remoteRepository) referrers(ctx context.Context, d image.Digest) ([]image.Descriptor, error) {
	var out []image.Descriptor
	query := ""
	for range maxReferrerPages {
		next := ""
		err := p.ask(ctx, upstream.Question{Method: http.MethodGet, What: "referrers/" + string(d) + query}, func(resp *http.Response) error {
			next = upstream.NextPage(resp.Header)
			body, err := p.read(resp, image.MaxManifest)
			if err != nil {
				return err
			}
			index, err := image.ParseManifest(image.MediaTypeIndex, body)
			if err != nil {
				return upstream.Unreachablef(p.host.name, "sent something that is no list of referrers (%s): %v", upstream.Describe(resp), err)
			}
			out = append(out, index.Children...)
			return nil
		})
		if query == "" && noReferrers(err) {
			return p.fallback(ctx, d)
		}
		if err != nil {
			return nil, err
		}
		if next == "" || len(out) >= maxReferrers {
			break
		}
		query = "?" + next
	}
	return out, nil
}

// fallback are the referrers under the tag that clients keep where the
// registry has no list (distribution-spec, "Referrers Tag Schema").
func (p remoteRepository) fallback(ctx context.Context, d image.Digest) ([]image.Descriptor, error) {
	_, m, err := p.manifest(ctx, strings.Replace(string(d), ":", "-", 1))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return m.Children, nil
}

// noReferrers reports whether an answer means that the registry has no list of
// referrers. Old ones say so in many ways.
func noReferrers(err error) bool {
	if errors.Is(err, ErrNotFound) {
		return true
	}
	e, ok := errors.AsType[*upstream.Error](err)
	return ok && (e.Status == http.StatusMethodNotAllowed || e.Status == http.StatusBadRequest || e.Status == http.StatusNotImplemented)
}
