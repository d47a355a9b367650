package work

import (
	"context"
	"fmt"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/machine"
)

// Task is the task that a lease is for, made again: for whoever hands out what
// it names, and must not believe a worker in that, whose memory programs may
// have read. ErrNotFound when the lease is not held.
func (s *Server) Task(ctx context.Context, l task.Ref) (*task.Task, error) {
	gone := fmt.Errorf("%w: the lease of task %s of run %s is not held", ErrNotFound, l.Task, l.Run)
	if !s.Holds(l) {
		return nil, gone
	}
	t, err := machine.ParseTask(l.Task)
	if err != nil {
		return nil, gone
	}
	s.mu.RLock()
	r := s.runs[l.Run]
	if r == nil {
		s.mu.RUnlock()
		return nil, gone
	}
	item, list := r.m.Item(t)
	s.mu.RUnlock()
	if list != "" {
		if item, err = s.lists.item(ctx, list, t.Item); err != nil {
			return nil, fmt.Errorf("item of task %s of run %s: %w", l.Task, l.Run, err)
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if _, _, held := r.m.Holds(t.Node, t.Item, uint32(l.Attempt)); s.runs[l.Run] != r || !held {
		return nil, gone
	}
	out, skip, err := r.m.Render(t, item, false)
	if err == nil && skip {
		return nil, gone
	}
	if err != nil {
		return nil, fmt.Errorf("task %s of run %s: %w", l.Task, l.Run, err)
	}
	return out, nil
}
