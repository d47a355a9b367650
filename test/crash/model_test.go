package crash_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/image"
)

// A content is bytes that can be made again from a seed.
type content struct {
	seed uint64
	size int
}

func (c content) bytes() []byte {
	b := make([]byte, c.size)
	var seed [32]byte
	for i := range 8 {
		seed[i] = byte(c.seed >> (8 * i))
	}
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

// A manifest is one that was pushed, as long as it is not deleted.
type manifest struct {
	body  []byte
	blobs []image.Digest
	round int // of its last change: newer ones are looked at more closely
}

// A repo is what one worker knows of its repository. Only that worker writes
// to it, one request at a time, so that there is at most one change of which
// it is not known whether it took effect.
type repo struct {
	name      string
	rng       *rand.Rand
	manifests map[digest.Digest]*manifest
	deleted   map[digest.Digest]bool
	tags      map[string]digest.Digest
	used      map[string]bool // every tag there ever was
	maybe     *change
	upload    *upload
	round     int
}

// A change is an effect on the model, and how to tell whether it took place.
type change struct {
	what  string
	apply func()
	done  func(p *process) (bool, error)
}

// An upload is one in chunks: acked bytes were answered, and up to sent bytes
// may be there.
type upload struct {
	location    string
	c           content
	acked, sent int
	finishing   bool
	at          time.Time
}

func newRepo(name string, rng *rand.Rand) *repo {
	return &repo{name: name, rng: rng, manifests: map[digest.Digest]*manifest{}, deleted: map[digest.Digest]bool{}, tags: map[string]digest.Digest{}, used: map[string]bool{}}
}

func (r *repo) url(format string, args ...any) string {
	return "/v2/" + r.name + "/" + fmt.Sprintf(format, args...)
}

// attempt sends a change and notes its effect when it was answered.
func (r *repo) attempt(c *change, send func() error) error {
	r.maybe = c
	if err := send(); err != nil {
		return err
	}
	c.apply()
	r.maybe = nil
	return nil
}

// settle finds out about the change that was under way when the process died.
func (r *repo) settle(p *process) error {
	if r.maybe == nil {
		return nil
	}
	done, err := r.maybe.done(p)
	if err != nil {
		return fmt.Errorf("%s: %w", r.maybe.what, err)
	}
	if done {
		r.maybe.apply()
	}
	r.maybe = nil
	return nil
}

// put is the push of a manifest under tags, or by digest only.
func (r *repo) put(p *process, body []byte, blobs []image.Digest, tags []string) error {
	g := digest.FromBytes(body)
	c := &change{
		what: fmt.Sprintf("push %s with tags %v", g, tags),
		apply: func() {
			r.manifests[g] = &manifest{body, blobs, r.round}
			delete(r.deleted, g)
			for _, t := range tags {
				r.tags[t], r.used[t] = g, true
			}
		},
		done: func(p *process) (bool, error) {
			if len(tags) == 0 {
				return r.there(p, string(g), g)
			}
			return r.there(p, tags[0], g)
		},
	}
	path := r.url("manifests/%s", g)
	switch {
	case len(tags) == 1:
		path = r.url("manifests/%s", tags[0])
	case len(tags) > 1:
		path += "?tag=" + strings.Join(tags, "&tag=")
	}
	return r.attempt(c, func() error {
		_, err := p.want(http.MethodPut, path, body, []int{http.StatusCreated}, "Content-Type", image.MediaTypeManifest)
		return err
	})
}

func (r *repo) deleteTag(p *process, tag string) error {
	c := &change{
		what:  "delete tag " + tag,
		apply: func() { delete(r.tags, tag) },
		done: func(p *process) (bool, error) {
			there, err := r.there(p, tag, r.tags[tag])
			return !there, err
		},
	}
	return r.attempt(c, func() error {
		_, err := p.want(http.MethodDelete, r.url("manifests/%s", tag), nil, []int{http.StatusAccepted})
		return err
	})
}

func (r *repo) deleteManifest(p *process, g digest.Digest) error {
	c := &change{
		what: "delete " + string(g),
		apply: func() {
			delete(r.manifests, g)
			r.deleted[g] = true
			maps.DeleteFunc(r.tags, func(_ string, to digest.Digest) bool { return to == g })
		},
		done: func(p *process) (bool, error) {
			there, err := r.there(p, string(g), g)
			return !there, err
		},
	}
	return r.attempt(c, func() error {
		_, err := p.want(http.MethodDelete, r.url("manifests/%s", g), nil, []int{http.StatusAccepted})
		return err
	})
}

// there reports whether ref stands for g.
func (r *repo) there(p *process, ref string, g digest.Digest) (bool, error) {
	a, err := p.want(http.MethodHead, r.url("manifests/%s", ref), nil, []int{http.StatusOK, http.StatusNotFound})
	return a.status == http.StatusOK && a.header.Get("Docker-Content-Digest") == string(g), err
}

// verify compares the server with the model. Manifests that did not change
// since the given round are looked at by chance only.
func (r *repo) verify(p *process, since int) error {
	var names []string
	a, err := p.want(http.MethodGet, r.url("tags/list"), nil, []int{http.StatusOK, http.StatusNotFound})
	if err != nil {
		return err
	}
	if a.status == http.StatusOK {
		var list struct{ Tags []string }
		if err := json.Unmarshal(a.body, &list); err != nil {
			return err
		}
		names = list.Tags
	}
	if want := slices.Sorted(maps.Keys(r.tags)); !slices.Equal(names, want) {
		return fmt.Errorf("%s has the tags %v, want %v", r.name, names, want)
	}
	for t := range r.used {
		g, ok := r.tags[t]
		there, err := r.there(p, t, g)
		if err != nil {
			return err
		}
		if there != ok {
			return fmt.Errorf("%s:%s stands for %s: %v, want %v", r.name, t, g, there, ok)
		}
	}
	for g, m := range r.manifests {
		if m.round < since && r.rng.IntN(10) != 0 {
			continue
		}
		a, err := p.want(http.MethodGet, r.url("manifests/%s", g), nil, []int{http.StatusOK})
		if err != nil {
			return fmt.Errorf("acknowledged and gone: %w", err)
		}
		if !bytes.Equal(a.body, m.body) {
			return fmt.Errorf("manifest %s is not what was pushed", g)
		}
		for _, b := range m.blobs {
			if err := r.wantBlob(p, b); err != nil {
				return fmt.Errorf("of manifest %s: %w", g, err)
			}
		}
	}
	for g := range r.deleted {
		if _, err := p.want(http.MethodGet, r.url("manifests/%s", g), nil, []int{http.StatusNotFound}); err != nil {
			return fmt.Errorf("deleted and back: %w", err)
		}
	}
	return nil
}

func (r *repo) wantBlob(p *process, g image.Digest) error {
	a, err := p.want(http.MethodGet, r.url("blobs/%s", g), nil, []int{http.StatusOK})
	if err != nil {
		return fmt.Errorf("acknowledged and gone: %w", err)
	}
	if got := g.Algorithm().FromBytes(a.body); got != g {
		return fmt.Errorf("blob %s is served with %d bytes that have the digest %s", g, len(a.body), got)
	}
	return nil
}
