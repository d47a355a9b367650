package content

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// generations count the changes of repositories. Several repositories may
// share a counter: then a change of one only costs the others a miss.
//
// The rule that keeps caches right: who reads takes the generation before it
// reads SQL; who writes counts it up after the commit and before it answers.
// An entry is served only while its generation is the current one, so nothing
// read before an acknowledged write is served after it.
type generations struct {
	seed  maphash.Seed
	slots [4096]atomic.Uint64
}

func newGenerations() *generations { return &generations{seed: maphash.MakeSeed()} }

func (g *generations) of(repo string) *atomic.Uint64 {
	return &g.slots[maphash.String(g.seed, repo)%uint64(len(g.slots))]
}

func (g *generations) bump(repo string) { g.of(repo).Add(1) }

func (g *generations) bumpAll() {
	for i := range g.slots {
		g.slots[i].Add(1)
	}
}

const cacheShards = 64

// cache keeps what was read for a repository and a second word (a reference, a
// digest, a page), up to about max bytes.
type cache[V any] struct {
	seed   maphash.Seed
	gens   *generations
	max    int64 // in each shard
	shards [cacheShards]cacheShard[V]
}

type cacheShard[V any] struct {
	mu    sync.RWMutex
	m     map[cacheKey]*cacheEntry[V]
	bytes int64
	_     [24]byte // keeps the locks of neighbours on lines of their own
}

type cacheKey struct{ repo, ref string }

type cacheEntry[V any] struct {
	v    V
	gen  uint64
	cost int64
	used atomic.Bool
}

func newCache[V any](gens *generations, max int64) *cache[V] {
	c := &cache[V]{seed: maphash.MakeSeed(), gens: gens, max: max / cacheShards}
	for i := range c.shards {
		c.shards[i].m = map[cacheKey]*cacheEntry[V]{}
	}
	return c
}

func (c *cache[V]) shard(k cacheKey) *cacheShard[V] {
	h := maphash.String(c.seed, k.repo)*31 ^ maphash.String(c.seed, k.ref)
	return &c.shards[h%cacheShards]
}

func (c *cache[V]) get(repo, ref string) (v V, ok bool) {
	k := cacheKey{repo, ref}
	s := c.shard(k)
	s.mu.RLock()
	e := s.m[k]
	s.mu.RUnlock()
	if e == nil || e.gen != c.gens.of(repo).Load() {
		return v, false
	}
	if !e.used.Load() { // reading first keeps the line shared between cores
		e.used.Store(true)
	}
	return e.v, true
}

// put keeps v, which was read after gen was loaded.
func (c *cache[V]) put(repo, ref string, gen uint64, v V, cost int64) {
	cost += int64(len(repo)+len(ref)) + 160 // the entry itself
	if cost > c.max/4 {
		return
	}
	k := cacheKey{repo, ref}
	e := &cacheEntry[V]{v: v, gen: gen, cost: cost}
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.m[k]; old != nil {
		s.bytes -= old.cost
	}
	s.m[k] = e
	s.bytes += cost
	// Second chance in the map's random order: what was used since the last
	// visit stays once more.
	for s.bytes > c.max {
		for k, e := range s.m {
			if s.bytes <= c.max {
				break
			}
			if e.used.CompareAndSwap(true, false) && e.gen == c.gens.of(k.repo).Load() {
				continue
			}
			delete(s.m, k)
			s.bytes -= e.cost
		}
	}
}
