package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/image"
)

// writeBack is after how many appended bytes the kernel is asked to begin
// writing them, so that the sync at the end, and the syncs of others until
// then, find little to do. Nothing waits for it: waiting would take the error
// of a failed write away from the sync that has to report it.
const writeBack = 32 << 20

// staged is one upload in a file. Until its first Close the file has no name,
// where the system can do that: most uploads come in one go, and what the end
// of the process interrupts then leaves nothing behind.
type staged struct {
	d       *Disk
	id      string
	path    string
	named   bool     // the file is at path
	f       *os.File // nil once ended
	size    int64
	started int64 // bytes whose writing the kernel was asked to begin
}

// Stage implements [Store].
func (d *Disk) Stage(ctx context.Context, id string) (Staged, error) {
	p, err := d.uploadPath(id)
	if err != nil {
		return nil, err
	}
	if err := d.fault(PointStage); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return d.stageNew(id, p)
	}
	if err != nil {
		return nil, fmt.Errorf("stage upload %s: %w", id, mapError(err))
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("stage upload %s: %w", id, mapError(err))
	}
	return &staged{d: d, id: id, path: p, named: true, f: f, size: size, started: size}, nil
}

func (d *Disk) stageNew(id, p string) (Staged, error) {
	named := false
	f, err := d.nursery.create()
	if errors.Is(err, errors.ErrUnsupported) {
		named = true
		f, err = os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("stage upload %s: %w", id, mapError(err))
	}
	return &staged{d: d, id: id, path: p, named: named, f: f}, nil
}

func (s *staged) Size() int64 { return s.size }

func (s *staged) Write(p []byte) (int, error) {
	if s.f == nil {
		return 0, s.ended()
	}
	if err := s.d.fault(PointWrite); err != nil {
		return 0, err
	}
	n, err := s.f.WriteAt(p, s.size)
	if err != nil {
		// Give back what did fit: who waits for space must see it.
		if e := s.f.Truncate(s.size); e != nil {
			err = errors.Join(err, e)
		}
		return 0, fmt.Errorf("write upload %s: %w", s.id, mapError(err))
	}
	s.size += int64(n)
	if s.size-s.started >= writeBack {
		startWriting(s.f, s.started, s.size-s.started)
		s.started = s.size
	}
	return n, nil
}

func (s *staged) Truncate(size int64) error {
	if s.f == nil {
		return s.ended()
	}
	if size < 0 || size > s.size {
		return fmt.Errorf("truncate upload %s to %d bytes: it has %d", s.id, size, s.size)
	}
	if err := s.d.fault(PointTruncate); err != nil {
		return err
	}
	if err := s.f.Truncate(size); err != nil {
		return fmt.Errorf("truncate upload %s: %w", s.id, mapError(err))
	}
	s.size, s.started = size, min(s.started, size)
	return nil
}

func (s *staged) Reader() (io.ReadCloser, error) {
	if s.f == nil {
		return nil, s.ended()
	}
	f, err := s.duplicate()
	if err != nil {
		return nil, err
	}
	return &upTo{io.NewSectionReader(f, 0, s.size), f}, nil
}

// Follow implements [Staged]. The file outlives its names.
func (s *staged) Follow() (Following, error) {
	if s.f == nil {
		return nil, s.ended()
	}
	return s.duplicate()
}

func (s *staged) duplicate() (*os.File, error) {
	fd, err := unix.FcntlInt(s.f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("read upload %s: %w", s.id, err)
	}
	return os.NewFile(uintptr(fd), s.path), nil
}

// upTo reads the bytes that an upload had when it was asked for. Its file has
// its position in common with the writer's, and neither uses that.
type upTo struct {
	*io.SectionReader
	io.Closer
}

func (s *staged) Commit(g image.Digest) error {
	if s.f == nil {
		return s.ended()
	}
	to, err := s.d.path(g)
	if err != nil {
		return err
	}
	if err := s.d.fault(PointCommit); err != nil {
		return err
	}
	dir := filepath.Dir(to)
	if err := s.d.folder(dir); err != nil {
		return fmt.Errorf("commit blob %s: %w", g, mapError(err))
	}
	if err := s.place(to); err != nil {
		return fmt.Errorf("commit blob %s: %w", g, mapError(err))
	}
	s.d.sync.add(g, s.f, to)
	s.f = nil
	return s.d.fault(PointCommitted)
}

// place gives the file its final name.
func (s *staged) place(to string) error {
	if !s.named {
		err := link(s.f, to)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		// A link replaces nothing, a rename does.
		if err := s.name(); err != nil {
			return err
		}
	}
	return os.Rename(s.path, to)
}

// name puts the file among the uploads.
func (s *staged) name() error {
	if s.named {
		return nil
	}
	if err := link(s.f, s.path); err != nil {
		return err
	}
	s.named = true
	return nil
}

func (s *staged) Close() error {
	if s.f == nil {
		return nil
	}
	f := s.f
	defer func() { s.f = nil }()
	err := s.d.fault(PointClose)
	if err == nil && s.size > 0 { // an upload of nothing need not be kept
		if e := s.name(); e != nil {
			err = fmt.Errorf("close upload %s: %w", s.id, mapError(e))
		}
	}
	if e := f.Close(); err == nil && e != nil {
		err = fmt.Errorf("close upload %s: %w", s.id, mapError(e))
	}
	return err
}

func (s *staged) Discard() error {
	if s.f == nil {
		return nil
	}
	f := s.f
	s.f = nil
	defer f.Close()
	if err := s.d.fault(PointDiscard); err != nil {
		return err
	}
	if !s.named {
		return nil
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("discard upload %s: %w", s.id, mapError(err))
	}
	return nil
}

func (s *staged) ended() error {
	return fmt.Errorf("upload %s: %w", s.id, fs.ErrClosed)
}
