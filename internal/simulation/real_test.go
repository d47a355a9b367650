package simulation

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
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
	"cairn.dev/cairn/internal/image"
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

var reporterNames = [nRep]string{"r0", "r1"}

func reporterScopes(c *catalog) [nRep][]string { return [nRep][]string{{"**"}, {c.repos[0]}} }

// now is the time by which the ledger dates uses: model and ledger agree on it,
// or compare would have said so.
func (h *real) now() time.Time { return wall(h.modelNow) }

// compare says where the real thing differs from the model.
func (h *real) compare(ctx context.Context, w *World) error {
	if h.up != w.up {
		return fmt.Errorf("the process is up: %v, in the model: %v", h.up, w.up)
	}
	if !h.up {
		return nil
	}
	if err := h.compareContent(ctx, w); err != nil {
		return err
	}
	return h.compareUsage(w)
}

func (h *real) compareContent(ctx context.Context, w *World) error {
	c := h.lab.cat
	var got World // only what is durable of content
	for r := range got.repo {
		for t := range got.repo[r].tag {
			got.repo[r].tag[t].man = -1
		}
	}
	at := func(n int64) T {
		if n == 0 {
			return 0
		}
		return sinceEpoch(time.Unix(0, n))
	}
	repoNumber := func(name string) int {
		for i, n := range c.repos {
			if n == name {
				return i
			}
		}
		return -1
	}
	tagNumber := func(name string) int {
		for i, n := range c.tags {
			if n == name {
				return i
			}
		}
		return -1
	}
	digest := func(k []byte) image.Digest { return image.Digest(fmt.Sprintf("sha256:%x", k[1:])) }
	blobNumber := func(k []byte) int {
		d := digest(k)
		for i := range c.blobs {
			if c.blobs[i].digest == d {
				return i
			}
		}
		return -1
	}
	err := h.reg.Read(ctx, func(q db.Query) error {
		each := func(query string, f func(rows *sql.Rows) error) error {
			rows, err := q.Query(ctx, query)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				if err := f(rows); err != nil {
					return err
				}
			}
			return rows.Err()
		}
		var repo, name string
		var k []byte
		var a, b int64
		var state, pull int
		return errors.Join(
			each("SELECT r.name, m.digest, m.state, m.pushed, m.hidden_at FROM manifests m JOIN repositories r ON r.id = m.repo_id", func(rows *sql.Rows) error {
				err := rows.Scan(&repo, &k, &state, &a, &b)
				x := &got.repo[repoNumber(repo)].man[c.at[digest(k)]]
				x.there, x.state, x.pushed, x.hidden = true, content.State(state), at(a), at(b)
				return err
			}),
			each("SELECT r.name, m.digest, t.name, t.pushed FROM tags t JOIN manifests m ON m.id = t.manifest_id JOIN repositories r ON r.id = t.repo_id", func(rows *sql.Rows) error {
				err := rows.Scan(&repo, &k, &name, &a)
				got.repo[repoNumber(repo)].tag[tagNumber(name)] = tagState{int8(c.at[digest(k)]), at(a)}
				return err
			}),
			each("SELECT r.name, m.digest, t.name, t.pushed, t.pull FROM hidden_tags t JOIN manifests m ON m.id = t.manifest_id JOIN repositories r ON r.id = t.repo_id", func(rows *sql.Rows) error {
				err := rows.Scan(&repo, &k, &name, &a, &pull)
				got.repo[repoNumber(repo)].man[c.at[digest(k)]].tag[tagNumber(name)] = hiddenTag{true, pull != 0, at(a)}
				return err
			}),
			each("SELECT digest FROM blobs", func(rows *sql.Rows) error {
				err := rows.Scan(&k)
				got.row[blobNumber(k)] = true
				return err
			}),
			each("SELECT r.name, b.digest, l.due FROM links l JOIN blobs b ON b.id = l.blob_id JOIN repositories r ON r.id = l.repo_id", func(rows *sql.Rows) error {
				var due sql.NullInt64
				err := rows.Scan(&repo, &k, &due)
				got.repo[repoNumber(repo)].link[blobNumber(k)] = linkState{true, !due.Valid, at(due.Int64)}
				return err
			}),
			each("SELECT r.name, p.digest FROM pins p JOIN repositories r ON r.id = p.repo_id", func(rows *sql.Rows) error {
				err := rows.Scan(&repo, &k)
				got.repo[repoNumber(repo)].pin[c.at[digest(k)]] = true
				return err
			}),
		)
	})
	if err != nil {
		return err
	}
	for r := range w.repo {
		a, b := &got.repo[r], &w.repo[r]
		for m := range b.man {
			x, y := a.man[m], b.man[m]
			y.dirty, y.seq = false, 0
			if x != y {
				return fmt.Errorf("%s of %s is %+v, in the model %+v", c.mans[m].name, c.repos[r], x, y)
			}
			if a.pin[m] != b.pin[m] {
				return fmt.Errorf("%s of %s is pinned: %v, in the model %v", c.mans[m].name, c.repos[r], a.pin[m], b.pin[m])
			}
			if y.there && y.state == content.Live {
				got, err := h.store.Manifest(ctx, c.repos[r], string(c.mans[m].digest))
				if err != nil || !bytes.Equal(got.Body, c.mans[m].body) {
					return fmt.Errorf("read %s of %s: %w", c.mans[m].name, c.repos[r], err)
				}
			}
		}
		for t := range b.tag {
			if a.tag[t] != b.tag[t] {
				return fmt.Errorf("tag %s of %s is %+v, in the model %+v", c.tags[t], c.repos[r], a.tag[t], b.tag[t])
			}
			if m := b.tag[t].man; m >= 0 {
				got, err := h.store.Manifest(ctx, c.repos[r], c.tags[t])
				if err != nil || got.Digest != c.mans[m].digest {
					return fmt.Errorf("read tag %s of %s: %w", c.tags[t], c.repos[r], err)
				}
			}
		}
		for k := range b.link {
			x, y := a.link[k], b.link[k]
			if y.held {
				y.due = 0
			}
			if x != y {
				return fmt.Errorf("blob %s in %s is %+v, in the model %+v", c.blobs[k].name, c.repos[r], x, y)
			}
		}
	}
	for k := range w.row {
		if got.row[k] != w.row[k] {
			return fmt.Errorf("blob %s is known: %v, in the model %v", c.blobs[k].name, got.row[k], w.row[k])
		}
		f, err := h.disk.Open(ctx, c.blobs[k].digest)
		if err == nil {
			var body []byte
			body, err = io.ReadAll(f)
			err = errors.Join(err, f.Close())
			if err != nil || !bytes.Equal(body, c.blobs[k].body) {
				return fmt.Errorf("blob %s has other bytes: %w", c.blobs[k].name, err)
			}
			// A file without a row is an orphan, which the real thing may
			// avoid where the model does not.
			if !w.file[k] {
				return fmt.Errorf("blob %s is on the disk, in the model it is not", c.blobs[k].name)
			}
			continue
		}
		if !errors.Is(err, blob.ErrNotFound) {
			return err
		}
		if w.row[k] {
			return fmt.Errorf("blob %s is not on the disk", c.blobs[k].name)
		}
	}
	return nil
}

func (h *real) compareUsage(w *World) error {
	l, c := h.lab, h.lab.cat
	for d := range w.use {
		var got [nKind]useState
		for _, u := range h.ledger.Uses(c.digests[d]) {
			k := -1
			for i := range nKind {
				x := l.useOf(d, i, useState{last: 1})
				if x.Source == u.Source && x.Repository == u.Repository {
					k = i
				}
			}
			if k < 0 {
				return fmt.Errorf("unexpected use %+v", u)
			}
			got[k] = useState{last: sinceEpoch(u.At), now: u.Now}
		}
		for k := range got {
			want := w.use[d][k]
			want.stored = 0
			if got[k] != want {
				return fmt.Errorf("use %d of digest %d is %+v, in the model %+v", k, d, got[k], want)
			}
		}
	}
	if ok, why := h.ledger.ClockOK(); ok != (w.behind == 0) {
		return fmt.Errorf("the clock is trusted: %v (%s), in the model %v", ok, why, w.behind == 0)
	}
	real, model := h.ledger.Uncovered(), l.uncovered(w)
	for r := range c.repos {
		a, b := usage.NewCoverage(real, c.repos[r]), usage.NewCoverage(model, c.repos[r])
		now := wall(w.ledgerNow())
		for _, back := range []T{1, 4, 20, 60, 300} {
			since := now.Add(-span(back))
			if x, y := units(a.Age(since, now)+Unit/2), units(b.Age(since, now)+Unit/2); x != y {
				return fmt.Errorf("of the last %d units %d are covered in %s, in the model %d: %+v, in the model %+v", back, x, c.repos[r], y, real, model)
			}
		}
		if x, y := len(a.Open()) > 0, len(b.Open()) > 0; x != y {
			return fmt.Errorf("%s is in doubt now: %v, in the model %v", c.repos[r], x, y)
		}
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
