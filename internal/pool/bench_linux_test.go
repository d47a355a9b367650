package pool

import (
	"testing"

	"cairn.dev/cairn/internal/task"
)

// A task of an image that was run before: what a person waits for, besides the
// program.
func BenchmarkWarm(b *testing.B) {
	w := newWorld(b, nil)
	w.busybox()
	run := func() {
		if o := w.do(b.Context(), task.Task{Command: []string{"true"}}); o.Phase != task.Succeeded {
			b.Fatal(o.Message)
		}
	}
	run()
	for b.Loop() {
		run()
	}
}
