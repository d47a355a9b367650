package load

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Result of one run.
type Result struct {
	N       int           // answers inside the measured time
	Elapsed time.Duration // measured time
	Sorted  []time.Duration
}

// Rate is answers a second.
func (r Result) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.N) / r.Elapsed.Seconds()
}

// Quantile of the times an answer took; q is 0 to 1.
func (r Result) Quantile(q float64) time.Duration {
	if len(r.Sorted) == 0 {
		return 0
	}
	return r.Sorted[min(int(q*float64(len(r.Sorted))), len(r.Sorted)-1)]
}

// Plan of a run: conns clients, each asking again as soon as it was answered
// (a closed loop), for warm and then for measured time.
type Plan struct {
	Addr    string
	Conns   int
	Warm    time.Duration
	Measure time.Duration
}

// Run drives do until the time is over. do is called with the client, the
// number of the worker and the number of the call in it; an error ends the run.
func Run(ctx context.Context, p Plan, do func(c *Conn, worker, call int) error) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Warm+p.Measure)
	defer cancel()
	begin := time.Now().Add(p.Warm)
	end := begin.Add(p.Measure)

	took := make([][]time.Duration, p.Conns)
	errs := make(chan error, p.Conns)
	var wg sync.WaitGroup
	for w := range p.Conns {
		wg.Go(func() {
			c := NewConn(p.Addr)
			defer c.Close()
			for call := 0; ctx.Err() == nil; call++ {
				t0 := time.Now()
				if err := do(c, w, call); err != nil {
					errs <- err
					cancel()
					return
				}
				if t1 := time.Now(); t0.After(begin) && t1.Before(end) {
					took[w] = append(took[w], t1.Sub(t0))
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return Result{}, err
	default:
	}
	r := Result{Elapsed: p.Measure, Sorted: slices.Concat(took...)}
	slices.Sort(r.Sorted)
	r.N = len(r.Sorted)
	if r.N == 0 {
		return r, fmt.Errorf("load on %s: no answer within %s", p.Addr, p.Measure)
	}
	return r, nil
}

// Get makes a call that fetches one path and wants status 200 and, if it is
// not negative, a body of that size.
func Get(host, path, accept string, size int64) func(c *Conn, worker, call int) error {
	req := []byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: bench\r\n")
	if accept != "" {
		req = append(req, "Accept: "+accept+"\r\n"...)
	}
	req = append(req, "\r\n"...)
	return func(c *Conn, _, _ int) error {
		a, err := c.Do(req)
		if err != nil {
			return err
		}
		if a.Status != 200 || size >= 0 && a.Body != size {
			return fmt.Errorf("GET %s from %s: status %d, %d bytes; want 200 and %d", path, host, a.Status, a.Body, size)
		}
		return nil
	}
}
