package main

import (
	"context"
	"fmt"
	"os"

	"cairn.dev/cairn/test/cluster"
)

// kwok measures on nodes that only pretend, with workers played.
func (s settings) kwok(ctx context.Context, r *report, dir string) error {
	w, err := newWorld(ctx, dir, cluster.Options{FakeNodes: 4})
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.yield("stages.yaml"); err != nil {
		return err
	}
	playing, stop := context.WithCancel(ctx)
	p := &players{api: w.admin, has: map[string]bool{}, secrets: map[string]map[string][]byte{}}
	done := make(chan struct{})
	go func() { defer close(done); p.play(playing) }()
	defer func() { stop(); <-done }()
	if err := w.serve(ctx, serverConfig{Pods: podsPerRun}); err != nil {
		return err
	}
	ours, err := s.fan(ctx, r, w, plain, s.n, "kwok")
	if err != nil {
		return err
	}
	if s.wants("kwok") {
		if err := s.beside(ctx, r, w, ours, s.n, s.n, 20, "kwok"); err != nil {
			return err
		}
		if err := s.largeFan(ctx, r, w); err != nil {
			return err
		}
		if err := s.manyRuns(ctx, r, w, s.n, "a Job each, kwok", 36); err != nil {
			return err
		}
	}
	if err := p.failed(); err != nil || !s.wants("argo") {
		return err
	}
	stop()
	w.end()
	return s.argo(ctx, r, w, ours)
}

// largeFan measures what a hundred thousand tasks leave in etcd and in memory.
func (s settings) largeFan(ctx context.Context, r *report, w *world) error {
	idle, err := w.stored(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, resting); err != nil { // what a cluster writes that rests
		return err
	}
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
		fmt.Sprintf("etcd_mvcc_db_total_size_in_use_in_bytes, all versions of objects that compaction removes later included; it ran %s; a cluster that rests grows by %s in %s", rounded(c.took), mib(before-idle), rounded(resting))})
	r.add(row{fmt.Sprintf("%d tasks: largest resident set of the server", s.large), mib(memory), "≤ 200 MiB", memory <= 200<<20,
		"VmHWM of the process with work server, controller and Jobs, since its start"})
	return nil
}
