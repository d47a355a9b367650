package machine

import (
	"strconv"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
)

// scope is what an expression sees: from inside of a template, or from a call
// of a DAG.
type scope struct {
	m    *Machine
	n    *node          // whose inputs and calls are seen; nil: of the run only
	call *workflow.Call // what is being called; nil: none

	// lazy: the inputs are not worked out yet, but follow from these. It is
	// how items of a fan-out are rendered, of which nothing is stored.
	lazy   *scope
	tmpl   *workflow.Template
	args   []workflow.Arg
	item   workflow.Value
	isItem bool

	last *past
	task string // the task's name, where there is one
	// pod, when not nil: the task's pod has a name that is not known yet, and
	// this notes that it was asked for.
	pod *bool
}

// caller is what the arguments and conditions of a call see.
func (m *Machine) caller(n *node, c *workflow.Call, item workflow.Value, isItem bool) scope {
	return scope{m: m, n: n, call: c, item: item, isItem: isItem}
}

// inside is what a template sees of itself.
func (m *Machine) inside(n *node) scope {
	s := scope{m: m, n: n, item: n.value, isItem: n.role == roleItem, task: taskName(n, 0)}
	return s
}

// tried is what the retry of an item sees.
func (m *Machine) tried(n *node, i uint32, h *past) scope {
	s := m.inside(n)
	if n.each {
		v, known := n.list.value(i)
		s = m.itemScope(n, v, known, i)
	}
	s.last = h
	return s
}

// itemScope is what an item of a fan-out over a leaf sees.
func (m *Machine) itemScope(n *node, v workflow.Value, known bool, i uint32) scope {
	outer := m.caller(n.parent, n.call, v, known)
	return scope{m: m, n: n, lazy: &outer, tmpl: n.tmpl, args: n.call.Args, item: v, isItem: known, task: taskName(n, i)}
}

// taskName is what a task is called within its run: NODE or NODE.ITEM.
func taskName(n *node, i uint32) string {
	if n.each {
		return strconv.FormatUint(uint64(n.id), 10) + "." + strconv.FormatUint(uint64(i), 10)
	}
	return strconv.FormatUint(uint64(n.id), 10)
}

// Lookup implements [workflow.Scope].
func (s scope) Lookup(path ...string) (workflow.Value, bool) {
	if len(path) == 0 {
		return nil, false
	}
	switch path[0] {
	case "inputs":
		if len(path) < 3 {
			return nil, false
		}
		v, ok := s.input(path[1], path[2])
		return descend(v, ok, path[3:])
	case "tasks", "steps":
		if len(path) < 3 || s.n == nil || s.n.dag == nil {
			return nil, false
		}
		return s.m.aboutCall(s.n, path[1], path[2:])
	case "needs":
		if len(path) != 3 || s.n == nil || s.n.dag == nil {
			return nil, false
		}
		return s.m.need(s.n, path[1], path[2])
	case "outputs": // of the template itself, for those that are computed
		if s.n == nil || s.n.outputs == nil {
			return nil, false
		}
		return descend(map[string]any(s.n.outputs), true, path[1:])
	case "item":
		return descend(s.item, s.isItem, path[1:])
	case "workflow":
		return s.m.aboutRun(path[1:])
	case "retries":
		switch {
		case s.last != nil:
			return float64(s.last.retries), len(path) == 1
		case s.n != nil && s.n.group != nil && !s.n.each:
			if h := s.n.group.past[0]; h != nil {
				return float64(h.retries), len(path) == 1
			}
		}
		return float64(0), len(path) == 1
	case "lastRetry":
		return s.lastRetry(path[1:])
	case "pod", "node":
		if len(path) != 2 || path[1] != "name" || s.task == "" {
			return nil, false
		}
		if s.pod != nil && path[0] == "pod" {
			*s.pod = true
			return task.PodName, true
		}
		return s.m.name + "-" + s.task, true
	}
	return nil, false
}

// input is a parameter or artifact that the template was given.
func (s scope) input(kind, name string) (workflow.Value, bool) {
	if s.lazy != nil {
		for i := range s.tmpl.Inputs {
			if in := &s.tmpl.Inputs[i]; in.Name == name && in.Artifact == (kind == "artifacts") {
				v, ok, err := give(in, s.args, *s.lazy)
				return v, ok && err == nil
			}
		}
		return nil, false
	}
	if s.n == nil {
		return nil, false
	}
	from := s.n.inputs
	if kind == "artifacts" {
		from = s.n.files
	}
	v, ok := from[name]
	return v, ok
}

func (s scope) lastRetry(path []string) (workflow.Value, bool) {
	l := s.last
	if l == nil && s.n != nil && s.n.group != nil && !s.n.each {
		l = s.n.group.past[0]
	}
	if l == nil || len(path) != 1 {
		return nil, false
	}
	switch path[0] {
	case "exitCode":
		return float64(l.exit), true
	case "status":
		return status(l.phase), true
	case "message":
		return l.message, true
	case "duration":
		return float64(max(l.ended-l.began, 0)) / 1000, true
	}
	return nil, false
}

// descend goes into maps and lists.
func descend(v workflow.Value, ok bool, path []string) (workflow.Value, bool) {
	for _, p := range path {
		if !ok {
			return nil, false
		}
		switch x := v.(type) {
		case map[string]any:
			v, ok = x[p]
		case []any:
			i, err := strconv.Atoi(p)
			if ok = err == nil && i >= 0 && i < len(x); ok {
				v = x[i]
			}
		case *workflow.File:
			v, ok = x.Field(p)
		default:
			return nil, false
		}
	}
	return v, ok
}

// aboutCall is what the calls of a DAG see of each other.
func (m *Machine) aboutCall(n *node, name string, path []string) (workflow.Value, bool) {
	i, ok := n.dag.plan.index[name]
	if !ok {
		return nil, false
	}
	p, c := n.dag.states[i], n.dag.children[i]
	if c != nil && c.stage >= stageLeaving {
		p = c.phase
	}
	if path[0] == "status" {
		if c != nil && c.serving() {
			p = Running
		}
		return status(p), len(path) == 1
	}
	if c == nil {
		return nil, false
	}
	switch path[0] {
	case "outputs":
		if c.outputs == nil {
			return nil, false
		}
		return descend(map[string]any(c.outputs), true, path[1:])
	case "id":
		return m.id + "-" + strconv.FormatUint(uint64(c.id), 10), len(path) == 1
	case "exitCode":
		return float64(c.exit), len(path) == 1
	case "startedAt":
		return stamp(c.started), len(path) == 1
	case "finishedAt":
		return stamp(c.ended), len(path) == 1 && c.ended != 0
	case "message":
		return c.message, len(path) == 1
	case "ip":
		return c.address, len(path) == 1 && c.address != ""
	}
	return nil, false
}

// need is how a call ended, as conditions ask for it.
func (m *Machine) need(n *node, name, what string) (workflow.Value, bool) {
	i, ok := n.dag.plan.index[name]
	if !ok {
		return nil, false
	}
	p, serves := n.dag.states[i], n.dag.serving(i)
	switch what {
	case "Succeeded":
		return p == Succeeded && !serves, true
	case "Failed":
		return p == Failed || p == Canceled, true
	case "Errored":
		return p == Errored, true
	case "Skipped":
		return p == Skipped, true
	case "Omitted":
		return p == Omitted, true
	case "Daemoned":
		return serves, true
	case "AnySucceeded", "AllFailed":
		c := n.dag.children[i]
		good, bad, all := 0, 0, 1
		switch {
		case c == nil:
		case c.group != nil:
			good, bad, all = c.group.good.n, c.group.bad.n+c.group.wrong.n, int(c.group.n)
		case c.fan != nil:
			good, bad, all = c.fan.good.n, c.fan.bad.n, int(c.list.n)
		case p == Succeeded:
			good = 1
		case p == Failed || p == Errored:
			bad = 1
		}
		if what == "AnySucceeded" {
			return good > 0, true
		}
		return bad == all, true
	}
	return nil, false
}

// aboutRun is what everybody sees of the run.
func (m *Machine) aboutRun(path []string) (workflow.Value, bool) {
	if len(path) == 0 {
		return nil, false
	}
	if len(path) > 1 {
		switch path[0] {
		case "parameters":
			v, ok := m.args[path[1]]
			if !ok {
				v, ok = m.graph.Args[path[1]]
			}
			return descend(v, ok, path[2:])
		case "outputs":
			return descend(map[string]any(m.globals), true, path[1:])
		case "labels":
			v, ok := m.graph.Labels[path[1]]
			return v, ok
		case "creationTimestamp":
			return creation(m.started, path[1])
		}
		return nil, false
	}
	switch path[0] {
	case "name":
		return m.name, true
	case "namespace":
		return m.namespace, true
	case "uid", "id":
		return m.id, true
	case "status":
		return status(m.phase), true
	case "mainEntrypoint":
		return m.graph.Entry, true
	case "priority":
		return float64(m.graph.Priority), true
	case "by":
		return m.by, true
	case "duration":
		return float64(m.now-m.started) / 1000, true
	case "creationTimestamp":
		return stamp(m.started), true
	case "scheduledTime":
		if m.scheduled == 0 { // a schedule's run that somebody began by hand is on time
			return stamp(m.started), true
		}
		return stamp(m.scheduled), true
	case "parameters":
		all := map[string]any{}
		for k, v := range m.graph.Args {
			all[k] = v
		}
		for k, v := range m.args {
			all[k] = v
		}
		return all, true
	case "failures":
		return m.failures(), true
	}
	return nil, false
}

// failures are the nodes that failed, as exit handlers see them.
func (m *Machine) failures() []any {
	const most = 100
	out := []any{}
	for _, n := range m.sorted() {
		if n.phase != Failed && n.phase != Errored || n.kind != kindLeaf || len(out) == most {
			continue
		}
		out = append(out, map[string]any{
			"displayName": m.label(n), "message": n.message, "templateName": n.name, "phase": status(n.phase),
			"podName": m.name + "-" + taskName(n, 0), "finishedAt": stamp(n.ended),
		})
	}
	return out
}

// creation formats the beginning by one letter of strftime, or by name.
func creation(ms int64, how string) (workflow.Value, bool) {
	t := time.UnixMilli(ms).UTC()
	layouts := map[string]string{"Y": "2006", "m": "01", "d": "02", "H": "15", "M": "04", "S": "05", "y": "06", "B": "January", "b": "Jan",
		"A": "Monday", "a": "Mon", "p": "PM", "I": "03", "j": "002", "F": "2006-01-02", "T": "15:04:05", "RFC3339": time.RFC3339}
	if how == "s" {
		return strconv.FormatInt(t.Unix(), 10), true
	}
	l, ok := layouts[how]
	if !ok {
		return nil, false
	}
	return t.Format(l), true
}

func stamp(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format(time.RFC3339)
}

// status is a phase as expressions compare it.
func status(p Phase) string {
	switch p {
	case Waiting:
		return "Pending"
	case Running:
		return "Running"
	case Succeeded:
		return "Succeeded"
	case Errored:
		return "Error"
	case Skipped:
		return "Skipped"
	case Omitted:
		return "Omitted"
	}
	return "Failed"
}
