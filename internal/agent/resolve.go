package agent

import (
	"context"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
)

const (
	// resolveEvery is how old an answer to "what is this tag" may be. A tag
	// that moves names two images as in use meanwhile, which harms nobody.
	resolveEvery = 5 * time.Minute
	resolveBatch = 1000
)

// A resolver remembers what the server said tags are. Only the agent's loop
// uses it.
type resolver struct {
	sink   Sink
	clock  clock.Clock
	jitter func() float64
	known  map[string]*answer
}

type answer struct {
	digests []image.Digest
	until   time.Duration // on the monotonic clock
	asked   bool          // there was an answer, if only that there is no such image
	wanted  bool
}

func newResolver(s Sink, c clock.Clock, jitter func() float64) *resolver {
	return &resolver{sink: s, clock: c, jitter: jitter, known: map[string]*answer{}}
}

// resolve says what the wanted references are. sure is false when some of them
// could not be asked for; what was known of them is used still.
func (r *resolver) resolve(ctx context.Context, wanted []Wanted) (found map[string][]image.Digest, sure bool) {
	now := r.clock.Mono()
	var ask []string
	for _, w := range wanted {
		a := r.known[w.Reference]
		if a == nil {
			a = &answer{}
			r.known[w.Reference] = a
		}
		if !a.wanted && (!a.asked || now >= a.until) {
			ask = append(ask, w.Reference)
		}
		a.wanted = true
	}
	sure = true
	for len(ask) > 0 {
		n := min(len(ask), resolveBatch)
		got, err := r.sink.Resolve(ctx, ask[:n])
		for _, ref := range ask[:n] {
			a := r.known[ref]
			if err != nil {
				sure = sure && a.asked
				continue
			}
			a.asked = true
			a.digests = got[ref]
			a.until = now + time.Duration(float64(resolveEvery)*(0.8+0.4*r.jitter()))
		}
		ask = ask[n:]
		if err != nil {
			for _, ref := range ask {
				sure = sure && r.known[ref].asked
			}
			break
		}
	}
	found = map[string][]image.Digest{}
	for ref, a := range r.known {
		if !a.wanted {
			delete(r.known, ref)
			continue
		}
		a.wanted = false
		found[ref] = a.digests
	}
	return found, sure
}
