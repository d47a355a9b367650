package logs

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
)

// benchStore is a store on the disk, with the real clock.
func benchStore(b *testing.B, cfg Config) *Store {
	b.Helper()
	cfg.Dir = b.TempDir()
	s, err := Open(b.Context(), cfg, Deps{Blobs: folder(cfg.Dir), Clock: clock.Real(), Live: func(string) bool { return true }})
	must(b, err)
	b.Cleanup(func() { must(b, s.Close()) })
	return s
}

// BenchmarkAppend has 1,000 workers send ten lines each, of 100 runs, while
// what came is packed.
func BenchmarkAppend(b *testing.B) {
	s := benchStore(b, Config{})
	go func() { _ = s.Run(b.Context()) }()
	const workers, lines = 1000, 10
	text := []byte(strings.Repeat("2026-11-23T12:00:00Z INFO processed one more item without any trouble at all\n", lines))
	work := make(chan struct{}, workers)
	var all sync.WaitGroup
	var slowest atomic.Int64
	b.SetBytes(int64(len(text)))
	b.ResetTimer()
	for w := range workers {
		all.Go(func() {
			offset := int64(0)
			for range work {
				f := task.Frame{Ref: task.Ref{Run: fmt.Sprint("run", w%100), Task: fmt.Sprintf("1.%d", w), Attempt: 1}, Stream: task.Stdout, Offset: offset, At: time.Now(), Bytes: text}
				from := time.Now()
				if _, err := s.Append(b.Context(), []task.Frame{f}); err != nil {
					b.Error(err)
					return
				}
				offset = (offset + int64(len(text))) % (60 << 20)
				for d := int64(time.Since(from)); ; {
					if old := slowest.Load(); d <= old || slowest.CompareAndSwap(old, d) {
						break
					}
				}
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	all.Wait()
	b.ReportMetric(float64(b.N*lines)/b.Elapsed().Seconds(), "lines/s")
	b.ReportMetric(float64(slowest.Load())/1e6, "slowest-ms")
}

// BenchmarkEnded packs runs that printed a little and have ended.
func BenchmarkEnded(b *testing.B) {
	s := benchStore(b, Config{})
	var frames []task.Frame
	for i := range b.N {
		frames = append(frames, task.Frame{Ref: task.Ref{Run: fmt.Sprint("run", i), Task: "0", Attempt: 1}, Stream: task.Stdout, At: time.Now(), Bytes: []byte("hello\n")})
	}
	_, err := s.Append(b.Context(), frames)
	must(b, err)
	for i := range b.N {
		s.Ended(fmt.Sprint("run", i))
	}
	b.ResetTimer()
	s.packDue(b.Context())
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "runs/s")
	b.StopTimer()
	if len(s.live) != 0 {
		b.Errorf("%d runs are left", len(s.live))
	}
}

// BenchmarkOpen reads a journal again of which nothing is packed.
func BenchmarkOpen(b *testing.B) {
	cfg := Config{Dir: b.TempDir(), SegmentBytes: 8 << 20}
	d := Deps{Blobs: folder(cfg.Dir), Clock: clock.Real(), Live: func(string) bool { return true }}
	s, err := Open(b.Context(), cfg, d)
	must(b, err)
	text := bytes.Repeat([]byte("a line of a hundred bytes is not more than a line of a hundred bytes may be, and not less than that\n"), 40)
	for round := range int64(33) {
		var frames []task.Frame
		for k := range 1000 {
			frames = append(frames, task.Frame{Ref: task.Ref{Run: fmt.Sprint("run", k%100), Task: fmt.Sprint("1.", k), Attempt: 1}, Stream: task.Stdout,
				Offset: round * int64(len(text)), At: time.Now(), Bytes: text})
		}
		_, err := s.Append(b.Context(), frames)
		must(b, err)
	}
	b.SetBytes(s.journal)
	must(b, s.Close())
	b.ResetTimer()
	for range b.N {
		s, err := Open(b.Context(), cfg, d)
		must(b, err)
		must(b, s.Close())
	}
}

// BenchmarkRead searches the logs of a run of 1,000 tasks: of ten MiB, and of
// one GiB, as they are packed.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int64{10 << 20, 1 << 30} {
		s := benchStore(b, Config{JournalBytes: 64 << 20})
		n := fill(b, s, size)
		find := func(name string, q Query, want int) {
			b.Run(fmt.Sprintf("%dMiB/%s", size>>20, name), func(b *testing.B) {
				for range b.N {
					got := 0
					must(b, s.Read(b.Context(), q, func(Line) error { got++; return nil }))
					if want >= 0 && got != want {
						b.Fatalf("%d lines, want %d", got, want)
					}
				}
				b.ReportMetric(float64(size)/1e6/(b.Elapsed().Seconds()/float64(b.N)), "MB/s")
			})
		}
		grep := func(expr string) Query {
			re, err := Pattern(expr)
			must(b, err)
			return Query{Run: "r", Grep: re}
		}
		find("word", grep("needle in task 1.77"), 1)
		find("pattern", grep(`(?i)NEEDLE in task 1\.77$`), 1)
		find("task", Query{Run: "r", Task: "1.77"}, -1)
		find("tail", Query{Run: "r", Tail: 100}, 100)
		find("all", Query{Run: "r"}, n)
	}
}

// fill prints lines of 1,000 tasks, and packs them.
func fill(b *testing.B, s *Store, size int64) (lines int) {
	b.Helper()
	const tasks = 1000
	offsets := make([]int64, tasks)
	at := time.Now()
	for total, round := int64(0), 0; total < size; round++ {
		var frames []task.Frame
		for k := range tasks {
			var text bytes.Buffer
			for l := range 40 {
				fmt.Fprintf(&text, "%s INFO request %x of round %d took %d us and went well\n", at.Format(time.RFC3339Nano), uint64(k*l+round)*0x9E3779B97F4A7C15, round, (k*l*round)%9973)
				lines++
			}
			if k == 77 && round == 0 {
				text.WriteString("here is the needle in task 1.77\n")
				lines++
			}
			at = at.Add(50 * time.Microsecond)
			frames = append(frames, task.Frame{Ref: task.Ref{Run: "r", Task: fmt.Sprintf("1.%d", k), Attempt: 1}, Stream: task.Stdout, Offset: offsets[k], At: at, Bytes: text.Bytes()})
			offsets[k] += int64(text.Len())
			total += int64(text.Len())
		}
		_, err := s.Append(b.Context(), frames)
		must(b, err)
		s.packDue(b.Context())
	}
	s.Ended("r")
	s.packDue(b.Context())
	runtime.GC()
	packed := int64(0)
	entries, err := os.ReadDir(s.cfg.Dir)
	must(b, err)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasPrefix(e.Name(), "blob-") {
			packed += info.Size()
		}
	}
	b.Logf("%d lines, %d MiB, packed %d MiB", lines, size>>20, packed>>20)
	return lines
}
