package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
)

// How much work is taken ahead of need: enough for some time at the speed of
// the last tasks, so that short ones do not wait for calls and long ones are
// not kept from others.
const (
	aheadTime = 250 * time.Millisecond
	aheadMax  = 64 // for each slot
)

// lease is a task that this worker holds.
type lease struct {
	task.Lease
	task  task.Task
	ctx   context.Context
	end   context.CancelCauseFunc
	begun time.Duration // on the monotonic clock
	up    bool          // a daemon that serves
	aside bool          // one whose slot is another's
}

// hold is all that a worker holds: tasks that wait for a slot, that run, and
// outcomes that the server has not taken. All of them count against what is
// asked for, so that a server that is away bounds them.
type hold struct {
	slots int
	clock clock.Clock

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with every change
	leases  map[string]*lease
	queue   []*lease
	running int
	done    []task.Outcome
	up      []task.Serving
	serving int // daemons
	back    []task.Ref
	sending int // calls with outcomes on their way
	polling bool
	drain   bool
	closed  bool
	contact time.Duration // monotonic time of the last answer
	term    time.Duration
	mean    time.Duration // of the last tasks
}

func newHold(slots int, c clock.Clock) *hold {
	return &hold{slots: slots, clock: c, changed: make(chan struct{}), leases: map[string]*lease{}, term: defaultTerm, mean: time.Second}
}

// change wakes everybody who waits; the lock is held.
func (h *hold) change() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// await calls ready, under the lock, until it says true.
func (h *hold) await(ctx context.Context, ready func() bool) bool {
	for {
		h.mu.Lock()
		if ready() {
			h.mu.Unlock()
			return true
		}
		changed := h.changed
		h.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// call is what is to be said to the server next: by the one who asks for work,
// or, while his call waits there, by the one who only reports.
func (h *hold) call(ctx context.Context, asker bool) (a task.Ask, ok bool) {
	if asker {
		h.mu.Lock()
		h.polling = false
		h.mu.Unlock()
	}
	over := false
	waited := h.await(ctx, func() bool {
		news := len(h.done) > 0 || len(h.up) > 0 || len(h.back) > 0
		if over = h.closed || h.drain && asker; over {
			return true
		}
		if asker {
			a.Want = h.room()
		}
		if !news && a.Want == 0 || !asker && !h.polling {
			return false
		}
		n := min(len(h.done), maxBatch)
		a.Outcomes, h.done = slices.Clone(h.done[:n]), h.done[n:]
		a.Serving, h.up = h.up, nil
		a.Back, h.back = h.back, nil
		if news {
			h.sending++
		} else {
			a.Wait, h.polling = longPoll, true
			h.change()
		}
		return true
	})
	if asker && (over || !waited) {
		h.mu.Lock()
		h.polling = true // the rest is for the one who reports
		h.change()
		h.mu.Unlock()
	}
	return a, waited && !over
}

// room is how many leases more are taken; the lock is held.
func (h *hold) room() int {
	ahead := min(int(aheadTime/max(h.mean, time.Microsecond)), aheadMax)
	used := len(h.leases)
	for _, l := range h.leases {
		if l.aside {
			used--
		}
	}
	return max(0, h.slots*(1+ahead)-used)
}

// serves notes that a daemon is ready, and reports whether that is news. Unless
// it is alone here, its slot and its place among the leases are free.
func (h *hold) serves(l *lease, address string, alone bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.ctx.Err() != nil || l.up {
		return false
	}
	l.up = true
	h.serving++
	h.up = append(h.up, task.Serving{Ref: l.Ref, Address: address})
	if !alone {
		l.aside = true
		h.running--
	}
	h.change()
	return true
}

// granted takes in what the server answered.
func (h *hold) granted(a task.Ask, g task.Grant) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range a.Outcomes {
		delete(h.leases, o.Token)
	}
	h.settle(a)
	h.heard(g.Term)
	for _, l := range g.Leases {
		if l.Body < 0 || l.Body >= len(g.Bodies) || h.closed {
			h.back = append(h.back, l.Ref)
			continue
		}
		ctx, end := context.WithCancelCause(context.Background())
		held := &lease{Lease: l, task: whole(g.Bodies[l.Body], l.Own), ctx: ctx, end: end}
		h.leases[l.Token] = held
		h.queue = append(h.queue, held)
	}
	if g.Drain || h.drain {
		h.leave()
	}
	h.change()
}

// failed takes back what could not be said.
func (h *hold) failed(a task.Ask) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = append(slices.Clone(a.Outcomes), h.done...)
	h.up = append(a.Serving, h.up...)
	h.back = append(a.Back, h.back...)
	h.settle(a)
	h.change()
}

func (h *hold) settle(a task.Ask) {
	if len(a.Outcomes) > 0 || len(a.Serving) > 0 || len(a.Back) > 0 {
		h.sending--
	}
}

// heard notes that the server knows us; the lock is held.
func (h *hold) heard(term time.Duration) {
	h.contact = h.clock.Mono()
	if term > 0 {
		h.term = term
	}
}

// beaten does what the answer to a heartbeat says.
func (h *hold) beaten(b task.Beaten) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard(b.Term)
	for _, r := range b.Cancel {
		h.endOne(r, ErrCanceled)
	}
	for _, r := range b.Lost {
		h.endOne(r, ErrLost)
	}
	for range min(b.Return, len(h.queue)) { // the last ones would wait the longest
		h.giveBack(h.queue[len(h.queue)-1])
	}
	if b.Drain {
		h.leave()
	}
	h.change()
}

// endOne ends a task, before it runs if it waits; the lock is held.
func (h *hold) endOne(r task.Ref, why error) {
	l := h.leases[r.Token]
	if l == nil {
		return
	}
	l.end(why)
	i := slices.Index(h.queue, l)
	if why == ErrLost {
		// An outcome that waits to be sent would be refused.
		h.done = slices.DeleteFunc(h.done, func(o task.Outcome) bool { return o.Token == r.Token })
		h.up = slices.DeleteFunc(h.up, func(s task.Serving) bool { return s.Token == r.Token })
	}
	if i < 0 {
		return
	}
	h.queue = slices.Delete(h.queue, i, i+1)
	if why == ErrLost {
		delete(h.leases, r.Token)
		return
	}
	h.done = append(h.done, task.Outcome{Ref: l.Ref, Phase: task.Canceled, Exit: -1, Message: "canceled before it ran"})
}

func (h *hold) giveBack(l *lease) {
	h.queue = slices.DeleteFunc(h.queue, func(o *lease) bool { return o == l })
	delete(h.leases, l.Token)
	l.end(ErrStopped)
	h.back = append(h.back, l.Ref)
}

// leave gives back what was not begun, and takes nothing more; the lock is held.
func (h *hold) leave() {
	h.drain = true
	for len(h.queue) > 0 {
		h.giveBack(h.queue[0])
	}
}

// stop ends everything, because this worker has to go.
func (h *hold) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leave()
	for _, l := range h.leases {
		l.end(ErrStopped)
	}
	h.change()
}

// close lets everybody who waits go.
func (h *hold) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.change()
}

// next is the next task for a slot. While the server has not been heard for
// longer than leases hold, nothing is begun: somebody else may have it.
func (h *hold) next(ctx context.Context) (l *lease, ok bool) {
	ok = h.await(ctx, func() bool {
		if h.closed {
			return true
		}
		if len(h.queue) == 0 || h.clock.Mono()-h.contact >= h.term {
			return false
		}
		l, h.queue = h.queue[0], h.queue[1:]
		h.running++
		l.begun = h.clock.Mono()
		return true
	})
	return l, ok && l != nil
}

// ran notes that the slot of a task is free.
func (h *hold) ran(l *lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !l.aside {
		h.running--
	}
	if l.up { // how long it is needed says nothing of others
		h.serving--
	} else {
		h.mean = (7*h.mean + h.clock.Mono() - l.begun) / 8
	}
	h.change()
}

// finish has the outcome sent; that of a lost lease is forgotten.
func (h *hold) finish(l *lease, o task.Outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	lost := context.Cause(l.ctx) == ErrLost
	l.end(nil)
	if lost {
		delete(h.leases, l.Token)
	} else {
		h.done = append(h.done, o)
	}
	h.change()
}

// beat waits until something is held, and says how long there may be between two
// heartbeats: few enough that some may be lost before the leases are.
func (h *hold) beat(ctx context.Context, most time.Duration) (every time.Duration, ok bool) {
	ok = h.await(ctx, func() bool {
		every = min(most, h.term/4)
		return len(h.leases) > 0
	})
	return every, ok
}

// refs is all that is held, in the order of names.
func (h *hold) refs() []task.Ref {
	h.mu.Lock()
	defer h.mu.Unlock()
	refs := make([]task.Ref, 0, len(h.leases))
	for _, l := range h.leases {
		refs = append(refs, l.Ref)
	}
	slices.SortFunc(refs, func(a, b task.Ref) int {
		if a.Token < b.Token {
			return -1
		}
		return 1
	})
	return refs
}

// drained is closed when nothing is held and nothing more is taken.
func (h *hold) drained() <-chan struct{} {
	return h.when(func() bool {
		return h.drain && len(h.leases) == 0 && len(h.back) == 0 && h.sending == 0
	})
}

// idle is closed when nothing runs.
func (h *hold) idle() <-chan struct{} {
	return h.when(func() bool { return h.running == 0 && h.serving == 0 && len(h.queue) == 0 })
}

// when is closed when is says true, or the hold is closed.
func (h *hold) when(is func() bool) <-chan struct{} {
	ch := make(chan struct{})
	go func() {
		defer close(ch)
		h.await(context.Background(), func() bool { return h.closed || is() })
	}()
	return ch
}

// whole is the body with what is the lease's own.
func whole(t task.Task, own *task.Own) task.Task {
	if own == nil {
		return t
	}
	if own.Command != nil {
		t.Command = own.Command
	}
	if own.Args != nil {
		t.Args = own.Args
	}
	if own.Script != nil {
		t.Script = *own.Script
	}
	t.Env = append(slices.Clone(t.Env), own.Env...)
	t.Inputs = append(slices.Clone(t.Inputs), own.Inputs...)
	return t
}
