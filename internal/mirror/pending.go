package mirror

import (
	"context"
	"errors"
	"slices"
	"sync"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// maxPending bounds the manifests that wait for their blobs, in bytes of
// their bodies. The oldest is forgotten first; it is fetched again when
// somebody asks again.
const maxPending = 64 << 20

// A waiting is an image that its upstream has and that is not here in whole:
// content keeps no manifest without its blobs, and a tag of content should not
// move to what cannot be served when the upstream is gone.
type waiting struct {
	repository string
	there      string
	u          *source
	m          *content.Manifest
	manifest   *image.Manifest
	blobs      map[image.Digest]int64

	// Guarded by pending.mu.
	tags     []string              // to set once it is here
	wanted   map[image.Digest]bool // of an index: what must be here before it is
	fetching map[image.Digest]bool // of those, what is on its way
	bringing bool
}

// pending holds what waits. Safe for concurrent use.
type pending struct {
	mu     sync.Mutex
	byKey  map[string]*waiting
	byRepo map[string]map[string]*waiting // the same
	order  []string                       // oldest first
	bytes  int
}

func newPending() *pending {
	return &pending{byKey: map[string]*waiting{}, byRepo: map[string]map[string]*waiting{}}
}

func pendingKey(repository string, d image.Digest) string { return repository + "@" + string(d) }

func (p *pending) get(repository string, d image.Digest) *waiting {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byKey[pendingKey(repository, d)]
}

// put adds w, unless its like is there, which is returned then.
func (p *pending) put(w *waiting) *waiting {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := pendingKey(w.repository, w.m.Digest)
	if old := p.byKey[key]; old != nil {
		return old
	}
	p.byKey[key] = w
	if p.byRepo[w.repository] == nil {
		p.byRepo[w.repository] = map[string]*waiting{}
	}
	p.byRepo[w.repository][key] = w
	p.order = append(p.order, key)
	p.bytes += len(w.m.Body)
	for p.bytes > maxPending && len(p.order) > 1 {
		p.drop(p.order[0])
	}
	return w
}

// drop forgets one. Hold mu.
func (p *pending) drop(key string) {
	if w := p.byKey[key]; w != nil {
		p.bytes -= len(w.m.Body)
		delete(p.byKey, key)
		if delete(p.byRepo[w.repository], key); len(p.byRepo[w.repository]) == 0 {
			delete(p.byRepo, w.repository)
		}
		p.order = slices.DeleteFunc(p.order, func(k string) bool { return k == key })
	}
}

// of lists what waits in a repository.
func (p *pending) of(repository string) (out []*waiting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.byRepo[repository] {
		out = append(out, w)
	}
	return out
}

// size is what a waiting manifest says of a blob.
func (p *pending) size(repository string, d image.Digest) (int64, bool) {
	for _, w := range p.of(repository) {
		if size, ok := w.blobs[d]; ok {
			return size, true
		}
	}
	return 0, false
}

// tag says which of a repository's is to have the tag once it is here: w, or
// none of them if that is nil.
func (p *pending) tag(repository, tag string, w *waiting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.byRepo[repository] {
		if o != w {
			o.tags = slices.DeleteFunc(o.tags, func(t string) bool { return t == tag })
		}
	}
	if w != nil && !slices.Contains(w.tags, tag) {
		w.tags = append(w.tags, tag)
	}
}

// bring begins to fetch what an image needs, unless that is under way.
func (m *Mirror) bring(w *waiting) {
	if w.manifest.Index {
		return // what an index needs is fetched as it is asked for
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending.mu.Lock()
	begin := !w.bringing
	w.bringing = true
	m.pending.mu.Unlock()
	if !begin {
		return
	}
	m.spawn(func() {
		err := m.complete(m.ctx, w)
		m.pending.mu.Lock()
		w.bringing = false
		m.pending.mu.Unlock()
		if err != nil && m.ctx.Err() == nil {
			m.log.Warn("an image is not here in whole yet", "repository", w.repository, "digest", w.m.Digest, "err", err)
		}
	})
}

// complete fetches the blobs of an image that are not here, and makes it an
// image of content.
func (m *Mirror) complete(ctx context.Context, w *waiting) error {
	for range 2 { // a blob that came long ago may have been collected by now
		err := m.fetchBlobs(ctx, w)
		if err != nil {
			return err
		}
		err = m.settle(ctx, w)
		if missing := (*content.MissingBlobsError)(nil); !errors.As(err, &missing) {
			return err
		}
	}
	return errors.New("its blobs do not stay")
}

func (m *Mirror) fetchBlobs(ctx context.Context, w *waiting) error {
	ds := w.manifest.Blobs()
	errs := make(chan error, len(ds))
	for _, d := range ds {
		select {
		case m.slot <- struct{}{}:
		case <-ctx.Done():
			errs <- ctx.Err()
			continue
		}
		go func() {
			defer func() { <-m.slot }()
			errs <- m.ensure(ctx, w.u, w.repository, w.there, d.Digest)
		}()
	}
	// Nobody may be left at work when this ends: content closes after it.
	var err error
	for range ds {
		err = errors.Join(err, <-errs)
	}
	return err
}

// settle makes a waiting manifest one of content, whose blobs are here, and
// then the indexes that waited for it.
func (m *Mirror) settle(ctx context.Context, w *waiting) error {
	m.pending.mu.Lock()
	tags := slices.Clone(w.tags)
	m.pending.mu.Unlock()
	err := m.content.PutManifest(ctx, content.Push{Repository: w.repository, Digest: w.m.Digest, Tags: tags, MediaType: w.m.MediaType,
		Body: w.m.Body, Manifest: w.manifest, Actor: w.u.actor()})
	if err != nil {
		return err
	}
	m.pending.mu.Lock()
	late := slices.ContainsFunc(w.tags, func(t string) bool { return !slices.Contains(tags, t) })
	if !late {
		m.pending.drop(pendingKey(w.repository, w.m.Digest))
	}
	m.pending.mu.Unlock()
	if late { // a tag was added meanwhile
		return m.settle(ctx, w)
	}
	m.log.Info("mirrored", "repository", w.repository, "digest", w.m.Digest, "tags", tags)
	for _, parent := range m.pending.of(w.repository) {
		m.settleIndex(ctx, parent)
	}
	return nil
}

// settleIndex makes a waiting index one of content if all is here that
// anybody wanted of it, and that is something.
func (m *Mirror) settleIndex(ctx context.Context, w *waiting) {
	if !w.manifest.Index {
		return
	}
	m.pending.mu.Lock()
	var wanted []image.Digest
	for d := range w.wanted {
		wanted = append(wanted, d)
	}
	m.pending.mu.Unlock()
	if len(wanted) == 0 && len(w.manifest.Children) > 0 {
		return
	}
	for _, d := range wanted {
		if !m.live(ctx, w.repository, d) {
			return
		}
	}
	if err := m.settle(ctx, w); err != nil && ctx.Err() == nil {
		m.log.Warn("cannot keep an index", "repository", w.repository, "digest", w.m.Digest, "err", err)
	}
}

func (m *Mirror) live(ctx context.Context, repository string, d image.Digest) bool {
	i, err := m.content.Peek(ctx, repository, string(d))
	return err == nil && i.State == content.Live
}

// want notes that somebody asked for an image, which makes it one that the
// indexes which list it wait for.
func (m *Mirror) want(ctx context.Context, repository string, d image.Digest) {
	for _, w := range m.pending.of(repository) {
		if !w.manifest.Index || !w.lists(d) {
			continue
		}
		m.pending.mu.Lock()
		w.wanted[d] = true
		m.pending.mu.Unlock()
		m.settleIndex(ctx, w)
	}
}

func (w *waiting) lists(d image.Digest) bool {
	return slices.ContainsFunc(w.manifest.Children, func(c image.Descriptor) bool { return c.Digest == d })
}
