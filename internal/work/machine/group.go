package machine

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// group is the tasks of a leaf: one, or as many as a fan-out has items.
type group struct {
	n    uint32 // how many
	next uint32 // those from here on nobody had yet
	// again are those that somebody had and that are to be had again.
	again  ranges
	active map[uint32]active // who has which
	past   map[uint32]*past  // of those that were tried and have not ended
	detail map[uint32]*past  // of some that failed

	good, bad, wrong, skipped, canceled ranges // how they ended

	base, most uint32 // attempts are numbered from base on; the highest number so far

	kept     int  // items that left outputs
	resting  int  // items that wait for their next attempt
	stopping bool // nothing new is granted
}

// active is a task that a worker has.
type active struct {
	worker  string
	attempt uint32
	since   int64
	stop    bool // it was told to end
	expired bool // because its time was up
}

// past is what is known of an item's attempts.
type past struct {
	attempts uint32 // that were granted
	retries  uint32
	crashes  uint32
	first    int64 // when the first began
	resting  bool

	// Of the last one.
	phase        Phase
	exit         int
	message      string
	began, ended int64
}

func newGroup(n uint32) *group {
	return &group{n: n, active: map[uint32]active{}, past: map[uint32]*past{}, detail: map[uint32]*past{}}
}

// done is how many have ended.
func (g *group) done() int { return g.good.n + g.bad.n + g.wrong.n + g.skipped.n + g.canceled.n }

// rest is how many have not ended. When their node has, they never will.
func (g *group) rest() int { return int(g.n) - g.done() }

// phase is how an item is.
func (g *group) phase(i uint32) Phase {
	switch {
	case g.good.has(i):
		return Succeeded
	case g.bad.has(i):
		return Failed
	case g.wrong.has(i):
		return Errored
	case g.skipped.has(i):
		return Skipped
	case g.canceled.has(i):
		return Canceled
	}
	if _, ok := g.active[i]; ok {
		return Running
	}
	if g.stopping {
		return Omitted
	}
	return Waiting
}

// grantable reports whether the items wait to be granted.
func (g *group) grantable(p Pick) bool {
	if g.stopping || p.Count == 0 {
		return false
	}
	if p.Item == g.next {
		return p.Count <= g.n-g.next
	}
	return p.Count == 1 && g.again.has(p.Item)
}

// Grant gives a worker up to want tasks and applies that. The event is nil when
// there are none.
func (m *Machine) Grant(at time.Time, worker string, want int) (e Event, tasks []Lease) {
	before := m.now
	m.now = max(m.now, at.UnixMilli())
	var picks []Pick
	if p := m.graph.Parallelism; p > 0 {
		want = min(want, p-m.counts.working())
	}
	if m.paused {
		want = 0
	}
	for i := 0; i < len(m.ready); {
		n := m.ready[i]
		if n.stage != stageRunning || n.group == nil || n.group.stopping || n.group.again.n == 0 && n.group.next == n.group.n {
			m.ready = slices.Delete(m.ready, i, i+1)
			continue
		}
		if want <= 0 {
			break
		}
		for room := m.room(n, want); room > 0; room = m.room(n, want) {
			g := n.group
			p := Pick{Node: n.id, Item: g.next, Count: 1}
			if g.again.n > 0 {
				p.Item = g.again.spans[0].from
			} else {
				p.Count = uint32(min(room, int(g.n-g.next)))
			}
			m.take(n, p, worker)
			for i := range p.Count {
				tasks = append(tasks, Lease{Ref{n.id, p.Item + i}, g.active[p.Item+i].attempt})
			}
			picks = append(picks, p)
			want -= int(p.Count)
		}
		i++
	}
	if len(picks) == 0 { // nothing has happened
		m.now = before
		return nil, nil
	}
	return Granted{Worker: worker, Picks: picks}, tasks
}

// A Lease is an attempt that a worker has.
type Lease struct {
	Ref
	Attempt uint32
}

// Ready reports whether there is anything to grant.
func (m *Machine) Ready() bool {
	if m.paused || m.graph.Parallelism > 0 && m.counts.working() >= m.graph.Parallelism {
		return false
	}
	for _, n := range m.ready {
		if n.stage == stageRunning && n.group != nil && m.room(n, 1) > 0 {
			return true
		}
	}
	return false
}

// room is how many tasks of the node may be granted, up to want.
func (m *Machine) room(n *node, want int) int {
	g := n.group
	if g.stopping {
		return 0
	}
	want = min(want, int(g.n-g.next)+g.again.n)
	if n.each && n.call.Each.Parallelism > 0 {
		want = min(want, n.call.Each.Parallelism-len(g.active))
	}
	if d := n.dagAbove(); d != nil && n.parent.tmpl.Parallelism > 0 {
		want = min(want, n.parent.tmpl.Parallelism-d.live)
	}
	return want
}

// dagAbove is the DAG whose parallelism the node's tasks count against, if the
// node itself does not.
func (n *node) dagAbove() *dag {
	if n.role == roleCall && !n.slot && !n.served {
		return n.parent.dag
	}
	return nil
}

// take begins attempts.
func (m *Machine) take(n *node, p Pick, worker string) {
	g := n.group
	if p.Item == g.next {
		g.next += p.Count
	}
	for i := p.Item; i < p.Item+p.Count; i++ {
		g.again.remove(i)
		a := active{worker: worker, attempt: g.base + 1, since: m.now}
		if h := g.past[i]; h != nil {
			h.attempts++
			a.attempt = h.attempts
		}
		g.active[i] = a
		g.most = max(g.most, a.attempt)
		if n.tmpl.Timeout > 0 {
			m.timers.add(timer{at: m.now + n.tmpl.Timeout.Milliseconds(), what: timerAttempt, node: n.id, item: i, attempt: a.attempt})
		}
	}
	if !n.each {
		n.worker = worker
	}
	m.counts.Active += int(p.Count)
	if n.served {
		m.counts.Serving++
	}
	if d := n.dagAbove(); d != nil {
		d.live += int(p.Count)
	}
}

// Holds reports whether the attempt is the one that is held, by whom, and
// whether it was told to end.
func (m *Machine) Holds(node, item, attempt uint32) (worker string, stop, ok bool) {
	n := m.nodes[node]
	if n == nil || n.group == nil {
		return "", false, false
	}
	a, ok := n.group.active[item]
	if !ok || a.attempt != attempt {
		return "", false, false
	}
	return a.worker, a.stop, true
}

// Leases calls f with everything that is held.
func (m *Machine) Leases(f func(l Lease, worker string)) {
	for _, n := range m.nodes {
		if n.group == nil {
			continue
		}
		for i, a := range n.group.active {
			f(Lease{Ref{n.id, i}, a.attempt}, a.worker)
		}
	}
}

// release takes a task from its worker.
func (m *Machine) release(n *node, item uint32) {
	delete(n.group.active, item)
	m.counts.Active--
	if n.served {
		m.counts.Serving--
	}
	if d := n.dagAbove(); d != nil {
		d.live--
	}
}

// offer has an item be granted again.
func (m *Machine) offer(n *node, i uint32) {
	g := n.group
	if g.stopping {
		m.settle(n, i, Canceled, nil)
		return
	}
	g.again.add(i)
	m.enlist(n)
}

// enlist puts a node with tasks to grant where they are looked for. Those that
// began first are served first.
func (m *Machine) enlist(n *node) {
	at, found := slices.BinarySearchFunc(m.ready, n.id, func(a *node, id uint32) int { return int(a.id) - int(id) })
	if !found {
		m.ready = slices.Insert(m.ready, at, n)
	}
}

// settle says how an item ended for good.
func (m *Machine) settle(n *node, i uint32, p Phase, h *past) {
	g := n.group
	delete(g.past, i)
	if n.served { // it has done what it was for, however it ends
		g.good.add(i)
		m.counts.Succeeded++
		if h != nil {
			n.message = h.message
		}
		return
	}
	switch p {
	case Failed:
		g.bad.add(i)
		m.counts.Failed++
	case Errored:
		g.wrong.add(i)
		m.counts.Failed++
	case Skipped:
		g.skipped.add(i)
		m.counts.Skipped++
	default:
		g.canceled.add(i)
		m.counts.Canceled++
	}
	if (p == Failed || p == Errored) && h != nil {
		if len(g.detail) < details {
			g.detail[i] = h
		}
		if !n.each {
			n.message = h.message
		}
		if n.each && n.failFast() && !g.stopping {
			m.haltGroup(n)
		}
	}
}

// failFast reports whether the first item that fails ends the fan-out.
func (n *node) failFast() bool {
	return n.role == roleCall && n.parent.tmpl.FailFast && !n.call.AllowFailed
}

// haltGroup lets nothing new begin.
func (m *Machine) haltGroup(n *node) {
	g := n.group
	g.stopping = true
	for _, i := range slices.Sorted(maps.Keys(g.past)) {
		if h := g.past[i]; h.resting {
			h.resting = false
			g.resting--
			m.settle(n, i, Canceled, nil)
		}
	}
	for g.again.n > 0 {
		i := g.again.spans[0].from
		g.again.remove(i)
		m.settle(n, i, Canceled, nil)
	}
}

// stopGroup ends what goes on, too.
func (m *Machine) stopGroup(n *node) {
	m.haltGroup(n)
	g := n.group
	for _, i := range slices.Sorted(maps.Keys(g.active)) {
		a := g.active[i]
		a.stop = true
		g.active[i] = a
		m.effects = append(m.effects, Stop{n.id, i, a.attempt})
	}
	m.groupDone(n)
}

// expire ends an attempt whose time is up.
func (m *Machine) expire(n *node, t timer) {
	if n.group == nil {
		return
	}
	if a, ok := n.group.active[t.item]; ok && a.attempt == t.attempt && !a.stop {
		a.stop, a.expired = true, true
		n.group.active[t.item] = a
		m.effects = append(m.effects, Stop{n.id, t.item, a.attempt})
	}
}

// judged takes what rendering a task said.
func (m *Machine) judged(v Verdict) {
	n := m.nodes[v.Node]
	if n == nil || n.group == nil {
		return
	}
	for i := range v.Count {
		item := v.Item + i
		a, ok := n.group.active[item]
		if !ok {
			continue
		}
		m.release(n, item)
		if v.Error == "" {
			m.settle(n, item, Skipped, nil)
			continue
		}
		h := n.group.history(item, a)
		h.phase, h.exit, h.message, h.began, h.ended = Errored, -1, v.Error, a.since, m.now
		if !n.each {
			n.exit = -1
		}
		m.settle(n, item, Errored, h)
	}
	m.groupDone(n)
}

// groupDone ends the node when all its tasks have.
func (m *Machine) groupDone(n *node) {
	g := n.group
	if n.stage != stageRunning || len(g.active) > 0 || g.resting > 0 {
		return
	}
	if g.done() < int(g.n) && !g.stopping {
		return
	}
	p, why := Succeeded, ""
	switch {
	case g.wrong.n > 0:
		p = Errored
	case g.bad.n > 0:
		p = Failed
	case n.stopping && g.good.n+g.skipped.n < int(g.n): // it may have been through already
		p = Canceled
	case !n.each && g.skipped.n > 0:
		p = Skipped
	}
	switch {
	case !n.each || n.stopping && n.message != "":
		why = n.message
	case p == Failed || p == Errored:
		why = fmt.Sprintf("%d of %d items failed", g.bad.n+g.wrong.n, g.n)
		if g.stopping {
			why += fmt.Sprintf(", %d were not begun", g.rest())
		}
	}
	if p == Succeeded && n.each {
		if g.kept > 0 {
			n.stage = stageGathering
			m.effects = append(m.effects, Gather{n.id})
			return
		}
		n.outputs = nothing(n.tmpl)
	}
	m.finish(n, p, why)
}
