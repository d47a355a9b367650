package kube_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/test/cluster"
)

// Nodes that differ: node1 can mount images, node2 has a runtime that has not
// heard of that; and claims that only one of them can have at a time.
func TestNodes(t *testing.T) {
	t.Parallel()
	f := newFarm(t, cluster.Options{Nodes: 2, OldNodes: 1}, func(f *farm) {
		f.jobs.FindImageVolume, f.jobs.Linger = true, 5*time.Minute
	})
	const mounted = "mounted"
	// The last of a run's Jobs, and how the worker came to its pods.
	brought := func(id string) string {
		return f.cluster.Kubectl("get", "jobs", "-l", "cairn.dev/run="+id, "--sort-by=.metadata.creationTimestamp", "-o", `jsonpath={range .items[-1:]}{.spec.template.spec.volumes[?(@.name=='cairn-bin')].image.reference}{.spec.template.spec.initContainers[*].name}{end}`)
	}
	run := func(t *testing.T, name, want string) {
		t.Helper()
		id := f.run(document(name, 4, "isolation: pod, retries: 2, command: ['true']"))
		i := f.succeeds(id, 4, 2*time.Minute)
		got := brought(id)
		t.Logf("%s: %s, %+v", name, got, i.Counts)
		if want == mounted && got != f.jobs.Worker || want != mounted && (got == "" || got == f.jobs.Worker) {
			t.Errorf("the worker of %s is not %s: %q", name, want, got)
		}
		if i.Counts.Retries != 0 {
			t.Errorf("%d retries of the user's were spent on a node", i.Counts.Retries)
		}
	}
	t.Run("an image volume where all nodes have them", func(t *testing.T) {
		f.cluster.Kubectl("cordon", "node2")
		run(t, "before", mounted)
	})
	t.Run("a node that has none appears while that is believed", func(t *testing.T) {
		f.cluster.Kubectl("cordon", "node1")
		f.cluster.Kubectl("uncordon", "node2")
		run(t, "appears", "copied")
		f.cluster.Kubectl("uncordon", "node1")
		run(t, "after", "copied")
	})
	t.Run("nodes are looked at again", func(t *testing.T) {
		f.clock.by.Add(int64(2 * time.Hour))
		run(t, "still", "copied")
	})
	t.Run("the node has gone", func(t *testing.T) {
		f.cluster.Kubectl("cordon", "node2")
		f.clock.by.Add(int64(2 * time.Hour))
		run(t, "gone", mounted)
		f.cluster.Kubectl("uncordon", "node2")
		f.clock.by.Add(int64(2 * time.Hour)) // as it is after a while
	})

	// A volume that is on node2, chosen with the first pod; and one of which the
	// cluster does not know where it is.
	dir := t.TempDir()
	for at := dir; len(at) > len(os.TempDir()); at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	disk := func(name, where string) {
		at := filepath.Join(dir, name)
		if err := os.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(at, 0o777); err != nil {
			t.Fatal(err)
		}
		f.cluster.Apply("{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: " + name + "}, provisioner: kubernetes.io/no-provisioner, volumeBindingMode: WaitForFirstConsumer}\n---\n" +
			"apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: " + name + "}\nspec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], storageClassName: " + name + ", persistentVolumeReclaimPolicy: Retain, " + strings.ReplaceAll(where, "PATH", at) + "}\n")
	}
	const there = "local: {path: PATH}, nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node2]}]}]}}"
	disk("local", there)
	disk("local-2", there)
	disk("anywhere", "hostPath: {path: PATH}")
	claiming := func(name, class, command string) string {
		return `apiVersion: cairn.dev/v1alpha1
kind: Workflow
metadata: {name: ` + name + `}
spec:
  pod: {volumeClaimTemplates: [{metadata: {name: work}, spec: {accessModes: [ReadWriteOnce], storageClassName: ` + class + `, resources: {requests: {storage: 1Gi}}}}]}
  tasks:
  - {name: write, image: 'busybox:1', isolation: pod, forEach: {count: 6}, command: [sh, -c, '` + command + `', sh, '${{ item }}'], volumes: [{name: work, path: /claim}]}
  - {name: read, image: 'busybox:1', needs: [write], command: [sh, -c, 'test $(ls /claim | wc -l) = 6'], volumes: [{name: work, path: /claim}]}
`
	}
	for _, class := range []string{"local", "anywhere"} {
		t.Run("a claim for one node, "+class, func(t *testing.T) {
			// Each task waits for all: they run at the same time.
			id := f.run(claiming("one-"+class, class, "echo > /claim/$1; for i in $(seq 60); do test $(ls /claim | wc -l) = 6 && exit; sleep 1; done; exit 1"))
			f.succeeds(id, 7, 2*time.Minute)
			nodes := strings.Fields(f.cluster.Kubectl("get", "pods", "-l", "cairn.dev/run="+id, "-o", "jsonpath={.items[*].spec.nodeName}"))
			first := slices.Compact(slices.Sorted(slices.Values(nodes)))
			t.Logf("%d pods on %v", len(nodes), first)
			if len(nodes) < 6 || len(first) != 1 || class == "local" && first[0] != "node2" {
				t.Errorf("the pods are on %v", nodes)
			}
		})
	}
	t.Run("a claim whose node takes no pods", func(t *testing.T) {
		f.cluster.Kubectl("cordon", "node2")
		id := f.run(claiming("waits", "local-2", "echo > /claim/$1"))
		await(t, "the run says what its pods wait for", func() (string, bool) {
			why := f.made.Waits(id)
			return why, strings.Contains(why, "node") && strings.Contains(why, "; ")
		})
		t.Log(f.made.Waits(id))
		f.cluster.Kubectl("uncordon", "node2")
		f.succeeds(id, 7, 2*time.Minute)
	})
}
