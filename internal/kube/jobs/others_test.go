package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"cairn.dev/cairn/internal/kube/dispatch"
)

// A Job that somebody else made under a name of ours is let alone, whatever its
// labels say but that it is this server's.
func TestSomebodyElsesJob(t *testing.T) {
	for what, labels := range map[string]map[string]string{
		"no labels":        nil,
		"another run":      {LabelCluster: "prod", LabelRun: "r2", LabelClass: "c"},
		"a run's, by hand": {LabelCluster: "prod", LabelServer: "ID", LabelRun: "r2", LabelClass: "c"},
		"another server's": {LabelCluster: "prod", LabelServer: "another", LabelRun: "r1", LabelClass: "c"},
	} {
		w := newWorld(t, Config{Burst: 100})
		w.dead[""], w.dead["r2"] = true, true
		if labels[LabelServer] == "ID" {
			labels[LabelServer] = w.c.id
		}
		w.jobs[first] = &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: first, Namespace: "data", UID: "theirs", Labels: labels}}
		w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
		w.expect(what+": another name is found", time.Second, "create "+first+" 3, get "+first+", create cairn-r1-c-2 3")
		w.expect(what+": it stays", 3*time.Minute, "")
		if w.jobs[first] == nil {
			t.Errorf("%s: it was deleted", what)
		}
	}
}

// What a server makes is found by a label that another server which calls its
// cluster the same does not have.
func TestServersAreToldApart(t *testing.T) {
	w := newWorld(t, Config{Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
	w.step(time.Second)
	j := w.jobs[first]
	if id := j.Labels[LabelServer]; id == "" || j.Spec.Template.Labels[LabelServer] != id {
		t.Errorf("labels of the Job %v, of its pods %v", j.Labels, j.Spec.Template.Labels)
	}
	if a, b := idOf(w), idOf(named{w}); a == b || a != j.Labels[LabelServer] {
		t.Errorf("servers with other secrets are %q and %q", a, b)
	}
}

// named is a dispatcher with another secret.
type named struct{ *world }

func (n named) Key(namespace string) string { return "another " + n.world.Key(namespace) }

// A Job that goes while its name is taken is made again: its absence is not
// that of its namespace.
func TestNameBecomesFree(t *testing.T) {
	w := newWorld(t, Config{Burst: 100})
	w.jobs[first] = &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: first, Namespace: "data"}}
	w.going = true
	w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
	w.expect("it goes", time.Second, "create "+first+" 3, get "+first+", create "+first+" 3")
	if len(w.told) > 0 {
		t.Errorf("told %q", w.told)
	}
}

// A namespace whose quota is used up keeps no other one waiting.
func TestQuotaIsOneNamespaces(t *testing.T) {
	w := newWorld(t, Config{Burst: 100})
	w.full = "data"
	w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
	for range 120 {
		w.step(time.Second)
	}
	w.want = append(w.want, demand("r2", "other", 3, 0))
	made := ""
	for range 3 {
		made += w.step(time.Second)
	}
	if !strings.Contains(made, "create cairn-r2-c-1 3") {
		t.Errorf("within three seconds: %q", made)
	}
	w.becomes("cairn-r2-c-1", func(s *batchv1.JobStatus) { s.Active = 3 })
	n := 0
	for range 600 {
		n += strings.Count(w.step(time.Second), "create "+first)
	}
	if n < 8 || n > 12 {
		t.Errorf("what its quota forbids was tried %d times in ten minutes", n)
	}
	w.full = ""
	w.expect("there is room", time.Minute+time.Second, "create "+first+" 3")
	if len(w.told) > 0 {
		t.Errorf("told %q", w.told)
	}
}

// An API server, or a proxy before it, may ask for more patience than is good.
func TestPatienceEnds(t *testing.T) {
	w := newWorld(t, Config{Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
	w.err = apierrors.NewTooManyRequests("come back in a month", 30*24*3600)
	w.step(time.Second)
	w.err = nil
	w.expect("not as long as that", maxRetryAfter+time.Second, "create "+first+" 3")
}

// Pods of a namespace that is deleted wait for a Secret that is gone before
// them: nobody makes it again for them.
func TestKeyOfNamespaceThatLeaves(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	terminating := apierrors.NewForbidden(secrets, "x", errors.New("unable to create new content in namespace data because it is being terminated"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for what, c := range map[string]struct {
		err         error
		least, most int // requests in ten minutes
	}{
		"it is leaving": {terminating, 1, 1},
		"it is gone":    {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "data"), 1, 1},
		"away":          {errors.New("connection refused"), 20, 45},
	} {
		w := newWorld(t, Config{MaxPerRun: 1, Burst: 100})
		w.want = []dispatch.Demand{demand("r1", "data", 1, 0)}
		w.step(time.Second)
		w.want, w.keys, w.noKey = nil, nil, c.err
		for i := range 3 {
			w.pod(first, fmt.Sprint("p", i), func(p *corev1.Pod) {
				p.Status.Phase = corev1.PodPending
				p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: Main, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerConfigError", Message: `secret "` + keyName("key of data") + `" not found`}}}}
			})
		}
		for range 600 {
			w.step(time.Second)
		}
		if n := len(w.keys); n < c.least || n > c.most {
			t.Errorf("%s: asked %d times in ten minutes, want %d to %d", what, n, c.least, c.most)
		}
	}
}

// A Job that goes on for weeks is followed by another one, whose pods get a
// token that is believed.
func TestTokensOfOldJobs(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 4, Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 2, 0)}
	w.expect("the first", time.Second, "create "+first+" 2")
	w.jobs[first].CreationTimestamp = metav1.NewTime(w.clock.Now())
	w.c.jobs, w.c.counted = map[key]*job{}, nil // as after a start
	w.becomes(first, func(s *batchv1.JobStatus) { s.Active = 2 })
	w.want[0].Queued, w.want[0].Held = 1, 2
	w.expect("it grows", 6*24*time.Hour, "resize "+first+" 3")
	w.want[0].Queued, w.want[0].Held = 1, 3
	w.expect("it is old", 2*24*time.Hour, "create cairn-r1-c-2 1")
	w.expect("both count", time.Minute, "")
}

// Of two Jobs of a kind the later is deleted by hand: the earlier counts, once.
func TestEarlierJobRemains(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 4, Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 1, 0)}
	w.step(time.Second)
	later := w.jobs[first].DeepCopy()
	later.Name, later.UID = "cairn-r1-c-2", "later"
	jobSink{w.c}.put(later)
	jobSink{w.c}.drop(later)
	w.becomes(first, func(s *batchv1.JobStatus) { s.Active = 1 })
	w.want[0].Queued, w.want[0].Held = 3, 1
	w.expect("the rest", time.Second, "resize "+first+" 4")
	w.becomes(first, func(s *batchv1.JobStatus) {
		s.CompletedIndexes = "0-3"
		s.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	})
	if n := w.c.tally().all; n != 0 {
		t.Errorf("%d pods are counted of Jobs that have ended", n)
	}
}

// A look at thousands of runs of which nothing new was heard counts their pods
// once, and not once for each.
func TestCountedOnce(t *testing.T) {
	w := newWorld(t, Config{MaxPods: 1, Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 1, 0), demand("r2", "data", 1, 0), demand("r3", "data", 1, 0)}
	w.step(time.Second)
	w.step(time.Second)
	before := w.c.counted
	w.step(time.Second)
	if before == nil || w.c.counted != before {
		t.Error("nothing has changed, and they were counted again")
	}
	w.pod(first, "p", func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning })
	if w.c.tally().running[key{"r1", "c"}] != 1 {
		t.Error("a pod runs, and is not counted")
	}
}

// slow finds images when it is let.
type slow struct {
	let       chan struct{}
	now, most atomic.Int64
}

func (s *slow) Find(context.Context, string, string, []string) (Image, error) {
	s.most.Store(max(s.most.Load(), s.now.Add(1)))
	<-s.let
	s.now.Add(-1)
	return Image{Command: []string{"sh"}}, nil
}

// Registries are asked for a few images at a time, however many runs wait for
// theirs.
func TestManyImages(t *testing.T) {
	w := newWorld(t, Config{MaxPods: 100, Burst: 100})
	s := &slow{let: make(chan struct{})}
	w.c.d.Images = s
	for i := range 100 {
		x := demand(fmt.Sprint("r", i), "data", 1, 0)
		x.Shape.Image, x.Shape.Entrypoint = fmt.Sprint("image", i), true
		w.want = append(w.want, x)
	}
	w.step(time.Second)
	w.step(time.Second)
	close(s.let)
	for begin := time.Now(); len(w.jobs) < 100; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%d Jobs were made", len(w.jobs))
		}
		w.step(0)
	}
	if n := s.most.Load(); n > maxLooking {
		t.Errorf("%d look-ups at a time", n)
	}
}
