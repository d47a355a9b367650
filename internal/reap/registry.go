package reap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/upstream"
)

// Bounds of what is believed.
const (
	page     = 1000
	maxPages = 10_000
	maxList  = 8 << 20 // bytes of one page
	// atOnce is how many questions are asked at a time.
	atOnce = 4
)

// catalog lists the repositories of a registry.
func (p *place) catalog(ctx context.Context) ([]string, error) {
	return p.list(ctx, "", "_catalog", "repositories", image.CheckRepository)
}

// tags lists all tags of a repository. One that the registry does not know has
// none.
func (p *place) tags(ctx context.Context, repo string) ([]string, error) {
	tags, err := p.list(ctx, repo, "tags/list", "tags", image.CheckTag)
	if notThere(err) {
		return nil, nil
	}
	return tags, err
}

// list reads a list page by page. It is whole, or there is an error.
func (p *place) list(ctx context.Context, repo, what, key string, check func(string) error) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	query := url.Values{"n": {strconv.Itoa(page)}}.Encode()
	for range maxPages {
		resp, body, err := p.read(ctx, repo, what+"?"+query, maxList)
		if err != nil {
			return nil, err
		}
		var names []string
		var raw map[string]json.RawMessage
		if err := json.Unmarshal(body, &raw); err != nil || raw[key] == nil || json.Unmarshal(raw[key], &names) != nil {
			return nil, upstream.Unreachablef(p.host, "sent something that is no list of %s (%s)", key, upstream.Describe(resp))
		}
		more := 0
		for _, n := range names {
			if err := check(n); err != nil {
				return nil, upstream.Unreachablef(p.host, "lists something that is none of its %s: %v", key, err)
			}
			if !seen[n] {
				seen[n], more = true, more+1
				out = append(out, n)
			}
		}
		switch next := upstream.NextPage(resp.Header); {
		case next != "" && more > 0:
			query = next
		case next != "":
			return nil, upstream.Unreachablef(p.host, "sends the same page of its %s again and again", key)
		case len(names) >= page && more > 0:
			// It may know pages and not say so.
			query = url.Values{"n": {strconv.Itoa(page)}, "last": {names[len(names)-1]}}.Encode()
		default:
			return out, nil
		}
	}
	return nil, upstream.Unreachablef(p.host, "has more than %d pages of %s", maxPages, key)
}

// read asks for something of at most limit bytes.
func (p *place) read(ctx context.Context, repo, what string, limit int64) (*http.Response, []byte, error) {
	ctx, patient, cancel := upstream.Patient(ctx, timeout)
	defer cancel()
	resp, e := p.client.Ask(ctx, upstream.Question{Method: http.MethodGet, Repository: repo, What: what})
	if e != nil {
		return nil, nil, e
	}
	in := patient(resp.Body)
	defer in.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(http.MaxBytesReader(nil, in, limit)); err != nil {
		return nil, nil, upstream.Unreachablef(p.host, "broke off in the middle of %s: %v", what, err)
	}
	return resp, b.Bytes(), nil
}

// notThere reports whether the registry says for certain that it has no such
// thing, and not merely that it is not for us.
func notThere(err error) bool {
	e, ok := errors.AsType[*upstream.Error](err)
	return ok && e.Status == http.StatusNotFound
}

// resolve is the digest that a tag, or a digest, names there.
func (p *place) resolve(ctx context.Context, repo, reference string) (image.Digest, error) {
	resp, e := p.client.Ask(ctx, upstream.Question{Method: http.MethodHead, Repository: repo, What: "manifests/" + reference})
	if e != nil {
		return "", e
	}
	upstream.Drain(resp.Body)
	if d, err := image.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil {
		return d, nil
	}
	// It does not say: then by what it sends.
	m, err := p.manifest(ctx, repo, reference, "")
	if err != nil {
		return "", err
	}
	return m.digest, nil
}

// A manifest as it is there.
type manifest struct {
	digest    image.Digest
	mediaType string
	body      []byte
	*image.Manifest
}

// manifest reads one, and compares it with the digest it must have, if any.
func (p *place) manifest(ctx context.Context, repo, reference string, want image.Digest) (*manifest, error) {
	ctx, patient, cancel := upstream.Patient(ctx, timeout)
	defer cancel()
	resp, e := p.client.Ask(ctx, upstream.Question{Method: http.MethodGet, Repository: repo, What: "manifests/" + reference})
	if e != nil {
		return nil, e
	}
	resp.Body = patient(resp.Body)
	body, m, e := p.client.ReadManifest(resp, want)
	if e != nil {
		return nil, e
	}
	if want == "" {
		want = digest.FromBytes(body)
	}
	return &manifest{digest: want, mediaType: m.MediaType, body: body, Manifest: m}, nil
}

// referrers are what the registry says refers to an image. One without that
// list has none: then they have fallback tags.
func (p *place) referrers(ctx context.Context, repo string, d image.Digest) ([]image.Digest, error) {
	var out []image.Digest
	what := "referrers/" + string(d)
	for range 100 {
		resp, body, err := p.read(ctx, repo, what, image.MaxManifest)
		if e, ok := errors.AsType[*upstream.Error](err); ok && (e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		index, err := image.ParseManifest(image.MediaTypeIndex, body)
		if err != nil {
			return nil, upstream.Unreachablef(p.host, "sent something that is no list of referrers (%s): %v", upstream.Describe(resp), err)
		}
		for _, c := range index.Children {
			out = append(out, c.Digest)
		}
		next := upstream.NextPage(resp.Header)
		if next == "" {
			return out, nil
		}
		what = "referrers/" + string(d) + "?" + next
	}
	return nil, upstream.Unreachablef(p.host, "has too many pages of referrers of %s", d)
}

// resolveAll is what every tag of a repository names now. It is whole, or
// there is an error.
func (p *place) resolveAll(ctx context.Context, repo string) (map[string]image.Digest, error) {
	tags, err := p.tags(ctx, repo)
	if err != nil {
		return nil, err
	}
	out := make(map[string]image.Digest, len(tags))
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, t := range tags {
		g.Go(func() error {
			d, err := p.resolve(ctx, repo, t)
			if err != nil {
				return fmt.Errorf("tag %s: %w", t, err)
			}
			mu.Lock()
			out[t] = d
			mu.Unlock()
			return nil
		})
	}
	return out, g.Wait()
}

// deleteManifest removes a manifest and all its tags.
func (p *place) deleteManifest(ctx context.Context, repo string, d image.Digest) error {
	resp, e := p.client.Ask(ctx, upstream.Question{Method: http.MethodDelete, Repository: repo, What: "manifests/" + string(d)})
	if e != nil {
		return e
	}
	upstream.Drain(resp.Body)
	return nil
}

// put pushes a manifest under a tag or its digest.
func (p *place) put(ctx context.Context, repo, reference, mediaType string, body []byte) error {
	resp, e := p.client.Ask(ctx, upstream.Question{Method: http.MethodPut, Repository: repo, What: "manifests/" + reference, Body: body, ContentType: mediaType})
	if e != nil {
		return e
	}
	upstream.Drain(resp.Body)
	return nil
}
