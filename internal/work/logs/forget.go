package logs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

const (
	// upkeep is how often logs that were kept long enough are looked for.
	upkeep = 10 * time.Minute
	// page bounds what one transaction deletes, and one query lists.
	page = 256
)

// forgetAll deletes the logs of runs that were deleted.
func (s *Store) forgetAll(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		runs := slices.Clone(s.forget[:min(len(s.forget), page)])
		s.mu.Unlock()
		if len(runs) == 0 {
			return
		}
		if err := s.delete(ctx, runs); err != nil {
			if ctx.Err() == nil {
				s.log.Warn("cannot delete the logs of runs", "runs", len(runs), "err", err, "again_in", tick)
			}
			return
		}
		s.mu.Lock()
		s.forget = s.forget[len(runs):]
		s.mu.Unlock()
	}
}

// forgetUnknown deletes the logs of runs that are gone: a crash came between
// their deletion and that of their logs.
func (s *Store) forgetUnknown(ctx context.Context) error {
	if s.d.Known == nil {
		return nil
	}
	s.mu.Lock()
	runs := slices.Collect(maps.Keys(s.live)) // of which nothing may be listed yet
	s.mu.Unlock()
	for after := ""; ; {
		for _, run := range runs {
			known, err := s.d.Known(ctx, run)
			if err != nil {
				return err
			}
			if !known {
				s.Forget(run)
			}
		}
		var err error
		if runs, err = s.list.runs(ctx, after, page); err != nil || len(runs) == 0 {
			return err
		}
		after = runs[len(runs)-1]
	}
}

// delete deletes the logs of runs, in the journal as well.
func (s *Store) delete(ctx context.Context, runs []string) error {
	s.packing.Lock()
	defer s.packing.Unlock()
	if s.closed() {
		return ErrClosed
	}
	s.mu.Lock()
	last := s.files[len(s.files)-1]
	pos := last.start + last.size
	s.mu.Unlock()
	for all := false; !all; {
		var err error
		if all, err = s.list.forget(ctx, runs, pos, page); err != nil {
			return err
		}
	}
	if s.d.Release != nil {
		for _, run := range runs {
			if err := s.d.Release(ctx, run); err != nil {
				return fmt.Errorf("let go of the blobs of %s: %w", run, err)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, run := range runs {
		if l := s.live[run]; l != nil {
			l.ended = true
			l.drop(pos, s.d.Clock.Mono())
			s.leave(run, l)
		}
	}
	s.sweepFiles()
	return nil
}

// Expired says for how long the logs of a run were kept that ended at that time,
// if they are gone because of that; else 0.
func (s *Store) Expired(ctx context.Context, run string, ended time.Time) (time.Duration, error) {
	if s.cfg.Keep == 0 || ended.IsZero() || s.d.Clock.Now().Sub(ended) < s.cfg.Keep {
		return 0, nil
	}
	s.mu.Lock()
	_, more := s.live[run]
	s.mu.Unlock()
	if more {
		return 0, nil
	}
	if _, there, err := s.list.newestPacked(ctx, run); there || err != nil {
		return 0, err
	}
	return s.cfg.Keep, nil
}

// expire deletes the logs of ended runs that were kept long enough.
func (s *Store) expire(ctx context.Context) error {
	s.packing.Lock() // keeps Close away
	if s.closed() {
		s.packing.Unlock()
		return ErrClosed
	}
	s.mu.Lock()
	begin := s.files[0].start
	s.mu.Unlock()
	s.packing.Unlock()
	if err := s.list.remembered(ctx, begin); err != nil || s.cfg.Keep == 0 {
		return err
	}
	before := s.d.Clock.Now().Add(-s.cfg.Keep).UnixMilli()
	from := cursor{packed: -1}
	for {
		runs, next, more, err := s.list.old(ctx, before, from, page)
		if err != nil {
			return err
		}
		var old []string
		for _, run := range runs {
			if s.d.Live(run) {
				continue // what it printed long ago may be why it is as it is
			}
			newest, ok, err := s.list.newestPacked(ctx, run)
			if err != nil {
				return err
			}
			if !ok || newest >= before {
				continue
			}
			old = append(old, run)
		}
		if len(old) > 0 {
			if err := s.delete(ctx, old); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		from = next
	}
}
