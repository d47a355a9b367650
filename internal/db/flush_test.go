package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// A tap is a flush that a test lets through one by one.
type tap struct {
	begun chan struct{} // a token for each flush that has begun
	end   chan error    // its outcome
}

func openTapped(t *testing.T, cfg Config) (*DB, *tap) {
	t.Helper()
	p := &tap{make(chan struct{}, 100), make(chan error)}
	cfg.Flush = func(log *os.File) error {
		if !strings.HasSuffix(log.Name(), "-wal") {
			t.Errorf("the flush was given %s", log.Name())
		}
		p.begun <- struct{}{}
		return <-p.end
	}
	d := open(t, cfg)
	return d, p
}

// start begins an insert.
func start(d *DB, v string) chan error {
	done := make(chan error, 1)
	go func() { done <- insert(d, v) }()
	return done
}

// TestFlushAcknowledges: a write is seen by others from its commit on, and
// returns after a flush that began later. Those that come while a flush runs
// are one commit, and share the next one.
func TestFlushAcknowledges(t *testing.T) {
	var commits atomic.Int64
	d, p := openTapped(t, Config{MaxHold: 1 << 40, Fault: func(point string) error {
		if point == AfterCommit {
			commits.Add(1)
		}
		return nil
	}})
	a := start(d, "a")
	<-p.begun
	wantValues(t, d, "a")
	var done []chan error
	for i := range 5 {
		done = append(done, start(d, fmt.Sprint("b", i)))
	}
	for inTransaction(d) != 6 { // all have run
		runtime.Gosched()
	}
	wantValues(t, d, "a") // and wait for the disk with their commit
	select {
	case err := <-a:
		t.Fatalf("acknowledged before its flush: %v", err)
	default:
	}
	p.end <- nil
	must(t, <-a)
	<-p.begun
	for _, c := range done {
		select {
		case err := <-c:
			t.Fatalf("acknowledged by the flush of another: %v", err)
		default:
		}
	}
	if n := strings.Count(values(t, d), "b"); n != 5 {
		t.Errorf("%d of 5 are seen", n)
	}
	p.end <- nil
	for _, c := range done {
		must(t, <-c)
	}
	if n := commits.Load(); n != 2 {
		t.Errorf("%d commits, want 2", n)
	}
}

// inTransaction counts the rows that the next write sees. It does not wait for
// a flush.
func inTransaction(d *DB) (n int) {
	seen := make(chan struct{})
	go func() {
		_ = d.Write(context.Background(), func(tx *Tx) error {
			defer close(seen)
			_, _ = tx.Row(context.Background(), "SELECT count(*) FROM t", nil, &n)
			return errors.New("it only looks")
		})
	}()
	<-seen
	return n
}

// TestFlushDoesNotHoldForEver: a transaction does not stay open for as long as
// a slow disk takes.
func TestFlushDoesNotHoldForEver(t *testing.T) {
	d, p := openTapped(t, Config{MaxHold: 1})
	a := start(d, "a")
	<-p.begun
	b := start(d, "b")
	for values(t, d) != "a b" {
		runtime.Gosched()
	}
	p.end <- nil
	must(t, <-a)
	<-p.begun
	p.end <- nil
	must(t, <-b)
}

// TestFailedFlush: it fails those who waited and all later writes, for good,
// even if the disk is well again.
func TestFailedFlush(t *testing.T) {
	boom := errors.New("boom")
	path := filepath.Join(t.TempDir(), "x.db")
	d, p := openTapped(t, Config{Path: path, MaxHold: 1 << 40})
	a := start(d, "a")
	<-p.begun
	p.end <- nil
	must(t, <-a)

	b := start(d, "b")
	<-p.begun
	c := start(d, "c")
	for inTransaction(d) != 3 {
		runtime.Gosched()
	}
	again := start(d, "a")
	p.end <- boom
	if err := <-again; err == nil {
		t.Error("a write that fails by itself did not")
	}
	for _, done := range []chan error{b, c} {
		if err := <-done; !errors.Is(err, ErrNotDurable) || !errors.Is(err, boom) || !strings.Contains(err.Error(), path) {
			t.Errorf("who waited got %v", err)
		}
	}
	if err := insert(d, "d"); !errors.Is(err, ErrNotDurable) || !errors.Is(err, boom) {
		t.Errorf("a later write got %v", err)
	}
	wantValues(t, d, "a b") // reading goes on; c was not even committed
	must(t, d.Close())
	must(t, insert(open(t, Config{Path: path}), "e"))
}

// TestFaultAtFlush ends the process around a flush.
func TestFaultAtFlush(t *testing.T) {
	boom := errors.New("the power went")
	for _, point := range []string{BeforeFlush, AfterFlush} {
		t.Run(point, func(t *testing.T) {
			var armed atomic.Bool
			var flushes atomic.Int64
			path := filepath.Join(t.TempDir(), "x.db")
			d := open(t, Config{Path: path, Flush: func(*os.File) error { flushes.Add(1); return nil }, Fault: func(p string) error {
				if armed.Load() && p == point {
					return boom
				}
				return nil
			}})
			must(t, insert(d, "a"))
			armed.Store(true)
			before := flushes.Load()
			if err := insert(d, "b"); !errors.Is(err, ErrClosed) || !errors.Is(err, boom) {
				t.Errorf("got %v", err)
			}
			if ran := flushes.Load() > before; ran != (point == AfterFlush) {
				t.Errorf("it was flushed: %v", ran)
			}
			armed.Store(false)
			if err := insert(d, "c"); !errors.Is(err, ErrClosed) {
				t.Errorf("a later write got %v", err)
			}
			must(t, d.Close())
			wantValues(t, open(t, Config{Path: path}), "a b")
		})
	}
}

// TestCloseFlushes: what was accepted is acknowledged before Close returns.
func TestCloseFlushes(t *testing.T) {
	d, p := openTapped(t, Config{})
	a := start(d, "a")
	<-p.begun
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	<-d.stop
	select {
	case err := <-closed:
		t.Fatalf("closed before the flush ended: %v", err)
	default:
	}
	p.end <- nil
	must(t, <-a)
	must(t, <-closed)
}

// TestFlushWithManyWriters: every acknowledged write was there when a flush
// that came after it began.
func TestFlushWithManyWriters(t *testing.T) {
	var mu sync.Mutex
	flushed := map[string]bool{}
	var d *DB
	var ready atomic.Bool
	d = open(t, Config{MaxBatch: 5, Flush: func(*os.File) error {
		if !ready.Load() {
			return nil
		}
		vs := strings.Fields(values(t, d))
		mu.Lock()
		defer mu.Unlock()
		for _, v := range vs {
			flushed[v] = true
		}
		return nil
	}})
	ready.Store(true)
	var wg sync.WaitGroup
	for w := range 12 {
		wg.Go(func() {
			for i := range 30 {
				v := fmt.Sprint(w, "-", i)
				if err := insert(d, v); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if !flushed[v] {
					t.Errorf("%s was acknowledged and not flushed", v)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestFlushNeedsFullSync(t *testing.T) {
	_, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "x.db"), Sync: Normal, Flush: func(*os.File) error { return nil }})
	if err == nil {
		t.Fatal("a flush for a database that need not be durable was accepted")
	}
}
