package content

import (
	"context"
	"sync"
	"sync/atomic"
)

// traffic lets the collector give way to pushes: after each batch it waits for
// a few of those that are being committed, if there are any. It counts pushes
// and not time, so that it fits the speed of any disk.
type traffic struct {
	busy    atomic.Int64 // pushes between their last byte and their answer
	done    atomic.Int64 // pushes so far
	waiting atomic.Bool
	wake    chan struct{}
	aside   sync.Mutex // held by the one who waits
}

// givesWayTo is how many pushes go between two batches of the collector.
const givesWayTo = 48

// enter begins the commit of a push, and returns what ends it.
func (t *traffic) enter() func() {
	t.busy.Add(1)
	return func() {
		t.done.Add(1)
		t.busy.Add(-1)
		if t.waiting.Load() {
			select {
			case t.wake <- struct{}{}:
			default:
			}
		}
	}
}

// stepAside returns when no push is being committed, or a few have been.
func (t *traffic) stepAside(ctx context.Context) error {
	t.aside.Lock()
	defer t.aside.Unlock()
	t.waiting.Store(true) // before looking at busy: who ends later wakes us
	defer t.waiting.Store(false)
	for until := t.done.Load() + givesWayTo; t.busy.Load() > 0 && t.done.Load() < until; {
		select {
		case <-t.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}
