package artifacts_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/artifacts"
)

var (
	_ work.Blobs   = (*artifacts.Store)(nil)
	_ work.Sources = (*artifacts.Store)(nil)
)

const grace = time.Hour

// world is a store over a real one of blobs.
type world struct {
	*artifacts.Store
	t       testing.TB
	dir     string
	clock   *clock.Fake
	content *content.Store
	runs    map[string]bool
}

func newWorld(t testing.TB, cfg artifacts.Config) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), clock: clock.NewFake(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)), runs: map[string]bool{"a": true, "b": true, "c": true}}
	d, err := db.Open(t.Context(), db.Config{Path: filepath.Join(w.dir, "registry.db"), Schema: content.Schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	disk, err := blob.OpenDisk(w.dir, blob.DiskConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	w.content, err = content.New(t.Context(), content.Config{DB: d, Blobs: disk, Clock: w.clock, Grace: grace, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w.Store = w.open(cfg, nil)
	return w
}

// open opens another store over the same blobs.
func (w *world) open(cfg artifacts.Config, task func(context.Context, task.Ref) (*task.Task, error)) *artifacts.Store {
	w.t.Helper()
	s, err := artifacts.New(cfg, artifacts.Deps{Content: w.content, Clock: w.clock, Task: task,
		Exists: func(_ context.Context, run string) (bool, error) { return w.runs[run], nil }})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// files counts the blobs on the disk.
func (w *world) files() (n int) {
	w.t.Helper()
	err := filepath.WalkDir(filepath.Join(w.dir, "blobs"), func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			n++
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	return n
}

// past lets the grace period end and collects.
func (w *world) past() {
	w.t.Helper()
	for range 2 {
		w.clock.Advance(grace + time.Second)
		if _, err := w.content.Collect(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// read fetches an input whole.
func (w *world) read(run string, in task.Input) (string, error) {
	w.t.Helper()
	f, err := w.Fetch(w.t.Context(), run, in)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && f.Size >= 0 && f.Size != int64(len(b)) {
		err = fmt.Errorf("%d bytes, it said %d", len(b), f.Size)
	}
	return string(b), err
}

func (w *world) put(run, data string) task.Produced {
	w.t.Helper()
	p, err := w.Store.Store(w.t.Context(), run, strings.NewReader(data))
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func is(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
	}
}

func TestBlobs(t *testing.T) {
	w := newWorld(t, artifacts.Config{})
	p := w.put("a", "data")
	for run, want := range map[string]error{"a": nil, "b": artifacts.ErrNotFound, "": artifacts.ErrInvalid, "../upload/a": artifacts.ErrInvalid, "a b": artifacts.ErrInvalid} {
		got, err := w.read(run, task.Input{Digest: p.Digest})
		if is(t, err, want); want == nil && got != "data" {
			t.Errorf("run %q reads %q", run, got)
		}
	}
	_, err := w.read("a", task.Input{Digest: "sha256:0"})
	is(t, err, artifacts.ErrInvalid)
	f, err := w.Open(t.Context(), p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(2, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f); err != nil || string(b) != "ta" {
		t.Errorf("%q %v", b, err)
	}

	// Stored once, and kept as long as one of them has it.
	if q := w.put("b", "data"); q.Digest != p.Digest || w.files() != 1 {
		t.Errorf("%v, %d files", q, w.files())
	}
	if ok, err := w.Keep(t.Context(), "c", p.Digest); err != nil || !ok {
		t.Error(ok, err)
	}
	if ok, err := w.Keep(t.Context(), "c", "sha256:"+strings.Repeat("0", 64)); err != nil || ok {
		t.Error(ok, err)
	}
	for i, run := range []string{"a", "b", "c"} {
		w.forget(run)
		w.past()
		if n := w.files(); n != map[bool]int{true: 1, false: 0}[i < 2] {
			t.Errorf("%d files after run %s is gone", n, run)
		}
	}
}

// forget has Run release what a run held.
func (w *world) forget(run string) {
	w.t.Helper()
	w.Forget(run)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for held := true; held; {
		owners, err := w.content.Owners(ctx, "run/"+run, "", 1)
		if err != nil {
			w.t.Fatal(err)
		}
		held = len(owners) > 0
	}
	cancel()
	<-done
}

func TestTidy(t *testing.T) {
	w := newWorld(t, artifacts.Config{})
	a, gone := w.put("a", "of a"), w.put("gone", "of nobody")
	up := artifacts.NewUpload()
	p, err := w.Upload(t.Context(), up, strings.NewReader("upload"))
	if err != nil {
		t.Fatal(err)
	}
	q, err := w.Upload(t.Context(), up, strings.NewReader("another"))
	if err != nil {
		t.Fatal(err)
	}
	tidy := func() {
		t.Helper()
		if err := errors.Join(w.TidyRuns(t.Context()), w.TidyUploads(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	_, err = w.read("a", task.Input{Digest: p.Digest})
	is(t, err, artifacts.ErrNotFound)
	is(t, w.Adopt(t.Context(), "a", artifacts.NewUpload()), artifacts.ErrNotFound)
	is(t, w.Adopt(t.Context(), "a", "../run/gone"), artifacts.ErrInvalid)
	tidy() // all of it is young
	if err := w.Adopt(t.Context(), "a", up); err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(time.Hour)
	tidy()
	is(t, w.Adopt(t.Context(), "b", up), artifacts.ErrNotFound)
	for digest, want := range map[string]string{a.Digest: "of a", p.Digest: "upload", q.Digest: "another"} {
		if got, err := w.read("a", task.Input{Digest: digest}); err != nil || got != want {
			t.Errorf("%q %v, want %q", got, err, want)
		}
	}
	_, err = w.Open(t.Context(), gone.Digest)
	is(t, err, artifacts.ErrNotFound)
	w.past()
	if n := w.files(); n != 3 {
		t.Errorf("%d files, want 3", n)
	}
	w.runs["a"] = false
	tidy()
	w.past()
	if n := w.files(); n != 0 {
		t.Errorf("%d files when no run is left", n)
	}
}

func TestBadConfig(t *testing.T) {
	c := newWorld(t, artifacts.Config{})
	for _, cfg := range []artifacts.Config{
		{FileRoots: []string{"relative"}},
		{FileRoots: []string{"/"}},
		{Secrets: []artifacts.Secret{{Name: "a"}}},
		{Secrets: []artifacts.Secret{{Name: "a", File: "f", Env: "e"}}},
		{Secrets: []artifacts.Secret{{Name: "a", File: "f"}, {Name: "a", File: "f"}}},
	} {
		if _, err := artifacts.New(cfg, artifacts.Deps{Content: c.content, Clock: c.clock}); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// broken gives some bytes and fails.
type broken struct{ bytes.Reader }

var errBroken = errors.New("broken")

func (b *broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = errBroken
	}
	return n, err
}

func TestBrokenOutput(t *testing.T) {
	w := newWorld(t, artifacts.Config{})
	_, err := w.Store.Store(t.Context(), "a", &broken{*bytes.NewReader([]byte("half of it"))})
	is(t, err, errBroken)
	if n := w.files(); n != 0 {
		t.Errorf("%d files are left of it", n)
	}
}
