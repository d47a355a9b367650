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
		b.StopTimer()
		w.roots.work.Wait() // the next root is there, as it is for who waits a moment
		b.StartTimer()
		run()
	}
}

// Tasks one after the other, as fast as they come: roots are made all the time.
func BenchmarkBusy(b *testing.B) {
	w := newWorld(b, nil)
	w.busybox()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if o := w.do(b.Context(), task.Task{Command: []string{"true"}}); o.Phase != task.Succeeded {
				b.Error(o.Message)
			}
		}
	})
}
