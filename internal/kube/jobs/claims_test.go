package jobs

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.dev/cairn/internal/kube/dispatch"
	"cairn.dev/cairn/internal/task"
)

// Claims of a run go when it has ended, at once; those that are to be looked
// into after a failure go when the run is forgotten.
func TestSweepClaims(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 1, Burst: 100})
	failed := map[string]bool{"bad": true}
	w.c.d.Failed = func(_ context.Context, run string) (bool, error) { return failed[run], nil }
	for _, run := range []string{"good", "bad", "always", "live"} {
		gc := object{}
		if run == "always" {
			gc = object{"strategy": "OnWorkflowCompletion"}
		}
		x := demand(run, "data", 1, 0)
		x.Shape = dispatch.ShapeOf(&task.Task{Image: "a", Command: []string{"x"}, Volumes: []task.Volume{{Name: "work", Path: "/claim"}},
			Pod: object{"volumeClaimGC": gc, "volumeClaimTemplates": list{object{"metadata": object{"name": "work"}, "spec": object{"accessModes": list{"ReadWriteOnce"}}}}}})
		w.want = append(w.want, x)
		made, err := Claims(Plan{Cluster: "prod", Demand: x})
		if err != nil {
			t.Fatal(err)
		}
		w.claims = append(w.claims, *made[0])
	}
	swept := func(what, want string) {
		t.Helper()
		var got []string
		w.claims = slices.DeleteFunc(w.claims, func(p corev1.PersistentVolumeClaim) bool {
			gone := slices.Contains(w.calls, "delete claim "+p.Name)
			if gone {
				got = append(got, p.Name)
			}
			return gone
		})
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %q, want %q", what, s, want)
		}
	}
	w.step(time.Second)
	swept("all go on", "")
	w.want = nil
	for _, run := range []string{"good", "bad", "always"} {
		w.over[run], w.dead[run] = true, true
	}
	failed["always"] = true
	w.step(time.Second) // less than the time between two looks
	swept("some have ended", "cairn-good-work cairn-always-work")
	delete(failed, "bad")
	w.step(2 * checkEvery)
	swept("one is forgotten", "cairn-bad-work")
	w.claims = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: map[string]string{LabelRun: "live"}}}}
	w.step(2 * checkEvery)
	swept("one goes on", "")
}
