package work

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/work/machine"
)

// op is something that somebody wants done. Ops that wait at the same time
// share a commit.
type op struct {
	do   func(*commit) error
	err  error
	done chan struct{}
}

// inbox is where ops wait for the loop.
type inbox struct {
	mu     sync.Mutex
	ops    []*op
	closed bool
	wake   chan struct{}
}

func (b *inbox) put(o *op) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.ops = append(b.ops, o)
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return true
}

// take empties it, up to a number.
func (b *inbox) take(most int) []*op {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(b.ops), most)
	ops := b.ops[:n:n]
	if b.ops = b.ops[n:]; len(b.ops) == 0 {
		b.ops = nil
	} else {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
	return ops
}

func (b *inbox) close() []*op {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return b.ops
}

// do has the loop call f, and waits until what f did is durable. Once f was
// handed over the end of ctx does not take it back.
func (s *Server) do(ctx context.Context, f func(*commit) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o := &op{do: f, done: make(chan struct{})}
	if !s.inbox.put(o) {
		return ErrClosed
	}
	select {
	case <-o.done:
		return o.err
	case <-s.ended:
		select {
		case <-o.done:
			return o.err
		default:
			return ErrClosed
		}
	}
}

// post is do for those that do not wait.
func (s *Server) post(f func(*commit) error) {
	s.inbox.put(&op{do: f, done: make(chan struct{})})
}

// commit is what one turn of the loop does: events of any number of runs, in
// one transaction.
type commit struct {
	s       *Server
	at      time.Time
	touched []*run
	writes  []func(*db.Tx) error // what else goes into the transaction
	after   []func()             // what happens once it is durable; under the lock
	asks    []ask                // questions of runs, which go out once it is durable
	served  []*waiter            // who hear what they got once it is durable
	stops   []string             // workers who are to end something
}

// ask is an effect that has to be answered from outside.
type ask struct {
	run *run
	e   machine.Effect
}

// maxOps bounds a turn, so that a transaction stays short.
const maxOps = 256

// Run is the loop: it ends with ctx, or when the database is closed for good.
func (s *Server) Run(ctx context.Context) error {
	defer close(s.ended)
	defer s.inbox.close()
	s.mu.Lock()
	s.resume()
	s.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.inbox.wake:
		case <-s.d.Clock.After(s.nap()):
		}
		if err := s.turn(ctx, s.inbox.take(maxOps)); err != nil {
			return err
		}
	}
}

// nap is how long nothing is due.
func (s *Server) nap() time.Duration {
	s.mu.RLock()
	defer s.mu.RUnlock()
	d := s.cfg.Term / 4
	if !s.due.IsZero() {
		d = min(d, max(s.due.Sub(s.now()), time.Millisecond))
	}
	if !s.alarm.IsZero() {
		d = min(d, max(s.alarm.Sub(s.d.Clock.Now()), time.Millisecond))
	}
	return d
}

// expect notes that something of a run is due at a time.
func (s *Server) expect(at time.Time) {
	if !at.IsZero() && (s.due.IsZero() || at.Before(s.due)) {
		s.due = at
	}
}

// turn does what is wanted and what is due, and commits it.
func (s *Server) turn(ctx context.Context, ops []*op) error {
	c := &commit{s: s}
	s.mu.Lock()
	c.at = s.now()
	failed := make([]error, len(ops))
	for i, o := range ops {
		failed[i] = c.call(o.do)
	}
	c.due()
	c.serve()
	s.mu.Unlock()

	err := c.write(ctx)

	s.mu.Lock()
	if err != nil {
		s.log.Error("the events of runs could not be written; what is in memory is read again", "error", err)
		err = fmt.Errorf("store what happened to runs: %w", err)
		if e := s.reload(context.WithoutCancel(ctx), c); e != nil {
			s.mu.Unlock()
			for _, o := range ops {
				o.err = err
				close(o.done)
			}
			return fmt.Errorf("%w; and then: %w", err, e)
		}
	} else {
		c.settle()
	}
	s.mu.Unlock()
	for i, o := range ops {
		if o.err = failed[i]; o.err == nil {
			o.err = err
		}
		close(o.done)
	}
	return nil
}

// call runs an op so that a mistake in it is its own.
func (c *commit) call(do func(*commit) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			c.s.log.Error("panic in the work server", "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic in the work server: %v", v)
		}
	}()
	return do(c)
}

// apply has an event happen to a run.
func (c *commit) apply(r *run, e machine.Event) error {
	effects, err := r.m.Apply(c.at, e)
	if err != nil {
		return err
	}
	c.record(r, e)
	c.effects(r, effects)
	return nil
}

// record puts an event that was applied into the log.
func (c *commit) record(r *run, e machine.Event) {
	if len(r.pending) == 0 {
		r.pending = machine.AppendHeader(r.pending, c.at)
		c.touched = append(c.touched, r)
	}
	r.pending = machine.AppendEvent(r.pending, e)
	r.dirty = true
	c.s.expect(r.m.Next())
	r.in.queue.update(r)
}

// effects does what a run wants, or notes it for later.
func (c *commit) effects(r *run, effects []machine.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case machine.Keep:
			body := machine.EncodeValue(map[string]any(e.Outputs))
			c.writes = append(c.writes, func(tx *db.Tx) error {
				_, err := tx.Exec("INSERT OR REPLACE INTO work_outputs(run, node, item, body) VALUES (?, ?, ?, ?)", r.num, e.Node, e.Item, body)
				return err
			})
		case machine.Remember:
			c.remember(r, e)
		case machine.Lock:
			c.s.locks.want(r, e)
			c.grantLocks(e.Namespace, e.Name)
		case machine.Unlock:
			c.s.locks.release(r, e)
			c.grantLocks(e.Namespace, e.Name)
		case machine.Stop:
			// The worker hears it with its beat, from the run's state.
			if name, _, ok := r.m.Holds(e.Node, e.Item, e.Attempt); ok {
				c.stops = append(c.stops, name)
			}
		case machine.Finished:
			r.finished = true
		default:
			c.asks = append(c.asks, ask{r, e})
		}
	}
	r.in.queue.update(r)
}

// due has happen what time brings.
func (c *commit) due() {
	s := c.s
	if !s.due.IsZero() && !s.due.After(c.at) {
		s.due = time.Time{}
		for _, r := range s.order {
			next := r.m.Next()
			if !next.IsZero() && !next.After(c.at) {
				if err := c.apply(r, machine.Tick{}); err != nil {
					s.log.Error("a run did not take its time", "run", r.id, "error", err)
				}
				next = r.m.Next()
			}
			s.expect(next)
		}
	}
	if wall := s.d.Clock.Now(); !s.alarm.IsZero() && !s.alarm.After(wall) {
		c.schedule(wall)
	}
	c.expire()
}

// write is the transaction.
func (c *commit) write(ctx context.Context) error {
	if len(c.touched) == 0 && len(c.writes) == 0 {
		return nil
	}
	for _, r := range c.touched {
		r.seq++
		r.logged += len(r.pending)
	}
	return c.s.d.DB.Write(context.WithoutCancel(ctx), func(tx *db.Tx) error {
		for _, w := range c.writes {
			if err := w(tx); err != nil {
				return err
			}
		}
		for _, r := range c.touched {
			if err := r.write(tx, c.s); err != nil {
				return err
			}
		}
		return nil
	})
}

// settle is what is seen once the transaction is durable.
func (c *commit) settle() {
	for _, r := range c.touched {
		r.pending = r.pending[:0]
		if r.finished {
			c.s.forget(r)
		}
		if c.s.d.Changed != nil {
			c.s.d.Changed(r.id)
		}
	}
	for _, w := range c.served {
		w.got <- w.leases
		w.leases = nil
	}
	for _, name := range c.stops {
		if w := c.s.workers[name]; w != nil {
			w.tell()
		}
	}
	for _, f := range c.after {
		f()
	}
	for _, a := range c.asks {
		c.s.answer(a.run, a.e)
	}
}

// Close waits until the loop has ended; its context has to be done.
func (s *Server) Close() {
	<-s.ended
}
