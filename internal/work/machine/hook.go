package machine

import "slices"

// fireHooks begins what hooks call whose conditions have become true. What a
// condition sees changes with every event, so they are looked at after each.
func (m *Machine) fireHooks() {
	if len(m.hooked) > 0 {
		for _, n := range slices.Clone(m.hooked) {
			m.fire(n)
		}
		m.hooked = slices.DeleteFunc(m.hooked, func(n *node) bool {
			return n.stage == stageEnded || !slices.Contains(n.hooks, false)
		})
	}
	if m.root != nil && m.ended == 0 {
		m.fireRunHooks()
	}
}

func (m *Machine) fire(n *node) {
	if n.stage == stageEnded || n.stopping || n.hooks == nil {
		return
	}
	s := m.caller(n.parent, n.call, n.value, n.role == roleItem)
	for i := range n.call.Hooks {
		h := &n.call.Hooks[i]
		if n.hooks[i] {
			continue
		}
		if h.When != nil {
			// A condition about what is not there yet is not true yet.
			if yes, err := truth(h.When, s); err != nil || !yes {
				continue
			}
		}
		n.hooks[i] = true
		x := m.add(n, roleHook, i, -1, h.Template)
		n.extras = append(n.extras, x)
		n.open++
		m.open(x)
	}
}

// fireRunHooks is the same for those of the run.
func (m *Machine) fireRunHooks() {
	for i := range m.graph.Hooks {
		h := &m.graph.Hooks[i]
		if m.hooksFired[i] {
			continue
		}
		if h.When != nil {
			if yes, err := truth(h.When, scope{m: m}); err != nil || !yes {
				continue
			}
		}
		m.hooksFired[i] = true
		x := m.add(nil, roleHook, i, -1, h.Template)
		m.openHooks++
		m.open(x)
	}
}
