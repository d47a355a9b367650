package usage

import (
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/image"
)

// Rows live in shards by digest, so that a pull waits for no more than the few
// memory accesses of another pull in the same shard. Digests, repositories and
// subjects are numbers in them.
const shardBits = 4

// A ref names a row: its shard in the low bits, its place there above.
type ref uint32

type shard struct {
	mu      sync.Mutex
	seed    maphash.Seed
	mix     uint64
	digests table // of entries
	entries []entry
	keys    table // of rows
	rows    []row
	free    []uint32 // rows that were pruned
	dirty   []uint32 // rows to be written

	freeEntries []uint32
}

// An entry is one digest and the list of its rows.
type entry struct {
	digest image.Digest
	first  uint32 // row + 1
	id     uint32 // in the database; 0: not there yet
}

type key struct {
	entry, repository, subject uint32
	source                     Source
}

// A row is one use. Times are in milliseconds of the Unix epoch.
type row struct {
	last   int64
	stored int64 // last as in the database
	key
	dirty bool
	nodes uint16 // as stated last, not more than it holds; not in the database
	id    uint32 // in the database; 0: not there yet
	next  uint32 // row + 1 of the next one with the same digest
	now   uint32 // statements in force that name it
}

// names gives strings numbers; 0 is "". A number is never taken back while
// the process lives: names come from images that exist and from authorised
// reporters only, and the number of rows is bounded.
type names struct {
	mu    sync.RWMutex
	seed  maphash.Seed
	ids   table
	list  []string
	saved int // list[:saved] are in the database; only the flusher uses it
}

func newNames(seed maphash.Seed) *names {
	return &names{seed: seed, list: []string{""}, saved: 1}
}

func (n *names) lookup(s string) (uint32, bool) {
	if s == "" {
		return 0, true
	}
	hash := hashOf(n.seed, s)
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.ids.find(hash, func(i uint32) bool { return n.list[i] == s })
}

func (n *names) id(s string) uint32 {
	if id, ok := n.lookup(s); ok {
		return id
	}
	hash := hashOf(n.seed, s)
	n.mu.Lock()
	defer n.mu.Unlock()
	if id, ok := n.ids.find(hash, func(i uint32) bool { return n.list[i] == s }); ok {
		return id
	}
	id := uint32(len(n.list))
	n.list = append(n.list, strings.Clone(s))
	n.ids.put(hash, id)
	return id
}

func (n *names) name(id uint32) string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.list[id]
}

// shardOf spreads by the last hex digit, which a hash makes even.
func shardOf(d image.Digest) int {
	if d == "" {
		return 0
	}
	c := d[len(d)-1]
	return int(c^c>>4) & (1<<shardBits - 1)
}

// touch records that a digest was used at a time, and reports whether it is
// recorded: it is not when that would take a new row and the ledger is full.
func (l *Ledger) touch(d image.Digest, repository, subject uint32, source Source, at int64) (ref, bool) {
	return l.touchBounded(d, repository, subject, source, at, true)
}

func (l *Ledger) touchBounded(d image.Digest, repository, subject uint32, source Source, at int64, bounded bool) (ref, bool) {
	n := shardOf(d)
	s := &l.shards[n]
	s.mu.Lock()
	defer s.mu.Unlock()
	full := bounded && l.rowCount.Load() >= l.maxRows
	e, ok := s.entry(d)
	if !ok {
		if full {
			return 0, false
		}
		e = s.addEntry(entry{digest: image.Digest(strings.Clone(string(d)))})
	}
	k := key{e, repository, subject, source}
	i, ok := s.find(k)
	if !ok {
		if full {
			return 0, false
		}
		i = s.add(k)
		l.rowCount.Add(1)
	}
	r := &s.rows[i]
	if at > r.last {
		if at-r.last >= l.granularity.Milliseconds()/2 { // new ones, too
			l.changed(s.entries[e].digest)
		}
		r.last = at
		if !r.dirty && at-r.stored >= l.due(i) {
			r.dirty = true
			s.dirty = append(s.dirty, i)
		}
	}
	return ref(i<<shardBits | uint32(n)), true
}

// due is how far a row may run ahead of the database: between a half and the
// whole of the granularity, different for each row, so that a million
// containers that were first seen together are not written together every hour.
func (l *Ledger) due(i uint32) int64 {
	half := l.granularity.Milliseconds() / 2
	if half == 0 {
		return 0
	}
	return half + int64(i*2654435761>>8)%half
}

// entry finds a digest.
func (s *shard) entry(d image.Digest) (uint32, bool) {
	return s.digests.find(hashOf(s.seed, string(d)), func(i uint32) bool { return s.entries[i].digest == d })
}

// find finds a row. Most digests have one.
func (s *shard) find(k key) (uint32, bool) {
	if i := s.entries[k.entry].first; i != 0 && s.rows[i-1].key == k {
		return i - 1, true
	}
	return s.keys.find(k.hash(s.mix), func(i uint32) bool { return s.rows[i].key == k })
}

// addEntry makes an entry.
func (s *shard) addEntry(e entry) uint32 {
	var i uint32
	if n := len(s.freeEntries); n > 0 {
		i = s.freeEntries[n-1]
		s.freeEntries = s.freeEntries[:n-1]
		s.entries[i] = e
	} else {
		i = uint32(len(s.entries))
		s.entries = append(s.entries, e)
	}
	s.digests.put(hashOf(s.seed, string(e.digest)), i)
	return i
}

// removeEntry takes out an entry that has no rows left.
func (s *shard) removeEntry(i uint32) {
	s.digests.drop(hashOf(s.seed, string(s.entries[i].digest)), i)
	s.entries[i] = entry{}
	s.freeEntries = append(s.freeEntries, i)
}

// add makes a row.
func (s *shard) add(k key) uint32 {
	var i uint32
	if n := len(s.free); n > 0 {
		i = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		i = uint32(len(s.rows))
		s.rows = append(s.rows, row{})
	}
	e := &s.entries[k.entry]
	s.rows[i] = row{key: k, next: e.first}
	e.first = i + 1
	s.keys.put(k.hash(s.mix), i)
	return i
}

// remove takes a row out; its place may be used again.
func (s *shard) remove(i uint32) {
	r := &s.rows[i]
	s.keys.drop(r.key.hash(s.mix), i)
	p := &s.entries[r.entry].first
	for *p != i+1 {
		p = &s.rows[*p-1].next
	}
	*p = r.next
	*r = row{}
	s.free = append(s.free, i)
}

// hold counts a statement in force more, release one less.
func (l *Ledger) hold(x ref) {
	s := &l.shards[x&(1<<shardBits-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.rows[x>>shardBits]
	if r.now++; r.now == 1 {
		l.changed(s.entries[r.entry].digest)
	}
}

func (l *Ledger) release(x ref) {
	s := &l.shards[x&(1<<shardBits-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := &s.rows[x>>shardBits]; r.now > 0 {
		r.now--
	}
}

// source is the source of a row.
func (l *Ledger) source(x ref) Source {
	s := &l.shards[x&(1<<shardBits-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows[x>>shardBits].source
}

// restate sets the time of rows in force.
func (l *Ledger) restate(x ref, at int64) {
	s := &l.shards[x&(1<<shardBits-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	i := uint32(x >> shardBits)
	r := &s.rows[i]
	if at > r.last {
		r.last = at
		if !r.dirty && at-r.stored >= l.due(i) {
			r.dirty = true
			s.dirty = append(s.dirty, i)
		}
	}
}

// when is the time of a row as decisions see it. What was stored before an
// unclean stop may have been used until the granularity later without that
// being written, but not after the start that found it.
func (l *Ledger) when(last int64) int64 {
	if un := l.unclean.Load(); last < un {
		return min(last+l.slack, un)
	}
	return last
}

func (l *Ledger) use(d image.Digest, r *row) Use {
	return Use{
		Digest:     d,
		Repository: l.names.name(r.repository),
		Source:     r.source,
		Subject:    l.names.name(r.subject),
		At:         time.UnixMilli(l.when(r.last)).UTC(),
		Now:        r.now > 0,
		Nodes:      r.runsOn(),
	}
}

// runsOn is on how many nodes a use goes on, if it does.
func (r *row) runsOn() int {
	if r.now == 0 {
		return 0
	}
	return int(r.nodes)
}

// count notes on how many nodes a use goes on.
func (l *Ledger) count(x ref, nodes int) {
	s := &l.shards[x&(1<<shardBits-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[x>>shardBits].nodes = uint16(min(max(nodes, 0), math.MaxUint16))
}

// Uses are all uses of a digest, those that go on first, then newest first. It
// does not know manifests: see [Graph].
func (l *Ledger) Uses(d image.Digest) []Use {
	s := &l.shards[shardOf(d)]
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entry(d)
	if !ok {
		return nil
	}
	var out []Use
	for i := s.entries[e].first; i != 0; i = s.rows[i-1].next {
		out = append(out, l.use(d, &s.rows[i-1]))
	}
	sortUses(out)
	return out
}

// LastUse is the best use of a digest (see [Better]), of any repository and of
// those that name repository or none; a zero At means none. It is a [Lookup]
// and allocates nothing.
func (l *Ledger) LastUse(d image.Digest, repository string) (anywhere, here Use) {
	// A repository that was never named has no number; none has this one.
	id, known := l.names.lookup(repository)
	if !known {
		id = ^uint32(0)
	}
	s := &l.shards[shardOf(d)]
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entry(d)
	if !ok {
		return Use{}, Use{}
	}
	var a, h *row
	for i := s.entries[e].first; i != 0; i = s.rows[i-1].next {
		r := &s.rows[i-1]
		if a == nil || r.better(a) {
			a = r
		}
		if (r.repository == 0 || r.repository == id) && (h == nil || r.better(h)) {
			h = r
		}
	}
	if a != nil {
		anywhere = l.use(d, a)
	}
	if h != nil {
		here = anywhere
		if h != a {
			here = l.use(d, h)
		}
	}
	return anywhere, here
}

func (r *row) better(o *row) bool {
	if (r.now > 0) != (o.now > 0) {
		return r.now > 0
	}
	return r.last > o.last
}
