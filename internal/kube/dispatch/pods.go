package dispatch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/isolate"
)

// Work is what a pod with these claims asks: outcomes go on to the server,
// tasks come from here.
func (d *Dispatcher) Work(ctx context.Context, c Claims, a task.Ask) (task.Grant, error) {
	d.once.Do(func() { close(d.heard) })
	out, err := d.settle(ctx, c, a)
	if err != nil || a.Want <= 0 {
		return out, err
	}
	begun := d.d.Clock.Mono()
	until := begun + a.Wait
	for {
		d.mu.Lock()
		_, over := d.ended[c.Run]
		g, changed := d.find(c), d.found
		var p *pod
		if g != nil {
			p = g.pod(a.Worker, d.d.Clock.Mono())
			changed = g.changed
		}
		switch {
		case over || d.stale(c) || g != nil && (g.closed || g.shape.Single() && p.served > 0):
			d.mu.Unlock()
			out.Drain = true
			return out, nil
		case g != nil && len(g.queue) > 0:
			d.hand(g, p, a.Want, &out)
			d.mu.Unlock()
			d.signal(d.changed)
			return out, nil
		}
		now := d.d.Clock.Mono()
		wait := until - now
		if left, idle := d.patience(c, p, begun, now); idle {
			if out.Drain = left <= 0; out.Drain {
				d.mu.Unlock()
				return out, nil
			}
			wait = min(wait, left)
		}
		if wait <= 0 {
			d.mu.Unlock()
			return out, nil
		}
		if p != nil {
			p.waiting++
		}
		d.mu.Unlock()
		select {
		case <-changed:
		case <-d.d.Clock.After(wait):
		case <-ctx.Done():
		}
		d.mu.Lock()
		if p != nil {
			p.waiting--
		}
		d.mu.Unlock()
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
	}
}

// stale says whether half of the life of a pod's token is over: it gets no more
// tasks, so that none is in its hands when nobody believes it any more.
func (d *Dispatcher) stale(c Claims) bool {
	return time.Unix(c.Expires, 0).Sub(d.d.Clock.Now()) < d.cfg.TokenLife/2
}

// patience is how much longer a pod that has nothing is kept; idle is false if
// it has something. The lock is held.
func (d *Dispatcher) patience(c Claims, p *pod, begun, now time.Duration) (left time.Duration, idle bool) {
	limit := d.cfg.Idle
	if Shared(c.Run) && d.cfg.Warm > 0 {
		limit = d.cfg.Warm
	}
	switch {
	case p == nil: // its run is not known here yet
		return d.cfg.Idle - (now - begun), true
	case len(p.held) > 0:
		p.idle = 0
		return 0, false
	case p.idle == 0:
		p.idle = max(now, 1)
	}
	return limit - (now - p.idle), true
}

// settle takes what a pod brings: outcomes, and what it has not begun.
func (d *Dispatcher) settle(ctx context.Context, c Claims, a task.Ask) (task.Grant, error) {
	d.mu.Lock()
	out := task.Grant{Term: d.term}
	d.mu.Unlock()
	say := task.Ask{Worker: d.name, Pool: d.name}
	for _, o := range a.Outcomes {
		switch {
		case !c.covers(o.Ref):
			out.Refused = append(out.Refused, o.Ref)
		case o.Phase == task.Errored && strings.HasPrefix(o.Message, isolate.NoneHere) && d.moveApart(c, o.Ref):
		default:
			say.Outcomes = append(say.Outcomes, o)
		}
	}
	for _, s := range a.Serving {
		if c.covers(s.Ref) {
			say.Serving = append(say.Serving, s)
		} else {
			out.Refused = append(out.Refused, s.Ref)
		}
	}
	for _, r := range a.Back {
		if c.covers(r) && !d.takeBack(c, a.Worker, r) {
			say.Back = append(say.Back, r)
		}
	}
	if len(say.Outcomes)+len(say.Serving)+len(say.Back) > 0 {
		g, err := d.d.Server.Work(ctx, say)
		if err != nil {
			return out, err
		}
		out.Term, out.Drain = g.Term, g.Drain
		out.Refused = append(out.Refused, g.Refused...)
	}
	d.mu.Lock()
	if g := d.find(c); g != nil {
		p := g.pod(a.Worker, d.d.Clock.Mono())
		for _, o := range a.Outcomes {
			delete(p.held, o.Token)
		}
	}
	d.mu.Unlock()
	return out, nil
}

// find is the group of a pod, or nil; the lock is held.
func (d *Dispatcher) find(c Claims) *group {
	r := d.owner(c)
	if r == nil {
		return nil
	}
	return d.group(r, c.Class)
}

// pod finds a pod of the group, or notes one; the lock is held.
func (g *group) pod(name string, now time.Duration) *pod {
	p := g.pods[name]
	if p == nil {
		p = &pod{name: name, held: map[string]*item{}}
		g.pods[name] = p
	}
	p.seen, g.asked = now, true
	return p
}

// hand gives a pod its share of what waits; the lock is held.
func (d *Dispatcher) hand(g *group, p *pod, want int, out *task.Grant) {
	now, alive := d.d.Clock.Mono(), 0
	for _, x := range g.pods {
		if now-x.seen < d.term {
			alive++
		}
	}
	share := (len(g.queue) + alive - 1) / max(alive, 1)
	if g.shape.Single() {
		share = 1
	}
	n := min(want, share, len(g.queue))
	bodies := map[*task.Task]int{}
	for _, x := range g.queue[:n] {
		i, ok := bodies[x.body]
		if !ok {
			i = len(out.Bodies)
			bodies[x.body] = i
			out.Bodies = append(out.Bodies, inPod(x.body, p.name))
		}
		l := x.Lease
		l.Body = i
		if x.body.PodName {
			l.Own = l.Own.In(p.name)
		}
		out.Leases = append(out.Leases, l)
		p.held[x.Token] = x
		d.place(x.Run, x.Task, p.name)
		d.count(x, -1)
	}
	p.served += n
	g.served += n
	p.idle = 0
	g.queue = slices.Delete(g.queue, 0, n)
}

// takeBack puts a task that a pod has not begun where the next one finds it.
func (d *Dispatcher) takeBack(c Claims, pod string, r task.Ref) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.find(c)
	if g == nil || g.pods[pod] == nil {
		return false
	}
	x := g.pods[pod].held[r.Token]
	if x == nil {
		return false
	}
	delete(g.pods[pod].held, r.Token)
	g.queue = slices.Insert(g.queue, 0, x)
	d.count(x, 1)
	g.change()
	return true
}

// moveApart files a task anew that its pod could not keep apart from others,
// for a pod of its own, and all that come after it.
func (d *Dispatcher) moveApart(c Claims, r task.Ref) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.find(c)
	if g == nil || g.shape.Single() {
		return false
	}
	var x *item
	for _, p := range g.pods {
		if y := p.held[r.Token]; y != nil {
			x = y
			delete(p.held, r.Token)
		}
	}
	if x == nil || d.put(apart(x), ShapeOf(apart(x).body)) != nil {
		return false
	}
	g.apart = true
	rest := g.queue
	g.queue = nil
	for _, x := range rest {
		d.count(x, -1)
		_ = d.put(x, g.shape) // it is moved, and there is the group
	}
	d.signal(d.changed)
	return true
}

// Beat is what a pod with these claims says that it holds.
func (d *Dispatcher) Beat(ctx context.Context, c Claims, b task.Beat) (task.Beaten, error) {
	d.once.Do(func() { close(d.heard) })
	var others []task.Ref
	held := slices.DeleteFunc(slices.Clone(b.Held), func(r task.Ref) bool {
		if !c.covers(r) {
			others = append(others, r)
		}
		return !c.covers(r)
	})
	out, err := d.d.Server.Beat(ctx, task.Beat{Worker: cmp.Or(b.Worker, "pod"), Held: held, Wait: b.Wait})
	if err != nil {
		return out, err
	}
	out.Lost, out.Return = append(out.Lost, others...), 0
	d.mu.Lock()
	defer d.mu.Unlock()
	if out.Term > 0 {
		d.term = out.Term
	}
	if _, over := d.ended[c.Run]; over {
		out.Drain = true
	}
	g := d.find(c)
	if g == nil {
		return out, nil
	}
	p := g.pod(b.Worker, d.d.Clock.Mono())
	for _, r := range held { // a dispatcher that began again learns who has what
		if _, known := p.held[r.Token]; !known {
			p.held[r.Token] = &item{Lease: task.Lease{Ref: r}}
		}
	}
	for _, r := range out.Lost {
		delete(p.held, r.Token)
	}
	if len(held) > 1 && len(g.queue) == 0 && g.waits(p) {
		out.Return = len(held) / 2
	}
	return out, nil
}

// waits says whether another pod has nothing to do.
func (g *group) waits(but *pod) bool {
	for _, p := range g.pods {
		if p != but && p.waiting > 0 && len(p.held) == 0 {
			return true
		}
	}
	return false
}

// OutOfMemory is in what Gone is told of a pod that the kernel ended as a whole,
// for a process of it that took too much: kubelets have it do so under cgroups v2.
const OutOfMemory = "OOMKilled"

// Gone is told of a pod that has ended: what it held goes to others, and that
// is not the user's expense. But where all that it held was one task, and the
// pod had no memory left, it was that.
func (d *Dispatcher) Gone(run, class, name, why string) {
	d.mu.Lock()
	var told []task.Outcome
	if g := d.known(run, class); g != nil {
		if p := g.pods[name]; p != nil {
			for _, x := range p.held {
				o := failed(x.Ref, fmt.Sprintf("pod %s: %s", name, why), true)
				if len(p.held) == 1 && strings.Contains(why, OutOfMemory) {
					o = task.Outcome{Ref: x.Ref, Phase: task.Failed, Exit: 137, Message: "killed: out of memory, and pod " + name + " with it"}
				}
				told = append(told, o)
			}
			delete(g.pods, name)
		}
	}
	d.mu.Unlock()
	slices.SortFunc(told, func(a, b task.Outcome) int { return strings.Compare(a.Task, b.Task) })
	d.report(told...)
}

// Fail ends all tasks that wait for pods of this kind: they cannot start, and
// why is what people have to know.
func (d *Dispatcher) Fail(run, class, why string, infrastructure bool) {
	d.mu.Lock()
	var told []task.Outcome
	if g := d.known(run, class); g != nil {
		for _, x := range g.queue {
			told = append(told, failed(x.Ref, why, infrastructure))
			d.count(x, -1)
		}
		g.queue = nil
	}
	d.mu.Unlock()
	d.report(told...)
	d.signal(d.changed)
}

// known is a group, or nil; the lock is held.
func (d *Dispatcher) known(id, class string) *group {
	for _, owners := range []map[string]*run{d.runs, d.warm} {
		if r := owners[id]; r != nil {
			return r.groups[class]
		}
	}
	return nil
}

// Demand is what pods are wanted of one run and shape.
type Demand struct {
	Run, Namespace, Class string
	Shape                 Shape
	Queued                int  // tasks that wait for a pod
	Held                  int  // tasks that pods have
	Served                int  // tasks that pods were given, since the start
	Asked                 bool // whether any pod was heard of, since the start
}

// Demand is all that has tasks, by run and class.
func (d *Dispatcher) Demand() []Demand {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.d.Clock.Mono()
	var out []Demand
	for g := range d.groups() {
		x := Demand{Run: g.run.id, Namespace: g.run.namespace, Class: g.class, Shape: g.shape, Queued: len(g.queue), Served: g.served, Asked: g.asked}
		for name, p := range g.pods {
			x.Held += len(p.held)
			if p.waiting == 0 && now-p.seen > 2*d.term {
				delete(g.pods, name)
			}
		}
		if g.shaped && x.Queued+x.Held > 0 {
			out = append(out, x)
		} else if Shared(x.Run) && len(g.pods) == 0 {
			delete(g.run.groups, g.class) // its run never ends
		}
	}
	slices.SortFunc(out, func(a, b Demand) int {
		return cmp.Or(strings.Compare(a.Run, b.Run), strings.Compare(a.Class, b.Class))
	})
	return out
}

// Changed is sent to when Demand says something else than before, or may.
func (d *Dispatcher) Changed() <-chan struct{} { return d.changed }

// Token is what a pod needs to ask for tasks, together with the [Dispatcher.Key]
// of its namespace.
func (d *Dispatcher) Token(x Demand) string {
	return d.signer.Sign(Claims{Cluster: d.cfg.Cluster, Namespace: x.Namespace, Run: x.Run, Class: x.Class, Expires: d.d.Clock.Now().Add(d.cfg.TokenLife).Unix()})
}

// Key is the secret part of the tokens of all pods of a namespace; see
// [Signer.Key].
func (d *Dispatcher) Key(namespace string) string { return d.signer.Key(d.cfg.Cluster, namespace) }

// Over says whether a run is known to have ended.
func (d *Dispatcher) Over(run string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, over := d.ended[run]
	return over
}
