package work

import (
	"maps"
	"slices"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// objects puts what a workflow wants of the objects that tasks ended with in their
// place: only that is kept. It is done before the outcomes become events, so that
// what is read once stays what it is.
func (s *Server) objects(outcomes []task.Outcome) []task.Outcome {
	cloned := false
	for i := range outcomes {
		o := &outcomes[i]
		object := o.Outputs[task.Object].Text
		if object == nil || !s.tokens.right(o.Ref) {
			continue
		}
		leaf, is := s.leaf(o.Ref).(workflow.Reader)
		if !is {
			continue // it is an output that somebody calls so
		}
		if !cloned { // whoever reports keeps what he has, to report it again
			outcomes, cloned = slices.Clone(outcomes), true
			o = &outcomes[i]
		}
		found, err := leaf.Read(*object)
		rest := maps.Clone(o.Outputs)
		delete(rest, task.Object)
		maps.Copy(rest, found)
		if o.Outputs = rest; err != nil && o.Phase == task.Succeeded {
			o.Phase, o.Exit, o.Message = task.Failed, 1, err.Error()
		}
	}
	return outcomes
}

// leaf is what a task was made by; nil where it is not known any more.
func (s *Server) leaf(r task.Ref) workflow.Leaf {
	t, err := machine.ParseTask(r.Task)
	if err != nil {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if run := s.runs[r.Run]; run != nil {
		return run.m.Leaf(t)
	}
	return nil
}
