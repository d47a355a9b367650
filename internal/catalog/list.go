package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/upstream"
)

// Bounds of what is believed about tags.
const (
	maxTags     = 200_000
	maxListBody = 32 << 20 // bytes of one page
	// maxListed is how many tags of all repositories are kept to compare with.
	maxListed = 2_000_000
)

// listing is the last whole list of a repository's tags.
type listing struct {
	pages map[string]page // by their query
	tags  []Tag
	until time.Duration // monotonic: when to ask again
}

// page is one answer.
type page struct {
	etag  string
	names []string
	next  string
	// told is what Google's registries tell besides.
	told map[string]Tag
}

// Tags implements [Catalog].
func (r *Remote) Tags(ctx context.Context, repository string) ([]Tag, error) {
	at, err := r.place(repository)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	old := r.listings[at.name]
	fresh := old != nil && r.clock.Mono() < old.until
	var tags []Tag
	if fresh {
		tags = old.tags
	}
	r.mu.Unlock()
	if fresh {
		return tags, nil
	}
	tags, err = share(ctx, r, "tags "+at.name, func(ctx context.Context) ([]Tag, error) { return r.list(ctx, at) })
	if err != nil {
		return nil, fmt.Errorf("list the tags of %s: %w", at.name, err)
	}
	return tags, nil
}

// list asks for all tags and notes since when they are there.
func (r *Remote) list(ctx context.Context, at remoteRepository) ([]Tag, error) {
	began := r.clock.Mono()
	r.mu.Lock()
	var old map[string]page
	if l := r.listings[at.name]; l != nil {
		old = l.pages
	}
	r.mu.Unlock()
	pages, names, told, err := at.tags(ctx, old)
	if err != nil {
		return nil, err
	}
	now := r.clock.Now()
	since, err := r.memory.Tags(ctx, at.name, names, now)
	if err != nil {
		return nil, err
	}
	tags := make([]Tag, len(names))
	for i, n := range names {
		t := Tag{Name: n, Since: since[n]}
		if p, ok := told[n]; ok {
			// The registry's own word on when it got what the tag names now: better
			// than ours, since a tag that moved is as young as its image. A clock
			// that runs ahead is not believed.
			t.Digest = p.Digest
			if p.Since.Before(now) {
				t.Since, t.Pushed = p.Since, true
			}
		}
		tags[i] = t
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.listings[at.name]; l != nil {
		r.listed -= len(l.tags)
		delete(r.listings, at.name)
	}
	for name, l := range r.listings { // any: all are asked in turn
		if r.listed+len(tags) <= maxListed {
			break
		}
		r.listed -= len(l.tags)
		delete(r.listings, name)
	}
	r.listed += len(tags)
	r.listings[at.name] = &listing{pages: pages, tags: tags, until: began + r.cfg.TTL}
	return tags, nil
}

// pageSize is how many tags are asked for at a time: quay.io refuses more than
// 100, others send as many as they like.
func (h *host) pageSize() int {
	if h.name == "quay.io" {
		return 100
	}
	return 1000
}

// tags lists all tags. It is whole, or there is an error.
func (p remoteRepository) tags(ctx context.Context, old map[string]page) (pages map[string]page, names []string, told map[string]Tag, err error) {
	size := p.pageSize()
	query := url.Values{"n": {strconv.Itoa(size)}}.Encode()
	pages = map[string]page{}
	seen := map[string]bool{}
	for {
		if _, again := pages[query]; again {
			return nil, nil, nil, upstream.Unreachablef(p.host.name, "sends the same page of its tags again and again")
		}
		got, err := p.page(ctx, query, old[query])
		if len(pages) == 0 && refusesSize(err) && size > 100 {
			size = 100
			query = url.Values{"n": {strconv.Itoa(size)}}.Encode()
			continue
		}
		if err != nil {
			return nil, nil, nil, err
		}
		pages[query] = got
		more := 0
		for _, n := range got.names {
			if !seen[n] {
				seen[n], more = true, more+1
				names = append(names, n)
			}
			if t, ok := got.told[n]; ok {
				if told == nil {
					told = map[string]Tag{}
				}
				told[n] = t
			}
		}
		switch {
		case len(names) > maxTags:
			return nil, nil, nil, fmt.Errorf("it has more than %d tags: have the registry delete old ones", maxTags)
		case got.next != "" && more > 0:
			query = got.next
		case got.next != "":
			return nil, nil, nil, upstream.Unreachablef(p.host.name, "sends the same page of its tags again and again")
		case len(got.names) == size && more > 0:
			// It may know pages and not say so.
			query = url.Values{"n": {strconv.Itoa(size)}, "last": {got.names[len(got.names)-1]}}.Encode()
		default:
			return pages, names, told, nil
		}
	}
}

// refusesSize reports whether a registry may not like the size of pages.
func refusesSize(err error) bool {
	e, ok := errors.AsType[*upstream.Error](err)
	return ok && (e.Status == http.StatusBadRequest || e.Status == http.StatusRequestEntityTooLarge || e.Status == http.StatusUnprocessableEntity)
}

// page asks for one page, or whether it is still what it was.
func (p remoteRepository) page(ctx context.Context, query string, old page) (page, error) {
	var got page
	err := p.ask(ctx, upstream.Question{Method: http.MethodGet, What: "tags/list?" + query, IfNoneMatch: old.etag}, func(resp *http.Response) error {
		if resp.StatusCode == http.StatusNotModified {
			got = old
			return nil
		}
		body, err := p.read(resp, maxListBody)
		if err != nil {
			return err
		}
		got = page{etag: etag(resp.Header), next: upstream.NextPage(resp.Header)}
		var list struct {
			Tags     *[]string       `json:"tags"`
			Manifest json.RawMessage `json:"manifest"`
		}
		// A repository without tags has null.
		list.Tags = &[]string{}
		if err := json.Unmarshal(body, &list); err != nil || !bytes.Contains(body, []byte(`"tags"`)) {
			return upstream.Unreachablef(p.host.name, "sent something that is no list of tags (%s)", upstream.Describe(resp))
		}
		if list.Tags == nil {
			return nil
		}
		for _, n := range *list.Tags {
			if err := image.CheckTag(n); err != nil {
				return upstream.Unreachablef(p.host.name, "lists something that is no tag: %v", err)
			}
		}
		got.names = *list.Tags
		if googles(p.host.name) {
			got.told = uploads(list.Manifest)
		}
		return nil
	})
	return got, err
}

// etag is the one of an answer, if it can be sent back.
func etag(h http.Header) string {
	if t := h.Get("ETag"); len(t) <= 256 && strings.IndexFunc(t, unprintable) < 0 {
		return t
	}
	return ""
}

// read reads an answer of at most limit bytes.
func (p remoteRepository) read(resp *http.Response, limit int64) ([]byte, error) {
	var b bytes.Buffer
	if _, err := b.ReadFrom(http.MaxBytesReader(nil, resp.Body, limit)); err != nil {
		return nil, upstream.Unreachablef(p.host.name, "broke off in the middle of an answer, or sent more than %d bytes: %v", limit, err)
	}
	return b.Bytes(), nil
}

// googles reports whether a host is Google's, whose lists of tags say more
// than others' (Artifact Registry and Container Registry).
func googles(host string) bool {
	return host == "gcr.io" || strings.HasSuffix(host, ".gcr.io") || strings.HasSuffix(host, "-docker.pkg.dev")
}

// uploads reads what Google's lists add: digests, and when they were uploaded,
// which is not for the publisher to say. What cannot be read is left out.
func uploads(text json.RawMessage) map[string]Tag {
	var manifests map[string]struct {
		Tag      []string `json:"tag"`
		Uploaded int64    `json:"timeUploadedMs,string"`
	}
	if len(text) == 0 || json.Unmarshal(text, &manifests) != nil {
		return nil
	}
	told := map[string]Tag{}
	for name, m := range manifests {
		d, err := image.ParseDigest(name)
		if err != nil || m.Uploaded <= 0 {
			continue
		}
		for _, t := range m.Tag {
			told[t] = Tag{Name: t, Digest: d, Since: time.UnixMilli(m.Uploaded).UTC()}
		}
	}
	return told
}
