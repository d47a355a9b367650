package artifacts

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/task"
)

// maxEntries bounds the files of an archive.
const maxEntries = 1_000_000

// unpacked looks whether what a source gives is an archive, and makes a folder
// of it; what holds one thing only is that thing. So does Argo.
func (s *Store) unpacked(ctx context.Context, run, archive string, f File) (File, error) {
	head, err := begin(f, 64<<10)
	if err != nil && err != io.EOF {
		_ = f.Close()
		return File{}, err
	}
	whole := reading{io.MultiReader(bytes.NewReader(head), f), f}
	if !looksPacked(head, archive) {
		return File{ReadCloser: whole, Size: f.Size}, nil
	}
	defer f.Close()
	// Whether it holds one thing only is known at its end.
	var digest string
	if isZip(head) {
		digest, err = s.putZip(ctx, run, whole)
	} else {
		var r io.Reader
		if r, _, err = unzipped(whole); err == nil {
			digest, _, err = s.Put(ctx, run, &bound{io.NopCloser(r), s.cfg.MaxSize})
		}
	}
	if err != nil {
		return File{}, fmt.Errorf("unpack: %w", invalidArchive(err))
	}
	top, err := s.top(ctx, run, digest)
	if err != nil {
		return File{}, err
	}
	if top != "" {
		return s.openPart(ctx, run, &task.Source{Kind: kindPart, URL: digest, Key: top})
	}
	t, err := s.OpenOf(ctx, run, digest)
	if err != nil {
		return File{}, err
	}
	return File{ReadCloser: t, Size: t.Size(), Folder: true}, nil
}

// looksPacked reports whether bytes begin what is to be unpacked.
func looksPacked(head []byte, archive string) bool {
	if isZip(head) {
		return archive != "tar"
	}
	r, packed, err := unzipped(bytes.NewReader(head))
	if err != nil || archive == "zip" || archive == "tar" && !packed {
		return false
	}
	_, err = tar.NewReader(r).Next()
	return err == nil
}

func isZip(head []byte) bool {
	return bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte("PK\x05\x06")) // the second is an empty one's
}

func invalidArchive(err error) error {
	for _, bad := range []error{zip.ErrFormat, zip.ErrChecksum, zip.ErrAlgorithm, tar.ErrHeader} {
		if errors.Is(err, bad) {
			return invalid(err)
		}
	}
	return err
}

// top is the one thing that a tar holds, or "" when it holds more or nothing.
func (s *Store) top(ctx context.Context, run, digest string) (string, error) {
	f, err := s.OpenOf(ctx, run, digest)
	if err != nil {
		return "", err
	}
	defer f.Close()
	one := ""
	t := tar.NewReader(f)
	for n := 0; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			return one, nil
		}
		if err == nil && n >= maxEntries {
			err = fmt.Errorf("more than %d files: %w", maxEntries, ErrTooLarge)
		}
		if err != nil {
			return "", fmt.Errorf("unpack: %w", invalid(err))
		}
		name, ok := entryName(h.Name)
		if !ok {
			continue // the folder itself; what leads out is refused by who unpacks it
		}
		first, _, _ := strings.Cut(name, "/")
		if one != "" && first != one {
			return "", nil
		}
		one = first
	}
}

// putZip stores a zip as a tar.
func (s *Store) putZip(ctx context.Context, run string, r io.Reader) (string, error) {
	packed, _, err := s.Put(ctx, run, r)
	if err != nil {
		return "", err
	}
	f, err := s.OpenOf(ctx, run, packed)
	if err != nil {
		return "", err
	}
	defer f.Close()
	z, err := zip.NewReader(&at{f: f}, f.Size())
	if err != nil {
		return "", err
	}
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(zipToTar(pw, z)) }()
	digest, _, err := s.Put(ctx, run, &bound{pr, s.cfg.MaxSize})
	pr.CloseWithError(err)
	return digest, err
}

func zipToTar(to io.Writer, z *zip.Reader) error {
	if len(z.File) > maxEntries {
		return fmt.Errorf("more than %d files: %w", maxEntries, ErrTooLarge)
	}
	w := tar.NewWriter(to)
	for _, e := range z.File {
		mode := e.Mode()
		h := &tar.Header{Name: e.Name, Mode: int64(mode.Perm()), Format: tar.FormatPAX, Typeflag: tar.TypeReg, Size: int64(e.UncompressedSize64)}
		switch {
		case mode.IsDir():
			h.Typeflag, h.Size = tar.TypeDir, 0
		case !mode.IsRegular():
			return fmt.Errorf("%.200q is neither a file nor a folder: %w", e.Name, ErrInvalid)
		}
		if err := w.WriteHeader(h); err != nil {
			return invalid(err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		r, err := e.Open()
		if err != nil {
			return err
		}
		_, err = io.Copy(w, r) // more than it said is an error of the tar
		if err = errors.Join(err, r.Close()); err != nil {
			return invalid(err)
		}
	}
	return w.Close()
}

// at reads a blob at any place.
type at struct {
	mu sync.Mutex
	f  blob.Reader
}

// ReadAt implements [io.ReaderAt].
func (a *at) ReadAt(p []byte, off int64) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := a.f.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(a.f, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}
