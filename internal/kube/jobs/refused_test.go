package jobs

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"cairn.dev/cairn/internal/kube/dispatch"
)

// Pods for which there is no room in one namespace keep no other one waiting,
// and those that have a node and lack something else nobody.
func TestPendingIsOneNamespaces(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 4, MaxPending: 3, Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 4, 0)}
	w.step(time.Second)
	for i := range 4 {
		w.pod(first, fmt.Sprint("p", i), func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodPending
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/3 nodes"}}
		})
	}
	w.want = append(w.want, demand("r2", "data", 4, 0), demand("r3", "other", 4, 0))
	w.expect("no room", time.Second, "create cairn-r3-c-1 4")
	for i := range 4 {
		w.pod(first, fmt.Sprint("p", i), func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodPending
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: Main, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}}}
		})
	}
	w.expect("no image", time.Second, "create cairn-r2-c-1 4")
}

// A Job that somebody stopped says so, and how it goes on; it is not failed.
func TestStoppedByHand(t *testing.T) {
	zero, yes := int32(0), true
	for name, c := range map[string]struct {
		edit func(*batchv1.Job)
		want string
	}{
		"parallelism": {func(j *batchv1.Job) { j.Spec.Parallelism = &zero }, "Job " + first + ` has parallelism 0, so that it has no pods: kubectl patch job -n data ` + first + ` --type=merge -p '{"spec":{"parallelism":3}}' has it go on; when it is deleted, another one is made`},
		"suspended":   {func(j *batchv1.Job) { j.Spec.Suspend = &yes }, "Job " + first + ` is suspended, so that it has no pods: kubectl patch job -n data ` + first + ` --type=merge -p '{"spec":{"suspend":false}}' has it go on; when it is deleted, another one is made`},
		"Kueue":       {func(j *batchv1.Job) { j.Spec.Suspend, j.Labels[labelQueue] = &yes, "q" }, "Job " + first + " is suspended: its queue has not admitted it"},
	} {
		w := newWorld(t, Config{Burst: 100})
		w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
		w.step(time.Second)
		w.becomes(first, func(s *batchv1.JobStatus) { s.Active = 3 })
		w.pod(first, "p", func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning })
		w.step(time.Minute)
		podSink{w.c}.drop(w.pods["p"])
		w.told = nil
		j := w.jobs[first].DeepCopy()
		c.edit(j)
		j.Status.Active = 0
		jobSink{w.c}.put(j)
		w.step(time.Second)
		if got := w.c.Waits("r1"); got != c.want {
			t.Errorf("%s: it says %q, want %q", name, got, c.want)
		}
		if w.step(time.Hour); len(w.told) > 0 {
			t.Errorf("%s: told %q", name, w.told)
		}
	}
}

// A right that is missing may be given yet: the runs of the namespace say that
// they wait for it, and end when it does not come.
func TestMissingRight(t *testing.T) {
	w := newWorld(t, Config{Burst: 100})
	w.noKey = apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "", errors.New(`User "system:serviceaccount:cairn:cairn" cannot create resource "secrets" in API group "" in the namespace "data"`))
	w.want = []dispatch.Demand{demand("r1", "data", 3, 0), demand("r2", "data", 3, 0)}
	w.step(time.Second)
	for _, run := range []string{"r1", "r2"} {
		if got := w.c.Waits(run); !strings.Contains(got, `cannot create resource "secrets"`) || !strings.Contains(got, "what cairn install prints gives it") {
			t.Errorf("%s says %q", run, got)
		}
	}
	for range 590 {
		w.step(time.Second)
	}
	if len(w.told) > 0 {
		t.Fatalf("told %q", w.told)
	}
	if n := len(w.keys); n < 8 || n > 20 {
		t.Errorf("it was tried %d times in ten minutes", n)
	}
	for range 20 {
		w.step(time.Second)
	}
	if got := strings.Join(w.told, "; "); !strings.Contains(got, "fail r1 false: make pods in namespace data: ") || !strings.Contains(got, "fail r2 false: ") || !strings.Contains(got, "it was tried for 10m0s") {
		t.Errorf("told %q", got)
	}

	w.want, w.told = []dispatch.Demand{demand("r3", "data", 3, 0)}, nil
	w.step(time.Second)
	w.noKey = nil
	w.expect("it was given", time.Minute, "create cairn-r3-c-1 3")
	if w.step(time.Second); w.c.Waits("r3") != "" || len(w.told) > 0 {
		t.Errorf("it says %q, and told %q", w.c.Waits("r3"), w.told)
	}
}

// A registry that is away is waited for, and spends no attempts of tasks.
func TestRegistryThatIsAway(t *testing.T) {
	w := newWorld(t, Config{Burst: 100})
	d := demand("r1", "data", 3, 0)
	d.Shape.Entrypoint = true
	w.want, w.image = []dispatch.Demand{d}, errors.New("registry r: dial tcp: connection refused")
	look := func(after time.Duration) string { // looks it up, and again when that is known
		t.Helper()
		select {
		case <-w.c.wake:
		default:
		}
		w.step(after)
		<-w.c.wake
		return w.step(0)
	}
	look(time.Second)
	if got := w.c.Waits("r1"); !strings.HasPrefix(got, "registry r: dial tcp: connection refused; ") {
		t.Errorf("it says %q", got)
	}
	for range 9 {
		look(time.Minute)
	}
	if len(w.told) > 0 {
		t.Fatalf("told %q", w.told)
	}
	w.image = nil
	if calls := look(time.Minute); calls != "create "+first+" 3" || len(w.told) > 0 {
		t.Errorf("it is back: %q, told %q", calls, w.told)
	}

	w = newWorld(t, Config{Burst: 100})
	w.want, w.image = []dispatch.Demand{d}, errors.New("connection refused")
	for range 12 {
		look(time.Minute)
	}
	if len(w.told) != 1 || !strings.Contains(w.told[0], "fail r1 false: connection refused") {
		t.Errorf("told %q", w.told)
	}
}
