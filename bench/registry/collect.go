package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"cairn.dev/cairn/bench/load"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// measureCollect pushes while a collection sweeps blobs nothing needs, and
// while it does not, in turns, until the collection has nothing left.
func measureCollect(ctx context.Context, o options, _ *field) (result, error) {
	garbage := 100_000
	if o.small {
		garbage = 2_000
	}
	say("filling a registry with blobs to sweep")
	s, err := startChild(ctx, o, "collect", "child-collect", strconv.Itoa(garbage))
	if err != nil {
		return result{}, err
	}
	defer s.stop()
	p := load.NewPusher(s.addr, "bench/push", 64<<10, 99)
	// One answer of the child is the number of blobs left.
	tell := func(path string) (left int, err error) {
		location, err := send(ctx, "POST", "http://"+s.addr+path, "", nil, 0, 200)
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(location)
	}
	took := map[bool][]time.Duration{}
	var ratios []float64
	left, turns := garbage, 0
	for left > 0 && turns < 150 {
		turns++
		quantile := map[bool]time.Duration{}
		for _, on := range []bool{turns%2 == 0, turns%2 == 1} {
			if _, err = tell(fmt.Sprintf("/bench/collect?on=%t", on)); err != nil {
				return result{}, err
			}
			r, err := load.Run(ctx, load.Plan{Addr: s.addr, Conns: 16, Warm: o.measure / 8, Measure: o.measure}, func(c *load.Conn, _, _ int) error {
				_, err := p.Push(c)
				return err
			})
			if err != nil {
				return result{}, err
			}
			if left, err = tell("/bench/collect?on=false"); err != nil {
				return result{}, err
			}
			if on && left == 0 {
				break // swept only a part of the time
			}
			took[on] = append(took[on], r.Sorted...)
			quantile[on] = r.Quantile(0.99)
		}
		if len(quantile) == 2 {
			ratios = append(ratios, float64(quantile[true])/float64(quantile[false]))
		}
	}
	quiet, busy := load.Result{Sorted: slices.Sorted(slices.Values(took[false]))}, load.Result{Sorted: slices.Sorted(slices.Values(took[true]))}
	if len(ratios) == 0 {
		return result{}, fmt.Errorf("the collection of %d blobs ended within one turn: measure with more, or shorter", garbage)
	}
	ratio := float64(busy.Quantile(0.99)) / float64(quiet.Quantile(0.99))
	note := func(r load.Result) string {
		return fmt.Sprintf("p50 %s ms, %d pushes", number(ms(r.Quantile(0.5))), len(r.Sorted))
	}
	return result{
		name:  "Push p99 while sweeping",
		title: fmt.Sprintf("Time of a push of 64 KiB (p99) while %s blobs are swept, 16 connections, %d turns of each kind", number(float64(garbage)), len(ratios)),
		rows: []row{
			{"quiet", ms(quiet.Quantile(0.99)), " ms", note(quiet)},
			{"sweeping", ms(busy.Quantile(0.99)), " ms", note(busy)},
			{"blobs left", float64(left), "", "at the end of the last turn"},
		},
		verdicts: []verdict{{"≤ 1.5×", fmt.Sprintf("%.2f× (median of the turns %.2f×)", ratio, median(ratios)), ratio <= 1.5}},
	}, nil
}

// childCollect serves a registry that holds blobs nothing needs, old enough to
// be swept, and collects while it is told to. ARGS: address, folder, number.
func childCollect(ctx context.Context, args []string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return fmt.Errorf("number of blobs: %w", err)
	}
	c := clock.NewFake(time.Now())
	r, err := openRooms(ctx, args[1], c)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := fillGarbage(ctx, r.content, n); err != nil {
		return err
	}
	c.Advance(2*content.DefaultGrace + time.Hour)

	var swept atomic.Int64
	var stop func()
	mux := http.NewServeMux()
	mux.Handle("/v2/", r.handler(true))
	mux.HandleFunc("/bench/collect", func(w http.ResponseWriter, req *http.Request) {
		if stop != nil {
			stop()
			stop = nil
		}
		if req.FormValue("on") == "true" {
			stop = collect(ctx, r.content, &swept)
		}
		w.Header().Set("Location", strconv.Itoa(n-int(swept.Load())))
	})
	return listen(ctx, args[0], mux)
}

// collect collects until the function it returns is called.
func collect(ctx context.Context, s *content.Store, swept *atomic.Int64) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			stats, err := s.Collect(ctx)
			swept.Add(int64(stats.Blobs))
			if err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "collect:", err)
				return
			}
			if stats.Blobs == 0 {
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// fillGarbage pushes n small blobs that no manifest will ever name.
func fillGarbage(ctx context.Context, s *content.Store, n int) error {
	const writers = 64
	errs := make(chan error, writers)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			body := make([]byte, 512)
			for {
				i := next.Add(1)
				if i > int64(n) {
					return
				}
				binary.LittleEndian.PutUint64(body, uint64(i))
				d := image.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(body)))
				if _, err := s.PutBlob(ctx, "bench/garbage", bytes.NewReader(body), d); err != nil {
					errs <- fmt.Errorf("fill with blobs to sweep: %w", err)
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
