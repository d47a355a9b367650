package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"cairn.dev/cairn/test/cluster"
)

// podsPerRun is how many pods a run has at a time.
const podsPerRun = 8

// warmFor is how long shared pods wait for more.
const warmFor = 20 * time.Second

// real measures on a node with containers.
func (s settings) real(ctx context.Context, r *report, dir string) error {
	registry, stop, err := fillRegistry(ctx, dir)
	if err != nil {
		return err
	}
	defer stop()
	// A kubelet that knows of no DNS says so with each pod.
	w, err := newWorld(ctx, dir, cluster.Options{Nodes: 1, Registry: registry, Kubelet: []string{"--cluster-dns=10.96.0.10", "--cluster-domain=cluster.local"}})
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.serve(ctx, podsPerRun, 0); err != nil {
		return err
	}
	if err := w.fan(ctx, plain, 1); err != nil { // images are there
		return err
	}
	if err := w.gone(ctx, plain); err != nil {
		return err
	}
	if s.wants("tasks") {
		if err := s.realTasks(ctx, r, w); err != nil {
			return err
		}
	}
	if s.wants("first") {
		if err := s.firstLines(ctx, r, w, "with a new Job", 4*time.Second, 6*time.Second); err != nil {
			return err
		}
	}
	if s.wants("many") {
		n := max(s.n/10, 1) // each needs a pod, and a node starts only so many a second
		if err := s.manyRuns(ctx, r, w, n, "a Job each, real node", 36); err != nil {
			return err
		}
	}
	if !s.wants("many") && !s.wants("first") {
		return nil
	}
	if err := w.serve(ctx, podsPerRun, warmFor); err != nil {
		return err
	}
	if s.wants("many") {
		if err := s.manyRuns(ctx, r, w, s.n, "warm pods, real node", 8); err != nil {
			return err
		}
	}
	if s.wants("first") {
		return s.firstLines(ctx, r, w, "in warm pods", time.Second, 0)
	}
	return nil
}

// realTasks measures one workflow of many tasks beside a Job of many pods.
func (s settings) realTasks(ctx context.Context, r *report, w *world) error {
	one, err := s.fan(ctx, r, w, plain, 1, "real node")
	if err != nil {
		return err
	}
	ours, err := s.fan(ctx, r, w, plain, s.n, "real node")
	if err != nil {
		return err
	}
	if _, err := s.fan(ctx, r, w, strict, s.n, "real node, restricted namespace"); err != nil {
		return err
	}
	// Pods start once, whatever they run.
	if estimate := max(ours.took-one.took, 0)*time.Duration(s.large/s.n) + one.took; estimate < s.patience {
		if _, err := s.fan(ctx, r, w, plain, s.large, "real node"); err != nil {
			return err
		}
	} else {
		r.add(row{what: fmt.Sprintf("%d tasks, real node", s.large), measured: "NOT RUN", how: fmt.Sprintf("it would take about %s, as %d tasks took %s and one %s", rounded(estimate), s.n, rounded(ours.took), rounded(one.took))})
	}
	return s.beside(ctx, r, w, ours, max(s.n/5, 1), 100, 50, "real node")
}

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
	idle, end := context.WithTimeout(ctx, 10*time.Second)
	before, err := w.lists(idle)
	end()
	if err != nil {
		return err
	}
	busy, stop := context.WithCancel(ctx)
	defer stop()
	var during []time.Duration
	var listed error
	var looking sync.WaitGroup
	what := fmt.Sprintf("%d workflows of one task, %s", n, where)
	c, err := w.cost(ctx, what, plain, func() error {
		looking.Go(func() { during, listed = w.lists(busy) })
		err := w.many(ctx, n)
		stop()
		looking.Wait()
		return err
	})
	if err == nil {
		err = listed
	}
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
	a, b := quantile(before, 0.99), quantile(during, 0.99)
	r.add(row{"meanwhile (" + where + ") a LIST of the 100 pods of another namespace: p99", rounded(b), "≤ 3 × idle, ≤ 500 ms", b <= 3*a && b <= 500*time.Millisecond,
		fmt.Sprintf("%d lists by an account that may see nothing else; idle p99 %s (%d lists)", len(during), rounded(a), len(before))})
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

// kwok measures on nodes that only pretend, with workers played.
func (s settings) kwok(ctx context.Context, r *report, dir string) error {
	w, err := newWorld(ctx, dir, cluster.Options{FakeNodes: 4})
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.serve(ctx, podsPerRun, 0); err != nil {
		return err
	}
	playing, stop := context.WithCancel(ctx)
	p := &players{api: w.admin, has: map[string]bool{}, secrets: map[string]map[string][]byte{}}
	done := make(chan struct{})
	go func() { defer close(done); p.play(playing) }()
	defer func() { stop(); <-done }()
	if err := w.fan(ctx, plain, 1); err != nil {
		return err
	}
	if err := w.gone(ctx, plain); err != nil {
		return err
	}
	ours, err := s.fan(ctx, r, w, plain, s.n, "kwok")
	if err != nil {
		return err
	}
	if err := s.beside(ctx, r, w, ours, s.n, s.n, 20, "kwok"); err != nil {
		return err
	}
	if err := s.largeFan(ctx, r, w); err != nil {
		return err
	}
	if err := s.manyRuns(ctx, r, w, s.n, "a Job each, kwok", 36); err != nil {
		return err
	}
	return p.failed()
}

// largeFan measures what a hundred thousand tasks leave in etcd and in memory.
func (s settings) largeFan(ctx context.Context, r *report, w *world) error {
	rest := 10 * time.Second
	idle, err := w.stored(ctx)
	if err != nil {
		return err
	}
	time.Sleep(rest) // what is measured is how much a cluster writes that rests
	before, err := w.stored(ctx)
	if err != nil {
		return err
	}
	c, err := s.fan(ctx, r, w, plain, s.large, "kwok")
	if err != nil {
		return err
	}
	after, err := w.stored(ctx)
	if err != nil {
		return err
	}
	memory, err := w.memory()
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "etcd: %d, %d, %d bytes\n", idle, before, after)
	r.add(row{fmt.Sprintf("%d tasks: etcd grows by", s.large), mib(after - before), "≤ 1 MiB", after-before <= 1<<20,
		fmt.Sprintf("etcd_mvcc_db_total_size_in_use_in_bytes, all versions of objects that compaction removes later included; it ran %s; a cluster that rests grows by %s in %s", rounded(c.took), mib(before-idle), rounded(rest))})
	r.add(row{fmt.Sprintf("%d tasks: largest resident set of the server", s.large), mib(memory), "≤ 200 MiB", memory <= 200<<20,
		"VmHWM of the process with work server, controller and Jobs, since its start"})
	return nil
}
