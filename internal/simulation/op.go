package simulation

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"cairn.dev/cairn/internal/content"
)

// A Kind is what an operation does.
type Kind uint8

// The operations.
const (
	opImage     Kind = iota // push blobs of M and M itself, to R, with tag Tag
	opPushBlob              // push blob B to R
	opStat                  // ask for blob B of R
	opMount                 // mount blob B into R from the other repository
	opPush                  // push manifest M to R with tag Tag
	opRetag                 // point tag Tag of R at M
	opDeleteTag             // delete tag Tag of R
	opDelete                // delete manifest M of R
	opPull                  // pull M of R by digest
	opPullTag               // pull tag Tag of R
	opPin                   // pin M of R
	opUnpin                 // unpin M of R
	opRestore               // restore M of R
	opDated                 // report that digest M was used N units ago; R: repository named, or -1
	opState                 // reporter R states that digests M and B (-1: none) are in use
	opForget                // forget reporter R
	opAdvance               // N units pass
	opJump                  // the clock jumps by N units
	opOpen                  // somebody opens an uncovered interval for repository 1
	opClose                 // and closes it
	opCrash                 // the process dies
	opStop                  // the process ends cleanly
	opStart                 // the process starts
	opTick                  // retention runs; Sub come in before call N
	opBegin                 // retention plans …
	opNext                  // … and does the next part of its plan
	opCollect               // the collector runs
	opReconcile             // the reconciler runs
	nKinds
)

// An Op is one step of a history.
type Op struct {
	Kind         Kind
	R, M, B, Tag int8
	N            int16
	// Crash kills the process at a commit of the registry: 2n-1 before the
	// n-th commit of the operation, 2n after it; 0: not.
	Crash int8
	Sub   []Op
}

func (l *Lab) print(op Op) string {
	c := l.cat
	repo := func() string {
		if op.R < 0 || int(op.R) >= nRepo {
			return "any"
		}
		return c.repos[op.R]
	}
	man := func() string { return c.mans[op.M].name }
	dig := func(d int8) string {
		if int(d) < nMan {
			return c.mans[d].name
		}
		return c.blobs[d-nMan].name
	}
	tag := func() string {
		switch {
		case op.Tag < 0:
			return ""
		case op.Tag == tagFallback:
			return ":C.sig"
		}
		return ":" + c.tags[op.Tag]
	}
	var s string
	switch op.Kind {
	case opImage:
		s = fmt.Sprintf("push image %s/%s%s", repo(), man(), tag())
	case opPushBlob:
		s = fmt.Sprintf("push blob %s/%s", repo(), c.blobs[op.B].name)
	case opStat:
		s = fmt.Sprintf("stat blob %s/%s", repo(), c.blobs[op.B].name)
	case opMount:
		s = fmt.Sprintf("mount blob %s/%s", repo(), c.blobs[op.B].name)
	case opPush:
		s = fmt.Sprintf("push manifest %s/%s%s", repo(), man(), tag())
	case opRetag:
		s = fmt.Sprintf("tag %s/%s%s", repo(), man(), tag())
	case opDeleteTag:
		s = fmt.Sprintf("delete tag %s%s", repo(), tag())
	case opDelete:
		s = fmt.Sprintf("delete manifest %s/%s", repo(), man())
	case opPull:
		s = fmt.Sprintf("pull %s/%s", repo(), man())
	case opPullTag:
		s = fmt.Sprintf("pull %s%s", repo(), tag())
	case opPin:
		s = fmt.Sprintf("pin %s/%s", repo(), man())
	case opUnpin:
		s = fmt.Sprintf("unpin %s/%s", repo(), man())
	case opRestore:
		s = fmt.Sprintf("restore %s/%s", repo(), man())
	case opDated:
		s = fmt.Sprintf("report use of %s in %s, %d ago", dig(op.M), repo(), op.N)
	case opState:
		s = fmt.Sprintf("reporter %d states", op.R)
		for _, d := range []int8{op.M, op.B} {
			if d >= 0 {
				s += " " + dig(d)
			}
		}
	case opForget:
		s = fmt.Sprintf("forget reporter %d", op.R)
	case opAdvance:
		s = fmt.Sprintf("%d pass", op.N)
	case opJump:
		s = fmt.Sprintf("clock jumps %+d", op.N)
	case opOpen:
		s = "open an interval for " + c.repos[manualScope]
	case opClose:
		s = "close the interval"
	case opCrash:
		s = "crash"
	case opStop:
		s = "stop"
	case opStart:
		s = "start"
	case opTick:
		s = "tick"
		if len(op.Sub) > 0 {
			var subs []string
			for _, o := range op.Sub {
				subs = append(subs, l.print(o))
			}
			s += fmt.Sprintf(" (before change %d: %s)", op.N, strings.Join(subs, "; "))
		}
	case opBegin:
		s = "plan"
	case opNext:
		s = "do the next part"
	case opCollect:
		s = "collect"
	case opReconcile:
		s = "reconcile"
	}
	if op.Crash > 0 {
		when := "before"
		if op.Crash%2 == 0 {
			when = "after"
		}
		s += fmt.Sprintf(" [crash %s commit %d]", when, (op.Crash+1)/2)
	}
	return s
}

// Print lists a history, one step a line.
func (l *Lab) Print(ops []Op) string {
	var b strings.Builder
	for i, op := range ops {
		fmt.Fprintf(&b, "%4d  %s\n", i+1, l.print(op))
	}
	return b.String()
}

// A Sim is a world and who watches it.
type Sim struct {
	w World
	o Oracle
	// Blind: the oracle says nothing.
	Blind bool
	// Seen counts what happened, to show that histories are not idle.
	Seen Tally
}

// A Tally counts events.
type Tally struct {
	Expired, Revived, Deleted, Swept, Collected, Crashes, CameBetween int
}

func (t *Tally) add(o Tally) {
	t.Expired += o.Expired
	t.Revived += o.Revived
	t.Deleted += o.Deleted
	t.Swept += o.Swept
	t.Collected += o.Collected
	t.Crashes += o.Crashes
	t.CameBetween += o.CameBetween
}

func (t *Tally) note(before, after *World) {
	for r := range after.repo {
		for m := range after.repo[r].man {
			a, b := &before.repo[r].man[m], &after.repo[r].man[m]
			switch {
			case a.there && !b.there:
				t.Swept++
			case !a.there || a.state == b.state:
			case b.state == content.Expired:
				t.Expired++
			case b.state == content.Deleted:
				t.Deleted++
			default:
				t.Revived++
			}
		}
	}
	for b := range after.row {
		if before.row[b] && !after.row[b] {
			t.Collected++
		}
	}
}

// NewSim returns an empty store.
func NewSim() *Sim { return &Sim{w: newWorld(), o: newOracle()} }

// over reports that the small universe has no more room for this history.
func (s *Sim) over() bool { return s.w.broken || s.o.over }

const everything = 1<<nMan - 1

// Step does one operation and judges it. An operation that is not possible
// now does nothing.
func (l *Lab) Step(s *Sim, op Op) error {
	before := s.w
	err := l.step(s, op, false)
	s.Seen.note(&before, &s.w)
	if s.Blind {
		return nil
	}
	return err
}

func (l *Lab) step(s *Sim, op Op, nested bool) error {
	w, o := &s.w, &s.o
	if s.over() {
		return nil
	}
	if !w.up {
		switch op.Kind {
		case opAdvance:
			w.advance(T(op.N))
			o.sawTime(T(op.N), T(op.N), false)
		case opJump:
			w.wall += T(op.N)
			o.sawTime(T(op.N), 0, false)
		case opStart:
			w.restart(l.bugs&RestartForgetsDoubt != 0)
			o.sawStart()
			return o.always(l, w)
		}
		return nil
	}
	before := *w
	if !nested {
		w.commits, w.crashAt, w.dead = 0, int(op.Crash), false
	}
	r, m, tag := int(op.R), int(op.M), int(op.Tag)
	var err error
	check := func(hide, show, tags uint8) error {
		if err != nil {
			return err
		}
		return o.same(l, &before, w, r, hide, show, tags, l.print(op))
	}
	tagBit := func() uint8 {
		if tag < 0 {
			return 0
		}
		return 1 << tag
	}
	live := func(m int) bool { x := &w.repo[r].man[m]; return x.there && x.state == content.Live }
	switch op.Kind {
	case opImage:
		acked := true
		for _, b := range l.cat.mans[m].blobs {
			if acked = acked && w.pushBlob(r, b); acked {
				o.told[r][b] = w.mono
			}
		}
		acked = acked && l.pushManifest(w, r, m, tag)
		if acked && (!live(m) || tag >= 0 && int(w.repo[r].tag[tag].man) != m) {
			err = violation("%s was acknowledged and is not there", l.print(op))
		}
		err = check(0, everything, tagBit())
	case opPushBlob:
		if w.pushBlob(r, int(op.B)) {
			o.told[r][op.B] = w.mono
		}
		err = check(0, 0, 0)
	case opStat:
		if w.statBlob(r, int(op.B)) {
			o.told[r][op.B] = w.mono
		}
	case opMount:
		if w.mount(r, int(op.B), 1-r) {
			o.told[r][op.B] = w.mono
		}
		err = check(0, 0, 0)
	case opPush:
		acked := l.pushManifest(w, r, m, tag)
		if acked && (!live(m) || tag >= 0 && int(w.repo[r].tag[tag].man) != m) {
			err = violation("%s was acknowledged and is not there", l.print(op))
		}
		err = check(0, everything, tagBit())
	case opRetag:
		if l.retag(w, r, m, tag) && (!live(m) || int(w.repo[r].tag[tag].man) != m) {
			err = violation("%s was acknowledged and is not there", l.print(op))
		}
		err = check(0, everything, tagBit())
	case opDeleteTag:
		w.deleteTag(r, tag)
		err = check(0, 0, tagBit())
	case opDelete:
		if w.deleteManifest(r, m) && live(m) {
			err = violation("%s was acknowledged and it is live", l.print(op))
		}
		err = check(1<<m, 0, 0)
	case opPull, opPullTag:
		if op.Kind == opPullTag {
			m = w.resolve(r, tag)
		}
		if m >= 0 && l.pull(w, r, m) {
			o.sawUse(m, kPull0+r, o.now())
			if !live(m) {
				err = violation("%s was answered and the image is not live", l.print(op))
			}
		}
		err = check(0, everything, 0)
	case opPin:
		if l.pin(w, r, m) && (!live(m) || !w.repo[r].pin[m]) {
			err = violation("%s was acknowledged and it is not so", l.print(op))
		}
		err = check(0, everything, 0)
	case opUnpin:
		w.unpin(r, m)
		err = check(0, 0, 0)
	case opRestore:
		if l.restore(w, r, m) && !live(m) {
			err = violation("%s was acknowledged and it is not live", l.print(op))
		}
		err = check(0, everything, 0)
	case opDated:
		k := kDated + 1 + r
		at := w.ledgerNow() - T(op.N)
		w.watch()
		w.touch(m, k, at)
		w.flush()
		o.sawUse(m, k, at)
		o.save()
	case opState:
		var ds []int
		for _, d := range []int8{op.M, op.B} {
			if d >= 0 {
				ds = append(ds, int(d))
			}
		}
		w.state(r, ds...)
		o.sawStatement(r, ds...)
	case opForget:
		if w.forget(r) {
			o.sawForget(r)
		}
	case opAdvance:
		w.advance(T(op.N))
		o.sawTime(T(op.N), T(op.N), true)
	case opJump:
		w.wall += T(op.N)
		w.watch()
		o.sawTime(T(op.N), 0, true)
	case opOpen:
		if w.manual == 0 {
			w.manual = w.ledgerNow()
			w.flush()
			o.manual = o.now()
			o.save()
		}
	case opClose:
		if w.manual != 0 {
			now := w.ledgerNow()
			w.addSpan(manualScope, w.manual, now)
			w.manual = 0
			w.flush()
			o.cover(manualScope, o.manual, o.now())
			o.manual = 0
			o.save()
		}
	case opCrash, opStop:
		if nested {
			return nil
		}
		w.stop(op.Kind == opStop)
		o.sawStop(op.Kind == opStop)
		err = check(0, 0, 0)
	case opTick:
		if nested || w.plan.on {
			return nil
		}
		err = l.stepTick(s, op, &before)
	case opBegin:
		if nested || w.plan.on {
			return nil
		}
		o.sawPlan(w)
		l.beginTick(w)
		r = -1
		err = check(0, everything, 0)
	case opNext:
		if nested || !w.plan.on {
			return nil
		}
		err = l.stepNext(s, nil)
	case opCollect:
		l.collect(w)
		r = -1
		if err = check(0, 0, 0); err == nil && !w.dead {
			err = o.afterCollect(l, w)
		}
	case opReconcile:
		w.reconcile()
	}
	if err != nil && !s.Blind {
		return err
	}
	if w.up {
		// Whoever looks at the ledger from outside makes it look at the clock.
		w.watch()
	}
	if w.dead && !nested {
		w.dead = false
		s.Seen.Crashes++
		w.stop(false)
		o.sawStop(false)
	}
	l.letGo(o, &before, w)
	return o.always(l, w)
}

// letGo notes which blobs have lost their last manifest.
func (l *Lab) letGo(o *Oracle, before, after *World) {
	if before.repo == after.repo {
		return
	}
	for b := range nBlob {
		was, is := false, false
		for r := range nRepo {
			was = was || l.needed(before, r, b, -1)
			is = is || l.needed(after, r, b, -1)
		}
		if was && !is {
			o.let[b] = after.mono
		}
	}
}

// stepNext does the next part of the plan that there is, after between.
func (l *Lab) stepNext(s *Sim, between func() error) error {
	w := &s.w
	for {
		var todo []int
		level := int8(-1)
		for k := range nMan + 1 { // levels in order, then what is swept
			level = int8(k)
			if l.bugs&ChildrenFirst != 0 {
				level = nMan - 1 - level
			}
			if k == nMan {
				level = -1
			}
			if w.plan.done&(1<<uint(level+1)) != 0 {
				continue
			}
			w.plan.done |= 1 << uint(level+1)
			if todo = l.todo(w, level); len(todo) > 0 {
				break
			}
		}
		if len(todo) == 0 || w.dead {
			w.plan = plan{}
			return nil
		}
		if between != nil {
			if err := between(); err != nil {
				return err
			}
		}
		before := *w
		l.apply(w, todo)
		return s.o.afterPart(l, &before, w)
	}
}

func (l *Lab) stepTick(s *Sim, op Op, before *World) error {
	w, o := &s.w, &s.o
	o.sawPlan(w)
	l.beginTick(w)
	if err := o.same(l, before, w, -1, 0, everything, 0, l.print(op)); err != nil && !s.Blind {
		return err
	}
	call := 0
	came := false
	between := func() error {
		call++
		if call-1 != int(op.N) || len(op.Sub) == 0 || w.dead {
			return nil
		}
		came = true
		s.Seen.CameBetween++
		for _, sub := range op.Sub {
			if err := l.step(s, sub, true); err != nil && !s.Blind {
				return err
			}
		}
		return nil
	}
	for w.plan.on {
		if err := l.stepNext(s, between); err != nil && !s.Blind {
			return err
		}
	}
	if w.dead || came {
		return nil
	}
	return o.afterTick(l, before, w)
}

// random returns an operation that makes sense often enough.
func (l *Lab) random(rng *rand.Rand, mix *Mix, w *World, real bool) Op {
	n := func(n int) int8 { return int8(rng.IntN(n)) }
	op := Op{R: n(nRepo), M: n(nMan), B: n(nBlob), Tag: n(nTag + 1)}
	if op.Tag == tagFallback {
		op.M = mFal
	} else if op.Tag == nTag {
		op.Tag = -1
	}
	if !w.up {
		switch rng.IntN(4) {
		case 0:
			op.Kind, op.N = opAdvance, int16(1+rng.IntN(20))
		case 1:
			if rng.IntN(8) == 0 {
				op.Kind, op.N = opJump, int16(rng.IntN(80)-40)
				break
			}
			fallthrough
		default:
			op.Kind = opStart
		}
		return op
	}
	if w.plan.on && rng.IntN(3) > 0 {
		op.Kind = opNext
		if rng.IntN(20) == 0 {
			op.Crash = 1 + n(2)
		}
		return op
	}
	op.Kind = mix.kind(rng)
	switch op.Kind {
	case opRetag, opDeleteTag, opPullTag:
		if op.Tag < 0 {
			op.Tag = tag1
		}
	case opDated:
		op.R, op.M, op.N = n(nRepo+1)-1, n(nDig), int16(rng.IntN(4)*rng.IntN(12))
	case opState:
		op.R, op.M, op.B = n(nRep), n(nDig+1)-1, n(nDig+4)-4
		if op.B < 0 {
			op.B = -1
		}
	case opForget:
		op.R = n(nRep)
	case opAdvance:
		op.N = [...]int16{1, 1, 2, 3, 5, 8, 13, 31}[rng.IntN(8)]
	case opJump:
		op.N = [...]int16{1, 10, 60, -1, -10, -40}[rng.IntN(6)]
	case opTick, opBegin:
		if op.Kind == opBegin && real {
			op.Kind = opTick
		}
		if op.Kind == opTick && rng.IntN(3) == 0 {
			op.N = int16(rng.IntN(3))
			for range 1 + rng.IntN(2) {
				sub := l.random(rng, mix, w, real)
				for sub.Kind == opTick || sub.Kind == opBegin || sub.Kind == opNext || sub.Kind == opCrash || sub.Kind == opStop {
					sub = l.random(rng, mix, w, real)
				}
				sub.Crash = 0
				op.Sub = append(op.Sub, sub)
			}
		}
	}
	if rng.IntN(40) == 0 {
		switch op.Kind {
		case opImage, opPushBlob, opMount, opPush, opRetag, opDeleteTag, opDelete, opPull, opPullTag, opPin, opUnpin, opRestore, opTick, opCollect:
			op.Crash = 1 + n(6)
			op.Sub = nil
		}
	}
	return op
}

// A Mix says how often each kind of operation comes in one history.
type Mix [nKinds]int

// usual is the mix that all others are made of.
var usual = Mix{
	opImage: 14, opPushBlob: 3, opStat: 2, opMount: 3, opPush: 4, opRetag: 3, opDeleteTag: 2, opDelete: 2, opPull: 3, opPullTag: 2, opPin: 1,
	opUnpin: 2, opRestore: 4, opDated: 3, opState: 6, opForget: 2, opAdvance: 20, opJump: 1, opOpen: 1, opClose: 2, opCrash: 1, opStop: 1,
	opTick: 14, opBegin: 4, opCollect: 6, opReconcile: 1,
}

// newMix leaves out some kinds and favours others: a history in which nobody
// is silent, or nothing is deleted by hand, comes to places where one with a
// little of everything hardly ever comes.
func newMix(rng *rand.Rand) *Mix {
	mix := usual
	for k := range mix {
		switch Kind(k) {
		case opImage, opAdvance, opTick:
			mix[k] *= 1 + rng.IntN(2)
		default:
			mix[k] *= [...]int{0, 0, 1, 3}[rng.IntN(4)]
		}
	}
	return &mix
}

func (mix *Mix) kind(rng *rand.Rand) Kind {
	sum := 0
	for _, n := range mix {
		sum += n
	}
	k := rng.IntN(sum)
	for kind, n := range mix {
		if k -= n; k < 0 {
			return Kind(kind)
		}
	}
	return opAdvance
}
