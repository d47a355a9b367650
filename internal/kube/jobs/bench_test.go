package jobs

import (
	"fmt"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// BenchmarkStep is a look at ten thousand runs that want pods, of which a
// thousand have one each.
func BenchmarkStep(b *testing.B) {
	for _, many := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(many), func(b *testing.B) {
			w := newWorld(&testing.T{}, Config{MaxPods: many / 10, MaxPerNamespace: many, MaxPending: many, Burst: many, Rate: many})
			for i := range many {
				w.want = append(w.want, demand(fmt.Sprintf("r%d", i), "data", 1, 0))
			}
			w.c.step(b.Context())
			w.clock.Advance(time.Second)
			for name := range w.jobs {
				w.becomes(name, func(s *batchv1.JobStatus) { s.Active = 1 })
				w.pod(name, name+"-p", func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning })
			}
			for i := range w.want {
				w.want[i].Asked = true
			}
			b.ReportMetric(float64(len(w.jobs)), "Jobs")
			b.ResetTimer()
			for b.Loop() {
				w.c.step(b.Context())
			}
		})
	}
}
