package api_test

import (
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/task"
)

// A run outlives its logs, and whoever looks for them is told.
func TestLogsThatWereKept(t *testing.T) {
	r := newRig(t, true)
	c := r.client("")
	s, err := c.Submit(t.Context(), wire.Submission{Document: wire.Document{Text: "{apiVersion: cairn.dev/v1alpha1, kind: Workflow, metadata: {name: w}, spec: {tasks: [{name: a, image: alpine}]}}"}})
	if err != nil {
		t.Fatal(err)
	}
	r.end(r.lease(1)[0], task.Outcome{Phase: task.Succeeded})
	read := func() error {
		return c.Logs(t.Context(), s.ID, client.LogQuery{}, func(wire.LogLine) error { return nil })
	}
	if err := read(); err != nil {
		t.Errorf("at once: %v", err)
	}
	r.clock.Advance(logKeep + time.Hour)
	if run, err := c.Run(t.Context(), s.ID); err != nil || run.Phase != "succeeded" || run.LogsKept.String() != "7d" {
		t.Errorf("the run is %+v, %v", run, err)
	}
	if err := read(); err == nil || !strings.Contains(err.Error(), "were kept for 7d") {
		t.Errorf("its logs: %v", err)
	}
}
