package machine

import (
	"fmt"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/workflow"
)

// plan is what follows from a DAG alone, worked out once.
type plan struct {
	index   map[string]int
	needs   [][]int
	then    [][]int // who needs it
	wanted  []bool  // it is a target, or a target needs it
	targets []int   // the calls that decide how the DAG ends
}

// planKey is what a plan follows from. The targets are names apart by spaces.
type planKey struct {
	dag     *workflow.DAG
	targets string
}

// targets are the names of the calls of n that matter; "" for all.
func (m *Machine) targets(n *node) (string, error) {
	d := n.tmpl.DAG
	names := d.Targets
	if d.Target != nil {
		s, err := text(d.Target, m.inside(n))
		if err != nil {
			return "", fmt.Errorf("target: %w", err)
		}
		names = strings.Fields(s)
	}
	for _, name := range names {
		if !slices.ContainsFunc(d.Calls, func(c *workflow.Call) bool { return c.Name == name }) {
			return "", fmt.Errorf("target: there is no call %.80q", name)
		}
	}
	return strings.Join(names, " "), nil
}

// planOf looks the plan up, or makes it.
func (m *Machine) planOf(d *workflow.DAG, targets string) *plan {
	key := planKey{d, targets}
	if p := m.plans[key]; p != nil {
		return p
	}
	n := len(d.Calls)
	p := &plan{index: make(map[string]int, n), needs: make([][]int, n), then: make([][]int, n), wanted: make([]bool, n)}
	for i, c := range d.Calls {
		p.index[c.Name] = i
	}
	for i, c := range d.Calls {
		for _, name := range c.Needs {
			if k, ok := p.index[name]; ok && !slices.Contains(p.needs[i], k) {
				p.needs[i] = append(p.needs[i], k)
				p.then[k] = append(p.then[k], i)
			}
		}
	}
	for name := range strings.FieldsSeq(targets) {
		if i, ok := p.index[name]; ok {
			p.targets = append(p.targets, i)
		}
	}
	if targets == "" { // those that nobody needs
		for i := range d.Calls {
			p.wanted[i] = true
			if len(p.then[i]) == 0 {
				p.targets = append(p.targets, i)
			}
		}
	} else {
		todo := slices.Clone(p.targets)
		for len(todo) > 0 {
			i := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if !p.wanted[i] {
				p.wanted[i] = true
				todo = append(todo, p.needs[i]...)
			}
		}
	}
	m.plans[key] = p
	return p
}

// dag is how far the calls of a node are.
type dag struct {
	plan     *plan
	targets  string  // that the plan is for
	children []*node // by call; nil: not called
	states   []Phase // Waiting, Running, or how it ended
	left     []int   // of its needs that have not ended; -1: it waits in queue
	ended    int
	live     int   // calls and tasks that count against its parallelism
	queue    []int // calls that wait for room
	stopping bool  // nothing new begins
}

func (m *Machine) runDAG(n *node) {
	targets, err := m.targets(n)
	if err != nil {
		m.finish(n, Errored, err.Error())
		return
	}
	p := m.planOf(n.tmpl.DAG, targets)
	calls := len(n.tmpl.DAG.Calls)
	n.dag = &dag{plan: p, targets: targets, children: make([]*node, calls), states: make([]Phase, calls), left: make([]int, calls)}
	d := n.dag
	for i := range calls {
		d.left[i] = len(p.needs[i])
	}
	for i := range calls {
		if !p.wanted[i] { // nor is whatever needs it
			d.states[i] = Omitted
			d.ended++
		}
	}
	// A call that ends at once may begin others: look at each as it is then.
	for i := 0; i < calls && n.dag == d; i++ {
		if d.left[i] == 0 && d.states[i] == Waiting {
			m.decide(n, i)
		}
	}
	m.dagDone(n, d)
}

// mark says how a call ended that has no node.
func (m *Machine) mark(n *node, i int, p Phase) {
	d := n.dag
	d.states[i] = p
	d.ended++
	for _, k := range d.plan.then[i] {
		d.left[k]--
	}
	for _, k := range d.plan.then[i] {
		if n.dag == d && d.left[k] == 0 && d.states[k] == Waiting {
			m.decide(n, k)
		}
	}
}

// decide says what becomes of a call whose needs have ended.
func (m *Machine) decide(n *node, i int) {
	d := n.dag
	if d.stopping {
		m.mark(n, i, Omitted)
		return
	}
	c := n.tmpl.DAG.Calls[i]
	s := m.caller(n, c, nil, false)
	if c.Depends == nil {
		for _, k := range d.plan.needs[i] {
			if !d.good(n, k) {
				m.mark(n, i, Omitted)
				return
			}
		}
	} else if yes, err := truth(c.Depends, s); err != nil {
		m.callFailed(n, i, fmt.Errorf("depends: %w", err))
		return
	} else if !yes {
		m.mark(n, i, Omitted)
		return
	}
	if c.When != nil && c.Each == nil { // a fan-out asks for each item
		if yes, err := truth(c.When, s); err != nil {
			m.callFailed(n, i, fmt.Errorf("when: %w", err))
			return
		} else if !yes {
			m.mark(n, i, Skipped)
			return
		}
	}
	if m.holds(n, i) {
		if max := n.tmpl.Parallelism; max > 0 && d.live >= max {
			d.queue, d.left[i] = append(d.queue, i), -1
			return
		}
	}
	m.start(n, i)
}

// holds reports whether the call takes a place of the DAG's parallelism as
// long as it lasts; a task takes one only while somebody has it, unless it
// needs a lock: it must not hold that and wait for a place.
func (m *Machine) holds(n *node, i int) bool {
	t := m.graph.Templates[n.tmpl.DAG.Calls[i].Template]
	return t != nil && (t.Leaf == nil || len(t.Locks) > 0)
}

// start makes the node of a call, or has the one go on that failed before.
func (m *Machine) start(n *node, i int) {
	c, x := n.tmpl.DAG.Calls[i], n.dag.children[i]
	old := x != nil
	if !old {
		x = m.add(n, roleCall, i, -1, c.Template)
		x.each = c.Each != nil
	}
	if x.slot = m.holds(n, i); x.slot {
		n.dag.live++
	}
	n.dag.children[i], n.dag.states[i] = x, Running
	if old {
		m.revive(x)
		return
	}
	m.open(x)
}

// callFailed is a call that could not even begin.
func (m *Machine) callFailed(n *node, i int, err error) {
	c := n.tmpl.DAG.Calls[i]
	x := m.add(n, roleCall, i, -1, c.Template)
	n.dag.children[i], n.dag.states[i] = x, Running
	m.finish(x, Errored, err.Error())
}

// good reports whether a call that ended lets those go on that need it.
func (d *dag) good(n *node, i int) bool {
	c := n.tmpl.DAG.Calls[i]
	switch d.states[i] {
	case Succeeded, Skipped:
		return true
	case Failed, Canceled:
		return c.AllowFailed
	case Errored:
		return c.AllowError
	}
	return false
}

// callEnded goes on after a call of n.
func (m *Machine) callEnded(n *node, i int) {
	d := n.dag
	if d == nil || d.states[i] != Running {
		return
	}
	m.callIs(n, i, d.children[i].phase)
}

// callIs has those go on that wait for a call of n.
func (m *Machine) callIs(n *node, i int, p Phase) {
	d := n.dag
	d.states[i] = p
	if c := d.children[i]; c.slot {
		c.slot = false
		d.live--
	}
	d.ended++
	if n.tmpl.FailFast && !d.good(n, i) && !d.handled(n, i) {
		d.stopping = true
	}
	if d.stopping {
		m.omitRest(n, d)
	}
	for _, k := range d.plan.then[i] {
		d.left[k]--
	}
	for _, k := range d.plan.then[i] {
		if n.dag == d && d.left[k] == 0 && d.states[k] == Waiting {
			m.decide(n, k)
		}
	}
	for n.dag == d && len(d.queue) > 0 && !d.stopping && d.live < n.tmpl.Parallelism {
		k := d.queue[0]
		d.queue = d.queue[1:]
		m.start(n, k)
	}
	m.dagDone(n, d)
}

// handled reports whether somebody asks how the call ended: then its failure
// is not the last word.
func (d *dag) handled(n *node, i int) bool {
	return slices.ContainsFunc(d.plan.then[i], func(k int) bool {
		return d.states[k] == Waiting && n.tmpl.DAG.Calls[k].Depends != nil
	})
}

// omitRest ends the calls that have not begun.
func (m *Machine) omitRest(n *node, d *dag) {
	d.queue = nil
	for i, s := range d.states {
		if s == Waiting {
			d.states[i] = Omitted
			d.ended++
		}
	}
}

// stopDAG ends a DAG that runs.
func (m *Machine) stopDAG(n *node, why string) {
	d := n.dag
	d.stopping = true
	m.omitRest(n, d)
	for _, c := range d.children {
		if c != nil && n.dag == d {
			m.stop(c, why)
		}
	}
	m.dismiss(d, why)
	m.dagDone(n, d)
}

// dagDone ends the node when all its calls have.
func (m *Machine) dagDone(n *node, d *dag) {
	done := func() bool { return n.dag == d && n.stage == stageRunning && d.ended == len(d.states) }
	if !done() || m.dismiss(d, "nothing needs it any more") || !done() {
		return
	}
	if n.stopping {
		m.finish(n, Canceled, n.message)
		return
	}
	p, why := Succeeded, ""
	seen := make([]bool, len(d.states))
	for _, i := range d.plan.targets {
		if q, k := d.verdict(n, i, seen); severity(q) > severity(p) {
			p = q
			why = fmt.Sprintf("%s: %s", n.tmpl.DAG.Calls[k].Name, q)
			if c := d.children[k]; c != nil && c.message != "" {
				why = n.tmpl.DAG.Calls[k].Name + ": " + c.message
			}
		}
	}
	m.finish(n, p, why)
}

// verdict is how the branch ends that leads to call i, and which call says so:
// what did not run has the fate of what it waited for.
func (d *dag) verdict(n *node, i int, seen []bool) (Phase, int) {
	switch p := d.states[i]; p {
	case Failed, Errored, Canceled:
		if d.good(n, i) {
			return Succeeded, i
		}
		return p, i
	case Skipped, Omitted:
		if seen[i] {
			return Succeeded, i
		}
		seen[i] = true
		worst, who := Succeeded, i
		for _, k := range d.plan.needs[i] {
			if q, j := d.verdict(n, k, seen); severity(q) > severity(worst) {
				worst, who = q, j
			}
		}
		return worst, who
	}
	return Succeeded, i
}

func severity(p Phase) int {
	switch p {
	case Canceled:
		return 1
	case Failed:
		return 2
	case Errored:
		return 3
	}
	return 0
}
