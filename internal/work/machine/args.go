package machine

import "cairn.dev/cairn/internal/workflow"

// Args are what the run was given over the arguments of its graph.
func (m *Machine) Args() map[string]workflow.Value { return m.args }

// Fits says whether [Machine.Apply] would take the event, as far as that is
// known before.
func (m *Machine) Fits(e Event) error { return m.check(e) }
