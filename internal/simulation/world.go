package simulation

import (
	"cairn.dev/cairn/internal/content"
)

// Parameters of the world, in units.
const (
	keepHidden  T = 12 // hidden images, of covered time
	grace       T = 6  // of the collector
	period      T = 1  // of reporters
	maxSpans      = 48 // uncovered intervals in one history
	nKind         = 7
	manualScope   = 1 // repository concerned by the manual interval
)

// Kinds of use: source, repository named and subject together.
const (
	kPull0  = iota // pulled from repository 0
	kPull1         // from repository 1
	kDated         // dated, no repository named
	kDated0        // dated, repository 0
	kDated1        // dated, repository 1
	kRep0          // stated by reporter 0, no repository named
	kRep1          // stated by reporter 1, repository 0
)

// kindRepo is the repository a kind names; -1: none.
var kindRepo = [nKind]int8{0, 1, -1, 0, 1, -1, 0}

// World is the state of everything. It holds no pointer, so that copying it is
// an assignment.
type World struct {
	wall, mono T
	up         bool

	// content, durable
	repo [nRepo]repoState
	file [nBlob]bool // on the disk
	row  [nBlob]bool // known to the metadata
	seq  int16
	// content, in memory
	lease [nBlob]T // until, monotonic
	start T        // monotonic

	// usage
	newest, watched, behind, mark T
	use                           [nDig][nKind]useState
	rep                           [nRep]reporter
	spans                         [maxSpans]spanState
	nspans                        int8
	manual                        T // an open interval since; 0: none

	plan plan

	// of the operation in progress
	commits int
	crashAt int // odd: before commit (crashAt+1)/2; even: after commit crashAt/2; 0: none
	dead    bool
	broken  bool // the universe is exhausted: too many intervals
}

type repoState struct {
	made bool
	man  [nMan]manState
	tag  [nTag]tagState
	link [nBlob]linkState
	pin  [nMan]bool
}

type manState struct {
	there  bool
	state  content.State
	dirty  bool // its version changed since the plan
	seq    int16
	pushed T
	hidden T
	tag    [nTag]hiddenTag
}

type hiddenTag struct {
	there, pull bool
	pushed      T
}

type tagState struct {
	man    int8 // -1: not there
	pushed T
}

type linkState struct {
	there bool
	held  bool // by a manifest; else due counts
	due   T    // wall
}

type useState struct {
	last, stored T
	now          bool
}

type reporter struct {
	enrolled, heard   bool
	stored            bool
	last, mono, saved T
	holds             [nDig]bool
}

// spanState is a closed uncovered interval.
type spanState struct {
	scope    int8 // repository; -1: all
	from, to T
	saved    bool
}

// plan is what a tick has decided and not done yet.
type plan struct {
	on    bool
	at    T
	n     int8
	items [nRepo * nMan]planItem
	done  uint16                // levels, one up; bit 0: what is swept
	use   [nDig][nKind]useState // as it was
}

type planItem struct {
	repo, man int8
	level     int8 // -1: sweep
	code      uint8
	limit     T
	last      T
	above     uint16 // items that must have gone
	gone      bool
	part      uint16 // digests whose use would matter
}

func newWorld() World {
	w := World{wall: begin, mono: 1, up: true}
	for r := range w.repo {
		for t := range w.repo[r].tag {
			w.repo[r].tag[t].man = -1
		}
	}
	w.start, w.watched = w.mono, w.mono
	w.newest, w.mark = begin, begin
	return w
}

// tx is one commit of the registry's database. It returns false when the
// process died before f's caller could answer.
func (w *World) tx(f func() bool) bool {
	if w.dead {
		return false
	}
	w.commits++
	if w.crashAt == 2*w.commits-1 {
		w.dead = true
		return false
	}
	ok := f()
	if w.crashAt == 2*w.commits {
		w.dead = true
		return false
	}
	return ok
}

// --- usage ---

func (w *World) ledgerNow() T { return max(w.wall, w.newest) }

func (w *World) addSpan(scope int8, from, to T) {
	if int(w.nspans) == maxSpans {
		w.broken = true
		return
	}
	w.spans[w.nspans] = spanState{scope: scope, from: from, to: to}
	w.nspans++
}

// watch looks at the clock.
func (w *World) watch() {
	passed := w.mono - w.watched
	w.watched = w.mono
	switch gone := w.wall - w.newest; {
	case gone < 0:
		if w.behind == 0 {
			w.behind = w.newest
		}
		return
	case w.behind != 0:
		w.addSpan(-1, w.behind, w.wall)
		w.behind = 0
	case gone > passed:
		w.addSpan(-1, w.newest, w.wall)
	}
	w.newest = w.wall
}

func (w *World) silent(r int) bool {
	x := &w.rep[r]
	gone := w.ledgerNow() - x.last
	if x.heard {
		gone = w.mono - x.mono // the clock may have jumped
	}
	return gone > 3*period
}

func repScope(r int) int8 { return int8(r) - 1 } // reporter 0: all; reporter 1: repository 0

func (w *World) touch(d, k int, at T) {
	u := &w.use[d][k]
	u.last = max(u.last, at)
}

// flush stores what is in memory of the ledger.
func (w *World) flush() {
	for d := range w.use {
		for k := range w.use[d] {
			w.use[d][k].stored = w.use[d][k].last
		}
	}
	w.flushSpans()
}

func (w *World) flushSpans() {
	for i := range w.spans[:w.nspans] {
		w.spans[i].saved = true
	}
}

func (w *World) saveReporters() {
	w.flushSpans()
	for i := range w.rep {
		if r := &w.rep[i]; r.enrolled {
			r.stored, r.saved = true, r.last
		}
	}
}

// state is a complete statement: these digests, and only these, are in use.
func (w *World) state(r int, digests ...int) {
	w.watch()
	x := &w.rep[r]
	now := w.ledgerNow()
	fresh := !x.enrolled
	if fresh {
		*x = reporter{enrolled: true, heard: true, last: now, mono: w.mono}
	}
	var holds [nDig]bool
	for _, d := range digests {
		holds[d] = true
		w.touch(d, kRep0+r, now)
	}
	for d := range holds {
		w.use[d][kRep0+r].now = holds[d]
	}
	x.holds = holds
	if w.silent(r) {
		w.addSpan(repScope(r), x.last, max(now, x.last))
	}
	x.last, x.mono, x.heard = max(now, x.last), w.mono, true
	if fresh {
		w.saveReporters()
	}
}

func (w *World) forget(r int) bool {
	w.watch()
	x := &w.rep[r]
	if !x.enrolled {
		return false
	}
	if now := w.ledgerNow(); (!x.heard || w.silent(r)) && now > x.last {
		w.addSpan(repScope(r), x.last, now)
	}
	*x = reporter{}
	for d := range w.use {
		w.use[d][kRep0+r].now = false
	}
	w.flush()
	return true
}

// --- process ---

// advance lets time pass.
func (w *World) advance(d T) {
	w.wall += d
	w.mono += d
	if w.up {
		w.watch()
		w.flush()
		w.saveReporters()
		w.mark = w.newest
	}
}

// stop ends the process; clean says whether it could write what it knew.
func (w *World) stop(clean bool) {
	if clean {
		w.watch()
		w.flush()
		w.saveReporters()
		w.mark = w.newest
	}
	w.up = false
	w.lease = [nBlob]T{}
	w.plan = plan{}
	for d := range w.use {
		for k := range w.use[d] {
			u := &w.use[d][k]
			u.last, u.now = u.stored, false
		}
	}
	n := int8(0)
	for _, s := range w.spans[:w.nspans] {
		if s.saved {
			w.spans[n] = s
			n++
		}
	}
	for i := n; i < w.nspans; i++ {
		w.spans[i] = spanState{}
	}
	w.nspans = n
	for i := range w.rep {
		r := &w.rep[i]
		*r = reporter{enrolled: r.stored, stored: r.stored, last: r.saved, saved: r.saved}
	}
}

// restart starts the process again.
func (w *World) restart(forgetsSilence bool) {
	w.up = true
	w.start, w.watched = w.mono, w.mono
	w.newest = max(w.mark, w.wall)
	w.behind = 0
	switch {
	case w.wall > w.mark:
		w.addSpan(-1, w.mark, w.wall)
	case w.wall < w.mark:
		w.behind = w.mark
	}
	if forgetsSilence {
		for i := range w.rep {
			w.rep[i].heard, w.rep[i].last, w.rep[i].mono = true, w.newest, w.mono
		}
	}
	w.flush()
	w.mark = w.newest
}
