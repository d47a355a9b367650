package machine

import (
	"fmt"
	"slices"
	"strconv"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
)

// Item is the item of a task, or where it has to be fetched from: then Render
// is given it. A task that is no item has neither.
func (m *Machine) Item(t Ref) (v workflow.Value, ref string) {
	n := m.nodes[t.Node]
	if n == nil || !n.each || n.list == nil {
		return nil, ""
	}
	if v, ok := n.list.value(t.Item); ok {
		return v, ""
	}
	return nil, n.list.ref
}

// Render makes the task that somebody holds. skip: its condition says that it
// is not to be run. pods: it is for a pod whose name is not known yet (see
// [task.PodName]). It only looks, and may run beside others that do.
func (m *Machine) Render(t Ref, item workflow.Value, pods bool) (out *task.Task, skip bool, err error) {
	n := m.nodes[t.Node]
	if n == nil || n.group == nil || n.tmpl == nil {
		return nil, false, fmt.Errorf("%w: render node %d", ErrNode, t.Node)
	}
	s := m.inside(n)
	if n.each {
		if n.call.When != nil {
			if yes, err := truth(n.call.When, m.caller(n.parent, n.call, item, true)); err != nil {
				return nil, false, fmt.Errorf("when: %w", err)
			} else if !yes {
				return nil, true, nil
			}
		}
		s = m.itemScope(n, item, true, t.Item)
		for i := range n.tmpl.Inputs { // what is missing is said before anything is run
			if _, _, err := give(&n.tmpl.Inputs[i], n.call.Args, *s.lazy); err != nil {
				return nil, false, err
			}
		}
		s.last = n.group.past[t.Item]
	}
	if pods {
		out, err = inPod(n.tmpl.Leaf, s)
	} else {
		out, err = n.tmpl.Leaf.Render(s)
	}
	if err != nil {
		return nil, false, err
	}
	if n.tmpl.Timeout > 0 && (out.Timeout == 0 || out.Timeout > n.tmpl.Timeout) {
		out.Timeout = n.tmpl.Timeout
	}
	if out.Isolation == "" {
		out.Isolation = m.graph.Isolation
	}
	return out, false, nil
}

// inPod leaves the name of its pod in a task to be filled in, wherever the pod
// itself sees it. Where the server does (stores, the pod's own definition), the
// task's name takes its place.
func inPod(leaf workflow.Leaf, s scope) (*task.Task, error) {
	asked := false
	s.pod = &asked
	named, err := leaf.Render(s)
	if err != nil || !asked {
		return named, err
	}
	s.pod = nil
	plain, err := leaf.Render(s)
	if err != nil {
		return nil, err
	}
	out := *plain
	out.PodName = true
	out.Command, out.Args, out.Env, out.Script, out.Resource = named.Command, named.Args, named.Env, named.Script, named.Resource
	out.Inputs = slices.Clone(plain.Inputs)
	for i := range out.Inputs {
		if i < len(named.Inputs) {
			out.Inputs[i].Content = named.Inputs[i].Content
		}
	}
	return &out, nil
}

// TaskName is what a task is called within its run.
func (m *Machine) TaskName(t Ref) string {
	if n := m.nodes[t.Node]; n != nil {
		return taskName(n, t.Item)
	}
	return strconv.FormatUint(uint64(t.Node), 10)
}

// ParseTask reads what [Machine.TaskName] wrote.
func ParseTask(s string) (Ref, error) {
	node, item, fan := s, "0", false
	for i := range len(s) {
		if s[i] == '.' {
			node, item, fan = s[:i], s[i+1:], true
			break
		}
	}
	a, err := strconv.ParseUint(node, 10, 32)
	if err != nil {
		return Ref{}, fmt.Errorf("%.40q names no task: it is NODE or NODE.ITEM", s)
	}
	b, err := strconv.ParseUint(item, 10, 32)
	if err != nil || fan && item == "" {
		return Ref{}, fmt.Errorf("%.40q names no task: it is NODE or NODE.ITEM", s)
	}
	return Ref{uint32(a), uint32(b)}, nil
}

// Requests are the questions that have no answer yet: after a restart, who
// asked and who was asked have forgotten.
func (m *Machine) Requests() (out []Effect) {
	if m.ended != 0 {
		return nil
	}
	for _, n := range m.sorted() {
		switch n.stage {
		case stageLocking:
			for i := range n.locks {
				if !n.locks[i].held {
					out = append(out, m.lockRequest(n, i))
					break
				}
			}
		case stageRecalling:
			out = append(out, m.recallRequest(n))
		case stageListing:
			if e, err := m.listRequest(n); err == nil {
				out = append(out, e)
			}
		case stageGathering:
			out = append(out, Gather{n.id})
		case stageRunning:
			if n.fan != nil && !n.fan.stopping && n.fan.asked > n.fan.next {
				out = append(out, m.fetchRequest(n))
			}
			if n.group != nil {
				var stops []Stop
				for i, a := range n.group.active {
					if a.stop {
						stops = append(stops, Stop{n.id, i, a.attempt})
					}
				}
				slices.SortFunc(stops, func(a, b Stop) int { return int(a.Item) - int(b.Item) })
				for _, s := range stops {
					out = append(out, s)
				}
			}
		}
	}
	return out
}

// Held are the locks that the run holds.
func (m *Machine) Held() (out []Lock) {
	for _, n := range m.sorted() {
		for i, l := range n.locks {
			if l.held {
				out = append(out, m.lockRequest(n, i))
			}
		}
	}
	return out
}
