package pool

import (
	"context"
	"fmt"
	"sync"
)

// amount of what tasks ask for: thousandths of processors, and bytes.
type amount struct{ cpu, memory int64 }

func (a amount) fits(b amount) bool { return a.cpu <= b.cpu && a.memory <= b.memory }

// budget hands out what the machine has, in the order of asking: a large task
// is not passed by small ones for ever.
type budget struct {
	all amount

	mu      sync.Mutex
	left    amount
	waiting []*request
}

type request struct {
	want  amount
	given chan struct{}
}

func newBudget(all amount) *budget { return &budget{all: all, left: all} }

// refuse says why a task can never run here; nil when it can.
func (b *budget) refuse(want amount) error {
	switch {
	case want.cpu < 0 || want.memory < 0:
		return fmt.Errorf("it asks for %d thousandths of a processor and %d bytes: neither can be below 0", want.cpu, want.memory)
	case want.cpu > b.all.cpu:
		return fmt.Errorf("it asks for %s processors, and tasks have %s on this machine", thousandths(want.cpu), thousandths(b.all.cpu))
	case want.memory > b.all.memory:
		return fmt.Errorf("it asks for %d MiB of memory, and tasks have %d MiB on this machine", want.memory>>20, b.all.memory>>20)
	}
	return nil
}

func thousandths(n int64) string {
	if n%1000 == 0 {
		return fmt.Sprint(n / 1000)
	}
	return fmt.Sprintf("%.3f", float64(n)/1000)
}

// take waits until the machine has what is asked for.
func (b *budget) take(ctx context.Context, want amount) error {
	b.mu.Lock()
	if len(b.waiting) == 0 && want.fits(b.left) {
		b.spend(want)
		b.mu.Unlock()
		return nil
	}
	r := &request{want: want, given: make(chan struct{})}
	b.waiting = append(b.waiting, r)
	b.mu.Unlock()
	select {
	case <-r.given:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, o := range b.waiting {
		if o == r {
			b.waiting = append(b.waiting[:i:i], b.waiting[i+1:]...)
			b.serve() // who stood behind it may fit
			return context.Cause(ctx)
		}
	}
	b.give(want) // it was given at the same moment
	return context.Cause(ctx)
}

// put gives back what was taken.
func (b *budget) put(a amount) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.give(a)
}

func (b *budget) spend(a amount) { b.left.cpu -= a.cpu; b.left.memory -= a.memory }

func (b *budget) give(a amount) {
	b.left.cpu += a.cpu
	b.left.memory += a.memory
	b.serve()
}

// serve gives those who wait what there is; the lock is held.
func (b *budget) serve() {
	for len(b.waiting) > 0 && b.waiting[0].want.fits(b.left) {
		b.spend(b.waiting[0].want)
		close(b.waiting[0].given)
		b.waiting = b.waiting[1:]
	}
}
