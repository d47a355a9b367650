package blob_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/test/parts"
)

// A watch counts what a disk syncs, and lets it fail.
type watch struct {
	mu   sync.Mutex
	seen []string
	fail map[string]error
}

func watched(t *testing.T, dir string, mode blob.SyncMode) (*blob.Disk, *watch) {
	t.Helper()
	d := openDisk(t, dir, blob.DiskConfig{Sync: mode})
	w := &watch{fail: map[string]error{}}
	blob.Watch(d, func(what string) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.seen = append(w.seen, what)
		return w.fail[what]
	})
	return d, w
}

func (w *watch) want(t *testing.T, what string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := strings.Join(w.seen, " "); got != what {
		t.Errorf("synced %q, want %q", got, what)
	}
	w.seen = nil
}

func logFile(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.WriteString("x")
	must(t, err)
	return f
}

func commit(t *testing.T, d *blob.Disk, n int) (g digest.Digest) {
	t.Helper()
	for i := range n {
		body := fmt.Sprint("body ", i)
		g = digest.FromString(body)
		must(t, stage(t, d, "u", body).Commit(g))
	}
	return g
}

// TestFlush: what is synced for which work.
func TestFlush(t *testing.T) {
	if !openDisk(t, t.TempDir(), blob.DiskConfig{}).Flushes() {
		parts.Missing(t, "no sync of a file system here")
	}
	dir := t.TempDir()
	d, w := watched(t, dir, blob.SyncAuto)
	log := logFile(t, dir)
	must(t, d.Flush(log))
	w.want(t, "all") // what earlier processes wrote
	must(t, d.Flush(log))
	w.want(t, "log")
	commit(t, d, 10)
	must(t, d.Flush(log))
	w.want(t, "all")
	commit(t, d, 1)
	must(t, d.Flush(log))
	w.want(t, "log") // and the file
	must(t, d.LosePower(blob.Gone))
	if names := files(t, dir); len(names) != 11 {
		t.Errorf("%d files are left, want 10 blobs and the log", len(names))
	}
	// On another file system the log needs a sync of its own.
	other := logFile(t, parts.SmallDisk(t, "4m"))
	commit(t, d, 10)
	must(t, d.Flush(other))
	w.want(t, "all log")
	// Who syncs files only cannot stand for the sync of a log.
	if d, _ := watched(t, t.TempDir(), blob.SyncFiles); d.Flushes() {
		t.Error("a disk that syncs each file says that one sync covers all")
	}
}

// TestFlushFails: a flush that could not cover everything fails, and a sync of
// the whole that failed is made up for where it is known what it is about.
func TestFlushFails(t *testing.T) {
	boom := errors.New("boom")
	if !openDisk(t, t.TempDir(), blob.DiskConfig{}).Flushes() {
		parts.Missing(t, "no sync of a file system here")
	}
	dir := t.TempDir()
	d, w := watched(t, dir, blob.SyncAuto)
	log := logFile(t, dir)
	w.fail["all"] = boom
	if err := d.Flush(log); !errors.Is(err, boom) {
		t.Errorf("what an earlier process wrote may be lost, and the flush says %v", err)
	}
	w.fail["all"] = nil
	must(t, d.Flush(log))
	w.want(t, "all log all")
	w.fail["all"] = boom
	commit(t, d, 10)
	must(t, d.Flush(log)) // each file, and the log
	w.want(t, "all log")
	w.fail["log"] = boom
	if err := d.Flush(log); !errors.Is(err, boom) || !strings.Contains(err.Error(), log.Name()) {
		t.Errorf("the log was not synced, and the flush says %v", err)
	}
}

// TestFlushCoversOthersSyncs: a blob whose sync failed for somebody else fails
// a later flush, which would otherwise stand for it.
func TestFlushCoversOthersSyncs(t *testing.T) {
	boom := errors.New("boom")
	fail := false
	dir := t.TempDir()
	d := openDisk(t, dir, blob.DiskConfig{Fault: func(p blob.Point) error {
		if p == blob.PointSync && fail {
			return boom
		}
		return nil
	}})
	log := logFile(t, dir)
	g := commit(t, d, 1)
	fail = true
	if err := d.Sync(t.Context()); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	fail = false
	if err := d.Flush(log); !errors.Is(err, boom) {
		t.Errorf("the flush after it says %v", err)
	}
	must(t, d.LosePower(blob.Zeros))
	if b, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", g.Encoded()[:2], g.Encoded())); err != nil || strings.Trim(string(b), "\x00") != "" || len(b) != len("body 0") {
		t.Errorf("after the loss of power the blob holds %q, %v", b, err)
	}
}
