package blob_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/db"
)

// BenchmarkPush is the storage side of a durable 64 KiB push at 16 writers:
// stage, hash, commit, shared sync, and with "db" one row in a shared FULL
// commit. Without, it is the disk's raw rate of group sync.
func BenchmarkPush(b *testing.B) {
	modes := []struct {
		name string
		mode blob.SyncMode
	}{{"auto", blob.SyncAuto}, {"files", blob.SyncFiles}, {"filesystem", blob.SyncFileSystem}}
	for _, m := range modes {
		for _, writers := range []int{1, 2, 4, 16} {
			b.Run(fmt.Sprintf("sync/%s/%d", m.name, writers), func(b *testing.B) { benchPush(b, m.mode, writers, false) })
			b.Run(fmt.Sprintf("db/%s/%d", m.name, writers), func(b *testing.B) { benchPush(b, m.mode, writers, true) })
		}
	}
}

var benchSeq atomic.Uint64

func benchPush(b *testing.B, mode blob.SyncMode, writers int, withDB bool) {
	dir := b.TempDir()
	d, err := blob.OpenDisk(dir, blob.DiskConfig{Sync: mode})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	meta, err := db.Open(b.Context(), db.Config{Path: filepath.Join(dir, "x.db"), Schema: []string{"CREATE TABLE blob (digest TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID"}})
	if err != nil {
		b.Fatal(err)
	}
	defer meta.Close()
	b.SetBytes(64 << 10)
	b.SetParallelism((writers + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
	if writers == 1 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		body := make([]byte, 64<<10)
		for p.Next() {
			n := benchSeq.Add(1)
			binary.LittleEndian.PutUint64(body, n)
			if err := push(b, d, meta, withDB, fmt.Sprintf("u-%d", n), body); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pushes/s")
}

func push(b *testing.B, d *blob.Disk, meta *db.DB, withDB bool, id string, body []byte) error {
	st, err := d.Stage(b.Context(), id)
	if err != nil {
		return err
	}
	defer st.Close()
	h := sha256.New()
	for p := body; len(p) > 0; p = p[min(len(p), 32<<10):] { // as io.Copy brings it
		h.Write(p[:min(len(p), 32<<10)])
		if _, err := st.Write(p[:min(len(p), 32<<10)]); err != nil {
			return err
		}
	}
	g := digest.NewDigest(digest.SHA256, h)
	if err := st.Commit(g); err != nil {
		return err
	}
	if err := d.Sync(b.Context(), g); err != nil {
		return err
	}
	if !withDB {
		return nil
	}
	return meta.Write(b.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec("INSERT INTO blob VALUES (?, ?)", string(g), len(body))
		return err
	})
}
