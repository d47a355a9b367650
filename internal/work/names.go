package work

import (
	"context"
	"fmt"

	"cairn.dev/cairn/internal/work/machine"
)

// Names says what people call the tasks of a run. It is for one caller, who asks
// for many.
type Names struct {
	s     *Server
	run   string
	known map[string]string
	ended *machine.Machine // ours alone; nil as long as the run goes on
}

// Names are those of a run's tasks.
func (s *Server) Names(run string) *Names {
	return &Names{s: s, run: run, known: map[string]string{}}
}

// maxNames bounds what is remembered; then it begins anew.
const maxNames = 10_000

// Of is what people call a task, as [machine.Machine.Path] says; "" for one
// that the run does not know any more. What a run of many items was called
// goes with the item, once that went well.
func (n *Names) Of(ctx context.Context, task string) (string, error) {
	if name, ok := n.known[task]; ok {
		return name, nil
	}
	t, err := machine.ParseTask(task)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	name, err := n.find(ctx, t)
	if err != nil {
		return "", err
	}
	if len(n.known) >= maxNames {
		clear(n.known)
	}
	n.known[task] = name
	return name, nil
}

func (n *Names) find(ctx context.Context, t machine.Ref) (string, error) {
	if n.ended == nil {
		n.s.mu.RLock()
		if r := n.s.runs[n.run]; r != nil {
			defer n.s.mu.RUnlock()
			return r.m.Path(t), nil
		}
		n.s.mu.RUnlock()
		num, _, err := n.s.number(ctx, n.run)
		if err != nil {
			return "", err
		}
		r, err := n.s.read(ctx, num)
		if err != nil {
			return "", err
		}
		n.ended = r.m
	}
	return n.ended.Path(t), nil
}
