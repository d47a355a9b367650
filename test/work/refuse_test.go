package work_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
)

// What can never go well is refused when it is handed in, with its place and
// the reason; what would take for ever is bounded.
func TestRefused(t *testing.T) {
	s := newServer(t, filepath.Join(t.TempDir(), "data"), "work: {pool: \"off\"}\n")
	defer end(t, s.life)
	const head = "apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: w}\nspec:\n"
	cron := func(at string) string {
		return "apiVersion: cairn.dev/v1alpha1\nkind: CronWorkflow\nmetadata: {name: c}\nspec:\n  schedules: [" + at + "]\n  workflow: {tasks: [{name: a, image: x}]}\n"
	}
	argo := func(spec string) string {
		return "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: w}\nspec:\n" + spec
	}
	loops := "[" + strings.TrimSuffix(strings.Repeat("1,", 1000), ",") + "]"
	for _, c := range []struct{ name, doc, want string }{
		{"a circle", head + "  tasks:\n  - {name: a, image: x, needs: [c]}\n  - {name: b, image: x, needs: [a]}\n  - {name: c, image: x, needs: [b]}\n", "circle|cycle|itself"},
		{"a circle of values", head + "  tasks:\n  - {name: a, image: x, args: [\"${{ tasks.b.outputs.o }}\"], outputs: {o: text}}\n  - {name: b, image: x, args: [\"${{ tasks.a.outputs.o }}\"], outputs: {o: text}}\n", "circle|cycle|itself"},
		{"a circle of Argo's", argo("  entrypoint: m\n  templates:\n  - name: m\n    dag: {tasks: [{name: a, template: p, dependencies: [b]}, {name: b, template: p, dependencies: [a]}]}\n  - {name: p, container: {image: x, command: [y]}}\n"), "circle|cycle|itself"},
		{"30 February", cron(`"0 0 30 2 *"`), "never"},
		{"30 February of Argo's", "apiVersion: argoproj.io/v1alpha1\nkind: CronWorkflow\nmetadata: {name: c}\nspec:\n  schedule: \"0 0 30 2 *\"\n  workflowSpec: {entrypoint: p, templates: [{name: p, container: {image: x, command: [y]}}]}\n", "never"},
		{"no image", head + "  tasks:\n  - {name: a, image: \"UPPER/case:\"}\n", "image"},
		{"loops in loops", head + fmt.Sprintf("  inputs: {l: {type: json, default: %s}}\n  tasks:\n  - {name: a, image: x, when: \"inputs.l.all(a, inputs.l.all(b, inputs.l.all(c, inputs.l.all(d, a+b+c+d > 0))))\"}\n", loops), ""},
		{"loops in loops of Argo's", argo(fmt.Sprintf("  entrypoint: m\n  templates:\n  - name: m\n    dag: {tasks: [{name: a, template: p, when: \"{{= all(%[1]s, {# > 0 && all(%[1]s, {# > 0 && all(%[1]s, {# > 0 && all(%[1]s, {# > 0})})})}) }}\"}]}\n  - {name: p, container: {image: x, command: [y]}}\n", loops)), ""},
		{"a template that calls itself for ever", argo("  entrypoint: m\n  templates:\n  - name: m\n    steps: [[{name: a, template: m}]]\n"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			begun := time.Now()
			err := s.given(c.doc)
			took := time.Since(begun)
			if c.want == "" {
				// It may run: then it has to end, and soon, and the server to be there.
				if took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
				t.Logf("after %v: %v", took.Round(time.Millisecond), err)
				return
			}
			said := fmt.Sprint(err)
			if err == nil || !strings.Contains(said, "spec") {
				t.Fatalf("answered %v", err)
			}
			for _, w := range strings.Split(c.want, "|") {
				if strings.Contains(said, w) {
					return
				}
			}
			t.Errorf("said %q, nothing of %s", said, c.want)
		})
	}
}

// given hands in a document that is a run or a schedule, and returns why it
// was refused, or why its run failed.
func (s *server) given(doc string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	d := wire.Document{Name: "w.yaml", Text: doc}
	if strings.Contains(doc, "kind: CronWorkflow") {
		_, err := s.client.PutSchedule(ctx, d, "")
		return err
	}
	r, err := s.client.Submit(ctx, wire.Submission{Document: d})
	if err != nil {
		return err
	}
	x := s.wait(r.ID, 20*time.Second)
	return errors.New(x.Phase + ": " + x.Message)
}
