package work_test

import (
	"errors"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

// A run stays as long as it says, one that failed as long as it says for that.
func TestKeep(t *testing.T) {
	r := newRig(t, work.Config{Keep: 3 * time.Hour})
	graph := func(name string, keep, failed time.Duration) *workflow.Graph {
		g := worktest.Graph(name, map[string]*workflow.Template{"main": worktest.Task()})
		g.Keep, g.KeepFailed = keep, failed
		return g
	}
	runs := map[string]struct {
		phase task.Phase
		graph *workflow.Graph
		hours int // that it is there
	}{
		"good":            {task.Succeeded, graph("good", time.Hour, 2*time.Hour), 1},
		"bad":             {task.Failed, graph("bad", time.Hour, 2*time.Hour), 2},
		"bad, one time":   {task.Failed, graph("bad, one time", time.Hour, 0), 1},
		"good, unsaid":    {task.Succeeded, graph("good, unsaid", 0, 0), 3},
		"bad, as another": {task.Failed, graph("bad, as another", 0, 0), 3},
	}
	ids, phases := map[string]string{}, map[string]task.Phase{}
	for name, x := range runs {
		ids[name] = r.submit(x.graph)
		phases[ids[name]] = x.phase
	}
	r.work(func(l task.Lease) task.Outcome { return task.Outcome{Phase: phases[l.Run]} })
	for hour := 1; hour <= 3; hour++ {
		r.clock.Advance(59 * time.Minute)
		check := func(over bool) {
			t.Helper()
			if err := r.s.Tidy(t.Context()); err != nil {
				t.Fatal(err)
			}
			for name, x := range runs {
				_, err := r.s.Get(t.Context(), ids[name])
				if gone := errors.Is(err, work.ErrNotFound); gone != (x.hours < hour || over && x.hours == hour) {
					t.Errorf("%s, hour %d: %v", name, hour, err)
				}
			}
		}
		check(false)
		r.clock.Advance(time.Minute)
		check(true)
	}
}
