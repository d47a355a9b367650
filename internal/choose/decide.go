package choose

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/image"
)

// Choose answers which image the code should run that now has ref, as code
// writes it. A reference without a tag follows the tag that names its digest.
func Choose(ref string, p Policy, f Facts) Choice {
	unknown := func(err error) Choice { return Choice{State: Unknown, Reason: err.Error()} }
	if err := p.Check(); err != nil {
		return unknown(err)
	}
	c := chooser{p: p, f: f}
	// The version of a chart may hold a '+', which no tag can: helm writes '_'.
	tagged, digest, _ := strings.Cut(ref, "@")
	if i := strings.LastIndexByte(tagged, '+'); i > strings.LastIndexByte(tagged, '/') {
		c.plus = true
		ref = tagged[:i] + "_" + tagged[i+1:]
		if digest != "" {
			ref += "@" + digest
		}
	}
	var err error
	if c.ref, err = code.ParseReference(ref); err != nil {
		return unknown(err)
	}
	c.tag = c.ref.Tag
	switch {
	case c.tag == "" && c.ref.Digest == "":
		c.tag = "latest"
	case c.tag == "":
		if c.tag, err = c.identify(); err != nil {
			return Choice{State: Unversioned, Reason: err.Error()}
		}
	}
	for i := range f.Tags {
		if f.Tags[i].Name == c.tag {
			c.listed = &f.Tags[i]
			break
		}
	}
	return c.choose()
}

// chooser is one decision.
type chooser struct {
	p      Policy
	f      Facts
	ref    code.Reference
	tag    string       // that the code has or means
	listed *catalog.Tag // it, or nil when it is gone
	plus   bool
	// current is the image that the code has, looked up when it is first needed.
	current    catalog.Image
	currentErr error
	looked     bool
}

// pinned: the reference has a digest, and is to have one.
func (c *chooser) pinned() bool {
	return c.ref.Digest != "" && (c.p.Pin == nil || *c.p.Pin || c.ref.Tag == "")
}

func (c *chooser) choose() Choice {
	o, none := c.order()
	var out Choice
	if o == nil {
		out = Choice{State: Unversioned, Reason: none}
	} else {
		out = c.climb(o)
	}
	if out.State == Newer && !out.Major {
		return out
	}
	also := out.Also
	if out.Major {
		also = &out
	}
	// The tag stays; its image may have been made anew.
	var stay Choice
	switch {
	case c.pinned():
		stay = c.follow()
	case c.ref.Digest == "" && c.p.Pin != nil && *c.p.Pin:
		stay = c.pin()
	default:
		return out
	}
	switch {
	case stay.State == Newer:
		stay.Also, stay.Passed = also, out.Passed
		return stay
	case o == nil, stay.State != Current && out.State == Current && !out.Major:
		stay.Also = also
		return stay
	case stay.State == Current && out.State == Current:
		out.Reason += "; " + stay.Reason
	}
	return out
}

// order is how tags are compared with the current one, or nil and why not.
func (c *chooser) order() (order, string) {
	versioning := c.p.Versioning
	auto := versioning == "" || versioning == "auto"
	var s scheme
	switch expr, isExpr := strings.CutPrefix(versioning, "regex:"); {
	case versioning == "digest":
		return nil, "only its digest is followed, and the code has none: pin: always would write it"
	case isExpr:
		g, err := newGrouped(expr)
		if err != nil {
			return nil, err.Error() // Check has seen it
		}
		s = g
	case versioning == "semver":
		s = strict{}
	case versioning == "pushed":
		return c.pushes()
	default:
		l, ok := newLoose(versioning, c.tag)
		if !ok && auto && c.p.Range == "" && hasHash(c.tag) {
			return c.pushes()
		}
		s = l
	}
	v, ok := s.read(c.tag)
	switch {
	case !ok && auto:
		return nil, fmt.Sprintf("the tag %s is no version: write a version in its place, or follow its digest with pin: always", c.tag)
	case !ok:
		return nil, fmt.Sprintf("the tag %s is no version by %s: choose another versioning, such as auto", c.tag, versioning)
	}
	o := &numbered{scheme: s, current: v, name: c.tag}
	if c.p.Range != "" {
		pre := prerelease
		if versioning == "semver" {
			pre = func(string) ([]string, string) { return nil, "" }
		}
		b, err := parseRange(c.p.Range, pre)
		if err != nil {
			return nil, err.Error() // Check has seen it
		}
		o.bounds = b
	}
	return o, ""
}

func (c *chooser) pushes() (order, string) {
	o := &pushes{shape: pushShape(c.tag), now: c.f.Now}
	if o.shape == anyShape && slices.Contains(moving, strings.ToLower(c.tag)) {
		return nil, fmt.Sprintf("the tag %s moves by itself: follow its digest with pin: always", c.tag)
	}
	if c.listed != nil {
		o.since, o.pushed = c.listed.Since, c.listed.Pushed
	} else if c.ref.Digest != "" && c.f.Inspect != nil {
		// The tag is gone; our registry still knows when its image was pushed.
		if img, err := c.f.Inspect(c.ref.Digest); err == nil {
			o.since, o.pushed = img.Since, true
		}
	}
	if o.since.IsZero() {
		if c.listed == nil {
			return nil, fmt.Sprintf("the tag %s is gone, so nobody knows what was pushed after it: write one that is there", c.tag)
		}
		// Everything was seen at once: what comes from now on is newer.
		o.since = c.f.Now
	}
	return o, ""
}

// sifted are the newer tags.
type sifted struct {
	open, major pile
	refused     newest
	alike       int // tags that can be compared
}

// A pile is tags that may be chosen.
type pile struct {
	ripe  newest
	held  newest
	first *catalog.Tag // of those held, the one that is due first
}

// An entry is a tag and, if it is not to be taken, why.
type entry struct {
	candidate
	why string
}

// newest are the newest of the tags added to it, the newest first, at most
// maxPassed of them.
type newest []entry

func (n newest) add(o order, e entry) newest {
	if len(n) == maxPassed && o.compare(e.candidate, n[len(n)-1].candidate) < 0 {
		return n
	}
	i := 0
	for i < len(n) && o.compare(e.candidate, n[i].candidate) < 0 {
		i++
	}
	if len(n) == maxPassed {
		n = n[:maxPassed-1]
	}
	return slices.Insert(n, i, e)
}

// sift looks at every tag once, and at no image. It is the part whose cost
// grows with the repository.
func (c *chooser) sift(o order) *sifted {
	s := &sifted{}
	ignored := make([]string, len(c.p.Ignore))
	for i, g := range c.p.Ignore {
		ignored[i] = "ignored by " + g
	}
	for i := range c.f.Tags {
		cand, ok := o.read(&c.f.Tags[i])
		if !ok {
			continue
		}
		name := cand.tag.Name
		if len(c.p.Tags) > 0 && !image.MatchAny(c.p.Tags, name) {
			continue
		}
		if o.byTime() && o.(*pushes).shape == anyShape && slices.Contains(moving, strings.ToLower(name)) {
			continue
		}
		if name != c.tag {
			s.alike++
		}
		if !o.newer(cand) || name == c.tag {
			continue
		}
		if _, signature := image.FallbackSubject(name); signature {
			continue
		}
		if i := slices.IndexFunc(c.p.Ignore, func(g string) bool { return image.Glob(g).Match(name) }); i >= 0 {
			s.refused = s.refused.add(o, entry{cand, ignored[i]})
			continue
		}
		to := &s.open
		if why, major := o.hurdle(cand, c.p); why != "" {
			if !major || c.p.major() == "off" {
				s.refused = s.refused.add(o, entry{cand, why})
				continue
			}
			if c.p.major() == "separate" {
				to = &s.major
			}
		}
		if c.p.Cooldown > 0 && c.due(cand.tag.Since).After(c.f.Now) {
			to.held = to.held.add(o, entry{cand, ""})
			if to.first == nil || since(cand.tag.Since).Before(since(to.first.Since)) {
				to.first = cand.tag
			}
			continue
		}
		to.ripe = to.ripe.add(o, entry{cand, ""})
	}
	return s
}

// since puts what was never seen before after everything that was.
func since(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(1<<40, 0)
	}
	return t
}

// due is when something is known long enough that is known since then; zero:
// since now.
func (c *chooser) due(since time.Time) time.Time {
	if since.IsZero() {
		since = c.f.Now
	}
	return since.Add(c.p.Cooldown)
}

// climb finds the newest tag that passes.
func (c *chooser) climb(o order) Choice {
	s := c.sift(o)
	out, refused := c.take(o, &s.open, s.refused)
	if c.p.major() == "separate" && len(s.major.ripe)+len(s.major.held) > 0 {
		major, passed := c.take(o, &s.major, nil)
		major.Major = major.State == Newer
		switch {
		case out.State == Current:
			out, refused = major, merge(o, refused, passed)
		case major.Major:
			major.Passed = c.passed(o, passed, major)
			out.Also = &major
		default:
			refused = merge(o, refused, passed)
		}
	}
	out.Passed = c.passed(o, refused, out)
	out.Reason = c.because(o, out, s.alike)
	if out.Also != nil {
		out.Also.Reason = c.because(o, *out.Also, s.alike)
	}
	return out
}

func merge(o order, a, b newest) newest {
	for _, e := range b {
		a = a.add(o, e)
	}
	return a
}

// take tries the tags of a pile, the newest first. What it says of a choice
// that is not Newer stands in Reason.
func (c *chooser) take(o order, p *pile, refused newest) (Choice, newest) {
	refused = slices.Clone(refused)
	for _, e := range p.held {
		refused = refused.add(o, entry{e.candidate, c.waits(e.tag.Since)})
	}
	var blocked, held *Choice
	if p.first != nil {
		held = &Choice{State: Held, Tag: p.first.Name, Until: c.due(p.first.Since)}
	}
	for _, e := range p.ripe {
		cand := e.candidate
		if image.CheckTag(cand.tag.Name) != nil {
			continue // a registry that lists it has more to hide
		}
		img, err := c.look(cand.tag.Name)
		switch {
		case errors.Is(err, catalog.ErrNotFound):
			refused = refused.add(o, entry{cand, "listed, but not there"})
			continue
		case err != nil:
			// It may be the right one: an older one now would be another pull
			// request in an hour.
			return Choice{State: Unknown, Reason: fmt.Sprintf("%s is newer, but the registry does not describe it: %v", cand.tag.Name, err)}, refused
		}
		if o.byTime() {
			if d, err := c.currentDigest(); err == nil && d != "" && d == img.Digest {
				// What is older than this is older than what the code has.
				return Choice{State: Current, Reason: fmt.Sprintf("%s is newer, and the same image as %s", cand.tag.Name, c.tag)}, refused
			}
		}
		g := c.gate(cand.tag, img)
		if g.State == Newer {
			return c.become(cand.tag.Name, img.Digest), refused
		}
		if g.State == Unknown {
			return g, refused
		}
		refused = refused.add(o, entry{cand, g.Reason})
		switch {
		case g.State == Held && (held == nil || g.Until.Before(held.Until)):
			g.Tag = cand.tag.Name
			held = &g
		case g.State == Blocked && blocked == nil:
			g.Tag = cand.tag.Name
			blocked = &g
		}
	}
	switch {
	case held != nil:
		return Choice{State: Held, Tag: held.Tag, Until: held.Until}, refused
	case blocked != nil:
		return Choice{State: Blocked, Tag: blocked.Tag}, refused
	}
	return Choice{State: Current}, refused
}

// become is the choice of a tag, written as the code writes its image now.
func (c *chooser) become(tag string, d image.Digest) Choice {
	to := code.Reference{Name: c.ref.Name, Tag: tag}
	if c.ref.Digest != "" && c.pinned() || c.ref.Digest == "" && c.p.Pin != nil && *c.p.Pin {
		if d == "" {
			return Choice{State: Unknown, Reason: fmt.Sprintf("the registry does not say which digest %s has", tag)}
		}
		to.Digest = d
	}
	if c.ref.Tag == "" && c.ref.Digest != "" {
		to.Tag = ""
	}
	s := to.String()
	if c.plus {
		if i := strings.IndexByte(to.Tag, '_'); i >= 0 {
			i += len(to.Name) + 1
			s = s[:i] + "+" + s[i+1:]
		}
	}
	return Choice{State: Newer, To: s, Tag: tag, Digest: d}
}
