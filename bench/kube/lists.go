package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
)

// lists are how long lists of the pods of another namespace took, for somebody
// to whom the API server is as fair as to all. Fresh ones have to hold all that
// was written before they were asked for: an API server answers from what it
// watches, and learns each 100 ms that this is up to date, unless nothing at all
// was written since. Those from its cache need not, and wait for nothing but
// the server itself; they are what controllers and nodes ask for.
type lists struct{ fresh, cached []time.Duration }

// lists looks at pods until ctx ends.
func (w *world) lists(ctx context.Context) (l lists, err error) {
	for i := 0; ctx.Err() == nil; i++ {
		to, path := &l.fresh, "/api/v1/namespaces/"+others+"/pods"
		if i%2 == 1 {
			to, path = &l.cached, path+"?resourceVersion=0"
		}
		begin := time.Now()
		if _, err := w.other.do(context.WithoutCancel(ctx), http.MethodGet, path, nil); err != nil {
			return l, err
		}
		*to = append(*to, time.Since(begin))
		_ = clock.Sleep(ctx, clock.Real(), 20*time.Millisecond)
	}
	return l, nil
}

// unburdened are the lists of a cluster that rests, and of one that would rest
// if nobody wrote one small object 20 times a second.
func (w *world) unburdened(ctx context.Context, each time.Duration) (idle, written lists, err error) {
	resting, end := context.WithTimeout(ctx, each)
	idle, err = w.lists(resting)
	end()
	if err != nil {
		return idle, written, err
	}
	writing, end := context.WithTimeout(ctx, each)
	defer end()
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() { failed = w.scribble(writing) })
	written, err = w.lists(writing)
	if wg.Wait(); err == nil {
		err = failed
	}
	return idle, written, err
}

// scribble writes a lease 20 times a second until ctx ends.
func (w *world) scribble(ctx context.Context) error {
	const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
	// That it is there from the last time is no harm.
	_, _ = w.admin.do(ctx, http.MethodPost, leases, object{"metadata": object{"name": "bench"}})
	for i := 0; clock.Sleep(ctx, clock.Real(), 50*time.Millisecond) == nil; i++ {
		if _, err := w.admin.do(context.WithoutCancel(ctx), http.MethodPatch, leases+"/bench", object{"spec": object{"holderIdentity": fmt.Sprint("bench-", i)}}); err != nil {
			return err
		}
	}
	return nil
}

// lists says what runs have made of lists.
func (r *report) lists(where string, idle, written, during lists) {
	fmt.Fprintf(os.Stderr, "lists: fresh: idle %s; written %s; during %s\nlists: cached: idle %s; during %s\n", spread(idle.fresh), spread(written.fresh), spread(during.fresh), spread(idle.cached), spread(during.cached))
	const what = "meanwhile (%s) a LIST of the 100 pods of another namespace, %s: p99"
	p99 := func(d []time.Duration) time.Duration { return quantile(d, 0.99) }
	a, b := p99(idle.cached), p99(during.cached)
	r.add(row{fmt.Sprintf(what, where, "from the cache"), rounded(b), "≤ 3 × idle, ≤ 500 ms", b <= 3*a && b <= 500*time.Millisecond,
		fmt.Sprintf("%d lists by an account that may see nothing else, p50 %s; idle p99 %s, p50 %s", len(during.cached), rounded(quantile(during.cached, 0.5)), rounded(a), rounded(quantile(idle.cached, 0.5)))})
	a, b = p99(idle.fresh), p99(during.fresh)
	r.add(row{fmt.Sprintf(what, where, "consistent"), rounded(b), "≤ 3 × idle, ≤ 500 ms", b <= 3*a && b <= 500*time.Millisecond,
		fmt.Sprintf("%d lists, p50 %s; idle p99 %s, p50 %s; they wait for what was written before, whoever wrote it: p99 %s, p50 %s when nothing happens but that a lease is written 20 times a second", len(during.fresh), rounded(quantile(during.fresh, 0.5)),
			rounded(a), rounded(quantile(idle.fresh, 0.5)), rounded(p99(written.fresh)), rounded(quantile(written.fresh, 0.5)))})
}
