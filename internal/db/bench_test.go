package db

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkWrite is one row per write, from so many writers at once.
func BenchmarkWrite(b *testing.B) {
	for name, sync := range map[string]Sync{"full": Full, "normal": Normal} {
		for _, writers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/%d", name, writers), func(b *testing.B) { benchWrite(b, sync, writers) })
		}
	}
}

func benchWrite(b *testing.B, s Sync, writers int) {
	var commits atomic.Int64
	var begin time.Time
	var longest time.Duration
	d := open(b, Config{Sync: s, Fault: func(p string) error {
		switch p {
		case BeforeCommit:
			begin = time.Now()
		case AfterCommit:
			commits.Add(1)
			longest = max(longest, time.Since(begin))
		}
		return nil
	}})
	var seq atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	b.ResetTimer()
	for range writers {
		wg.Go(func() {
			var mine []time.Duration
			for {
				n := seq.Add(1)
				if n > int64(b.N) {
					break
				}
				start := time.Now()
				if err := d.Write(context.Background(), func(tx *Tx) error {
					_, err := tx.Insert("INSERT INTO t(v) VALUES (?)", n)
					return err
				}); err != nil {
					b.Error(err)
					break
				}
				mine = append(mine, time.Since(start))
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
	b.ReportMetric(float64(b.N)/float64(commits.Load()), "writes/commit")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(longest.Microseconds()), "longest-commit-µs")
}

// BenchmarkRead is one row by key.
func BenchmarkRead(b *testing.B) {
	d := open(b, Config{Sync: Normal})
	fill(b, d, 1000)
	row := func(q Query) error {
		var n int
		_, err := q.Row(context.Background(), "SELECT length(v) FROM big WHERE k = ?", []any{7}, &n)
		return err
	}
	for name, read := range map[string]func(context.Context, func(Query) error) error{"view": d.Read, "one": d.ReadOne} {
		b.Run(name, func(b *testing.B) {
			ctx, cancel := context.WithCancel(context.Background()) // as a request's
			defer cancel()
			b.SetParallelism(64 / runtime.GOMAXPROCS(0))
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if err := read(ctx, row); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
