package argo

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/worker"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/front"
)

// world is a work server, and a worker that runs what it hands out.
type world struct {
	*work.Server
	blobs *worktest.Blobs

	mu      sync.Mutex
	printed map[string]*bytes.Buffer // by run
}

// slots is how many tasks run at a time: most examples wait for something.
const slots = 48

func start(t *testing.T) *world {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	d, err := db.Open(ctx, db.Config{Path: filepath.Join(t.TempDir(), "work.db"), Sync: db.Full, Schema: work.Schema})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{blobs: &worktest.Blobs{}, printed: map[string]*bytes.Buffer{}}
	w.Server, err = work.New(ctx, work.Config{}, work.Deps{DB: d, Clock: clock.Real(), Blobs: w.blobs, Compile: front.Again, CompileSchedule: front.ScheduleAgain})
	if err != nil {
		t.Fatal(err)
	}
	run := runner(t, w)
	wk, err := worker.New(worker.Config{Pool: "default", Slots: slots}, worker.Deps{Server: w, Runner: run, Clock: clock.Real()})
	if err != nil {
		t.Fatal(err)
	}
	var parts sync.WaitGroup
	parts.Go(func() { _ = w.Server.Run(ctx) })
	working, leave := context.WithCancel(ctx)
	worked := make(chan struct{})
	go func() { defer close(worked); _ = wk.Run(working) }()
	t.Cleanup(func() {
		leave()
		<-worked
		end()
		parts.Wait()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// Ask implements [worker.Server].
func (w *world) Ask(ctx context.Context, a task.Ask) (task.Grant, error) { return w.Work(ctx, a) }

// Logs implements [worker.Server].
func (w *world) Logs(_ context.Context, frames []byte) (task.Logged, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for r := bufio.NewReader(bytes.NewReader(frames)); ; {
		f, err := task.ReadFrame(r)
		if err == io.EOF {
			return task.Logged{}, nil
		}
		if err != nil {
			return task.Logged{}, err
		}
		if w.printed[f.Run] == nil {
			w.printed[f.Run] = &bytes.Buffer{}
		}
		w.printed[f.Run].Write(f.Bytes)
	}
}

// Fetch implements [worker.Server].
func (w *world) Fetch(ctx context.Context, _ task.Ref, in task.Input) (io.ReadCloser, error) {
	if in.Source != nil {
		return nil, fmt.Errorf("input %s: nobody fetches %s here", in.Name, in.Source.Kind)
	}
	return w.blobs.Open(ctx, in.Digest)
}

// Store implements [worker.Server].
func (w *world) Store(ctx context.Context, holder task.Ref, from io.Reader) (task.Produced, error) {
	digest, size, err := w.blobs.Put(ctx, holder.Run, from)
	return task.Produced{Digest: digest, Size: size}, err
}

// patience is how long one example may take.
const patience = 90 * time.Second

// ended runs a graph to its end. Who it waits for gives it the answers.
func (w *world) ended(ctx context.Context, g *workflow.Graph, args, answers map[string]workflow.Value) (work.Info, error) {
	ctx, end := context.WithTimeout(ctx, patience)
	defer end()
	id, err := w.Submit(ctx, g, "tester", work.Options{Args: args})
	if err != nil {
		return work.Info{}, err
	}
	for {
		info, err := w.Get(ctx, id)
		if err != nil {
			return info, fmt.Errorf("it did not end: %w\n%s", err, w.tree(id))
		}
		if !info.Ended.IsZero() {
			return info, nil
		}
		if info.Suspended {
			err = w.Resume(ctx, id, "", nil, false, "")
		} else if answers != nil {
			err = w.answer(ctx, id, "", answers)
		}
		if err == nil {
			err = clock.Sleep(ctx, clock.Real(), 20*time.Millisecond)
		}
		if err != nil {
			return info, fmt.Errorf("%w\n%s", err, w.tree(id))
		}
	}
}

// answer resumes what waits for somebody.
func (w *world) answer(ctx context.Context, id, parent string, answers map[string]workflow.Value) error {
	nodes, _, err := w.Nodes(ctx, id, parent, "", 1000, machine.Filter{})
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.Waits == "to be resumed" {
			if err := w.Resume(ctx, id, n.ID, answers, false, ""); err != nil {
				return err
			}
		}
		if n.Children {
			if err := w.answer(ctx, id, n.ID, answers); err != nil {
				return err
			}
		}
	}
	return nil
}

// tree is what became of each node, and what was printed: for people.
func (w *world) tree(id string) string {
	var b strings.Builder
	w.branch(&b, id, "", "  ")
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.printed[id]; p != nil {
		fmt.Fprintf(&b, "printed: %.2000s", p)
	}
	return b.String()
}

func (w *world) branch(b *strings.Builder, id, parent, indent string) {
	nodes, _, err := w.Nodes(context.Background(), id, parent, "", 100, machine.Filter{})
	if err != nil {
		fmt.Fprintln(b, indent, err)
	}
	for _, n := range nodes {
		fmt.Fprintf(b, "%s%s %s: %s %s (exit %d, attempt %d) %v %s\n", indent, n.ID, n.Name, n.Phase, n.Message, n.Exit, n.Attempt, n.Outputs, n.Waits)
		if n.Children && len(indent) < 20 {
			w.branch(b, id, n.ID, indent+"  ")
		}
	}
}
