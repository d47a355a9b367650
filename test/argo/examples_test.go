package argo

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const examples = "../../testdata/argo"

// TestExamples runs each of our own examples and compares its end with what its
// first line says. What is refused is the room workflow/argo's to test.
func TestExamples(t *testing.T) {
	files, _ := filepath.Glob(examples + "/*.yaml")
	if len(files) < 60 {
		t.Fatalf("only %d examples", len(files))
	}
	var docs []document
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		phase := strings.ToLower(strings.TrimPrefix(first, "# expect: "))
		if slices.Contains([]string{"succeeded", "failed", "error"}, phase) {
			docs = append(docs, document{filepath.Base(f), text, outcome{phases: []string{phase}}})
		}
	}
	start(t).all(t, docs)
}
