package catalog

import (
	"context"
	"sync"
	"time"

	"cairn.dev/cairn/internal/image"
)

// A Memory keeps what a registry that is not ours told: since when its tags and
// digests are known, and what they are. [*Store] survives the process;
// [NewMemory] does not. The times are to the millisecond.
type Memory interface {
	// Tags notes all tags that a repository has now and returns since when each
	// has been there. One that is new is there since now; what is no longer there
	// is forgotten, and would be new if it came back.
	Tags(ctx context.Context, repository string, names []string, now time.Time) (map[string]time.Time, error)
	// Digest notes one that is there now and returns since when it is known.
	Digest(ctx context.Context, repository string, d image.Digest, now time.Time) (time.Time, error)
	// Facts returns what was kept about a digest, if anything was.
	Facts(ctx context.Context, repository string, d image.Digest) (Image, bool, error)
	// Keep keeps what a digest is that was noted; its Since and its signature
	// are not kept.
	Keep(ctx context.Context, repository string, im Image) error
}

// maxDigests is how many digests a memory without a database knows.
const maxDigests = 200_000

// NewMemory returns a [Memory] that is as old as the process.
func NewMemory() Memory {
	return &memory{tags: map[string]map[string]time.Time{}, digests: map[factKey]time.Time{}, facts: newFacts()}
}

type memory struct {
	mu      sync.Mutex
	tags    map[string]map[string]time.Time
	digests map[factKey]time.Time
	facts   *facts
}

func (m *memory) Tags(_ context.Context, repository string, names []string, now time.Time) (map[string]time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.tags[repository]
	after := make(map[string]time.Time, len(names))
	for _, n := range names {
		at, ok := before[n]
		if !ok {
			at = now.Truncate(time.Millisecond)
		}
		after[n] = at
	}
	m.tags[repository] = after
	return after, nil
}

func (m *memory) Digest(_ context.Context, repository string, d image.Digest, now time.Time) (time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := factKey{repository, d}
	at, ok := m.digests[k]
	if !ok {
		if len(m.digests) >= maxDigests {
			clear(m.digests) // younger than they are: who waits waits longer
		}
		at = now.Truncate(time.Millisecond)
		m.digests[k] = at
	}
	return at, nil
}

func (m *memory) Facts(_ context.Context, repository string, d image.Digest) (Image, bool, error) {
	im, ok := m.facts.get(repository, d)
	return im, ok, nil
}

func (m *memory) Keep(_ context.Context, repository string, im Image) error {
	m.mu.Lock()
	_, noted := m.digests[factKey{repository, im.Digest}]
	m.mu.Unlock()
	if !noted {
		return nil
	}
	m.facts.put(repository, im.Digest, im)
	return nil
}
