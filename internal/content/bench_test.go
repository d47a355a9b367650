package content

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
)

// benchStore opens a store on the real clock below dir.
func benchStore(tb testing.TB, dir string) *Store {
	tb.Helper()
	ctx := context.Background()
	d, err := db.Open(ctx, db.Config{Path: filepath.Join(dir, "registry.db"), Schema: Schema})
	if err != nil {
		tb.Fatal(err)
	}
	disk, err := blob.OpenDisk(dir, blob.DiskConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := New(ctx, Config{DB: d, Blobs: disk, Clock: clock.Real()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Error(err)
		}
		if err := disk.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// fill writes images without going through pushes.
func fill(tb testing.TB, s *Store, images, repos int) {
	tb.Helper()
	now := time.Now().UnixNano()
	ids := make([]int64, repos)
	const batch = 1000
	for from := 0; from < repos; from += batch {
		err := s.db.Write(context.Background(), func(tx *db.Tx) (err error) {
			for i := from; i < min(from+batch, repos) && err == nil; i++ {
				ids[i], err = tx.Insert("INSERT INTO repositories (name) VALUES (?)", fmt.Sprintf("team-%02d/app-%06d", i%97, i))
			}
			return err
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	for from := 0; from < images; from += batch {
		err := s.db.Write(context.Background(), func(tx *db.Tx) error {
			for i := from; i < min(from+batch, images); i++ {
				h := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(i)))
				k := append([]byte{algSHA256}, h[:]...)
				rid := ids[i*7919%repos]
				id, err := tx.Insert("INSERT INTO manifest_bodies (body) VALUES (?)", []byte("{}"))
				if err != nil {
					return err
				}
				_, err = tx.Exec(`INSERT INTO manifests (id, repo_id, digest, media_type, size, config, pushed, version) VALUES (?, ?, ?, 1, ?, ?, ?, ?)`,
					id, rid, k, 1<<20, k, now, int64(i)<<20)
				if err != nil {
					return err
				}
				if i%10 < 8 {
					if _, err := tx.Exec("INSERT INTO tags (repo_id, name, manifest_id, pushed) VALUES (?, ?, ?, ?)", rid, fmt.Sprintf("v1.%d", i), id, now); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkScan reads a million images in a hundred thousand repositories.
func BenchmarkScan(b *testing.B) {
	const images, repos = 1_000_000, 100_000
	dir := os.Getenv("CAIRN_BENCH_DIR") // keeps the filled database between runs
	if dir == "" {
		dir = b.TempDir()
	}
	_, err := os.Stat(filepath.Join(dir, "registry.db"))
	s := benchStore(b, dir)
	if err != nil {
		fill(b, s, images, repos)
	}
	b.ReportAllocs()
	b.ResetTimer()
	var peak uint64
	for range b.N {
		n := 0
		err := s.Scan(context.Background(), "", func(repo string, ims []Image) error {
			n += len(ims)
			if n%100_000 < len(ims) {
				var ms runtime.MemStats
				runtime.ReadMemStats(&ms)
				peak = max(peak, ms.HeapInuse)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		if n != images {
			b.Fatalf("%d images, want %d", n, images)
		}
	}
	b.ReportMetric(float64(peak)/(1<<20), "MiB-heap")
}
