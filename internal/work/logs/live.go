package logs

import (
	"sort"
	"time"
)

// live is what the journal holds of a run, and who waits for more. Store.mu
// guards it.
type live struct {
	extents []extent // oldest first
	bytes   int64    // of them
	since   time.Duration
	upto    int64 // position up to which it is packed, as far as that is known
	ended   bool
	after   time.Duration // not to be packed before, because that failed
	readers int
	changed chan struct{} // closed at the next change; nil: nobody waits
}

// liveOf is the run's entry. Under mu.
func (s *Store) liveOf(run string) *live {
	l := s.live[run]
	if l == nil {
		l = &live{}
		s.live[run] = l
	}
	return l
}

// leave removes the entry when nothing is left to be told by it. Under mu.
func (s *Store) leave(run string, l *live) {
	if len(l.extents) == 0 && l.readers == 0 && s.live[run] == l {
		delete(s.live, run)
	}
}

// add appends a section. Under mu.
func (l *live) add(e extent, now time.Duration) {
	if len(l.extents) == 0 {
		l.since = now
	}
	l.extents = append(l.extents, e)
	l.bytes += int64(e.n)
	e.file.extents++
	l.wake()
}

// drop removes the sections before upto, which are packed. Under mu.
func (l *live) drop(upto int64, now time.Duration) {
	n := sort.Search(len(l.extents), func(i int) bool { return l.extents[i].pos >= upto })
	for _, e := range l.extents[:n] {
		e.file.extents--
		l.bytes -= int64(e.n)
	}
	l.extents = append([]extent(nil), l.extents[n:]...) // the old array goes
	l.since = now
	l.upto = max(l.upto, upto)
	l.wake()
}

// wake tells those who wait. Under mu.
func (l *live) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// change is closed when something happens to l. Under mu.
func (l *live) change() <-chan struct{} {
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

// take is sections from pos on, of about limit bytes (but one at least), whose
// files stay readable until [Store.give]. Under mu.
func (l *live) take(pos, limit int64) []extent {
	from := sort.Search(len(l.extents), func(i int) bool { return l.extents[i].pos >= pos })
	to, n := from, int64(0)
	for to < len(l.extents) && (to == from || n+int64(l.extents[to].n) <= limit) {
		n += int64(l.extents[to].n)
		l.extents[to].file.readers++
		to++
	}
	return append([]extent(nil), l.extents[from:to]...)
}

// give ends what take began.
func (s *Store) give(extents []extent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range extents {
		e.file.readers--
		e.file.release()
	}
}
