package kube_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/test/cluster"
)

// underway waits until a run has so many tasks done and pods that run.
func (f *farm) underway(id string, done int) []string {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		i, err := f.server.Get(f.t.Context(), id)
		if err != nil {
			f.t.Fatal(err)
		}
		if int(i.Counts.Succeeded) >= done {
			return strings.Fields(f.cluster.Kubectl("get", "pods", "-l", "cairn.dev/run="+id, "--field-selector", "status.phase=Running", "-o", "jsonpath={.items[*].metadata.name}"))
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("run %s does not get on: %+v", id, i)
		}
	}
}

// whole checks that a run ended well, and that nothing that happened to its
// pods was at the user's expense.
func (f *farm) whole(id string, n int) work.Info {
	f.t.Helper()
	i := f.ends(id, 3*time.Minute)
	if i.Phase != machine.Succeeded || int(i.Counts.Succeeded) != n || i.Counts.Retries != 0 {
		f.t.Errorf("%+v", i)
	}
	return i
}

// Whatever happens to pods, nodes and ourselves: every run ends with the right
// result, and retries of users are not spent.
func TestFaults(t *testing.T) {
	t.Parallel()
	f := newFarm(t, cluster.Options{Nodes: 2, EtcdDoor: true}, func(f *farm) { f.jobs.MaxPerRun = 4 })
	c := f.cluster
	slow := func(name string) string { return f.run(document(name, 60, "command: [sleep, '0.3']")) }
	f.succeeds(f.run(document("warm", 16, "command: [sleep, '0.5']")), 16, time.Minute)

	t.Run("pods are deleted", func(t *testing.T) {
		id := slow("deleted")
		pods := f.underway(id, 5)
		if len(pods) < 2 {
			t.Fatalf("pods %v", pods)
		}
		c.Kubectl("delete", "pod", "--wait=false", pods[0])
		c.Kubectl("delete", "pod", "--wait=false", "--force", "--grace-period=0", pods[1])
		t.Log(f.whole(id, 60).Counts)
	})
	t.Run("a worker is killed", func(t *testing.T) {
		id := slow("killed")
		pods := f.underway(id, 5)
		// To the kernel, PID 1 of a container is a process like any other from outside.
		if _, err := c.RunKubectl(t.Context(), "", "exec", pods[0], "-c", "main", "--", "kill", "-TERM", "1"); err != nil {
			t.Log(err)
		}
		t.Log(f.whole(id, 60).Counts)
	})
	f.disruptions(t)
	t.Run("a node is drained", func(t *testing.T) {
		id := slow("drained")
		f.underway(id, 5)
		c.Kubectl("drain", "node1", "--force", "--ignore-daemonsets", "--delete-emptydir-data", "--grace-period=1", "--timeout=60s")
		t.Log(f.whole(id, 60).Counts)
		c.Kubectl("uncordon", "node1")
	})
	t.Run("Cairn begins again", func(t *testing.T) {
		id := slow("restart")
		f.underway(id, 5)
		begin := time.Now()
		f.stop()
		f.start()
		i := f.whole(id, 60)
		t.Log(i.Counts, "after", time.Since(begin).Round(time.Second))
		if i.Counts.Crashes != 0 {
			t.Errorf("workers that outlived the server lost something: %+v", i.Counts)
		}
	})
	t.Run("Jobs of runs that ended meanwhile are removed", func(t *testing.T) {
		id := slow("ended")
		f.underway(id, 5)
		if err := f.server.Cancel(t.Context(), id, "ann", true); err != nil {
			t.Fatal(err)
		}
		f.stop()
		f.start()
		f.ends(id, time.Minute)
		for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(200 * time.Millisecond) {
			left := strings.TrimSpace(c.Kubectl("get", "jobs", "-l", "cairn.dev/run="+id, "-o", "jsonpath={.items[?(@.status.active>0)].metadata.name}"))
			if left == "" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is left", left)
			}
		}
	})
	t.Run("the API server begins again", func(t *testing.T) {
		id := slow("apiserver")
		f.underway(id, 5)
		if err := c.Stop(t.Context(), 0, "kube-apiserver"); err != nil {
			t.Fatal(err)
		}
		other := slow("meanwhile") // whose pods cannot be made now
		time.Sleep(3 * time.Second)
		if err := c.Run(t.Context(), 0, "kube-apiserver"); err != nil {
			t.Fatal(err)
		}
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Log(f.whole(id, 60).Counts, f.whole(other, 60).Counts)
	})
	t.Run("a node is gone", func(t *testing.T) {
		id := slow("gone")
		f.underway(id, 5)
		// No kubelet, and nobody to speak for its pods: their workers go on.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Stop(ctx, 1, "kubelet"); err != nil {
			t.Fatal(err)
		}
		t.Log(f.whole(id, 60).Counts)
		again := f.run(document("after", 8, "command: [sleep, '0.5']"))
		t.Log(f.whole(again, 8).Counts)
		if err := c.Run(t.Context(), 1, "kubelet"); err != nil {
			t.Fatal(err)
		}
	})
}
