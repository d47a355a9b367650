package jobs

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"cairn.dev/cairn/internal/kube/dispatch"
)

// step brings the Jobs nearer to what is wanted.
func (c *Controller) step(ctx context.Context) {
	c.mu.Lock()
	ready := c.seen >= 2
	c.mu.Unlock()
	if !ready {
		return
	}
	c.sweep(ctx)
	c.sweepClaims(ctx)
	c.rekey(ctx)
	wanted := map[key]dispatch.Demand{}
	for _, x := range c.d.Demander.Demand() {
		wanted[key{x.Run, x.Class}] = x
	}
	c.judge(ctx, wanted)
	demand := c.d.Demander.Demand() // less what was judged
	for i := range demand {
		if ctx.Err() != nil {
			return
		}
		if !c.kept(&demand[i]) {
			c.provide(ctx, &demand[i])
		}
	}
	c.tellWaits(ctx, wanted)
}

// provide sees to it that there are pods for one run and shape.
func (c *Controller) provide(ctx context.Context, x *dispatch.Demand) {
	k := key{x.Run, x.Class}
	c.mu.Lock()
	now := c.d.Clock.Mono()
	t := c.tally()
	j := c.jobs[k]
	live := 0
	if t.live[k] > 0 {
		live = t.live[k] - t.lost[k]
	}
	slots := x.Shape.Slots()
	grow := min(min(c.cfg.MaxPerRun, (x.Queued+x.Held+slots-1)/slots)-live, c.cfg.MaxPerNamespace-t.spaces[x.Namespace], c.cfg.MaxPods-t.all)
	if x.Queued == 0 || grow <= 0 || now < c.hold || t.pending[x.Namespace] >= c.cfg.MaxPending || c.stuck(k, j, now) || barren(j, x, now) {
		c.mu.Unlock()
		return
	}
	crowd := t.crowd()
	c.mu.Unlock()

	restricted, err := c.space(ctx, x.Namespace)
	if err != nil {
		c.trouble(x, "look at namespace "+x.Namespace, err)
		return
	}
	img, ready, err := c.image(ctx, x)
	if err != nil {
		c.unfound(x, err)
		return
	}
	if !ready {
		return
	}
	members, ready, err := c.members(ctx, x)
	if err != nil {
		c.unfound(x, err)
		return
	}
	if !ready {
		return
	}

	queued, err := c.queued(ctx)
	if err != nil {
		c.trouble(x, "make pods", err)
		return
	}

	part := c.d.Ease() * crowd
	c.mu.Lock()
	grow = c.bucket.take(grow, c.d.Clock.Mono(), part)
	larger := j != nil && j.grows(int32(grow), queued)
	c.mu.Unlock()
	if grow <= 0 {
		return
	}
	if larger {
		err = c.enlarge(ctx, j, int32(grow))
	} else {
		err = c.create(ctx, x, j, img, members, restricted, queued, int32(grow))
	}
	if err != nil {
		c.mu.Lock()
		c.bucket.back(grow)
		c.mu.Unlock()
		c.trouble(x, "make pods", err)
		return
	}
	c.mu.Lock()
	c.fails = 0
	delete(c.hindered, k)
	delete(c.full, x.Namespace)
	c.mu.Unlock()
}

// maxBarren is how many Jobs are made again whose pods end without a task.
const maxBarren = 4

// barren says whether the pods of the last Job ended without having had a task,
// so lately that another one is not tried yet.
func barren(j *job, x *dispatch.Demand, now time.Duration) bool {
	if j == nil || !j.finished || x.Served != j.served {
		return false
	}
	return j.barren >= maxBarren || now-j.since < 5*time.Second<<j.barren
}

// maxSize is how many indexes a Job may have; then comes another one.
const maxSize = 100_000

// maxAge is how old a Job grows in which there are more pods to come: they are
// given its token, which the dispatcher lets ask for tasks for half a month.
const maxAge = 7 * 24 * time.Hour

// grows says whether a Job may have so many more indexes. One that Kueue has
// let in has the size for which it was let in: with another one it would be
// stopped, and wait again. What more is needed is another Job then.
func (j *job) grows(by int32, queued bool) bool {
	return !j.finished && !j.deleting && !j.old && j.size+by < maxSize && (!queued || j.suspended)
}

// stuck says whether more pods of a kind would only wait as those do that are
// there; the lock is held.
func (c *Controller) stuck(k key, j *job, now time.Duration) bool {
	if j != nil && now-j.since > 10*time.Second && c.bare(j) {
		return true // not one was let in
	}
	for p := range c.podsOf(k) {
		if !p.over && p.trouble != "" {
			return true
		}
	}
	return false
}

func (c *Controller) enlarge(ctx context.Context, j *job, by int32) error {
	c.mu.Lock()
	size, version := j.size+by, ""
	if j.suspended { // and not let in meanwhile
		version = j.version
	}
	c.mu.Unlock()
	got, err := c.api.resizeJob(ctx, j.namespace, j.name, version, size)
	if apierrors.IsConflict(err) {
		return nil // what it is now is being watched
	}
	if err != nil {
		if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) { // it has ended meanwhile
			c.mu.Lock()
			j.finished = true
			c.recount()
			c.mu.Unlock()
			c.stir()
			return nil
		}
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putJob(got)
	return nil
}

func (c *Controller) create(ctx context.Context, x *dispatch.Demand, old *job, img Image, members map[string]Image, restricted, queued bool, size int32) error {
	n := 1
	if old != nil {
		n = old.number + 1
	}
	plan := Plan{Cluster: c.cfg.Cluster, ID: c.id, Demand: *x, Image: img, Members: members, Size: size, Server: c.cfg.Server, Token: c.d.Demander.Token(*x), Worker: c.cfg.Worker,
		ImageVolume: c.mounts(ctx), PullSecrets: c.cfg.PullSecrets, Restricted: restricted, Linger: int32(c.cfg.Linger.Seconds())}
	if queued {
		plan.Queue = c.cfg.Queue
	}
	var err error
	if c.cfg.CA != nil {
		if plan.CA, err = c.cfg.CA(); err != nil {
			return err
		}
	}
	if plan.Key, err = c.key(ctx, x.Namespace); err != nil {
		return err
	}
	claims, err := Claims(plan)
	if err != nil {
		return err
	}
	for _, p := range claims {
		if err := c.api.createClaim(ctx, p); err != nil {
			return err
		}
	}
	for range maxTaken {
		plan.Name = fmt.Sprintf("cairn-%s-%s-%d", x.Run, x.Class, n)
		built, err := Build(plan)
		if err != nil {
			return err
		}
		got, err := c.api.createJob(ctx, built)
		if apierrors.IsAlreadyExists(err) {
			// Made by a call whose answer was lost; or it has ended and is not
			// gone yet; or it is somebody else's.
			got, err = c.api.getJob(ctx, built.Namespace, built.Name)
			if apierrors.IsNotFound(err) {
				continue // now it is gone
			}
			if err == nil {
				if c.made(got, x) {
					return nil
				}
				n++
				continue
			}
		}
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.putJob(got)
		if j := c.jobs[key{x.Run, x.Class}]; j != nil {
			if j.served = x.Served; old != nil && old.finished && old.served == x.Served {
				j.barren = old.barren + 1
			}
		}
		c.mu.Unlock()
		c.log.Info("workers", "run", x.Run, "namespace", x.Namespace, "job", got.Name, "pods", size)
		return nil
	}
	return fmt.Errorf("make a Job: %d names are taken, the last is %s", maxTaken, plan.Name)
}

// maxTaken is how many names are tried at a time.
const maxTaken = 100

// made says whether a Job that was there already, under the name of one that
// was to be made, is that one. One of somebody else is let alone.
func (c *Controller) made(j *batchv1.Job, x *dispatch.Demand) bool {
	k := key{x.Run, x.Class}
	if keyOf(j) != k || j.Labels[LabelServer] != c.id || j.Labels[LabelCluster] != c.cfg.Cluster {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putJob(j)
	again := c.jobs[k]
	return again != nil && !again.finished && !again.deleting
}

// judge ends what cannot go on: tasks whose pods do not start, or whose Job has
// failed.
func (c *Controller) judge(ctx context.Context, wanted map[key]dispatch.Demand) {
	type sentence struct {
		*job
		why string
		ask bool // the API server for its words
	}
	var all, again []sentence
	c.mu.Lock()
	now := c.d.Clock.Mono()
	running := c.tally().running
	for k, j := range c.jobs {
		x, ok := wanted[k]
		if j.told || j.deleting || !ok {
			continue
		}
		if j.failure != "" {
			all = append(all, sentence{j, j.failure, false})
			continue
		}
		if j.finished {
			if j.barren >= maxBarren && x.Queued > 0 && x.Served == j.served {
				all = append(all, sentence{j, fmt.Sprintf("the pods of %d Jobs, %s the last, ended without asking for a task: %s", j.barren+1, j.name, c.barrenWhy(j)), false})
			}
			continue
		}
		if running[k] > 0 {
			if !x.Asked && now-j.since > 2*c.cfg.BadStart {
				all = append(all, sentence{j, fmt.Sprintf("the pods of Job %s run, and do not reach the work server at %s: see kubectl logs -n %s job/%s -c %s", j.name, c.cfg.Server, j.namespace, j.name, Main), false})
			}
			continue
		}
		if now-j.since > c.cfg.NoStart && c.bare(j) {
			all = append(all, sentence{j, fmt.Sprintf("no pod of Job %s was let in for %v", j.name, c.cfg.NoStart), true})
			continue
		}
		for p := range c.podsOf(k) {
			limit := c.cfg.NoStart
			if p.own {
				limit = c.cfg.BadStart
			}
			if !p.over && c.doubtful(j, p) {
				c.unmounted()
				again = append(again, sentence{j, p.trouble, false})
				break
			}
			if !p.over && p.trouble != "" && now-p.since > limit {
				all = append(all, sentence{j, fmt.Sprintf("pod %s: %s", p.name, p.trouble), false})
				break
			}
		}
	}
	for i := range all {
		s := &all[i]
		s.told = true
		for p := range c.podsOf(s.key) { // what its pods said says more than the Job
			if s.failure != "" && p.job == s.name && p.ended != "" {
				s.why += "; pod " + p.name + ": " + p.ended
				break
			}
		}
	}
	c.mu.Unlock()
	for _, s := range again {
		c.log.Warn("a pod does not start that has the worker's image mounted: it is copied instead", "run", s.run, "job", s.name, "why", s.why)
		c.remove(ctx, s.job)
	}
	for _, s := range all {
		if s.ask {
			if e, err := c.api.warning(ctx, s.namespace, "Job", s.name); err == nil && e.message != "" {
				s.why += ": " + cured(e.message)
			}
		}
		c.log.Warn("workers do not start", "run", s.run, "job", s.name, "why", s.why)
		// Another try would take as long: whether there is one is for the user to say.
		c.d.Teller.Fail(s.run, s.class, s.why, false)
		c.remove(ctx, s.job)
	}
}

// barrenWhy is why pods end without a task, as far as they say; the lock is held.
func (c *Controller) barrenWhy(j *job) string {
	for p := range c.podsOf(j.key) {
		if p.ended != "" && p.ended != ended {
			return fmt.Sprintf("pod %s: %s", p.name, p.ended)
		}
	}
	return fmt.Sprintf("is %s the image of cairn-worker?", c.cfg.Worker)
}

// sweep deletes Jobs of runs that have ended. What has finished itself is the
// cluster's to remove.
func (c *Controller) sweep(ctx context.Context) {
	var old, unsure []*job
	c.mu.Lock()
	now := c.d.Clock.Mono()
	for j := range c.all() {
		j.old = j.old || !j.made.IsZero() && c.d.Clock.Now().Sub(j.made) > maxAge
		switch {
		case j.finished || j.deleting, dispatch.Shared(j.run): // those leave by themselves
		case c.d.Demander.Over(j.run):
			if j.ended == 0 {
				j.ended = now
			}
			if now-j.ended > leaveTime { // their workers leave by themselves
				old = append(old, j)
			}
		case j.checked == 0 || now-j.checked > checkEvery:
			j.checked = now
			unsure = append(unsure, j)
		}
	}
	c.mu.Unlock()
	for _, j := range unsure {
		if live, err := c.d.Live(ctx, j.run); err == nil && !live {
			old = append(old, j)
		}
	}
	for _, j := range old {
		c.remove(ctx, j)
	}
}

// sweepClaims deletes the claims of runs that have ended.
func (c *Controller) sweepClaims(ctx context.Context) {
	c.mu.Lock()
	now := c.d.Clock.Mono()
	due := c.claimed == 0 || now-c.claimed > checkEvery
	for j := range c.all() {
		if j.claims && !j.swept && c.d.Demander.Over(j.run) {
			due, j.swept = true, true
		}
	}
	if due {
		c.claimed = now
	}
	c.mu.Unlock()
	if !due {
		return
	}
	all, err := c.api.listClaims(ctx)
	if err != nil {
		c.log.Warn("the claims of runs could not be listed", "error", err)
		return
	}
	for i := range all {
		p := &all[i]
		if live, err := c.d.Live(ctx, p.Labels[LabelRun]); err != nil || live || p.DeletionTimestamp != nil {
			continue
		}
		if p.Labels[labelKeep] == "failed" && c.d.Failed != nil {
			if failed, err := c.d.Failed(ctx, p.Labels[LabelRun]); err != nil || failed {
				continue
			}
		}
		if err := c.api.deleteClaim(ctx, p.Namespace, p.Name, p.UID); err != nil {
			c.log.Warn("a claim could not be deleted", "claim", p.Name, "error", err)
		}
	}
}

const (
	leaveTime  = 10 * time.Second
	checkEvery = time.Minute
)

// remove deletes a Job. Its failure is seen by the next step.
func (c *Controller) remove(ctx context.Context, j *job) {
	c.mu.Lock()
	held := c.d.Clock.Mono() < c.hold
	c.mu.Unlock()
	if held {
		return
	}
	if err := c.api.deleteJob(ctx, j.namespace, j.name, types.UID(j.uid)); err != nil {
		c.log.Warn("a Job could not be deleted", "job", j.name, "error", err)
		return
	}
	c.mu.Lock()
	j.deleting = true
	c.recount()
	c.mu.Unlock()
}
