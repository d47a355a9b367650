package machine

import (
	"maps"
	"slices"
)

// working is how many tasks count against a bound of the run. Daemons that
// serve do not: those that wait for them could never begin.
func (c *Counts) working() int { return c.Active - c.Serving }

// serves notes that a daemon is ready: those that wait for it go on.
func (m *Machine) serves(e Serving) {
	n := m.nodes[e.Node]
	if n == nil || n.group == nil || n.each || !n.tmpl.Daemon {
		return
	}
	a, held := n.group.active[e.Item]
	if !held || a.attempt != e.Attempt {
		return
	}
	n.address = e.Address
	if n.served || a.stop { // said again, or nobody waits any more
		return
	}
	if d := n.dagAbove(); d != nil {
		d.live--
	}
	n.served = true
	m.counts.Serving++
	switch {
	case n.role == roleCall:
		m.callIs(n.parent, n.index, Succeeded)
	case n.role == roleItem:
		m.itemServes(n.parent, n)
	default: // there is nobody whom it could serve
		m.stop(n, "nothing needs it")
	}
}

// itemServes goes on after an item that serves. It stays below the fan-out, which
// may end before it.
func (m *Machine) itemServes(n, x *node) {
	n.fan.live--
	n.fan.good.add(uint32(x.item))
	m.widen(n)
}

// serving reports whether others have gone on and the daemon has not ended.
func (n *node) serving() bool { return n.served && n.stage < stageLeaving }

// serving reports whether the call is of a daemon that serves.
func (d *dag) serving(i int) bool { return d.children[i] != nil && d.children[i].serving() }

// gone reports whether the call is of daemons that served, and ended with the DAG:
// who goes on after all needs them again.
func (d *dag) gone(i int) bool {
	c := d.children[i]
	return c != nil && c.tmpl != nil && c.tmpl.Daemon && (c.each || d.states[i] == Succeeded)
}

// daemons are the daemons of a DAG that others went on for and that have not
// ended, in the order of their calls.
func (d *dag) daemons() (out []*node) {
	for _, c := range d.children {
		if c == nil {
			continue
		}
		all := []*node{c}
		if c.fan != nil {
			for _, i := range slices.Sorted(maps.Keys(c.fan.children)) {
				all = append(all, c.fan.children[i])
			}
		}
		for _, x := range all {
			if x.served && x.stage != stageEnded {
				out = append(out, x)
			}
		}
	}
	return out
}

// dismiss ends the daemons of a DAG, and reports whether there are any left: the
// last one that ends says so to the DAG.
func (m *Machine) dismiss(d *dag, why string) (left bool) {
	for _, x := range d.daemons() {
		if x.stage != stageLeaving {
			m.stop(x, why)
		}
		left = left || x.stage != stageEnded
	}
	return left
}

// dismissed goes on after a daemon that served has ended.
func (m *Machine) dismissed(x *node) {
	n := x.parent
	if x.role == roleItem {
		delete(n.fan.children, uint32(x.item))
		m.drop(x)
		n = n.parent
	}
	m.dagDone(n, n.dag)
}
