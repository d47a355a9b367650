package kube

import (
	"net/http"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
)

// A Pulse is how an API server is, as one sees it who only asks: by how long its
// answers take, beside how long they take when it has little to do. It is for
// who could ask more of it than it can bear beside its other users; those whom
// it refuses something (429) are told so, but they are the last to suffer. It is
// safe for concurrent use, by any number of clients.
type Pulse struct {
	clock clock.Clock

	mu    sync.Mutex
	heard bool
	mean  time.Duration    // of the last answers, the later the more it counts
	last  time.Duration    // when the last one came
	lows  [2]time.Duration // the lowest mean, lately and in the time before
	turn  time.Duration    // when lately began
}

const (
	// quick is an answer with which nothing is wrong, whatever was before.
	quick = 5 * time.Millisecond
	// slow is how many times as long as at rest an answer may take.
	slow = 2
	// least is the part of what one would ask that is never too much: with less,
	// one who only seems slow (from far away, with a processor that is busy)
	// would not go on.
	least = 0.1
	// stale is when it is forgotten how it was.
	stale = 5 * time.Second
	// lately is how long it is known how it is at rest, at least.
	lately = 30 * time.Minute
)

// NewPulse knows of no answers yet.
func NewPulse(c clock.Clock) *Pulse { return &Pulse{clock: c} }

// Wrap has the answers noticed to what changes something; reads may take as long
// as what they read is large, and watches as long as they like. It is one of
// rest.Config's transport wrappers.
func (p *Pulse) Wrap(next http.RoundTripper) http.RoundTripper { return beat{p, next} }

type beat struct {
	*Pulse
	next http.RoundTripper
}

func (b beat) RoundTrip(r *http.Request) (*http.Response, error) {
	begin := b.clock.Mono()
	resp, err := b.next.RoundTrip(r)
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		if err == nil {
			b.took(b.clock.Mono() - begin)
		}
	}
	return resp, err
}

// took notes how long an answer took.
func (p *Pulse) took(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.Mono()
	switch {
	case !p.heard:
		p.heard, p.turn, p.mean, p.lows = true, now, d, [2]time.Duration{d, d}
	case now-p.last > stale:
		p.mean = p.rest()
	}
	p.mean += (d - p.mean) / 8
	p.last = now
	if now-p.turn > lately {
		p.turn, p.lows = now, [2]time.Duration{p.mean, p.lows[0]}
	}
	p.lows[0] = min(p.lows[0], p.mean)
}

// rest is how long an answer takes when there is little to do; the lock is held.
func (p *Pulse) rest() time.Duration { return max(quick, min(p.lows[0], p.lows[1])) }

// Ease is the part that is to be asked of it now of what one would ask: 1 is
// all, and it is never less than a tenth.
func (p *Pulse) Ease() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.heard || p.clock.Mono()-p.last > stale {
		return 1
	}
	part := float64(slow*p.rest()) / float64(max(p.mean, 1))
	// Squared: near its limit a server becomes slower by more than what is added.
	return max(least, min(1, part*part))
}
