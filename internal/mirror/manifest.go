package mirror

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/upstream"
)

const (
	// maxTags bounds the answers about tags that are remembered.
	maxTags = 100_000
	// failureTTL is how long a failure is remembered, if ttl is not shorter.
	failureTTL = 10 * time.Second
	// fetchTimeout bounds how long a fetch of a manifest may take, with its retries.
	fetchTimeout = 2 * time.Minute
)

// A tag is what the upstream last said about one.
type tag struct {
	asking chan struct{} // closed when the answer is there; nil: nobody asks

	until  time.Duration // the answer holds, monotonic
	digest image.Digest
	err    *Error
	// settled: content's tag names digest.
	settled bool
}

// isDigest tells a digest from a tag, which cannot hold a colon.
func isDigest(reference string) bool { return strings.IndexByte(reference, ':') >= 0 }

// Manifest is what a tag or digest names in a mirrored repository. A tag is
// asked of the upstream, at most once per ttl; what the answer names comes from
// here, or from there. When the upstream does not help, what is here is
// returned with a warning for the client. wanted says that somebody is about to
// pull it and not only to look: the rest of the image is then fetched as well.
// The error is an [*Error], or one of content's.
func (m *Mirror) Manifest(ctx context.Context, repository, reference string, wanted bool) (_ *content.Manifest, warning string, _ error) {
	u, there, refused := m.upstreamOf(repository)
	if u == nil {
		return nil, "", refused
	}
	if isDigest(reference) {
		d, err := image.ParseDigest(reference)
		if err != nil {
			return nil, "", err
		}
		c, err := m.byDigest(ctx, u, repository, there, d, wanted, refused)
		return c, "", err
	}
	if err := image.CheckTag(reference); err != nil {
		return nil, "", err
	}
	if err := image.CheckRepository(repository); err != nil {
		return nil, "", err
	}
	if refused != nil {
		c, err := m.content.Manifest(ctx, repository, reference)
		if notHere(err) {
			err = refused
		}
		return c, "", err
	}
	t, err := m.ask(ctx, u, repository, there, reference)
	if err != nil {
		return nil, "", err
	}
	if t.err != nil {
		return m.instead(ctx, repository, reference, t.err)
	}
	if t.settled {
		// Everyday: content has it in memory.
		if c, err := m.content.Manifest(ctx, repository, reference); err == nil && c.Digest == t.digest {
			m.asked(ctx, c, wanted)
			return c, "", nil
		}
	}
	c, err := m.content.Manifest(ctx, repository, string(t.digest))
	if err == nil {
		if err := m.point(ctx, u, repository, reference, t.digest); err != nil {
			return nil, "", err
		}
		m.asked(ctx, c, wanted)
		return c, "", nil
	}
	if !notHere(err) && !errors.Is(err, content.ErrCorrupt) {
		return nil, "", err
	}
	w, err := m.fetched(ctx, u, repository, there, t.digest)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			return m.instead(ctx, repository, reference, e)
		}
		return nil, "", err
	}
	m.pending.tag(repository, reference, w)
	// The new one would be of no use without its blobs.
	if u.client.Closed() {
		if c, err := m.content.Manifest(ctx, repository, reference); err == nil {
			return c, copyInstead(unreachable(u.Host, "does not answer now")), nil
		}
	}
	if w.manifest.Index {
		m.follow(ctx, w, reference)
	}
	if wanted {
		m.bring(w)
		m.want(ctx, repository, w.m.Digest)
	}
	return w.m, "", nil
}

// asked tells waiting indexes of an image that is here already.
func (m *Mirror) asked(ctx context.Context, c *content.Manifest, wanted bool) {
	if wanted {
		m.want(ctx, c.Repository, c.Digest)
	}
}

func (m *Mirror) byDigest(ctx context.Context, u *source, repository, there string, d image.Digest, wanted bool, refused error) (*content.Manifest, error) {
	c, err := m.content.Manifest(ctx, repository, string(d))
	if err == nil {
		m.asked(ctx, c, wanted)
		return c, nil
	}
	if !notHere(err) && !errors.Is(err, content.ErrCorrupt) {
		return nil, err
	}
	if refused != nil {
		return nil, refused
	}
	w, err := m.fetched(ctx, u, repository, there, d)
	if err != nil {
		return nil, err
	}
	if wanted {
		m.want(ctx, repository, d)
		m.bring(w)
	}
	return w.m, nil
}

func notHere(err error) bool {
	return errors.Is(err, content.ErrManifestUnknown) || errors.Is(err, content.ErrRepositoryUnknown)
}

// instead serves what is here because the upstream does not help.
func (m *Mirror) instead(ctx context.Context, repository, reference string, e *Error) (*content.Manifest, string, error) {
	c, err := m.content.Manifest(ctx, repository, reference)
	if notHere(err) {
		return nil, "", e
	}
	if err != nil {
		return nil, "", err
	}
	return c, copyInstead(e), nil
}

// point makes content's tag name what the upstream's names.
func (m *Mirror) point(ctx context.Context, u *source, repository, name string, d image.Digest) error {
	m.pending.tag(repository, name, nil)
	i, err := m.content.Peek(ctx, repository, name)
	if err != nil && !notHere(err) {
		return err
	}
	if err != nil || i.State != content.Live || i.Digest != d {
		if err := m.content.SetTag(ctx, repository, d, name, u.actor()); err != nil {
			// The image itself can be served, which is what somebody waits for.
			m.log.Warn("cannot move a mirrored tag", "repository", repository, "tag", name, "digest", d, "err", err)
			return nil
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.tags[tagKey(repository, name)]; t != nil && t.digest == d {
		t.settled = true
	}
	return nil
}

func tagKey(repository, name string) string { return repository + ":" + name }

// ask is what the upstream says about a tag now, or said within the last ttl.
// Who asks at the same time shares one question.
func (m *Mirror) ask(ctx context.Context, u *source, repository, there, name string) (tag, error) {
	key := tagKey(repository, name)
	for {
		m.mu.Lock()
		t := m.tags[key]
		if t != nil && t.asking == nil && m.clock.Mono() < t.until {
			defer m.mu.Unlock()
			return *t, nil
		}
		if t == nil {
			t = &tag{}
			m.forget()
			m.tags[key] = t
		}
		if t.asking == nil {
			t.asking = make(chan struct{})
			ok := m.spawn(func() {
				d, e := m.head(m.ctx, u, there, name)
				m.mu.Lock()
				defer m.mu.Unlock()
				hold := u.TTL
				switch {
				case e == nil || e.Kind == NotFound:
				case u.client.Closed():
					hold = 0 // the gate answers next time, and knows until when
				default:
					hold = min(hold, failureTTL)
				}
				if e != nil || d != t.digest {
					t.settled = false
				}
				t.digest, t.err, t.until = d, e, m.clock.Mono()+hold
				close(t.asking)
				t.asking = nil
			})
			if !ok {
				t.asking = nil
				m.mu.Unlock()
				return tag{}, errors.New("the registry is stopping")
			}
		}
		asking := t.asking
		m.mu.Unlock()
		select {
		case <-asking:
		case <-ctx.Done():
			return tag{}, ctx.Err()
		}
		m.mu.Lock()
		answer := *t
		m.mu.Unlock()
		if answer.asking == nil {
			return answer, nil
		}
	}
}

// forget makes room for one more tag. Hold mu.
func (m *Mirror) forget() {
	if len(m.tags) < maxTags {
		return
	}
	now, some := m.clock.Mono(), 0
	for key, t := range m.tags {
		if t.asking == nil && (t.until <= now || some == 0) {
			delete(m.tags, key)
		}
		if some++; some > 1000 {
			return
		}
	}
}

// head asks which manifest a tag names. It costs the upstream, and the
// allowance it gives us, less than a GET.
func (m *Mirror) head(ctx context.Context, u *source, there, name string) (image.Digest, *Error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	resp, e := u.client.Ask(ctx, upstream.Question{Method: http.MethodHead, Repository: there, What: "manifests/" + name})
	if e != nil {
		return "", e
	}
	upstream.Drain(resp.Body)
	if d, err := image.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil {
		return d, nil
	}
	// Some do not say; others are no registry at all. Both show in the whole.
	resp, e = u.client.Ask(ctx, upstream.Question{Method: http.MethodGet, Repository: there, What: "manifests/" + name})
	if e != nil {
		return "", e
	}
	body, _, e := u.client.ReadManifest(resp, "")
	if e != nil {
		return "", e
	}
	return digest.SHA256.FromBytes(body), nil
}

// fetched is a manifest that is not here, from what waits or from the
// upstream. Who asks at the same time shares one download.
func (m *Mirror) fetched(ctx context.Context, u *source, repository, there string, d image.Digest) (*waiting, error) {
	if w := m.pending.get(repository, d); w != nil {
		return w, nil
	}
	done := m.manifests.DoChan(pendingKey(repository, d), func() (any, error) {
		w, e := m.fetchManifest(m.ctx, u, repository, there, d)
		if e != nil {
			return nil, e
		}
		return m.pending.put(w), nil
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*waiting), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *Mirror) fetchManifest(ctx context.Context, u *source, repository, there string, d image.Digest) (*waiting, *Error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	resp, e := u.client.Ask(ctx, upstream.Question{Method: http.MethodGet, Repository: there, What: "manifests/" + string(d)})
	if e != nil {
		return nil, e
	}
	body, parsed, e := u.client.ReadManifest(resp, d)
	if e != nil {
		return nil, e
	}
	c := &content.Manifest{Repository: repository, Digest: d, MediaType: parsed.MediaType, Body: body, Pushed: m.clock.Now()}
	if parsed.Subject != nil {
		c.Subject = parsed.Subject.Digest
	}
	w := &waiting{repository: repository, there: there, u: u, m: c, manifest: parsed, blobs: map[image.Digest]int64{},
		wanted: map[image.Digest]bool{}, fetching: map[image.Digest]bool{}}
	for _, b := range parsed.Blobs() {
		w.blobs[b.Digest] = b.Size
	}
	return w, nil
}

// follow finds out what has to be here before a tag moves to the index w: what
// is here of it already, and what was here, by platform, of what the tag named
// so far. That is fetched without being asked for.
func (m *Mirror) follow(ctx context.Context, w *waiting, name string) {
	var platforms []image.Platform
	if old, err := m.content.Peek(ctx, w.repository, name); err == nil && old.State == content.Live {
		if c, err := m.content.Manifest(ctx, w.repository, string(old.Digest)); err == nil {
			if p, err := image.ParseManifest(c.MediaType, c.Body); err == nil {
				for _, child := range p.Children {
					if child.Platform != nil && m.live(ctx, w.repository, child.Digest) {
						platforms = append(platforms, *child.Platform)
					}
				}
			}
		}
	}
	var fetch []image.Digest
	for _, child := range w.manifest.Children {
		live := m.live(ctx, w.repository, child.Digest)
		if !live && (child.Platform == nil || !slices.Contains(platforms, *child.Platform)) {
			continue
		}
		m.pending.mu.Lock()
		w.wanted[child.Digest] = true
		if !live && !w.fetching[child.Digest] {
			w.fetching[child.Digest] = true
			fetch = append(fetch, child.Digest)
		}
		m.pending.mu.Unlock()
	}
	if len(fetch) == 0 {
		m.settleIndex(ctx, w)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spawn(func() {
		for _, d := range fetch {
			c, err := m.fetched(m.ctx, w.u, w.repository, w.there, d)
			if err == nil {
				err = m.complete(m.ctx, c)
			}
			m.pending.mu.Lock()
			delete(w.fetching, d) // after a failure, the next pull tries again
			var e *Error
			if errors.As(err, &e) && e.Kind == NotFound {
				delete(w.wanted, d) // what nobody can have must not hold up the rest
			}
			m.pending.mu.Unlock()
			if err != nil && m.ctx.Err() == nil {
				m.log.Warn("a new image is not here in whole yet, its tag stays where it is", "repository", w.repository, "tag", name, "digest", w.m.Digest, "err", err)
			}
		}
		m.settleIndex(m.ctx, w)
	})
}
