package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"cairn.dev/cairn/bench/load"
)

// contender is one of those that a measurement compares.
type contender struct {
	name string
	run  func(ctx context.Context) (float64, error)
}

// samples are what each contender reached, by name, one value a round.
type samples map[string][]float64

// interleave runs all contenders once in each round, each round beginning with
// another one, so that none is always measured after the same neighbour.
func interleave(ctx context.Context, rounds int, list []contender) (samples, error) {
	out := samples{}
	for r := range rounds {
		for i := range list {
			c := list[(i+r)%len(list)]
			v, err := c.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			out[c.name] = append(out[c.name], v)
		}
	}
	return out, nil
}

// median of the rounds of one contender.
func (s samples) median(name string) float64 { return median(s[name]) }

// ratio is the median of a/b of each round: what disturbed one round disturbed
// both, so this is steadier than the ratio of the medians.
func (s samples) ratio(a, b string) float64 {
	var rs []float64
	for i := range s[a] {
		if s[b][i] > 0 {
			rs = append(rs, s[a][i]/s[b][i])
		}
	}
	return median(rs)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// rate makes a contender of a load on a server, measured in answers a second.
func (o options) rate(s *server, conns int, do func(c *load.Conn, worker, call int) error) contender {
	return contender{s.name, func(ctx context.Context) (float64, error) {
		r, err := load.Run(ctx, load.Plan{Addr: s.addr, Conns: conns, Warm: min(o.measure/4, time.Second), Measure: o.measure}, do)
		return r.Rate(), err
	}}
}
