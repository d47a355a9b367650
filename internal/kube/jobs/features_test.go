package jobs

import (
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"cairn.dev/cairn/internal/kube/dispatch"
)

// admit is what Kueue does with a Job that waits.
func (w *world) admit(name string) {
	w.t.Helper()
	j := w.jobs[name].DeepCopy()
	j.Spec.Suspend = ptr(false)
	j.ResourceVersion += "1"
	j.Status.Active = *j.Spec.Completions
	w.jobs[name] = j
	jobSink{w.c}.put(j)
}

// A Job that waits in a queue of Kueue may grow; one that was let in may not,
// and what more is needed is another Job beside it.
func TestQueue(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 8, Burst: 100, Queue: "batch"})
	w.kueued = true
	w.want = []dispatch.Demand{demand("r1", "data", 2, 0)}
	w.expect("it waits", time.Second, "create "+first+" 2")
	if j := w.jobs[first]; !*j.Spec.Suspend || j.Labels[labelQueue] != "batch" {
		t.Errorf("%v %v", *j.Spec.Suspend, j.Labels)
	}
	w.want[0].Queued = 3
	w.expect("it grows while it waits", time.Minute, "resize "+first+" 3")
	// It is let in, and that is not known here yet.
	j := w.jobs[first].DeepCopy()
	j.ResourceVersion = "2"
	w.jobs[first] = j
	w.want[0].Queued = 4
	w.expect("it is let in meanwhile", time.Second, "resize "+first+" 4")
	if got := *w.jobs[first].Spec.Completions; got != 3 {
		t.Errorf("it has %d", got)
	}
	w.admit(first)
	w.want[0].Queued, w.want[0].Held = 100, 3
	w.expect("more is another Job", time.Second, "create cairn-r1-c-2 5")
	w.admit("cairn-r1-c-2")
	w.expect("both count", time.Minute, "")
	w.becomes(first, func(s *batchv1.JobStatus) {
		s.CompletedIndexes = "0-2"
		s.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	})
	w.expect("one has ended", time.Second, "create cairn-r1-c-3 3")
	w.want = nil
	w.over["r1"] = true
	w.step(time.Second)
	got := w.step(leaveTime + time.Second)
	for _, name := range []string{"cairn-r1-c-2", "cairn-r1-c-3"} {
		if !strings.Contains(got, "delete "+name) {
			t.Errorf("%s stays: %q", name, got)
		}
	}
}

// After a start all Jobs of a run are known again, in whatever order they come.
func TestQueueAfterStart(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 8, Burst: 100, Queue: "batch"})
	w.kueued = true
	w.want = []dispatch.Demand{demand("r1", "data", 2, 0)}
	w.step(time.Second)
	w.admit(first)
	w.want[0].Queued, w.want[0].Held = 3, 2
	w.expect("a second", time.Second, "create cairn-r1-c-2 3")
	for _, order := range [][]string{{first, "cairn-r1-c-2"}, {"cairn-r1-c-2", first}} {
		next := newWorld(t, Config{MaxPerRun: 8, Burst: 100, Queue: "batch"})
		next.kueued, next.want, next.jobs = true, w.want, w.jobs
		for _, name := range order {
			jobSink{next.c}.put(w.jobs[name])
		}
		next.expect("all there is is known", time.Second, "")
	}
}

// Nobody would start what waits where Kueue is not.
func TestNoKueue(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 1, Queue: "batch"})
	w.want = []dispatch.Demand{demand("r1", "data", 1, 0)}
	w.step(time.Second)
	if j := w.jobs[first]; j.Spec.Suspend != nil || j.Labels[labelQueue] != "" {
		t.Errorf("%v %v", j.Spec.Suspend, j.Labels)
	}
	w.kueued = true
	w.want = append(w.want, demand("r2", "data", 1, 0))
	w.step(2 * queueFor)
	if j := w.jobs["cairn-r2-c-1"]; j.Spec.Suspend == nil || !*j.Spec.Suspend {
		t.Error("it is not seen that Kueue was installed")
	}
}

func TestLacking(t *testing.T) {
	node := func(kubelet, runtime string, edit ...func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{}
		n.Status.NodeInfo = corev1.NodeSystemInfo{KubeletVersion: kubelet, ContainerRuntimeVersion: runtime, OperatingSystem: "linux"}
		for _, f := range edit {
			f(n)
		}
		return n
	}
	for name, c := range map[string]struct {
		node *corev1.Node
		want string
	}{
		"new":             {node("v1.35.0", "containerd://2.1.0"), ""},
		"of a cloud":      {node("v1.36.1-gke.100", "containerd://2.2.1~ds1"), ""},
		"CRI-O":           {node("v1.35.2", "cri-o://1.35.0"), ""},
		"old containerd":  {node("v1.35.0", "containerd://1.7.27"), "containerd 2.1"},
		"2.0":             {node("v1.35.0", "containerd://2.0.9"), "containerd 2.1"},
		"old CRI-O":       {node("v1.35.0", "cri-o://1.32.1"), "CRI-O 1.33"},
		"another runtime": {node("v1.36.0", "docker://29.0.0"), "docker://29.0.0"},
		"old kubelet":     {node("v1.34.9", "containerd://2.1.0"), "v1.34.9"},
		"not telling":     {node("fake", ""), "fake"},
		"cordoned":        {node("v1.30.0", "containerd://1.6.0", func(n *corev1.Node) { n.Spec.Unschedulable = true }), ""},
		"windows":         {node("v1.30.0", "containerd://1.6.0", func(n *corev1.Node) { n.Status.NodeInfo.OperatingSystem = "windows" }), ""},
	} {
		if got := lacking(c.node); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	for v, want := range map[string]bool{"1.35": true, "1.35+": true, "v1.36.0": true, "2.0": true, "1.34": false, "": false, "1": false, "x.35": false, "1.": false} {
		if atLeast(v, 1, 35) != want {
			t.Errorf("%q", v)
		}
	}
}

// Images are mounted where that is known to work, and where it turns out not to
// the worker is copied, and no run suffers.
func TestImageVolumes(t *testing.T) {
	mounted := func(w *world, name string) bool {
		for _, v := range w.jobs[name].Spec.Template.Spec.Volumes {
			if v.Name == "cairn-bin" {
				return v.Image != nil
			}
		}
		return false
	}
	w := newWorld(t, Config{MaxPerRun: 1, FindImageVolume: true})
	w.lacks = "node a is old"
	w.want = []dispatch.Demand{demand("r1", "data", 1, 0)}
	w.step(time.Second)
	if mounted(w, first) {
		t.Error("it is mounted where that does not work")
	}
	w.lacks = ""
	w.want = []dispatch.Demand{demand("r2", "data", 1, 0)}
	w.step(2 * volumesFor)
	if !mounted(w, "cairn-r2-c-1") {
		t.Fatal("it is not mounted")
	}
	w.pod("cairn-r2-c-1", "p1", func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodPending
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: Main, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerError", Message: "mkdir : no such file or directory"}}}}
	})
	if got := w.step(time.Second); !strings.Contains(got, "delete cairn-r2-c-1") {
		t.Errorf("%q", got)
	}
	podSink{w.c}.drop(w.pods["p1"])
	w.step(10 * time.Second)
	if w.jobs["cairn-r2-c-2"] == nil || mounted(w, "cairn-r2-c-2") {
		t.Errorf("it is not tried without: %q", w.calls)
	}
	if len(w.told) != 1 || !strings.HasPrefix(w.told[0], "gone p1") {
		t.Errorf("the run was told %q", w.told)
	}
	// By whoever says that it works, it is as he says.
	w = newWorld(t, Config{MaxPerRun: 1, ImageVolume: true})
	w.lacks = "node a is old"
	w.want = []dispatch.Demand{demand("r1", "data", 1, 0)}
	w.step(time.Second)
	if !mounted(w, first) {
		t.Error("it is not mounted")
	}
}
