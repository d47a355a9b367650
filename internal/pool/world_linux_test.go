package pool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
	"cairn.dev/cairn/internal/worker/keep"
	"cairn.dev/cairn/test/images"
	"cairn.dev/cairn/test/parts"
)

func TestMain(m *testing.M) {
	keep.Main()
	os.Exit(m.Run())
}

// shelf is a registry in memory.
type shelf struct {
	mu     sync.Mutex
	byName map[string]image.Digest
	blobs  map[image.Digest][]byte
	kinds  map[image.Digest]string
	opened map[image.Digest]int
	broken error
}

func newShelf() *shelf {
	return &shelf{byName: map[string]image.Digest{}, blobs: map[image.Digest][]byte{}, kinds: map[image.Digest]string{}, opened: map[image.Digest]int{}}
}

func (s *shelf) add(t testing.TB, name string, made images.Image) {
	t.Helper()
	img := made.Image
	s.mu.Lock()
	defer s.mu.Unlock()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	config, err := img.RawConfigFile()
	must(err)
	s.blobs[sum(config)] = config
	layers, err := img.Layers()
	must(err)
	for _, l := range layers {
		r, err := l.Compressed()
		must(err)
		b, err := io.ReadAll(r)
		must(err)
		_ = r.Close()
		s.blobs[sum(b)] = b
	}
	body, err := img.RawManifest()
	must(err)
	kind, err := img.MediaType()
	must(err)
	s.blobs[sum(body)], s.kinds[sum(body)], s.byName[name] = body, string(kind), sum(body)
}

func sum(b []byte) image.Digest {
	h := sha256.Sum256(b)
	return image.Digest("sha256:" + hex.EncodeToString(h[:]))
}

func (s *shelf) Find(ctx context.Context, reference string) (Found, error) {
	s.mu.Lock()
	d, ok := s.byName[reference]
	broken := s.broken
	s.mu.Unlock()
	if broken != nil {
		return Found{}, broken
	}
	if !ok {
		return Found{}, fmt.Errorf("%w: nobody pushed it", ErrNoImage)
	}
	m, err := s.Manifest(ctx, d)
	return Found{Name: reference, Digest: d, Manifest: m, From: s}, err
}

func (s *shelf) Manifest(_ context.Context, d image.Digest) (*image.Manifest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return image.ParseManifest(s.kinds[d], s.blobs[d])
}

func (s *shelf) Blob(_ context.Context, d image.Descriptor) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[d.Digest]
	if !ok {
		return nil, fmt.Errorf("%w: no blob %s", ErrNoImage, d.Digest)
	}
	s.opened[d.Digest]++
	return io.NopCloser(bytes.NewReader(b)), nil
}

// bytesOf is an exchange in memory.
type bytesOf struct {
	mu    sync.Mutex
	blobs map[string][]byte
}

func (b *bytesOf) Fetch(_ context.Context, _ task.Ref, in task.Input) (io.ReadCloser, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	blob, ok := b.blobs[in.Digest]
	if !ok {
		return nil, false, &worker.Refusal{Method: "GET", Path: task.PathBlob + in.Digest, Status: 404}
	}
	return io.NopCloser(bytes.NewReader(blob)), in.Folder, nil
}

func (b *bytesOf) Store(_ context.Context, _ task.Ref, _ task.Output, _ bool, from io.Reader) (task.Produced, error) {
	all, err := io.ReadAll(from)
	if err != nil {
		return task.Produced{}, err
	}
	d := string(sum(all))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blobs[d] = all
	return task.Produced{Digest: d, Size: int64(len(all))}, nil
}

// world is a pool and what is around it.
type world struct {
	*Pool  // nil for an engine's
	runner worker.Runner
	t      testing.TB
	dir    string
	shelf  *shelf
	bytes  *bytesOf
	clock  clock.Clock
	log    *bytes.Buffer
}

var _ worker.Runner = (*Pool)(nil)

func newWorld(t testing.TB, edit func(*Config, *Deps)) *world {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir + "/pool", shelf: newShelf(), bytes: &bytesOf{blobs: map[string][]byte{}}, clock: clock.Real(), log: &bytes.Buffer{}}
	w.open(edit)
	return w
}

// open starts the pool, once more on the same folder if there was one.
func (w *world) open(edit func(*Config, *Deps)) {
	w.t.Helper()
	cfg := Config{Dir: w.dir}
	deps := Deps{Images: w.shelf, Exchange: w.bytes, Clock: w.clock, Log: slog.New(slog.NewTextHandler(&locked{w: w.log}, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if edit != nil {
		edit(&cfg, &deps)
	}
	p, err := New(cfg, deps)
	if err != nil {
		parts.Missing(w.t, err.Error()+"; these tests want root, or a user with user namespaces")
	}
	w.Pool, w.runner = p, p
	w.t.Cleanup(p.Close)
}

// locked is a writer for several goroutines.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// built are the images that tests use, made once.
var built = sync.OnceValues(func() ([]images.Image, error) {
	return images.Build(context.Background(), os.Stderr, "library/busybox:latest")
})

// busybox puts an image with a shell on the shelf.
func (w *world) busybox() images.Image {
	w.t.Helper()
	all, err := built()
	if err != nil {
		parts.Missing(w.t, err.Error())
	}
	w.shelf.add(w.t, "busybox", all[0])
	return all[0]
}

// ended is how a task ended, and what it printed.
type ended struct {
	task.Outcome
	out, err string
}

func (e ended) result() string {
	if p, ok := e.Outputs["result"]; ok && p.Text != nil {
		return *p.Text
	}
	return "(none)"
}

// do runs a task.
func (w *world) do(ctx context.Context, t task.Task) ended {
	if t.Image == "" {
		t.Image = "busybox"
	}
	var mu sync.Mutex
	var e ended
	var printed [3]strings.Builder
	lease := task.Lease{Ref: task.Ref{Run: "r", Task: "t", Attempt: 1, Token: "x"}, Key: "k"}
	e.Outcome = w.runner.Run(ctx, 0, worker.Job{Lease: lease, Task: t, Print: func(stream byte, p []byte) {
		mu.Lock()
		defer mu.Unlock()
		if printed[stream].Len() < 1<<20 {
			printed[stream].Write(p)
		}
	}})
	e.out, e.err = printed[task.Stdout].String(), printed[task.Stderr].String()
	return e
}

// sh runs a script.
func (w *world) sh(script string) ended {
	w.t.Helper()
	return w.do(w.t.Context(), sh(script))
}

func sh(script string) task.Task {
	return task.Task{Command: []string{"sh", "-c", script}, Outputs: []task.Output{{Name: "result", Kind: task.Result}}}
}
