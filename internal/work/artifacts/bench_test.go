package artifacts_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/work/artifacts"
)

// BenchmarkStore stores small outputs of many tasks at a time, each different,
// durably.
func BenchmarkStore(b *testing.B) {
	dir := b.TempDir()
	disk, err := blob.OpenDisk(dir, blob.DiskConfig{})
	if err != nil {
		b.Fatal(err)
	}
	defer disk.Close()
	c := db.Config{Path: filepath.Join(dir, "registry.db"), Schema: content.Schema, Sync: db.Full}
	if disk.Flushes() {
		c.Flush = disk.Flush
	}
	d, err := db.Open(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	store, err := content.New(b.Context(), content.Config{DB: d, Blobs: disk, Flushed: c.Flush != nil, Clock: clock.Real(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	s, err := artifacts.New(artifacts.Config{}, artifacts.Deps{Content: store, Clock: clock.Real()})
	if err != nil {
		b.Fatal(err)
	}
	var n atomic.Int64
	text := strings.Repeat("x", 1000)
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, _, err := s.Put(b.Context(), "run", strings.NewReader(fmt.Sprint(n.Add(1), text))); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "outputs/s")
}
