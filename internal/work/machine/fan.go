package machine

import (
	"fmt"
	"maps"
	"slices"

	"cairn.dev/cairn/internal/workflow"
)

// list is the items of a fan-out: a reference to where they are, or they
// themselves, or numbers that follow from each other.
type list struct {
	n     uint32
	ref   string
	items []workflow.Value
	seq   *sequence
}

// sequence is numbers as items.
type sequence struct {
	start, step int64
	format      string
}

// fan is a fan-out whose items are nodes. Those that went well are forgotten.
type fan struct {
	next     uint32 // items from here on have no node yet
	asked    uint32 // and from here on nobody asked for them
	live     int
	children map[uint32]*node

	good, bad, skipped, canceled ranges
	kept                         int
	stopping                     bool
}

func (f *fan) done() int { return f.good.n + f.bad.n + f.skipped.n + f.canceled.n }

// enumerate asks for the items of a fan-out.
func (m *Machine) enumerate(n *node) {
	n.stage = stageListing
	if n.call.Each.Count != nil {
		l, err := m.count(n)
		if err != nil {
			m.finish(n, Errored, err.Error())
			return
		}
		m.spread(n, l)
		return
	}
	e, err := m.listRequest(n)
	if err != nil {
		m.finish(n, Errored, err.Error())
		return
	}
	m.effects = append(m.effects, e)
}

func (m *Machine) listRequest(n *node) (e List, err error) {
	each := n.call.Each
	s := m.caller(n.parent, n.call, nil, false)
	e.Node = n.id
	switch {
	case each.Source == nil:
		e.Value, err = each.Items.Eval(s)
	case each.Source.S3 != nil:
		e.S3, err = each.Source.S3.Eval(s)
		e.Match = each.Source.Match
	default:
		e.Files, err = each.Source.Files.Eval(s)
		e.Match = each.Source.Match
	}
	if err != nil {
		return e, fmt.Errorf("items: %w", err)
	}
	return e, nil
}

// count makes the list of a sequence.
func (m *Machine) count(n *node) (list, error) {
	c := n.call.Each.Count
	s := m.caller(n.parent, n.call, nil, false)
	read := func(e workflow.Expr, or float64) (int64, error) {
		if e == nil {
			return int64(or), nil
		}
		f, err := number(e, s)
		if err != nil || f != float64(int64(f)) || f > 1<<53 || f < -1<<53 {
			return 0, fmt.Errorf("a sequence is of whole numbers, %s is none (%v)", e, err)
		}
		return int64(f), nil
	}
	start, err := read(c.Start, 0)
	if err != nil {
		return list{}, err
	}
	l := list{seq: &sequence{start: start, step: 1, format: c.Format}}
	var size int64
	if c.Count != nil {
		if size, err = read(c.Count, 0); err != nil {
			return list{}, err
		}
	} else {
		end, err := read(c.End, 0)
		if err != nil {
			return list{}, err
		}
		if size = end - start + 1; end < start {
			size, l.seq.step = start-end+1, -1
		}
	}
	if size < 0 || size > MaxItems {
		return list{}, fmt.Errorf("a sequence of %d items: it has between 0 and %d", size, MaxItems)
	}
	l.n = uint32(size)
	return l, nil
}

func (m *Machine) listed(e Listed) {
	n := m.nodes[e.Node]
	if n == nil || n.stage != stageListing {
		return
	}
	if e.Error != "" || e.N > MaxItems {
		if e.Error == "" {
			e.Error = fmt.Sprintf("there are %d, at most %d can be", e.N, MaxItems)
		}
		m.finish(n, Errored, "items: "+e.Error)
		return
	}
	m.spread(n, list{n: e.N, ref: e.Ref, items: e.Items})
}

// spread begins a fan-out over items that are known.
func (m *Machine) spread(n *node, l list) {
	n.list = &l
	if l.n == 0 {
		n.outputs = nothing(n.tmpl)
		m.finish(n, Skipped, "there are no items")
		return
	}
	n.stage = stageRunning
	if n.kind == kindLeaf {
		n.group = newGroup(l.n)
		m.counts.Total += int(l.n)
		m.enlist(n)
		return
	}
	n.fan = &fan{children: map[uint32]*node{}}
	m.widen(n)
}

// value is the item, if it is known without asking.
func (l *list) value(i uint32) (workflow.Value, bool) {
	switch {
	case l.seq != nil:
		v := l.seq.start + l.seq.step*int64(i)
		if l.seq.format != "" {
			return fmt.Sprintf(l.seq.format, v), true
		}
		return float64(v), true
	case l.ref == "" && int(i) < len(l.items):
		return l.items[i], true
	}
	return nil, l.ref == ""
}

// width is how many items of the fan-out exist at a time.
func (n *node) width() int {
	w := window
	if p := n.call.Each.Parallelism; p > 0 {
		w = min(w, p)
	}
	return w
}

// widen begins items as long as there is room.
func (m *Machine) widen(n *node) {
	f := n.fan
	for n.fan == f && n.stage == stageRunning && !f.stopping && f.live < n.width() && f.next < n.list.n {
		v, known := n.list.value(f.next)
		if !known {
			m.ask(n)
			break
		}
		m.item(n, v)
	}
	if n.fan == f {
		m.fanDone(n)
	}
}

// ask wants the items that come next, unless they were asked for.
func (m *Machine) ask(n *node) {
	f := n.fan
	if f.asked > f.next {
		return
	}
	e := m.fetchRequest(n)
	f.asked = f.next + e.Count
	m.effects = append(m.effects, e)
}

func (m *Machine) fetchRequest(n *node) Fetch {
	return Fetch{Node: n.id, From: n.fan.next, Count: min(uint32(n.width()), n.list.n-n.fan.next), Ref: n.list.ref}
}

func (m *Machine) fetched(e Fetched) {
	n := m.nodes[e.Node]
	if n == nil || n.stage != stageRunning || n.fan == nil || n.fan.stopping || e.From != n.fan.next {
		return
	}
	f := n.fan
	for _, v := range e.Items {
		if n.fan != f || f.stopping || f.next == n.list.n {
			break
		}
		m.item(n, v)
	}
	if n.fan == f {
		f.asked = f.next
		m.widen(n)
	}
}

// item begins the next one.
func (m *Machine) item(n *node, v workflow.Value) {
	f := n.fan
	i := f.next
	f.next++
	if n.call.When != nil {
		yes, err := truth(n.call.When, m.caller(n.parent, n.call, v, true))
		if err == nil && !yes {
			f.skipped.add(i)
			return
		}
		if err != nil {
			x := m.newItem(n, i, v)
			m.finish(x, Errored, "when: "+err.Error())
			return
		}
	}
	m.open(m.newItem(n, i, v))
}

func (m *Machine) newItem(n *node, i uint32, v workflow.Value) *node {
	x := m.add(n, roleItem, -1, int(i), n.name)
	x.value = v
	n.fan.children[i] = x
	n.fan.live++
	return x
}

// itemEnded goes on after an item that was a node.
func (m *Machine) itemEnded(n, x *node) {
	f, i := n.fan, uint32(x.item)
	f.live--
	switch x.phase {
	case Succeeded, Skipped:
		f.good.add(i)
		if len(x.outputs) > 0 {
			f.kept++
			m.effects = append(m.effects, Keep{Node: n.id, Item: i, Outputs: x.outputs})
		}
		delete(f.children, i)
		m.drop(x)
	case Canceled:
		f.canceled.add(i)
	default:
		f.bad.add(i)
		if n.failFast() {
			f.stopping = true
		}
	}
	m.widen(n)
}

// stopFan ends the items that exist, and begins no more.
func (m *Machine) stopFan(n *node, why string) {
	f := n.fan
	f.stopping = true
	for _, i := range slices.Sorted(maps.Keys(f.children)) {
		if c := f.children[i]; c != nil {
			m.stop(c, why)
		}
	}
	m.fanDone(n)
}

func (m *Machine) fanDone(n *node) {
	f := n.fan
	if n.stage != stageRunning || f.live > 0 || f.done() < int(n.list.n) && !f.stopping {
		return
	}
	switch {
	case f.bad.n > 0:
		m.finish(n, m.worst(f), fmt.Sprintf("%d of %d items failed", f.bad.n, n.list.n))
	case n.stopping || f.canceled.n > 0:
		m.finish(n, Canceled, n.message)
	case f.kept > 0:
		n.stage = stageGathering
		m.effects = append(m.effects, Gather{n.id})
	default:
		n.outputs = nothing(n.tmpl)
		m.finish(n, Succeeded, "")
	}
}

// nothing is the outputs of no items: a list of nothing each.
func nothing(t *workflow.Template) map[string]workflow.Value {
	if t == nil || len(t.Outputs) == 0 {
		return nil
	}
	all, params, files := map[string]workflow.Value{}, map[string]any{}, map[string]any{}
	for i := range t.Outputs {
		switch o := &t.Outputs[i]; {
		case o.Result:
			all["result"] = []any{}
		case o.Artifact:
			files[o.Name] = []any{}
			all["artifacts"] = files
		default:
			params[o.Name] = []any{}
			all["parameters"] = params
		}
	}
	return all
}

// worst is how the items ended that did not go well.
func (m *Machine) worst(f *fan) Phase {
	p := Failed
	for _, c := range f.children {
		if c.phase == Errored {
			p = Errored
		}
	}
	return p
}

func (m *Machine) gathered(e Gathered) {
	n := m.nodes[e.Node]
	if n == nil || n.stage != stageGathering {
		return
	}
	if e.Error != "" {
		m.finish(n, Errored, "outputs of the items: "+e.Error)
		return
	}
	n.outputs = e.Outputs
	m.finish(n, Succeeded, "")
}
