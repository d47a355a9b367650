package jobs

import (
	"context"
	"reflect"
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

// A claim for one node at a time has the pods of its run ask for one node, and
// nothing else does.
func TestTogether(t *testing.T) {
	claims := func(modes ...any) object {
		return object{"volumeClaimTemplates": list{object{"metadata": object{"name": "work"}, "spec": object{"accessModes": list(modes)}}}}
	}
	apart := claims("ReadWriteOnce")
	apart["affinity"] = object{"podAntiAffinity": object{}}
	mounted := []task.Volume{{Name: "work", Path: "/claim"}}
	for name, x := range map[string]struct {
		pod     object
		volumes []task.Volume
		want    bool
	}{
		"once":                   {claims("ReadWriteOnce"), mounted, true},
		"once, and not mounted":  {claims("ReadWriteOnce"), nil, false},
		"many":                   {claims("ReadWriteOnce", "ReadWriteMany"), mounted, false},
		"said otherwise":         {apart, mounted, false},
		"a claim that was there": {object{}, []task.Volume{{Claim: "work", Path: "/claim"}}, false},
	} {
		j, err := Build(plan(task.Task{Command: []string{"x"}, Volumes: x.volumes, Pod: x.pod}))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		a := j.Spec.Template.Spec.Affinity
		got := a != nil && a.PodAffinity != nil
		if got != x.want {
			t.Errorf("%s: the pods ask for one node: %v", name, got)
		}
		if got {
			term := a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution[0].PodAffinityTerm
			if term.TopologyKey != corev1.LabelHostname || !reflect.DeepEqual(term.LabelSelector.MatchLabels, map[string]string{LabelRun: "r1"}) {
				t.Errorf("%s: %v", name, term)
			}
		}
	}
}
