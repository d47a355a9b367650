package argo

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/front"
)

const examples = "../../testdata/argo"

// TestExamples runs each of our own examples and compares its end with what its
// first line says. What is refused is the room workflow/argo's to test.
func TestExamples(t *testing.T) {
	files, _ := filepath.Glob(examples + "/*.yaml")
	if len(files) < 60 {
		t.Fatalf("only %d examples", len(files))
	}
	w := start(t)
	t.Run("all", func(t *testing.T) {
		for _, f := range files {
			doc, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(doc), "\n")
			expect := strings.TrimPrefix(first, "# expect: ")
			if !slices.Contains([]string{"Succeeded", "Failed", "Error"}, expect) {
				continue
			}
			t.Run(strings.TrimSuffix(filepath.Base(f), ".yaml"), func(t *testing.T) {
				t.Parallel()
				w.expect(t, filepath.Base(f), doc, front.Options{}, nil, nil, expect)
			})
		}
	})
}

// expect runs a document and compares the phase that it ends in.
func (w *world) expect(t *testing.T, file string, doc []byte, o front.Options, args, answers map[string]workflow.Value, want string) {
	t.Helper()
	g, problems := front.Compile(file, doc, o)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	info, err := w.ended(t.Context(), g, args, answers)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Phase.String(); !strings.EqualFold(got, want) {
		t.Errorf("it ended %s (%s), want %s\n%s", got, info.Message, want, w.tree(info.ID))
	}
}
