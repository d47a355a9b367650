package machine

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
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
		want = min(want, p-m.counts.Active)
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
	if m.paused || m.graph.Parallelism > 0 && m.counts.Active >= m.graph.Parallelism {
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
	if n.role == roleCall && !n.slot {
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
	if d := n.dagAbove(); d != nil {
		d.live--
	}
}

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
		m.fail(n, r.Item, a, Failed, r.Exit, "the attempt has had its time of "+n.tmpl.Timeout.String(), r)
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
	if a.stop {
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
		m.counts.Skipped++
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
			why += fmt.Sprintf(", %d were not begun", int(g.n)-g.done())
		}
	}
	if p == Succeeded && n.each && g.kept > 0 {
		n.stage = stageGathering
		m.effects = append(m.effects, Gather{n.id})
		return
	}
	m.finish(n, p, why)
}
