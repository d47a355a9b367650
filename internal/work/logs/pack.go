package logs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

const (
	// smallSegment is up to what size a run's newest segment stays in the list.
	smallSegment = 32 << 10
	// tick is how often Run looks whether something has lain for too long.
	tick = 10 * time.Second
	// patience is how long a run that could not be packed is left alone.
	patience = 15 * time.Second
	// together is how many runs of at most smallRun bytes are packed at a time.
	together = 64
	smallRun = 64 << 10
)

// Run packs and deletes until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	next := s.d.Clock.Mono()
	for first := true; ; first = false {
		s.packDue(ctx)
		s.forgetAll(ctx)
		if first {
			if err := s.forgetUnknown(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("cannot look for logs of runs that are gone", "err", err)
			}
		}
		if now := s.d.Clock.Mono(); now >= next && ctx.Err() == nil {
			next = now + upkeep
			if err := s.expire(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("cannot delete old logs", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stop:
			return ErrClosed
		case <-s.kick:
		case <-s.d.Clock.After(tick):
		}
	}
}

// packDue packs what is due, until nothing is. Small runs are packed side by
// side, so that they share commits of the list.
func (s *Store) packDue(ctx context.Context) {
	for {
		due := s.due()
		if len(due) == 0 {
			return
		}
		for len(due) > 0 {
			n := 1
			if due[0].bytes <= smallRun {
				n = min(len(due), together)
			}
			if s.packAll(ctx, due[:n]); ctx.Err() != nil || s.closed() {
				return
			}
			due = due[n:]
		}
	}
}

// packAll packs runs side by side.
func (s *Store) packAll(ctx context.Context, runs []dueRun) {
	s.packing.Lock()
	defer s.packing.Unlock()
	var all sync.WaitGroup
	for _, r := range runs {
		all.Go(func() {
			err := s.pack(ctx, r.run)
			if ctx.Err() != nil || errors.Is(err, ErrClosed) {
				return
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.trouble = err; err == nil {
				return
			}
			if l := s.live[r.run]; l != nil {
				l.after = s.d.Clock.Mono() + patience
			}
			s.log.Error("cannot pack the logs of a run; they stay in the journal", "run", r.run, "err", err, "again_in", patience)
		})
	}
	all.Wait()
}

// dueRun is a run to be packed, and how much the journal has of it.
type dueRun struct {
	run   string
	bytes int64
}

// due are runs to be packed now, the largest first.
func (s *Store) due() (all []dueRun) {
	s.mu.Lock()
	now := s.d.Clock.Mono()
	crowded := s.journal > s.cfg.JournalBytes
	for run, l := range s.live {
		if len(l.extents) == 0 || now < l.after {
			continue
		}
		if l.bytes >= s.cfg.SegmentBytes || l.ended || now-l.since >= s.cfg.PackAfter || crowded && l.extents[0].file == s.files[0] {
			all = append(all, dueRun{run, l.bytes})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b dueRun) int { return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.run, b.run)) })
	return all
}

// pack moves frames of one run from the journal to a segment: as many as make
// one, or what there is. Under packing.
func (s *Store) pack(ctx context.Context, run string) error {
	if s.closed() {
		return ErrClosed
	}
	s.mu.Lock()
	l := s.live[run]
	if l == nil {
		s.mu.Unlock()
		return nil
	}
	extents := l.take(0, s.cfg.SegmentBytes)
	s.mu.Unlock()
	if len(extents) == 0 {
		return nil
	}
	defer s.give(extents)
	records, err := s.records(extents)
	if errors.Is(err, ErrDamaged) {
		// It will not get better, and must not be in the way of the rest.
		s.log.Error("a part of the journal of logs cannot be read any more, and is left out", "run", run, "err", err)
		records, err = s.readable(extents), nil
	}
	if err != nil {
		return err
	}
	upto := extents[len(extents)-1].end()
	newest, ok, err := s.list.newest(ctx, run)
	if err != nil {
		return err
	}
	first := row{seq: 1}
	if ok {
		first.seq = newest.seq + 1
	}
	if ok && newest.digest == "" { // a small one: it becomes part of this one
		had, err := s.rowRecords(ctx, &newest, func(*record) bool { return true })
		if err != nil {
			return err
		}
		records = append(had, records...)
		slices.SortStableFunc(records, func(a, b record) int { return cmp.Compare(a.pos, b.pos) })
		first.seq = newest.seq
	}
	var rows []row
	for rest := records; len(rest) > 0; {
		part := rest[:sections(rest, maxRecords)]
		rest = rest[len(part):]
		r := row{seq: first.seq + int64(len(rows)), upto: upto}
		if len(rest) > 0 {
			r.upto = rest[0].pos
		}
		if err := s.fill(ctx, run, &r, part); err != nil {
			return err
		}
		rows = append(rows, r)
	}
	if len(rows) == 0 { // nothing of it could be read
		rows = []row{{seq: first.seq, upto: upto}}
	}
	if err := s.list.add(ctx, run, rows, s.d.Clock.Now().UnixMilli()); err != nil {
		return fmt.Errorf("add to the list of segments: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.drop(upto, s.d.Clock.Mono())
	s.leave(run, l)
	s.sweepFiles()
	return nil
}

// sections is how many records make up whole sections, and are at most limit:
// a reader goes on by the section.
func sections(records []record, limit int) int {
	if len(records) <= limit {
		return len(records)
	}
	n := limit
	for n > 1 && records[n].pos == records[n-1].pos {
		n--
	}
	return n
}

// fill makes the segment of a row.
func (s *Store) fill(ctx context.Context, run string, r *row, records []record) error {
	records = sortRecords(records)
	r.low, r.high = records[0].task, records[len(records)-1].task
	text := 0
	for i := range records {
		r.last = max(r.last, records[i].at)
		text += len(records[i].text)
	}
	b := s.encode(records)
	if len(b) <= smallSegment && int64(text) <= s.cfg.SegmentBytes/2 && len(records) <= maxRecords/2 {
		r.data = b
		return nil
	}
	digest, _, err := s.d.Blobs.Put(ctx, run, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("store a segment: %w", err)
	}
	r.digest = digest
	return nil
}

// readable are the records of those extents that can be read.
func (s *Store) readable(extents []extent) (out []record) {
	for i := range extents {
		if rs, err := s.records(extents[i : i+1]); err == nil {
			out = append(out, rs...)
		}
	}
	return out
}

// rowRecords are the records of a listed segment that are wanted, sorted.
func (s *Store) rowRecords(ctx context.Context, r *row, want func(*record) bool) (out []record, err error) {
	err = s.withRow(ctx, r, func(g *segment) error {
		out, err = s.load(g, want)
		return err
	})
	return out, err
}

// withRow calls f with a listed segment.
func (s *Store) withRow(ctx context.Context, r *row, f func(*segment) error) error {
	if r.digest == "" && r.data == nil {
		return nil // nothing of it could be read when it was packed
	}
	var from io.ReadSeeker = bytes.NewReader(r.data)
	if r.digest != "" {
		b, err := s.d.Blobs.Open(ctx, r.digest)
		if err != nil {
			return fmt.Errorf("open a segment of logs: %w", err)
		}
		defer b.Close()
		from = b
	}
	g, err := s.open(from)
	if err != nil {
		return err
	}
	return f(g)
}
