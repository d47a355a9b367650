package argo

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/test/argo/published"
)

const examples = "../../testdata/argo"

// TestExamples runs each of our own examples and compares its end with what its
// first line says. What is refused is the room workflow/argo's to test, and what
// needs a cluster test/kube's.
func TestExamples(t *testing.T) {
	files, _ := filepath.Glob(examples + "/*.yaml")
	if len(files) < 60 {
		t.Fatalf("only %d examples", len(files))
	}
	web := published.Internet(t)
	var docs []document
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		expect := strings.TrimPrefix(first, "# expect: ")
		phase, _, _ := strings.Cut(expect, ";")
		if slices.Contains([]string{"Succeeded", "Failed", "Error"}, phase) && !strings.Contains(expect, "; in a cluster") {
			x, err := published.ParseOutcome(strings.Replace(expect, phase, strings.ToLower(phase), 1))
			if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			docs = append(docs, document{filepath.Base(f), web.Replace(text), x})
		}
	}
	start(t).all(t, docs)
}
