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
