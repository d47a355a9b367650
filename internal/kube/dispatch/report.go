package dispatch

import (
	"context"
	"errors"
	"slices"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
)

// The server bounds what it hears at once.
const batch = 2048

// report has outcomes told that no pod tells.
func (d *Dispatcher) report(o ...task.Outcome) {
	if len(o) == 0 {
		return
	}
	d.mu.Lock()
	d.results = append(d.results, o...)
	d.mu.Unlock()
	d.signal(d.tell)
}

// reports tells outcomes until the server has taken them.
func (d *Dispatcher) reports(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.tell:
		}
		for {
			d.mu.Lock()
			n := min(len(d.results), batch)
			some := slices.Clone(d.results[:n])
			d.mu.Unlock()
			if n == 0 {
				break
			}
			_, err := d.d.Server.Work(ctx, task.Ask{Worker: d.name, Pool: d.name, Outcomes: some})
			if errors.Is(err, work.ErrClosed) || ctx.Err() != nil {
				return
			}
			if err != nil {
				d.log.Warn("outcomes could not be told", "error", err)
				if clock.Sleep(ctx, d.d.Clock, time.Second) != nil {
					return
				}
				continue
			}
			d.mu.Lock()
			d.results = slices.Delete(d.results, 0, n)
			d.mu.Unlock()
		}
	}
}

// beats says what waits here, and ends what is not wanted any more.
func (d *Dispatcher) beats(ctx context.Context) {
	for clock.Sleep(ctx, d.d.Clock, d.cfg.Beat) == nil {
		held := d.held()
		for len(held) > 0 {
			n := min(len(held), batch)
			b, err := d.d.Server.Beat(ctx, task.Beat{Worker: d.name, Held: held[:n]})
			if err != nil {
				d.log.Warn("a beat was not heard", "error", err)
				break
			}
			d.drop(b.Cancel, true)
			d.drop(b.Lost, false)
			held = held[n:]
		}
	}
}

// held is what waits here, and the requests that are being made.
func (d *Dispatcher) held() []task.Ref {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []task.Ref
	for g := range d.groups() {
		for _, x := range g.queue {
			out = append(out, x.Ref)
		}
	}
	for _, w := range d.working {
		out = append(out, w.Ref)
	}
	for _, o := range d.results {
		out = append(out, o.Ref)
	}
	return out
}

// drop takes tasks out of the queues. Those that were canceled are told.
func (d *Dispatcher) drop(refs []task.Ref, canceled bool) {
	if len(refs) == 0 {
		return
	}
	tokens := map[string]bool{}
	for _, r := range refs {
		tokens[r.Token] = true
	}
	var told []task.Outcome
	d.mu.Lock()
	for g := range d.groups() {
		g.queue = slices.DeleteFunc(g.queue, func(x *item) bool {
			if !tokens[x.Token] {
				return false
			}
			if canceled {
				told = append(told, task.Outcome{Ref: x.Ref, Phase: task.Canceled, Exit: -1, Message: "canceled before it ran"})
			}
			d.count(x, -1)
			return true
		})
	}
	for t := range tokens {
		if w, ok := d.working[t]; ok {
			w.end(errCanceled)
		}
	}
	d.mu.Unlock()
	d.report(told...)
}

var errCanceled = errors.New("canceled")

// request makes the request of a task, which counts as one that waits, so that
// what is taken of a run is bounded; the lock is held.
func (d *Dispatcher) request(ctx context.Context, x *item) {
	if d.d.HTTP == nil {
		go d.report(failed(x.Ref, "this server makes no requests for tasks", false))
		return
	}
	ctx, end := context.WithCancelCause(ctx)
	w := &request{x, d.runs[x.Run], end}
	d.working[x.Token] = w
	d.count(x, 1)
	go func() {
		defer end(nil)
		var o task.Outcome
		select {
		case d.making <- struct{}{}:
			o = d.d.HTTP(ctx, x.body.HTTP, x.body.Timeout)
			<-d.making
		case <-ctx.Done():
		}
		if context.Cause(ctx) == errCanceled {
			o = task.Outcome{Phase: task.Canceled, Exit: -1, Message: "canceled"}
		} else if ctx.Err() != nil {
			return // this process ends; the lease is given back when it begins again
		}
		o.Ref = x.Ref
		d.mu.Lock()
		delete(d.working, x.Token)
		if d.runs[x.Run] == w.run { // else it went with the run
			d.count(x, -1)
		}
		d.results = append(d.results, o)
		d.mu.Unlock()
		d.signal(d.tell)
	}()
}
