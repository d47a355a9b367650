package machine

import (
	"fmt"
	"math"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
)

// history is what is known of the item's attempts, from now on in any case.
func (g *group) history(i uint32, a active) *past {
	h := g.past[i]
	if h == nil { // those that go well never have one
		h = &past{attempts: a.attempt, first: a.since}
		g.past[i] = h
	}
	return h
}

// result takes how an attempt ended, if it is held.
func (m *Machine) result(r *Result) {
	n := m.nodes[r.Node]
	if n == nil || n.group == nil {
		return
	}
	g := n.group
	a, ok := g.active[r.Item]
	if !ok || a.attempt != r.Attempt {
		return
	}
	if r.Isolation != "" && (len(m.isolation) < 8 || m.isolation[r.Isolation] > 0) {
		m.isolation[r.Isolation]++
	}
	m.release(n, r.Item)
	p := r.Phase
	switch {
	case p == Succeeded:
		r.Exit = 0
		if n.each { // when one of many went well is not worth its place
			r.Started, r.Ended, r.Message = 0, 0, ""
		}
		m.produced(n, r)
		delete(g.past, r.Item)
		g.good.add(r.Item)
		m.counts.Succeeded++
		if !n.each {
			n.exit = 0
		}
	case a.expired && p != Succeeded:
		m.fail(n, r.Item, a, Failed, r.Exit, n.late(), r)
	case r.Infrastructure || p == Canceled && !a.stop:
		if r.Message == "" {
			r.Message = "the worker gave it up"
		}
		m.crash(n, r.Item, a, r.Message, true)
	case p == Canceled:
		m.settle(n, r.Item, Canceled, nil)
	case p == Failed:
		m.fail(n, r.Item, a, Failed, r.Exit, r.Message, r)
	default:
		m.fail(n, r.Item, a, Errored, r.Exit, r.Message, r)
	}
	m.groupDone(n)
}

// late is why an attempt was ended whose time was up.
func (n *node) late() string { return "the attempt has had its time of " + n.tmpl.Timeout.String() }

// produced keeps what a task left.
func (m *Machine) produced(n *node, r *Result) {
	if len(r.Outputs) == 0 && !r.Kept {
		return
	}
	if !n.each {
		n.outputs = outputs(n.tmpl, r.Outputs)
		return
	}
	n.group.kept++
	if r.Outputs != nil {
		m.effects = append(m.effects, Keep{Node: n.id, Item: r.Item, Outputs: outputs(n.tmpl, r.Outputs)})
		r.Outputs, r.Kept = nil, true
	}
}

// outputs are what a task left as the names of the scope have it.
func outputs(t *workflow.Template, found map[string]task.Produced) map[string]workflow.Value {
	params, files := map[string]workflow.Value{}, map[string]workflow.Value{}
	out := map[string]workflow.Value{}
	for name, p := range found {
		kind, result := "", name == task.Result
		for _, o := range t.Outputs {
			if o.Name == name {
				kind, result = o.Type, o.Result
			}
		}
		switch {
		case p.Text == nil:
			files[name] = &workflow.File{Digest: p.Digest, Size: p.Size, Folder: p.Folder}
		case result:
			out["result"] = typed(kind, *p.Text)
		default:
			params[name] = typed(kind, *p.Text)
		}
	}
	if len(params) > 0 {
		out["parameters"] = params
	}
	if len(files) > 0 {
		out["artifacts"] = files
	}
	return out
}

// lost is a task whose worker is gone.
func (m *Machine) lost(t Ref) {
	n := m.nodes[t.Node]
	if n == nil || n.group == nil {
		return
	}
	a, ok := n.group.active[t.Item]
	if !ok {
		return
	}
	m.release(n, t.Item)
	m.crash(n, t.Item, a, "its worker "+a.worker+" is gone", false)
	m.groupDone(n)
}

// back is a task that its worker has not started.
func (m *Machine) back(t Ref) {
	n := m.nodes[t.Node]
	if n == nil || n.group == nil {
		return
	}
	a, ok := n.group.active[t.Item]
	if !ok {
		return
	}
	m.release(n, t.Item)
	if a.stop && !a.expired { // what has not begun has not had its time
		m.settle(n, t.Item, Canceled, nil)
	} else {
		n.group.history(t.Item, a)
		m.offer(n, t.Item)
	}
	m.groupDone(n)
}

// crash is an attempt that ended by no fault of the program, as far as known.
func (m *Machine) crash(n *node, i uint32, a active, why string, rest bool) {
	m.counts.Crashes++
	h := n.group.history(i, a)
	h.crashes++
	h.phase, h.exit, h.message, h.began, h.ended = Errored, -1, why, a.since, m.now
	switch {
	case a.expired: // nobody will say how it ended, and its time was up before that
		m.fail(n, i, a, Failed, -1, n.late()+"; "+why, &Result{})
	case a.stop:
		m.settle(n, i, Canceled, nil)
	case h.crashes >= MaxCrashes:
		h.message = fmt.Sprintf("set aside after %d lost attempts: %s", h.crashes, why)
		m.settle(n, i, Errored, h)
	case rest: // whatever ails the machine there, it may ail longer
		m.rest(n, i, h, time.Second<<(h.crashes-1))
	default:
		m.offer(n, i)
	}
}

// fail is an attempt that ended badly; there may be another.
func (m *Machine) fail(n *node, i uint32, a active, p Phase, exit int, why string, r *Result) {
	g := n.group
	h := g.history(i, a)
	h.phase, h.exit, h.message, h.began, h.ended = p, exit, why, r.Started, r.Ended
	if h.began == 0 {
		h.began, h.ended = a.since, m.now
	}
	if !n.each {
		n.exit = exit
	}
	if n.tmpl.Retry != nil && !g.stopping && !n.stopping && m.cause == Waiting {
		if wait, ok := m.retry(n.tmpl.Retry, m.tried(n, i, h), h); ok {
			h.retries++
			m.counts.Retries++
			m.rest(n, i, h, wait)
			return
		}
	}
	if !n.each && len(r.Outputs) > 0 { // what a failed one left is there, too
		n.outputs = outputs(n.tmpl, r.Outputs)
	}
	m.settle(n, i, p, h)
}

// retry says whether there is another attempt, and after which time. It says
// in last why there is none.
func (m *Machine) retry(r *workflow.Retry, s scope, last *past) (time.Duration, bool) {
	switch r.On {
	case "error", "transient":
		if last.phase != Errored {
			return 0, false
		}
	case "always":
	default:
		if last.phase != Failed {
			return 0, false
		}
	}
	s.last = last
	if r.Limit != nil {
		limit, err := number(r.Limit, s)
		if err != nil {
			last.message = fmt.Sprintf("%s (no retry: limit: %v)", last.message, err)
			return 0, false
		}
		if float64(last.retries) >= limit {
			return 0, false
		}
	}
	if r.When != nil {
		yes, err := truth(r.When, s)
		if err != nil {
			last.message = fmt.Sprintf("%s (no retry: %v)", last.message, err)
			return 0, false
		}
		if !yes {
			return 0, false
		}
	}
	share := m.graph.RetryBudget
	floor := 0
	if share == 0 {
		share, floor = defaultBudget, retryFloor
	}
	if m.counts.Retries >= max(floor, m.counts.Total*share/100) {
		last.message = fmt.Sprintf("%s (no retry: the run has spent its budget of retries)", last.message)
		return 0, false
	}
	wait := float64(r.Delay)
	if r.Factor > 1 {
		wait *= math.Pow(r.Factor, float64(last.retries))
	}
	const day = float64(24 * time.Hour)
	if r.MaxDelay > 0 {
		wait = min(wait, float64(r.MaxDelay))
	}
	d := time.Duration(min(wait, 365*day))
	if r.For > 0 && m.now+d.Milliseconds() > last.first+r.For.Milliseconds() {
		return 0, false
	}
	return d, true
}

// rest has an item wait for its next attempt.
func (m *Machine) rest(n *node, i uint32, h *past, wait time.Duration) {
	if n.group.stopping {
		m.settle(n, i, Canceled, nil)
		return
	}
	if wait <= 0 {
		m.offer(n, i)
		return
	}
	h.resting = true
	n.group.resting++
	m.timers.add(timer{at: m.now + wait.Milliseconds(), what: timerRetry, node: n.id, item: i, attempt: h.attempts})
}

// again ends the wait of an item.
func (m *Machine) again(n *node, t timer) {
	if n.group == nil {
		return
	}
	if h := n.group.past[t.item]; h != nil && h.resting && h.attempts == t.attempt {
		h.resting = false
		n.group.resting--
		m.offer(n, t.item)
	}
}
