package machine

import (
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

// An attempt whose time is up has failed, also when nobody is left to say so.
// One that comes back unbegun has not had its time.
func TestTimeIsUpAndWorkerIsGone(t *testing.T) {
	for _, c := range []struct {
		name    string
		event   func(l Lease) Event
		retry   *workflow.Retry
		phase   Phase
		message string
		granted int // attempts
	}{
		{"lost", func(l Lease) Event { return Lost{[]Ref{l.Ref}} }, nil, Failed, "has had its time of 10s; its worker w is gone", 1},
		{"given up", func(l Lease) Event {
			return &Ended{Results: []Result{{Node: l.Node, Item: l.Item, Attempt: l.Attempt, Phase: Errored, Infrastructure: true, Message: "no disk"}}}
		}, nil, Failed, "has had its time of 10s", 1},
		{"lost, with retries", func(l Lease) Event { return Lost{[]Ref{l.Ref}} }, &workflow.Retry{Limit: workflow.Constant{Value: 1.0}, On: "failure"}, Succeeded, "", 2},
		{"given back", func(l Lease) Event { return Back{[]Ref{l.Ref}} }, nil, Succeeded, "", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := worktest.Task()
			task.Timeout, task.Retry = 10*time.Second, c.retry
			s := start(t, worktest.Graph("g", map[string]*workflow.Template{"main": worktest.DAG(worktest.Call("a", "t")), "t": task}))
			_, leases := s.m.Grant(s.at, "w", 10)
			if len(leases) != 1 {
				t.Fatalf("granted %v", leases)
			}
			s.at = s.at.Add(11 * time.Second)
			s.do(Tick{})
			s.do(c.event(leases[0]))
			granted := 1
			for range s.all(ok) {
				granted++
			}
			if s.m.phase != c.phase || granted != c.granted {
				t.Errorf("%s after %d attempts, want %s after %d: %s", s.m.phase, granted, c.phase, c.granted, s.m.root.message)
			}
			if !strings.Contains(s.m.root.message, c.message) {
				t.Errorf("it says %q, nothing of %q", s.m.root.message, c.message)
			}
		})
	}
}
