package usage

import (
	"math"
	"slices"
	"sort"
	"strings"
	"time"
)

// Covered is the age of a last use as far as Cairn can vouch for it: the time
// from last to now, minus the union of the intervals that hold repository. An
// interval that is still open reaches to now. It is zero for a last use that
// lies in the future, and never negative.
//
// It is for a single question; for many, see [Coverage].
func Covered(last, now time.Time, repository string, in []Interval) time.Duration {
	return NewCoverage(in, repository).Age(last, now)
}

// A Coverage is the uncovered time of one repository, merged once so that ages
// are looked up. It is immutable. The zero value has no uncovered time.
type Coverage struct {
	spans []span
	// open is the start of the earliest interval that has no end yet; nothing
	// after it is covered. It says nothing unless hasOpen.
	open     int64
	hasOpen  bool
	openOnes []Interval
}

// A span is one stretch of uncovered time, in nanoseconds of the Unix epoch;
// spans are sorted, do not touch, and end before Coverage.open.
type span struct {
	from, to int64
	before   int64 // uncovered time in the spans before this one
}

// NewCoverage merges the intervals that hold repository.
func NewCoverage(in []Interval, repository string) *Coverage {
	held := make([]int, 0, len(in))
	for i := range in {
		if in[i].Holds(repository) {
			held = append(held, i)
		}
	}
	return merge(in, held)
}

// merge makes the coverage of the intervals named by held.
func merge(in []Interval, held []int) *Coverage {
	c := &Coverage{open: math.MaxInt64}
	var raw []span
	for _, i := range held {
		iv := &in[i]
		from := nanos(iv.From)
		if iv.To.IsZero() {
			c.hasOpen, c.open = true, min(c.open, from)
			c.openOnes = append(c.openOnes, *iv)
			continue
		}
		if to := nanos(iv.To); to > from {
			raw = append(raw, span{from: from, to: to})
		}
	}
	slices.SortFunc(raw, func(a, b span) int {
		switch {
		case a.from < b.from:
			return -1
		case a.from > b.from:
			return 1
		}
		return 0
	})
	for _, s := range raw {
		s.to = min(s.to, c.open)
		if s.from >= c.open {
			break
		}
		if n := len(c.spans); n > 0 && s.from <= c.spans[n-1].to {
			c.spans[n-1].to = max(c.spans[n-1].to, s.to)
			continue
		}
		c.spans = append(c.spans, s)
	}
	var sum int64
	for i := range c.spans {
		c.spans[i].before = sum
		sum += c.spans[i].to - c.spans[i].from
	}
	slices.SortFunc(c.openOnes, func(a, b Interval) int { return a.From.Compare(b.From) })
	return c
}

// nanos is t in nanoseconds of the Unix epoch, held within what those can say
// (the years 1678 to 2262), so that an absurd time is old or far and does not
// wrap around.
func nanos(t time.Time) int64 {
	switch s := t.Unix(); {
	case s > math.MaxInt64/int64(time.Second)-1:
		return math.MaxInt64 - int64(time.Second)
	case s < math.MinInt64/int64(time.Second)+1:
		return math.MinInt64 + int64(time.Second)
	}
	return t.UnixNano()
}

// uncovered is the uncovered time before t, for t not after c.open.
func (c *Coverage) uncovered(t int64) int64 {
	i := sort.Search(len(c.spans), func(i int) bool { return c.spans[i].from >= t })
	if i == 0 {
		return 0
	}
	s := &c.spans[i-1]
	return s.before + min(t, s.to) - s.from
}

// Age is [Covered] for this repository.
func (c *Coverage) Age(last, now time.Time) time.Duration {
	from, to := nanos(last), nanos(now)
	if c.hasOpen {
		to = min(to, c.open)
	}
	if to <= from {
		return 0
	}
	d := sub(to, from)
	if len(c.spans) > 0 {
		d -= c.uncovered(to) - c.uncovered(from)
	}
	return time.Duration(max(d, 0))
}

// sub is a-b without wrapping around, for a >= b.
func sub(a, b int64) int64 {
	if d := a - b; d >= 0 {
		return d
	}
	return math.MaxInt64
}

// At is the time from which on the age of last exceeds after, if no further
// use and no further uncovered interval comes. It reports false while an open
// interval stands in the way: nobody can tell then.
func (c *Coverage) At(last time.Time, after time.Duration) (time.Time, bool) {
	at, left := nanos(last), max(int64(after), 0)
	// Walk the gaps between the spans: only they let the age grow. A span that
	// begins just where the age is full is passed, too: within it the age is
	// after, and does not exceed it.
	i := sort.Search(len(c.spans), func(i int) bool { return c.spans[i].to > at })
	for ; i < len(c.spans); i++ {
		s := &c.spans[i]
		if s.from > at {
			gap := sub(s.from, at)
			if gap > left {
				break
			}
			left -= gap
		}
		at = s.to
	}
	if at > math.MaxInt64-left {
		return time.Time{}, false
	}
	at += left
	if c.hasOpen && at >= c.open {
		return time.Time{}, false
	}
	return time.Unix(0, at).UTC(), true
}

// Open are the intervals that have no end yet, oldest first: what stands in
// the way of [Coverage.At]. Do not change them.
func (c *Coverage) Open() []Interval { return c.openOnes }

// Coverages answers the coverage of many repositories from one set of
// intervals. Repositories that the same scopes hold share one [Coverage], so
// that ten thousand silent reporters of one scope cost as much as one. It is
// not safe for concurrent use.
type Coverages struct {
	in     []Interval
	groups []scopeGroup // intervals of equal scope
	made   map[string]*Coverage
	key    []byte
}

type scopeGroup struct {
	scope []string
	held  []int
}

// NewCoverages prepares for in, which must not change afterwards.
func NewCoverages(in []Interval) *Coverages {
	c := &Coverages{in: in, made: map[string]*Coverage{}}
	groups := map[string]int{}
	for i := range in {
		k := strings.Join(in[i].Scope, "\x00")
		g, ok := groups[k]
		if !ok {
			g = len(c.groups)
			groups[k] = g
			c.groups = append(c.groups, scopeGroup{scope: in[i].Scope})
		}
		c.groups[g].held = append(c.groups[g].held, i)
	}
	c.key = make([]byte, (len(c.groups)+7)/8)
	return c
}

// For is the coverage of repository.
func (c *Coverages) For(repository string) *Coverage {
	clear(c.key)
	for g := range c.groups {
		if (Interval{Scope: c.groups[g].scope}).Holds(repository) {
			c.key[g/8] |= 1 << (g % 8)
		}
	}
	if v, ok := c.made[string(c.key)]; ok {
		return v
	}
	var held []int
	for g := range c.groups {
		if c.key[g/8]&(1<<(g%8)) != 0 {
			held = append(held, c.groups[g].held...)
		}
	}
	v := merge(c.in, held)
	c.made[string(c.key)] = v
	return v
}
