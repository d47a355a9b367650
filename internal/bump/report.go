package bump

import (
	"time"
)

// Repository is the status of one repository: forge/owner/name, or owner/name
// where that is enough. [ErrUnknown].
func (e *Engine) Repository(name string) (RepositoryStatus, error) {
	r, err := e.find(name)
	if err != nil {
		return RepositoryStatus{}, err
	}
	return e.status(r), nil
}

// Status calls f with the status of every repository, by name, until it returns
// an error.
func (e *Engine) Status(f func(RepositoryStatus) error) error {
	for _, r := range e.all() {
		if err := f(e.status(r)); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) status(r *repository) RepositoryStatus {
	s := r.record().status
	s.Forge, s.Name = r.source.Name, r.name
	if due, ok := e.queue.dueAt(r); ok {
		s.Next = e.deps.Clock.Now().Add(due - e.deps.Clock.Mono()).Truncate(time.Second)
	}
	return s
}

// Counters are the numbers for metrics.
func (e *Engine) Counters() Counters {
	e.mu.Lock()
	c := e.counters
	e.mu.Unlock()
	now := e.deps.Clock.Now()
	for _, r := range e.all() {
		rec := r.record()
		c.Repositories++
		c.Images += len(rec.status.Images)
		if rec.status.Error != "" {
			c.Failing++
		}
		if why, _ := e.stale(r, now); why != "" {
			c.Stale++
		}
		if !rec.checked.IsZero() {
			c.Oldest = max(c.Oldest, now.Sub(rec.checked))
		}
	}
	return c
}
