package choose

import (
	"strings"
	"time"

	"cairn.dev/cairn/internal/catalog"
)

// A candidate is a tag that can be compared with the current one.
type candidate struct {
	tag *catalog.Tag
	v   version
	at  time.Time // when it was pushed or first seen, where that is the order
}

// An order says which tags are newer than the current one.
type order interface {
	// read is false for a tag that cannot be compared with the current one.
	read(t *catalog.Tag) (candidate, bool)
	// newer reports whether it is newer than the current one.
	newer(c candidate) bool
	// compare orders candidates, the newest last. It is total: only a tag is
	// equal to itself.
	compare(a, b candidate) int
	// hurdle says what is in the way of a newer candidate, and whether that is
	// only that it is a new major version.
	hurdle(c candidate, p Policy) (why string, major bool)
	// byTime: what is newer is so by its time and not by its name.
	byTime() bool
}

// numbered is the order of versions.
type numbered struct {
	scheme  scheme
	current version
	name    string
	bounds  bounds
}

func (o *numbered) read(t *catalog.Tag) (candidate, bool) {
	v, ok := o.scheme.read(t.Name)
	return candidate{tag: t, v: v}, ok && v.alike == o.current.alike
}

func (o *numbered) newer(c candidate) bool { return compare(c.v, o.current) > 0 }

func (o *numbered) compare(a, b candidate) int {
	if c := compare(a.v, b.v); c != 0 {
		return c
	}
	return byPush(a, b)
}

// byPush decides between spellings of one version: the one that came later.
func byPush(a, b candidate) int {
	if c := a.tag.Since.Compare(b.tag.Since); c != 0 {
		return c
	}
	return strings.Compare(a.tag.Name, b.tag.Name)
}

func (o *numbered) hurdle(c candidate, p Policy) (why string, major bool) {
	if o.bounds != nil && !o.bounds.hold(c.v) {
		return "outside of the range", false
	}
	// Whoever runs 1.3.0-rc.1 wants to come to 1.3.0, and not to 1.4.0-rc.1.
	if len(c.v.pre) > 0 && !p.Prerelease && (len(o.current.pre) == 0 || compareNumbers(c.v.numbers, o.current.numbers) != 0) {
		return "a prerelease; prerelease: true would allow it", false
	}
	if l, ok := o.scheme.(loose); ok {
		if word := l.older(o.current, c.v); word != "" {
			return "built on an older " + word, false
		}
	}
	if o.scheme.major(o.current, c.v) {
		return "a new major version; major: separate would propose it", true
	}
	return "", false
}

func (o *numbered) byTime() bool { return false }

// pushes is the order of pushes to our registry, and elsewhere of what we saw
// first.
type pushes struct {
	shape string
	// since and pushed are of the current tag. The times of pushes and those of
	// first looks do not compare.
	since  time.Time
	pushed bool
	now    time.Time
}

func (o *pushes) read(t *catalog.Tag) (candidate, bool) {
	c := candidate{tag: t, at: t.Since}
	if c.at.IsZero() {
		if t.Pushed {
			return c, false
		}
		c.at = o.now // this is the first look
	}
	return c, t.Pushed == o.pushed && !o.since.IsZero() && pushShape(t.Name) == o.shape
}

func (o *pushes) newer(c candidate) bool { return c.at.After(o.since) }

func (o *pushes) compare(a, b candidate) int {
	if c := a.at.Compare(b.at); c != 0 {
		return c
	}
	return strings.Compare(a.tag.Name, b.tag.Name)
}

func (o *pushes) hurdle(candidate, Policy) (string, bool) { return "", false }
func (o *pushes) byTime() bool                            { return true }

// anyShape is the shape of tags that have neither numbers nor hashes: names
// that somebody thought of.
const anyShape = "name"

// moving are names that people give to whatever is newest: not to be moved to.
var moving = []string{"latest", "stable", "main", "master", "trunk", "head", "edge", "nightly", "dev", "devel", "develop", "development", "staging", "prod", "production", "test", "canary", "next", "current", "release", "lts", "snapshot"}

// pushShape is what tags have in common that one build makes: sha-1a2b3c4 and
// sha-5d6e7f8, main-abc1234-1700000000. Here digits alone can be a hash: one
// of thirty is. A whole hash and a shortened one are two shapes, so that a
// build that pushes both is followed by one.
func pushShape(tag string) string {
	var b strings.Builder
	marked := false
	for s := tag; s != ""; {
		if isSeparator(s[0]) {
			b.WriteByte(s[0])
			s = s[1:]
			continue
		}
		t := token(s)
		s = s[len(t):]
		if t[0] == 'g' && isHex(t[1:]) {
			b.WriteByte('g')
			t = t[1:]
		}
		if isHex(t) {
			b.WriteByte('*')
			if len(t) >= 40 {
				b.WriteByte('*')
			}
			marked = true
			continue
		}
		for t != "" {
			n := span(t, isDigit)
			if n > 0 {
				b.WriteByte('#')
				marked = true
				t = t[n:]
				continue
			}
			b.WriteByte(t[0])
			t = t[1:]
		}
	}
	if !marked {
		return anyShape
	}
	return b.String()
}

// isHex: 7 to 64 hex digits, numbers among them.
func isHex(s string) bool {
	if len(s) < 7 || len(s) > 64 {
		return false
	}
	digits := 0
	for i := range len(s) {
		switch c := s[i]; {
		case isDigit(c):
			digits++
		case c < 'a' || c > 'f':
			return false
		}
	}
	return digits > 0 || len(s) >= 40
}

// hasHash reports whether a tag names a commit.
func hasHash(tag string) bool {
	for s := tag; s != ""; {
		t := token(s)
		if isHash(t) || t != "" && t[0] == 'g' && isHash(t[1:]) {
			return true
		}
		s = s[min(len(s), len(t)+1):]
	}
	return false
}
