package artifacts_test

import (
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/artifacts"
)

// Logs and files of a run come and go apart, and no task reads logs as files.
func TestLogs(t *testing.T) {
	w := newWorld(t, artifacts.Config{})
	put := func(run, text string) string {
		t.Helper()
		d, _, err := w.Logs().Put(t.Context(), run, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	open := func(digest string) error {
		t.Helper()
		f, err := w.Logs().Open(t.Context(), digest)
		if err == nil {
			err = f.Close()
		}
		return err
	}
	file := w.put("a", "file").Digest
	old, other, gone := put("a", "printed"), put("b", "printed by b"), put("gone", "printed by nobody")
	same := put("a", "file") // the bytes of a file of the run
	_, err := w.read("a", task.Input{Digest: old})
	is(t, err, artifacts.ErrNotFound)

	if err := w.Logs().Release(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	is(t, open(old), artifacts.ErrNotFound)
	is(t, open(same), nil)
	is(t, open(other), nil)
	if got, err := w.read("a", task.Input{Digest: file}); err != nil || got != "file" {
		t.Errorf("without its logs a run has %q %v", got, err)
	}
	// What a crash left is found.
	w.runs["a"], w.runs["b"] = true, true
	w.clock.Advance(2 * time.Hour)
	if err := w.TidyRuns(t.Context()); err != nil {
		t.Fatal(err)
	}
	is(t, open(gone), artifacts.ErrNotFound)
	is(t, open(other), nil)
	if _, _, err := w.Logs().Put(t.Context(), "../a", strings.NewReader("x")); err == nil {
		t.Error("what is no run has logs")
	}
}
