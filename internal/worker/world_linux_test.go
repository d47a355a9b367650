package worker

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/keep"
)

func TestMain(m *testing.M) {
	keep.Main()
	os.Exit(m.Run())
}

// book is a work server in memory that is as strict as the real one.
type book struct {
	mu       sync.Mutex
	changed  chan struct{}
	tasks    []task.Task
	given    map[string]task.Ref // by token
	outcomes map[string]task.Outcome
	serving  map[string]string // addresses of daemons, by task
	twice    int
	back     int
	printed  map[string]string // by task and stream
	blobs    map[string][]byte
	beat     func(task.Beat) task.Beaten
	beats    []task.Beat
	down     bool
	breaks   []error // of the next calls that carry bytes, in the middle
	drain    bool
	calls    int
}

func newBook(tasks ...task.Task) *book {
	return &book{changed: make(chan struct{}), tasks: tasks, given: map[string]task.Ref{}, outcomes: map[string]task.Outcome{}, serving: map[string]string{},
		printed: map[string]string{}, blobs: map[string][]byte{}}
}

var errDown = errors.New("connection refused")

// with calls f under the lock and tells those who wait.
func (b *book) with(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.changed)
	b.changed = make(chan struct{})
}

// until waits for something to be true.
func (b *book) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for {
		b.mu.Lock()
		ok, changed := is(), b.changed
		b.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatalf("never: %s", what)
		}
	}
}

func (b *book) Ask(ctx context.Context, a task.Ask) (g task.Grant, err error) {
	for {
		b.mu.Lock()
		ready := b.down || len(b.tasks) > 0 || b.drain || a.Wait == 0
		changed := b.changed
		b.mu.Unlock()
		if ready {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return g, ctx.Err()
		}
	}
	b.with(func() {
		b.calls++
		if b.down {
			err = errDown
			return
		}
		g.Drain = b.drain
		for _, o := range a.Outcomes {
			if b.given[o.Token] != o.Ref {
				g.Refused = append(g.Refused, o.Ref)
				b.twice++
				continue
			}
			delete(b.given, o.Token)
			b.outcomes[o.Task] = o
		}
		for _, s := range a.Serving {
			b.serving[s.Task] = s.Address
		}
		for _, r := range a.Back {
			delete(b.given, r.Token)
			b.back++
		}
		for len(g.Leases) < a.Want && len(b.tasks) > 0 && !b.drain {
			n := len(b.outcomes) + len(b.given) + b.back
			r := task.Ref{Run: "r", Task: strconv.Itoa(n), Attempt: 1, Token: "token" + strconv.Itoa(n)}
			b.given[r.Token] = r
			g.Leases = append(g.Leases, task.Lease{Ref: r, Body: len(g.Bodies), Key: "key" + r.Task})
			g.Bodies = append(g.Bodies, b.tasks[0])
			b.tasks = b.tasks[1:]
		}
	})
	return g, err
}

func (b *book) Beat(_ context.Context, beat task.Beat) (r task.Beaten, err error) {
	b.with(func() {
		if b.down {
			err = errDown
			return
		}
		b.beats = append(b.beats, beat)
		if b.beat != nil {
			r = b.beat(beat)
		}
	})
	return r, err
}

func (b *book) Logs(_ context.Context, frames []byte) (l task.Logged, err error) {
	b.with(func() {
		if b.down {
			err = errDown
			return
		}
		for r := bufio.NewReader(bytes.NewReader(frames)); ; {
			f, readErr := task.ReadFrame(r)
			if readErr == io.EOF {
				return
			}
			if readErr != nil {
				err = readErr
				return
			}
			b.printed[fmt.Sprint(f.Task, "/", f.Stream)] += string(f.Bytes)
		}
	})
	return l, err
}

// broken is why the next call that carries bytes fails.
func (b *book) broken() (err error) {
	b.with(func() {
		if len(b.breaks) > 0 {
			err, b.breaks = b.breaks[0], b.breaks[1:]
		}
	})
	return err
}

func (b *book) Fetch(_ context.Context, _ task.Ref, in task.Input) (io.ReadCloser, bool, error) {
	if err := b.broken(); err != nil {
		return nil, false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	blob, ok := b.blobs[in.Digest]
	if !ok {
		return nil, false, &Refusal{Method: "GET", Path: task.PathBlob + in.Digest, Status: 404}
	}
	return io.NopCloser(bytes.NewReader(blob)), in.Folder, nil
}

func (b *book) Store(_ context.Context, _ task.Ref, _ task.Output, _ bool, from io.Reader) (p task.Produced, err error) {
	if err := b.broken(); err != nil {
		_, _ = io.ReadFull(from, make([]byte, 2))
		return p, err
	}
	all, err := io.ReadAll(from)
	if err != nil {
		return p, err
	}
	sum := sha256.Sum256(all)
	p.Digest, p.Size = "sha256:"+hex.EncodeToString(sum[:]), int64(len(all))
	b.with(func() { b.blobs[p.Digest] = all })
	return p, nil
}

// results waits for n outcomes, by task in the order in which they were given.
func (b *book) results(t *testing.T, n int) []task.Outcome {
	t.Helper()
	b.until(t, "outcomes of all tasks", func() bool { return len(b.outcomes) >= n })
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]task.Outcome, n)
	for i := range out {
		out[i] = b.outcomes[strconv.Itoa(i)]
	}
	return out
}

func sh(script string) task.Task {
	return task.Task{Command: []string{"sh", "-c", script}, WorkDir: "/"}
}

func text(o task.Outcome, name string) string {
	if p := o.Outputs[name]; p.Text != nil {
		return *p.Text
	}
	return "(none)"
}

func has(s, part string) bool { return strings.Contains(s, part) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func reader(b []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(b)) }
