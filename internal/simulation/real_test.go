package simulation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/usage"
)

// real is a whole Cairn below the protocols: the store on SQLite and disk, the
// ledger and the engine, on a clock that moves when told to.
type real struct {
	lab   *Lab
	dir   string
	clock *clock.Fake

	up       bool
	reg      *db.DB
	use      *db.DB
	disk     *blob.Disk
	store    *content.Store
	ledger   *usage.Ledger
	ticked   chan struct{} // the ledger has done what was due
	engine   *retention.Engine
	hook     func()
	stop     func()
	manual   int64
	grain    time.Duration // of the ledger
	said     int
	modelNow T
	crashAt  atomic.Int64 // as World.crashAt, while an operation runs
	commits  atomic.Int64
	crashed  atomic.Bool
}

var errCrash = errors.New("the process died")

func newReal(t testing.TB, l *Lab, dir string, grain time.Duration) *real {
	// A granularity of nothing, so that the model knows what a crash leaves.
	h := &real{lab: l, dir: dir, clock: clock.NewFake(wall(begin)), grain: grain}
	if err := h.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h
}

// fault ends the process at the commit that was asked for.
func (h *real) fault(point string) error {
	at := h.crashAt.Load()
	if at == 0 {
		return nil
	}
	n := h.commits.Load()
	if point == db.BeforeCommit {
		n = h.commits.Add(1)
		if at != 2*n-1 {
			return nil
		}
	} else if at != 2*n {
		return nil
	}
	h.crashed.Store(true)
	return errCrash
}

// ledgerClock tells when the ledger waits for time to pass.
type ledgerClock struct {
	*clock.Fake
	waits chan struct{}
}

func (c ledgerClock) After(d time.Duration) <-chan time.Time {
	ch := c.Fake.After(d)
	c.waits <- struct{}{}
	return ch
}

func (h *real) open(ctx context.Context) (err error) {
	log := slog.New(slog.DiscardHandler)
	if h.reg, err = db.Open(ctx, db.Config{Path: filepath.Join(h.dir, "registry.db"), Sync: db.Normal, Schema: content.Schema, Fault: h.fault, CacheKB: 512, Readers: 1}); err != nil {
		return err
	}
	if h.use, err = db.Open(ctx, db.Config{Path: filepath.Join(h.dir, "usage.db"), Sync: db.Normal, Schema: usage.Schema, CacheKB: 512, Readers: 1}); err != nil {
		return err
	}
	if h.disk, err = blob.OpenDisk(h.dir, blob.DiskConfig{}); err != nil {
		return err
	}
	if h.store, err = content.New(ctx, content.Config{DB: h.reg, Blobs: h.disk, Clock: h.clock, Grace: span(grace), Log: log}); err != nil {
		return err
	}
	h.ticked = make(chan struct{}, 16)
	if h.ledger, err = usage.Open(ctx, usage.Config{DB: h.use, Clock: ledgerClock{h.clock, h.ticked}, Log: log, Granularity: h.grain}); err != nil {
		return err
	}
	run, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = h.ledger.Run(run)
	}()
	<-h.ticked
	h.stop = func() { cancel(); <-done }
	ps := h.lab.policies
	h.engine = retention.New(retention.Config{Policies: ps, Explicit: true, Keep: span(keepHidden)}, retention.Deps{
		Content: hooked{h.store, h}, Ledger: h.ledger, Memory: nil, Clock: h.clock, Log: log,
	})
	h.up = true
	return nil
}

// close ends the process, with or without a chance to write.
func (h *real) close(clean bool) error {
	h.up = false
	h.stop()
	var errs []error
	if clean {
		errs = append(errs, h.store.Close(), h.ledger.Close())
	}
	err := h.reg.Close()
	if !clean {
		err = nil
	}
	return errors.Join(append(errs, err, h.use.Close(), h.disk.Close())...)
}

// hooked lets a test come in before the engine changes something.
type hooked struct {
	*content.Store
	h *real
}

func (s hooked) Expire(ctx context.Context, items []content.Expiry) ([]error, error) {
	s.h.hook()
	return s.Store.Expire(ctx, items)
}

func (s hooked) Sweep(ctx context.Context, items []content.Expiry) ([]error, error) {
	s.h.hook()
	return s.Store.Sweep(ctx, items)
}

// do carries out an operation on the real thing. Errors that the model has as
// well, such as an unknown manifest, are no errors here.
func (h *real) do(ctx context.Context, op Op) error {
	if !h.up {
		switch op.Kind {
		case opAdvance:
			h.clock.Advance(span(T(op.N)))
		case opJump:
			h.clock.Jump(span(T(op.N)))
		case opStart:
			return h.open(ctx)
		}
		return nil
	}
	h.commits.Store(0)
	h.crashed.Store(false)
	h.crashAt.Store(int64(op.Crash))
	err := h.one(ctx, op)
	h.crashAt.Store(0)
	if h.crashed.Load() {
		return h.close(false)
	}
	return err
}

func (h *real) one(ctx context.Context, op Op) error {
	c := h.lab.cat
	repo, man, tag := "", c.mans[max(op.M, 0)%nMan], ""
	if op.R >= 0 && op.R < nRepo {
		repo = c.repos[op.R]
	}
	if op.Tag >= 0 && op.Tag < nTag {
		tag = c.tags[op.Tag]
	}
	s := h.store
	known := func(err error) error {
		var missing *content.MissingBlobsError
		switch {
		case errors.Is(err, content.ErrManifestUnknown), errors.Is(err, content.ErrRepositoryUnknown), errors.Is(err, content.ErrBlobUnknown), errors.As(err, &missing):
			return nil
		}
		return err
	}
	putBlob := func(b int) error {
		_, err := s.PutBlob(ctx, repo, bytes.NewReader(c.blobs[b].body), c.blobs[b].digest)
		return err
	}
	push := func() error {
		p := content.Push{Repository: repo, Digest: man.digest, MediaType: man.parsed.MediaType, Body: man.body, Manifest: man.parsed, Actor: "ci"}
		if tag != "" {
			p.Tags = []string{tag}
		}
		return known(s.PutManifest(ctx, p))
	}
	pull := func(ref string) error {
		m, err := s.Manifest(ctx, repo, ref)
		if err == nil {
			h.ledger.Pull(repo, m.Digest, "puller")
		}
		return known(err)
	}
	switch op.Kind {
	case opImage:
		for _, b := range man.blobs {
			if err := putBlob(b); err != nil {
				return err
			}
		}
		return push()
	case opPushBlob:
		return putBlob(int(op.B))
	case opStat:
		_, err := s.StatBlob(ctx, repo, c.blobs[op.B].digest)
		return known(err)
	case opMount:
		_, err := s.Mount(ctx, repo, c.blobs[op.B].digest, c.repos[1-op.R], nil)
		return err
	case opPush:
		return push()
	case opRetag:
		return known(s.SetTag(ctx, repo, man.digest, tag, "me"))
	case opDeleteTag:
		return known(s.DeleteTag(ctx, repo, tag, "me"))
	case opDelete:
		return known(s.DeleteManifest(ctx, repo, man.digest, "me", "not wanted"))
	case opPull:
		return pull(string(man.digest))
	case opPullTag:
		return pull(tag)
	case opPin:
		return known(s.Pin(ctx, content.Pin{Repository: repo, Digest: man.digest, By: "me"}))
	case opUnpin:
		return known(s.Unpin(ctx, repo, man.digest))
	case opRestore:
		_, err := s.Restore(ctx, repo, man.digest, "me")
		return known(err)
	case opDated:
		_, err := h.ledger.Report(ctx, usage.Identity{}, usage.Statement{Uses: []usage.Use{{
			Digest: c.digests[op.M], Repository: repo, Source: usage.Workload, Subject: "job", At: h.now().Add(-span(T(op.N)))}}})
		return err
	case opState:
		h.said++
		st := usage.Statement{Reporter: reporterNames[op.R], Period: span(period), Complete: true, Sources: []usage.Source{usage.Container}, Statement: fmt.Sprint("s", h.said)}
		for _, d := range []int8{op.M, op.B} {
			if d >= 0 {
				u := usage.Use{Digest: c.digests[d], Source: usage.Container, Subject: "host"}
				if op.R == 1 {
					u.Repository = c.repos[0]
				}
				st.Uses = append(st.Uses, u)
			}
		}
		_, err := h.ledger.Report(ctx, usage.Identity{Scope: reporterScopes(c)[op.R]}, st)
		return err
	case opForget:
		if err := h.ledger.Forget(ctx, reporterNames[op.R]); !errors.Is(err, usage.ErrUnknownReporter) {
			return err
		}
	case opAdvance:
		h.clock.Advance(span(T(op.N)))
		<-h.ticked
	case opJump:
		h.clock.Jump(span(T(op.N)))
		h.ledger.ClockOK()
	case opOpen:
		if h.manual != 0 {
			return nil
		}
		id, err := h.ledger.OpenInterval(ctx, usage.Interval{Scope: []string{c.repos[manualScope]}, From: h.now(), Why: "the scan is stale"})
		h.manual = id
		return err
	case opClose:
		if h.manual == 0 {
			return nil
		}
		err := h.ledger.CloseInterval(ctx, h.manual, h.now())
		h.manual = 0
		return err
	case opCrash:
		return h.close(false)
	case opStop:
		return h.close(true)
	case opTick:
		call := 0
		var errs []error
		h.hook = func() {
			call++
			if call-1 == int(op.N) && !h.crashed.Load() {
				for _, sub := range op.Sub {
					errs = append(errs, h.one(ctx, sub))
				}
			}
		}
		r, err := h.engine.RunOnce(ctx, retention.RunOptions{Yes: true})
		if r.Failed > 0 && !h.crashed.Load() {
			errs = append(errs, fmt.Errorf("the run failed in part: %v", r.Errors))
		}
		return errors.Join(append(errs, err)...)
	case opCollect:
		_, err := s.Collect(ctx)
		return err
	case opReconcile:
		_, err := s.Reconcile(ctx)
		return err
	}
	return nil
}

// runReal goes through a history on both.
func runReal(ctx context.Context, t testing.TB, l *Lab, seen *Tally, blind bool, next func(i int, w *World) (Op, bool)) (ops []Op, err error) {
	dir, err := os.MkdirTemp(tmp(t), "cairn-simulation-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	h := newReal(t, l, dir, time.Millisecond)
	defer func() {
		if h.up {
			_ = h.close(false)
		}
	}()
	s := NewSim()
	s.Blind = blind
	defer func() { *seen = s.Seen }()
	for i := 0; !s.over(); i++ {
		op, ok := next(i, &s.w)
		if !ok {
			return ops, nil
		}
		ops = append(ops, op)
		h.modelNow = s.w.ledgerNow()
		if err := l.Step(s, op); err != nil {
			return ops, err
		}
		if s.over() {
			break
		}
		if err := h.do(ctx, op); err != nil {
			return ops, fmt.Errorf("the real store: %w", err)
		}
		if err := h.compare(ctx, &s.w); err != nil {
			return ops, fmt.Errorf("the real store differs: %w", err)
		}
	}
	return ops, nil
}

// tmp is a folder in memory if there is one, because this is about agreement
// and not about disks.
func tmp(t testing.TB) string {
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		if f, err := os.CreateTemp("/dev/shm", "cairn-"); err == nil {
			f.Close()
			os.Remove(f.Name())
			return "/dev/shm"
		}
	}
	return t.TempDir()
}

// The real store, ledger and engine agree with the model after every step.
func TestReal(t *testing.T) {
	want := int64(20_000)
	if testing.Short() {
		want /= 20
	}
	if soak() {
		want *= 5
	}
	start := time.Now()
	var steps, histories, seed atomic.Int64
	var wg sync.WaitGroup
	var once sync.Once
	var mu sync.Mutex
	var seen Tally
	for range 2 {
		wg.Go(func() {
			l := NewLab(0)
			for steps.Load() < want {
				n := seed.Add(1)
				rng := rand.New(rand.NewPCG(uint64(n), 2))
				mix := newMix(rng)
				var tally Tally
				ops, err := runReal(t.Context(), t, l, &tally, false, func(i int, w *World) (Op, bool) {
					return l.random(rng, mix, w, true), i < historyLength/2
				})
				mu.Lock()
				seen.add(tally)
				mu.Unlock()
				steps.Add(int64(len(ops)))
				histories.Add(1)
				if err == nil {
					continue
				}
				steps.Store(want)
				once.Do(func() {
					again := func(ops []Op) error {
						_, err := runReal(t.Context(), t, l, new(Tally), false, func(i int, _ *World) (Op, bool) {
							if i < len(ops) {
								return ops[i], true
							}
							return Op{}, false
						})
						return err
					}
					ops = Shrink(ops, func(ops []Op) bool { return again(ops) != nil })
					if e := again(ops); e != nil {
						err = e
					}
					t.Errorf("seed %d; after\n%s%v", n, l.Print(ops), err)
				})
			}
		})
	}
	wg.Wait()
	t.Logf("%d steps in %d histories took %s: %+v", steps.Load(), histories.Load(), time.Since(start).Round(time.Millisecond), seen)
	idle(t, seen)
}

// A model that makes a mistake differs from the real store, and that is
// noticed: the comparison is able to fail.
func TestRealDiffersFromBugs(t *testing.T) {
	for i := range nBugs {
		bug := Bug(1) << i
		t.Run(bug.String(), func(t *testing.T) {
			l := NewLab(bug)
			for seed := uint64(1); seed < 100; seed++ {
				rng := rand.New(rand.NewPCG(seed, 3))
				mix := newMix(rng)
				if _, err := runReal(t.Context(), t, l, new(Tally), true, func(i int, w *World) (Op, bool) {
					return l.random(rng, mix, w, true), i < historyLength/2
				}); err != nil {
					t.Log(err)
					return
				}
			}
			t.Error("not noticed")
		})
	}
}

// With the usual granularity a crash loses how late a use was, up to an hour:
// then it counts as later, never as earlier.
func TestRealGranularity(t *testing.T) {
	const grain, hour = time.Hour, 3
	l := NewLab(0)
	crashes := 0
	for seed := range uint64(40) {
		dir, err := os.MkdirTemp(tmp(t), "cairn-simulation-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		h := newReal(t, l, dir, grain)
		rng := rand.New(rand.NewPCG(seed, 4))
		mix := Mix{opImage: 5, opPull: 10, opState: 10, opDated: 3, opForget: 1, opAdvance: 20, opCrash: 2, opStop: 1}
		s := NewSim()
		var ops []Op
		for range 150 {
			op := l.random(rng, &mix, &s.w, true)
			op.Crash = 0
			ops = append(ops, op)
			if op.Kind == opCrash {
				crashes++
			}
			h.modelNow = s.w.ledgerNow()
			if err := errors.Join(l.Step(s, op), h.do(t.Context(), op)); err != nil {
				t.Fatalf("seed %d: after\n%s%v", seed, l.Print(ops), err)
			}
			if !h.up || s.over() {
				continue
			}
			for d := range s.w.use {
				for k, want := range s.w.use[d] {
					got := T(0)
					for _, u := range h.ledger.Uses(l.cat.digests[d]) {
						if x := l.useOf(d, k, useState{last: 1}); x.Source == u.Source && x.Repository == u.Repository {
							got = sinceEpoch(u.At)
						}
					}
					if got < want.last || got > want.last+hour {
						t.Fatalf("seed %d: after\n%suse %d of digest %d counts as of %d, it was %d", seed, l.Print(ops), k, d, got, want.last)
					}
				}
			}
		}
		if h.up {
			if err := h.close(false); err != nil {
				t.Error(err)
			}
		}
	}
	if crashes < 20 {
		t.Errorf("only %d crashes", crashes)
	}
}
