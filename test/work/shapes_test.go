package work_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
)

// A shape is a kind of run: its document, what is done to it while it goes on,
// and what must have become of it.
type shape struct {
	name string
	// Of its spec; {begin}, {enter} and {leave} stand for shell that writes a
	// line with that word into the ledger.
	tasks, more string
	phase       string
	// begin is how many of its tasks begin at least once, as the ledger counts.
	begin int
	// during is done as soon as the run is there.
	during func(s *server, id string) error
	check  func(s *server, r wire.Run) error
}

// document is a shape for a farm.
func (x shape) document(f *farm) string {
	spec := x.more + "  tasks:\n" + x.tasks
	for _, w := range []string{"begin", "enter", "leave"} {
		spec = strings.ReplaceAll(spec, "{"+w+"}", f.mark(w))
	}
	return "apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: shape}\nspec:\n" + spec
}

// task is one of the document, which runs a script. Of what else it has, what
// begins with a dash is an argument of the script.
func task(name, script string, more ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - name: %s\n    image: far\n    command: [sh, -c]\n    args:\n    - |\n", name)
	for _, line := range strings.Split(script, "\n") {
		b.WriteString("      " + line + "\n")
	}
	slices.Sort(more) // arguments first
	for _, m := range append([]string{"- sh"}, more...) {
		b.WriteString("    " + m + "\n")
	}
	return b.String()
}

const items = 12

// shapes are the kinds of runs that are under way while things are killed.
func shapes() []shape {
	seq := make([]string, 200)
	for i := range seq {
		seq[i] = fmt.Sprint(i + 1)
	}
	return []shape{
		{name: "fan", phase: "succeeded", begin: items + 1,
			more: "  outputs: {total: {type: json, value: \"${{ tasks.sum.outputs.total }}\"}}\n",
			tasks: task("each", "{begin}\necho $N", fmt.Sprintf("forEach: {count: %d}", items), `env: {N: "${{ item }}"}`, "outputs: {n: json}") +
				task("sum", `{begin}
echo $(($(tr -d '[]' < /in.json | tr , +)))`, `files: {/in.json: "${{ tasks.each.outputs.n }}"}`, "outputs: {total: json}"),
			check: func(s *server, r wire.Run) error {
				if r.Outputs = s.left(r.ID); r.Outputs["total"] != float64(items*(items-1)/2) {
					return fmt.Errorf("the sum of its items is %v", r.Outputs["total"])
				}
				return nil
			}},
		{name: "dag", phase: "succeeded", begin: 4, tasks: task("a", "{begin}\ntest $CAIRN_ATTEMPT -ge 2", "retries: 3") +
			task("b", "{begin}", "needs: [a]") + task("c", "{begin}\nsleep 0.05", "needs: [a]") + task("d", "{begin}", "needs: [b, c]")},
		{name: "exit", phase: "failed", begin: 2, tasks: task("a", "{begin}\nexit 3") + task("b", "{begin}", "needs: [a]"),
			more: "  onExit:\n    name: tidy\n    image: far\n    command: [sh, -c]\n    args:\n    - |\n      {begin}\n      test \"$1\" = failed\n    - sh\n    - ${{ run.status }}\n",
			check: func(s *server, r wire.Run) error {
				for _, n := range s.nodes(r.ID) {
					if n.Name == "tidy" && n.Kind == "task" && n.Phase != "succeeded" {
						return fmt.Errorf("the exit handler is %s: %s", n.Phase, n.Message)
					}
					if n.Name == "a" && n.Kind == "task" && n.Exit != 3 {
						return fmt.Errorf("the exit code is %d", n.Exit)
					}
				}
				return nil
			}},
		{name: "mutex", phase: "succeeded", begin: 3,
			tasks: task("inside", "{begin}\n{enter}\nsleep 0.02\n{leave}", "forEach: {count: 3}", "locks: [one]")},
		{name: "ask", phase: "succeeded", begin: 1,
			tasks: "  - {name: ask, suspend: {outputs: [who]}}\n" + task("told", "{begin}\necho $WHO", `env: {WHO: "${{ tasks.ask.outputs.who }}"}`, "outputs: {who: text}"),
			more:  "  outputs: {who: {type: text, value: \"${{ tasks.told.outputs.who }}\"}}\n",
			during: func(s *server, id string) error {
				return s.again(func(ctx context.Context) error { return answer(ctx, s.client, id) })
			},
			check: func(s *server, r wire.Run) error {
				if r.Outputs = s.left(r.ID); r.Outputs["who"] != "somebody" {
					return fmt.Errorf("it was told %q", r.Outputs["who"])
				}
				return nil
			}},
		{name: "files", phase: "succeeded", begin: 2,
			tasks: task("make", `{begin}
head -c $(( 1000 * (CAIRN_ATTEMPT + 100) )) /dev/urandom > /made
sha256sum < /made | cut -d' ' -f1 > /sum`, "outputs: {made: {type: file, path: /made}, sum: {type: text, path: /sum}}") +
				task("read", "{begin}\nsha256sum < \"$1\" | cut -d' ' -f1", `- "${{ tasks.make.outputs.made }}"`, "outputs: {sum: text}"),
			more:  "  outputs: {left: {type: text, value: \"${{ tasks.make.outputs.sum }}\"}, read: {type: text, value: \"${{ tasks.read.outputs.sum }}\"}}\n",
			check: sameBytes},
		{name: "logs", phase: "succeeded", begin: 1, tasks: task("print", "{begin}\nseq 1 100\nsleep 0.05\nseq 101 200"),
			check: func(s *server, r wire.Run) error {
				last := map[int][]string{}
				n := 0
				for _, l := range s.lines(r.ID, client.LogQuery{}) {
					last[l.Attempt] = append(last[l.Attempt], l.Text)
					n = max(n, l.Attempt)
				}
				if !slices.Equal(last[n], seq) {
					return fmt.Errorf("of attempt %d there are %d lines, want 1 to 200 once each: %.200q", n, len(last[n]), last[n])
				}
				return nil
			}},
		{name: "cancel", phase: "canceled", tasks: task("sleep", "{begin}\nsleep 600"),
			during: func(s *server, id string) error {
				return s.again(func(ctx context.Context) error {
					_, err := s.client.Cancel(ctx, id, false)
					if conflict(err) {
						err = nil // it was heard the first time
					}
					return err
				})
			}},
		{name: "stop", phase: "succeeded", begin: 3, tasks: task("a", "{begin}\nsleep 0.05") + task("b", "{begin}", "needs: [a]", "forEach: {count: 2}"),
			during: func(s *server, id string) error {
				for _, f := range []func(context.Context) error{
					func(ctx context.Context) error { _, err := s.client.Suspend(ctx, id); return err },
					func(ctx context.Context) error { _, err := s.client.Resume(ctx, id, wire.ResumeRequest{}); return err },
				} {
					if err := s.again(f); err != nil && !conflict(err) {
						return err
					}
				}
				return nil
			}},
	}
}

func conflict(err error) bool {
	p, ok := errors.AsType[*wire.Problem](err)
	return ok && p.Status == http.StatusConflict
}

// answer tells the node that waits what it asks for.
func answer(ctx context.Context, c *client.Client, id string) error {
	all, err := below(ctx, c, id, "")
	if err != nil {
		return err
	}
	for _, n := range all {
		if n.Waits != "" {
			_, err := c.Resume(ctx, id, wire.ResumeRequest{Node: n.ID, Outputs: map[string]string{"who": "somebody"}})
			return err
		}
		if n.Name == "ask" && n.Phase == "succeeded" {
			return nil // it was heard the first time
		}
	}
	return fmt.Errorf("nobody waits in run %s", id)
}

// sameBytes: what was made, what the next task read and what is handed out are
// of one attempt.
func sameBytes(s *server, r wire.Run) error {
	r.Outputs = s.left(r.ID)
	if r.Outputs["left"] != r.Outputs["read"] || r.Outputs["left"] == nil {
		return fmt.Errorf("%v was made, %v was read", r.Outputs["left"], r.Outputs["read"])
	}
	for _, n := range s.nodes(r.ID) {
		if n.Name != "make" || n.Kind != "task" {
			continue
		}
		h := sha256.New()
		err := s.again(func(ctx context.Context) error {
			h.Reset()
			b, err := s.client.Artifact(ctx, r.ID, n.ID, "made")
			if err != nil {
				return err
			}
			defer b.Close()
			_, err = io.Copy(h, b)
			return err
		})
		if err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != r.Outputs["left"] {
			return fmt.Errorf("%s is handed out, %s was made", got, r.Outputs["left"])
		}
		return nil
	}
	return errors.New("nothing made it")
}

// given is one run that was handed in.
type given struct {
	shape shape
	name  string
	id    string
}

var runs atomic.Int64

// submit hands in a run of some shape and does to it what belongs to it.
func (f *farm) submit(rng *rand.Rand) given {
	all := shapes()
	x := all[rng.IntN(len(all))]
	g := given{shape: x, name: fmt.Sprintf("%s-%d", x.name, runs.Add(1))}
	g.id = f.s.hand(wire.Submission{Document: wire.Document{Name: g.name, Text: x.document(f)}, Run: wire.SubmitOptions{Name: g.name, Key: g.name, Pool: "far"}})
	if g.id != "" && x.during != nil {
		if err := x.during(f.s, g.id); err != nil {
			f.t.Errorf("%s: %v", g.name, err)
		}
	}
	return g
}
