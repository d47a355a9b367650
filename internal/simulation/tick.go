package simulation

import (
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/usage"
)

// A Lab is the unchanging part of a simulation: the catalog, the policies, and
// the mistakes to make. One goroutine at a time.
type Lab struct {
	cat      *catalog
	policies []retention.Policy
	bugs     Bug
	credited *creditTable
}

// NewLab returns a lab whose model makes the given mistakes.
func NewLab(bugs Bug) *Lab {
	c := newCatalog()
	return &Lab{cat: c, policies: policies(), bugs: bugs, credited: newCreditTable(c)}
}

// Bounds of the policies, in units.
const (
	after0, untagged0 T = 30, 18
	after1, minAge1   T = 24, 6
	keepLast1           = 1
	protect1            = tag2
	protectGlob         = "v2"
)

func policies() []retention.Policy {
	return []retention.Policy{
		{Name: "apps", Repositories: []string{"app/**"}, After: span(after0), UntaggedAfter: span(untagged0)},
		{Name: "libs", Repositories: []string{"lib"}, After: span(after1), MinAge: span(minAge1), KeepLast: keepLast1, Protect: []string{protectGlob}},
	}
}

// images are those of a repository, as the store would list them.
func (l *Lab) images(w *World, r int) []content.Image {
	var out []content.Image
	rs := &w.repo[r]
	for _, m := range l.cat.order {
		x := &rs.man[m]
		if !x.there {
			continue
		}
		c := &l.cat.mans[m]
		im := content.Image{Repository: l.cat.repos[r], Digest: c.digest, Pushed: wall(x.pushed), State: x.state, Config: c.parsed.CreditConfig()}
		for _, k := range c.children {
			im.Children = append(im.Children, l.cat.mans[k].digest)
		}
		if c.subject >= 0 {
			im.Subject = l.cat.mans[c.subject].digest
		}
		fallback := false
		if x.state == content.Live {
			for t := range rs.tag {
				if int(rs.tag[t].man) == m {
					im.Tags = append(im.Tags, content.Tag{Name: l.cat.tags[t], Pushed: wall(rs.tag[t].pushed)})
					fallback = fallback || t == tagFallback
				}
			}
		} else {
			im.HiddenAt = wall(x.hidden)
			for t := range x.tag {
				if x.tag[t].there {
					im.Tags = append(im.Tags, content.Tag{Name: l.cat.tags[t], Pushed: wall(x.tag[t].pushed)})
					fallback = fallback || t == tagFallback
				}
			}
		}
		if im.Subject == "" && fallback {
			im.Subject = l.cat.mans[mC].digest
		}
		out = append(out, im)
	}
	return out
}

// useOf is a use as the ledger would tell it.
func (l *Lab) useOf(d, k int, u useState) usage.Use {
	out := usage.Use{Digest: l.cat.digests[d], At: wall(u.last), Now: u.now}
	if r := kindRepo[k]; r >= 0 {
		out.Repository = l.cat.repos[r]
	}
	switch k {
	case kPull0, kPull1:
		out.Source = usage.Pull
	case kDated, kDated0, kDated1:
		out.Source = usage.Workload
	default:
		out.Source = usage.Container
	}
	return out
}

func (l *Lab) number(d image.Digest) int {
	for i, x := range l.cat.digests {
		if x == d {
			return i
		}
	}
	return -1
}

// lastUse is [usage.Ledger.LastUse].
func (l *Lab) lastUse(use *[nDig][nKind]useState) usage.Lookup {
	return func(dg image.Digest, repo string) (anywhere, here usage.Use) {
		d := l.number(dg)
		if d < 0 {
			return anywhere, here
		}
		for k := range use[d] {
			u := use[d][k]
			if u.last == 0 {
				continue
			}
			x := l.useOf(d, k, u)
			if usage.Better(x, anywhere) {
				anywhere = x
			}
			if (x.Repository == "" || x.Repository == repo) && usage.Better(x, here) {
				here = x
			}
		}
		if l.bugs&NoUpCredit != 0 {
			here = usage.Use{}
		}
		return anywhere, here
	}
}

// uncovered is [usage.Ledger.Uncovered].
func (l *Lab) uncovered(w *World) []usage.Interval {
	if l.bugs&IgnoreDoubt != 0 {
		return nil
	}
	scope := func(s int8) []string {
		if s < 0 {
			return []string{"**"}
		}
		return []string{l.cat.repos[s]}
	}
	var out []usage.Interval
	for _, s := range w.spans[:w.nspans] {
		out = append(out, usage.Interval{Scope: scope(s.scope), From: wall(s.from), To: wall(s.to)})
	}
	open := func(s int8, from T) {
		out = append(out, usage.Interval{Scope: scope(s), From: wall(from)})
	}
	if w.behind != 0 {
		open(-1, w.behind)
	}
	if w.manual != 0 {
		open(manualScope, w.manual)
	}
	for i := range w.rep {
		if r := &w.rep[i]; r.enrolled && (!r.heard || w.silent(i)) {
			open(repScope(i), r.last)
		}
	}
	return out
}

func (l *Lab) clockOK(w *World) bool { return w.behind == 0 || l.bugs&IgnoreClock != 0 }

// decide is what the engine does for one repository.
func (l *Lab) decide(w *World, r int, now T) []retention.Decision {
	images := l.images(w, r)
	owned := map[image.Digest][]usage.Use{}
	for m, p := range w.repo[r].pin {
		if p {
			d := l.cat.mans[m].digest
			owned[d] = append(owned[d], usage.Use{Digest: d, Source: usage.Pin, At: wall(now), Now: true})
		}
	}
	use := w.use
	return retention.Decide(retention.Match(l.policies, l.cat.repos[r]), retention.Facts{
		Repository: l.cat.repos[r], Images: images, Last: l.lastUse(&use), Owned: owned,
		Coverage: usage.NewCoverage(l.uncovered(w), l.cat.repos[r]), ClockOK: l.clockOK(w), Now: wall(now), Keep: span(keepHidden),
	})
}

// beginTick plans, and brings back what was used. What is to be hidden or
// removed waits in w.plan.
func (l *Lab) beginTick(w *World) {
	w.watch()
	w.plan = plan{on: true, at: w.wall, use: w.use}
	p := &w.plan
	for r := range w.repo {
		ds := l.decide(w, r, w.wall)
		for m := range w.repo[r].man {
			w.repo[r].man[m].dirty = false
		}
		add := func(o *retention.Decision, level int) *planItem {
			m := l.cat.at[o.Image.Digest]
			it := &p.items[p.n]
			*it = planItem{repo: int8(r), man: int8(m), level: int8(level), code: uint8(o.Code), limit: units(o.Limit), last: sinceEpoch(o.LastUse.At), part: l.part(w, r, m)}
			if o.Code == retention.KeptLong {
				it.last = w.repo[r].man[m].hidden
			}
			p.n++
			return it
		}
		for i := range ds {
			o := &ds[i]
			switch m := l.cat.at[o.Image.Digest]; o.Action {
			case retention.Revive:
				w.tx(func() bool { return l.live(w, r, m, false) })
			case retention.Sweep:
				add(o, -1)
			}
			if l.bugs&SweepByWall != 0 && o.Action == retention.Hidden && l.clockOK(w) && w.wall-w.repo[r].man[l.cat.at[o.Image.Digest]].hidden >= keepHidden {
				o.Code = retention.KeptLong
				add(o, -1)
			}
		}
		for level, of := range retention.Levels(ds) {
			for _, o := range of {
				it := add(o, level)
				for k := range p.items[:p.n-1] {
					up := &p.items[k]
					if up.level < 0 || int(up.repo) != r {
						continue
					}
					for _, c := range l.cat.mans[up.man].children {
						if c == int(it.man) {
							it.above |= 1 << k
						}
					}
					if o.Image.Subject == l.cat.mans[up.man].digest && up.level < it.level {
						it.above |= 1 << k
					}
				}
			}
		}
	}
}

func units(d time.Duration) T { return T(d / Unit) }

func sinceEpoch(t time.Time) T {
	if t.IsZero() {
		return 0
	}
	return T(t.Sub(epoch) / Unit)
}

// part is everything that edges connect in a repository, as bits of digests.
func (l *Lab) part(w *World, r, m int) (bits uint16) {
	bits = 1 << m
	for again := true; again; {
		again = false
		for i := range l.cat.mans {
			if !w.repo[r].man[i].there && i != m {
				continue
			}
			mine := uint16(1) << i
			if c := l.cat.mans[i].config; c >= 0 {
				mine |= 1 << c
			}
			for _, c := range l.cat.mans[i].children {
				mine |= 1 << c
			}
			if mine&bits != 0 && mine&^bits != 0 {
				bits |= mine
				again = true
			}
		}
	}
	return bits
}

// stillUnused is what the transaction asks.
func (l *Lab) stillUnused(w *World, p *plan, it *planItem) bool {
	w.watch()
	if !l.clockOK(w) {
		return false
	}
	repo := l.cat.repos[it.repo]
	use, was := l.lastUse(&w.use), l.lastUse(&p.use)
	for d := range nDig {
		if it.part&(1<<d) == 0 {
			continue
		}
		a, h := use(l.cat.digests[d], repo)
		a0, h0 := was(l.cat.digests[d], repo)
		if usage.Better(a, a0) || usage.Better(h, h0) {
			return false
		}
	}
	age := units(usage.Covered(wall(it.last), wall(p.at), repo, l.uncovered(w)))
	switch retention.Code(it.code) {
	case retention.Unused:
		return age > it.limit
	case retention.KeptLong:
		return age >= it.limit || l.bugs&SweepByWall != 0
	}
	return true
}

// todo are the items of a level that may be done: those whose index or subject
// had to go first, and did not, are left.
func (l *Lab) todo(w *World, level int8) (todo []int) {
	p := &w.plan
	for i := range p.items[:p.n] {
		it := &p.items[i]
		if it.level != level {
			continue
		}
		stays := false
		for k := range p.items[:p.n] {
			stays = stays || it.above&(1<<k) != 0 && !p.items[k].gone
		}
		if !stays || l.bugs&ChildrenFirst != 0 {
			todo = append(todo, i)
		}
	}
	return todo
}

// apply hides or removes, each item if it is still what it was.
func (l *Lab) apply(w *World, todo []int) {
	p := &w.plan
	w.tx(func() bool {
		for _, k := range todo {
			it := &p.items[k]
			r, m := int(it.repo), int(it.man)
			x := &w.repo[r].man[m]
			if !x.there {
				continue
			}
			if l.bugs&NoRecheck == 0 && (x.dirty || w.repo[r].pin[m] || !l.stillUnused(w, p, it)) {
				continue
			}
			switch {
			case it.level >= 0 && x.state == content.Live:
				w.hide(r, m, content.Expired)
				it.gone = true
			case it.level < 0 && x.state != content.Live:
				l.sweep(w, r, m)
			}
		}
		return true
	})
}
