package retention

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/image"
)

// A squeeze is the bound on bytes of one policy, over all its repositories:
// what they hold, and which images may go for it. Fill it with add and refer,
// then ask over.
type squeeze struct {
	limit int64
	total int64
	blobs map[blobKey]int32 // to index in sizes and refs
	sizes []int64
	refs  []int32 // live images that name the blob
	items []item
	repos []string
}

// blobKey is a digest in little memory.
type blobKey [sha256.Size]byte

func keyOf(d image.Digest) blobKey { return sha256.Sum256([]byte(d)) }

// item is a live image that is kept so far.
type item struct {
	repo      int32
	level     int32 // parents and subjects before what hangs on them
	digest    image.Digest
	last      int64 // nanoseconds
	firm      bool
	gone      bool
	passed    bool // was looked at and could not go yet
	parents   int32
	subject   int32 // index in items; -1: none
	children  []int32
	referrers []int32
	blobs     []int32
}

func newSqueeze(limit int64) *squeeze {
	return &squeeze{limit: limit, blobs: map[blobKey]int32{}}
}

// add takes over the images of one repository that are kept so far, from a
// decider that has just decided over it. It returns what refer needs.
func (s *squeeze) add(repo string, ds []Decision, facts []fact) map[image.Digest]int32 {
	s.repos = append(s.repos, repo)
	at := map[image.Digest]int32{}
	of := make(map[int]int32)
	for i := range ds {
		o := &ds[i]
		if o.Action != Keep && o.Action != Revive {
			continue
		}
		k := int32(len(s.items))
		at[o.Image.Digest], of[i] = k, k
		s.items = append(s.items, item{
			repo: int32(len(s.repos) - 1), digest: o.Image.Digest, last: o.LastUse.At.UnixNano(), subject: -1,
			// What is just coming back does not go in the same breath.
			firm: facts[i].firm || o.Action == Revive,
		})
	}
	for i := range ds {
		k, ok := of[i]
		if !ok {
			continue
		}
		it := &s.items[k]
		for _, c := range ds[i].Image.Children {
			if c, ok := at[c]; ok && c != k && !slices.Contains(it.children, c) {
				it.children = append(it.children, c)
				s.items[c].parents++
			}
		}
		if sub := facts[i].subject; sub >= 0 {
			if sk, ok := of[int(sub)]; ok {
				it.subject = sk
				s.items[sk].referrers = append(s.items[sk].referrers, k)
			}
		}
	}
	return at
}

// refer says that the image names the blob.
func (s *squeeze) refer(k int32, blob image.Digest, size int64) {
	key := keyOf(blob)
	b, ok := s.blobs[key]
	if !ok {
		b = int32(len(s.sizes))
		s.blobs[key] = b
		s.sizes, s.refs = append(s.sizes, size), append(s.refs, 0)
	}
	it := &s.items[k]
	if slices.Contains(it.blobs, b) {
		return
	}
	it.blobs = append(it.blobs, b)
	if s.refs[b]++; s.refs[b] == 1 {
		s.total += size
	}
}

// over names the images that go so that the rest fits, least recently used
// first, as far as what may go suffices.
func (s *squeeze) over(f func(repo string, d image.Digest)) {
	if s.total <= s.limit {
		return
	}
	order := make([]int32, 0, len(s.items))
	for k := range s.items {
		if it := &s.items[k]; !it.firm {
			order = append(order, int32(k))
		}
	}
	// An image is used at least as late as every index that lists it, because
	// use goes down: with ties broken by level, indexes come first.
	s.levels(order)
	slices.SortFunc(order, func(a, b int32) int {
		x, y := &s.items[a], &s.items[b]
		return cmp.Or(cmp.Compare(x.last, y.last), cmp.Compare(x.level, y.level),
			strings.Compare(s.repos[x.repo], s.repos[y.repo]), strings.Compare(string(x.digest), string(y.digest)))
	})
	for _, k := range order {
		if s.total <= s.limit {
			return
		}
		it := &s.items[k]
		switch {
		case it.gone || it.subject >= 0: // goes with its subject
		case it.parents > 0:
			it.passed = true
		default:
			s.remove(k, f)
		}
	}
	// What is left waits for each other: a referrer that lists what lists its
	// own subject. Such go together or not at all.
	for _, k := range order {
		if s.total <= s.limit {
			return
		}
		if s.items[k].gone {
			continue
		}
		group, ok := s.together(k)
		if !ok {
			continue
		}
		for _, g := range group {
			s.items[g].parents = 0
		}
		for _, g := range group {
			if !s.items[g].gone {
				s.remove(g, f)
			}
		}
	}
}

// together are the items without which k cannot go; false if one must stay.
func (s *squeeze) together(k int32) ([]int32, bool) {
	group := []int32{k}
	in := map[int32]bool{k: true}
	for i := 0; i < len(group); i++ {
		it := &s.items[group[i]]
		if it.firm {
			return nil, false
		}
		add := func(x int32) {
			if !in[x] && !s.items[x].gone {
				in[x] = true
				group = append(group, x)
			}
		}
		if it.subject >= 0 {
			add(it.subject)
		}
		if it.parents > 0 {
			for x := range s.items {
				if slices.Contains(s.items[x].children, group[i]) {
					add(int32(x))
				}
			}
		}
	}
	return group, true
}

func (s *squeeze) levels(order []int32) {
	// Few rounds: an index of indexes of indexes is rare, and a wrong order
	// among equals only costs precision.
	for range 8 {
		changed := false
		for _, k := range order {
			it := &s.items[k]
			for _, c := range it.children {
				if s.items[c].level <= it.level {
					s.items[c].level, changed = it.level+1, true
				}
			}
		}
		if !changed {
			return
		}
	}
}

// remove takes away k and what only hangs on it.
func (s *squeeze) remove(k int32, f func(string, image.Digest)) {
	it := &s.items[k]
	it.gone = true
	f(s.repos[it.repo], it.digest)
	for _, b := range it.blobs {
		if s.refs[b]--; s.refs[b] == 0 {
			s.total -= s.sizes[b]
		}
	}
	for _, r := range it.referrers {
		if x := &s.items[r]; !x.gone && !x.firm && x.parents == 0 {
			s.remove(r, f)
		}
	}
	for _, c := range it.children {
		x := &s.items[c]
		x.parents--
		// Its turn has passed, or its subject went while an index still
		// needed it.
		if x.parents == 0 && !x.gone && !x.firm && (x.passed || x.subject >= 0 && s.items[x.subject].gone) {
			s.remove(c, f)
		}
	}
}
