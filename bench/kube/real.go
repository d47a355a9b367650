package main

import (
	"context"
	"fmt"
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
	if err := w.yield("node1"); err != nil {
		return err
	}
	for _, part := range []struct {
		name   string
		server serverConfig
		run    func(context.Context, *report, *world) error
	}{
		{"tasks", serverConfig{}, s.realTasks},
		{"copy", serverConfig{Copy: true}, s.realCopy},
		{"many", serverConfig{}, func(ctx context.Context, r *report, w *world) error {
			return s.manyRuns(ctx, r, w, s.many, "a Job each, real node", 36)
		}},
		{"first", serverConfig{}, func(ctx context.Context, r *report, w *world) error {
			return s.firstLines(ctx, r, w, "with a new Job", 4*time.Second, 6*time.Second)
		}},
		{"warm", serverConfig{Warm: warmFor}, func(ctx context.Context, r *report, w *world) error {
			return s.manyRuns(ctx, r, w, s.n, "warm pods, real node", 8)
		}},
		{"first", serverConfig{Warm: warmFor}, func(ctx context.Context, r *report, w *world) error {
			return s.firstLines(ctx, r, w, "in warm pods", time.Second, 0)
		}},
	} {
		if !s.wants(part.name) {
			continue
		}
		part.server.Pods = podsPerRun
		if err := w.serve(ctx, part.server); err != nil {
			return err
		}
		if err := part.run(ctx, r, w); err != nil {
			return err
		}
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
	if s.plain == 0 {
		return nil
	}
	return s.beside(ctx, r, w, ours, s.plain, 100, 50, "real node")
}

// realCopy measures the same where an init container has to copy the worker.
func (s settings) realCopy(ctx context.Context, r *report, w *world) error {
	for _, namespace := range []string{plain, strict} {
		if _, err := s.fan(ctx, r, w, namespace, s.n, "real node, no image volumes, namespace "+namespace); err != nil {
			return err
		}
	}
	return nil
}
