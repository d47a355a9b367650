package choose

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/catalog"
)

// identify finds the tag that names the digest of a reference without a tag:
// the most exact version among them. What the image says of its own version is
// believed when the registry says the same.
func (c *chooser) identify() (string, error) {
	best := ""
	for _, t := range c.f.Tags {
		if t.Digest == c.ref.Digest && exacter(t.Name, best) {
			best = t.Name
		}
	}
	if best != "" {
		return best, nil
	}
	if img, err := c.now(); err == nil && img.Version != "" {
		bare := strings.TrimPrefix(img.Version, "v")
		for _, name := range []string{bare, "v" + bare} {
			if !slices.ContainsFunc(c.f.Tags, func(t catalog.Tag) bool { return t.Name == name }) {
				continue
			}
			if named, err := c.look(name); err == nil && named.Digest == c.ref.Digest {
				return name, nil
			}
		}
	}
	return "", fmt.Errorf("no tag is known that names %s: write the tag before the digest to follow it", short(string(c.ref.Digest)))
}

// exacter prefers versions with many parts, then a fixed order.
func exacter(a, b string) bool {
	if b == "" {
		return true
	}
	sa, oka := spell(a, true)
	sb, okb := spell(b, true)
	switch {
	case oka != okb:
		return oka
	case len(sa.numbers) != len(sb.numbers):
		return len(sa.numbers) > len(sb.numbers)
	case len(a) != len(b):
		return len(a) < len(b)
	}
	return a < b
}

// follow is what becomes of the digest while the tag stays.
func (c *chooser) follow() Choice {
	img, err := c.look(c.tag)
	switch {
	case errors.Is(err, catalog.ErrNotFound):
		return Choice{State: Unknown, Reason: fmt.Sprintf("the tag %s is gone from the registry: write one that is there", c.tag)}
	case err != nil:
		return Choice{State: Unknown, Reason: fmt.Sprintf("what %s names is not known: %v", c.tag, err)}
	case img.Digest == c.ref.Digest:
		return Choice{State: Current, Reason: fmt.Sprintf("%s names the digest that the code has", c.tag)}
	}
	if pinned, err := c.now(); err == nil && c.older(img, pinned) {
		return Choice{State: Current, Reason: fmt.Sprintf("%s names %s now, which is older than what the code has: it was moved back, or the answer is old", c.tag, short(string(img.Digest)))}
	}
	g := c.gate(c.listed, img)
	if g.State != Newer {
		g.Tag = c.tag
		if g.State != Unknown {
			g.Reason = fmt.Sprintf("%s names %s now: %s", c.tag, short(string(img.Digest)), g.Reason)
		}
		return g
	}
	out := c.become(c.tag, img.Digest)
	if out.State == Newer {
		out.Reason = fmt.Sprintf("%s names %s now, and %s in the code", c.tag, short(string(img.Digest)), short(string(c.ref.Digest)))
	}
	return out
}

// pass is how long two first looks of one pass may lie apart: closer together
// they say nothing about what came first.
const pass = time.Hour

// older reports whether the image that a tag names now is older than the one
// that code has. Times of pushes decide. Times of first looks do when they lie
// apart, unless what the publisher says is the other way around: the code may
// be new to us and its image old. A publisher who lies about that can keep us
// from moving, and never make us move back.
func (c *chooser) older(moved, pinned catalog.Image) bool {
	created := moved.Created.Compare(pinned.Created)
	if moved.Created.IsZero() || pinned.Created.IsZero() {
		created = 0
	}
	if moved.Since.IsZero() || pinned.Since.IsZero() {
		return created < 0
	}
	if c.listed != nil && c.listed.Pushed {
		return moved.Since.Before(pinned.Since)
	}
	switch d := moved.Since.Sub(pinned.Since); {
	case d >= pass:
		return false
	case d <= -pass:
		return created <= 0
	}
	return created < 0
}

// pin adds the digest that the tag names now: the code goes on running what it
// runs, so nothing has to be waited for.
func (c *chooser) pin() Choice {
	img, err := c.look(c.tag)
	if err != nil || img.Digest == "" {
		if err == nil {
			err = errNoFacts
		}
		return Choice{State: Unknown, Reason: fmt.Sprintf("the digest of %s is not known: %v", c.tag, err)}
	}
	out := c.become(c.tag, img.Digest)
	out.Reason = fmt.Sprintf("adds the digest that %s names", c.tag)
	return out
}
