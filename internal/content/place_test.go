package content_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/content/contenttest"
	"cairn.dev/cairn/internal/db"
)

// A place is the embedded default, SQLite and a local disk, with what a test
// needs to end it in bad ways.
type place struct {
	testing.TB
	dir   string
	fault func() error
	db    *db.DB
	disk  *blob.Disk

	flushed bool
	held    atomic.Pointer[hold]
	// What the disk has of the database for sure.
	file, log []byte
}

type hold struct {
	begun    sync.Once
	waiting  chan struct{} // closed when a flush waits
	released chan struct{}
	err      error
}

func openDisk(t testing.TB, dir string, fault func() error, flushed bool) contenttest.Place {
	t.Helper()
	p := &place{TB: t, dir: dir, fault: fault, flushed: flushed}
	var err error
	if p.disk, err = blob.OpenDisk(dir, blob.DiskConfig{Fault: func(blob.Point) error { return fault() }}); err != nil {
		t.Fatal(err)
	}
	cfg := db.Config{Path: filepath.Join(dir, "registry.db"), Schema: content.Schema, Fault: func(string) error { return fault() }}
	if flushed {
		cfg.Flush = p.flush
	}
	if p.db, err = db.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	p.file, p.log = p.read()
	return contenttest.Place{DB: p.db, Blobs: p.disk, Flushed: flushed, Close: p.close, LosePower: p.losePower, HoldFlushes: p.hold}
}

func (p *place) flush(log *os.File) error {
	if h := p.held.Load(); h != nil {
		h.begun.Do(func() { close(h.waiting) })
		<-h.released
		if h.err != nil {
			return h.err
		}
	}
	if err := p.disk.Flush(log); err != nil {
		return err
	}
	p.file, p.log = p.read()
	return nil
}

func (p *place) hold() func(error) {
	h := &hold{waiting: make(chan struct{}), released: make(chan struct{})}
	p.held.Store(h)
	release := sync.OnceFunc(func() {
		p.held.Store(nil)
		close(h.released)
	})
	p.Cleanup(release) // a test that failed must come to its end
	return func(err error) {
		<-h.waiting
		h.err = err
		release()
	}
}

func (p *place) read() (file, log []byte) {
	file, err := os.ReadFile(filepath.Join(p.dir, "registry.db"))
	if err != nil {
		p.Error(err)
	}
	log, err = os.ReadFile(filepath.Join(p.dir, "registry.db-wal"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.Error(err)
	}
	return file, log
}

func (p *place) close() {
	if err := p.db.Close(); err != nil && p.fault() == nil {
		p.Error(err)
	}
	if err := p.disk.Close(); err != nil {
		p.Error(err)
	}
}

// losePower leaves of the bytes of the log that changed since the last flush
// those before a place, and of the others what was there before.
func (p *place) losePower(loss contenttest.Loss) {
	file, log := p.read()
	if err := p.disk.LosePower(blob.Loss(loss.Files)); err != nil {
		p.Error(err)
	}
	_ = p.db.Close() // moves the log into the file, which is undone below
	if err := p.disk.Close(); err != nil {
		p.Error(err)
	}
	// A file that changed means that the engine synced the log.
	if p.flushed && bytes.Equal(file, p.file) {
		from, to := 0, len(log)
		for from < min(len(log), len(p.log)) && log[from] == p.log[from] {
			from++
		}
		if len(log) == len(p.log) {
			for to > from && log[to-1] == p.log[to-1] {
				to--
			}
		}
		cut := from + (to-from)*loss.Log/1000
		log = append(log[:cut:cut], p.log[min(cut, len(p.log)):]...)
	}
	for name, b := range map[string][]byte{"registry.db": file, "registry.db-wal": log} {
		if err := os.WriteFile(filepath.Join(p.dir, name), b, 0o600); err != nil {
			p.Error(err)
		}
	}
}
