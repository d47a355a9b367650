package simulation

import (
	"cairn.dev/cairn/internal/content"
)

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
