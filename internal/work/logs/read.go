package logs

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

const (
	// maxTail is the largest [Query.Tail].
	maxTail = 100_000
	// maxPattern bounds a pattern to search for, in bytes.
	maxPattern = 4 << 10
	// rowsPage is how many segments are listed at a time.
	rowsPage = 64
	// liveBytes is how much of the journal a reader takes at a time: what a
	// follower holds in memory.
	liveBytes = 1 << 20
	// maxAhead is how many segments a search holds at most.
	maxAhead = 4
)

// A Query says what to read.
type Query struct {
	Run string
	// Task is a task, or a node: then all of its tasks. "": all of the run.
	Task string
	// Attempt of each task; 0: all.
	Attempt int
	// Stream is [task.Stdout], [task.Stderr] or 0 for both.
	Stream byte
	// Grep selects lines; nil: all. [Pattern] makes one.
	Grep *regexp.Regexp
	// Since leaves out what was printed before.
	Since time.Time
	// Tail begins with the last so many lines that are selected; 0: with the
	// first. At most 100,000.
	Tail int
	// Follow goes on with what comes, until the run has ended.
	Follow bool
	// Max is how many bytes of lines are read at most; 0: no bound.
	Max int64
}

// A Line is what a program printed up to a newline.
type Line struct {
	Task    string
	Attempt int
	Stream  byte
	At      time.Time // when the worker read its end
	// Text is without the newline. It is not to be changed, and not to be
	// kept when the function that it was given to has returned.
	Text []byte
	// Open: no newline came. The line goes on with the next of this stream,
	// because it is longer than [task.MaxLine], or is the last one.
	Open bool
	// Cut, if not 0, says that so many bytes at this place were not kept; then
	// there is no text.
	Cut int64
}

// Pattern compiles a regular expression to search for: RE2, whose time is
// linear in what is searched.
func Pattern(expr string) (*regexp.Regexp, error) {
	if len(expr) > maxPattern {
		return nil, fmt.Errorf("%w: a pattern of %d bytes; at most %d", ErrInvalid, len(expr), maxPattern)
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return re, nil
}

// Read calls f with the lines that q asks for. Those of an attempt come in the
// order in which they were printed. Of all that is read they come by time, a
// segment's worth at a time: what a worker brings much later than others bring
// theirs stands where it came. When f returns an error it ends with that.
//
// Nothing waits for f but the call itself: a slow one holds a segment in memory
// (a search, a few), and does not hold up the packing of what it has not seen.
// A run of which nothing was printed, or that is not known, has no lines.
func (s *Store) Read(ctx context.Context, q Query, f func(Line) error) error {
	if q.Run == "" {
		return fmt.Errorf("read logs: %w: of which run?", ErrInvalid)
	}
	if q.Tail < 0 || q.Tail > maxTail {
		return fmt.Errorf("read logs of %s: %w: the last %d lines; at most %d", q.Run, ErrInvalid, q.Tail, maxTail)
	}
	s.mu.Lock()
	l := s.liveOf(q.Run) // as long as it is there, what is packed meanwhile is noted in it
	l.readers++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.readers--
		s.leave(q.Run, l)
	}()
	r := &reader{s: s, q: q, live: l, f: f}
	r.filter(q)
	if q.Tail > 0 {
		if err := r.fromEnd(ctx); err != nil {
			return fmt.Errorf("read the last logs of %s: %w", q.Run, err)
		}
	}
	if err := r.forward(ctx); err != nil {
		return fmt.Errorf("read logs of %s: %w", q.Run, err)
	}
	return nil
}

// reader is one Read.
type reader struct {
	s       *Store
	q       Query
	live    *live
	f       func(Line) error
	literal []byte // is in each line that matches
	since   int64

	pos  int64 // everything before it has been read
	seq  int64 // of the last segment that was
	skip int   // lines to be left out first
	read int64
}

func (r *reader) filter(q Query) {
	if !q.Since.IsZero() {
		r.since = q.Since.UnixMilli()
	}
	if q.Grep != nil {
		r.literal = literal(q.Grep)
	}
}

// forward reads from pos on.
func (r *reader) forward(ctx context.Context) error {
	upto := int64(0)
	for packed := true; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if packed {
			if err := r.segments(ctx); err != nil {
				return err
			}
			r.pos = max(r.pos, upto) // what is not listed was deleted
		}
		// Asked before it is looked whether there is more, so that nothing
		// that came before the end is missed.
		live := r.q.Follow && r.s.d.Live(r.q.Run)
		r.s.mu.Lock()
		upto = r.live.upto
		packed = upto > r.pos
		var extents []extent
		var changed <-chan struct{}
		if !packed {
			if extents = r.live.take(r.pos, liveBytes); len(extents) == 0 && live {
				changed = r.live.change()
			}
		}
		r.s.mu.Unlock()
		switch {
		case packed:
		case len(extents) > 0:
			if err := r.journal(extents); err != nil {
				return err
			}
		case !live:
			return nil
		default:
			select {
			case <-changed:
			case <-ctx.Done():
				return ctx.Err()
			case <-r.s.stop:
				return ErrClosed
			}
		}
	}
}

// journal reads extents.
func (r *reader) journal(extents []extent) error {
	records, err := r.s.records(extents)
	r.s.give(extents)
	if err != nil {
		return err
	}
	r.pos = extents[len(extents)-1].end()
	return r.emit(r.wanted(sortRecords(records)))
}

// segments reads those that are listed.
func (r *reader) segments(ctx context.Context) error {
	for {
		rows, err := r.s.list.after(ctx, r.q.Run, r.seq, r.pos, rowsPage)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := r.ahead(ctx, rows); err != nil {
			return err
		}
	}
}

// ahead reads rows in order. Where it searches, the next ones are unpacked and
// searched meanwhile; else one is held at a time, because whoever takes them all
// may take long.
func (r *reader) ahead(ctx context.Context, rows []row) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	type loaded struct {
		row     *row
		records []record
		err     error
	}
	pos := r.pos
	load := func(w *row) loaded {
		if !r.mayHold(w) {
			return loaded{row: w}
		}
		records, err := r.s.rowRecords(ctx, w, func(rec *record) bool { return rec.pos >= pos && r.wants(rec) })
		return loaded{w, r.matching(records), err}
	}
	held := 1
	if r.q.Grep != nil {
		held = min(runtime.GOMAXPROCS(0), maxAhead)
	}
	next := make(chan chan loaded, held-1)
	go func() {
		defer close(next)
		for i := range rows {
			one := make(chan loaded, 1)
			select {
			case next <- one: // has room again when one before it was handed on
				go func() { one <- load(&rows[i]) }()
			case <-ctx.Done():
				return
			}
		}
	}()
	for one := range next {
		l := <-one
		if l.err != nil {
			return l.err
		}
		if err := r.emit(l.records); err != nil {
			return err
		}
		r.pos, r.seq = l.row.upto, l.row.seq
	}
	return ctx.Err()
}

// mayHold reports whether there can be something in a segment.
func (r *reader) mayHold(w *row) bool {
	if w.last < r.since {
		return false
	}
	// Tasks of a node are NODE.ITEM, and come before NODE/ as they are sorted.
	return r.q.Task == "" || r.q.Task <= w.high && w.low < r.q.Task+"/"
}

// wants reports whether a record can have lines that are asked for. Its text
// need not be there.
func (r *reader) wants(rec *record) bool {
	q := &r.q
	if q.Task != "" && rec.task != q.Task && !(strings.HasPrefix(rec.task, q.Task) && rec.task[len(q.Task)] == '.') {
		return false
	}
	return (q.Attempt == 0 || rec.attempt == q.Attempt) && (q.Stream == 0 || rec.stream == q.Stream) && rec.at >= r.since
}

// wanted leaves out records that are not.
func (r *reader) wanted(records []record) []record {
	return slices.DeleteFunc(records, func(rec record) bool { return !r.wants(&rec) })
}

// matching leaves out records in which no line matches.
func (r *reader) matching(records []record) []record {
	if r.q.Grep == nil {
		return records
	}
	return slices.DeleteFunc(records, func(rec record) bool {
		if !bytes.Contains(rec.text, r.literal) {
			return true
		}
		for text := range bytes.Lines(rec.text) {
			if r.matches(bytes.TrimSuffix(text, newline)) {
				return false
			}
		}
		return true
	})
}

// matches reports whether a line is selected. To look for a word costs less
// than to look for a pattern.
func (r *reader) matches(line []byte) bool {
	return r.q.Grep == nil || (len(r.literal) == 0 || bytes.Contains(line, r.literal)) && r.q.Grep.Match(line)
}

// emit hands on the lines of records, which are sorted as in a segment.
func (r *reader) emit(records []record) error {
	byTime(records)
	return r.lines(records, func(l Line) error {
		if r.skip > 0 {
			r.skip--
			return nil
		}
		if r.read += int64(len(l.Text)) + 1; r.q.Max > 0 && r.read > r.q.Max {
			return ErrMore
		}
		return r.f(l)
	})
}

// lines calls f with those that are selected.
func (r *reader) lines(records []record, f func(Line) error) error {
	for i := range records {
		rec := &records[i]
		l := Line{Task: rec.task, Attempt: rec.attempt, Stream: rec.stream, At: time.UnixMilli(rec.at).UTC()}
		for rest := rec.text; len(rest) > 0; {
			text, after, whole := bytes.Cut(rest, newline)
			rest = after
			if !r.matches(text) {
				continue
			}
			l.Text, l.Open = text, !whole
			if err := f(l); err != nil {
				return err
			}
		}
		if rec.cut > 0 && r.q.Grep == nil {
			l.Text, l.Open, l.Cut = nil, false, rec.cut
			if err := f(l); err != nil {
				return err
			}
		}
	}
	return nil
}

var newline = []byte{'\n'}

// byTime sorts what is sorted by attempt and offset by time, and keeps the order
// of each attempt even where the worker's clock was set back.
func byTime(records []record) {
	for i := 1; i < len(records); i++ {
		if a, b := &records[i-1], &records[i]; a.task == b.task && a.attempt == b.attempt {
			b.at = max(a.at, b.at)
		}
	}
	slices.SortStableFunc(records, func(a, b record) int { return cmp.Compare(a.at, b.at) })
}

// fromEnd finds where the last lines begin: it counts backwards, by the
// segment, and keeps nothing but the count.
func (r *reader) fromEnd(ctx context.Context) error {
	missing := r.q.Tail
	count := func(records []record) {
		_ = r.lines(records, func(Line) error { missing--; return nil })
	}
	r.s.mu.Lock()
	extents := r.live.take(0, math.MaxInt64)
	r.s.mu.Unlock()
	defer r.s.give(extents)
	begin := int64(math.MaxInt64) // of what has been counted
	for to := len(extents); to > 0; {
		from, n := to, int64(0)
		for from > 0 && (from == to || n+int64(extents[from-1].n) <= liveBytes) {
			from--
			n += int64(extents[from].n)
		}
		records, err := r.s.records(extents[from:to])
		if err != nil {
			return err
		}
		count(r.wanted(sortRecords(records)))
		begin, to = extents[from].pos, from
		if missing <= 0 {
			r.pos, r.skip = begin, -missing
			return nil
		}
	}
	for before := int64(math.MaxInt64); ; {
		rows, err := r.s.list.before(ctx, r.q.Run, before, rowsPage)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return nil // there are not as many: all of them
		}
		for i := range rows {
			w := &rows[i]
			before = w.seq
			if !r.mayHold(w) {
				continue
			}
			records, err := r.s.rowRecords(ctx, w, func(rec *record) bool { return rec.pos < begin && r.wants(rec) })
			if err != nil {
				return err
			}
			count(records)
			if missing <= 0 {
				r.seq, r.skip = w.seq, -missing
				return nil
			}
		}
	}
}
