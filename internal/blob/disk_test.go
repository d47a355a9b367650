package blob_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/blob/blobtest"
	"cairn.dev/cairn/test/parts"
)

func openDisk(t *testing.T, dir string, cfg blob.DiskConfig) *blob.Disk {
	t.Helper()
	d, err := blob.OpenDisk(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestDisk(t *testing.T) {
	for name, mode := range map[string]blob.SyncMode{"auto": blob.SyncAuto, "files": blob.SyncFiles, "filesystem": blob.SyncFileSystem} {
		t.Run(name, func(t *testing.T) {
			blobtest.Run(t, func(t *testing.T) blob.Store { return openDisk(t, t.TempDir(), blob.DiskConfig{Sync: mode}) })
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func stage(t *testing.T, d *blob.Disk, id, body string) blob.Staged {
	t.Helper()
	st, err := d.Stage(t.Context(), id)
	must(t, err)
	_, err = io.WriteString(st, body)
	must(t, err)
	return st
}

// files are all regular files below dir, relative to it.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			p, err = filepath.Rel(dir, p)
			names = append(names, p)
		}
		return err
	}))
	return names
}

func TestDiskLayout(t *testing.T) {
	dir := t.TempDir()
	d := openDisk(t, dir, blob.DiskConfig{})
	must(t, stage(t, d, "up-1", "half").Close())
	g, g5 := digest.FromString("hello"), digest.SHA512.FromString("hello")
	must(t, stage(t, d, "up-2", "hello").Commit(g))
	must(t, stage(t, d, "up-3", "hello").Commit(g5))
	want := []string{
		"blobs/sha256/" + g.Encoded()[:2] + "/" + g.Encoded(),
		"blobs/sha512/" + g5.Encoded()[:2] + "/" + g5.Encoded(),
		"uploads/up-1",
	}
	if got := files(t, dir); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("files %v, want %v", got, want)
	}
	for _, f := range files(t, dir) {
		if st, err := os.Stat(filepath.Join(dir, f)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", f, st.Mode(), err)
		}
	}
}

func TestDiskPassesOverForeignFiles(t *testing.T) {
	dir := t.TempDir()
	d := openDisk(t, dir, blob.DiskConfig{})
	hex := strings.Repeat("a", 64)
	for _, p := range []string{"blobs/sha256/aa/README", "blobs/sha256/bb/" + hex, "blobs/md5/aa/" + hex, "blobs/stray", "uploads/.hidden", "uploads/a b", "lost+found/x"} {
		p = filepath.Join(dir, p)
		must(t, os.MkdirAll(filepath.Dir(p), 0o700))
		must(t, os.WriteFile(p, nil, 0o600))
	}
	must(t, os.Mkdir(filepath.Join(dir, "blobs/sha256/aa", hex), 0o700))
	must(t, d.Walk(t.Context(), func(e blob.Entry) error { return fmt.Errorf("saw %+v", e) }))
}

func TestDiskReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	d, err := blob.OpenDisk(dir, blob.DiskConfig{})
	must(t, err)
	g := digest.FromString("hello")
	must(t, stage(t, d, "a", "hello").Commit(g))
	must(t, stage(t, d, "b", "half").Close())
	must(t, stage(t, d, "nothing", "").Close())
	must(t, d.Close())
	d = openDisk(t, dir, blob.DiskConfig{})
	r, err := d.Open(t.Context(), g)
	must(t, err)
	r.Close()
	st, err := d.Stage(t.Context(), "b")
	must(t, err)
	if st.Size() != 4 {
		t.Errorf("the upload has %d bytes, want 4", st.Size())
	}
	must(t, st.Discard())
	if names := files(t, dir); len(names) != 1 {
		t.Errorf("files %v", names)
	}
}

// TestSyncIsShared: those who wait while a sync runs share the next one.
func TestSyncIsShared(t *testing.T) {
	var rounds atomic.Int64
	in, out := make(chan struct{}), make(chan struct{})
	d := openDisk(t, t.TempDir(), blob.DiskConfig{Fault: func(p blob.Point) error {
		if p == blob.PointSync && rounds.Add(1) == 1 {
			close(in)
			<-out
		}
		return nil
	}})
	var wg sync.WaitGroup
	push := func(i int) {
		body := fmt.Sprint("body ", i)
		g := digest.FromString(body)
		must(t, stage(t, d, fmt.Sprint("u", i), body).Commit(g))
		wg.Go(func() {
			if err := d.Sync(t.Context(), g); err != nil {
				t.Error(err)
			}
		})
	}
	push(0)
	<-in
	for i := range 50 {
		push(i + 1)
	}
	for blob.Waiting(d) < 50 {
		runtime.Gosched()
	}
	close(out)
	wg.Wait()
	if n := rounds.Load(); n != 2 {
		t.Errorf("%d rounds for one commit and then 50 together, want 2", n)
	}
}

// TestSyncFailure: the failure of a sync is told to whom it concerns, even if
// they ask later, and to nobody else.
func TestSyncFailure(t *testing.T) {
	boom := errors.New("boom")
	var fail atomic.Bool
	d := openDisk(t, t.TempDir(), blob.DiskConfig{Fault: func(p blob.Point) error {
		if p == blob.PointSync && fail.CompareAndSwap(true, false) {
			return boom
		}
		return nil
	}})
	commit := func(s string) digest.Digest {
		g := digest.FromString(s)
		must(t, stage(t, d, "u-"+s, s).Commit(g))
		return g
	}
	a, b := commit("a"), commit("b")
	fail.Store(true)
	if err := d.Sync(t.Context(), a); !errors.Is(err, boom) {
		t.Fatalf("the first to ask got %v", err)
	}
	c := commit("c")
	must(t, d.Sync(t.Context(), c))
	if err := d.Sync(t.Context(), b); !errors.Is(err, boom) {
		t.Errorf("the second, whose commit was part of it, got %v", err)
	}
	must(t, d.Sync(t.Context()))
	must(t, d.Delete(t.Context(), a))
	must(t, d.Sync(t.Context(), a))
	commit("b")
	must(t, d.Sync(t.Context(), b))
	fail.Store(true)
	commit("d")
	if err := d.Sync(t.Context()); !errors.Is(err, boom) {
		t.Errorf("who named nothing got %v", err)
	}
}

// TestManyCommitsBeforeASync passes the number of files that are held open.
func TestManyCommitsBeforeASync(t *testing.T) {
	for _, mode := range []blob.SyncMode{blob.SyncAuto, blob.SyncFiles} {
		d := openDisk(t, t.TempDir(), blob.DiskConfig{Sync: mode})
		var last digest.Digest
		for i := range 400 {
			last = digest.FromString(fmt.Sprint(i))
			must(t, stage(t, d, "a", fmt.Sprint(i)).Commit(last))
			if i%7 == 0 {
				must(t, d.Delete(t.Context(), last))
			}
		}
		if n := openFiles(t); n > 350 {
			t.Errorf("%d files are open", n)
		}
		must(t, d.Sync(t.Context(), last))
	}
}

func openFiles(t *testing.T) int {
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		parts.Missing(t, "no /proc here")
	}
	return len(es)
}

// TestNoFileIsLeftOpen: what is opened is closed, whatever becomes of it.
func TestNoFileIsLeftOpen(t *testing.T) {
	before := openFiles(t)
	boom := errors.New("boom")
	var at atomic.Value
	at.Store(blob.Point(""))
	d, err := blob.OpenDisk(t.TempDir(), blob.DiskConfig{Fault: func(p blob.Point) error {
		if p == at.Load() {
			return boom
		}
		return nil
	}})
	must(t, err)
	for i, p := range []blob.Point{"", blob.PointStage, blob.PointWrite, blob.PointCommit, blob.PointCommitted, blob.PointClose, blob.PointDiscard, blob.PointSync} {
		at.Store(p)
		st, err := d.Stage(t.Context(), fmt.Sprint("u", i))
		if err != nil {
			continue
		}
		_, _ = io.WriteString(st, "x")
		if r, err := st.Reader(); err == nil {
			r.Close()
		}
		if st.Commit(digest.FromString("x")) != nil {
			_ = st.Discard()
		}
		_ = st.Close()
		_ = d.Sync(t.Context())
		if r, err := d.Open(t.Context(), digest.FromString("x")); err == nil {
			r.Close()
		}
	}
	at.Store(blob.Point(""))
	must(t, d.Sync(t.Context()))
	must(t, d.Close())
	if after := openFiles(t); after > before {
		t.Errorf("%d files are open, before it were %d", after, before)
	}
}

// TestSendfile: what Open returns is handed to the kernel by http.ServeContent.
// What is read is counted; only copying through user space reads.
func TestSendfile(t *testing.T) {
	if runtime.GOOS != "linux" {
		parts.Missing(t, "looks at how Linux does it")
	}
	d := openDisk(t, t.TempDir(), blob.DiskConfig{})
	body := strings.Repeat("0123456789abcdef", 1<<16)
	g := digest.FromString(body)
	must(t, stage(t, d, "a", body).Commit(g))
	r, err := d.Open(t.Context(), g)
	must(t, err)
	defer r.Close()
	if _, ok := r.(syscall.Conn); !ok {
		t.Fatal("the reader has no descriptor to hand over")
	}
	var reads atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, req, "", time.Time{}, &countReads{r, r.(syscall.Conn), &reads})
	})}
	go srv.Serve(l)
	defer srv.Close()
	res, err := http.Get("http://" + l.Addr().String())
	must(t, err)
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	must(t, err)
	if string(got) != body {
		t.Fatalf("got %d bytes, want %d", len(got), len(body))
	}
	if n := reads.Load(); n > 1024 { // the first bytes go with the header
		t.Errorf("%d of %d bytes were copied through this process", n, len(body))
	}
}

// countReads is a reader with what the one it wraps gives package net.
type countReads struct {
	blob.Reader
	syscall.Conn
	n *atomic.Int64
}

func (c *countReads) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func TestDiskFull(t *testing.T) {
	dir := parts.SmallDisk(t, "4m")
	d, err := blob.OpenDisk(dir, blob.DiskConfig{})
	must(t, err)
	defer d.Close()
	kept := strings.Repeat("k", 1<<20)
	g := digest.FromString(kept)
	must(t, stage(t, d, "kept", kept).Commit(g))
	must(t, d.Sync(t.Context(), g))
	chunked := stage(t, d, "chunked", "first chunk")
	must(t, chunked.Close())

	st := stage(t, d, "big", "")
	chunk := bytes.Repeat([]byte("x"), 100<<10)
	for {
		n, err := st.Write(chunk)
		if err == nil {
			continue
		}
		if !errors.Is(err, blob.ErrNoSpace) || n != 0 {
			t.Fatalf("wrote %d, %v; want 0, ErrNoSpace", n, err)
		}
		break
	}
	if st.Size()%int64(len(chunk)) != 0 || st.Size() < 1<<20 {
		t.Errorf("the upload has %d bytes: a part of a write was kept", st.Size())
	}
	// Others fail too, and lose nothing.
	other, err := d.Stage(t.Context(), "chunked")
	must(t, err)
	if _, err := other.Write(chunk); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("another upload: %v", err)
	}
	if other.Size() != 11 {
		t.Errorf("another upload has %d bytes, want the 11 it had", other.Size())
	}
	r, err := d.Open(t.Context(), g) // reads go on
	must(t, err)
	if b, err := io.ReadAll(r); string(b) != kept || err != nil {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
	r.Close()
	must(t, st.Discard())
	if _, err := other.Write(chunk); err != nil { // the space is back
		t.Errorf("after discarding: %v", err)
	}
	must(t, other.Discard())
}

func TestDiskReadOnly(t *testing.T) {
	dir := parts.SmallDisk(t, "4m")
	d, err := blob.OpenDisk(dir, blob.DiskConfig{})
	must(t, err)
	g := digest.FromString("hello")
	must(t, stage(t, d, "a", "hello").Commit(g))
	must(t, d.Sync(t.Context(), g))
	if out, err := exec.Command("mount", "-o", "remount,ro", dir).CombinedOutput(); err != nil {
		t.Fatalf("remount: %s", out)
	}
	r, err := d.Open(t.Context(), g)
	must(t, err)
	r.Close()
	if _, err := d.Stage(t.Context(), "b"); !errors.Is(err, blob.ErrReadOnly) {
		t.Errorf("stage: %v", err)
	}
	if err := d.Delete(t.Context(), g); !errors.Is(err, blob.ErrReadOnly) {
		t.Errorf("delete: %v", err)
	}
	must(t, d.Close())
	if _, err := blob.OpenDisk(dir, blob.DiskConfig{}); !errors.Is(err, blob.ErrReadOnly) || !strings.Contains(err.Error(), dir) {
		t.Errorf("open: %v", err)
	}
}
