package work

import (
	"context"
	"fmt"
	"runtime"
	"slices"
)

// Settle returns when everything that is due was done and no run waits for an
// answer of the server itself.
func (s *Server) Settle(ctx context.Context) error {
	for {
		if err := s.do(ctx, func(*commit) error { return nil }); err != nil {
			return err
		}
		s.mu.RLock()
		n := s.asking
		s.mu.RUnlock()
		if n == 0 {
			return s.do(ctx, func(*commit) error { return nil })
		}
		runtime.Gosched()
	}
}

// Check says what does not hold of leases, caps and locks.
func (s *Server) Check() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	held, active := 0, 0
	for _, w := range s.workers {
		held += len(w.held)
	}
	for _, r := range s.order {
		n := r.m.Counts().Active
		active += n
		if most := s.cfg.MaxPerRun; most > 0 && n-r.m.Counts().Serving > most {
			return fmt.Errorf("run %s has %d tasks at a time, at most %d", r.id, n, most)
		}
	}
	if held != active || s.active != active {
		return fmt.Errorf("%d tasks are held, %d are watched, %d are counted", active, held, s.active)
	}
	if most := s.cfg.MaxActive; most > 0 && active > most {
		return fmt.Errorf("%d tasks at a time, at most %d", active, most)
	}
	spaces := 0
	for k, n := range s.spaces {
		if spaces += n; n <= 0 || s.cfg.MaxPerNamespace > 0 && n > s.cfg.MaxPerNamespace {
			return fmt.Errorf("namespace %s has %d tasks", k, n)
		}
	}
	if spaces != active {
		return fmt.Errorf("namespaces have %d tasks, runs %d", spaces, active)
	}
	for k, l := range s.locks {
		sizes := 0
		for _, h := range l.holders {
			sizes = max(sizes, h.size)
		}
		if len(l.holders) > sizes {
			return fmt.Errorf("lock %v is held %d times, at most %d", k, len(l.holders), sizes)
		}
	}
	if len(s.runs) == 0 && (active != 0 || len(s.locks) != 0 || slices.ContainsFunc(s.pools, func(p *pool) bool { return p.runs != 0 || !p.queue.empty() }) || len(s.schedules) == 0 && len(s.images.who)+len(s.images.refs) != 0) {
		return fmt.Errorf("no run is left, but %d tasks, locks %v, images %v", active, s.locks, s.images.who)
	}
	return nil
}

// Waiting is how many workers wait for tasks.
func (s *Server) Waiting() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for _, p := range s.pools {
		n += len(p.waiters)
	}
	return n
}

// NextTime is when a time table comes next.
var NextTime = nextTime
