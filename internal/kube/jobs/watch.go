package jobs

import (
	"cmp"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// job is a Job as far as it matters here.
type job struct {
	key
	namespace, name string
	uid             string
	number          int // of its name
	size            int32
	done            int32 // indexes that have ended, well or not
	finished        bool
	failure         string // why it failed as a whole
	told            bool   // of its failure
	suspended       bool
	queued          bool   // it is Kueue's to say when
	idle            bool   // it is to have no pods at a time
	empty           bool   // no pod of it was ever made
	version         string // of the object
	mounts          bool   // the worker's image is a volume of its pods
	claims, swept   bool   // its run has claims to itself; they were looked at since it ended
	since           time.Duration
	made            time.Time
	old             bool // its pods have tokens that are not believed long any more
	deleting        bool
	asked           time.Duration // when the API server was last asked why it is empty
	words           string        // what it said
	served          int           // tasks that were handed out before it was made
	barren          int           // Jobs in a row whose pods ended without a task
	ended           time.Duration // when its run was seen to have; 0: it was not
	checked         time.Duration // when its run was last asked for
}

// pod is a pod as far as it matters here.
type pod struct {
	key
	namespace, name, job string
	pending              bool
	running              bool
	lost                 bool   // it is there, but does not count on
	trouble              string // why it does not start
	ended                string // why it ended
	own                  bool   // the trouble is its own, and not that there is no room
	since                time.Duration
	over                 bool
	silent               bool          // it waits, and its status does not say for what
	asked                time.Duration // when its events were last asked for
	said                 reason        // by them
	idle                 string        // what it waits for though nothing is wrong
	leaves               time.Time     // when it has to be gone; zero: it is to stay
	node                 string
}

// jobSink takes Jobs.
type jobSink struct{ c *Controller }

func (s jobSink) listed() { s.c.listed() }

func (s jobSink) put(obj any) {
	if j, ok := obj.(*batchv1.Job); ok {
		s.c.mu.Lock()
		s.c.putJob(j)
		s.c.mu.Unlock()
		s.c.stir()
	}
}

func (s jobSink) drop(obj any) {
	if j, ok := obj.(*batchv1.Job); ok {
		s.c.mu.Lock()
		k := keyOf(j)
		if x := s.c.jobs[k]; x != nil && x.uid == string(j.UID) {
			delete(s.c.jobs, k)
		}
		delete(s.c.older, string(j.UID))
		s.c.recount()
		s.c.mu.Unlock()
		s.c.stir()
	}
}

func keyOf(o metav1.Object) key {
	return key{o.GetLabels()[LabelRun], o.GetLabels()[LabelClass]}
}

// putJob notes how a Job is; the lock is held.
func (c *Controller) putJob(j *batchv1.Job) {
	c.recount()
	k := keyOf(j)
	n := numberOf(j.Name)
	newest := c.jobs[k]
	x := newest
	if newest == nil || newest.uid != string(j.UID) {
		x = c.older[string(j.UID)]
	}
	if newest == nil && x != nil { // the one after it was deleted
		delete(c.older, x.uid)
		c.jobs[k] = x
	}
	if x == nil {
		x = &job{key: k, namespace: j.Namespace, name: j.Name, uid: string(j.UID), number: n, since: c.d.Clock.Mono(), made: j.CreationTimestamp.Time}
		if newest != nil && (newest.number > n || newest.number == n && !newest.finished && !newest.deleting) {
			c.older[x.uid] = x
		} else {
			if newest != nil && newest.number < n {
				c.older[newest.uid] = newest
			}
			c.jobs[k] = x
		}
	}
	x.note(j)
	for uid, old := range c.older {
		if old.finished || old.deleting {
			delete(c.older, uid)
		}
	}
}

// all are the Jobs that are known of; the lock is held.
func (c *Controller) all() iter.Seq[*job] {
	return func(yield func(*job) bool) {
		for _, j := range c.jobs {
			if !yield(j) {
				return
			}
		}
		for _, j := range c.older {
			if !yield(j) {
				return
			}
		}
	}
}

// note takes down how a Job is.
func (x *job) note(j *batchv1.Job) {
	x.version = j.ResourceVersion
	for i := range j.Spec.Template.Spec.Volumes {
		v := &j.Spec.Template.Spec.Volumes[i]
		x.claims = x.claims || v.PersistentVolumeClaim != nil && strings.HasPrefix(v.PersistentVolumeClaim.ClaimName, ClaimName(x.run, ""))
		x.mounts = x.mounts || v.Name == "cairn-bin" && v.Image != nil
	}
	if j.Spec.Completions != nil {
		x.size = max(x.size, *j.Spec.Completions) // what comes late is older
	}
	failed := int32(0)
	if j.Status.FailedIndexes != nil {
		failed = indexes(*j.Status.FailedIndexes)
	}
	x.done = max(x.done, indexes(j.Status.CompletedIndexes)+failed)
	x.empty = j.Status.Active+j.Status.Succeeded+j.Status.Failed == 0
	x.suspended = j.Spec.Suspend != nil && *j.Spec.Suspend
	x.queued = j.Labels[labelQueue] != ""
	x.idle = j.Spec.Parallelism != nil && *j.Spec.Parallelism == 0
	x.deleting = x.deleting || j.DeletionTimestamp != nil
	for _, cond := range j.Status.Conditions {
		if cond.Status != corev1.ConditionTrue {
			continue
		}
		switch cond.Type {
		case batchv1.JobComplete, batchv1.JobSuccessCriteriaMet:
			x.finished = true
		case batchv1.JobFailed, batchv1.JobFailureTarget:
			x.finished = true
			x.failure = cmp.Or(x.failure, fmt.Sprintf("%s: %s", cond.Reason, cond.Message))
		}
	}
}

// stopped says that somebody has a Job make no pods, and how it goes on; "" when
// nobody has. What waits in a queue of Kueue is not said to be.
func (x *job) stopped() string {
	what, patch := "", ""
	switch {
	case x.finished || x.deleting || x.queued:
		return ""
	case x.suspended:
		what, patch = "is suspended", `{"spec":{"suspend":false}}`
	case x.idle:
		what, patch = "has parallelism 0", fmt.Sprintf(`{"spec":{"parallelism":%d}}`, x.size)
	default:
		return ""
	}
	return fmt.Sprintf("Job %s %s, so that it has no pods: kubectl patch job -n %s %s --type=merge -p '%s' has it go on; when it is deleted, another one is made", x.name, what, x.namespace, x.name, patch)
}

// numberOf is the number at the end of a Job's name.
func numberOf(name string) int {
	n, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	if err != nil {
		return 0
	}
	return n
}

// indexes counts those of a list like "0-2,5".
func indexes(s string) (n int32) {
	for part := range strings.SplitSeq(s, ",") {
		from, to, ranged := strings.Cut(part, "-")
		a, err := strconv.ParseInt(from, 10, 32)
		if err != nil {
			continue
		}
		b := a
		if ranged {
			if b, err = strconv.ParseInt(to, 10, 32); err != nil {
				continue
			}
		}
		n += int32(max(0, b-a+1))
	}
	return n
}

// podSink takes pods.
type podSink struct{ c *Controller }

func (s podSink) listed() { s.c.listed() }

func (s podSink) put(obj any) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	c := s.c
	c.mu.Lock()
	at := p.Namespace + "/" + p.Name
	x := c.pods[at]
	if x == nil {
		x = &pod{key: keyOf(p), namespace: p.Namespace, name: p.Name, job: p.Labels[batchv1.JobNameLabel], since: c.d.Clock.Mono()}
		c.keep(at, x)
	}
	c.recount()
	ended := x.look(p, c.d.Clock.Mono())
	c.missed(p.Namespace, x.trouble)
	c.mu.Unlock()
	if ended != "" {
		c.d.Teller.Gone(x.run, x.class, x.name, ended)
	}
	c.stir()
}

func (s podSink) drop(obj any) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	c := s.c
	c.mu.Lock()
	at := p.Namespace + "/" + p.Name
	x := c.lose(at)
	c.recount()
	c.mu.Unlock()
	if x != nil && !x.over {
		c.d.Teller.Gone(x.run, x.class, x.name, "it was deleted")
	}
	c.stir()
}

// look notes how a pod is, and says why it ended, once, if it has.
func (x *pod) look(p *corev1.Pod, now time.Duration) (ended string) {
	x.pending, x.running = p.Status.Phase == corev1.PodPending, p.Status.Phase == corev1.PodRunning
	for i := range p.Status.Conditions {
		switch cond := &p.Status.Conditions[i]; {
		case cond.Type == corev1.PodReady && cond.Status == corev1.ConditionFalse && cond.Reason == "NodeNotReady":
			x.lost = true
		case cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue:
			x.lost = false
		}
	}
	x.lost, x.node = x.lost || p.DeletionTimestamp != nil, p.Spec.NodeName
	if p.DeletionTimestamp != nil {
		x.leaves = p.DeletionTimestamp.Time
	}
	r := reasonOf(p)
	if x.silent, x.idle = r.why == "" && silent(p), idleOf(p); !x.silent {
		x.said = reason{}
	}
	x.stops(r, now)
	if x.over || p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded {
		return ""
	}
	x.over, x.ended = true, endOf(p)
	return x.ended
}

// stops notes why a pod does not start: what its status says, or its events.
func (x *pod) stops(r reason, now time.Duration) {
	if r.why == "" {
		r = x.said
	}
	if (r.why == "") != (x.trouble == "") {
		x.since = now
	}
	x.trouble, x.own = r.why, r.own
}

// ended is said of a pod that does not say why it has.
const ended = "it has ended"

// endOf says why a pod has ended, in the words of whoever ended it.
func endOf(p *corev1.Pod) string {
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.DisruptionTarget && cond.Status == corev1.ConditionTrue {
			return fmt.Sprintf("disrupted: %s: %s", cond.Reason, cond.Message)
		}
	}
	if p.Status.Reason != "" {
		return fmt.Sprintf("%s: %s", p.Status.Reason, p.Status.Message)
	}
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for i := range list {
			t := list[i].State.Terminated
			if t == nil || t.ExitCode == 0 || restarts(p, list[i].Name) {
				continue
			}
			why := fmt.Sprintf("container %s ended: exit code %d", list[i].Name, t.ExitCode)
			if t.Reason != "" && t.Reason != "Error" {
				why += " (" + t.Reason + ")"
			}
			if t.Message != "" {
				why += ": " + strings.TrimSpace(t.Message)
			}
			return why
		}
	}
	return ended
}
