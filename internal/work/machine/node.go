package machine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/workflow"
)

// What a node is.
type kind byte

const (
	kindLeaf    kind = iota // one task, or a fan-out over tasks
	kindDAG                 // calls
	kindSuspend             // waits
	kindFan                 // a fan-out over anything else: its items are nodes
)

// What a node is to its parent.
type role byte

const (
	roleRoot role = iota // the entry
	roleCall             // a call of the parent's DAG
	roleItem             // an item of the parent
	roleExit             // what runs when the parent, or the run, has ended
	roleHook             // what a hook of the parent, or of the run, called
)

// How far a node is.
type stage byte

const (
	stageLocking   stage = iota // waits for a lock
	stageRecalling              // asks whether its outputs are remembered
	stageListing                // asks for its items
	stageRunning
	stageGathering // asks for the outputs of its items
	stageResting   // a DAG that failed, before it is tried again
	stageLeaving   // has its phase; its exit handler and hooks are not through
	stageEnded
)

// node is a box of the run: a template that was called.
type node struct {
	id     uint32
	parent *node // nil: of the run
	role   role
	index  int // of the call in the parent's DAG, or of the hook; -1: neither
	item   int // of the parent's fan-out; -1: none
	depth  int
	call   *workflow.Call // nil but for calls, and their items
	name   string         // of the template
	tmpl   *workflow.Template
	kind   kind
	each   bool // it is the fan-out itself

	stage          stage
	phase          Phase
	message        string
	started, ended int64
	exit           int
	attempt        uint32 // of a DAG: how often it was begun again
	worker         string // who ran its task last
	stopping       bool
	expired        bool // it is being stopped because its time is up
	slot           bool // it takes a place of its DAG's parallelism
	served         bool // a daemon: those that wait for it have gone on
	address        string

	value   workflow.Value            // the item
	inputs  map[string]workflow.Value // parameters
	files   map[string]workflow.Value // artifacts
	outputs map[string]workflow.Value // "result", "parameters", "artifacts"
	locks   []lock
	key     string // under which the outputs are remembered; "" if not
	hit     bool   // they were

	dag   *dag
	group *group
	fan   *fan
	list  *list

	hooks  []bool  // of the call, which have fired
	extras []*node // exit handlers and hooks
	open   int     // extras that have not ended
}

// lock is a lock that a node holds or wants.
type lock struct {
	namespace, name string
	size            int
	held            bool
}

// add makes a node. Its template is looked up when it is opened.
func (m *Machine) add(parent *node, r role, index, item int, template string) *node {
	m.last++
	n := &node{id: m.last, parent: parent, role: r, index: index, item: item, name: template, depth: 1, phase: Running, started: m.now}
	m.tie(n)
	return n
}

// tie connects a node with what follows from its place.
func (m *Machine) tie(n *node) {
	m.nodes[n.id] = n
	n.tmpl = m.graph.Templates[n.name]
	if n.parent == nil {
		return
	}
	n.depth = n.parent.depth + 1
	switch n.role {
	case roleCall:
		n.call = n.parent.tmpl.DAG.Calls[n.index]
	case roleItem:
		n.call = n.parent.call
	}
}

// hookOf is the hook that the node runs, when it runs one.
func (m *Machine) hookOf(n *node) *workflow.Hook {
	hooks := m.graph.Hooks
	if n.parent != nil {
		hooks = n.parent.call.Hooks
	}
	return &hooks[n.index]
}

// open begins a node: what it is given, then its locks, its memory, itself.
func (m *Machine) open(n *node) {
	if n.tmpl == nil {
		m.finish(n, Errored, fmt.Sprintf("there is no template %q", n.name))
		return
	}
	switch {
	case n.each:
		n.kind = kindFan
		if m.compact(n.tmpl) {
			n.kind = kindLeaf
		}
	case n.tmpl.DAG != nil:
		n.kind = kindDAG
	case n.tmpl.Suspend != nil:
		n.kind = kindSuspend
	default:
		n.kind = kindLeaf
	}
	if n.role == roleCall && len(n.call.Hooks) > 0 {
		n.hooks = make([]bool, len(n.call.Hooks))
		m.hooked = append(m.hooked, n)
	}
	switch {
	case n.depth > MaxDepth:
		m.finish(n, Errored, fmt.Sprintf("templates are nested more than %d deep: does the recursion have an end?", MaxDepth))
		return
	case len(m.nodes) > MaxNodes:
		m.finish(n, Errored, fmt.Sprintf("the run has more than %d nodes", MaxNodes))
		return
	}
	if n.each {
		m.enumerate(n)
		return
	}
	if err := m.bind(n); err != nil {
		m.finish(n, Errored, err.Error())
		return
	}
	if err := m.wish(n); err != nil {
		m.finish(n, Errored, err.Error())
		return
	}
	m.acquire(n)
}

// compact reports whether items over the template need no node each: they are
// tasks and nothing else.
func (m *Machine) compact(t *workflow.Template) bool {
	return t.Leaf != nil && len(t.Locks) == 0 && t.Memo == nil && !t.Daemon
}

// wish works out which locks and which memory the node wants.
func (m *Machine) wish(n *node) error {
	s := m.inside(n)
	all := n.tmpl.Locks
	if n.role == roleRoot {
		all = append(slices.Clone(m.graph.Locks), all...)
	}
	n.locks = nil
	for _, l := range all {
		name, err := text(l.Name, s)
		if err != nil {
			return fmt.Errorf("name of a lock: %w", err)
		}
		x := lock{namespace: l.Namespace, name: name, size: 1}
		if x.namespace == "" {
			x.namespace = m.namespace
		}
		if l.Size != nil {
			f, err := number(l.Size, s)
			if err != nil || f < 1 || f > 1<<30 {
				return fmt.Errorf("size of the semaphore %q: %s is not a number of at least 1 (%v)", name, l.Size, err)
			}
			x.size = int(f)
		}
		n.locks = append(n.locks, x)
	}
	// Everybody takes them in one order, so that nobody waits for each other.
	slices.SortFunc(n.locks, func(a, b lock) int {
		if c := strings.Compare(a.namespace, b.namespace); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	n.locks = slices.CompactFunc(n.locks, func(a, b lock) bool { return a.namespace == b.namespace && a.name == b.name })
	// What is held around it is held: it would wait for itself.
	n.locks = slices.DeleteFunc(n.locks, func(a lock) bool {
		for p := n.parent; p != nil; p = p.parent {
			if slices.ContainsFunc(p.locks, func(b lock) bool { return a.namespace == b.namespace && a.name == b.name && b.held }) {
				return true
			}
		}
		return false
	})
	if n.tmpl.Memo != nil {
		key, err := text(n.tmpl.Memo.Key, s)
		if err != nil {
			return fmt.Errorf("key of what is remembered: %w", err)
		}
		n.key = key
	}
	return nil
}

// acquire asks for the next lock, or goes on.
func (m *Machine) acquire(n *node) {
	for i := range n.locks {
		if !n.locks[i].held {
			n.stage = stageLocking
			m.effects = append(m.effects, m.lockRequest(n, i))
			return
		}
	}
	if n.key != "" && !n.hit {
		n.stage = stageRecalling
		m.effects = append(m.effects, m.recallRequest(n))
		return
	}
	m.run(n)
}

func (m *Machine) lockRequest(n *node, i int) Lock {
	l := n.locks[i]
	return Lock{Node: n.id, Lock: uint32(i), Namespace: l.namespace, Name: l.name, Size: l.size}
}

func (m *Machine) recallRequest(n *node) Recall {
	return Recall{Node: n.id, Cache: n.tmpl.Memo.Cache, Key: n.key, MaxAgeMS: n.tmpl.Memo.MaxAge.Milliseconds()}
}

func (m *Machine) locked(e Locked) {
	n := m.nodes[e.Node]
	if n == nil || int(e.Lock) >= len(n.locks) || n.locks[e.Lock].held {
		return
	}
	if n.stage != stageLocking { // it was stopped meanwhile, and has said so
		return
	}
	n.locks[e.Lock].held = true
	m.acquire(n)
}

func (m *Machine) remembered(e Remembered) {
	n := m.nodes[e.Node]
	if n == nil || n.stage != stageRecalling {
		return
	}
	if !e.Found {
		m.run(n)
		return
	}
	n.hit, n.outputs = true, e.Outputs
	if n.kind == kindLeaf {
		m.counts.Total++
		m.counts.Succeeded++
	}
	m.finish(n, Succeeded, "remembered")
}

// run begins what the node does.
func (m *Machine) run(n *node) {
	n.stage = stageRunning
	if n.tmpl.Timeout > 0 && !n.each && n.kind != kindLeaf { // those of tasks are of each attempt
		m.timers.add(timer{at: m.now + n.tmpl.Timeout.Milliseconds(), what: timerNode, node: n.id, attempt: n.attempt})
	}
	switch n.kind {
	case kindLeaf:
		if n.group == nil {
			n.group = newGroup(1)
			m.counts.Total++
		}
		m.enlist(n)
		m.groupDone(n) // one that is tried again may have been through
	case kindDAG:
		m.runDAG(n)
	case kindSuspend:
		m.suspend(n)
	}
}

// suspend waits for a time, or for somebody.
func (m *Machine) suspend(n *node) {
	if n.tmpl.Suspend.For == nil {
		return
	}
	s, err := text(n.tmpl.Suspend.For, m.inside(n))
	if err != nil {
		m.finish(n, Errored, err.Error())
		return
	}
	d, err := duration(s)
	if err != nil {
		m.finish(n, Errored, fmt.Sprintf("suspend: %v", err))
		return
	}
	m.timers.add(timer{at: m.now + d.Milliseconds(), what: timerResume, node: n.id})
}

func (m *Machine) resumed(e Resumed) {
	n := m.nodes[e.Node]
	if len(e.Outputs) > 0 {
		n.outputs = map[string]workflow.Value{"parameters": e.Outputs}
	}
	if e.Fail {
		m.finish(n, Failed, e.Message)
		return
	}
	m.finish(n, Succeeded, e.Message)
}

// finish says what became of a node. Its exit handler and hooks come next.
func (m *Machine) finish(n *node, p Phase, why string) {
	if n.stage >= stageLeaving {
		return
	}
	if n.expired && p == Canceled {
		p = Failed
	}
	if n.kind == kindDAG && n.tmpl != nil && (p == Failed || p == Errored) && m.tryAgain(n, p, why) {
		return
	}
	if n.tmpl != nil && !n.each && !n.hit && !n.served && n.stage > stageListing && (p == Succeeded || n.kind == kindDAG) {
		if err := m.compute(n); err != nil && p == Succeeded {
			p, why = Errored, err.Error()
		}
	}
	m.unlock(n)
	if p == Succeeded && n.key != "" && !n.hit && !n.served {
		m.effects = append(m.effects, Remember{Cache: n.tmpl.Memo.Cache, Key: n.key, Outputs: n.outputs})
	}
	if n.group != nil {
		m.counts.Canceled += n.group.rest()
	}
	n.phase, n.message, n.ended, n.stage = p, why, m.now, stageLeaving
	if n.role == roleCall && n.call.OnExit != "" && !m.skipExit && p != Skipped {
		x := m.add(n, roleExit, -1, -1, n.call.OnExit)
		n.extras = append(n.extras, x)
		n.open++
		m.open(x)
	}
	m.leave(n)
}

// unlock gives the node's locks up.
func (m *Machine) unlock(n *node) {
	for i, l := range n.locks {
		if l.held || n.stage == stageLocking {
			m.effects = append(m.effects, Unlock{Node: n.id, Lock: uint32(i), Namespace: l.namespace, Name: l.name})
			n.locks[i].held = false
		}
	}
}

// leave ends the node when nothing of it goes on.
func (m *Machine) leave(n *node) {
	if n.stage != stageLeaving || n.open > 0 {
		return
	}
	if n.hooks != nil && !n.stopping {
		m.fire(n)
		if n.stage != stageLeaving || n.open > 0 {
			return
		}
	}
	n.stage = stageEnded
	switch {
	case n.role == roleRoot:
		m.rootEnded()
	case n.role == roleHook && n.parent == nil:
		m.openHooks--
		m.close()
	case n.role == roleExit && n.parent == nil:
		m.close()
	case n.served && (n.role == roleCall || n.role == roleItem):
		m.dismissed(n)
	case n.role == roleCall:
		m.callEnded(n.parent, n.index)
	case n.role == roleItem:
		m.itemEnded(n.parent, n)
	default:
		n.parent.open--
		m.leave(n.parent)
	}
}

// stop ends a node and all that goes on in it.
func (m *Machine) stop(n *node, why string) {
	if n.stage == stageEnded || n.stopping {
		return
	}
	n.stopping = true
	if n.stage == stageLeaving {
		for _, x := range n.extras {
			m.stop(x, why)
		}
		m.leave(n)
		return
	}
	if n.stage != stageRunning {
		m.finish(n, Canceled, why)
		return
	}
	n.message = why
	switch n.kind {
	case kindLeaf:
		m.stopGroup(n)
	case kindDAG:
		m.stopDAG(n, why)
	case kindFan:
		m.stopFan(n, why)
	default:
		m.finish(n, Canceled, why)
	}
}

// tryAgain begins a DAG that failed again, if its template says so.
func (m *Machine) tryAgain(n *node, p Phase, why string) bool {
	r := n.tmpl.Retry
	if r == nil || n.dag == nil || n.stopping && !n.expired || m.cause != Waiting {
		return false
	}
	last := &past{retries: n.attempt, exit: n.exit, message: why, phase: p, first: n.started, began: n.started}
	wait, ok := m.retry(r, m.inside(n), last)
	if !ok {
		return false
	}
	m.counts.Retries++
	m.dropCalls(n)
	n.attempt++
	n.stopping, n.expired = false, false
	n.stage = stageResting
	m.timers.add(timer{at: m.now + wait.Milliseconds(), what: timerRestart, node: n.id})
	return true
}

// drop forgets a node and what is below it.
func (m *Machine) drop(n *node) {
	for _, x := range n.below() {
		m.drop(x)
	}
	delete(m.nodes, n.id)
	n.stage = stageEnded
}

// dropCalls forgets the calls of a DAG. Its hooks may go on.
func (m *Machine) dropCalls(n *node) {
	for _, c := range n.dag.children {
		if c != nil {
			m.drop(c)
		}
	}
	n.dag = nil
}

// below are the nodes right below n, in the order of their making.
func (n *node) below() []*node {
	out := slices.Clone(n.extras)
	if n.dag != nil {
		for _, c := range n.dag.children {
			if c != nil {
				out = append(out, c)
			}
		}
	}
	if n.fan != nil {
		out = slices.AppendSeq(out, maps.Values(n.fan.children))
	}
	slices.SortFunc(out, func(a, b *node) int { return int(a.id) - int(b.id) })
	return out
}

// sorted are all nodes in the order of their making.
func (m *Machine) sorted() []*node {
	return slices.SortedFunc(maps.Values(m.nodes), func(a, b *node) int { return int(a.id) - int(b.id) })
}

// duration reads "90s" and, as documents have it, "90".
func duration(s string) (time.Duration, error) {
	const most = 10 * 365 * 24 * time.Hour
	d, err := time.ParseDuration(s)
	if err != nil {
		if d, err = time.ParseDuration(s + "s"); err != nil {
			return 0, fmt.Errorf("%q is not a duration: write 90s, 5m or 2h", s)
		}
	}
	if d < 0 || d > most {
		return 0, fmt.Errorf("%q is not a duration between 0 and ten years", s)
	}
	return d, nil
}
