package retention

import (
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// A guard answers, inside the transaction that hides an image, whether what
// the decision was based on still holds: memory only. It remembers the best
// use of each digest from which a use could come to the image, and refuses if
// one has a better use since. That is more than the rules of credit ask for,
// and never less: it errs for keeping.
type guard struct {
	ledger Ledger
	repo   string
	fresh  *fresh
	now    time.Time
	part   []int32   // of image i: the connected part it belongs to
	known  [][]known // by part
}

type known struct {
	digest         image.Digest
	anywhere, here usage.Use
}

// newGuard remembers what the ledger knows now. The decision must be taken
// after it, so that no use falls between the two.
func newGuard(l Ledger, c *fresh, repo string, images []content.Image, now time.Time) *guard {
	g := &guard{ledger: l, fresh: c, repo: repo, now: now, part: make([]int32, len(images))}
	// Union of everything that edges connect.
	ids := map[image.Digest]int32{}
	var digests []image.Digest
	var up []int32
	id := func(d image.Digest) int32 {
		k, ok := ids[d]
		if !ok {
			k = int32(len(digests))
			ids[d] = k
			digests, up = append(digests, d), append(up, k)
		}
		return k
	}
	root := func(k int32) int32 {
		for up[k] != k {
			up[k] = up[up[k]]
			k = up[k]
		}
		return k
	}
	join := func(a, b int32) { up[root(a)] = root(b) }
	for i := range images {
		im := &images[i]
		k := id(im.Digest)
		if im.Config != "" {
			join(k, id(im.Config))
		}
		for _, c := range im.Children {
			join(k, id(c))
		}
	}
	parts := map[int32]int32{}
	for i := range images {
		r := root(ids[images[i].Digest])
		if _, ok := parts[r]; !ok {
			parts[r] = int32(len(parts))
		}
		g.part[i] = parts[r]
	}
	g.known = make([][]known, len(parts))
	for k, d := range digests {
		if p, ok := parts[root(int32(k))]; ok {
			anywhere, here := l.LastUse(d, repo)
			g.known[p] = append(g.known[p], known{d, anywhere, here})
		}
	}
	return g
}

// stillUnused is [content.Expiry].StillUnused for image i, to be expired or swept.
func (g *guard) stillUnused(i int, o *Decision) func() bool {
	last, limit, code := o.LastUse.At, o.Limit, o.Code
	if code == KeptLong {
		last = o.Image.HiddenAt
	}
	part := g.known[g.part[i]]
	return func() bool {
		if ok, _ := g.ledger.ClockOK(); !ok {
			return false
		}
		for _, k := range part {
			anywhere, here := g.ledger.LastUse(k.digest, g.repo)
			if usage.Better(anywhere, k.anywhere) || usage.Better(here, k.here) {
				return false
			}
		}
		c := g.fresh.coverage(g.repo)
		switch code {
		case Unused:
			return c.Age(last, g.now) > limit
		case KeptLong:
			return c.Age(last, g.now) >= limit
		case TooLarge:
			return len(c.Open()) == 0
		}
		return true // goes with its subject, which was asked
	}
}

// stale is for how long merged coverages serve: with thousands of reporters,
// merging for each image would hold up the writer. An interval that opens is
// the end of many seconds of silence; 50 ms more are as if it had opened that
// much later.
const stale = 50 * time.Millisecond

// fresh is the coverage of now, within stale.
type fresh struct {
	ledger Ledger
	clock  clock.Clock
	mu     sync.Mutex
	made   *usage.Coverages
	at     time.Duration // monotonic
}

func (f *fresh) coverage(repo string) *usage.Coverage {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.clock.Mono(); f.made == nil || now-f.at > stale {
		f.made, f.at = usage.NewCoverages(f.ledger.Uncovered()), now
	}
	return f.made.For(repo)
}

// renew forgets what was merged.
func (f *fresh) renew() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made = nil
}
