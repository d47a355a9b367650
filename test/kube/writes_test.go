package kube_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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
	t.Parallel()
	// A kubelet that knows of no DNS says so with each pod.
	f := newFarm(t, cluster.Options{Nodes: 1, Kubelet: []string{"--cluster-dns=10.96.0.10", "--cluster-domain=cluster.local"}}, func(f *farm) { f.jobs.Linger = time.Second })
	for _, volume := range []bool{false, true} {
		t.Run(fmt.Sprintf("image volume %v", volume), func(t *testing.T) {
			f.stop()
			f.jobs.ImageVolume = volume
			f.start()
			f.countWrites(t)
		})
	}
}

func (f *farm) countWrites(t *testing.T) {
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
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		left := strings.TrimSpace(f.cluster.Kubectl("get", "jobs,pods", "-A", "-o", "name"))
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("these are left:\n%s", left)
		}
	}
}

// Many small runs share warm pods: each costs the control plane nothing, and
// begins at once.
func TestWarmPods(t *testing.T) {
	t.Parallel()
	f := newFarm(t, cluster.Options{Nodes: 1}, func(f *farm) { f.tasks.Warm, f.jobs.MaxPerRun, f.jobs.Linger = 10*time.Second, 4, time.Second })
	first := f.run(document("first", 8, "command: [sleep, '1']"))
	f.succeeds(first, 8, time.Minute)
	before := writes(f.cluster)
	const n = 50
	begin := time.Now()
	var ids []string
	for i := range n {
		ids = append(ids, f.run(document(fmt.Sprint("small-", i), 1, "command: [echo, hello]")))
	}
	for _, id := range ids {
		f.succeeds(id, 1, time.Minute)
	}
	took := time.Since(begin)
	total, text := grown(before, writes(f.cluster))
	t.Logf("%d runs of one task in %v: %d writes%s", n, took.Round(time.Millisecond), total, text)
	if total > 8*n {
		t.Errorf("%d writes for %d runs, at most 8 each", total, n)
	}
	var waits []time.Duration
	for i := range 20 {
		begin := time.Now()
		id := f.run(document(fmt.Sprint("one-", i), 1, "command: [echo, hello]"))
		for f.printed(id) == 0 {
			if time.Since(begin) > 20*time.Second {
				t.Fatal("it prints nothing")
			}
			time.Sleep(5 * time.Millisecond)
		}
		waits = append(waits, time.Since(begin))
	}
	slices.Sort(waits)
	t.Logf("from submit to the first line: p50 %v, slowest %v", waits[len(waits)/2].Round(time.Millisecond), waits[len(waits)-1].Round(time.Millisecond))
	if waits[len(waits)/2] > time.Second {
		t.Error("the first line of a run in warm pods takes more than a second")
	}
	f.gone() // idle ones leave
}

// printed is how many pieces of output of a run have come.
func (f *farm) printed(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.lines[id])
}
