package front_test

import (
	"strings"
	"testing"

	"cairn.dev/cairn/internal/workflow/front"
)

const ours = `apiVersion: cairn.dev/v1alpha1
kind: Workflow
metadata: {name: one}
spec:
  tasks:
  - {name: a, image: alpine, command: [echo, hello]}
`

const argos = `apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: two-}
spec:
  entrypoint: main
  templates:
  - name: main
    container: {image: alpine, command: [echo, hello]}
`

const cron = `apiVersion: argoproj.io/v1alpha1
kind: CronWorkflow
metadata: {name: three}
spec:
  schedule: "0 3 * * *"
  workflowSpec:
    entrypoint: main
    templates:
    - name: main
      container: {image: alpine, command: [echo, hello]}
`

const ourCron = `apiVersion: cairn.dev/v1alpha1
kind: CronWorkflow
metadata: {name: three}
spec:
  schedules: "0 3 * * *"
  workflow:
    tasks:
    - {name: a, image: alpine, command: [echo, hello]}
`

// What is compiled is compiled again from what it left, by the same front end.
func TestAgain(t *testing.T) {
	for front1, doc := range map[string]string{"cairn": ours, "argo": argos} {
		for _, cluster := range []bool{false, true} {
			g, problems := front.Compile("f.yaml", []byte(doc), front.Options{Cluster: cluster})
			if g == nil || g.Front != front1 {
				t.Fatalf("%s: %v, %v", front1, g, problems)
			}
			again, err := front.Again(g.Documents)
			if err != nil || again.Front != front1 || again.Name != g.Name || string(again.Documents) != string(g.Documents) {
				t.Errorf("%s again: %+v, %v", front1, again, err)
			}
		}
	}
	for _, doc := range []string{cron, ourCron, ours + "---\n" + ourCron} {
		s, problems := front.CompileSchedule("f.yaml", []byte(doc), front.Options{})
		if s == nil {
			t.Fatal(problems)
		}
		if again, err := front.ScheduleAgain(s.Documents); err != nil || again.Name != "three" || len(again.Crons) != 1 {
			t.Errorf("again: %+v, %v", again, err)
		}
		// A run that a schedule begins is brought back from the same documents.
		if again, err := front.Again(s.Graph.Documents); err != nil || again.Entry != s.Graph.Entry || again.Name != s.Graph.Name {
			t.Errorf("its run again: %+v, %v", again, err)
		}
	}
}

func TestWhose(t *testing.T) {
	for name, tc := range map[string]struct{ doc, want string }{
		"another": {"kind: Workflow\napiVersion: v2\n", `f.yaml:2:13: apiVersion: "v2" is neither`},
		"without": {"kind: Workflow\n", `f.yaml:1:1: apiVersion: "" is neither`},
		"text":    {"\nhello", `f.yaml:2:1: apiVersion: "" is neither`},
		"both":    {ours + "---\n" + argos, "in one file"},
		"none":    {"apiVersion: v1\nkind: ConfigMap\n", "there is no workflow"},
		"not":     {"a: [", "f.yaml:1"},
		"empty":   {"", "there is no workflow"},
	} {
		g, problems := front.Compile("f.yaml", []byte(tc.doc), front.Options{})
		if g != nil || len(problems) == 0 || !strings.Contains(problems[0].String(), tc.want) {
			t.Errorf("%s: %v, %v, want %q", name, g, problems, tc.want)
		}
	}
	for want, doc := range map[string]string{"CronWorkflow": cron, "Workflow": ours + "---\n" + ourCron} {
		if got, problems := front.Kind("f.yaml", []byte(doc)); got != want || len(problems) > 0 {
			t.Errorf("%s, %v, want %s", got, problems, want)
		}
	}
	if _, err := front.Again([]byte(ours)); err == nil {
		t.Error("documents that nobody compiled were read")
	}
}
