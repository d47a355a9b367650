// Package clock is where time comes from.
//
// It owns the difference between the wall clock, which people and leases on
// paper use and which may jump, and the monotonic clock, which only moves
// forward at the speed of time. It promises that code which takes a Clock
// never has to sleep in a test. It does not format or parse times.
package clock

import (
	"context"
	"sync"
	"time"
)

// A Clock tells the time and wakes up callers. It is safe for concurrent use.
type Clock interface {
	// Now is the wall clock, in UTC and without a monotonic reading.
	Now() time.Time
	// Mono is the time since an arbitrary start. It never goes back and a
	// change of the wall clock does not move it.
	Mono() time.Duration
	// After delivers once, when d has passed on the monotonic clock.
	After(d time.Duration) <-chan time.Time
}

// Real is the machine's clock.
func Real() Clock { return realClock{start: time.Now()} }

type realClock struct{ start time.Time }

func (realClock) Now() time.Time                         { return time.Now().UTC().Round(0) }
func (c realClock) Mono() time.Duration                  { return time.Since(c.start) }
func (realClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Sleep waits for d on c, or until ctx is done, whose error it then returns.
func Sleep(ctx context.Context, c Clock, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.After(d):
		return nil
	}
}

// Fake is a clock that moves only when told to.
type Fake struct {
	mu      sync.Mutex
	wall    time.Time
	mono    time.Duration
	waiters []waiter
}

type waiter struct {
	at time.Duration
	ch chan time.Time
}

// NewFake returns a clock that stands at t.
func NewFake(t time.Time) *Fake { return &Fake{wall: t.UTC().Round(0)} }

// Now implements [Clock].
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wall
}

// Mono implements [Clock].
func (f *Fake) Mono() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mono
}

// After implements [Clock].
func (f *Fake) After(d time.Duration) <-chan time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch := make(chan time.Time, 1)
	if d <= 0 {
		ch <- f.wall
		return ch
	}
	f.waiters = append(f.waiters, waiter{at: f.mono + d, ch: ch})
	return ch
}

// Advance lets d pass: both clocks move, and everyone whose time has come is
// woken.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wall = f.wall.Add(d)
	f.mono += d
	rest := f.waiters[:0]
	for _, w := range f.waiters {
		if w.at <= f.mono {
			w.ch <- f.wall
			continue
		}
		rest = append(rest, w)
	}
	f.waiters = rest
}

// Jump sets the wall clock by d, forward or back, without any time passing:
// what an operator or a broken time server does.
func (f *Fake) Jump(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wall = f.wall.Add(d)
}

// Waiting is how many callers wait for the clock to move.
func (f *Fake) Waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiters)
}

var (
	_ Clock = realClock{}
	_ Clock = (*Fake)(nil)
)
