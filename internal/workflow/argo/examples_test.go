package argo_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/goldentest"
	"cairn.dev/cairn/internal/workflow/argo"
)

const examples = "../../../testdata/argo"

// TestExamples compiles each of our own examples of Argo's documents: what its
// first line expects of a run is for the rooms that run it, whether it is
// refused, and why, is seen here.
func TestExamples(t *testing.T) {
	files, _ := filepath.Glob(examples + "/*.yaml")
	if len(files) < 60 {
		t.Fatalf("only %d examples", len(files))
	}
	var graphs strings.Builder
	for _, f := range files {
		doc, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(doc), "\n")
		expect, ok := strings.CutPrefix(first, "# expect: ")
		if !ok {
			t.Errorf("%s does not say what is expected", f)
			continue
		}
		opts := argo.Options{Cluster: strings.Contains(expect, "; in a cluster")}
		g, ps := argo.Compile(filepath.Base(f), doc, opts)
		if _, elsewhere := argo.Compile(filepath.Base(f), doc, argo.Options{}); opts.Cluster && !strings.Contains(problems(elsewhere), "it needs Kubernetes") {
			t.Errorf("%s: without a cluster it is not refused for that:\n%s", f, problems(elsewhere))
		}
		reason, refused := strings.CutPrefix(expect, "refused: ")
		phase, _, _ := strings.Cut(expect, ";")
		switch {
		case refused && !strings.Contains(problems(ps), reason):
			t.Errorf("%s: want %q, got\n%s", f, reason, problems(ps))
		case refused:
		case len(ps) > 0:
			t.Errorf("%s:\n%s", f, problems(ps))
		case !slices.Contains([]string{"Succeeded", "Failed", "Error", "compiles"}, phase):
			t.Errorf("%s expects %q, which is no outcome", f, expect)
		default:
			again, ps := argo.Compile("again", g.Documents, opts)
			if len(ps) > 0 || again.String() != g.String() {
				t.Errorf("%s: compiled again it is\n%s\n%s", f, again, problems(ps))
			}
			fmt.Fprintf(&graphs, "%s\n", g)
		}
	}
	goldentest.Check(t, "testdata/examples.graphs", graphs.String())
}

func TestSchedule(t *testing.T) {
	doc, err := os.ReadFile(examples + "/cron.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s, ps := argo.CompileSchedule("cron", doc, argo.Options{})
	if len(ps) > 0 {
		t.Fatal(problems(ps))
	}
	got := fmt.Sprintf("%s %s %s %s %v %d %d %v", s.Name, strings.Join(s.Crons, ";"), s.Timezone, s.Overlap, s.Late, s.KeepGood, s.KeepBad, s.Graph.Name)
	if want := "cron 0 3 * * *;30 4 * * 1-5 Europe/Berlin forbid 1m0s 3 1 cron-"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, c := range []struct {
		last any
		want bool
	}{{nil, true}, {"2026-01-01T10:00:00Z", false}, {"2025-12-31T10:00:00Z", true}} {
		scope := scope{"now": "2026-01-01T12:00:00Z", "cronworkflow": map[string]any{"lastScheduledTime": c.last, "failed": float64(2)}}
		if got, err := s.When.Eval(scope); err != nil || got != c.want {
			t.Errorf("last at %v: when is %v, %v", c.last, got, err)
		}
		if got, err := s.StopWhen.Eval(scope); err != nil || got != false {
			t.Errorf("stop is %v, %v", got, err)
		}
	}
}
