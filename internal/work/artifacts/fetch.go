package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"cairn.dev/cairn/internal/task"
)

// A File is what a source gives. The caller closes it. An error in the middle
// of reading means that it is not whole.
type File struct {
	io.ReadCloser
	Size   int64 // -1 when that is not known before
	Folder bool  // a tar, to be unpacked
}

// The kinds of [task.Source] that listings make.
const (
	kindFile = "file"
	kindPart = "part" // its Revision says where the file lies
)

// Fetch opens an input: a blob that the run holds, or what its source gives. It
// is bounded by the configuration, and ends with ctx.
func (s *Store) Fetch(ctx context.Context, run string, in task.Input) (File, error) {
	f, err := s.fetch(ctx, run, in)
	if err != nil {
		return File{}, fmt.Errorf("fetch %.80q: %w", in.Name, err)
	}
	return f, nil
}

func (s *Store) fetch(ctx context.Context, run string, in task.Input) (File, error) {
	switch {
	case in.Source == nil && in.Digest == "":
		return File{ReadCloser: io.NopCloser(strings.NewReader(string(in.Content))), Size: int64(len(in.Content))}, nil
	case in.Source == nil:
		f, err := s.OpenOf(ctx, run, in.Digest)
		if err != nil {
			return File{}, err
		}
		return File{ReadCloser: f, Size: f.Size(), Folder: in.Folder}, nil
	}
	f, err := s.source(ctx, run, in.Source)
	if err == nil && in.Source.Archive != "" && !f.Folder {
		return s.unpacked(ctx, run, in.Source.Archive, f)
	}
	return f, err
}

func (s *Store) source(ctx context.Context, run string, src *task.Source) (File, error) {
	switch src.Kind {
	case "raw":
		return File{ReadCloser: io.NopCloser(strings.NewReader(src.Raw)), Size: int64(len(src.Raw))}, nil
	case "http":
		return s.get(ctx, src)
	case "s3":
		return s.getObject(ctx, src)
	case "git":
		return s.clone(ctx, src)
	case kindFile:
		return s.openFile(src.URL)
	case kindPart:
		return s.openPart(ctx, run, src)
	}
	return File{}, fmt.Errorf("nothing is fetched from a source of kind %.40q: %w", src.Kind, ErrInvalid)
}

// bound reads at most n bytes of r, and fails where there are more.
type bound struct {
	io.ReadCloser
	n int64
}

func (b *bound) Read(p []byte) (int, error) {
	if int64(len(p)) > b.n+1 {
		p = p[:b.n+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.n -= int64(n); b.n < 0 {
		return 0, fmt.Errorf("the source gives more than it may: %w", ErrTooLarge)
	}
	return n, err
}

// closing calls end when it is closed.
type closing struct {
	io.ReadCloser
	end func()
}

func (c closing) Close() error {
	err := c.ReadCloser.Close()
	c.end()
	return err
}

// Permanent reports whether asking again is of no use.
func Permanent(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrRefused) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrTooLarge)
}
