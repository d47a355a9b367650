package jobs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"cairn.dev/cairn/internal/kube/dispatch"
)

// How long pods have to be without one that runs before that is said, since
// most start sooner; and how long the words for it stay: each change is a write.
const (
	waitsAfter = 3 * time.Second
	waitsFor   = 30 * time.Second
)

// wait is why a run has no pods.
type wait struct {
	why   string
	since time.Duration // when that was said
}

// Waits says what keeps the pods of a run from starting, in the words of the
// cluster; "" when nothing does, as far as is known. It may be called at any
// time; Deps.Waits is told when the answer has changed.
func (c *Controller) Waits(run string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waits[run].why
}

// Node is the node that a pod is on; "" when that is not known, or the pod is
// gone.
func (c *Controller) Node(namespace, name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pods[namespace+"/"+name]; p != nil {
		return p.node
	}
	return ""
}

// tellWaits finds out which runs have tasks and no pod that runs, and why.
func (c *Controller) tellWaits(ctx context.Context, wanted map[key]dispatch.Demand) {
	c.mu.Lock()
	now := c.d.Clock.Mono()
	running := c.tally().running
	found, quiet := map[string]string{}, []question{}
	for k, j := range c.jobs {
		x, ok := wanted[k]
		if !ok || x.Queued == 0 || running[k] > 0 || j.finished || j.deleting || now-j.since < waitsAfter {
			continue
		}
		why, mute := c.troubleOf(k, now)
		alone := !c.has(k)
		stopped := j.stopped()
		switch {
		case stopped != "":
			found[k.run] = stopped
		case why != "":
			found[k.run] = why
		case j.suspended:
			found[k.run] = fmt.Sprintf("Job %s is suspended: its queue has not admitted it", j.name)
		case alone && j.words != "":
			found[k.run] = j.words
		}
		switch {
		case alone && !j.suspended && stopped == "" && why == "" && due(j.asked, now):
			quiet = append(quiet, question{job: j, asked: j.asked})
		case mute != nil && due(mute.asked, now):
			quiet = append(quiet, question{pod: mute, asked: mute.asked})
		}
	}
	hindered := map[key]hindrance{} // less those that have ended
	for k := range wanted {
		if h, ok := c.hindered[k]; ok {
			hindered[k] = h
			if found[k.run] == "" {
				found[k.run] = h.why
			}
		}
	}
	c.hindered = hindered
	c.mu.Unlock()
	if run, why := c.ask(ctx, quiet); why != "" {
		found[run] = why
	}
	c.mu.Lock()
	var changed []string
	for run, old := range c.waits {
		if found[run] == "" {
			delete(c.waits, run)
			changed = append(changed, run)
		} else if now-old.since < waitsFor {
			delete(found, run)
		}
	}
	for run, why := range found {
		if c.waits[run].why != why {
			changed = append(changed, run)
		}
		c.waits[run] = wait{why, now}
	}
	c.mu.Unlock()
	if c.d.Waits == nil {
		return
	}
	for _, run := range changed {
		c.d.Waits(run)
	}
}

// question is a Job or a pod that waits, and whose status does not say for what.
type question struct {
	job   *job
	pod   *pod
	asked time.Duration
}

// due reports whether events may be asked for again.
func due(asked, now time.Duration) bool { return asked == 0 || now-asked > waitsFor }

// askEvery is how often the API server is asked for events at most: it has no
// index of them, and there may be many that wait.
const askEvery = time.Second

// ask looks up the events of the one that was not asked about for longest, and
// says what its run waits for by them; "" for nothing.
func (c *Controller) ask(ctx context.Context, quiet []question) (run, why string) {
	c.mu.Lock()
	now := c.d.Clock.Mono()
	if len(quiet) == 0 || c.asked > 0 && now-c.asked < askEvery {
		c.mu.Unlock()
		return "", ""
	}
	q := slices.MinFunc(quiet, func(a, b question) int { return cmp.Compare(a.asked, b.asked) })
	c.asked = max(1, now)
	kind, namespace, name := "Job", "", ""
	if q.job != nil {
		q.job.asked, namespace, name = c.asked, q.job.namespace, q.job.name
	} else {
		kind, q.pod.asked, namespace, name = "Pod", c.asked, q.pod.namespace, q.pod.name
	}
	c.mu.Unlock()
	e, err := c.api.warning(ctx, namespace, kind, name)
	if err != nil {
		return "", ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case q.job != nil && e.reason != failedCreate:
		q.job.words = ""
		return "", ""
	case q.job != nil:
		q.job.words = fmt.Sprintf("no pod of Job %s is let in: %s", name, cured(e.message))
		return q.job.run, q.job.words
	}
	if e.message == "" || !q.pod.silent { // it has said something meanwhile
		return "", ""
	}
	q.pod.said = fromEvent(e)
	q.pod.stops(reason{}, now)
	c.missed(namespace, q.pod.trouble)
	return q.pod.run, fmt.Sprintf("pod %s: %s", name, q.pod.trouble)
}

// failedCreate is the reason of the event by which a Job says that a pod of it
// was refused.
const failedCreate = "FailedCreate"

// has reports whether there is a pod of a kind that has not ended; the lock is
// held.
func (c *Controller) has(k key) bool {
	for p := range c.podsOf(k) {
		if !p.over {
			return true
		}
	}
	return false
}

// bare reports whether no pod of a Job was ever made. What ended and is to be
// made again its status does not count; the lock is held.
func (c *Controller) bare(j *job) bool {
	if !j.empty || j.finished || j.deleting || j.suspended || j.idle {
		return false
	}
	for p := range c.podsOf(j.key) {
		if p.job == j.name {
			return false
		}
	}
	return true
}

// troubleOf is why the pods of a kind do not start, once it lasts, and one of
// them whose events may say more; the lock is held.
func (c *Controller) troubleOf(k key, now time.Duration) (why string, mute *pod) {
	idle := ""
	for p := range c.podsOf(k) {
		if now-p.since < waitsAfter {
			continue
		}
		if p.over {
			if idle == "" && p.ended != ended {
				idle = fmt.Sprintf("pod %s: %s; another one is tried", p.name, p.ended)
			}
			continue
		}
		if p.trouble != "" && why == "" {
			why = fmt.Sprintf("pod %s: %s", p.name, p.trouble)
		}
		if words := cmp.Or(p.idle, staysOf(p, c.d.Clock.Now())); words != "" {
			idle = fmt.Sprintf("pod %s: %s", p.name, words)
		}
		if p.silent && (mute == nil || p.asked < mute.asked) {
			mute = p
		}
	}
	return cmp.Or(why, idle), mute
}
