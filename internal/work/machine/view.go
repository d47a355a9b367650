package machine

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
)

// A Summary is what a run is, in short.
type Summary struct {
	ID, Name, Namespace, By   string
	Phase                     Phase
	Message                   string
	Paused                    bool // nothing new is begun
	Counts                    Counts
	Started, Ended, Scheduled time.Time
	Isolation                 map[string]int
	Outputs                   map[string]workflow.Value // those of the whole run
	Priority, Nodes           int
}

// Summary returns it.
func (m *Machine) Summary() Summary {
	s := Summary{ID: m.id, Name: m.name, Namespace: m.namespace, By: m.by, Phase: m.phase, Message: m.message, Paused: m.paused, Counts: m.counts,
		Started: at(m.started), Ended: at(m.ended), Scheduled: at(m.scheduled), Isolation: maps.Clone(m.isolation),
		Outputs: maps.Clone(m.globals), Priority: m.graph.Priority, Nodes: len(m.nodes)}
	if m.graph.Front == "cairn" && m.root != nil { // what a workflow of ours says that it gives
		s.Outputs = maps.Clone(m.root.outputs)
	}
	if m.ended == 0 && m.phase.Ended() { // its exit handler runs
		s.Phase = Running
	}
	return s
}

// Ended reports whether the run is over, and as what.
func (m *Machine) Ended() (Phase, bool) { return m.phase, m.ended != 0 }

// Now is when the newest event happened.
func (m *Machine) Now() time.Time { return at(m.now) }

// Counts are the tasks of the run.
func (m *Machine) Counts() Counts { return m.counts }

func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// A View is a node, or an item of a fan-out, as people see it.
type View struct {
	// ID is NODE or NODE.ITEM; that of a task is the task's name.
	ID string
	// Name is that of the call, and of the item.
	Name     string
	Template string
	Kind     string // task, tasks, dag, items, suspend
	Phase    Phase
	Message  string
	Exit     int
	Attempt  int
	Worker   string
	Started  time.Time
	Ended    time.Time
	Outputs  map[string]workflow.Value
	// Inputs are the parameters of the call; those of an item of a fan-out over
	// tasks are not kept.
	Inputs map[string]workflow.Value
	// Set: the containers of a task that is several; nil for others.
	Set *task.Set
	// Items of a fan-out, and how they are.
	Items, Active, Succeeded, Failed, Skipped, Canceled int
	// Children: there are nodes below it.
	Children bool
	Waits    string // what for: a lock, somebody
	Address  string // of a daemon that serves
}

// label is what a node is called below its parent.
func (m *Machine) label(n *node) string {
	switch n.role {
	case roleCall:
		return n.call.Name
	case roleItem:
		return n.call.Name + "(" + strconv.Itoa(n.item) + itemLabel(n.value) + ")"
	case roleExit:
		if n.parent == nil {
			return "onExit"
		}
		return m.label(n.parent) + ".onExit"
	case roleHook:
		name := m.hookOf(n).Name
		if n.parent != nil {
			return m.label(n.parent) + ".hooks." + name
		}
		return "hooks." + name
	}
	return m.name
}

// itemLabel is an item in few words.
func itemLabel(v workflow.Value) string {
	var s string
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		s = v
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		s = string(b)
	}
	const most = 60
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return ":" + s
}

// View is one node or task.
func (m *Machine) View(t Ref, item bool) (View, bool) {
	n := m.nodes[t.Node]
	if n == nil {
		return View{}, false
	}
	if item && n.each && n.group != nil {
		if t.Item >= n.group.n {
			return View{}, false
		}
		return m.viewItem(n, t.Item), true
	}
	return m.view(n), true
}

func (m *Machine) view(n *node) View {
	v := View{ID: taskID(n), Name: m.label(n), Template: n.name, Phase: n.phase, Message: n.message, Exit: n.exit, Worker: n.worker,
		Started: at(n.started), Ended: at(n.ended), Outputs: n.outputs, Inputs: n.inputs, Attempt: int(n.attempt) + 1, Kind: "task"}
	switch {
	case n.kind == kindDAG:
		v.Kind, v.Children = "dag", true
	case n.kind == kindSuspend && !n.each:
		v.Kind = "suspend"
		if n.stage == stageRunning {
			v.Waits = "to be resumed"
		}
	case n.each && n.kind == kindLeaf:
		v.Kind = "tasks"
	case n.each:
		v.Kind = "items"
	}
	v.Children = v.Children || n.each || len(n.extras) > 0
	switch n.stage {
	case stageLocking:
		for _, l := range n.locks {
			if !l.held {
				v.Waits = "lock " + l.namespace + "/" + l.name
				break
			}
		}
	case stageListing:
		v.Waits = "items"
	}
	if n.serving() {
		v.Address = n.address
	}
	if v.Kind == "task" {
		v.Set = setOf(n)
	}
	if g := n.group; g != nil {
		v.Items, v.Active, v.Succeeded, v.Failed, v.Skipped = int(g.n), len(g.active), g.good.n, g.bad.n+g.wrong.n, g.skipped.n
		if v.Canceled = g.canceled.n; n.phase.Ended() {
			v.Canceled += g.rest()
		}
		if !n.each {
			if a, ok := g.active[0]; ok {
				v.Attempt = int(a.attempt)
			} else {
				v.Attempt = int(g.most)
				if n.stage == stageRunning {
					v.Phase = Waiting
				}
			}
		}
	}
	if f := n.fan; f != nil {
		v.Items, v.Active, v.Succeeded, v.Failed, v.Skipped = int(n.list.n), f.live, f.good.n, f.bad.n, f.skipped.n
		if v.Canceled = f.canceled.n; n.phase.Ended() {
			v.Canceled += int(n.list.n) - f.done()
		}
	}
	return v
}

// taskID is what people and workers call a node.
func taskID(n *node) string { return strconv.FormatUint(uint64(n.id), 10) }

func (m *Machine) viewItem(n *node, i uint32) View {
	v := View{ID: taskName(n, i), Name: n.call.Name + "(" + strconv.FormatUint(uint64(i), 10) + ")", Template: n.name, Kind: "task", Phase: n.group.phase(i)}
	if x, ok := n.list.value(i); ok {
		v.Name = n.call.Name + "(" + strconv.FormatUint(uint64(i), 10) + itemLabel(x) + ")"
	}
	h := n.group.past[i]
	if h == nil {
		h = n.group.detail[i]
	}
	if h != nil {
		v.Message, v.Exit, v.Attempt, v.Started, v.Ended = h.message, h.exit, int(h.attempts), at(h.began), at(h.ended)
	}
	if a, ok := n.group.active[i]; ok {
		v.Attempt, v.Worker, v.Started, v.Ended = int(a.attempt), a.worker, at(a.since), time.Time{}
	}
	v.Set = setOf(n)
	return v
}

// setOf are the containers of a node's tasks.
func setOf(n *node) *task.Set {
	if n.tmpl != nil {
		if c, is := n.tmpl.Leaf.(workflow.Crew); is {
			return c.Set()
		}
	}
	return nil
}

// Filter says which nodes are wanted.
type Filter struct {
	// Phases: only these; all when empty.
	Phases []Phase
}

func (f Filter) wants(p Phase) bool { return len(f.Phases) == 0 || slices.Contains(f.Phases, p) }

// Children are nodes below the parent ("" for the run), after the one named,
// at most limit of them, and whether there are more.
func (m *Machine) Children(parent, after string, limit int, f Filter) (out []View, more bool, err error) {
	if parent == "" {
		var top []*node
		for _, n := range m.sorted() {
			if n.parent == nil {
				top = append(top, n)
			}
		}
		return m.page(top, nil, after, limit, f)
	}
	t, err := ParseTask(parent)
	if err != nil {
		return nil, false, err
	}
	n := m.nodes[t.Node]
	if n == nil {
		return nil, false, ErrNode
	}
	if n.group != nil && n.each {
		return m.items(n, after, limit, f)
	}
	return m.page(n.below(), n, after, limit, f)
}

func (m *Machine) page(nodes []*node, of *node, after string, limit int, f Filter) (out []View, more bool, err error) {
	var from Ref
	if after != "" {
		if from, err = ParseTask(after); err != nil {
			return nil, false, err
		}
	}
	for _, n := range nodes {
		v := m.view(n)
		if n.id <= from.Node || !f.wants(v.Phase) {
			continue
		}
		if len(out) == limit {
			return out, true, nil
		}
		out = append(out, v)
	}
	if of != nil && of.dag != nil { // calls that have no node come last, by their names
		for i, c := range of.tmpl.DAG.Calls {
			if of.dag.children[i] == nil && f.wants(of.dag.states[i]) && len(out) < limit && from.Item == 0 {
				out = append(out, View{Name: c.Name, Template: c.Template, Phase: of.dag.states[i], Kind: "call"})
			}
		}
	}
	return out, false, nil
}

// items are tasks of a fan-out. Only those that a page needs are looked at,
// whatever their number.
func (m *Machine) items(n *node, after string, limit int, f Filter) (out []View, more bool, err error) {
	var i uint32
	if after != "" {
		t, err := ParseTask(after)
		if err != nil {
			return nil, false, err
		}
		i = t.Item + 1
	}
	g := n.group
	for i < g.n {
		// The end of what is all alike from here on.
		p, to := g.phase(i), g.n
		for _, r := range []*ranges{&g.good, &g.bad, &g.wrong, &g.skipped, &g.canceled} {
			if k := r.find(i); k < len(r.spans) {
				if s := r.spans[k]; s.from <= i {
					to = min(to, s.to)
				} else {
					to = min(to, s.from)
				}
			}
		}
		if i < g.next && !p.Ended() { // held or to be had again: one by one
			to = i + 1
		}
		if f.wants(p) {
			for ; i < to; i++ {
				if len(out) == limit {
					return out, true, nil
				}
				out = append(out, m.viewItem(n, i))
			}
		}
		i = to
	}
	return out, false, nil
}
