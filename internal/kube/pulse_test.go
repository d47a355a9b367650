package kube

import (
	"net/http"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
)

// late is an API server that takes its time.
type late struct {
	*clock.Fake
	takes time.Duration
}

func (l *late) RoundTrip(*http.Request) (*http.Response, error) {
	l.Advance(l.takes)
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

func TestPulse(t *testing.T) {
	fake := clock.NewFake(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))
	p := NewPulse(fake)
	server := &late{Fake: fake}
	do := p.Wrap(server)
	ask := func(n int, method string, takes time.Duration) {
		t.Helper()
		server.takes = takes
		for range n {
			r, err := http.NewRequestWithContext(t.Context(), method, "https://example.test/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := do.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
	}
	ease := func(what string, from, to float64) {
		t.Helper()
		if got := p.Ease(); got < from || got > to {
			t.Errorf("%s: %.2f, want %.2f to %.2f", what, got, from, to)
		}
	}
	const ms = time.Millisecond
	ease("nothing is known", 1, 1)
	ask(1, http.MethodPost, 80*ms)
	ease("the first answer is how it is", 1, 1)
	ask(50, http.MethodPatch, 20*ms)
	ease("at rest", 1, 1)
	ask(100, http.MethodGet, 900*ms)
	ease("a read is as slow as it is large", 1, 1)
	ask(3, http.MethodPut, 60*ms)
	ease("three may be chance", 1, 1)
	ask(50, http.MethodPut, 80*ms)
	ease("four times as long, a quarter as much", 0.24, 0.27)
	ask(50, http.MethodDelete, 10*time.Second)
	ease("never nothing", 0.1, 0.1)
	fake.Advance(6 * time.Second)
	ease("not asked for a while", 1, 1)
	ask(50, http.MethodPost, 3*ms)
	ask(50, http.MethodPost, 9*ms)
	ease("what is quick is not slow", 1, 1)
	// It has moved far away: after an hour that is how it is.
	ask(6_000, http.MethodPost, 25*ms)
	ease("it was quick lately", 0.15, 0.17)
	ask(36_000, http.MethodPost, 100*ms)
	ease("that is how it is", 1, 1)
	ask(1_000, http.MethodPost, 400*ms)
	ease("four times as long again", 0.24, 0.27)
}
