package main

import (
	"context"
	"fmt"
	"time"
)

// fan measures one workflow.
func (s settings) fan(ctx context.Context, r *report, w *world, namespace string, n int, where string) (cost, error) {
	what := fmt.Sprintf("%s, %s", count(n, "task"), where)
	c, err := w.cost(ctx, what, namespace, func() error { return w.fan(ctx, namespace, n) })
	if err != nil {
		return c, err
	}
	total, most := c.writes.total(), 20*c.pods()+30
	r.detail(what, c)
	r.add(row{what + ": writes", fmt.Sprint(total), fmt.Sprintf("≤ %d", most), total <= most,
		fmt.Sprintf("`true`, one workflow, %s (20 for each, 30 besides); from the object to the last trace removed; it ended after %s", count(c.pods(), "pod"), rounded(c.took))})
	return c, nil
}

// beside measures a plain Job of n pods, and compares what it takes for s.n.
func (s settings) beside(ctx context.Context, r *report, w *world, ours cost, n, parallel, times int, where string) error {
	what := fmt.Sprintf("Indexed Job of %d pods, %s", n, where)
	c, err := w.cost(ctx, what, plain, func() error { return w.job(ctx, n, min(n, parallel)) })
	if err != nil {
		return err
	}
	r.detail(what, c)
	scale := float64(s.n) / float64(n)
	how := fmt.Sprintf("`true` in an Indexed Job of %d pods, %d at a time, in the same cluster: %d writes, %s", n, min(n, parallel), c.writes.total(), rounded(c.took))
	if n != s.n {
		how += fmt.Sprintf("; for %d pods times %.0f", s.n, scale)
	}
	fewer := float64(c.writes.total()) * scale / float64(ours.writes.total())
	r.add(row{fmt.Sprintf("a plain Job of %d pods, %s: writes, times ours", s.n, where), fmt.Sprintf("%.0f", fewer), fmt.Sprintf("≥ %d", times), fewer >= float64(times), how})
	if where == "real node" {
		part := c.took.Seconds() * scale / ours.took.Seconds()
		r.add(row{fmt.Sprintf("a plain Job of %d pods, %s: wall time, times ours", s.n, where), fmt.Sprintf("%.0f", part), "≥ 20", part >= 20, "the same Job, until it has succeeded"})
	}
	return nil
}

// manyRuns measures workflows of one task, handed in at once, while somebody
// else looks at pods.
func (s settings) manyRuns(ctx context.Context, r *report, w *world, n int, where string, most int) error {
	// Who rests has no server; what it finds is what is handed in after that.
	w.end()
	idle, handed, err := w.unburdened(ctx, n)
	if err != nil {
		return err
	}
	if err := w.serve(ctx, w.config); err != nil {
		return err
	}
	var during lists
	what := fmt.Sprintf("%d workflows of one task, %s", n, where)
	c, err := w.cost(ctx, what, plain, func() (err error) {
		during, err = w.lists(ctx, func() error { return w.many(ctx, n) })
		return err
	})
	if err == nil {
		err = w.forget(ctx)
	}
	if err != nil {
		return err
	}
	r.detail(what, c)
	each := float64(c.writes.total()) / float64(n)
	r.add(row{what + ": writes each", fmt.Sprintf("%.1f", each), fmt.Sprintf("≤ %d", most), each <= float64(most),
		fmt.Sprintf("all have succeeded after %s, in %d pods; until these are gone", rounded(c.took), c.pods())})
	r.lists(where, idle, handed, during)
	return nil
}

// firstLines measures how soon a task prints.
func (s settings) firstLines(ctx context.Context, r *report, w *world, where string, median, slow time.Duration) error {
	var took []time.Duration
	for i := range s.samples + 1 {
		d, err := w.first(ctx, i)
		if err != nil {
			return err
		}
		if i > 0 { // that one made the pool warm
			took = append(took, d)
		}
	}
	if err := w.forget(ctx); err != nil {
		return err
	}
	p50, p99 := quantile(took, 0.5), quantile(took, 0.99)
	how := fmt.Sprintf("%d times, one after the other, the image is there", s.samples)
	r.add(row{"from kubectl apply to the first line, " + where + ": p50", rounded(p50), "≤ " + rounded(median), p50 <= median, how})
	x := row{what: "the same: p99", measured: rounded(p99), how: how}
	if slow > 0 {
		x.wanted, x.met = "≤ "+rounded(slow), p99 <= slow
	}
	r.add(x)
	return w.gone(ctx, plain)
}
