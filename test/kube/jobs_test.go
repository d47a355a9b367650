package kube_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/test/cluster"
)

// What this is all for: one container, or a thousand, in pods that already have
// everything they need but the worker.
func TestPodsRunTasks(t *testing.T) {
	t.Parallel()
	f := newFarm(t, cluster.Options{Nodes: 1}, nil)
	for _, c := range []struct{ n, pods int }{{1, 1}, {100, 8}, {1000, 8}} {
		t.Run(fmt.Sprint(c.n), func(t *testing.T) {
			begin := time.Now()
			id := f.run(document("each", c.n, "command: [sh, -c, 'echo hello']"))
			i := f.succeeds(id, c.n, 3*time.Minute)
			t.Logf("%d tasks in %v; isolation %v", c.n, time.Since(begin).Round(10*time.Millisecond), i.Isolation)
			pods := strings.Fields(f.cluster.Kubectl("get", "pods", "-l", "cairn.dev/run="+id, "-o", "name"))
			if len(pods) > c.pods {
				t.Errorf("%d pods, at most %d are allowed", len(pods), c.pods)
			}
			f.mu.Lock()
			got := strings.Count(strings.Join(f.lines[id], ""), "hello\n")
			f.mu.Unlock()
			if got != c.n {
				t.Errorf("%d lines were printed, want %d", got, c.n)
			}
			if i.Counts.Crashes != 0 || i.Counts.Retries != 0 {
				t.Errorf("%+v", i.Counts)
			}
		})
	}
}
