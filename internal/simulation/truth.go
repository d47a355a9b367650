package simulation

import (
	"cairn.dev/cairn/internal/content"
)

// --- what must hold ---

// creditTable says which manifests a use of a digest counts for, by the set of
// manifests that are in the repository: here for a use that may go up, there
// for one that may not.
type creditTable struct {
	here, there [1 << nMan][nDig]uint8
}

func newCreditTable(c *catalog) *creditTable {
	t := &creditTable{}
	for set := range 1 << nMan {
		for d := range nDig {
			var base uint8 // manifests of that digest, in the repository or not
			if d < nMan {
				base = 1 << d
			}
			up := base
			for m := range nMan {
				if set&(1<<m) != 0 && c.mans[m].config == d {
					up |= 1 << m
				}
			}
			for range nMan { // to the top
				for m := range nMan {
					for _, k := range c.mans[m].children {
						if set&(1<<m) != 0 && up&(1<<k) != 0 {
							up |= 1 << m
						}
					}
				}
			}
			t.here[set][d] = c.down(up, set)
			t.there[set][d] = c.down(base, set)
		}
	}
	return t
}

// down adds what the manifests list.
func (c *catalog) down(ms uint8, set int) uint8 {
	for range nMan {
		for m := range nMan {
			if ms&(1<<m) == 0 || set&(1<<m) == 0 {
				continue
			}
			for _, k := range c.mans[m].children {
				ms |= 1 << k
			}
		}
	}
	return ms & uint8(set)
}

// truth is what the oracle knows of one repository at one moment.
type truth struct {
	live, expired uint8
	last          [nMan]T
	using         uint8 // in use now
	used          uint8 // expired, and used since
	kept          uint8 // live ones that must stay, and expired ones that must come back
	merits        uint8 // live ones that must stay for their own sake, whatever others do
	held          uint8 // deleted, and in use
}

// sawPlan notes what a tick begins with.
func (o *Oracle) sawPlan(w *World) {
	for r := range w.repo {
		o.planLive[r], o.planThere[r] = 0, 0
		for m := range w.repo[r].man {
			if x := &w.repo[r].man[m]; x.there && x.state == content.Live {
				o.planLive[r] |= 1 << m
			}
			if w.repo[r].man[m].there {
				o.planThere[r] |= 1 << m
			}
			o.planPushed[r][m], o.planPin[r][m] = w.repo[r].man[m].pushed, w.repo[r].pin[m]
		}
	}
}

// truth finds out from the bare state of the world. part: in the middle of a
// tick. Then what was pushed since it began counts for itself and what it needs,
// and not for the indexes that list it, nor does it carry uses there; and a new
// pin counts for what is pinned. The tick cannot know more, and is as good as
// one that was over before.
func (o *Oracle) truth(l *Lab, w *World, r int, part bool) truth {
	var t truth
	rs := &w.repo[r]
	set := 0
	for m := range rs.man {
		if !rs.man[m].there {
			continue
		}
		set |= 1 << m
		switch rs.man[m].state {
		case content.Live:
			t.live |= 1 << m
		case content.Expired:
			t.expired |= 1 << m
		}
	}
	edges := set
	if part {
		edges &= int(o.planThere[r])
	}
	give := func(ms uint8, at T, now bool, pushed int) {
		for m := range nMan {
			if ms&(1<<m) == 0 {
				continue
			}
			t.last[m] = max(t.last[m], at)
			if now {
				t.using |= 1 << m
			}
			if now || at > rs.man[m].hidden || at == rs.man[m].hidden && m != pushed {
				t.used |= 1 << m
			}
		}
	}
	for d := range o.use {
		for k := range o.use[d] {
			u := &o.use[d][k]
			if u.last == 0 {
				continue
			}
			if n := kindRepo[k]; n < 0 || int(n) == r {
				give(l.credited.here[edges][d], u.last, u.now, -1)
			} else {
				give(l.credited.there[edges][d], u.last, u.now, -1)
			}
		}
	}
	for m := range rs.man {
		if rs.man[m].there {
			up := l.credited.here[edges][m]
			if part && rs.man[m].pushed != o.planPushed[r][m] {
				up = l.credited.there[edges][m]
				give(l.credited.here[edges][m], o.planPushed[r][m], false, m)
			}
			give(up, rs.man[m].pushed, false, m)
		}
		if rs.pin[m] {
			up := l.credited.here[edges][m]
			if part && !o.planPin[r][m] {
				up = 1 << m
			}
			give(up, 0, true, -1)
		}
	}
	t.used &= t.expired
	t.held = uint8(set) &^ t.live &^ t.expired & t.using

	// Who refers to whom.
	subject := [nMan]int{}
	for m := range rs.man {
		subject[m] = l.cat.mans[m].subject
		if subject[m] < 0 && m == mFal && (int(rs.tag[tagFallback].man) == m || rs.man[m].tag[tagFallback].there) {
			subject[m] = mC
		}
	}
	newest, newestAt := -1, T(0)
	for _, tag := range []int{tag1, tag2} { // by name: the later wins
		if x := rs.tag[tag]; x.man >= 0 && x.pushed >= newestAt {
			newest, newestAt = int(x.man), x.pushed
		}
	}
	for m := range rs.man {
		bit := uint8(1) << m
		if t.live&bit == 0 {
			continue
		}
		x := &rs.man[m]
		stays := t.using&bit != 0
		if r == 1 {
			if int(rs.tag[protect1].man) == m {
				stays = true
			}
			if m == newest {
				t.kept |= bit
			}
		}
		if s := subject[m]; s >= 0 && t.live&(1<<s) != 0 {
			if stays {
				t.kept |= bit
				t.merits |= bit
			}
			continue
		}
		// Its subject may have gone a moment ago, and takes it along.
		follows := subject[m] >= 0 && o.planLive[r]&(1<<subject[m]) != 0
		if stays {
			t.merits |= bit
		}
		tagged := false
		for tag := range rs.tag {
			tagged = tagged || int(rs.tag[tag].man) == m
		}
		limit := after0
		switch {
		case r == 1:
			limit = after1
			stays = stays || w.wall-x.pushed < minAge1
		case !tagged:
			limit = untagged0
		}
		if stays || o.age(r, t.last[m], w.wall) <= limit {
			t.kept |= bit
			if !follows {
				t.merits |= bit
			}
		}
	}
	t.kept |= t.used
	for range nMan {
		for m := range nMan {
			if t.kept&(1<<m) == 0 {
				continue
			}
			for _, k := range l.cat.mans[m].children {
				t.kept |= 1 << k & (t.live | t.expired)
			}
			for k := range nMan {
				if subject[k] == m {
					t.kept |= 1 << k & (t.live | t.expired)
				}
			}
		}
	}
	if o.behind != 0 { // nothing goes, and nothing comes back for that
		t.kept |= t.live
		t.merits |= t.live
	}
	return t
}
