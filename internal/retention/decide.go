package retention

import (
	"math"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// Facts are all that is known about one repository when deciding.
type Facts struct {
	Repository string
	// Images are all of the repository, live and hidden, each digest once.
	Images []content.Image
	// Last answers with the best use of a digest that the ledger knows. Pushes
	// need not be in it: they are taken from the images.
	Last usage.Lookup
	// Owned are the uses Cairn itself owns, which go on now: pins, code, runs.
	Owned map[image.Digest][]usage.Use
	// Coverage is the uncovered time of the repository; nil is none.
	Coverage *usage.Coverage
	// ClockOK is false while the clock cannot be trusted: nothing goes then.
	ClockOK bool
	Now     time.Time
	// Keep is for how much covered time hidden images are kept.
	Keep time.Duration
}

// Decide says what becomes of each image of one repository under the policy
// that governs it (nil: none): result i is about f.Images[i]. It is pure.
// [Policy.MaxBytes] concerns several repositories and is not decided here.
//
// A live image is kept on its own merits if it is in use or pinned, has a
// protected tag or one of the KeepLast newest, was pushed less than MinAge ago,
// or has a covered age of at most After. What a kept index lists is kept, and
// what refers to a kept image. A referrer shares the fate of its subject while
// that is live: its own age does not count, so that a scanner that attaches a
// report every night does not keep an image which nobody uses.
func Decide(p *Policy, f Facts) []Decision {
	var d decider
	return d.decide(p, &f)
}

// decider holds the memory that deciding over many repositories shares.
type decider struct {
	g     usage.Graph
	node  []int
	out   []Decision
	facts []fact
	index map[image.Digest]int32
	work  []int32
	walk  []int32
	tags  []tagRef
}

// fact is what decide remembers of one image beside the decision.
type fact struct {
	kept bool
	// firm: kept by more than its age, so that MaxBytes does not touch it.
	firm bool
	// held: hidden by a person, and not swept yet because it is in use.
	held bool
	// subject is the live image whose fate a live referrer shares; -1: none.
	subject int32
}

type tagRef struct {
	image int32
	tag   *content.Tag
}

// decide is Decide; the result and d.facts are good until the next call.
func (d *decider) decide(p *Policy, f *Facts) []Decision {
	n := len(f.Images)
	d.out = slices.Grow(d.out[:0], n)[:n]
	d.facts = slices.Grow(d.facts[:0], n)[:n]
	for i := range f.Images {
		d.out[i] = Decision{Image: &f.Images[i], Policy: p}
		d.facts[i] = fact{subject: -1}
	}
	if f.Coverage == nil {
		f.Coverage = &usage.Coverage{}
	}
	d.credit(f)
	edges := d.link(f)
	d.keepLast(p, f)
	for i := range f.Images {
		if f.Images[i].State == content.Live {
			d.merits(p, f, i)
		} else {
			d.hidden(p, f, i)
		}
	}
	if edges {
		d.spread(f)
	}
	d.conclude(f)
	return d.out
}

// credit finds the last use of each image.
func (d *decider) credit(f *Facts) {
	d.g.Reset(f.Repository)
	d.node = d.node[:0]
	for i := range f.Images {
		im := &f.Images[i]
		k := d.g.Add(im.Digest, im.Config, im.Children)
		d.node = append(d.node, k)
		d.g.Use(k, usage.Use{Digest: im.Digest, Repository: f.Repository, Source: usage.Push, At: im.Pushed})
		for _, u := range f.Owned[im.Digest] {
			u.Digest = im.Digest
			d.g.Use(k, u)
		}
	}
	d.g.Credit(f.Last)
	for i, k := range d.node {
		d.out[i].LastUse, _ = d.g.Last(k)
	}
}

// link fills the index of digests and the subjects, where there are edges at
// all, which most repositories do without.
func (d *decider) link(f *Facts) bool {
	edges := false
	for i := range f.Images {
		if len(f.Images[i].Children) > 0 || f.Images[i].Subject != "" {
			edges = true
			break
		}
	}
	if !edges {
		return false
	}
	if d.index == nil || len(d.index) > 1024 { // clearing costs as much as it was ever large
		d.index = make(map[image.Digest]int32, len(f.Images))
	} else {
		clear(d.index)
	}
	for i := range f.Images {
		d.index[f.Images[i].Digest] = int32(i)
	}
	for i := range f.Images {
		im := &f.Images[i]
		if im.Subject == "" || im.State != content.Live {
			continue
		}
		if s, ok := d.index[im.Subject]; ok && int(s) != i && f.Images[s].State == content.Live {
			d.facts[i].subject = s
		}
	}
	d.breakCircles()
	return true
}

// breakCircles makes ordinary images of those that are each other's subject,
// as fallback tags allow: sharing a fate in a circle would keep or lose them by
// nothing.
func (d *decider) breakCircles() {
	// walk[i] is the walk that came by; each image is walked over once.
	walk := d.walk[:0]
	walk = slices.Grow(walk, len(d.facts))[:len(d.facts)]
	clear(walk)
	d.walk = walk
	for i := range d.facts {
		k := int32(i)
		for k >= 0 && walk[k] == 0 {
			walk[k] = int32(i) + 1
			k = d.facts[k].subject
		}
		if k < 0 || walk[k] != int32(i)+1 {
			continue
		}
		for { // k is on a circle, and this is the first time around
			next := d.facts[k].subject
			if next < 0 {
				break
			}
			d.facts[k].subject = -1
			k = next
		}
	}
}

// keepLast finds the newest tags.
func (d *decider) keepLast(p *Policy, f *Facts) {
	if p == nil || p.KeepLast == 0 {
		return
	}
	d.tags = d.tags[:0]
	for i := range f.Images {
		if f.Images[i].State != content.Live {
			continue
		}
		for k := range f.Images[i].Tags {
			t := &f.Images[i].Tags[k]
			if _, fallback := image.FallbackSubject(t.Name); !fallback {
				d.tags = append(d.tags, tagRef{int32(i), t})
			}
		}
	}
	slices.SortFunc(d.tags, func(a, b tagRef) int {
		if c := b.tag.Pushed.Compare(a.tag.Pushed); c != 0 {
			return c
		}
		return strings.Compare(b.tag.Name, a.tag.Name)
	})
	for _, t := range d.tags[:min(p.KeepLast, len(d.tags))] {
		d.firmly(int(t.image), KeepLast)
	}
}

func (d *decider) firmly(i int, c Code) {
	d.facts[i].kept, d.facts[i].firm = true, true
	d.out[i].Code, d.out[i].Horizon = c, Never
}

// protected reports whether the image has a protected tag. A fallback tag of
// a subject that is there protects nothing: it follows its subject.
func (d *decider) protected(p *Policy, i int, im *content.Image) bool {
	if len(p.Protect) == 0 {
		return false
	}
	for k := range im.Tags {
		t := im.Tags[k].Name
		if d.facts[i].subject >= 0 {
			if _, fallback := image.FallbackSubject(t); fallback {
				continue
			}
		}
		if image.MatchAny(p.Protect, t) {
			return true
		}
	}
	return false
}

// merits decides whether a live image is kept for its own sake.
func (d *decider) merits(p *Policy, f *Facts, i int) {
	im, o, x := &f.Images[i], &d.out[i], &d.facts[i]
	limit := time.Duration(0)
	if p != nil {
		limit = p.after(len(im.Tags) > 0)
	}
	o.Limit = limit
	if !o.LastUse.Now {
		o.Age = f.Coverage.Age(o.LastUse.At, f.Now)
		o.elapsed = max(0, f.Now.Sub(o.LastUse.At))
	}
	switch {
	case o.LastUse.Now && o.LastUse.Source == usage.Pin:
		d.firmly(i, Pinned)
		return
	case o.LastUse.Now:
		d.firmly(i, InUse)
		return
	case p == nil:
		d.firmly(i, NoPolicy)
		return
	case d.protected(p, i, im):
		d.firmly(i, Protected)
		return
	case x.kept: // by keepLast
		return
	case x.subject >= 0: // shares a fate
		return
	}
	if len(f.Coverage.Open()) > 0 {
		x.firm = true // for MaxBytes; no matter unless kept
	}
	if limit == 0 {
		x.kept, o.Code, o.Horizon = true, NoAgeLimit, Never
	} else if o.Age <= limit {
		x.kept, o.Code = true, Recent
		if o.elapsed > limit {
			o.Code, x.firm = Doubt, true
		}
		at, ok := f.Coverage.At(o.LastUse.At, limit)
		if o.ExpiresAt = at; !ok {
			o.Horizon = Unknown
		}
	}
	if young := im.Pushed.Add(p.MinAge); p.MinAge > 0 && f.Now.Before(young) {
		x.firm = true
		if !x.kept {
			x.kept = true
			o.ExpiresAt = young
		}
		if o.Code != NoAgeLimit {
			o.Code = Young
		}
		if o.Horizon == At && o.ExpiresAt.Before(young) {
			o.ExpiresAt = young
		}
	}
	x.firm = x.firm && x.kept
}

// hidden decides whether a hidden image comes back for its own sake.
func (d *decider) hidden(p *Policy, f *Facts, i int) {
	im, o, x := &f.Images[i], &d.out[i], &d.facts[i]
	o.Limit = f.Keep
	o.Age = f.Coverage.Age(im.HiddenAt, f.Now)
	o.Code = Waiting
	at, ok := f.Coverage.At(im.HiddenAt, f.Keep)
	if o.ExpiresAt = at; !ok {
		o.Horizon = Unknown
	}
	if im.State != content.Expired {
		// Only a person brings it back, but while something uses it that
		// person shall be able to.
		switch u := o.LastUse; {
		case u.Now && u.Source == usage.Pin:
			x.held, o.Code = true, Pinned
		case u.Now:
			x.held, o.Code = true, InUse
		}
		if x.held {
			o.Horizon, o.ExpiresAt = Never, time.Time{}
		}
		return
	}
	since := im.HiddenAt.Truncate(time.Millisecond) // the ledger keeps no less
	switch u := o.LastUse; {
	case u.Now && u.Source == usage.Pin:
		o.Code = Pinned
	case u.Now:
		o.Code = InUse
	case u.At.After(im.HiddenAt), !u.At.Before(since) && (u.Source != usage.Push || u.Digest != im.Digest):
		o.Code = UsedAgain
	default:
		return
	}
	x.kept, o.Horizon, o.ExpiresAt = true, Unknown, time.Time{}
}

// spread keeps what a kept image needs and what refers to it.
func (d *decider) spread(f *Facts) {
	referrers := map[image.Digest][]int32{}
	for i := range f.Images {
		if im := &f.Images[i]; im.Subject != "" && im.State != content.Deleted {
			referrers[im.Subject] = append(referrers[im.Subject], int32(i))
		}
	}
	d.work = d.work[:0]
	for i := range d.facts {
		if d.facts[i].kept {
			d.work = append(d.work, int32(i))
		}
	}
	for len(d.work) > 0 {
		i := d.work[len(d.work)-1]
		d.work = d.work[:len(d.work)-1]
		im := &f.Images[i]
		for _, c := range im.Children {
			if c, ok := d.index[c]; ok && c != i {
				d.lend(f, i, c, Needed)
			}
		}
		for _, r := range referrers[im.Digest] {
			if r != i {
				d.lend(f, i, r, Referrer)
			}
		}
	}
}

// lend keeps image to because image from is kept. What it hands on only ever
// grows, so that spreading ends even around a circle.
func (d *decider) lend(f *Facts, from, to int32, c Code) {
	if f.Images[to].State == content.Deleted {
		return // a person's decision, which only a restore undoes
	}
	a, b := &d.out[from], &d.out[to]
	x, y := &d.facts[from], &d.facts[to]
	again := false
	if !y.kept {
		y.kept, again = true, true
		b.Code, b.By = c, f.Images[from].Digest
		b.Horizon, b.ExpiresAt = At, time.Time{}
	}
	if x.firm && !y.firm {
		y.firm, again = true, true
	}
	if later(a, b) {
		again = true
		b.Horizon, b.ExpiresAt = a.Horizon, a.ExpiresAt
		b.By = f.Images[from].Digest
	}
	if again {
		d.work = append(d.work, to)
	}
}

// later reports whether a is foreseen to stay longer than b.
func later(a, b *Decision) bool {
	rank := func(h Horizon) int {
		return [...]int{At: 0, Unknown: 1, Never: 2}[h]
	}
	if ra, rb := rank(a.Horizon), rank(b.Horizon); ra != rb {
		return ra > rb
	}
	return a.Horizon == At && a.ExpiresAt.After(b.ExpiresAt)
}

// conclude turns what is kept into actions.
func (d *decider) conclude(f *Facts) {
	for i := range d.out {
		o, x := &d.out[i], &d.facts[i]
		live := o.Image.State == content.Live
		switch {
		case live && x.kept:
			o.Action = Keep
		case x.kept:
			o.Action = Revive
		case live && !f.ClockOK:
			o.Action, o.Code, o.Horizon, o.ExpiresAt = Keep, ClockDoubt, Unknown, time.Time{}
			x.firm = true
		case live:
			o.Action, o.Code, o.ExpiresAt = Expire, Unused, f.Now
			if x.subject >= 0 {
				o.Code, o.By = SubjectGoes, f.Images[x.subject].Digest
			}
		case x.held || o.Age < f.Keep:
			o.Action = Hidden
		case !f.ClockOK:
			o.Action, o.Code, o.Horizon, o.ExpiresAt = Hidden, ClockDoubt, Unknown, time.Time{}
		default:
			o.Action, o.Code, o.ExpiresAt = Sweep, KeptLong, f.Now
		}
	}
}

// Levels sorts decisions to expire: an image comes in a later level than every
// index that lists it and the subject it refers to, as far as those expire
// too. Whoever executes them level by level, and drops what an image that could
// not be hidden needs, never hides a part of something that stays.
func Levels(ds []Decision) [][]*Decision {
	at := map[image.Digest]*Decision{}
	for i := range ds {
		if ds[i].Action == Expire {
			at[ds[i].Image.Digest] = &ds[i]
		}
	}
	if len(at) == 0 {
		return nil
	}
	above := map[image.Digest][]image.Digest{} // who must go before
	for dg, o := range at {
		for _, c := range o.Image.Children {
			if at[c] != nil && c != dg {
				above[c] = append(above[c], dg)
			}
		}
		if s := o.Image.Subject; s != "" && s != dg && at[s] != nil {
			above[dg] = append(above[dg], s)
		}
	}
	level := map[image.Digest]int{}
	const open = math.MaxInt
	var depth func(image.Digest) int
	depth = func(dg image.Digest) int {
		if l, ok := level[dg]; ok {
			if l == open { // a circle of fallback tags: any order will do
				return -1
			}
			return l
		}
		level[dg] = open
		l := 0
		for _, a := range above[dg] {
			l = max(l, depth(a)+1)
		}
		level[dg] = l
		return l
	}
	var out [][]*Decision
	for i := range ds { // in the order of ds, so that runs repeat
		if ds[i].Action != Expire {
			continue
		}
		l := depth(ds[i].Image.Digest)
		for len(out) <= l {
			out = append(out, nil)
		}
		out[l] = append(out[l], &ds[i])
	}
	return out
}
