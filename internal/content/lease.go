package content

import (
	"hash/maphash"
	"sync"
	"time"

	"cairn.dev/cairn/internal/image"
)

// leases remember, for the grace period, which blobs a client was told exist.
//
// The order that cannot race: who tells a client renews the lease before
// looking whether the blob is there; the collector condemns a digest, which
// fails while a lease runs, before it looks whether the blob is needed. Who
// finds a digest condemned waits for the digest's lock, that is until the
// collector is done with this one blob, and looks then.
//
// Digests are remembered by a 64-bit hash. Two that share one only protect
// each other.
type leases struct {
	seed   maphash.Seed
	shards [64]struct {
		mu sync.Mutex
		m  map[uint64]time.Duration // until when, on the monotonic clock
	}
}

const condemned time.Duration = -1

func newLeases() *leases {
	l := &leases{seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].m = map[uint64]time.Duration{}
	}
	return l
}

// renew protects d until the given time and reports whether it was free to do
// so. force is for who holds the digest's lock: the collector is not at it.
func (l *leases) renew(d image.Digest, until time.Duration, force bool) bool {
	h := maphash.String(l.seed, string(d))
	s := &l.shards[h%64]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[h] == condemned && !force {
		return false
	}
	s.m[h] = max(until, s.m[h])
	return true
}

// condemn marks d unless it is protected; then it returns until when.
func (l *leases) condemn(d image.Digest, now time.Duration) (until time.Duration, ok bool) {
	h := maphash.String(l.seed, string(d))
	s := &l.shards[h%64]
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.m[h]; t > now {
		return t, false
	} else if t == condemned { // another digest of the same hash, right now
		return now, false
	}
	s.m[h] = condemned
	return 0, true
}

// pardon ends what condemn began.
func (l *leases) pardon(d image.Digest) {
	h := maphash.String(l.seed, string(d))
	s := &l.shards[h%64]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[h] == condemned {
		delete(s.m, h)
	}
}

// prune forgets the leases that ran out.
func (l *leases) prune(now time.Duration) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for h, t := range s.m {
			if t != condemned && t <= now {
				delete(s.m, h)
			}
		}
		s.mu.Unlock()
	}
}

// locks is a lock for each digest that somebody wants.
type locks struct {
	seed   maphash.Seed
	shards [64]struct {
		mu sync.Mutex
		m  map[image.Digest]*keyLock
	}
}

type keyLock struct {
	mu   sync.Mutex
	refs int // guarded by the shard's lock
}

func newLocks() *locks {
	l := &locks{seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].m = map[image.Digest]*keyLock{}
	}
	return l
}

// lock waits for d and returns what unlocks it.
func (l *locks) lock(d image.Digest) (unlock func()) {
	s := &l.shards[maphash.String(l.seed, string(d))%64]
	s.mu.Lock()
	k := s.m[d]
	if k == nil {
		k = &keyLock{}
		s.m[d] = k
	}
	k.refs++
	s.mu.Unlock()
	k.mu.Lock()
	return func() { l.unlock(d, k) }
}

// tryLock is lock for who has other work to do; unlock is nil if d is taken.
func (l *locks) tryLock(d image.Digest) (unlock func()) {
	s := &l.shards[maphash.String(l.seed, string(d))%64]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[d] != nil {
		return nil
	}
	k := &keyLock{refs: 1}
	k.mu.Lock()
	s.m[d] = k
	return func() { l.unlock(d, k) }
}

func (l *locks) unlock(d image.Digest, k *keyLock) {
	k.mu.Unlock()
	s := &l.shards[maphash.String(l.seed, string(d))%64]
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.refs--; k.refs == 0 {
		delete(s.m, d)
	}
}
