package simulation

import (
	"fmt"
	"math/bits"

	"cairn.dev/cairn/internal/content"
)

// maxTime bounds the time of one history, in units after begin.
const maxTime = 64 * 64

// An Oracle watches a history from outside and says when something happened
// that must not. It keeps its own record of who used what and which moments
// nobody can vouch for, one bit for each unit of time, and shares no code with
// what it judges.
type Oracle struct {
	wall, mono T
	doubt      [nRepo][maxTime / 64]uint64
	sureDoubt  [nRepo][maxTime / 64]uint64 // what of it a crash cannot take away
	use        [nDig][nKind]witness
	rep        [nRep]speaker
	behind     T // the clock is behind this
	seen       T // latest time seen
	marked     T // latest time that survives a crash
	manual     T
	told       [nRepo][nBlob]T // monotonic: a client was told, or it was let go
	let        [nBlob]T        // monotonic: the last manifest that needed it went
	start      T
	planLive   [nRepo]uint8      // what was live when the tick in progress began
	planThere  [nRepo]uint8      // what was there, hidden or not
	planPushed [nRepo][nMan]T    // and when it was pushed
	planPin    [nRepo][nMan]bool // and what was pinned
	jumpedBack bool
	over       bool // time has run out
}

// witness is the newest use of a digest of one kind; sure is what a crash
// cannot take away.
type witness struct {
	last, sure T
	now        bool
}

type speaker struct {
	there, sure, heard   bool
	last, mono, sureLast T
}

func newOracle() Oracle {
	return Oracle{wall: begin, mono: 1, seen: begin, marked: begin, start: 1}
}

// A Violation says what must not have happened.
type Violation struct{ What string }

func (v *Violation) Error() string { return v.What }

func violation(format string, args ...any) error {
	return &Violation{fmt.Sprintf(format, args...)}
}

// cover marks the time from from to to as doubtful for a repository; -1: all.
func (o *Oracle) cover(r int8, from, to T) {
	if r < 0 {
		for r := range int8(nRepo) {
			o.cover(r, from, to)
		}
		return
	}
	for t := max(from, begin); t < to; t++ {
		i := t - begin
		if i >= maxTime {
			o.over = true
			return
		}
		o.doubt[r][i/64] |= 1 << (i % 64)
	}
}

func (o *Oracle) now() T { return max(o.wall, o.seen) }

func (o *Oracle) quiet(i int) bool {
	s := &o.rep[i]
	if s.heard {
		return o.mono-s.mono > 3*period
	}
	return o.now()-s.last > 3*period
}

// open is the earliest time from which the repository is in doubt until now;
// far ahead if it is not.
func (o *Oracle) open(r int) T {
	from := T(1 << 30)
	if o.behind != 0 {
		from = o.behind
	}
	if o.manual != 0 && r == manualScope {
		from = min(from, o.manual)
	}
	for i := range o.rep {
		if s := &o.rep[i]; s.there && (!s.heard || o.quiet(i)) && (i == 0 || r == 0) {
			from = min(from, s.last)
		}
	}
	return from
}

// age counts the units since t that somebody vouches for.
func (o *Oracle) age(r int, t, now T) T {
	now = min(now, o.open(r))
	n := T(0)
	for a := t - begin; a < now-begin; {
		if a < 0 {
			a++
			n++
			continue
		}
		if a >= maxTime {
			break
		}
		if a%64 == 0 && a+64 <= now-begin { // a word at a time
			n += T(64 - bits.OnesCount64(o.doubt[r][a/64]))
			a += 64
			continue
		}
		if o.doubt[r][a/64]&(1<<(a%64)) == 0 {
			n++
		}
		a++
	}
	return n
}

// look at the clock, as the process does with every operation.
func (o *Oracle) look(passed T) {
	switch {
	case o.wall < o.seen:
		if o.behind == 0 {
			o.behind = o.seen
		}
		return
	case o.behind != 0:
		o.cover(-1, o.behind, o.wall)
		o.behind = 0
	case o.wall-o.seen > passed:
		o.cover(-1, o.seen, o.wall)
	}
	o.seen = o.wall
}

// save makes everything sure. What a crash takes away is found again at the
// start: a silence, because its end is forgotten with it, and a jump of the
// clock, as time in which nothing ran, unless the clock is back by then.
func (o *Oracle) save() {
	o.sureDoubt = o.doubt
	for d := range o.use {
		for k := range o.use[d] {
			o.use[d][k].sure = o.use[d][k].last
		}
	}
}

func (o *Oracle) saveSpeakers() {
	o.sureDoubt = o.doubt
	for i := range o.rep {
		if s := &o.rep[i]; s.there {
			s.sure, s.sureLast = true, s.last
		}
	}
}

// --- what happened ---

func (o *Oracle) sawUse(d, k int, at T) {
	u := &o.use[d][k]
	u.last = max(u.last, min(at, o.now()))
}

func (o *Oracle) sawStatement(i int, digests ...int) {
	s := &o.rep[i]
	fresh := !s.there
	if !fresh && o.quiet(i) {
		o.cover(int8(i)-1, s.last, o.now())
	}
	for d := range o.use {
		o.use[d][kRep0+i].now = false
	}
	for _, d := range digests {
		o.sawUse(d, kRep0+i, o.now())
		o.use[d][kRep0+i].now = true
	}
	s.there, s.heard, s.last, s.mono = true, true, max(s.last, o.now()), o.mono
	if fresh {
		o.saveSpeakers()
	}
}

func (o *Oracle) sawForget(i int) {
	if s := &o.rep[i]; s.there && (!s.heard || o.quiet(i)) {
		o.cover(int8(i)-1, s.last, o.now())
	}
	o.rep[i] = speaker{}
	for d := range o.use {
		o.use[d][kRep0+i].now = false
	}
	o.save()
}

func (o *Oracle) sawTime(wall, mono T, up bool) {
	o.wall += wall
	o.mono += mono
	o.jumpedBack = o.jumpedBack || wall < 0
	if o.wall-begin >= maxTime-1 {
		o.over = true
	}
	if !up {
		return
	}
	o.look(mono)
	if mono > 0 {
		o.save()
		o.saveSpeakers()
		o.marked = o.seen
	}
}

func (o *Oracle) sawStop(clean bool) {
	if clean {
		o.save()
		o.saveSpeakers()
		o.marked = o.seen
	}
	o.doubt = o.sureDoubt
	for d := range o.use {
		for k := range o.use[d] {
			u := &o.use[d][k]
			u.last, u.now = u.sure, false
		}
	}
	for i := range o.rep {
		s := &o.rep[i]
		*s = speaker{there: s.sure, sure: s.sure, last: s.sureLast, sureLast: s.sureLast}
	}
}

func (o *Oracle) sawStart() {
	o.start = o.mono
	o.seen, o.behind = max(o.marked, o.wall), 0
	if o.wall < o.marked {
		o.behind = o.marked
	}
	o.cover(-1, o.marked, o.wall)
	o.sureDoubt = o.doubt
	o.marked = o.seen
}

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

// always holds after every step.
func (o *Oracle) always(l *Lab, w *World) error {
	for r := range w.repo {
		rs := &w.repo[r]
		for m := range rs.man {
			x := &rs.man[m]
			if !x.there {
				continue
			}
			for _, b := range l.cat.mans[m].blobs {
				if !rs.link[b].there || !w.row[b] || !w.file[b] {
					return violation("blob %s of %s manifest %s in %s is not there", l.cat.blobs[b].name, x.state, l.cat.mans[m].name, l.cat.repos[r])
				}
			}
			if x.state != content.Live {
				continue
			}
			for _, k := range l.cat.mans[m].children {
				if c := &rs.man[k]; c.there && c.state == content.Expired {
					return violation("%s in %s is live and lists %s, which is expired", l.cat.mans[m].name, l.cat.repos[r], l.cat.mans[k].name)
				}
			}
		}
		for t := range rs.tag {
			if m := rs.tag[t].man; m >= 0 && (!rs.man[m].there || rs.man[m].state != content.Live) {
				return violation("tag %s of %s names an image that is not live", l.cat.tags[t], l.cat.repos[r])
			}
		}
		for b := range rs.link {
			if t := o.told[r][b]; t != 0 && o.mono < t+grace && !(rs.link[b].there && w.row[b] && w.file[b]) {
				return violation("a client was told %d units ago that %s is in %s, and it is gone", o.mono-t, l.cat.blobs[b].name, l.cat.repos[r])
			}
		}
	}
	return nil
}

// same says that nothing durable changed, but for what is named.
func (o *Oracle) same(l *Lab, before, after *World, r0 int, mayHide, mayShow uint8, tags uint8, what string) error {
	for r := range after.repo {
		a, b := &before.repo[r], &after.repo[r]
		hide, show, moved := mayHide, mayShow, tags
		if r != r0 && r0 >= 0 {
			hide, show, moved = 0, 0, 0
		}
		for m := range a.man {
			bit := uint8(1) << m
			was := a.man[m].there && a.man[m].state == content.Live
			is := b.man[m].there && b.man[m].state == content.Live
			switch {
			case was && !is && hide&bit == 0:
				return violation("%s took %s of %s away", what, l.cat.mans[m].name, l.cat.repos[r])
			case is && !was && show&bit == 0:
				return violation("%s made %s of %s live", what, l.cat.mans[m].name, l.cat.repos[r])
			case a.man[m].there && !b.man[m].there:
				return violation("%s made %s of %s vanish", what, l.cat.mans[m].name, l.cat.repos[r])
			}
		}
		for t := range a.tag {
			x, y := a.tag[t].man, b.tag[t].man
			switch {
			case x < 0 || x == y || moved&(1<<t) != 0:
			case hide&(1<<x) != 0 && y < 0:
			default:
				return violation("%s took tag %s of %s from %s", what, l.cat.tags[t], l.cat.repos[r], l.cat.mans[x].name)
			}
		}
	}
	return nil
}

// afterTick judges what a whole tick did that nothing came between.
func (o *Oracle) afterTick(l *Lab, before, after *World) error {
	for r := range after.repo {
		t := o.truth(l, before, r, false)
		rs := &after.repo[r]
		for m := range rs.man {
			bit := uint8(1) << m
			x, was := &rs.man[m], &before.repo[r].man[m]
			live := x.there && x.state == content.Live
			name := l.cat.mans[m].name + " of " + l.cat.repos[r]
			switch {
			case live && t.kept&bit == 0:
				return violation("%s overstays: last use %d units ago, %d of them covered", name, before.wall-t.last[m], o.age(r, t.last[m], before.wall))
			case !live && t.kept&bit != 0 && t.live&bit != 0:
				return violation("%s was hidden, and is used, in doubt or needed: last use %d units ago, %d of them covered", name, before.wall-t.last[m], o.age(r, t.last[m], before.wall))
			case !live && t.kept&bit != 0:
				return violation("%s did not come back, and was used since it was hidden or is needed", name)
			}
			if was.there && was.state != content.Live && t.kept&bit == 0 {
				due := o.age(r, was.hidden, before.wall) >= keepHidden && o.behind == 0 && t.held&bit == 0
				switch {
				case !x.there && !due:
					return violation("%s was swept after %d covered units, or while it is in use", name, o.age(r, was.hidden, before.wall))
				case x.there && due:
					return violation("%s was not swept after %d covered units", name, o.age(r, was.hidden, before.wall))
				}
			}
		}
	}
	return nil
}

// afterPart judges what a part of a tick did, whatever came between.
func (o *Oracle) afterPart(l *Lab, before, after *World) error {
	for r := range after.repo {
		t := o.truth(l, before, r, true)
		for m := range nMan {
			bit := uint8(1) << m
			was, is := &before.repo[r].man[m], &after.repo[r].man[m]
			name := l.cat.mans[m].name + " of " + l.cat.repos[r]
			switch {
			case was.there && was.state == content.Live && is.state == content.Expired:
				if t.merits&bit != 0 {
					return violation("%s was hidden, and is used or in doubt: last use %d units ago, %d of them covered", name, before.wall-t.last[m], o.age(r, t.last[m], before.wall))
				}
			case was.there && was.state == content.Live && !is.there:
				return violation("%s was swept while it was live", name)
			case was.there && !is.there:
				if o.age(r, was.hidden, before.wall) < keepHidden || o.behind != 0 || (t.used|t.held)&bit != 0 {
					return violation("%s was swept after %d covered units, or while it is in use", name, o.age(r, was.hidden, before.wall))
				}
			}
		}
	}
	return nil
}

// afterCollect judges what a collection left.
func (o *Oracle) afterCollect(l *Lab, w *World) error {
	if o.jumpedBack || o.mono < o.start+grace {
		return nil
	}
	for b := range w.file {
		if !w.file[b] || !w.row[b] {
			continue // without a row it is the reconciler's
		}
		owned := false
		quiet := o.let[b]
		for r := range w.repo {
			owned = owned || l.needed(w, r, b, -1)
			quiet = max(quiet, o.told[r][b])
		}
		if !owned && o.mono > max(quiet, o.start)+grace {
			return violation("blob %s has had no owner for %d units and is still there", l.cat.blobs[b].name, o.mono-quiet)
		}
	}
	return nil
}
