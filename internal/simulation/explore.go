package simulation

import (
	"encoding/binary"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"time"

	"cairn.dev/cairn/internal/content"
)

// Run goes through a history from an empty store. It returns how many steps
// went well and what was wrong with the next one.
func (l *Lab) Run(ops []Op) (int, error) {
	s := NewSim()
	for i, op := range ops {
		if err := l.Step(s, op); err != nil {
			return i, err
		}
	}
	return len(ops), nil
}

// Random goes through one random history of at most n steps. It returns the
// history up to the step that went wrong.
func (l *Lab) Random(seed uint64, n int) ([]Op, Tally, error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	mix := newMix(rng)
	s := NewSim()
	ops := make([]Op, 0, n)
	for len(ops) < n && !s.over() {
		op := l.random(rng, mix, &s.w, false)
		ops = append(ops, op)
		if err := l.Step(s, op); err != nil {
			return ops, s.Seen, err
		}
	}
	return ops, s.Seen, nil
}

// Shrink shortens a history that fails, as far as it goes on failing: first by
// leaving out runs of steps, longer ones first (delta debugging), then by
// making the steps themselves smaller.
func Shrink(ops []Op, fails func([]Op) bool) []Op {
	for {
		before := len(ops)
		for n := max(len(ops)/2, 1); n > 0; n /= 2 {
			for i := 0; i < len(ops); {
				rest := slices.Concat(ops[:i], ops[min(i+n, len(ops)):])
				if len(rest) < len(ops) && fails(rest) {
					ops = rest
					continue
				}
				i += n
			}
		}
		changed := false
		for i := range ops {
			for _, smaller := range simpler(ops[i]) {
				next := slices.Clone(ops)
				next[i] = smaller
				if fails(next) {
					ops, changed = next, true
					break
				}
			}
		}
		for i := 0; i+1 < len(ops); i++ { // time that passes in pieces
			if a, b := ops[i], ops[i+1]; a.Kind == opAdvance && b.Kind == opAdvance {
				a.N += b.N
				if next := slices.Concat(ops[:i], []Op{a}, ops[i+2:]); fails(next) {
					ops, changed = next, true
				}
			}
		}
		// Two steps that only fail to go because each needs the other.
		for i := 0; i < len(ops); i++ {
			for j := i + 1; j < len(ops); j++ {
				rest := slices.Concat(ops[:i], ops[i+1:j], ops[j+1:])
				if fails(rest) {
					ops, changed = rest, true
					j = i
				}
				if i >= len(ops) {
					break
				}
			}
		}
		if len(ops) == before && !changed {
			return ops
		}
	}
}

// simpler are smaller versions of a step.
func simpler(op Op) []Op {
	var out []Op
	if op.Crash > 0 {
		o := op
		o.Crash = 0
		out = append(out, o)
	}
	if op.Kind == opState && op.B >= 0 {
		o := op
		o.B = -1
		out = append(out, o)
	}
	for i := range op.Sub {
		o := op
		o.Sub = slices.Concat(op.Sub[:i], op.Sub[i+1:])
		out = append(out, o)
	}
	switch op.Kind {
	case opAdvance, opJump, opDated:
		for _, n := range []int16{0, 1, op.N / 2, op.N - 1} {
			if n >= 0 && n < op.N {
				o := op
				o.N = n
				out = append(out, o)
			}
		}
	case opImage, opPush:
		if op.Tag >= 0 {
			o := op
			o.Tag = -1
			out = append(out, o)
		}
	}
	return out
}

// Explored says how far an exhaustive exploration came.
type Explored struct {
	Depth  int
	Steps  int  // operations done
	States int  // different ones
	Whole  bool // false: it ran out of time
}

// Explore goes through every history of up to depth steps of the alphabet that
// begins with start. Histories that lead to the same state are followed once.
// It returns the first history that goes wrong.
func (l *Lab) Explore(start, alphabet []Op, depth int, until time.Duration) (Explored, []Op, error) {
	var done Explored
	began := time.Now()
	s := NewSim()
	for i, op := range start {
		if err := l.Step(s, op); err != nil {
			return done, start[:i+1], err
		}
	}
	// Deeper and deeper, so that the first failure is a shortest one.
	for d := 1; d <= depth; d++ {
		x := explorer{lab: l, alphabet: alphabet, seen: map[uint64]int8{}, seed: maphash.MakeSeed(), began: began, until: until}
		whole := x.visit(*s, d)
		if x.err != nil {
			return done, slices.Concat(start, x.path), x.err
		}
		done = Explored{Depth: d, Steps: done.Steps + x.steps, States: len(x.seen), Whole: whole}
		if !whole {
			done.Depth--
			return done, nil, nil
		}
	}
	return done, nil, nil
}

type explorer struct {
	lab      *Lab
	alphabet []Op
	seen     map[uint64]int8 // state to how far it was followed
	seed     maphash.Seed
	path     []Op
	steps    int
	began    time.Time
	until    time.Duration
	err      error
}

// visit follows every operation from s, and reports whether there was time.
func (x *explorer) visit(s Sim, left int) bool {
	h := maphash.Bytes(x.seed, key(&s))
	if was, ok := x.seen[h]; ok && int(was) >= left {
		return true
	}
	x.seen[h] = int8(left)
	if left == 0 {
		return true
	}
	for _, op := range x.alphabet {
		next := s
		x.path = append(x.path, op)
		x.steps++
		if x.err = x.lab.Step(&next, op); x.err != nil {
			return false
		}
		if x.steps%1024 == 0 && time.Since(x.began) > x.until {
			return false
		}
		if next.over() {
			x.path = x.path[:len(x.path)-1]
			continue
		}
		if !x.visit(next, left-1) {
			return false
		}
		x.path = x.path[:len(x.path)-1]
	}
	return true
}

// key is the state as far as it matters for what comes: times relative to now,
// and old ones alike.
func key(s *Sim) []byte {
	var b []byte
	w, o := &s.w, &s.o
	rel := func(t, now T) {
		d := T(-30000)
		if t != 0 {
			d = max(now-t, -2000)
			d = min(d, 2000)
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(int16(d)))
	}
	flag := func(fs ...bool) {
		v := byte(0)
		for i, f := range fs {
			if f {
				v |= 1 << i
			}
		}
		b = append(b, v)
	}
	flag(w.up, w.plan.on, o.jumpedBack)
	for r := range w.repo {
		rs := &w.repo[r]
		for m := range rs.man {
			x := &rs.man[m]
			flag(x.there, x.state == content.Expired, x.state == content.Deleted, x.dirty && w.plan.on, rs.pin[m])
			if !x.there {
				continue
			}
			rel(x.pushed, w.wall)
			if x.state != content.Live {
				rel(x.hidden, w.wall)
				for t := range x.tag {
					flag(x.tag[t].there, x.tag[t].pull)
					if x.tag[t].there {
						rel(x.tag[t].pushed, w.wall)
					}
				}
				n := byte(0) // the order of rows only decides between equals
				for k := range rs.man {
					if rs.man[k].there && rs.man[k].seq < x.seq {
						n++
					}
				}
				b = append(b, n)
			}
		}
		for t := range rs.tag {
			b = append(b, byte(rs.tag[t].man))
			rel(rs.tag[t].pushed, w.wall)
		}
		for k := range rs.link {
			x := &rs.link[k]
			flag(x.there, x.held)
			if x.there && !x.held {
				rel(x.due, w.wall)
			}
			if t := o.told[r][k]; t != 0 && o.mono <= t+grace {
				rel(t, o.mono)
			} else {
				rel(0, 0)
			}
		}
	}
	for k := range w.file {
		flag(w.file[k], w.row[k], w.lease[k] > w.mono)
		if w.lease[k] > w.mono {
			rel(w.lease[k], w.mono)
		}
		if w.file[k] {
			rel(max(o.let[k], o.mono-2*grace), o.mono)
		}
	}
	rel(max(w.start, w.mono-grace), w.mono)
	for _, t := range []T{w.newest, w.behind, w.mark, w.manual} {
		rel(t, w.wall)
	}
	rel(w.watched, w.mono)
	for d := range w.use {
		for k := range w.use[d] {
			u := &w.use[d][k]
			if u.last == 0 {
				b = append(b, 0)
				continue
			}
			flag(true, u.now)
			rel(u.last, w.wall)
			rel(u.stored, w.wall)
		}
	}
	for r := range o.doubt { // what the oracle doubts of the time that matters
		for t := w.wall - 128; t < w.wall+64; t += 8 {
			v, sure := byte(0), byte(0)
			for i := range T(8) {
				if a := t + i - begin; a >= 0 && a < maxTime {
					v |= byte(o.doubt[r][a/64]>>(a%64)&1) << i
					sure |= byte(o.sureDoubt[r][a/64]>>(a%64)&1) << i
				}
			}
			b = append(b, v, sure)
		}
	}
	for i := range w.rep {
		x := &w.rep[i]
		flag(x.enrolled, x.heard, x.stored)
		rel(x.last, w.wall)
		rel(x.saved, w.wall)
		if x.heard {
			rel(x.mono, w.mono)
		}
	}
	for _, x := range w.spans[:w.nspans] {
		if x.to == x.from {
			continue
		}
		flag(x.saved)
		b = append(b, byte(x.scope))
		rel(x.from, w.wall)
		rel(x.to, w.wall)
	}
	if p := &w.plan; p.on {
		rel(p.at, w.wall)
		b = append(b, o.planLive[:]...)
		b = append(b, o.planThere[:]...)
		for r := range o.planPushed {
			for m := range o.planPushed[r] {
				rel(o.planPushed[r][m], w.wall)
				flag(o.planPin[r][m])
			}
		}
		b = binary.LittleEndian.AppendUint16(b, p.done)
		for _, it := range p.items[:p.n] {
			b = append(b, byte(it.repo), byte(it.man), byte(it.level), it.code)
			b = binary.LittleEndian.AppendUint16(b, it.above)
			flag(it.gone)
		}
		for d := range p.use {
			for k := range p.use[d] {
				if u := &p.use[d][k]; u.last != 0 {
					b = append(b, byte(d), byte(k))
					rel(u.last, w.wall)
					flag(u.now)
				}
			}
		}
	}
	return b
}
