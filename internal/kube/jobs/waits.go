package jobs

import (
	"context"
	"fmt"
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

// tellWaits finds out which runs have tasks and no pod that runs, and why.
func (c *Controller) tellWaits(ctx context.Context, wanted map[key]dispatch.Demand) {
	c.mu.Lock()
	now := c.d.Clock.Mono()
	running := c.tally().running
	found, unknown := map[string]string{}, []*job{}
	for k, j := range c.jobs {
		x, ok := wanted[k]
		if !ok || x.Queued == 0 || running[k] > 0 || j.finished || j.deleting || now-j.since < waitsAfter {
			continue
		}
		switch why := c.troubleOf(k, now); {
		case why != "":
			found[k.run] = why
		case j.suspended:
			found[k.run] = fmt.Sprintf("Job %s is suspended: its queue has not admitted it", j.name)
		case j.empty && (j.asked == 0 || now-j.asked > waitsFor):
			j.asked = now
			unknown = append(unknown, j)
		case j.empty && j.words != "":
			found[k.run] = j.words
		}
	}
	hindered := map[string]string{} // less those that have ended
	for k := range wanted {
		if why := c.hindered[k.run]; why != "" {
			hindered[k.run] = why
			if found[k.run] == "" {
				found[k.run] = why
			}
		}
	}
	c.hindered = hindered
	c.mu.Unlock()
	for _, j := range unknown {
		words, err := c.api.events(ctx, j.namespace, j.name)
		if err != nil || words == "" {
			continue
		}
		c.mu.Lock()
		j.words = fmt.Sprintf("no pod of Job %s is let in: %s", j.name, words)
		found[j.run] = j.words
		c.mu.Unlock()
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

// troubleOf is why a pod of a kind does not start, once it lasts; the lock is
// held.
func (c *Controller) troubleOf(k key, now time.Duration) string {
	for _, p := range c.pods {
		if p.key == k && !p.over && p.trouble != "" && now-p.since >= waitsAfter {
			return fmt.Sprintf("pod %s: %s", p.name, p.trouble)
		}
	}
	return ""
}
