package choose

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/image"
)

var errNoFacts = errors.New("nobody asked the registry")

func (c *chooser) look(tag string) (catalog.Image, error) {
	if c.f.Look == nil {
		return catalog.Image{}, errNoFacts
	}
	return c.f.Look(tag)
}

// now describes the image that the code has: by its digest, else by its tag.
func (c *chooser) now() (catalog.Image, error) {
	if c.looked {
		return c.current, c.currentErr
	}
	c.looked = true
	switch {
	case c.ref.Digest == "" && c.listed == nil:
		c.currentErr = fmt.Errorf("the tag %s is gone from the registry (%w)", c.tag, catalog.ErrNotFound)
	case c.ref.Digest == "":
		c.current, c.currentErr = c.look(c.tag)
	case c.f.Inspect != nil:
		c.current, c.currentErr = c.f.Inspect(c.ref.Digest)
	default:
		c.current, c.currentErr = c.look(c.tag)
		if c.currentErr == nil && c.current.Digest != c.ref.Digest {
			c.currentErr = errNoFacts
		}
	}
	return c.current, c.currentErr
}

func (c *chooser) currentDigest() (image.Digest, error) {
	if c.ref.Digest != "" {
		return c.ref.Digest, nil
	}
	img, err := c.now()
	return img.Digest, err
}

// gate says whether the image of a tag may be chosen: Newer, or Held, Blocked
// or Unknown with the reason. tag is nil when the tag is not listed.
func (c *chooser) gate(tag *catalog.Tag, img catalog.Image) Choice {
	if c.p.Cooldown > 0 {
		// A tag that is known for long may name an image that is not.
		known := img.Since
		if tag != nil && (known.IsZero() || tag.Since.After(known)) {
			known = tag.Since
		}
		if due := c.due(known); due.After(c.f.Now) {
			return Choice{State: Held, Until: due, Reason: c.waits(known)}
		}
	}
	if c.p.Signed && !img.Signed {
		return Choice{State: Blocked, Reason: "not signed by a key that is configured"}
	}
	lacks, err := c.lacks(img)
	switch {
	case err != nil:
		return Choice{State: Unknown, Reason: fmt.Sprintf("which platforms are needed is not known, because the current image is not: %v; platforms: [linux/amd64] would say it", err)}
	case len(lacks) > 0:
		return Choice{State: Blocked, Reason: "lacks " + strings.Join(lacks, ", ") + "; platforms: would say which are needed"}
	}
	return Choice{State: Newer}
}

// waits is the reason of a cooldown.
func (c *chooser) waits(known time.Time) string {
	return fmt.Sprintf("due %s, after a cooldown of %s", moment(c.due(known)), length(c.p.Cooldown))
}

// lacks lists the platforms that an image would have to have and has not. An
// error means that they are not known.
func (c *chooser) lacks(img catalog.Image) ([]string, error) {
	needed := c.p.Needed
	if len(needed) == 0 {
		now, err := c.now()
		switch {
		case errors.Is(err, catalog.ErrNotFound) && len(c.p.Nodes) > 0:
			needed = c.p.Nodes
		case err != nil:
			return nil, err
		// A chart, or whatever else is for no platform.
		case len(now.Platforms) == 0 && len(img.Platforms) > 0:
			return nil, fmt.Errorf("the registry does not say which platforms %s has", c.tag)
		default:
			needed = now.Platforms
		}
	}
	var out []string
	for _, n := range slices.Concat(needed, c.p.Platforms) {
		// Attestations stand in an index under this name.
		if n.OS == "unknown" && n.Architecture == "unknown" {
			continue
		}
		if !slices.ContainsFunc(img.Platforms, func(has image.Platform) bool { return runs(has, n) }) && !slices.Contains(out, n.String()) {
			out = append(out, n.String())
		}
	}
	return out, nil
}

// runs reports whether an image of one platform runs where another is needed.
// Variants of an architecture are levels, and what is made for a lower one runs
// on a higher one: arm/v6 on arm/v7, amd64 on amd64/v3.
func runs(has, need image.Platform) bool {
	if has.OS != need.OS || has.Architecture != need.Architecture {
		return false
	}
	h, hok := level(has)
	n, nok := level(need)
	if hok && nok {
		return h <= n
	}
	return has.Variant == need.Variant
}

// level is the number of a variant; what is not said is what containerd takes
// it for.
func level(p image.Platform) (int, bool) {
	v := p.Variant
	if v == "" {
		v = map[string]string{"arm": "v7", "arm64": "v8"}[p.Architecture]
		v = cmp.Or(v, "v1")
	}
	if len(v) == 2 && v[0] == 'v' && isDigit(v[1]) {
		return int(v[1] - '0'), true
	}
	return 0, false
}
