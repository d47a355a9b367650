package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"cairn.dev/cairn/internal/kube/crd"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/workflow/front"
)

// dealCron brings the server's schedule to what a CronWorkflow says.
func (c *Controller) dealCron(ctx context.Context, r ref, rec *record, u *unstructured.Unstructured) (time.Duration, error) {
	if uid := string(u.GetUID()); rec.uid != uid {
		c.begin(r, rec, uid)
	}
	if u.GetDeletionTimestamp() != nil {
		return 0, c.forgetSchedule(ctx, c.key(r.namespace, rec.uid))
	}
	if d := c.wait(rec, false); d > 0 && rec.generation == u.GetGeneration() {
		return d, nil // its run changes more often than it is told of
	}
	refused, err := c.putSchedule(ctx, r, rec, u)
	if err != nil {
		return 0, err
	}
	rec.generation = u.GetGeneration()
	info := c.schedule(r, rec.uid)
	var newest work.Info // of its runs, which has no object of its own
	if info.Name != "" {
		runs, _, err := c.d.Server.Runs(ctx, work.RunFilter{Schedule: r.namespace + "/" + r.name}, "", 1)
		if err != nil {
			return 0, err
		}
		if len(runs) > 0 && !runs[0].Created.Before(info.Created.Truncate(time.Second)) {
			newest = runs[0]
			c.belong(r, rec, newest.ID)
		}
	}
	old := rec.there(u)
	status := cronStatus
	if r.kind.argo() {
		status = argoCronStatus
	}
	now := c.d.Clock.Now()
	again, err := c.write(ctx, r, rec, u, status(info, newest, refused, u.GetGeneration(), now, old), nil)
	if again == 0 && !info.Next.IsZero() { // its status tells of the last time
		again = max(time.Second, info.Next.Sub(now)+time.Second)
	}
	if again == 0 && refused != "" {
		again = retryRefused
	}
	return again, err
}

// putSchedule stores the schedule if it is not the one that is stored.
func (c *Controller) putSchedule(ctx context.Context, r ref, rec *record, u *unstructured.Unstructured) (refused string, err error) {
	doc, err := document(u)
	if err != nil {
		return "", err
	}
	var failed error
	s, problems := front.CompileSchedule(r.String(), doc, c.options(ctx, r.kind.argo(), &failed))
	if failed != nil {
		return "", failed
	}
	if len(problems) > 0 {
		return refusal(problems), nil
	}
	if _, err := s.Graph.Arguments(nil, nil); err != nil {
		return err.Error(), nil
	}
	key := c.key(r.namespace, rec.uid)
	for _, x := range c.d.Server.Schedules() {
		if x.Namespace == r.namespace && x.Name == r.name && x.By != key && c.alive(x.By) {
			return fmt.Sprintf("metadata.name: there is a schedule %s/%s already, put by %s: choose another name", r.namespace, r.name, x.By), nil
		}
	}
	sum := sha256.Sum256(s.Documents)
	put := hex.EncodeToString(sum[:])
	if rec.put == put && c.schedule(r, rec.uid).Name != "" {
		return "", nil
	}
	s.Name, s.Namespace = r.name, r.namespace
	err = c.d.Server.PutSchedule(ctx, s, key, Pool(c.cfg.Cluster))
	switch {
	case errors.Is(err, work.ErrInvalid):
		return err.Error(), nil
	case err != nil:
		return "", fmt.Errorf("put the schedule of %s: %w", r, err)
	}
	rec.put = put
	return "", nil
}

// alive reports whether whoever put a schedule still wants it: what an object
// put that is gone may be replaced.
func (c *Controller) alive(by string) bool {
	return !strings.HasPrefix(by, c.prefix()) || c.keys()[by]
}

// schedule is what the server says of the schedule of an object.
func (c *Controller) schedule(r ref, uid string) work.ScheduleInfo {
	all := c.d.Server.Schedules()
	i := slices.IndexFunc(all, func(x work.ScheduleInfo) bool { return x.By == c.key(r.namespace, uid) })
	if i < 0 {
		return work.ScheduleInfo{}
	}
	return all[i]
}

// forgetSchedule deletes the schedule that an object put.
func (c *Controller) forgetSchedule(ctx context.Context, by string) error {
	for _, x := range c.d.Server.Schedules() {
		if x.By != by {
			continue
		}
		if err := c.d.Server.WithdrawSchedule(ctx, x.Namespace, x.Name, by); err != nil && !errors.Is(err, work.ErrNotFound) {
			return err
		}
	}
	return nil
}

// cronStatus is the status of a CronWorkflow of ours.
func cronStatus(x work.ScheduleInfo, newest work.Info, refused string, generation int64, now time.Time, old map[string]any) map[string]any {
	cs := conditionsOf(old, now, generation)
	out := map[string]any{"observedGeneration": generation}
	accept(cs, refused)
	put(out, "message", cut(refused, maxMessage))
	if x.Name != "" {
		put(out, "schedule", cut(strings.Join(x.Crons, ", "), maxSample))
		out["suspended"] = x.Suspended
		put(out, "lastScheduleTime", moment(x.Last))
		put(out, "nextScheduleTime", moment(x.Next))
		if newest.ID != "" {
			out["lastRun"], out["lastPhase"] = newest.ID, picture{run: newest}.phase()
		}
		if refused == "" {
			put(out, "message", cut(x.Trouble, maxMessage))
		}
	}
	out["conditions"] = cs.list
	return out
}

// argoCronStatus says the same in Argo's words.
func argoCronStatus(x work.ScheduleInfo, newest work.Info, refused string, generation int64, now time.Time, old map[string]any) map[string]any {
	was, _ := old["cairn"].(map[string]any)
	cs := conditionsOf(was, now, generation)
	accept(cs, refused)
	own := map[string]any{"conditions": cs.list}
	put(own, "nextScheduleTime", moment(x.Next))
	active := []any{}
	if newest.ID != "" {
		own["lastRun"], own["lastPhase"] = newest.ID, argoPhase(newest.Phase)
		if !newest.Phase.Ended() {
			active = append(active, map[string]any{"apiVersion": crd.ArgoGroup + "/" + crd.Version, "kind": "Workflow", "namespace": newest.Namespace, "name": newest.Name, "uid": newest.ID})
		}
	}
	out := map[string]any{"phase": "Active", "active": active, "cairn": own}
	put(out, "lastScheduledTime", moment(x.Last))
	list := []any{}
	for kind, why := range map[string]string{"SpecError": refused, "SubmissionError": x.Trouble} {
		if why != "" {
			list = append(list, map[string]any{"type": kind, "status": "True", "message": cut(why, maxMessage)})
		}
	}
	out["conditions"] = list
	return out
}

func accept(cs *conditions, refused string) {
	if refused != "" {
		cs.set("Accepted", false, "Refused", cut(refused, 2*maxMessage))
	} else {
		cs.set("Accepted", true, "Accepted", "it is what was asked for")
	}
}

// dealTemplate says of a template of ours whether it can be used. Argo's have
// no status; whoever uses them is told.
func (c *Controller) dealTemplate(ctx context.Context, r ref, rec *record, u *unstructured.Unstructured) (time.Duration, error) {
	if r.kind.group != crd.Group {
		return 0, nil
	}
	if uid := string(u.GetUID()); rec.uid != uid {
		c.begin(r, rec, uid)
	}
	doc, err := document(u)
	if err != nil {
		return 0, err
	}
	var failed error
	_, problems := front.Compile(r.String(), doc, c.options(ctx, false, &failed))
	if failed != nil {
		return 0, failed
	}
	c.refuse(rec, len(problems) > 0)
	old := rec.there(u)
	cs := conditionsOf(old, c.d.Clock.Now(), u.GetGeneration())
	accept(cs, refusal(problems))
	return c.write(ctx, r, rec, u, map[string]any{"observedGeneration": u.GetGeneration(), "conditions": cs.list}, nil)
}

// templateChanged has those looked at again that a template may concern: all
// schedules, whose next runs are to be of the new one, and what was refused
// perhaps for want of it. Runs keep the templates that they began with.
func (c *Controller) templateChanged(t ref) {
	c.mu.Lock()
	var list []ref
	for r, rec := range c.records {
		if r != t && r.kind.argo() == t.kind.argo() && (t.namespace == "" || r.namespace == t.namespace) && (r.kind.role == roleCron || rec.refused) {
			list = append(list, r)
		}
	}
	c.mu.Unlock()
	for _, r := range list {
		c.queue.add(r, 0)
	}
}
