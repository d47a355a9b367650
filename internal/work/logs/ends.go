package logs

import (
	"context"
	"math"
	"sync"

	"cairn.dev/cairn/internal/task"
)

// An attemptKey names an attempt.
type attemptKey struct {
	run, task string
	attempt   int
}

// ends remembers how far attempts have come, for those that printed last: two
// generations of a bounded number each. An attempt that was silent for so
// long that it is forgotten has been answered long ago, and repeats nothing.
type ends struct{ young, old map[attemptKey]int64 }

const generation = 1 << 16

func (e *ends) get(k attemptKey) int64 {
	if n, ok := e.young[k]; ok {
		return n
	}
	return e.old[k]
}

func (e *ends) set(k attemptKey, n int64) {
	if _, ok := e.young[k]; !ok && len(e.young) >= generation || e.young == nil {
		e.young, e.old = make(map[attemptKey]int64), e.young
	}
	e.young[k] = n
}

// raise sets it to n where it is less.
func (e *ends) raise(k attemptKey, n int64) {
	if n > e.get(k) {
		e.set(k, n)
	}
}

// known is how far the attempts of a run have come, as its segments tell.
type known struct {
	run  string
	ends map[attemptKey]int64
}

// recent is how many segments of a run are looked at for it. What a worker may
// send again is what it sent last before this process began.
const recent = 16

// known tells of the runs that are new to this process. A worker that was not
// answered before the last one ended sends again what may not be in the
// journal any more.
func (s *Store) known(ctx context.Context, frames []task.Frame) (out []known, err error) {
	last := ""
	for i := range frames {
		run := frames[i].Run
		if run == last || s.seen.has(run) {
			continue
		}
		last = run
		k := known{run: run, ends: map[attemptKey]int64{}}
		rows, err := s.list.before(ctx, run, math.MaxInt64, recent)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			err := s.withRow(ctx, &rows[i], func(g *segment) error {
				for i := range g.records {
					r := &g.records[i]
					key := attemptKey{run, r.task, r.attempt}
					k.ends[key] = max(k.ends[key], r.end()+int64(g.length(i)))
				}
				return nil
			})
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil { // a line that is there twice is better than none
				s.log.Warn("cannot see what is kept of a run's logs; what its workers send again may be there twice", "run", run, "err", err)
			}
		}
		out = append(out, k)
	}
	return out, nil
}

// learn has the committer remember it.
func (s *Store) learn(ks []known) {
	for _, k := range ks {
		for key, end := range k.ends {
			s.writer.ends.raise(key, end)
		}
		s.seen.add(k.run)
	}
}

// seen are runs of which this process knows what is packed, those that printed
// last. It is safe for concurrent use.
type seen struct {
	mu         sync.Mutex
	young, old map[string]bool
}

func (s *seen) has(run string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.young[run] || s.old[run]
}

func (s *seen) add(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.young == nil || len(s.young) >= generation {
		s.young, s.old = map[string]bool{}, s.young
	}
	s.young[run] = true
}
