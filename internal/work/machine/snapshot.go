package machine

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"

	"cairn.dev/cairn/internal/workflow"
)

// snapshotVersion is the first byte of every snapshot. One of version 1 knows no
// daemons.
const snapshotVersion = 2

// Snapshot is the whole state, so that the events before it can be forgotten.
func (m *Machine) Snapshot() []byte {
	w := &writer{}
	w.byte(snapshotVersion)
	w.bool(m.begun)
	for _, s := range []string{m.id, m.name, m.namespace, m.by, m.message, m.why} {
		w.string(s)
	}
	w.dict(m.args)
	w.dict(m.globals)
	for _, v := range []int64{m.scheduled, m.now, m.started, m.ended} {
		w.int(v)
	}
	w.byte(byte(m.phase))
	w.byte(byte(m.cause))
	w.bool(m.paused)
	w.bool(m.skipExit)
	w.uint(uint64(m.last))
	w.uint(uint64(m.openHooks))
	w.bools(m.hooksFired)
	for _, v := range m.counts.fields() {
		w.uint(uint64(*v))
	}
	w.uint(uint64(len(m.isolation)))
	for _, k := range slices.Sorted(maps.Keys(m.isolation)) {
		w.string(k)
		w.uint(uint64(m.isolation[k]))
	}
	w.uint(uint64(len(m.timers)))
	sorted := slices.Clone(m.timers)
	sort.Sort(sorted)
	for _, t := range sorted {
		w.int(t.at)
		w.byte(t.what)
		w.uint(uint64(t.node))
		w.uint(uint64(t.item))
		w.uint(uint64(t.attempt))
	}
	w.uint(uint64(len(m.nodes)))
	for _, n := range m.sorted() {
		w.node(n)
	}
	return w.b
}

func (c *Counts) fields() []*int {
	return []*int{&c.Total, &c.Active, &c.Succeeded, &c.Failed, &c.Skipped, &c.Retries, &c.Crashes, &c.Serving, &c.Canceled}
}

func (w *writer) bools(v []bool) {
	w.uint(uint64(len(v)))
	for _, b := range v {
		w.bool(b)
	}
}

func (w *writer) node(n *node) {
	w.uint(uint64(n.id))
	if n.parent == nil {
		w.uint(0)
	} else {
		w.uint(uint64(n.parent.id))
	}
	w.byte(byte(n.role))
	w.int(int64(n.index))
	w.int(int64(n.item))
	w.string(n.name)
	w.byte(byte(n.kind))
	w.byte(byte(n.stage))
	w.byte(byte(n.phase))
	for _, b := range []bool{n.each, n.stopping, n.expired, n.hit, n.slot} {
		w.bool(b)
	}
	w.bool(n.served)
	w.string(n.address)
	w.string(n.message)
	w.string(n.worker)
	w.string(n.key)
	for _, v := range []int64{n.started, n.ended, int64(n.exit), int64(n.attempt), int64(n.open)} {
		w.int(v)
	}
	w.value(n.value)
	w.dict(n.inputs)
	w.dict(n.files)
	w.dict(n.outputs)
	w.uint(uint64(len(n.locks)))
	for _, l := range n.locks {
		w.string(l.namespace)
		w.string(l.name)
		w.uint(uint64(l.size))
		w.bool(l.held)
	}
	w.bool(n.hooks != nil)
	w.bools(n.hooks)
	w.bool(n.list != nil)
	if l := n.list; l != nil {
		w.uint(uint64(l.n))
		w.string(l.ref)
		w.list(l.items)
		w.bool(l.seq != nil)
		if l.seq != nil {
			w.int(l.seq.start)
			w.int(l.seq.step)
			w.string(l.seq.format)
		}
	}
	w.bool(n.dag != nil)
	if d := n.dag; d != nil {
		w.uint(uint64(len(d.states)))
		for i, s := range d.states {
			w.byte(byte(s))
			w.int(int64(d.left[i]))
		}
		w.uint(uint64(len(d.queue)))
		for _, i := range d.queue {
			w.uint(uint64(i))
		}
		w.uint(uint64(d.ended))
		w.uint(uint64(d.live))
		w.bool(d.stopping)
		w.string(d.targets)
	}
	w.bool(n.group != nil)
	if n.group != nil {
		w.group(n.group)
	}
	w.bool(n.fan != nil)
	if f := n.fan; f != nil {
		for _, v := range []uint32{f.next, f.asked, uint32(f.live), uint32(f.kept)} {
			w.uint(uint64(v))
		}
		w.bool(f.stopping)
		for _, s := range []*ranges{&f.good, &f.bad, &f.skipped, &f.canceled} {
			w.ranges(s)
		}
	}
}

func (w *writer) group(g *group) {
	for _, v := range []uint32{g.n, g.next, g.base, g.most, uint32(g.kept), uint32(g.resting)} {
		w.uint(uint64(v))
	}
	w.bool(g.stopping)
	for _, s := range []*ranges{&g.again, &g.good, &g.bad, &g.wrong, &g.skipped, &g.canceled} {
		w.ranges(s)
	}
	w.uint(uint64(len(g.active)))
	for _, i := range slices.Sorted(maps.Keys(g.active)) {
		a := g.active[i]
		w.uint(uint64(i))
		w.string(a.worker)
		w.uint(uint64(a.attempt))
		w.int(a.since)
		w.bool(a.stop)
		w.bool(a.expired)
	}
	w.pasts(g.past)
	w.pasts(g.detail)
}

func (w *writer) pasts(m map[uint32]*past) {
	w.uint(uint64(len(m)))
	for _, i := range slices.Sorted(maps.Keys(m)) {
		h := m[i]
		w.uint(uint64(i))
		for _, v := range []uint32{h.attempts, h.retries, h.crashes} {
			w.uint(uint64(v))
		}
		w.bool(h.resting)
		w.byte(byte(h.phase))
		w.string(h.message)
		for _, v := range []int64{h.first, int64(h.exit), h.began, h.ended} {
			w.int(v)
		}
	}
}

// Restore reads a snapshot of a run of g.
func Restore(g *workflow.Graph, b []byte) (*Machine, error) {
	r := &reader{b: b}
	version := r.byte()
	if r.err == nil && (version < 1 || version > snapshotVersion) {
		return nil, fmt.Errorf("a snapshot of version %d, this Cairn knows %d: a newer one wrote it", version, snapshotVersion)
	}
	m := New(g)
	m.read(r, version)
	if r.err == nil && len(r.b) > 0 {
		r.fail(errors.New("there are bytes after its end"))
	}
	if r.err == nil {
		r.err = m.connect()
	}
	if r.err != nil {
		return nil, fmt.Errorf("read a snapshot of %d bytes: %w", len(b), r.err)
	}
	return m, nil
}

func (m *Machine) read(r *reader, version byte) {
	m.begun = r.bool()
	for _, s := range []*string{&m.id, &m.name, &m.namespace, &m.by, &m.message, &m.why} {
		*s = r.string()
	}
	m.args = r.dict()
	if m.globals = r.dict(); m.globals == nil {
		m.globals = map[string]workflow.Value{}
	}
	for _, v := range []*int64{&m.scheduled, &m.now, &m.started, &m.ended} {
		*v = r.int()
	}
	m.phase, m.cause = Phase(r.byte()), Phase(r.byte())
	m.paused, m.skipExit = r.bool(), r.bool()
	m.last, m.openHooks = r.num(), int(r.num())
	if m.hooksFired = r.bools(); r.err == nil && len(m.hooksFired) != len(m.graph.Hooks) {
		r.fail(errors.New("its hooks are those of another workflow"))
	}
	for _, v := range m.counts.fields() {
		if v != &m.counts.Serving && v != &m.counts.Canceled || version > 1 {
			*v = int(r.num())
		}
	}
	for range r.count() {
		k := r.string()
		m.isolation[k] = int(r.num())
	}
	for range r.count() {
		m.timers.add(timer{at: r.int(), what: r.byte(), node: r.num(), item: r.num(), attempt: r.num()})
	}
	for range r.count() {
		m.node(r, version)
		if r.err != nil {
			return
		}
	}
	if version == 1 {
		m.countCanceled()
	}
}

// countCanceled counts what a snapshot of version 1 counts among the skipped,
// or not at all.
func (m *Machine) countCanceled() {
	for _, n := range m.nodes {
		if n.group == nil {
			continue
		}
		m.counts.Skipped -= n.group.canceled.n
		m.counts.Canceled += n.group.canceled.n
		if n.stage >= stageLeaving {
			m.counts.Canceled += n.group.rest()
		}
	}
}

func (r *reader) bools() (v []bool) {
	for range r.count() {
		v = append(v, r.bool())
	}
	return v
}

// node reads one, whose parent was read before it.
func (m *Machine) node(r *reader, version byte) {
	n := &node{id: r.num()}
	if p := r.num(); p != 0 {
		if n.parent = m.nodes[p]; n.parent == nil {
			r.fail(fmt.Errorf("node %d is below %d, which is not there", n.id, p))
			return
		}
	}
	n.role, n.index, n.item = role(r.byte()), int(r.int()), int(r.int())
	n.name = r.string()
	n.kind, n.stage, n.phase = kind(r.byte()), stage(r.byte()), Phase(r.byte())
	n.depth = 1
	for _, b := range []*bool{&n.each, &n.stopping, &n.expired, &n.hit, &n.slot} {
		*b = r.bool()
	}
	if version > 1 {
		n.served, n.address = r.bool(), r.string()
	}
	n.message, n.worker, n.key = r.string(), r.string(), r.string()
	n.started, n.ended = r.int(), r.int()
	n.exit, n.attempt, n.open = int(int32(r.int())), uint32(r.int()), int(int32(r.int()))
	n.value = r.value()
	n.inputs, n.files, n.outputs = r.dict(), r.dict(), r.dict()
	for range r.count() {
		n.locks = append(n.locks, lock{r.string(), r.string(), int(r.num()), r.bool()})
	}
	if hooked := r.bool(); hooked {
		n.hooks = r.bools()
	} else {
		r.bools()
	}
	if r.bool() {
		n.list = &list{n: r.num(), ref: r.string(), items: r.list()}
		if r.bool() {
			n.list.seq = &sequence{r.int(), r.int(), r.string()}
		}
	}
	if r.bool() {
		n.dag = &dag{}
		for range r.count() {
			n.dag.states = append(n.dag.states, Phase(r.byte()))
			n.dag.left = append(n.dag.left, int(int32(r.int())))
		}
		for range r.count() {
			n.dag.queue = append(n.dag.queue, int(r.num()))
		}
		n.dag.ended, n.dag.live, n.dag.stopping = int(r.num()), int(r.num()), r.bool()
		n.dag.targets = r.string()
	}
	if r.bool() {
		n.group = r.group()
	}
	if r.bool() {
		n.fan = &fan{next: r.num(), asked: r.num(), live: int(r.num()), kept: int(r.num()), stopping: r.bool(), children: map[uint32]*node{}}
		for _, s := range []*ranges{&n.fan.good, &n.fan.bad, &n.fan.skipped, &n.fan.canceled} {
			*s = r.ranges()
		}
	}
	if r.err == nil {
		if err := m.place(n); err != nil {
			r.fail(fmt.Errorf("node %d: %w", n.id, err))
		}
	}
}

func (r *reader) group() *group {
	g := newGroup(r.num())
	g.next, g.base, g.most, g.kept, g.resting = r.num(), r.num(), r.num(), int(r.num()), int(r.num())
	g.stopping = r.bool()
	for _, s := range []*ranges{&g.again, &g.good, &g.bad, &g.wrong, &g.skipped, &g.canceled} {
		*s = r.ranges()
	}
	for range r.count() {
		i := r.num()
		g.active[i] = active{worker: r.string(), attempt: r.num(), since: r.int(), stop: r.bool(), expired: r.bool()}
	}
	g.past, g.detail = r.pasts(), r.pasts()
	if r.err == nil && g.next > g.n {
		r.fail(errors.New("more items were given out than there are"))
	}
	return g
}

func (r *reader) pasts() map[uint32]*past {
	m := map[uint32]*past{}
	for range r.count() {
		i := r.num()
		h := &past{attempts: r.num(), retries: r.num(), crashes: r.num(), resting: r.bool(), phase: Phase(r.byte()), message: r.string(), first: r.int()}
		h.exit, h.began, h.ended = int(int32(r.int())), r.int(), r.int()
		m[i] = h
	}
	return m
}

// errGraph says that the graph and the snapshot are not of one workflow.
var errGraph = errors.New("its place is not in the workflow: was the workflow compiled from other documents, or by another version?")

// place puts a node that was read where it belongs, and checks that it fits.
func (m *Machine) place(n *node) error {
	p := n.parent
	switch n.role {
	case roleRoot:
		if p != nil || m.root != nil {
			return errGraph
		}
		m.root = n
	case roleCall:
		if p == nil || p.dag == nil || p.tmpl == nil || p.tmpl.DAG == nil || n.index < 0 || n.index >= len(p.tmpl.DAG.Calls) || len(p.dag.states) != len(p.tmpl.DAG.Calls) {
			return errGraph
		}
		p.dag.children[n.index] = n
	case roleItem:
		if p == nil || p.fan == nil || p.call == nil || n.item < 0 || n.item > math.MaxUint32 {
			return errGraph
		}
		p.fan.children[uint32(n.item)] = n
	case roleExit, roleHook:
		hooks := m.graph.Hooks
		if p != nil {
			if p.call == nil {
				return errGraph
			}
			hooks = p.call.Hooks
			p.extras = append(p.extras, n)
		} else if n.role == roleExit {
			m.exit = n
		}
		if n.role == roleHook && (n.index < 0 || n.index >= len(hooks)) {
			return errGraph
		}
	default:
		return errGraph
	}
	m.tie(n)
	switch {
	case n.tmpl == nil && n.stage < stageLeaving:
		return fmt.Errorf("there is no template %q: %w", n.name, errGraph)
	case n.each && (n.call == nil || n.call.Each == nil),
		n.hooks != nil && (n.call == nil || len(n.hooks) != len(n.call.Hooks)),
		n.group != nil && (n.tmpl == nil || n.tmpl.Leaf == nil || n.each && n.list == nil),
		n.fan != nil && (!n.each || n.list == nil || n.tmpl == nil),
		n.key != "" && (n.tmpl == nil || n.tmpl.Memo == nil),
		n.kind == kindSuspend && n.stage == stageRunning && n.tmpl.Suspend == nil:
		return errGraph
	}
	if n.dag != nil {
		if n.tmpl == nil || n.tmpl.DAG == nil || len(n.tmpl.DAG.Calls) != len(n.dag.states) {
			return errGraph
		}
		n.dag.plan = m.planOf(n.tmpl.DAG, n.dag.targets)
		n.dag.children = make([]*node, len(n.dag.states))
		for _, i := range n.dag.queue {
			if i < 0 || i >= len(n.dag.states) {
				return errGraph
			}
		}
	}
	return nil
}

// connect works out what follows from the nodes.
func (m *Machine) connect() error {
	if m.begun && m.root == nil {
		return errors.New("it has no root")
	}
	for _, n := range m.sorted() {
		if n.group != nil && n.stage == stageRunning && (n.group.again.n > 0 || n.group.next < n.group.n) {
			m.enlist(n)
		}
		if n.stage != stageEnded && slices.Contains(n.hooks, false) {
			m.hooked = append(m.hooked, n)
		}
	}
	return nil
}
