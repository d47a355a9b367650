package retention_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/usage"
)

func digestOf(b []byte) image.Digest {
	h := sha256.Sum256(b)
	return image.Digest("sha256:" + hex.EncodeToString(h[:]))
}

const (
	benchImages = 1_000_000
	benchRepos  = 100_000
)

func benchRepo(i int) string { return fmt.Sprintf("team-%02d/app-%06d", i%97, i) }

var benchConfig = []byte(`{"architecture":"amd64","os":"linux"}`)

// benchBody is image i: one of ten is an index of the two before it.
func benchBody(i int) []byte {
	if i%10 == 9 {
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":1},{"mediaType":%q,"digest":%q,"size":1}]}`,
			image.MediaTypeIndex, image.MediaTypeManifest, digestOf(benchBody(i-1)), image.MediaTypeManifest, digestOf(benchBody(i-2)))
	}
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[],"annotations":{"i":"%d"}}`,
		image.MediaTypeManifest, digestOf(benchConfig), len(benchConfig), i)
}

// BenchmarkPlan plans over a million images in a hundred thousand
// repositories, on the real store and with every image in the ledger:
//
//	go test -run - -bench Plan -benchtime 3x ./internal/retention
//
// CAIRN_BENCH_DIR keeps the filled store between runs; filling takes minutes.
func BenchmarkPlan(b *testing.B) {
	ctx := context.Background()
	dir := os.Getenv("CAIRN_BENCH_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	done := filepath.Join(dir, "filled")
	_, err := os.Stat(done)
	fresh := err != nil
	log := slog.New(slog.DiscardHandler)
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	reg, err := db.Open(ctx, db.Config{Path: filepath.Join(dir, "registry.db"), Sync: db.Normal, Schema: content.Schema})
	must(err)
	defer reg.Close()
	disk, err := blob.OpenDisk(dir, blob.DiskConfig{})
	must(err)
	defer disk.Close()
	store, err := content.New(ctx, content.Config{DB: reg, Blobs: disk, Clock: clock.Real(), Log: log})
	must(err)
	if fresh {
		started := time.Now()
		each := func(n int, f func(i int) error) {
			var wg sync.WaitGroup
			var mu sync.Mutex
			var errs error
			const workers = 64
			for w := range workers {
				wg.Go(func() {
					for i := w; i < n; i += workers {
						if err := f(i); err != nil {
							mu.Lock()
							errs = errors.Join(errs, err)
							mu.Unlock()
							return
						}
					}
				})
			}
			wg.Wait()
			must(errs)
		}
		each(benchRepos, func(i int) error {
			_, err := store.PutBlob(ctx, benchRepo(i), bytes.NewReader(benchConfig), digestOf(benchConfig))
			return err
		})
		each(benchImages, func(i int) error {
			body := benchBody(i)
			m, err := image.ParseManifest("", body)
			if err != nil {
				return err
			}
			p := content.Push{Repository: benchRepo(i / (benchImages / benchRepos)), Digest: digestOf(body), MediaType: m.MediaType, Body: body, Manifest: m}
			if i%10 < 7 || i%10 == 9 {
				p.Tags = []string{fmt.Sprintf("v1.%d", i%10)}
			}
			return store.PutManifest(ctx, p)
		})
		must(os.WriteFile(done, nil, 0o600))
		b.Logf("filled in %s", time.Since(started).Round(time.Second))
	}
	use, err := db.Open(ctx, db.Config{Path: filepath.Join(b.TempDir(), "usage.db"), Sync: db.Normal, Schema: usage.Schema})
	must(err)
	defer use.Close()
	ledger, err := usage.Open(ctx, usage.Config{DB: use, Clock: clock.Real(), Log: log})
	must(err)
	for i := range benchImages {
		ledger.Pull(benchRepo(i/(benchImages/benchRepos)), digestOf(benchBody(i)), "ci")
	}
	e := retention.New(retention.Config{Explicit: true, Policies: []retention.Policy{
		{Repositories: []string{"team-00/**"}, After: 10 * 24 * time.Hour, KeepLast: 3, Protect: []string{"release-*"}},
		{Repositories: []string{"**"}, After: 30 * 24 * time.Hour, UntaggedAfter: 7 * 24 * time.Hour},
	}}, retention.Deps{Content: store, Ledger: ledger, Log: log})
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // forget the peak of filling
	b.ReportAllocs()
	for b.Loop() {
		// Half a year ahead, so that nearly everything goes: the worst case.
		sum, err := e.Plan(ctx, time.Now().Add(180*24*time.Hour), nil)
		must(err)
		if sum.Images != benchImages || sum.Repositories != benchRepos || sum.Expire < benchImages*9/10 {
			b.Fatalf("planned over %+v", sum)
		}
	}
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	b.ReportMetric(float64(ms.HeapInuse)/(1<<20), "heap-MiB")
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.Lines(string(status)) {
			var kb float64
			if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kb); err == nil {
				b.ReportMetric(kb/1024, "peak-MiB")
			}
		}
	}
}
