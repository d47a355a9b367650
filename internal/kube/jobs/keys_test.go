package jobs

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"cairn.dev/cairn/internal/kube/dispatch"
)

// What pods of a namespace show is there before them, once, and again when
// somebody has deleted it.
func TestKeys(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 1, Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 1, 0), demand("r2", "data", 1, 0), demand("r3", "other", 1, 0)}
	w.step(time.Second)
	data, other := keyName("key of data"), keyName("key of other")
	if want := "data/" + data + " key of data, other/" + other + " key of other"; strings.Join(w.keys, ", ") != want {
		t.Errorf("%q, want %q", w.keys, want)
	}
	env := w.jobs[first].Spec.Template.Spec.Containers[0].Env
	for _, e := range env {
		if strings.Contains(e.Value, "key of") || e.Name == "CAIRN_KEY" && e.ValueFrom.SecretKeyRef.Name != data {
			t.Errorf("the pod's definition has %+v", e)
		}
	}
	w.keys = nil
	w.step(time.Second)
	if len(w.keys) > 0 {
		t.Errorf("again: %q", w.keys)
	}
	w.pod(first, "p1", func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodPending
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: Main, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerConfigError", Message: `secret "` + data + `" not found`}}}}
	})
	w.step(time.Second)
	w.step(time.Second)
	if len(w.keys) != 1 || !strings.HasPrefix(w.keys[0], "data/") {
		t.Errorf("a pod misses it: %q", w.keys)
	}
}

// A cluster that does not let it make Secrets says so to the run.
func TestNoKey(t *testing.T) {
	w := newWorld(t, Config{})
	w.noKey = apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "x", errors.New("no right"))
	w.want = []dispatch.Demand{demand("r1", "data", 1, 0)}
	w.step(time.Second)
	if got := w.c.Waits("r1"); !strings.Contains(got, "cairn install prints the right") || len(w.told) > 0 {
		t.Errorf("it says %q, and told %q", got, w.told)
	}
}

// Certificates are read for each Job; that they cannot be is no fault of a run's.
func TestCA(t *testing.T) {
	ca, bad := "one", errors.New("no such file")
	w := newWorld(t, Config{MaxPerRun: 1, CA: func() (string, error) { return ca, bad }})
	w.want = []dispatch.Demand{demand("r1", "data", 1, 0)}
	w.expect("no certificates", time.Second, "")
	if len(w.told) > 0 {
		t.Errorf("%q", w.told)
	}
	bad = nil
	w.expect("they are back", time.Minute, "create "+first+" 1")
	env := w.jobs[first].Spec.Template.Spec.Containers[0].Env
	if e := env[len(env)-1]; e.Name != "CAIRN_CA" || e.Value != ca {
		t.Errorf("%+v", env)
	}
}
