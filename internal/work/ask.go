package work

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// Bounds of what one worker may say at once, and hold.
const (
	maxWant     = 1024
	maxOutcomes = 4096
	maxWait     = time.Minute
	maxMessage  = 4096
	maxWorker   = 200
)

// waiter is a worker that waits for tasks.
type waiter struct {
	worker string
	pool   string
	want   int
	room   Room
	leases []lease // granted, in the commit that is being made
	got    chan []lease
	gone   bool // it does not wait any more
}

// lease is a task that was granted.
type lease struct {
	run *run
	machine.Lease
	item workflow.Value // of a task that is one
	list string         // where its item is to be read first; "": nowhere
}

// report is what one call says about one run, in the order of its saying.
type report struct {
	run  string
	refs []task.Ref
	res  []machine.Result
	up   []machine.Serving
	back []machine.Lease
}

// Work takes what a worker reports and gives it tasks. When it answers, the
// outcomes that it does not refuse are durable, and so are the leases. The
// tokens in a say which leases the caller may speak of; who it is is a name
// for people and for beats.
func (s *Server) Work(ctx context.Context, a task.Ask) (task.Grant, error) {
	return s.Lend(ctx, a, nil)
}

// A Room says how many more tasks of a run are wanted. It is asked under the
// server's lock: it may not call the server, and has to be quick.
type Room func(run, namespace string) int

// Lend is Work for who hands tasks on, to pods, and has room for some runs and
// not for others; a nil room has room for all, and no pods.
func (s *Server) Lend(ctx context.Context, a task.Ask, room Room) (task.Grant, error) {
	g := task.Grant{Term: s.cfg.Term}
	if a.Worker == "" || len(a.Worker) > maxWorker {
		return g, fmt.Errorf("%w: a worker has a name of at most %d bytes", ErrInvalid, maxWorker)
	}
	if n := len(a.Outcomes) + len(a.Serving) + len(a.Back); n > maxOutcomes {
		return g, fmt.Errorf("%w: %d outcomes at once, at most %d", ErrInvalid, n, maxOutcomes)
	}
	in, err := poolName(a.Pool)
	if err != nil {
		return g, err
	}
	a.Outcomes = s.objects(a.Outcomes)
	reports, refused := s.sort(a)
	g.Refused = refused
	want := min(max(a.Want, 0), maxWant)
	for deadline := s.d.Clock.Mono() + min(a.Wait, maxWait); ; {
		leases, drain, err := s.exchange(ctx, &waiter{worker: a.Worker, pool: in, want: want, room: room}, reports, deadline, &g.Refused)
		if err != nil {
			return g, err
		}
		reports = nil
		g.Drain = drain
		if len(leases) == 0 {
			return g, nil
		}
		if err := s.render(ctx, leases, &g, room != nil); err != nil {
			return g, err
		}
		// All of them may have been skipped by their conditions.
		if len(g.Leases) > 0 || ctx.Err() != nil {
			return g, nil
		}
	}
}

// sort sorts what a worker reports by runs. What has no right token is refused.
func (s *Server) sort(a task.Ask) (reports []*report, refused []task.Ref) {
	of := func(r task.Ref) (*report, machine.Lease, bool) {
		t, err := machine.ParseTask(r.Task)
		if err != nil || r.Attempt < 1 || r.Attempt > 1<<31 || !s.tokens.right(r) {
			refused = append(refused, r)
			return nil, machine.Lease{}, false
		}
		var p *report
		if i := slices.IndexFunc(reports, func(p *report) bool { return p.run == r.Run }); i >= 0 {
			p = reports[i]
		} else {
			p = &report{run: r.Run}
			reports = append(reports, p)
		}
		return p, machine.Lease{Ref: t, Attempt: uint32(r.Attempt)}, true
	}
	for i := range a.Outcomes {
		o := &a.Outcomes[i]
		if p, l, ok := of(o.Ref); ok {
			p.refs = append(p.refs, o.Ref)
			p.res = append(p.res, s.result(o, l))
		}
	}
	for _, x := range a.Serving {
		at, err := netip.ParseAddr(x.Address)
		if err != nil { // nobody could be told where it is
			refused = append(refused, x.Ref)
		} else if p, l, ok := of(x.Ref); ok {
			p.up = append(p.up, machine.Serving{Node: l.Node, Item: l.Item, Attempt: l.Attempt, Address: at.String()})
		}
	}
	for _, r := range a.Back {
		if p, l, ok := of(r); ok {
			p.back = append(p.back, l)
		}
	}
	return reports, refused
}

// result is an outcome in the machine's words, within its bounds.
func (s *Server) result(o *task.Outcome, l machine.Lease) machine.Result {
	r := machine.Result{Node: l.Node, Item: l.Item, Attempt: l.Attempt, Exit: max(min(o.Exit, 1<<20), -1), Message: cut(o.Message, maxMessage),
		Infrastructure: o.Infrastructure, Isolation: cut(o.Isolation, 20), Outputs: o.Outputs}
	if !o.Started.IsZero() {
		r.Started = o.Started.UnixMilli()
	}
	if !o.Ended.IsZero() {
		r.Ended = o.Ended.UnixMilli()
	}
	switch o.Phase {
	case task.Succeeded:
		r.Phase = machine.Succeeded
	case task.Failed:
		r.Phase = machine.Failed
	case task.Canceled:
		r.Phase = machine.Canceled
	default:
		r.Phase = machine.Errored
	}
	size := 0
	for k, p := range o.Outputs {
		size += len(k) + len(p.Digest) + 16
		if p.Text != nil {
			size += len(*p.Text)
		}
	}
	if size > s.cfg.MaxText {
		r.Outputs = nil
		if r.Phase == machine.Succeeded {
			r.Phase, r.Exit = machine.Errored, -1
			r.Message = fmt.Sprintf("its outputs have %d bytes of text, at most %d: hand what is larger on as an artifact", size, s.cfg.MaxText)
		}
	}
	return r
}

// cut shortens a text that somebody outside wrote.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && s[most]&0xc0 == 0x80 {
		most--
	}
	return s[:most] + "…"
}

// exchange puts reports in and gets leases out, waiting for some if need be.
func (s *Server) exchange(ctx context.Context, w *waiter, reports []*report, deadline time.Duration, refused *[]task.Ref) (leases []lease, drain bool, err error) {
	waits := false
	err = s.do(ctx, func(c *commit) error {
		for _, p := range reports {
			late := c.report(p)
			*refused = append(*refused, late...)
			s.counts.refused += int64(len(late))
		}
		drain = s.draining
		if w.want == 0 || drain {
			return nil
		}
		if leases = c.grant(w); len(leases) == 0 && deadline > s.d.Clock.Mono() {
			w.got, waits = make(chan []lease, 1), true
			s.wait(w)
		}
		return nil
	})
	if err != nil || !waits {
		return leases, drain, err
	}
	select {
	case leases = <-w.got:
	case <-ctx.Done():
		leases = s.leave(w)
		if len(leases) > 0 { // nobody hears of them any more
			s.post(func(c *commit) error { c.giveBack(leases); return nil })
		}
		return nil, drain, ctx.Err()
	case <-s.d.Clock.After(deadline - s.d.Clock.Mono()):
		leases = s.leave(w)
	case <-s.ended:
		return nil, drain, ErrClosed
	}
	s.mu.RLock()
	drain = s.draining
	s.mu.RUnlock()
	return leases, drain, nil
}

// leave ends the wait of a worker; what it was granted just now is returned.
func (s *Server) leave(w *waiter) []lease {
	s.mu.Lock()
	w.gone = true
	granted := len(w.leases) > 0 // in a commit that is being written
	p := s.pool(w.pool)
	p.waiters = slices.DeleteFunc(p.waiters, func(x *waiter) bool { return x == w })
	s.mu.Unlock()
	if granted {
		select {
		case l := <-w.got:
			return l
		case <-s.ended:
			return nil
		}
	}
	select {
	case l := <-w.got:
		return l
	default:
		return nil
	}
}

// report has outcomes happen, as far as their leases are held.
func (c *commit) report(p *report) (refused []task.Ref) {
	s := c.s
	r := s.runs[p.run]
	if r == nil {
		return p.refs
	}
	for _, x := range p.up { // before they end, if both are said at once
		if _, _, held := r.m.Holds(x.Node, x.Item, x.Attempt); held {
			_ = c.apply(r, x) // it is never refused
		}
	}
	var e machine.Ended
	for i := range p.res {
		x := &p.res[i]
		l := machine.Lease{Ref: machine.Ref{Node: x.Node, Item: x.Item}, Attempt: x.Attempt}
		if !s.drop(r, l) {
			refused = append(refused, p.refs[i])
			continue
		}
		e.Results = append(e.Results, *x)
		s.counts.outcomes[x.Phase]++
	}
	if len(e.Results) > 0 {
		if err := c.apply(r, &e); err != nil {
			s.log.Error("a run did not take outcomes", "run", r.id, "error", err)
		}
	}
	var back machine.Back
	for _, l := range p.back {
		if s.drop(r, l) {
			back.Tasks = append(back.Tasks, l.Ref)
		}
	}
	if len(back.Tasks) > 0 {
		_ = c.apply(r, back) // it is never refused
	}
	return refused
}

// giveBack returns leases of any runs.
func (c *commit) giveBack(leases []lease) {
	for _, l := range leases {
		if c.s.drop(l.run, l.Lease) {
			_ = c.apply(l.run, machine.Back{Tasks: []machine.Ref{l.Ref}}) // it is never refused
		}
	}
}

// grant gives tasks to a worker, of the runs of its pool whose turn it is.
func (c *commit) grant(to *waiter) (out []lease) {
	s := c.s
	p := s.pool(to.pool)
	got := map[*run]int{} // in this call: whose room it is does not know of it yet
	may := func(r *run) bool { return s.room(r, 1, to.room, got[r]) > 0 }
	for to.want > len(out) {
		r := p.queue.next(may)
		if r == nil {
			break
		}
		e, leases := r.m.Grant(c.at, to.worker, s.room(r, to.want-len(out), to.room, got[r]))
		if e == nil {
			p.queue.remove(r)
			continue
		}
		got[r] += len(leases)
		w := s.worker(to.worker)
		now := s.d.Clock.Mono()
		for _, l := range leases {
			w.held[key{r, l}] = now
			item, list := r.m.Item(l.Ref)
			out = append(out, lease{r, l, item, list})
		}
		s.active += len(leases)
		s.spaces[r.namespace] += len(leases)
		c.record(r, e)
	}
	return out
}

// room is how many tasks of the run may be granted, up to want, by the caps of
// the server and by what room its taker has.
func (s *Server) room(r *run, want int, taker Room, got int) int {
	if taker != nil {
		want = min(want, taker(r.id, r.namespace)-got)
	}
	if n := s.cfg.MaxActive; n > 0 {
		want = min(want, n-s.active)
	}
	if n := s.cfg.MaxPerNamespace; n > 0 {
		want = min(want, n-s.spaces[r.namespace])
	}
	if n := s.cfg.MaxPerRun; n > 0 {
		c := r.m.Counts()
		want = min(want, n-c.Active+c.Serving) // those that need a daemon would never begin
	}
	return want
}

// serve gives what has become ready to those who wait for it, in the order of
// their coming. They hear of it when it is durable.
func (c *commit) serve() {
	s := c.s
	s.first++ // so that a cap of all pools is not one pool's alone
	for i := range s.pools {
		p := s.pools[(s.first+i)%len(s.pools)]
		for at := 0; at < len(p.waiters) && !p.queue.empty(); {
			w := p.waiters[at]
			if w.leases = c.grant(w); len(w.leases) > 0 {
				p.waiters = slices.Delete(p.waiters, at, at+1)
				c.served = append(c.served, w)
			} else if at++; w.room == nil { // nor has the next one
				break
			}
		}
		if s.draining {
			c.served = append(c.served, p.waiters...)
			p.waiters = nil
		}
	}
	s.pools = slices.DeleteFunc(s.pools, (*pool).unused)
}

// wait has a worker wait for tasks of its pool.
func (s *Server) wait(w *waiter) {
	p := s.pool(w.pool)
	p.waiters = append(p.waiters, w)
}
