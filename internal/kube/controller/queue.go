package controller

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
)

// queue says which object is to be looked at next. An object is in it once,
// with the earliest of the times that were asked for, and is looked at by one
// worker at a time.
type queue struct {
	clock clock.Clock
	wake  chan struct{}

	mu     sync.Mutex
	heap   dues
	at     map[ref]*due
	active map[ref]bool
	again  map[ref]time.Duration // asked for while a worker looks at it
}

// due is an object and when its time comes, on the monotonic clock.
type due struct {
	ref ref
	at  time.Duration
	pos int
}

func newQueue(c clock.Clock) *queue {
	return &queue{clock: c, wake: make(chan struct{}, 1), at: map[ref]*due{}, active: map[ref]bool{}, again: map[ref]time.Duration{}}
}

// add has an object looked at, after a while.
func (q *queue) add(r ref, after time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.push(r, q.clock.Mono()+after)
}

func (q *queue) push(r ref, at time.Duration) {
	if q.active[r] {
		if old, ok := q.again[r]; !ok || at < old {
			q.again[r] = at
		}
		return
	}
	d := q.at[r]
	switch {
	case d == nil:
		d = &due{ref: r, at: at}
		q.at[r] = d
		heap.Push(&q.heap, d)
	case at < d.at:
		d.at = at
		heap.Fix(&q.heap, d.pos)
	default:
		return
	}
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// next waits for an object whose time has come. done has to be called for it.
func (q *queue) next(ctx context.Context) (ref, error) {
	for {
		r, wait, ok := q.pop()
		if ok {
			return r, nil
		}
		var alarm <-chan time.Time
		if wait > 0 {
			alarm = q.clock.After(wait)
		}
		select {
		case <-ctx.Done():
			return ref{}, ctx.Err()
		case <-q.wake:
		case <-alarm:
		}
	}
}

// pop takes what is due, or says how long nothing is; 0: until something comes.
func (q *queue) pop() (r ref, wait time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.heap) == 0 {
		return ref{}, 0, false
	}
	if wait := q.heap[0].at - q.clock.Mono(); wait > 0 {
		return ref{}, wait, false
	}
	d := heap.Pop(&q.heap).(*due)
	delete(q.at, d.ref)
	q.active[d.ref] = true
	if len(q.heap) > 0 { // one call may have woken one worker for several
		q.signal()
	}
	return d.ref, 0, true
}

// done says that the worker has looked at the object.
func (q *queue) done(r ref) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.active, r)
	if at, ok := q.again[r]; ok {
		delete(q.again, r)
		q.push(r, at)
	}
}

// dues is a heap by time.
type dues []*due

func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, k int) bool { return d[i].at < d[k].at }
func (d dues) Swap(i, k int)      { d[i], d[k] = d[k], d[i]; d[i].pos, d[k].pos = i, k }
func (d *dues) Push(x any)        { e := x.(*due); e.pos = len(*d); *d = append(*d, e) }
func (d *dues) Pop() any {
	old := *d
	e := old[len(old)-1]
	*d = old[:len(old)-1]
	return e
}

// backoff is how long to wait after so many failures one after the other: twice
// as long each time, up to a minute, a part of it by chance so that what failed
// together is not tried again together.
func backoff(failures int) time.Duration {
	d := min(500*time.Millisecond<<min(failures, 10), time.Minute)
	return d/2 + rand.N(d/2)
}
