package access

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
)

// limiter counts failed requests in a fixed number of buckets, chosen by a
// keyed hash of who failed. Two who share a bucket only share the slowing down
// of failures, so nothing has to be evicted and memory never grows.
type limiter struct {
	clock clock.Clock
	seed  maphash.Seed

	mu      sync.Mutex // only failing requests take it
	buckets [4096]bucket
}

type bucket struct {
	spent float64       // failures not yet forgiven
	at    time.Duration // when spent was right
}

// A rule allows burst failures at once and forgives one each refill.
type rule struct {
	burst  float64
	refill time.Duration
}

var (
	perAccount = rule{burst: 10, refill: 6 * time.Second} // one address, one account name
	perAddress = rule{burst: 100, refill: time.Second}    // one address, whatever the name: a NAT
)

func newLimiter(c clock.Clock) *limiter { return &limiter{clock: c, seed: maphash.MakeSeed()} }

// fail counts a failure. It returns how long to wait, in whole seconds, when
// there were too many, and whether the failure is worth a line in the log.
func (l *limiter) fail(remote, name string) (wait time.Duration, log bool) {
	addr := network(remote)
	now := l.clock.Mono()
	l.mu.Lock()
	defer l.mu.Unlock()
	w1, log := l.take(now, perAccount, addr+" "+name)
	w2, _ := l.take(now, perAddress, addr)
	return max(w1, w2), log
}

func (l *limiter) take(now time.Duration, r rule, key string) (wait time.Duration, log bool) {
	b := &l.buckets[maphash.String(l.seed, key)%uint64(len(l.buckets))]
	b.spent = max(0, b.spent-float64(now-b.at)/float64(r.refill))
	b.at = now
	if b.spent+1 > r.burst {
		d := time.Duration((b.spent + 1 - r.burst) * float64(r.refill))
		return max(d.Round(time.Second), time.Second), false
	}
	b.spent++
	return 0, true
}

// network is the part of an address that one customer of a provider has: an
// IPv4 address or an IPv6 /64.
func network(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	a := ap.Addr().Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.String()
	}
	return a.String()
}
