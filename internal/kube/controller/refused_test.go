package controller

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.dev/cairn/internal/kube/crd"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
)

// words are what is logged, written by several.
type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.b.String(), what)
}

// A kind that cannot be listed keeps no other one from starting. What was not
// seen is not taken to be gone, and it is looked at when it can be.
func TestKindThatIsRefused(t *testing.T) {
	for what, c := range map[string]struct {
		code   int
		reason metav1.StatusReason
		cure   string
	}{
		"no right":   {http.StatusForbidden, metav1.StatusReasonForbidden, "give the right to list and watch workflowtemplates.argoproj.io"},
		"not served": {http.StatusNotFound, metav1.StatusReasonNotFound, "or set argo: off for this cluster"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newStage(t)
			var refused atomic.Bool
			refused.Store(true)
			s.api.odd = func(w http.ResponseWriter, r *http.Request) bool {
				if !refused.Load() || !strings.HasSuffix(r.URL.Path, "/argoproj.io/v1alpha1/workflowtemplates") {
					return false
				}
				fail(w, c.code, c.reason)
				return true
			}
			s.api.define(crd.Group, nil, "workflows")
			s.api.define(crd.ArgoGroup, map[string]any{crd.Minimal: "true"}, "workflows", "workflowtemplates")
			ours, u := asked(crd.Group, "a", "u1", nil)
			s.api.put(ours, u)
			theirs, u := asked(crd.ArgoGroup, "b", "u2", nil)
			s.api.put(theirs, u)
			s.runs.keyed["kube/prod/data/unseen"] = "r9"
			s.runs.info["r9"] = &work.Info{ID: "r9", Phase: machine.Running}

			said := &words{}
			ctl := s.controller(s.runs, slog.New(slog.NewTextHandler(said, nil)))
			ctx, end := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = ctl.Run(ctx) }()
			t.Cleanup(func() { end(); <-done })

			s.phase(ours, "Running")
			s.pass(5 * time.Second)
			if got := s.api.get(theirs, "status"); got != nil {
				t.Errorf("it was begun without its templates: %v", got)
			}
			if got := s.canceled(); len(got) > 0 {
				t.Errorf("canceled %v, which nobody knows to be gone", got)
			}
			if n := said.count("a kind cannot be listed"); n != 1 || said.count(c.cure) != 1 {
				t.Errorf("said %d times, with the cure %d times", n, said.count(c.cure))
			}
			refused.Store(false)
			s.phase(theirs, "Running")
			s.until("what is gone is canceled", func() bool { return len(s.canceled()) == 1 })
		})
	}
}
