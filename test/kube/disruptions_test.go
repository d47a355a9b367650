package kube_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/test/images"
)

// disruptions are what clusters do to pods, and pods to themselves.
func (f *farm) disruptions(t *testing.T) {
	t.Run("a pod is evicted", f.evicted)
	t.Run("pods are preempted", f.preempted)
	t.Run("a task takes too much memory", f.tooLarge)
	t.Run("an image comes late", f.lateImage)
	t.Run("a quota of nothing", f.noQuota)
	t.Run("etcd is slow", f.slowEtcd)
}

// evicted: what kubectl drain and autoscalers do, by the API.
func (f *farm) evicted(t *testing.T) {
	id := f.run(document("evicted", 60, "command: [sleep, '0.3']"))
	pods := f.underway(id, 5)
	for _, p := range pods[:2] {
		body := fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q, "namespace": "default"}}`, p)
		if out, err := f.cluster.RunKubectl(t.Context(), body, "create", "--raw", "/api/v1/namespaces/default/pods/"+p+"/eviction", "-f", "-"); err != nil {
			t.Fatal(err, out)
		}
	}
	t.Log(f.whole(id, 60).Counts)
}

// preempted: something that matters more takes the place of pods.
func (f *farm) preempted(t *testing.T) {
	id := f.run(document("preempted", 60, "command: [sleep, '0.3'], resources: {cpu: 0.45}"))
	f.underway(id, 5)
	f.cluster.Apply(`
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: matters}
value: 1000
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: matters, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: matters}}
  template:
    metadata: {labels: {app: matters}}
    spec:
      priorityClassName: matters
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: 'busybox:1', command: [sleep, '1000'], resources: {requests: {cpu: 1500m}}}]
`)
	await(t, "pods were displaced", func() (string, bool) {
		out := strings.Fields(f.cluster.Kubectl("get", "events", "--field-selector=reason=Preempted", "-o", "jsonpath={.items[*].involvedObject.name}"))
		mine := 0
		for _, name := range out {
			if strings.Contains(name, id) {
				mine++
			}
		}
		return fmt.Sprint(out), mine >= 2
	})
	i := f.whole(id, 60)
	t.Log(i.Counts)
	f.cluster.Kubectl("delete", "deployment/matters", "priorityclass/matters")
}

// tooLarge: a program that takes more than its container may is killed by the
// kernel. That is the user's fault, and its retries are for that.
func (f *farm) tooLarge(t *testing.T) {
	id := f.run(`apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: large}
spec:
  entrypoint: main
  templates:
  - name: main
    retryStrategy: {limit: 1}
    container:
      image: busybox:1
      command: [sh, -c, 'x=x; while true; do x=$x$x; done']
      resources: {limits: {memory: 48Mi}}
`)
	i := f.ends(id, 90*time.Second)
	why := f.why(i)
	t.Log(i.Phase, i.Counts, why)
	if i.Phase != machine.Failed || i.Counts.Retries != 1 || !strings.Contains(why, "memory") {
		t.Errorf("it is %v after %d retries: %s; want failed after 1, for want of memory", i.Phase, i.Counts.Retries, why)
	}
}

// lateImage: an image that cannot be pulled yet delays a run, and no more.
func (f *farm) lateImage(t *testing.T) {
	id := f.run(strings.Replace(document("late", 3, "command: ['true']"), "busybox:1", "late:1", 1))
	await(t, "a pull has failed", func() (string, bool) {
		out := f.cluster.Kubectl("get", "pods", "-l", "cairn.dev/run="+id, "-o", "jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}")
		return out, strings.Contains(out, "Pull")
	})
	if err := images.Variant(t, "late", "library/late:1").Push(t.Context(), f.registry); err != nil {
		t.Fatal(err)
	}
	t.Log(f.whole(id, 3).Counts)
}

// noQuota: what a namespace does not let in waits for it to change its mind.
func (f *farm) noQuota(t *testing.T) {
	quota := `{apiVersion: v1, kind: ResourceQuota, metadata: {name: pods, namespace: tight}, spec: {hard: {pods: "%d"}}}`
	f.cluster.Apply("{apiVersion: v1, kind: Namespace, metadata: {name: tight}}\n---\n" + fmt.Sprintf(quota, 0))
	await(t, "the quota counts", func() (string, bool) {
		out := f.cluster.Kubectl("get", "resourcequota/pods", "--namespace=tight", "-o", "jsonpath={.status.hard.pods}")
		return out, out == "0"
	})
	id := f.runIn("tight", document("quota", 20, "command: ['true']"))
	await(t, "it is said why it waits", func() (string, bool) {
		why := f.made.Waits(id)
		return why, strings.Contains(why, "exceeded quota")
	})
	f.cluster.Apply(fmt.Sprintf(quota, 2))
	t.Log(f.whole(id, 20).Counts)
	if why := f.made.Waits(id); why != "" {
		t.Errorf("it has ended, and waits: %s", why)
	}
}

// slowEtcd: a control plane that is late with everything.
func (f *farm) slowEtcd(t *testing.T) {
	f.cluster.DelayEtcd(50*time.Millisecond, 200*time.Millisecond)
	defer f.cluster.DelayEtcd(0, 0)
	begin := time.Now()
	f.cluster.Kubectl("create", "configmap", "slow")
	if took := time.Since(begin); took < 100*time.Millisecond {
		t.Fatalf("etcd is not slow: %v", took)
	}
	id := f.run(document("slow", 60, "command: [sleep, '0.3']"))
	t.Log(f.whole(id, 60).Counts)
}
