package mirror

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"time"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/upstream"
)

const (
	// maxReferrerPages bounds the pages of one list.
	maxReferrerPages = 16
	// maxLists bounds the lists that are remembered.
	maxLists = 4096
)

// A list is what an upstream said refers to an image.
type list struct {
	until time.Duration
	of    []image.Descriptor
}

// Referrers is what the upstream says refers to an image: signatures, lists of
// contents. It is asked once per ttl. When it does not help there are none:
// what is here is the caller's to add.
func (m *Mirror) Referrers(ctx context.Context, repository string, d image.Digest) ([]image.Descriptor, error) {
	u, there, err := m.upstreamOf(repository)
	if err != nil {
		return nil, nil // offline, or not to be fetched: what is here is all
	}
	key := pendingKey(repository, d)
	m.mu.Lock()
	known, ok := m.lists[key]
	m.mu.Unlock()
	if ok && m.clock.Mono() < known.until {
		return known.of, nil
	}
	done := m.manifests.DoChan("referrers "+key, func() (any, error) {
		l := list{until: m.clock.Mono() + u.TTL}
		var e *Error
		if l.of, e = m.fetchReferrers(m.ctx, u, there, d); e != nil {
			if e.Kind != NotFound { // many do not have such lists at all
				l.until = m.clock.Mono() + min(u.TTL, failureTTL)
				m.log.Warn("cannot ask what refers to an image", "repository", repository, "digest", d, "err", e)
			}
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.lists) >= maxLists {
			clear(m.lists)
		}
		m.lists[key] = l
		return l.of, nil
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.([]image.Descriptor), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *Mirror) fetchReferrers(ctx context.Context, u *source, there string, d image.Digest) ([]image.Descriptor, *Error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	var out []image.Descriptor
	what := "referrers/" + string(d)
	for range maxReferrerPages {
		resp, e := u.client.Ask(ctx, upstream.Question{Method: http.MethodGet, Repository: there, What: what})
		if e != nil {
			return nil, e
		}
		next := upstream.NextPage(resp.Header)
		var b bytes.Buffer
		_, err := b.ReadFrom(http.MaxBytesReader(nil, resp.Body, image.MaxManifest))
		resp.Body.Close()
		var index *image.Manifest
		if err == nil {
			index, err = image.ParseManifest(image.MediaTypeIndex, b.Bytes())
		}
		if err == nil && !index.Index {
			err = errors.New("it is no index")
		}
		if err != nil {
			return nil, unreachable(u.Host, "sent something that is no list of referrers (%s): %v", upstream.Describe(resp), err)
		}
		out = append(out, index.Children...)
		if next == "" {
			break
		}
		what = "referrers/" + string(d) + "?" + next
	}
	return out, nil
}
