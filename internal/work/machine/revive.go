package machine

import (
	"maps"
	"slices"
)

// retryFailed begins what failed of an ended run again. What went well stays.
func (m *Machine) retryFailed() {
	m.ended, m.phase, m.message, m.cause, m.why, m.skipExit = 0, Running, "", Waiting, "", false
	m.paused = false
	for _, n := range m.sorted() {
		if n.parent == nil && n != m.root && m.nodes[n.id] == n {
			m.drop(n)
		}
	}
	m.exit = nil
	m.openHooks = 0
	clear(m.hooksFired)
	m.timers = nil
	m.revive(m.root)
}

// revive has a node go on that failed, and below it what failed.
func (m *Machine) revive(n *node) {
	for _, x := range n.extras {
		m.drop(x)
	}
	n.extras, n.open = nil, 0
	clear(n.hooks)
	if n.hooks != nil {
		m.hooked = append(m.hooked, n)
	}
	n.stage, n.phase, n.message, n.ended, n.stopping, n.expired = stageRunning, Running, "", 0, false, false
	switch {
	case n.group != nil:
		m.reviveGroup(n)
		if n.each {
			m.enlist(n)
			m.groupDone(n)
			return
		}
		m.acquire(n)
	case n.dag != nil:
		n.stage = stageLocking
		if len(n.locks) > 0 { // its calls wait until it has them again
			m.dropCalls(n)
			m.acquire(n)
			return
		}
		n.stage = stageRunning
		m.reviveDAG(n)
	case n.fan != nil:
		m.reviveFan(n)
	default: // it had not begun
		n.hooks = nil
		m.open(n)
	}
}

func (m *Machine) reviveGroup(n *node) {
	g := n.group
	g.stopping = false
	m.counts.Failed -= g.bad.n + g.wrong.n
	m.counts.Canceled -= g.canceled.n + g.rest()
	for _, set := range []*ranges{&g.bad, &g.wrong, &g.canceled} {
		for _, s := range set.spans {
			for i := s.from; i < s.to; i++ {
				g.again.add(i)
			}
		}
		*set = ranges{}
	}
	clear(g.detail)
	// Attempts are numbered on, or an old token would fit again.
	g.base = g.most
}

func (m *Machine) reviveDAG(n *node) {
	d := n.dag
	d.stopping, d.queue, d.live = false, nil, 0
	var again []int
	for i, p := range d.states {
		switch {
		case d.gone(i):
			m.drop(d.children[i])
			d.children[i], d.states[i] = nil, Waiting
		case p == Omitted && d.plan.wanted[i]:
			d.states[i] = Waiting
		case p == Failed || p == Errored || p == Canceled:
			d.states[i] = Running
			again = append(again, i)
		}
	}
	d.ended = 0
	for i, p := range d.states {
		if p.Ended() {
			d.ended++
		}
		d.left[i] = 0
		for _, k := range d.plan.needs[i] {
			if !d.states[k].Ended() {
				d.left[i]++
			}
		}
	}
	for _, i := range again {
		if n.dag != d || d.states[i] != Running { // those before may have ended the DAG, or this
			continue
		}
		if d.left[i] > 0 { // until what it needs is there again
			d.states[i] = Waiting
			continue
		}
		if most := n.tmpl.Parallelism; m.holds(n, i) && most > 0 && d.live >= most {
			d.states[i] = Waiting
			d.queue, d.left[i] = append(d.queue, i), -1
			continue
		}
		m.start(n, i)
	}
	for i := range d.states {
		if n.dag == d && d.states[i] == Waiting && d.left[i] == 0 {
			m.decide(n, i)
		}
	}
	if n.dag == d {
		m.dagDone(n, d)
	}
}

func (m *Machine) reviveFan(n *node) {
	f := n.fan
	f.stopping = false
	f.bad, f.canceled = ranges{}, ranges{}
	f.asked = f.next
	again := slices.Sorted(maps.Keys(f.children))
	f.live += len(again)
	for _, i := range again {
		m.revive(f.children[i])
	}
	if n.fan == f {
		m.widen(n)
	}
}
