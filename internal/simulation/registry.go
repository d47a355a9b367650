package simulation

import (
	"cairn.dev/cairn/internal/content"
)

// A Bug is a mistake that the model can be told to make, to prove that the
// exploration finds it.
type Bug uint32

const (
	IgnoreDoubt          Bug = 1 << iota // ages count uncovered time
	NoUpCredit                           // a use of a child does not keep its index
	CollectIgnoresLease                  // collection removes what a client was told exists
	NoRecheck                            // what was decided is done, whatever came between
	RestoreOverwritesTag                 // a restore takes a tag back
	PushHoldsNothing                     // a manifest does not keep its blobs
	RestartForgetsDoubt                  // a reporter not heard since the start counts as heard
	IgnoreClock                          // decides although the clock is behind
	ReviveAlone                          // what comes back comes without its children
	SweepByWall                          // hidden time counts uncovered time
	LosePush                             // a push is answered before it is committed
	ChildrenFirst                        // expires children before their index, and stops in between
	nBugs                = iota
)

var bugNames = [nBugs]string{"IgnoreDoubt", "NoUpCredit", "CollectIgnoresLease", "NoRecheck", "RestoreOverwritesTag", "PushHoldsNothing",
	"RestartForgetsDoubt", "IgnoreClock", "ReviveAlone", "SweepByWall", "LosePush", "ChildrenFirst"}

func (b Bug) String() string {
	for i, n := range bugNames {
		if b == 1<<i {
			return n
		}
	}
	return "no bug"
}

// linked says whether a repository has a blob.
func (w *World) linked(r, b int) bool { return w.repo[r].link[b].there && w.row[b] }

func (w *World) makeLink(r, b int) {
	l := &w.repo[r].link[b]
	w.repo[r].made = true
	l.there = true
	if !l.held {
		l.due = w.wall + grace
	}
}

func (w *World) pushBlob(r, b int) bool {
	w.lease[b] = max(w.lease[b], w.mono+grace)
	w.file[b] = true
	return w.tx(func() bool {
		w.row[b] = true
		w.makeLink(r, b)
		return true
	})
}

func (w *World) statBlob(r, b int) bool {
	if !w.linked(r, b) {
		return false
	}
	w.lease[b] = max(w.lease[b], w.mono+grace)
	return true
}

func (w *World) mount(r, b, from int) bool {
	if !w.linked(from, b) {
		return false
	}
	w.lease[b] = max(w.lease[b], w.mono+grace)
	return w.tx(func() bool {
		w.makeLink(r, b)
		return true
	})
}

func (l *Lab) pushManifest(w *World, r, m, tag int) bool {
	c := &l.cat.mans[m]
	do := func() bool {
		rs := &w.repo[r]
		for _, b := range c.blobs {
			if !w.linked(r, b) {
				return false
			}
		}
		rs.made = true
		x := &rs.man[m]
		known, was := x.there, x.state
		if !known {
			w.seq++
			*x = manState{there: true, seq: w.seq, pushed: w.wall, dirty: true}
		} else {
			if was != content.Live {
				x.tag = [nTag]hiddenTag{}
				l.revive(w, r, m, false)
			}
			x.pushed, x.dirty = w.wall, true
		}
		if l.bugs&PushHoldsNothing == 0 {
			for _, b := range c.blobs {
				rs.link[b].held = true
			}
		}
		if tag >= 0 {
			w.setTag(r, m, tag)
		}
		for _, k := range c.children {
			if ch := &rs.man[k]; ch.there && ch.state == content.Live {
				ch.dirty = true
			}
		}
		if known && was == content.Live {
			l.reviveChildren(w, r, m, false)
		} else {
			l.follow(w, r, m, false)
		}
		return true
	}
	if l.bugs&LosePush != 0 && w.crashAt > 0 {
		w.tx(do)
		w.dead = false
		w.crashAt = 0
		return true
	}
	return w.tx(do)
}

func (w *World) setTag(r, m, tag int) {
	t := &w.repo[r].tag[tag]
	if t.man >= 0 && int(t.man) != m {
		old := &w.repo[r].man[t.man]
		old.pushed, old.dirty = w.wall, true
	}
	*t = tagState{man: int8(m), pushed: w.wall}
}

// revive makes one hidden image live, with the tags nobody took.
func (l *Lab) revive(w *World, r, m int, restore bool) {
	x := &w.repo[r].man[m]
	x.state, x.hidden, x.dirty = content.Live, 0, true
	for t := range x.tag {
		if h := x.tag[t]; h.there {
			cur := &w.repo[r].tag[t]
			if (h.pull || restore) && (cur.man < 0 || l.bugs&RestoreOverwritesTag != 0) {
				*cur = tagState{man: int8(m), pushed: h.pushed}
			}
		}
	}
	x.tag = [nTag]hiddenTag{}
}

func (l *Lab) reviveChildren(w *World, r, m int, restore bool) {
	if l.bugs&ReviveAlone != 0 {
		return
	}
	for _, c := range l.cat.mans[m].children {
		x := &w.repo[r].man[c]
		switch {
		case !x.there:
		case x.state == content.Live:
			x.dirty = true
		default:
			l.again(w, r, c, restore, restore)
		}
	}
}

// follow brings back what a live image needs and what shares its fate.
func (l *Lab) follow(w *World, r, m int, restore bool) {
	l.reviveChildren(w, r, m, restore)
	for i := range l.cat.mans {
		x := &w.repo[r].man[i]
		if !x.there || x.state != content.Expired {
			continue
		}
		c := &l.cat.mans[i]
		if c.subject == m || c.subject < 0 && m == mC && x.tag[tagFallback].there {
			l.again(w, r, i, false, restore)
		}
	}
}

func (l *Lab) again(w *World, r, m int, deletedToo, restore bool) {
	x := &w.repo[r].man[m]
	if x.state == content.Live || x.state == content.Deleted && !deletedToo {
		return
	}
	l.revive(w, r, m, restore)
	l.follow(w, r, m, restore)
}

// live makes sure that an image is live, if that is allowed.
func (l *Lab) live(w *World, r, m int, restore bool) bool {
	x := &w.repo[r].man[m]
	switch {
	case !x.there, x.state == content.Deleted && !restore:
		return false
	case x.state != content.Live:
		l.revive(w, r, m, restore)
		l.follow(w, r, m, restore)
	}
	return true
}

func (l *Lab) retag(w *World, r, m, tag int) bool {
	return w.tx(func() bool {
		if !l.live(w, r, m, false) {
			return false
		}
		w.setTag(r, m, tag)
		x := &w.repo[r].man[m]
		x.pushed, x.dirty = w.wall, true
		return true
	})
}

func (w *World) deleteTag(r, tag int) bool {
	return w.tx(func() bool {
		any := false
		for m := range w.repo[r].man {
			if h := &w.repo[r].man[m].tag[tag]; h.there && h.pull {
				h.pull, any = false, true
			}
		}
		t := &w.repo[r].tag[tag]
		if t.man < 0 {
			return any
		}
		x := &w.repo[r].man[t.man]
		x.pushed, x.dirty = w.wall, true
		*t = tagState{man: -1}
		return true
	})
}

func (w *World) hide(r, m int, to content.State) {
	rs := &w.repo[r]
	x := &rs.man[m]
	for t := range rs.tag {
		if int(rs.tag[t].man) == m {
			x.tag[t] = hiddenTag{there: true, pull: true, pushed: rs.tag[t].pushed}
			rs.tag[t] = tagState{man: -1}
		}
	}
	x.state, x.hidden, x.dirty = to, w.wall, true
	if to == content.Deleted {
		for t := range x.tag {
			if !x.tag[t].there {
				continue
			}
			for o := range rs.man {
				rs.man[o].tag[t].pull = false
			}
		}
	}
}

func (w *World) deleteManifest(r, m int) bool {
	return w.tx(func() bool {
		if x := &w.repo[r].man[m]; !x.there || x.state == content.Deleted {
			return false
		}
		w.hide(r, m, content.Deleted)
		return true
	})
}

// resolve finds what a pull of a tag gets, live or expired; -1: nothing.
func (w *World) resolve(r, tag int) int {
	rs := &w.repo[r]
	if m := int(rs.tag[tag].man); m >= 0 {
		return m
	}
	best := -1
	for m := range rs.man {
		x := &rs.man[m]
		if !x.there || !x.tag[tag].there || !x.tag[tag].pull {
			continue
		}
		if best >= 0 {
			b := &rs.man[best]
			switch {
			case x.hidden != b.hidden:
				if x.hidden < b.hidden {
					continue
				}
			case x.tag[tag].pushed != b.tag[tag].pushed:
				if x.tag[tag].pushed < b.tag[tag].pushed {
					continue
				}
			case x.seq < b.seq:
				continue
			}
		}
		best = m
	}
	if best >= 0 && rs.man[best].state == content.Deleted {
		return -1
	}
	return best
}

// pull is a GET by digest: what counts is noted after the image is there.
func (l *Lab) pull(w *World, r, m int) bool {
	x := &w.repo[r].man[m]
	if !x.there || x.state == content.Deleted {
		return false
	}
	if x.state == content.Expired && !w.tx(func() bool { return l.live(w, r, m, false) }) {
		return false
	}
	if w.dead {
		return false
	}
	w.touch(m, kPull0+r, w.ledgerNow())
	return true
}

func (l *Lab) pin(w *World, r, m int) bool {
	return w.tx(func() bool {
		if !l.live(w, r, m, false) {
			return false
		}
		w.repo[r].pin[m] = true
		w.repo[r].man[m].dirty = true
		return true
	})
}

func (w *World) unpin(r, m int) bool {
	return w.tx(func() bool {
		if !w.repo[r].man[m].there {
			return false
		}
		if w.repo[r].pin[m] {
			w.repo[r].pin[m], w.repo[r].man[m].dirty = false, true
		}
		return true
	})
}

func (l *Lab) restore(w *World, r, m int) bool {
	return w.tx(func() bool {
		x := &w.repo[r].man[m]
		if !x.there {
			return false
		}
		if x.state == content.Live {
			return true
		}
		l.live(w, r, m, true)
		x.pushed, x.dirty = w.wall, true
		return true
	})
}

// sweep removes a hidden image.
func (l *Lab) sweep(w *World, r, m int) {
	rs := &w.repo[r]
	for _, b := range l.cat.mans[m].blobs {
		if !l.needed(w, r, b, m) {
			rs.link[b].held, rs.link[b].due = false, w.wall
		}
	}
	rs.man[m] = manState{}
	rs.pin[m] = false
}

// needed reports whether a manifest of the repository, other than but, names
// the blob.
func (l *Lab) needed(w *World, r, b, but int) bool {
	for m := range l.cat.mans {
		if m == but || !w.repo[r].man[m].there {
			continue
		}
		for _, x := range l.cat.mans[m].blobs {
			if x == b {
				return true
			}
		}
	}
	return false
}

func (l *Lab) collect(w *World) {
	due := false
	if w.mono < w.start+grace && l.bugs&CollectIgnoresLease == 0 {
		return
	}
	for r := range w.repo {
		for b := range w.repo[r].link {
			k := &w.repo[r].link[b]
			due = due || k.there && !k.held && k.due <= w.wall
		}
	}
	if !due {
		return
	}
	gone := [nBlob]bool{}
	acked := w.tx(func() bool {
		for r := range w.repo {
			for b := range w.repo[r].link {
				k := &w.repo[r].link[b]
				if !k.there || k.held || k.due > w.wall {
					continue
				}
				switch {
				case w.lease[b] > w.mono && l.bugs&CollectIgnoresLease == 0:
					k.due = w.wall + w.lease[b] - w.mono
				case l.needed(w, r, b, -1) && l.bugs&PushHoldsNothing == 0:
					k.held, k.due = true, 0
				default:
					*k = linkState{}
				}
			}
		}
		for b := range w.row {
			any := false
			for r := range w.repo {
				any = any || w.repo[r].link[b].there
			}
			if w.row[b] && !any {
				w.row[b], gone[b] = false, true
			}
		}
		return true
	})
	if acked {
		for b := range gone {
			if gone[b] {
				w.file[b] = false
			}
		}
	}
}

// reconcile removes files nothing knows.
func (w *World) reconcile() {
	for b := range w.file {
		w.file[b] = w.file[b] && w.row[b]
	}
}
