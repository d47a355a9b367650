package artifacts

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"cairn.dev/cairn/internal/task"
)

// A folder in the store is a tar; files and folders in it can be had for
// themselves.

// span is where a file lies in a tar, as a listing found it.
type span struct{ offset, size int64 }

func (p span) String() string {
	return strconv.FormatInt(p.offset, 10) + "+" + strconv.FormatInt(p.size, 10)
}

func parseSpan(s string) (p span, ok bool) {
	a, b, ok := strings.Cut(s, "+")
	var err [2]error
	p.offset, err[0] = strconv.ParseInt(a, 10, 64)
	p.size, err[1] = strconv.ParseInt(b, 10, 64)
	return p, ok && err == [2]error{} && p.offset >= 0 && p.size >= 0
}

// entryName is the name of an entry as seen from the folder, and whether it
// lies in it.
func entryName(name string) (string, bool) {
	clean := path.Clean(name)
	if path.IsAbs(name) || clean == "." || clean == ".." || strings.HasPrefix(clean, "../") {
		return "", false
	}
	return clean, true
}

// sparse says that a file's bytes do not lie in the tar as they are.
func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// invalid marks an error of what somebody made, unless it is one of ours.
func invalid(err error) error {
	if Permanent(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrInvalid, err)
}

// unzipped takes gzip off.
func unzipped(r io.Reader) (out io.Reader, packed bool, err error) {
	b := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := b.Peek(2); string(magic) != "\x1f\x8b" {
		return b, false, nil
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, true, invalid(err)
	}
	return z, true, nil
}

// openPart opens a file or folder of a folder that the run holds.
func (s *Store) openPart(ctx context.Context, run string, src *task.Source) (File, error) {
	key, ok := entryName(src.Key)
	if !ok {
		return File{}, fmt.Errorf("%.200q is no path in a folder: %w", src.Key, ErrInvalid)
	}
	f, err := s.OpenOf(ctx, run, src.URL)
	if err != nil {
		return File{}, err
	}
	if p, ok := parseSpan(src.Revision); ok {
		if p.offset > f.Size() || p.size > f.Size()-p.offset {
			_ = f.Close()
			return File{}, fmt.Errorf("%s lies beyond the end of its folder: %w", src.Revision, ErrInvalid)
		}
		if _, err := f.Seek(p.offset, io.SeekStart); err != nil {
			_ = f.Close()
			return File{}, err
		}
		return File{ReadCloser: reading{io.LimitReader(f, p.size), f}, Size: p.size}, nil
	}
	out, err := s.findPart(f, key)
	if err != nil {
		_ = f.Close()
		return File{}, fmt.Errorf("%.200q: %w", src.Key, err)
	}
	return out, nil
}

// reading reads from one and closes the other.
type reading struct {
	io.Reader
	io.Closer
}

// findPart looks through a tar for a path. What it returns closes f.
func (s *Store) findPart(f io.ReadSeekCloser, key string) (File, error) {
	var r io.Reader = f
	if out, packed, err := unzipped(f); err != nil {
		return File{}, err
	} else if packed {
		r = &bound{io.NopCloser(out), s.cfg.MaxSize}
	} else if _, err := f.Seek(0, io.SeekStart); err != nil {
		return File{}, err
	}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return File{}, fmt.Errorf("there is no such path in the folder: %w", ErrNotFound)
		}
		if err != nil {
			return File{}, fmt.Errorf("the folder is no tar: %w", invalid(err))
		}
		name, ok := entryName(h.Name)
		switch {
		case !ok:
		case name == key && h.Typeflag == tar.TypeReg:
			return File{ReadCloser: reading{t, f}, Size: h.Size}, nil
		case name == key && h.Typeflag != tar.TypeDir:
			return File{}, fmt.Errorf("it is neither a file nor a folder: %w", ErrInvalid)
		case name == key, strings.HasPrefix(name, key+"/"):
			pr, pw := io.Pipe()
			go func() { pw.CloseWithError(cut(pw, t, h, key)) }()
			return File{ReadCloser: closing{pr, func() { _ = f.Close() }}, Size: -1, Folder: true}, nil
		}
	}
}

// cut writes what lies below a path in a tar, from the entry h on, as a tar of
// its own.
func cut(to io.Writer, t *tar.Reader, h *tar.Header, key string) error {
	w := tar.NewWriter(to)
	for err := error(nil); ; h, err = t.Next() {
		if err == io.EOF {
			return w.Close()
		}
		if err != nil {
			return invalid(err)
		}
		name, ok := entryName(h.Name)
		rest, inside := strings.CutPrefix(name, key+"/")
		if !ok || !inside {
			continue
		}
		h.Name = rest
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			target, _ := entryName(h.Linkname)
			if h.Linkname, inside = strings.CutPrefix(target, key+"/"); !inside {
				return fmt.Errorf("%.200q is a link to what lies outside of %.200q: %w", name, key, ErrInvalid)
			}
		}
		h.PAXRecords, h.Format = nil, tar.FormatPAX
		if err := w.WriteHeader(h); err != nil {
			return invalid(err)
		}
		if _, err := io.Copy(w, t); err != nil {
			return err
		}
	}
}
