package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/kube/dispatch"
	"cairn.dev/cairn/internal/task"
)

// world is an API server, a dispatcher and a clock, all by hand.
type world struct {
	t     *testing.T
	clock *clock.Fake
	c     *Controller

	want  []dispatch.Demand
	over  map[string]bool
	dead  map[string]bool
	told  []string
	calls []string
	keys  []string

	claims []corev1.PersistentVolumeClaim
	pods   map[string]*corev1.Pod
	jobs   map[string]*batchv1.Job
	err    error  // of the next calls that make something
	noKey  error  // of the next that make a Secret
	full   string // a namespace whose quota takes no Job
	going  bool   // a Job that is there already is gone when it is asked for

	warned map[string]event // by kind of object
	looks  []string         // at events
	lacks  string           // why images cannot be mounted
	kueued bool             // Kueue is there
	image  error
}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	w := &world{t: t, clock: clock.NewFake(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)), over: map[string]bool{}, dead: map[string]bool{}, jobs: map[string]*batchv1.Job{}, warned: map[string]event{"Job": {reason: "FailedCreate", message: "exceeded quota: none"}}}
	cfg.Cluster, cfg.Server, cfg.Worker = "prod", "http://cairn", "worker:1"
	var err error
	w.c, err = New(cfg, Deps{Demander: w, Teller: w, Images: w, Clock: w.clock, Live: func(_ context.Context, run string) (bool, error) { return !w.dead[run], nil }})
	if err != nil {
		t.Fatal(err)
	}
	w.c.api = w
	w.c.listed()
	w.c.listed()
	return w
}

// The dispatcher.

func (w *world) Demand() []dispatch.Demand      { return w.want }
func (w *world) Changed() <-chan struct{}       { return nil }
func (w *world) Token(x dispatch.Demand) string { return "token of " + x.Run }
func (w *world) Key(namespace string) string    { return "key of " + namespace }
func (w *world) Over(run string) bool           { return w.over[run] }
func (w *world) Gone(run, class, pod, why string) {
	w.told = append(w.told, fmt.Sprint("gone ", pod, ": ", why))
}
func (w *world) Fail(run, _, why string, infra bool) {
	w.told = append(w.told, fmt.Sprint("fail ", run, " ", infra, ": ", why))
}
func (w *world) Find(_ context.Context, _, _ string, _ []string) (Image, error) {
	return Image{Command: []string{"sh"}}, w.image
}

// The API server.

func (w *world) call(format string, args ...any) error {
	w.calls = append(w.calls, fmt.Sprintf(format, args...))
	return w.err
}

func (w *world) createJob(_ context.Context, j *batchv1.Job) (*batchv1.Job, error) {
	if err := w.call("create %s %d", j.Name, *j.Spec.Completions); err != nil {
		return nil, err
	}
	if w.full == j.Namespace {
		return nil, apierrors.NewForbidden(schema.GroupResource{Group: "batch", Resource: "jobs"}, j.Name, errors.New("exceeded quota: jobs"))
	}
	if w.jobs[j.Name] != nil {
		return nil, apierrors.NewAlreadyExists(schema.GroupResource{Resource: "jobs"}, j.Name)
	}
	j = j.DeepCopy()
	j.UID, j.ResourceVersion = types.UID(fmt.Sprint(j.Name, len(w.calls))), "1"
	w.jobs[j.Name] = j
	return j, nil
}

func (w *world) createKey(_ context.Context, s *corev1.Secret) error {
	w.keys = append(w.keys, s.Namespace+"/"+s.Name+" "+string(s.Data["key"]))
	return w.noKey
}

func (w *world) getJob(_ context.Context, _, name string) (*batchv1.Job, error) {
	if w.going {
		delete(w.jobs, name)
		return nil, errors.Join(w.call("get %s", name), apierrors.NewNotFound(schema.GroupResource{Group: "batch", Resource: "jobs"}, name))
	}
	return w.jobs[name], w.call("get %s", name)
}

func (w *world) resizeJob(_ context.Context, _, name, version string, n int32) (*batchv1.Job, error) {
	if err := w.call("resize %s %d", name, n); err != nil {
		return nil, err
	}
	if version != "" && version != w.jobs[name].ResourceVersion {
		return nil, apierrors.NewConflict(schema.GroupResource{Resource: "jobs"}, name, errors.New("it is another one"))
	}
	j := w.jobs[name].DeepCopy()
	j.Spec.Completions, j.Spec.Parallelism = &n, &n
	j.ResourceVersion += "1"
	w.jobs[name] = j
	return j, nil
}

func (w *world) deleteJob(_ context.Context, _, name string, _ types.UID) error {
	delete(w.jobs, name)
	return w.call("delete %s", name)
}
func (w *world) imageVolumes(context.Context) (string, error)     { return w.lacks, nil }
func (w *world) kueue(context.Context) (bool, error)              { return w.kueued, nil }
func (w *world) restricted(context.Context, string) (bool, error) { return false, nil }
func (w *world) warning(_ context.Context, _, kind, name string) (event, error) {
	w.looks = append(w.looks, kind+" "+name)
	return w.warned[kind], nil
}
func (w *world) listClaims(context.Context) ([]corev1.PersistentVolumeClaim, error) {
	return w.claims, nil
}
func (w *world) deleteClaim(_ context.Context, _, name string, _ types.UID) error {
	return w.call("delete claim %s", name)
}
func (w *world) createClaim(_ context.Context, p *corev1.PersistentVolumeClaim) error {
	return w.call("claim %s", p.Name)
}

// demand is one of a run whose tasks need so many pods.
func demand(run, namespace string, queued, held int) dispatch.Demand {
	return dispatch.Demand{Run: run, Namespace: namespace, Class: "c", Shape: dispatch.ShapeOf(&task.Task{Image: "a", Command: []string{"x"}}), Queued: queued, Held: held}
}

// step looks at everything, after a time, and returns what the API server was asked.
func (w *world) step(after time.Duration) string {
	w.t.Helper()
	w.clock.Advance(after)
	w.calls = nil
	w.c.step(w.t.Context())
	return strings.Join(w.calls, ", ")
}

func (w *world) expect(what string, after time.Duration, want string) {
	w.t.Helper()
	if got := w.step(after); got != want {
		w.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// becomes is a Job as it is watched later.
func (w *world) becomes(name string, edit func(*batchv1.JobStatus)) {
	w.t.Helper()
	j := w.jobs[name].DeepCopy()
	edit(&j.Status)
	w.jobs[name] = j
	jobSink{w.c}.put(j)
}

// pod is one of a Job as it is watched.
func (w *world) pod(job, name string, edit func(*corev1.Pod)) {
	w.t.Helper()
	j := w.jobs[job]
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "data", Labels: map[string]string{LabelRun: j.Labels[LabelRun], LabelClass: j.Labels[LabelClass], batchv1.JobNameLabel: job}}}
	edit(p)
	if w.pods == nil {
		w.pods = map[string]*corev1.Pod{}
	}
	w.pods[name] = p
	podSink{w.c}.put(p)
}

const first = "cairn-r1-c-1"

func TestCrowd(t *testing.T) {
	for _, c := range []struct {
		nodes map[string]int
		want  float64
	}{
		{nil, 1},
		{map[string]int{"a": 2}, 1},
		{map[string]int{"a": 4}, 0.25},
		{map[string]int{"a": 4, "b": 1, "c": 1}, 1},
		{map[string]int{"a": 4, "b": 4}, 0.25},
		{map[string]int{"a": 500}, leastCrowded},
	} {
		if got := (&tally{nodes: c.nodes}).crowd(); got != c.want {
			t.Errorf("%v: %g, want %g", c.nodes, got, c.want)
		}
	}
}

func TestEase(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 100, Rate: 10, Burst: 1})
	ease := 0.2 // the API server is slow
	w.c.d.Ease = func() float64 { return ease }
	w.want = []dispatch.Demand{demand("r1", "data", 100, 0)}
	w.expect("one, as the bucket holds", time.Second, "create "+first+" 1")
	w.becomes(first, func(s *batchv1.JobStatus) { s.Active = 1 })
	w.expect("two a second in place of ten: none yet", 400*time.Millisecond, "")
	w.expect("and now", 100*time.Millisecond, "resize "+first+" 2")
	ease = 1
	w.expect("it is well again", 100*time.Millisecond, "resize "+first+" 3")
}

func TestGrow(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 8, Rate: 2, Burst: 5})
	w.want = []dispatch.Demand{demand("r1", "data", 100, 0)}
	w.expect("as many as the bucket has", time.Second, "create "+first+" 5")
	w.expect("nothing in the bucket", 0, "")
	w.becomes(first, func(s *batchv1.JobStatus) { s.Active = 5 })
	w.expect("two a second", time.Second, "resize "+first+" 7")
	w.expect("up to the cap", time.Minute, "resize "+first+" 8")
	w.expect("no more than that", time.Minute, "")
	// Two pods left: so there is room for two.
	w.becomes(first, func(s *batchv1.JobStatus) { s.CompletedIndexes = "0,3" })
	w.expect("what left is made up for", time.Minute, "resize "+first+" 10")
	w.want[0].Queued, w.want[0].Held = 0, 8
	w.becomes(first, func(s *batchv1.JobStatus) { s.CompletedIndexes = "0-4" })
	w.expect("nothing waits", time.Minute, "")
	w.want[0].Queued, w.want[0].Held = 2, 3
	w.expect("no more than there are tasks", time.Minute, "")
	w.becomes(first, func(s *batchv1.JobStatus) {
		s.CompletedIndexes = "0-9"
		s.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	})
	w.expect("a Job that has ended does not grow", time.Minute, "create cairn-r1-c-2 5")
	// What is watched of the old one does not bring it back.
	w.becomes(first, func(s *batchv1.JobStatus) { s.Active = 3 })
	w.expect("the new one stays", time.Minute, "")
}

// A pod has many requests at a time.
func TestGrowRequests(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 8, Burst: 100})
	d := demand("r1", "data", 33, 0)
	d.Shape = dispatch.ShapeOf(&task.Task{Resource: &task.Resource{Action: "get"}})
	w.want = []dispatch.Demand{d}
	w.expect("sixteen a pod", time.Second, "create "+first+" 3")
}

func TestCaps(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 10, MaxPerNamespace: 15, MaxPods: 22, Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 99, 0), demand("r2", "data", 99, 0), demand("r3", "other", 99, 0)}
	w.expect("caps", time.Second, "create "+first+" 10, create cairn-r2-c-1 5, create cairn-r3-c-1 7")
	w.expect("caps hold", time.Minute, "")
}

// Pods that wait for nodes are not helped by more of them.
func TestPending(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 4, MaxPending: 3, Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 4, 0)}
	w.expect("first", time.Second, "create "+first+" 4")
	for i := range 3 {
		w.pod(first, fmt.Sprint("p", i), func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending })
	}
	w.want = append(w.want, demand("r2", "data", 4, 0))
	w.expect("too many wait", time.Minute, "")
	w.pod(first, "p0", func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning })
	w.expect("one was started", time.Minute, "create cairn-r2-c-1 4")
}

func TestPatience(t *testing.T) {
	w := newWorld(t, Config{Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
	w.err = apierrors.NewTooManyRequests("slow down", 17)
	w.expect("refused", time.Second, "create "+first+" 3")
	w.expect("as long as it asks for", 16*time.Second, "")
	w.expect("again", 2*time.Second, "create "+first+" 3")
	w.err = errors.New("connection refused")
	n := 0
	for range 600 {
		if w.step(time.Second) != "" {
			n++
		}
	}
	if n < 8 || n > 20 {
		t.Errorf("an API server that is away was asked %d times in ten minutes", n)
	}
	w.err = nil
	w.expect("it is back", 2*time.Minute, "create "+first+" 3")
	if len(w.told) != 0 {
		t.Errorf("%q was told", w.told)
	}
}

// An answer that got lost leaves a Job that is found again.
func TestLostAnswer(t *testing.T) {
	w := newWorld(t, Config{Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
	w.step(time.Second)
	w.c.jobs, w.c.counted = map[key]*job{}, nil // as if nobody had heard
	w.expect("it is there already", time.Minute, "create "+first+" 3, get "+first)
	w.expect("and counts", time.Minute, "")
}

func TestWhatCannotBe(t *testing.T) {
	jobs := schema.GroupResource{Group: "batch", Resource: "jobs"}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"no namespace": {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "data"), "fail r1 false: there is no namespace data in cluster prod"},
		"a policy":     {apierrors.NewForbidden(jobs, "x", errors.New(`admission webhook "w" denied the request: no`)), "fail r1 false: make pods in namespace data: jobs.batch \"x\" is forbidden: admission webhook \"w\" denied the request: no; "},
		"not allowed":  {apierrors.NewForbidden(jobs, "x", errors.New("cairn may not")), ""},
		"quota":        {apierrors.NewForbidden(jobs, "x", errors.New("exceeded quota: q")), ""},
		"away":         {errors.New("connection refused"), ""},
	} {
		w := newWorld(t, Config{})
		w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
		w.err = c.err
		w.step(time.Second)
		if got := strings.Join(w.told, "; "); !strings.HasPrefix(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Pods that do not start: what is their own fault is told soon, what may pass
// late, and nothing as long as one of them runs.
func TestJudge(t *testing.T) {
	waits := func(reason, message string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodPending
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: Main, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}}
		}
	}
	unschedulable := func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodPending
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/3 nodes"}}
	}
	for name, c := range map[string]struct {
		pod   func(*corev1.Pod)
		job   func(*batchv1.JobStatus)
		other bool // another pod runs
		after time.Duration
		want  string
	}{
		"image":             {pod: waits("ImagePullBackOff", "a: not found"), after: 61 * time.Second, want: "fail r1 false: pod p0: container main cannot start: ImagePullBackOff: a: not found; correct the image's name and tag, or push it"},
		"image, soon":       {pod: waits("ImagePullBackOff", "a: not found"), after: 30 * time.Second},
		"one runs":          {pod: waits("ImagePullBackOff", "a: not found"), after: time.Hour, other: true},
		"it is being made":  {pod: waits("ContainerCreating", ""), after: time.Hour},
		"no node":           {pod: unschedulable, after: 11 * time.Minute, want: "fail r1 false: pod p0: no node takes the pod: 0/3 nodes"},
		"no node, soon":     {pod: unschedulable, after: 9 * time.Minute},
		"nothing is let in": {after: 11 * time.Minute, want: "fail r1 false: no pod of Job " + first + " was let in for 10m0s: exceeded quota: none; " + quotaCure},
		"the Job failed": {job: func(s *batchv1.JobStatus) {
			s.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "PodFailurePolicy", Message: "exit code 64"}}
		}, pod: func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodFailed
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: Main, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 64, Message: "no such flag"}}}}
		}, after: time.Second, want: "gone p0: container main ended: exit code 64: no such flag; fail r1 false: PodFailurePolicy: exit code 64; pod p0: container main ended: exit code 64: no such flag"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{MaxPerRun: 1})
			w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
			w.step(time.Second)
			if c.pod != nil {
				w.becomes(first, func(s *batchv1.JobStatus) { s.Active = 1 })
				w.pod(first, "p0", c.pod)
			}
			if c.other {
				w.want[0].Asked = true
				w.pod(first, "p1", func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning })
			}
			if c.job != nil {
				w.becomes(first, c.job)
			}
			calls := w.step(c.after)
			if got := strings.Join(w.told, "; "); got != c.want {
				t.Errorf("told %q, want %q", got, c.want)
			}
			if strings.Contains(calls, "delete "+first) != strings.Contains(c.want, "fail") {
				t.Errorf("asked %q", calls)
			}
			n := len(w.told)
			if w.step(time.Second); len(w.told) != n {
				t.Errorf("told twice: %q", w.told)
			}
		})
	}
}

func TestPodsEnd(t *testing.T) {
	for want, edit := range map[string]func(*corev1.Pod){
		"gone p: disrupted: EvictionByEvictionAPI: drained": func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodFailed
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "drained"}}
		},
		"gone p: Evicted: the node was low on memory": func(p *corev1.Pod) {
			p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", "the node was low on memory"
		},
		"gone p: container main ended: exit code 137 (OOMKilled)": func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodFailed
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: Main, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}}}}
		},
		"gone p: it has ended": func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded },
		"":                     func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning },
	} {
		w := newWorld(t, Config{})
		w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
		w.step(time.Second)
		w.pod(first, "p", edit)
		w.pod(first, "p", edit) // it is told once
		if got := strings.Join(w.told, "; "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	w := newWorld(t, Config{})
	w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
	w.step(time.Second)
	w.pod(first, "p", func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning })
	podSink{w.c}.drop(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "data"}})
	if got := strings.Join(w.told, "; "); got != "gone p: it was deleted" {
		t.Errorf("%q", got)
	}
}

// Pods on nodes of which nothing is heard do not count.
func TestLostPodsAreMadeUpFor(t *testing.T) {
	w := newWorld(t, Config{MaxPerRun: 3, Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 9, 0)}
	w.expect("first", time.Second, "create "+first+" 3")
	w.becomes(first, func(s *batchv1.JobStatus) { s.Active = 3 })
	for i := range 3 {
		w.pod(first, fmt.Sprint("p", i), func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodRunning
			if i > 0 {
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "NodeNotReady"}}
			}
		})
	}
	w.expect("two are lost", time.Minute, "resize "+first+" 5")
}

func TestSweep(t *testing.T) {
	w := newWorld(t, Config{Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
	w.step(time.Second)
	w.want, w.over["r1"] = nil, true
	w.expect("its workers leave by themselves", time.Second, "")
	w.expect("they did not", 11*time.Second, "delete "+first)
	w.expect("once", time.Minute, "")

	// After a start: a Job of a run of which nobody here knows anything.
	w = newWorld(t, Config{})
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "cairn-r9-c-4", Namespace: "data", UID: "u", Labels: map[string]string{LabelRun: "r9", LabelClass: "c"}}}
	jobSink{w.c}.put(j)
	w.expect("it may live", time.Second, "")
	w.dead["r9"] = true
	w.expect("it does not", 2*time.Minute, "delete cairn-r9-c-4")
}

// Nothing is made before it is known what is there.
func TestBeginsWithWhatIsThere(t *testing.T) {
	w := newWorld(t, Config{})
	w.c.seen = 1
	w.want = []dispatch.Demand{demand("r1", "data", 3, 0)}
	w.expect("pods were not listed", time.Minute, "")
	w.c.listed()
	w.expect("now", time.Minute, "create "+first+" 3")
}

// Pods that end without a task are not made over and over, and those that
// nobody hears of are not waited for in silence.
func TestBarren(t *testing.T) {
	complete := func(s *batchv1.JobStatus) {
		s.CompletedIndexes = "0-2"
		s.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	}
	w := newWorld(t, Config{MaxPerRun: 3, Rate: 100, Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 9, 0)}
	made := 0
	for range 600 {
		if calls := w.step(time.Second); strings.HasPrefix(calls, "create") {
			made++
			w.becomes(strings.Fields(calls)[1], complete)
		}
	}
	if made != maxBarren+1 {
		t.Errorf("%d Jobs were made, want %d", made, maxBarren+1)
	}
	if len(w.told) == 0 || !strings.Contains(w.told[0], "ended without asking for a task: is worker:1 the image of cairn-worker?") {
		t.Errorf("told %q", w.told)
	}

	w = newWorld(t, Config{MaxPerRun: 3, Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 9, 0)}
	w.step(time.Second)
	w.becomes(first, complete)
	w.want[0].Served = 3 // these had work
	w.expect("another one at once", time.Second, "create cairn-r1-c-2 3")

	w = newWorld(t, Config{MaxPerRun: 1, Burst: 100})
	w.want = []dispatch.Demand{demand("r1", "data", 9, 0)}
	w.step(time.Second)
	w.becomes(first, func(s *batchv1.JobStatus) { s.Active = 1 })
	w.pod(first, "p", func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning })
	if w.step(time.Minute); len(w.told) != 0 {
		t.Errorf("told %q", w.told)
	}
	w.want[0].Asked = true
	if w.step(time.Hour); len(w.told) != 0 {
		t.Errorf("told %q", w.told)
	}
	w.want[0].Asked = false
	if w.step(time.Second); len(w.told) != 1 || !strings.Contains(w.told[0], "do not reach the work server at http://cairn: see kubectl logs -n data job/"+first) {
		t.Errorf("told %q", w.told)
	}
}
