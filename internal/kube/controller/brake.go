package controller

import (
	"sync"
	"time"
)

// brake bounds how often the API server is told something, by all objects
// together: so many times a second, after so many at once. What is final gets a
// turn, however long the queue is. What is not waits until half of what may be
// told at once is free, so that of many runs which come together each is told
// of once, at its end. It is safe for concurrent use.
type brake struct {
	every time.Duration // between two writes
	burst int
	ease  func() float64 // the part of it that is taken now; nil: all

	mu      sync.Mutex
	next    time.Duration // the first turn that is free, as if there had been no rest
	since   time.Duration // when refused began to be counted
	refused int           // how many were told to wait since
	before  int           // and in the time before
}

// final is when something may be written that has to be, at or after now.
func (b *brake) final(now time.Duration) (at time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at = b.free(now, b.burst)
	b.take(now)
	return at
}

// passing is how long something has to wait that is soon out of date; 0: it may
// be written now, and a turn is taken. spread is how long all take who were told
// to wait lately: who comes back at some time within it finds a turn, likely.
func (b *brake) passing(now time.Duration) (wait, spread time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if wait = b.free(now, b.burst/2) - now; wait == 0 {
		b.take(now)
		return 0, 0
	}
	if now-b.since > pace {
		b.since, b.refused, b.before = now, 0, b.refused
	}
	b.refused++
	return wait, time.Duration(max(b.refused, b.before)) * b.every
}

// free is when a turn is free if so many may be taken at once; the lock is held.
func (b *brake) free(now time.Duration, burst int) time.Duration {
	return max(now, b.next-time.Duration(max(burst, 1)-1)*b.every)
}

// take takes a turn; the lock is held.
func (b *brake) take(now time.Duration) {
	every := b.every
	if b.ease != nil {
		every = time.Duration(float64(every) / b.ease())
	}
	b.next = max(b.next, now) + every
}
