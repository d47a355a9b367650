package machine

import "cairn.dev/cairn/internal/workflow"

// Leaf is what makes the task; nil where there is no such task.
func (m *Machine) Leaf(t Ref) workflow.Leaf {
	if n := m.nodes[t.Node]; n != nil && n.group != nil && n.tmpl != nil {
		return n.tmpl.Leaf
	}
	return nil
}
