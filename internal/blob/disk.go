package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"cairn.dev/cairn/internal/image"
)

// DiskConfig is how a [Disk] works. The zero value is the right one outside
// of tests and benchmarks.
type DiskConfig struct {
	Sync SyncMode
	// Fault lets a test end the process at a point of its choice: when it
	// returns an error, the operation stops there with that error and leaves
	// behind what the end of the process would. The points are those named
	// Point…; a hook that plays dead answers every point after the first one
	// with an error, too. It must be safe for concurrent use.
	Fault func(Point) error
}

// A Point is a place in an operation of [Disk] where [DiskConfig.Fault] can
// stop it.
type Point string

// The points, in the order a push passes them.
const (
	PointStage     Point = "stage"     // before an upload is opened or created
	PointWrite     Point = "write"     // before bytes are appended
	PointTruncate  Point = "truncate"  // before bytes are forgotten
	PointCommit    Point = "commit"    // before the rename
	PointCommitted Point = "committed" // after it
	PointSync      Point = "sync"      // before a shared sync
	PointSynced    Point = "synced"    // after it
	PointClose     Point = "close"     // before an upload is put aside
	PointDiscard   Point = "discard"   // before an upload is removed
	PointDelete    Point = "delete"    // before a blob is removed
	PointDeleted   Point = "deleted"   // after it
)

// Disk keeps blobs in files: blobs/<algorithm>/<2 hex>/<hex>, and uploads that
// wait for more in uploads/<id>, below one folder that no other process
// writes. All of it must be on the same file system. It implements [Store].
type Disk struct {
	dir   string
	fault func(Point) error
	sync  syncer
	// nursery is where files without a name are born.
	nursery nursery
	// made holds the folders of blobs that this process knows to be there.
	made sync.Map
}

var _ Store = (*Disk)(nil)

// OpenDisk opens or creates the folder and the folders in it.
func OpenDisk(dir string, cfg DiskConfig) (*Disk, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open blob folder: %w", err)
	}
	d := &Disk{dir: dir, fault: cfg.Fault}
	if d.fault == nil {
		d.fault = func(Point) error { return nil }
	}
	if err := d.prepare(); err != nil {
		return nil, fmt.Errorf("open blob folder %s: %w", dir, mapError(err))
	}
	if err := d.nursery.init(filepath.Join(dir, "uploads", ".new")); err != nil {
		return nil, fmt.Errorf("open blob folder %s: %w", dir, mapError(err))
	}
	if err := d.sync.init(dir, cfg.Sync, d.fault); err != nil {
		return nil, fmt.Errorf("open blob folder %s: %w", dir, mapError(err))
	}
	return d, nil
}

// prepare makes the folders, except those of blobs, which come with their
// first blob.
func (d *Disk) prepare() error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	blobs, sha256 := filepath.Join(d.dir, "blobs"), filepath.Join(d.dir, "blobs", "sha256")
	for _, p := range []string{filepath.Join(d.dir, "uploads"), blobs, sha256} {
		if err := os.Mkdir(p, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	// Also what an earlier process made and did not come to sync.
	es, err := os.ReadDir(blobs)
	if err != nil {
		return err
	}
	for _, e := range es {
		if e.IsDir() {
			if err := syncDir(filepath.Join(blobs, e.Name())); err != nil {
				return err
			}
		}
	}
	for _, p := range []string{blobs, d.dir} {
		if err := syncDir(p); err != nil {
			return err
		}
	}
	// The folder above may not be ours to read.
	if err := syncDir(filepath.Dir(d.dir)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// folder makes the folder of a blob; the next sync makes it durable.
func (d *Disk) folder(p string) error {
	if _, ok := d.made.Load(p); ok {
		return nil
	}
	if err := os.MkdirAll(p, 0o700); err != nil {
		return err
	}
	d.sync.addFolder(filepath.Dir(p))
	d.sync.addFolder(filepath.Dir(filepath.Dir(p)))
	d.made.Store(p, true)
	return nil
}

// Close releases what Disk holds open. Nothing may be using it.
func (d *Disk) Close() error { return d.sync.close() }

// Flushes reports whether [Disk.Flush] may stand for the sync of a log that
// tells of blobs: whether one sync covers the file system, log included.
// Elsewhere a log must not be written before a [Disk.Sync].
func (d *Disk) Flushes() bool { return canSyncFileSystem && d.sync.mode != SyncFiles }

// Flush makes durable every blob that was committed before it began, and log,
// a file of somebody else, as it was then: by one sync, if there is a blob and
// both are on one file system, and in no order that means anything. The first
// Flush covers what earlier processes committed, too. Callers that wait at
// the same time, also in [Disk.Sync], share the work. When it fails, anything
// of it may be lost, whatever later calls say.
func (d *Disk) Flush(log *os.File) error { return d.sync.waitAll(log) }

// A Loss is what is left of a file that was not synced when the power went.
type Loss int

// The losses that file systems are known for.
const (
	Gone  Loss = iota // its name was never written
	Empty             // the name was, and nothing else
	Half              // some of its bytes were
	Zeros             // the size was, and not the bytes
)

func (l Loss) apply(path string) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted, or lost already
	}
	if err != nil {
		return err
	}
	switch l {
	case Empty:
		return os.Truncate(path, 0)
	case Half:
		return os.Truncate(path, st.Size()/2)
	case Zeros:
		return errors.Join(os.Truncate(path, 0), os.Truncate(path, st.Size()))
	}
	return os.Remove(path)
}

// LosePower is for tests that end the process by [DiskConfig.Fault]: it does
// that to all blobs that no finished sync has covered. Call it before Close,
// when nothing is running.
func (d *Disk) LosePower(left Loss) error { return d.sync.lose(left) }

func (d *Disk) path(g image.Digest) (string, error) {
	// The caller has parsed it; but a path is a path.
	if _, err := image.ParseDigest(string(g)); err != nil {
		return "", err
	}
	hex := g.Encoded()
	return filepath.Join(d.dir, "blobs", string(g.Algorithm()), hex[:2], hex), nil
}

func (d *Disk) uploadPath(id string) (string, error) {
	if !validUpload(id) {
		return "", fmt.Errorf("invalid upload id %q: use 1 to 64 letters, digits and dashes", id)
	}
	return filepath.Join(d.dir, "uploads", id), nil
}

func validUpload(id string) bool {
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' {
			return false
		}
	}
	return id != "" && len(id) <= 64
}

// file is the Reader of Disk. It embeds the file so that it has SyscallConn,
// by which package net recognises what it can hand to sendfile.
type file struct {
	*os.File
	size int64
}

func (f *file) Size() int64 { return f.size }

// Reread has the next read ask the disk, not the memory of the kernel: after
// a sync that failed the two may differ.
func (f *file) Reread() { forget(f.File) }

// Open implements [Store].
func (d *Disk) Open(ctx context.Context, g image.Digest) (Reader, error) {
	p, err := d.path(g)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open blob %s: %w", g, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", g, err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open blob %s: %w", g, err)
	}
	return &file{File: f, size: st.Size()}, nil
}

// Sync implements [Store].
func (d *Disk) Sync(ctx context.Context, ds ...image.Digest) error {
	return d.sync.wait(ctx, ds)
}

// Delete implements [Store]. After a loss of power the blob may be back.
func (d *Disk) Delete(ctx context.Context, g image.Digest) error {
	p, err := d.path(g)
	if err != nil {
		return err
	}
	if err := d.fault(PointDelete); err != nil {
		return err
	}
	if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete blob %s: %w", g, mapError(err))
	}
	d.sync.forget(g)
	return d.fault(PointDeleted)
}

// Walk implements [Store]. Names that Disk did not give are passed over.
func (d *Disk) Walk(ctx context.Context, f func(Entry) error) error {
	err := walkDir(ctx, filepath.Join(d.dir, "uploads"), func(e fs.DirEntry) error {
		if !validUpload(e.Name()) {
			return nil
		}
		return visit(e, Entry{Upload: e.Name()}, f)
	})
	if err != nil {
		return err
	}
	blobs := filepath.Join(d.dir, "blobs")
	return walkDir(ctx, blobs, func(alg fs.DirEntry) error {
		return walkDir(ctx, filepath.Join(blobs, alg.Name()), func(two fs.DirEntry) error {
			return walkDir(ctx, filepath.Join(blobs, alg.Name(), two.Name()), func(e fs.DirEntry) error {
				g, err := image.ParseDigest(alg.Name() + ":" + e.Name())
				if err != nil || !strings.HasPrefix(e.Name(), two.Name()) {
					return nil
				}
				return visit(e, Entry{Digest: g}, f)
			})
		})
	})
}

// visit fills in what the file says and calls f, unless the file is gone.
func visit(e fs.DirEntry, entry Entry, f func(Entry) error) error {
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("walk blobs: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	entry.Size, entry.Modified = info.Size(), info.ModTime().UTC()
	return f(entry)
}

// walkDir calls f for each name in a folder. It reads them in portions, since
// a folder may hold many.
func walkDir(ctx context.Context, dir string, f func(fs.DirEntry) error) error {
	h, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("walk blobs: %w", err)
	}
	defer h.Close()
	if st, err := h.Stat(); err != nil || !st.IsDir() {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		es, err := h.ReadDir(256)
		for _, e := range es {
			if err := f(e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("walk blobs: %w", err)
		}
	}
}
