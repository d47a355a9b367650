package upstream

import (
	"sync"
	"time"
)

// Bounds of how long an upstream is left alone.
const (
	firstPause = time.Second
	longPause  = 30 * time.Second
	// busyPause is for a 429 that does not say how long.
	busyPause = time.Minute
	// maxBusyPause bounds what an upstream may ask for.
	maxBusyPause = 24 * time.Hour
	// tolerated failures in a row that may be about one image and not about
	// the upstream.
	tolerated = 2
)

// A gate says whether an upstream may be asked now. It closes when the
// upstream says so (429) or fails several times in a row, and when its time has
// come lets one request through to see.
type gate struct {
	mu    sync.Mutex
	until time.Duration // monotonic
	why   *Error        // while closed
	fails int           // in a row
	probe bool          // one request is on its way to see
}

// enter reports why nobody may go through now, or nil. Who may calls leave
// after.
func (g *gate) enter(now time.Duration) *Error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.why == nil:
		return nil
	case now >= g.until && !g.probe:
		g.probe = true
		return nil
	}
	e := *g.why
	if e.Kind == Busy {
		e.RetryAfter = max(g.until-now, time.Second)
	}
	return &e
}

// closed reports whether nobody may go through now.
func (g *gate) closed(now time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.why != nil && (now < g.until || g.probe)
}

// leave notes what came of a request: err is nil if the upstream answered, be
// it by a refusal. sure says that the failure is the upstream's and not about
// what was asked for.
func (g *gate) leave(now time.Duration, err *Error, sure bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probe = false
	switch {
	case err == nil, err.Kind == NotFound:
		if now >= g.until { // an answer that was under way does not end a 429
			g.why, g.fails = nil, 0
		}
	case err.Kind == Busy:
		g.why, g.until = err, max(g.until, now+err.RetryAfter)
	case err.Kind == Unreachable:
		g.fails++
		if sure || g.why != nil || g.fails > tolerated {
			g.why, g.until = err, max(g.until, now+min(firstPause<<min(g.fails-1, 10), longPause))
		}
	}
}

// cancel is leave for a request that was given up here.
func (g *gate) cancel() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probe = false
}
