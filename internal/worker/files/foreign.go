package files

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// Copy appends the entries of a tar, which may be compressed by gzip, to
// another one, below a folder: for those who unpack elsewhere. What Unpack
// refuses is refused, but for links: where these lead is for the one who
// unpacks to see.
func Copy(to *tar.Writer, folder string, from io.Reader, limits Limits) error {
	if err := to.WriteHeader(&tar.Header{Name: folder + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
		return err
	}
	return each(from, limits, func(h *tar.Header, body io.Reader) error {
		name, err := inside(h.Name)
		if err != nil || h.Typeflag == tar.TypeXGlobalHeader || name == "." {
			return err
		}
		out := &tar.Header{Name: path.Join(folder, name), Typeflag: h.Typeflag, Mode: h.Mode & 0o777, Linkname: h.Linkname}
		switch h.Typeflag {
		case tar.TypeDir:
			out.Name += "/"
			out.Mode |= 0o700
		case tar.TypeReg:
			out.Size = h.Size
		case tar.TypeSymlink:
		case tar.TypeLink:
			target, err := inside(h.Linkname)
			if err != nil {
				return err
			}
			out.Linkname = path.Join(folder, target)
		default:
			return fmt.Errorf("%w: it is neither a file, a folder nor a link", ErrUnsafe)
		}
		if err := to.WriteHeader(out); err != nil || out.Size == 0 {
			return err
		}
		_, err = io.Copy(to, body)
		return err
	})
}

// FromTar is the file or the folder that is the first entry of a tar, as
// container engines copy such out. end is called once, when nothing more is
// read; whole says that all was.
func FromTar(from io.Reader, end func(whole bool) error) (*Found, error) {
	t := tar.NewReader(from)
	h, err := t.Next()
	if err != nil {
		return nil, err
	}
	mode := h.FileInfo().Mode()
	switch {
	case mode.IsRegular():
		return NewFound(false, h.Size, mode.Perm(), &ending{Reader: t, end: end}), nil
	case mode.IsDir():
		r, w := io.Pipe()
		go func() { _ = w.CloseWithError(repack(w, t, h.Name)) }()
		return NewFound(true, 0, mode.Perm(), &ending{Reader: r, end: end, before: r.Close}), nil
	}
	return nil, fmt.Errorf("%w: it is %s, and neither a file nor a folder", ErrUnsafe, kindOf(mode))
}

// ending is read to its end, or closed before.
type ending struct {
	io.Reader
	end    func(whole bool) error
	before func() error
	done   bool
}

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if errors.Is(err, io.EOF) && !e.done {
		e.done = true
		if failed := e.end(true); failed != nil {
			err = failed
		}
	}
	return n, err
}

func (e *ending) Close() error {
	if e.before != nil {
		_ = e.before()
	}
	if e.done {
		return nil
	}
	e.done = true
	return e.end(false)
}

// repack writes the folder's entries as [Found] packs a folder: without owners
// and times. Their order is that of the engine.
func repack(w io.Writer, t *tar.Reader, folder string) error {
	out := tar.NewWriter(w)
	folder = strings.TrimSuffix(folder, "/") + "/"
	for {
		h, err := t.Next()
		if err == io.EOF {
			return out.Close()
		}
		if err != nil {
			return err
		}
		name, below := strings.CutPrefix(h.Name, folder)
		if !below || name == "" {
			continue
		}
		n := &tar.Header{Name: name, Typeflag: h.Typeflag, Mode: h.Mode & int64(fs.ModePerm), Format: tar.FormatPAX, ModTime: time.Unix(0, 0)}
		switch h.Typeflag {
		case tar.TypeReg:
			n.Size = h.Size
		case tar.TypeSymlink:
			n.Linkname = h.Linkname
		case tar.TypeLink:
			n.Linkname = strings.TrimPrefix(h.Linkname, folder)
		case tar.TypeDir:
		default:
			continue
		}
		if err := out.WriteHeader(n); err != nil {
			return err
		}
		if _, err := io.Copy(out, t); err != nil {
			return err
		}
	}
}
