package content

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
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

// BenchmarkPush pushes 64 KiB blobs with POST and PUT from 16 clients.
func BenchmarkPush(b *testing.B) {
	s := benchStore(b, b.TempDir())
	b.SetBytes(64 << 10)
	b.SetParallelism(8) // times the processors
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		data := make([]byte, 64<<10)
		for pb.Next() {
			binary.LittleEndian.PutUint64(data, uint64(n.Add(1)))
			h := sha256.Sum256(data)
			d := image.Digest("sha256:" + hex.EncodeToString(h[:]))
			id, err := s.StartUpload(context.Background(), "app")
			if err == nil {
				_, err = s.FinishUpload(context.Background(), "app", id, -1, bytes.NewReader(data), d)
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "push/s")
}

// BenchmarkManifest gets one of a thousand manifests by tag.
func BenchmarkManifest(b *testing.B) {
	s := benchStore(b, b.TempDir())
	fill(b, s, 1000, 10)
	var repos, tags []string
	for i := range 1000 {
		if i%10 < 8 {
			repos, tags = append(repos, fmt.Sprintf("team-%02d/app-%06d", i*7919%10%97, i*7919%10)), append(tags, fmt.Sprintf("v1.%d", i))
		}
	}
	// What fill wrote has no body that fits its digest: only the cache counts.
	for i, repo := range repos {
		gen := s.changes.of(repo).Load()
		s.manifests.put(repo, tags[i], gen, &Manifest{Repository: repo, Body: []byte("{}")}, 2)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := s.Manifest(context.Background(), repos[i%len(repos)], tags[i%len(tags)]); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkCollect measures pushes while a hundred thousand blobs are removed.
func BenchmarkCollect(b *testing.B) {
	blobs := 100_000
	if n, err := strconv.Atoi(os.Getenv("CAIRN_BENCH_BLOBS")); err == nil {
		blobs = n
	}
	for range b.N {
		fc := clock.NewFake(time.Now())
		s := benchStore(b, b.TempDir())
		s.clock = fc
		s.start = fc.Mono()
		push := func(stop <-chan struct{}) []time.Duration {
			var wg sync.WaitGroup
			var mu sync.Mutex
			var all []time.Duration
			for range 16 {
				wg.Go(func() {
					data := make([]byte, 64<<10)
					for {
						select {
						case <-stop:
							return
						default:
						}
						binary.LittleEndian.PutUint64(data, uint64(pushes.Add(1)))
						h := sha256.Sum256(data)
						began := time.Now()
						_, err := s.PutBlob(context.Background(), "app", bytes.NewReader(data), image.Digest("sha256:"+hex.EncodeToString(h[:])))
						took := time.Since(began)
						if err != nil {
							b.Error(err)
							return
						}
						mu.Lock()
						all = append(all, took)
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			slices.Sort(all)
			return all
		}
		fillBlobs(b, s, blobs)
		alone := make(chan struct{})
		time.AfterFunc(5*time.Second, func() { close(alone) })
		before := push(alone)
		fc.Advance(2 * DefaultGrace)
		stop := make(chan struct{})
		began := time.Now()
		go func() {
			defer close(stop)
			st, err := s.Collect(context.Background())
			if err != nil || st.Blobs < blobs {
				b.Errorf("collected %+v, %v", st, err)
			}
		}()
		during := push(stop)
		p99 := func(ds []time.Duration) float64 { return float64(ds[len(ds)*99/100]) / 1e6 }
		b.ReportMetric(p99(before), "p99-ms-alone")
		b.ReportMetric(p99(during), "p99-ms-collecting")
		b.ReportMetric(float64(len(before))/5, "push/s-alone")
		b.ReportMetric(float64(len(during))/time.Since(began).Seconds(), "push/s-collecting")
		b.ReportMetric(time.Since(began).Seconds(), "s-collecting")
	}
}

var pushes atomic.Int64

// fillBlobs writes small blobs, files and rows, that are due for collection.
func fillBlobs(tb testing.TB, s *Store, n int) {
	tb.Helper()
	ctx := context.Background()
	var ks [][]byte
	for i := range n {
		data := fmt.Appendf(nil, "blob %d", i)
		h := sha256.Sum256(data)
		st, err := s.blobs.Stage(ctx, "fill")
		if err == nil {
			_, err = st.Write(data)
		}
		if err == nil {
			err = st.Commit(image.Digest("sha256:" + hex.EncodeToString(h[:])))
		}
		if err != nil {
			tb.Fatal(err)
		}
		if i%100 == 99 {
			if err := s.blobs.Sync(ctx); err != nil {
				tb.Fatal(err)
			}
		}
		ks = append(ks, append([]byte{algSHA256}, h[:]...))
	}
	for part := range slices.Chunk(ks, 1000) {
		err := s.db.Write(ctx, func(tx *db.Tx) error {
			for _, k := range part {
				id, err := s.insertBlob(tx, Blob{Digest: digestOf(k), Size: 10})
				if err != nil {
					return err
				}
				if err := s.link(tx, "old", id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
}
