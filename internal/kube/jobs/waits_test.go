package jobs

import (
	"errors"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"cairn.dev/cairn/internal/kube/dispatch"
)

// What keeps pods from starting is said once it lasts, in the cluster's words,
// and no longer than it is so.
func TestWaits(t *testing.T) {
	w := newWorld(t, Config{})
	var told []string
	w.c.d.Waits = func(run string) { told = append(told, run) }
	says := func(what string, after time.Duration, want string, tells int) {
		t.Helper()
		told = nil
		w.step(after)
		if got := w.c.Waits("r1"); got != want || len(told) != tells {
			t.Errorf("%s: it says %q and told %d times, want %q and %d", what, got, len(told), want, tells)
		}
	}
	w.want = []dispatch.Demand{demand("r1", "data", 5, 0)}
	says("it begins", 0, "", 0)
	w.becomes(first, func(*batchv1.JobStatus) {}) // no pod was ever made
	says("most begin sooner", time.Second, "", 0)
	says("a quota", 3*time.Second, "no pod of Job "+first+" is let in: exceeded quota: none; "+quotaCure, 1)
	says("the same is said once", time.Minute, "no pod of Job "+first+" is let in: exceeded quota: none; "+quotaCure, 0)
	w.becomes(first, func(s *batchv1.JobStatus) { s.Active = 5 })
	w.pod(first, "a", func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodPending
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/3 nodes"}}
	})
	says("there are pods", 0, "", 1)
	says("no node", 4*time.Second, "pod a: no node takes the pod: 0/3 nodes", 1)
	w.pod(first, "a", func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodPending
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "1/3 nodes"}}
	})
	says("other words are not worth a write yet", 4*time.Second, "pod a: no node takes the pod: 0/3 nodes", 0)
	says("but later", waitsFor, "pod a: no node takes the pod: 1/3 nodes", 1)
	w.pod(first, "a", func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning })
	says("it runs", 0, "", 1)

	other := newWorld(t, Config{})
	other.want, other.err = []dispatch.Demand{demand("r1", "data", 5, 0)}, apierrors.NewForbidden(schema.GroupResource{Resource: "jobs"}, "x", errors.New("exceeded quota: jobs"))
	w = other
	w.c.d.Waits = func(run string) { told = append(told, run) }
	says("a quota of Jobs", 0, `make pods in namespace data: jobs "x" is forbidden: exceeded quota: jobs; `+quotaCure, 1)
	other.err = nil
	says("it was raised", time.Minute, "", 1)
}

const quotaCure = "raise the ResourceQuota of the namespace, ask for less, or wait until others have ended"

// What a pod does not say itself its events do. They are asked for seldom: the
// API server has no index of them.
func TestEventsSayWhatPodsDoNot(t *testing.T) {
	w := newWorld(t, Config{})
	w.want = []dispatch.Demand{demand("r1", "data", 5, 0)}
	w.step(0)
	w.becomes(first, func(s *batchv1.JobStatus) { s.Active = 5 })
	creating := func(p *corev1.Pod) {
		p.Spec.NodeName, p.Status.Phase = "n", corev1.PodPending
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: Main, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}}}
	}
	for _, name := range []string{"a", "b", "c"} {
		w.pod(first, name, creating)
	}
	says := func(what string, after time.Duration, want string, looks int) {
		t.Helper()
		w.looks = nil
		w.step(after)
		if got := w.c.Waits("r1"); got != want || len(w.looks) != looks {
			t.Errorf("%s: it says %q and asked for %v, want %q and %d", what, got, w.looks, want, looks)
		}
	}
	says("most begin sooner", time.Second, "", 0)
	says("there is nothing yet", 3*time.Second, "", 1)
	says("not so soon again", askEvery/2, "", 0)
	w.warned["Pod"] = event{reason: "FailedMount", message: `MountVolume.SetUp failed for volume "keys" : secret "keys" not found`}
	want := `FailedMount: MountVolume.SetUp failed for volume "keys" : secret "keys" not found; make it in this namespace, or mark it as optional`
	w.looks = nil
	w.step(askEvery)
	got := w.c.Waits("r1")
	if len(w.looks) != 1 || !strings.HasSuffix(got, want) {
		t.Fatalf("after %v it says %q", w.looks, got)
	}
	name := strings.TrimPrefix(w.looks[0], "Pod ")
	w.pod(first, name, func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning })
	if says("it runs", 0, "", 0); w.c.pods["data/"+name].trouble != "" {
		t.Errorf("it runs, and %+v", w.c.pods["data/"+name])
	}
	w.pod(first, name, creating)
	w.step(2 * waitsFor)
	// It is its own, so its run does not wait for long.
	w.told = nil
	w.step(2 * time.Minute)
	if len(w.told) != 1 || !strings.Contains(w.told[0], want) {
		t.Errorf("%v was told, want that the run fails", w.told)
	}
}

// A pod that has ended and is to be made again is in no count of its Job's: that
// it was let in is known all the same, and why it ended is said meanwhile.
func TestPodsThatEndBeforeTheirTask(t *testing.T) {
	w := newWorld(t, Config{})
	w.want = []dispatch.Demand{demand("r1", "data", 1, 0)}
	w.step(0)
	w.becomes(first, func(*batchv1.JobStatus) {})
	w.pod(first, "a", func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodFailed
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "fetch", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 7, Reason: "Error"}}}}
	})
	w.told = nil
	w.step(11 * time.Minute)
	if len(w.told) > 0 {
		t.Errorf("it is told %v", w.told)
	}
	if got := w.c.Waits("r1"); got != "pod a: container fetch ended: exit code 7; another one is tried" {
		t.Errorf("it says %q", got)
	}
}
