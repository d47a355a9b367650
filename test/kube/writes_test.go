package kube_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/kube/jobs"
	"cairn.dev/cairn/test/cluster"
)

// writes counts what the API server was asked to change, by what, from its own
// metrics. Leases and status of nodes are left out: they are beats.
func writes(c *cluster.Cluster) map[string]int {
	out := map[string]int{}
	for line := range strings.SplitSeq(c.Kubectl("get", "--raw", "/metrics"), "\n") {
		rest, ok := strings.CutPrefix(line, "apiserver_request_total{")
		if !ok {
			continue
		}
		labels, value, _ := strings.Cut(rest, "} ")
		l := map[string]string{}
		for pair := range strings.SplitSeq(labels, ",") {
			k, v, _ := strings.Cut(pair, "=")
			l[k] = strings.Trim(v, `"`)
		}
		switch l["verb"] {
		case "POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION":
		default:
			continue
		}
		if l["resource"] == "leases" || l["resource"] == "nodes" { // a node's beats
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		what := l["verb"] + " " + l["resource"]
		if s := l["subresource"]; s != "" {
			what += "/" + s
		}
		out[what] += int(n)
	}
	return out
}

// grown is what has been asked since, and how much in all.
func grown(before, after map[string]int) (total int, text string) {
	for _, k := range slices.Sorted(maps.Keys(after)) {
		if n := after[k] - before[k]; n > 0 {
			total += n
			text += fmt.Sprintf("\n%6d %s", n, k)
		}
	}
	return total, text
}

// What a thousand tasks cost the control plane, from the first request to the
// last trace that is removed: as much as their pods, and next to nothing besides.
func TestWrites(t *testing.T) {
	for _, volume := range []bool{false, true} {
		t.Run(fmt.Sprintf("image volume %v", volume), func(t *testing.T) { countWrites(t, volume) })
	}
}

func countWrites(t *testing.T, volume bool) {
	// A kubelet that knows of no DNS says so with each pod.
	f := newFarm(t, cluster.Options{Nodes: 1, Kubelet: []string{"--cluster-dns=10.96.0.10", "--cluster-domain=cluster.local"}}, func(c *jobs.Config) {
		c.Linger, c.ImageVolume = time.Second, volume
	})
	f.succeeds(f.run(document("warm", 1, "command: ['true']")), 1, time.Minute) // images are there
	f.gone()
	for _, n := range []int{1, 1000} {
		before := writes(f.cluster)
		id := f.run(document("each", n, "command: ['true']"))
		f.succeeds(id, n, 3*time.Minute)
		f.gone()
		pods := min(n, 8)
		total, text := grown(before, writes(f.cluster))
		t.Logf("%d tasks in %d pods: %d writes, %.1f a pod%s", n, pods, total, float64(total)/float64(pods), text)
		if most := 20*pods + 30; total > most {
			t.Errorf("%d tasks in %d pods cost the API server %d writes, at most %d:%s", n, pods, total, most, text)
		}
	}
}

// gone waits until no Job and no pod is left.
func (f *farm) gone() {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		left := strings.TrimSpace(f.cluster.Kubectl("get", "jobs,pods", "-A", "-o", "name"))
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("these are left:\n%s", left)
		}
	}
}
