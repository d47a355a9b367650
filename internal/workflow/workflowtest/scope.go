// Package workflowtest has scopes for tests of expressions.
//
// It owns a Scope that is written down as a map. It does not know how a run
// comes by its values.
package workflowtest

import (
	"strconv"

	"cairn.dev/cairn/internal/workflow"
)

// A Scope is the values of a test: maps in maps, whose first keys are
// "inputs", "tasks", "item" and so on.
type Scope map[string]any

// Lookup implements [workflow.Scope].
func (s Scope) Lookup(path ...string) (workflow.Value, bool) {
	var v any = map[string]any(s)
	for _, p := range path {
		switch x := v.(type) {
		case map[string]any:
			next, ok := x[p]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i < 0 || i >= len(x) {
				return nil, false
			}
			v = x[i]
		case *workflow.File:
			next, ok := x.Field(p)
			if !ok {
				return nil, false
			}
			v = next
		default:
			return nil, false
		}
	}
	return v, len(path) > 0
}

// Inputs is a scope that has these parameters.
func Inputs(params map[string]any) Scope {
	return Scope{"inputs": map[string]any{"parameters": params}}
}
