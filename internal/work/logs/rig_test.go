package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/worktest"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// rig is a store that can be opened again.
type rig struct {
	testing.TB
	*Store
	cfg   Config
	clock *clock.Fake
	blobs *blobs

	mu   sync.Mutex
	over map[string]bool // runs that have ended
	out  bytes.Buffer    // what it logged
}

// blobs fails when it is told to.
type blobs struct {
	*worktest.Blobs
	mu   sync.Mutex
	fail error
	puts int
	hook func() // called before each Put
}

func (b *blobs) Put(ctx context.Context, run string, r io.Reader) (string, int64, error) {
	b.mu.Lock()
	err, hook := b.fail, b.hook
	b.puts++
	b.mu.Unlock()
	if hook != nil {
		hook()
	}
	if err != nil {
		return "", 0, err
	}
	return b.Blobs.Put(ctx, run, r)
}

func (b *blobs) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = err
}

func newRig(t testing.TB, cfg Config) *rig {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	r := &rig{TB: t, cfg: cfg, clock: clock.NewFake(start), blobs: &blobs{Blobs: &worktest.Blobs{}}, over: map[string]bool{}}
	r.open()
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) open() {
	r.Helper()
	s, err := Open(r.Context(), r.cfg, Deps{Blobs: r.blobs, Clock: r.clock, Log: slog.New(slog.NewTextHandler(&r.out, nil)), Live: func(run string) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return !r.over[run]
	}})
	must(r, err)
	r.Store = s
}

func (r *rig) reopen() {
	r.Helper()
	must(r, r.Close())
	r.open()
}

// end ends a run.
func (r *rig) end(run string) {
	r.mu.Lock()
	r.over[run] = true
	r.mu.Unlock()
	r.Ended(run)
}

// print appends text as a worker would, after what was printed before.
func (r *rig) print(run, name string, at time.Duration, offset int, text string) {
	r.Helper()
	_, err := r.Append(r.Context(), []task.Frame{frame(run, name, at, offset, text)})
	must(r, err)
}

func frame(run, name string, at time.Duration, offset int, text string) task.Frame {
	return task.Frame{Ref: task.Ref{Run: run, Task: name, Attempt: 1, Token: "t"}, Stream: task.Stdout, Offset: int64(offset), At: start.Add(at), Bytes: []byte(text)}
}

// read is what a query gives, a line each as TASK/ATTEMPT:TEXT.
func (r *rig) read(q Query) (out []string) {
	r.Helper()
	must(r, r.Read(r.Context(), q, func(l Line) error {
		out = append(out, show(l))
		return nil
	}))
	return out
}

func show(l Line) string {
	s := fmt.Sprintf("%s/%d:%s", l.Task, l.Attempt, l.Text)
	if l.Stream == task.Stderr {
		s = strings.Replace(s, ":", "!", 1)
	}
	if l.Open {
		s += "…"
	}
	if l.Cut > 0 {
		s += fmt.Sprintf("-%d", l.Cut)
	}
	return s
}

func equal(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// PackAfter is when all that is there is packed.
func (r *rig) PackAfter() time.Duration { return r.Store.cfg.PackAfter }

// pass lets time pass, and does what Run would.
func (r *rig) pass(d time.Duration) {
	r.Helper()
	r.clock.Advance(d)
	r.packDue(r.Context())
	r.forgetAll(r.Context())
	must(r, r.expire(r.Context()))
}
