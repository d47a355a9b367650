package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow/front"
)

// retryRefused is how often what was refused is looked at again without a
// reason: what it lacked may be a ConfigMap, and those are not watched.
const retryRefused = 5 * time.Minute

// settle is how long after its beginning a run is first told of: many have
// ended by then and need one write, and of many that come at once all are begun
// before the first is told of.
const settle = 500 * time.Millisecond

// dealRun begins the run of a Workflow, steers it, and tells how it is.
func (c *Controller) dealRun(ctx context.Context, r ref, rec *record, u *unstructured.Unstructured) (again time.Duration, err error) {
	p := picture{generation: u.GetGeneration(), now: c.d.Clock.Now()}
	if p.spec, err = fingerprint(u); err != nil {
		return 0, err
	}
	if uid := string(u.GetUID()); rec.uid != uid {
		c.begin(r, rec, uid)
	}
	if d := c.wait(rec, false); d > 0 && rec.steered && rec.generation == p.generation && u.GetDeletionTimestamp() == nil {
		return d, nil // a busy run changes more often than it is told of
	}
	if rec.run == "" {
		id, err := c.d.Server.Find(ctx, c.key(r.namespace, rec.uid))
		claimed, spec := stored(u)
		switch {
		case err == nil:
			rec.spec = spec
			c.belong(r, rec, id)
		case !errors.Is(err, work.ErrNotFound):
			return 0, err
		case finished(u) || u.GetDeletionTimestamp() != nil:
			return 0, nil // its history has gone, as it does after a while
		case claimed != "":
			if d := c.seldom(rec); d > 0 {
				return d, nil // whoever has the run may say otherwise, each time
			}
			p.lost, p.run.ID = true, claimed
			return c.tell(ctx, r, rec, u, p)
		default:
			id, p.refused, err = c.submit(ctx, r, u)
			if err != nil {
				return 0, err
			}
			c.refuse(rec, p.refused != "")
			if p.refused != "" {
				again, err = c.tell(ctx, r, rec, u, p)
				if again == 0 {
					again = retryRefused
				}
				return again, err
			}
			rec.spec, rec.begun = p.spec, max(1, c.d.Clock.Mono())
			c.belong(r, rec, id)
			// It began as the spec says.
			w := wishOf(u)
			rec.steered, rec.suspend, rec.generation = true, w.suspend != nil && *w.suspend, p.generation
			return settle, nil
		}
	}
	if rec.written == 0 && finished(u) && !c.d.Server.Live(rec.run) {
		// It was told by an earlier process. To look at each again would read
		// all that ever ran here whenever a server starts.
		return 0, nil
	}
	p.run, err = c.d.Server.Get(ctx, rec.run)
	switch {
	case errors.Is(err, work.ErrNotFound) && finished(u):
		return 0, nil
	case errors.Is(err, work.ErrNotFound):
		p.lost, p.run.ID = true, rec.run
	case err != nil:
		return 0, err
	}
	if err := c.steer(ctx, rec, u, p.run); err != nil {
		return 0, err
	}
	rec.generation = p.generation
	if d := c.wait(rec, false); d > 0 {
		return d, nil
	}
	if d := rec.begun + settle - c.d.Clock.Mono(); rec.begun > 0 && d > 0 && !p.ended() {
		return d, nil
	}
	if claimed, _ := stored(u); claimed != "" && claimed != rec.run {
		if d := c.rival(r, rec, claimed); p.ended() || d > 0 {
			return d, nil
		}
	}
	if p.changed = rec.spec != "" && rec.spec != p.spec; p.changed {
		p.spec = rec.spec
	}
	if c.cfg.URL != "" {
		p.link = strings.TrimSuffix(c.cfg.URL, "/") + "/api/v1/runs/" + rec.run
	}
	if c.d.Waits != nil && !p.run.Phase.Ended() {
		p.waits = c.d.Waits(rec.run)
	}
	if n := p.run.Counts.Failed; n != rec.sampled && !r.kind.argo() {
		if rec.samples, err = c.failures(ctx, rec.run); err != nil {
			return 0, err
		}
		rec.sampled = n
	}
	p.samples = rec.samples
	return c.tell(ctx, r, rec, u, p)
}

// rival deals with an object that has the status of a run which is not this
// server's: another one looks after the cluster, too. It is said once, and the
// two write over each other seldom. The result is for how long nothing is
// written.
func (c *Controller) rival(r ref, rec *record, run string) time.Duration {
	c.mu.Lock()
	said := c.rivaled
	c.rivaled = true
	c.mu.Unlock()
	if !said {
		c.log.Error("another server looks after this cluster, too: workflows are run twice; end one of them, or give each namespaces of its own (work.clusters[].namespaces)", "object", r.String(), "its_run", run, "run_here", rec.run)
	}
	return c.seldom(rec)
}

// seldom is for how long nothing is written to an object to which another server
// writes.
func (c *Controller) seldom(rec *record) time.Duration {
	if rec.written == 0 {
		return 0
	}
	return max(0, rec.written+slowest-c.d.Clock.Mono())
}

// tell writes the status of a Workflow.
func (c *Controller) tell(ctx context.Context, r ref, rec *record, u *unstructured.Unstructured, p picture) (time.Duration, error) {
	old := rec.there(u)
	if !r.kind.argo() {
		return c.write(ctx, r, rec, u, runStatus(p, old), nil)
	}
	var nodes []argoNode
	if p.refused == "" && !p.lost {
		var err error
		known, _ := old["nodes"].(map[string]any)
		if nodes, err = c.nodes(ctx, p.run, r.name, known); err != nil {
			return 0, err
		}
	}
	status, labels := argoStatus(p, nodes, old)
	return c.write(ctx, r, rec, u, status, labels)
}

// stored is the run of an object as its status has it, and what spec it is of.
// It may be anybody's: see [Keys].
func stored(u *unstructured.Unstructured) (run, spec string) {
	for _, at := range [][]string{{"status"}, {"status", "cairn"}} {
		if s, ok, err := unstructured.NestedString(u.Object, append(at, "run")...); ok && err == nil && s != "" {
			spec, _, _ = unstructured.NestedString(u.Object, append(at, "observedSpec")...)
			return s, spec
		}
	}
	return "", ""
}

// finished reports whether the status of an object says that its run is over.
func finished(u *unstructured.Unstructured) bool {
	phase, _, _ := unstructured.NestedString(u.Object, "status", "phase")
	at, _, _ := unstructured.NestedString(u.Object, "status", "finishedAt")
	return at != "" && phase != "" && phase != "Running"
}

// submit hands a workflow in, once however often it is tried. refused says
// what is wrong with it.
func (c *Controller) submit(ctx context.Context, r ref, u *unstructured.Unstructured) (id, refused string, err error) {
	doc, err := document(u, "shutdown")
	if err != nil {
		return "", "", err
	}
	var failed error
	g, problems := front.Compile(r.String(), doc, c.options(ctx, r.kind.argo(), &failed))
	if failed != nil {
		return "", "", failed
	}
	if len(problems) > 0 {
		return "", refusal(problems), nil
	}
	args, err := g.Arguments(nil, nil)
	if err != nil {
		return "", err.Error(), nil
	}
	id, err = c.d.Server.Submit(ctx, g, c.who(), work.Options{
		Key: c.key(r.namespace, string(u.GetUID())), Namespace: r.namespace, Name: r.name, Args: args, Pool: Pool(c.cfg.Cluster)})
	switch {
	case errors.Is(err, work.ErrInvalid):
		return "", err.Error(), nil
	case err != nil:
		return "", "", fmt.Errorf("submit %s: %w", r, err)
	}
	c.log.Info("a run was taken", "object", r.String(), "run", id)
	return id, "", nil
}

// steer does what the spec says about a run that goes on. What was said by
// other ways, as by cairn runs, is undone only by a change of the spec.
func (c *Controller) steer(ctx context.Context, rec *record, u *unstructured.Unstructured, run work.Info) error {
	w := wishOf(u)
	want := w.suspend != nil && *w.suspend
	was := rec.suspend
	if !rec.steered {
		// Begun by an earlier process. Ours tells which spec was dealt with;
		// for the others a word that stands there counts.
		seen, ok, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration")
		was = want
		if ok && seen != u.GetGeneration() || !ok && w.suspend != nil {
			was = !want
		}
	}
	if run.Created.IsZero() || run.Phase.Ended() { // lost, or over
		rec.steered, rec.suspend = true, want
		return nil
	}
	stopped := ""
	switch {
	case w.stop == terminate:
		stopped = terminate
	case w.stop == stop || u.GetDeletionTimestamp() != nil:
		stopped = stop
	}
	if stopped != "" && stopped != rec.stopped {
		if err := c.cancel(ctx, run.ID, stopped == terminate); err != nil {
			return err
		}
		rec.stopped = stopped
	}
	if was != want {
		var err error
		switch {
		case want && !run.Suspended:
			err = c.d.Server.Suspend(ctx, run.ID)
		case !want && run.Suspended:
			err = c.d.Server.Resume(ctx, run.ID, "", nil, false, "")
		}
		if err != nil && !errors.Is(err, work.ErrConflict) && !errors.Is(err, work.ErrNotFound) {
			return err
		}
	}
	rec.steered, rec.suspend = true, want
	return nil
}

// forget ends what objects asked for that are gone.
func (c *Controller) forget(ctx context.Context, r ref, rec *record) error {
	for {
		c.mu.Lock()
		uid := ""
		if l := c.gone[r]; len(l) > 0 {
			uid = l[0]
		}
		c.mu.Unlock()
		if uid == "" {
			return nil
		}
		if err := c.forgetOne(ctx, r, rec, uid); err != nil {
			return err
		}
		c.mu.Lock()
		if c.gone[r] = c.gone[r][1:]; len(c.gone[r]) == 0 {
			delete(c.gone, r)
		}
		c.mu.Unlock()
	}
}

func (c *Controller) forgetOne(ctx context.Context, r ref, rec *record, uid string) error {
	key := c.key(r.namespace, uid)
	if r.kind.role == roleCron {
		return c.forgetSchedule(ctx, key)
	}
	runs, err := c.d.Server.Keyed(ctx, key)
	if err != nil {
		return err
	}
	for _, id := range runs {
		if err := c.cancel(ctx, id, false); err != nil {
			return err
		}
	}
	if rec.uid == uid {
		c.begin(r, rec, "")
	}
	return nil
}

// failures are some of the tasks of a run that failed.
func (c *Controller) failures(ctx context.Context, id string) ([]sample, error) {
	var out []sample
	below := []string{""}
	for looks := 0; len(below) > 0 && looks < maxLooks && len(out) < maxSamples; looks++ {
		parent := below[0]
		below = below[1:]
		views, _, err := c.d.Server.Nodes(ctx, id, parent, "", maxSamples*2, machine.Filter{Phases: []machine.Phase{machine.Running, machine.Failed, machine.Errored}})
		if errors.Is(err, work.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, v := range views {
			switch {
			case v.Children:
				if v.Kind != "tasks" || v.Failed > 0 {
					below = append(below, v.ID)
				}
			case v.Phase != machine.Running && len(out) < maxSamples:
				out = append(out, sampleOf(v))
			}
		}
	}
	return out, nil
}
