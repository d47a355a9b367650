package argo

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/worker/keep"
	"cairn.dev/cairn/test/argo/published"
	"cairn.dev/cairn/test/machine"
)

func TestMain(m *testing.M) {
	keep.Main() // tasks are begun by this program
	os.Exit(m.Run())
}

const (
	// slots is how many tasks run at a time: most of them wait for something.
	slots = 48
	// patience is how long one example may take.
	patience = 150 * time.Second
)

// world is a server that runs tasks in containers of this machine.
type world struct{ *client.Client }

func start(t *testing.T) *world {
	t.Helper()
	return &world{machine.Start(t, func(w *config.Work) { w.Slots, w.Secrets = slots, published.Secrets(t) })}
}

// A document is one that is run, and what is expected of it.
type document struct {
	name string
	text []byte
	published.Outcome
}

// all runs the documents, all at once, because most of them wait for something,
// and tells of each as a test. It returns how many came to their outcome.
func (w *world) all(t *testing.T, docs []document) (good int) {
	results := make([]chan error, len(docs))
	for i, d := range docs {
		results[i] = make(chan error, 1)
		go func() { results[i] <- w.expect(t.Context(), d) }()
	}
	for i, d := range docs {
		t.Run(strings.TrimSuffix(d.name, ".yaml"), func(t *testing.T) {
			if err := <-results[i]; err != nil {
				t.Error(err)
				return
			}
			good++
		})
	}
	return good
}

// expect runs a document and compares what becomes of it.
func (w *world) expect(ctx context.Context, d document) error {
	ctx, end := context.WithTimeout(ctx, patience)
	defer end()
	s, err := w.Submit(ctx, wire.Submission{Document: wire.Document{Name: d.name, Text: string(d.text)}, Args: d.Args})
	if err != nil {
		return err
	}
	if d.After > 0 {
		if err := clock.Sleep(ctx, clock.Real(), d.After); err != nil {
			return err
		}
		if _, err := w.Cancel(ctx, s.ID, true); err != nil {
			return err
		}
	}
	r, err := w.wait(ctx, s.ID, d.Answers)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, w.tree(s.ID))
	}
	if !slices.Contains(d.Phases, r.Phase) || !strings.Contains(r.Message, d.Says) {
		return fmt.Errorf("it ended %s (%s), want %s (%s)\n%s", r.Phase, r.Message, strings.Join(d.Phases, " or "), d.Says, w.tree(s.ID))
	}
	return nil
}

// wait waits for the end of a run, and answers those who wait for somebody.
func (w *world) wait(ctx context.Context, id string, answers map[string]string) (wire.Run, error) {
	for {
		r, err := w.Run(ctx, id)
		if err != nil || r.Done() {
			return r, err
		}
		if r.Suspended {
			_, err = w.Resume(ctx, id, wire.ResumeRequest{})
		} else if answers != nil {
			err = w.answer(ctx, id, "", answers)
		}
		if err == nil {
			err = clock.Sleep(ctx, clock.Real(), 50*time.Millisecond)
		}
		if err != nil {
			return r, err
		}
	}
}

// answer resumes what waits for somebody.
func (w *world) answer(ctx context.Context, id, parent string, answers map[string]string) error {
	l, err := w.Nodes(ctx, id, client.NodeQuery{Parent: parent})
	if err != nil {
		return err
	}
	for _, n := range l.Nodes {
		if n.Waits == "to be resumed" {
			_, err = w.Resume(ctx, id, wire.ResumeRequest{Node: n.ID, Outputs: answers})
		} else if n.Children {
			err = w.answer(ctx, id, n.ID, answers)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// named is the node that is called so, at the top or right below it, with its
// outputs.
func (w *world) named(ctx context.Context, id, parent, name string) (wire.RunNode, error) {
	l, err := w.Nodes(ctx, id, client.NodeQuery{Parent: parent})
	if err != nil {
		return wire.RunNode{}, err
	}
	for _, n := range l.Nodes {
		if n.Name == name {
			return w.Node(ctx, id, n.ID)
		}
		if parent == "" {
			if x, err := w.named(ctx, id, n.ID, name); err == nil {
				return x, nil
			}
		}
	}
	return wire.RunNode{}, fmt.Errorf("run %s has no node %s", id, name)
}

// tree is what became of each node, and what was printed: for people.
func (w *world) tree(id string) string {
	var b strings.Builder
	w.branch(&b, id, "", "  ")
	_ = w.Logs(context.Background(), id, client.LogQuery{Tail: 20}, func(l wire.LogLine) error {
		fmt.Fprintf(&b, "  %s prints %s\n", l.Task, l.Text)
		return nil
	})
	return b.String()
}

func (w *world) branch(b *strings.Builder, id, parent, indent string) {
	l, err := w.Nodes(context.Background(), id, client.NodeQuery{Parent: parent, Limit: 50})
	if err != nil {
		fmt.Fprintln(b, indent, err)
		return
	}
	for _, n := range l.Nodes {
		fmt.Fprintf(b, "%s%s %s: %s %s (exit %d, attempt %d) %s\n", indent, n.ID, n.Name, n.Phase, n.Message, n.Exit, n.Attempt, n.Waits)
		if n.Children && len(indent) < 20 {
			w.branch(b, id, n.ID, indent+"  ")
		}
	}
}
