package db

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// block makes the writer wait until release is called, so that a test can
// have a batch of its own making.
func block(t testing.TB, d *DB) (release func()) {
	t.Helper()
	in, out := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- d.Write(context.Background(), func(tx *Tx) error {
			close(in)
			<-out
			return errors.New("blocked")
		})
	}()
	<-in
	return sync.OnceFunc(func() {
		close(out)
		<-done
	})
}

func waitQueue(d *DB, n int) {
	for len(d.queue) < n {
		runtime.Gosched()
	}
}

func TestWritesShareCommits(t *testing.T) {
	var commits atomic.Int64
	d := open(t, Config{MaxHold: time.Hour, Fault: func(p string) error {
		if p == AfterCommit {
			commits.Add(1)
		}
		return nil
	}})
	release := block(t, d)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if err := insert(d, fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	waitQueue(d, 100)
	release()
	wg.Wait()
	if n := commits.Load(); n > 2 {
		t.Fatalf("%d commits for 100 writes that waited together", n)
	}
}

func TestMaxBatch(t *testing.T) {
	var commits atomic.Int64
	d := open(t, Config{MaxBatch: 10, MaxHold: time.Hour, Fault: func(p string) error {
		if p == AfterCommit {
			commits.Add(1)
		}
		return nil
	}})
	release := block(t, d)
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			if err := insert(d, fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	waitQueue(d, 10)
	release()
	wg.Wait()
	if n := commits.Load(); n < 3 {
		t.Fatalf("%d commits for 30 writes in batches of 10", n)
	}
}

func TestMaxHold(t *testing.T) {
	// Each write takes longer than MaxHold: no transaction may hold two.
	var commits atomic.Int64
	d := open(t, Config{MaxHold: time.Nanosecond, Fault: func(p string) error {
		if p == AfterCommit {
			commits.Add(1)
		}
		return nil
	}})
	release := block(t, d)
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			if err := insert(d, fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	waitQueue(d, 5)
	release()
	wg.Wait()
	if n := commits.Load(); n < 5 {
		t.Fatalf("%d commits, want one for each of 5 writes", n)
	}
}

func TestPanic(t *testing.T) {
	d := open(t, Config{})
	release := block(t, d)
	res := make(chan error, 3)
	for i, f := range []func(*Tx) error{
		func(tx *Tx) error { _, err := tx.Exec("INSERT INTO t(v) VALUES ('a')"); return err },
		func(tx *Tx) error { _, _ = tx.Exec("INSERT INTO t(v) VALUES ('b')"); panic("ouch") },
		func(tx *Tx) error { _, err := tx.Exec("INSERT INTO t(v) VALUES ('c')"); return err },
	} {
		go func() { res <- d.Write(t.Context(), f) }()
		waitQueue(d, i+1)
	}
	release()
	var panics int
	for range 3 {
		err := <-res
		var p *PanicError
		if errors.As(err, &p) {
			panics++
			if p.Value != "ouch" || !strings.Contains(string(p.Stack), "TestPanic") {
				t.Errorf("value %v, stack %.200s", p.Value, p.Stack)
			}
		} else if err != nil {
			t.Error(err)
		}
	}
	if panics != 1 {
		t.Fatalf("%d panics, want 1", panics)
	}
	wantValues(t, d, "a c")
}

func TestPanicInRead(t *testing.T) {
	d := open(t, Config{Readers: 1})
	for _, read := range []func(context.Context, func(Query) error) error{d.Read, d.ReadOne} {
		func() {
			defer func() {
				if v := recover(); v != "ouch" {
					t.Errorf("recovered %v", v)
				}
			}()
			_ = read(t.Context(), func(q Query) error {
				_, _ = q.Query(t.Context(), "SELECT 1 UNION SELECT 2")
				panic("ouch")
			})
		}()
	}
	must(t, insert(d, "one"))
	wantValues(t, d, "one")
}

func TestGoexitInWrite(t *testing.T) {
	d := open(t, Config{})
	err := d.Write(t.Context(), func(*Tx) error { runtime.Goexit(); return nil })
	if !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
	if err := insert(d, "x"); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
}

func TestCancelQueuedWrite(t *testing.T) {
	d := open(t, Config{})
	release := block(t, d)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	res := make(chan error)
	ran := false
	go func() { res <- d.Write(ctx, func(*Tx) error { ran = true; return nil }) }()
	waitQueue(d, 1)
	cancel()
	if err := <-res; !errors.Is(err, context.Canceled) { // while the writer is still busy
		t.Fatalf("got %v", err)
	}
	release()
	must(t, insert(d, "after"))
	if ran {
		t.Fatal("a write ran whose caller had given up")
	}
}

func TestCancelRunningWrite(t *testing.T) {
	d := open(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	err := d.Write(ctx, func(tx *Tx) error {
		cancel()
		_, err := tx.Exec("INSERT INTO t(v) VALUES ('kept')")
		return err
	})
	must(t, err) // it was kept, and says so
	wantValues(t, d, "kept")
}

func TestCancelledRead(t *testing.T) {
	d := open(t, Config{Readers: 1})
	must(t, insert(d, "one"))
	ctx, cancel := context.WithCancel(t.Context())
	err := d.Read(ctx, func(q Query) error {
		cancel()
		_, err := q.Query(ctx, "SELECT 1")
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	wantValues(t, d, "one")
}
