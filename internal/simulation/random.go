package simulation

import (
	"math/rand/v2"
)

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
