package work

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/machine"
)

// tokens makes and checks the tokens of leases. A token follows from the
// secret and the attempt it is for, and no attempt is ever granted twice: so
// it is as good as a random one, and takes no place.
type tokens struct{ hashes *sync.Pool } // of hash.Hash, keyed: the key is worked in once

func newTokens(secret []byte) tokens {
	return tokens{&sync.Pool{New: func() any { return hmac.New(sha256.New, secret) }}}
}

func (t tokens) make(run, name string, attempt int) string {
	h := t.hashes.Get().(hash.Hash)
	defer t.hashes.Put(h)
	h.Reset()
	var scratch [128]byte
	b := binary.BigEndian.AppendUint64(scratch[:0], uint64(attempt))
	b = append(b, run...)
	b = append(b, 0)
	b = append(b, name...)
	h.Write(b)
	var sum [sha256.Size]byte
	return base64.RawURLEncoding.EncodeToString(h.Sum(sum[:0])[:15])
}

func (t tokens) right(r task.Ref) bool {
	return hmac.Equal([]byte(r.Token), []byte(t.make(r.Run, r.Task, r.Attempt)))
}

// key is a lease, as long as it is held.
type key struct {
	run *run
	machine.Lease
}

// worker is somebody who holds leases, or did so lately.
type worker struct {
	name string
	seen time.Duration         // when it was last heard of
	held map[key]time.Duration // when each was granted, or last said to be held
	stop chan struct{}         // closed, and made again, when it is to end something
}

// tell answers the beats that wait.
func (w *worker) tell() {
	close(w.stop)
	w.stop = make(chan struct{})
}

func (s *Server) worker(name string) *worker {
	w := s.workers[name]
	if w == nil {
		w = &worker{name: name, held: map[key]time.Duration{}, stop: make(chan struct{})}
		s.workers[name] = w
	}
	w.seen = s.d.Clock.Mono()
	return w
}

// drop ends a lease, and reports whether it was held.
func (s *Server) drop(r *run, l machine.Lease) bool {
	name, _, ok := r.m.Holds(l.Node, l.Item, l.Attempt)
	if !ok {
		return false
	}
	w := s.workers[name]
	if w == nil {
		return false
	}
	k := key{r, l}
	if _, ok := w.held[k]; !ok { // another outcome of the same commit came first
		return false
	}
	delete(w.held, k)
	s.active--
	if s.spaces[r.namespace]--; s.spaces[r.namespace] == 0 {
		delete(s.spaces, r.namespace)
	}
	return true
}

// expire ends the leases that nobody said to hold for a term.
func (c *commit) expire() {
	s := c.s
	now := s.d.Clock.Mono()
	if now < s.expiry {
		return
	}
	s.expiry = now + s.cfg.Term/4
	for name, w := range s.workers {
		var late []key
		for k, at := range w.held {
			if now-at > s.cfg.Term {
				late = append(late, k)
			}
		}
		if len(late) > 0 {
			c.dismissWaiters(name)
		}
		c.lose(name, "silent", late)
		if len(w.held) == 0 && now-w.seen > 4*s.cfg.Term {
			delete(s.workers, name)
		}
	}
}

// lose has tasks that a worker held run again, at its expense.
func (c *commit) lose(worker, why string, keys []key) {
	s := c.s
	c.take(keys, func(r *run, tasks []machine.Ref) {
		s.log.Warn("tasks are taken from a worker that is "+why, "worker", worker, "run", r.id, "tasks", len(tasks))
		s.counts.lost += int64(len(tasks))
		if err := c.apply(r, machine.Lost{Tasks: tasks}); err != nil {
			s.log.Error("a run did not take a loss", "run", r.id, "error", err)
		}
	})
}

// dismissWaiters answers the asks of a worker that wait: what was just taken from
// it must not go to a connection at whose other end nobody may be. Who is there
// after all asks again. Those who lend to others wait in this process.
func (c *commit) dismissWaiters(worker string) {
	for _, p := range c.s.pools {
		p.waiters = slices.DeleteFunc(p.waiters, func(w *waiter) bool {
			cut := w.worker == worker && w.room == nil
			if cut {
				c.served = append(c.served, w)
			}
			return cut
		})
	}
}

// take ends leases, in an order that does not depend on maps, and tells of
// them by run.
func (c *commit) take(keys []key, tell func(r *run, tasks []machine.Ref)) {
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(strings.Compare(a.run.id, b.run.id), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Item, b.Item))
	})
	for i := 0; i < len(keys); {
		r := keys[i].run
		var tasks []machine.Ref
		for ; i < len(keys) && keys[i].run == r; i++ {
			if c.s.drop(r, keys[i].Lease) {
				tasks = append(tasks, keys[i].Ref)
			}
		}
		if len(tasks) > 0 {
			tell(r, tasks)
		}
	}
}

// Release gives back what a worker holds that nobody beat for lately, 0 for all
// of it. It is for a holder that has begun again and does not remember what it
// was granted; those to whom it handed leases on beat for them. It spends
// nothing.
func (s *Server) Release(ctx context.Context, worker string, lately time.Duration) error {
	return s.do(ctx, func(c *commit) error {
		w := s.workers[worker]
		if w == nil {
			return nil
		}
		var keys []key
		for k, at := range w.held {
			if lately == 0 || s.d.Clock.Mono()-at >= lately {
				keys = append(keys, k)
			}
		}
		c.take(keys, func(r *run, tasks []machine.Ref) {
			_ = c.apply(r, machine.Back{Tasks: tasks}) // it is never refused
		})
		return nil
	})
}

// Gone says that a worker is no more, and nobody else goes by its name: what it
// held is lost without waiting for its silence.
func (s *Server) Gone(ctx context.Context, worker string) error {
	return s.do(ctx, func(c *commit) error {
		if w := s.workers[worker]; w != nil {
			c.lose(worker, "gone", slices.Collect(maps.Keys(w.held)))
		}
		return nil
	})
}

// Live says whether there is such a run that has not ended.
func (s *Server) Live(run string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.runs[run] != nil
}

// Holds says whether whoever has this lease still holds it.
func (s *Server) Holds(l task.Ref) bool {
	t, err := machine.ParseTask(l.Task)
	if err != nil || l.Attempt < 1 || l.Attempt > 1<<31 || !s.tokens.right(l) {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.runs[l.Run]
	if r == nil {
		return false
	}
	_, _, ok := r.m.Holds(t.Node, t.Item, uint32(l.Attempt))
	return ok
}

// held is a lease as a beat names it.
type held struct {
	task.Ref
	machine.Lease
	ok bool // it is one that was granted
}

// Beat hears what a worker holds, and says what of that it is to end. An answer
// that says nothing is held for as long as the worker lets it.
func (s *Server) Beat(ctx context.Context, b task.Beat) (task.Beaten, error) {
	if b.Worker == "" || len(b.Worker) > maxWorker {
		return task.Beaten{}, fmt.Errorf("%w: a worker has a name of at most %d bytes", ErrInvalid, maxWorker)
	}
	if len(b.Held) > maxOutcomes {
		return task.Beaten{}, fmt.Errorf("%w: %d leases at once, at most %d", ErrInvalid, len(b.Held), maxOutcomes)
	}
	select {
	case <-s.ended:
		return task.Beaten{}, ErrClosed
	default:
	}
	all := make([]held, len(b.Held))
	for i, r := range b.Held { // before the lock is taken
		t, err := machine.ParseTask(r.Task)
		all[i] = held{r, machine.Lease{Ref: t, Attempt: uint32(r.Attempt)}, err == nil && s.tokens.right(r)}
	}
	out, stop := s.beat(b.Worker, all)
	if b.Wait <= 0 || stop == nil || len(out.Cancel)+len(out.Lost)+out.Return > 0 || out.Drain {
		return out, nil
	}
	again := false
	select {
	case <-stop:
		again = true
	case <-s.d.Clock.After(min(b.Wait, s.cfg.Term/2)):
	case <-ctx.Done():
		return out, ctx.Err()
	case <-s.ended:
		return out, ErrClosed
	}
	out, _ = s.beat(b.Worker, all)
	out.Again = again
	return out, nil
}

// beat notes that leases are held. What it returns besides the answer is closed
// when whoever holds them is to end something.
func (s *Server) beat(worker string, all []held) (out task.Beaten, stop <-chan struct{}) {
	out.Term = s.cfg.Term
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.d.Clock.Mono()
	if w := s.workers[worker]; w != nil {
		w.seen = now
	}
	var in *pool // a worker is in one
	for _, h := range all {
		r := s.runs[h.Ref.Run]
		if !h.ok || r == nil {
			out.Lost = append(out.Lost, h.Ref)
			continue
		}
		name, ends, ok := r.m.Holds(h.Node, h.Item, h.Lease.Attempt)
		w := s.workers[name]
		if !ok || w == nil {
			out.Lost = append(out.Lost, h.Ref)
			continue
		}
		in, stop = r.in, w.stop
		k := key{r, h.Lease}
		if _, ok := w.held[k]; ok {
			w.held[k] = now
		}
		if ends {
			out.Cancel = append(out.Cancel, h.Ref)
		}
	}
	out.Drain = s.draining
	if in != nil && len(all) > 1 && in.starving(worker) {
		// Others have nothing to do: half of what has not begun is theirs.
		out.Return = len(all) / 2
	}
	return out, stop
}

// Drain has workers finish what they have and leave, or ends that.
func (s *Server) Drain(ctx context.Context, on bool) error {
	return s.do(ctx, func(*commit) error { s.draining = on; return nil })
}
