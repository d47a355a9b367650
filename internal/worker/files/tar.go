package files

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// pack writes what lies in a folder as a tar that is the same for the same
// files: in the order of names, without owners and times. Links are stored as
// links; pipes, sockets and devices are left out.
func pack(w io.Writer, dir *os.Root) error {
	t := tar.NewWriter(w)
	err := fs.WalkDir(dir.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		return packOne(t, dir, name, e)
	})
	if err != nil {
		return err
	}
	return t.Close()
}

func packOne(t *tar.Writer, dir *os.Root, name string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), Format: tar.FormatPAX, ModTime: time.Unix(0, 0)}
	switch mode := info.Mode(); {
	case mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case mode&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = dir.Readlink(name); err != nil {
			return err
		}
	case mode.IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
	default:
		return nil
	}
	if err := t.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if n, err := io.Copy(t, io.LimitReader(f, h.Size)); err != nil {
		return err
	} else if n < h.Size {
		return fmt.Errorf("%s became shorter while it was read", name)
	}
	return nil
}

func unpack(dir *os.Root, o *Owner, from io.Reader, limits Limits) error {
	return each(from, limits, func(h *tar.Header, body io.Reader) error { return unpackOne(dir, o, h, body) })
}

// each calls f with the entries of a tar, within bounds.
func each(from io.Reader, limits Limits, f func(*tar.Header, io.Reader) error) error {
	buffered := bufio.NewReaderSize(from, 64<<10)
	from = buffered
	if magic, _ := buffered.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return err
		}
		defer z.Close()
		from = z
	}
	// Headers count as well: a tar of names only is as good a bomb.
	bounded := &bound{r: from, left: limits.Bytes + int64(limits.Entries)*4096}
	t := tar.NewReader(bounded)
	for n := 0; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			_, err := io.Copy(io.Discard, bounded) // who writes it waits for somebody who reads
			return err
		}
		if err == nil && n >= limits.Entries {
			err = fmt.Errorf("%w: more than %d entries", ErrTooLarge, limits.Entries)
		}
		if err == nil && h.Size > limits.Bytes {
			err = fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limits.Bytes)
		}
		if err != nil {
			return err
		}
		limits.Bytes -= h.Size
		if err := f(h, t); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
}

func unpackOne(dir *os.Root, o *Owner, h *tar.Header, from io.Reader) error {
	name, err := inside(h.Name)
	if err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode).Perm()
	if h.Typeflag == tar.TypeXGlobalHeader || name == "." {
		return nil
	}
	if err := noLink(dir, path.Dir(name)); err != nil {
		return err
	}
	if err := parents(dir, path.Dir(name), o); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := dir.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if info, err := dir.Lstat(name); err != nil || !info.IsDir() {
			return fmt.Errorf("%w: something else is there", ErrUnsafe)
		}
		return own(dir, name, mode|0o700, o)
	case tar.TypeReg:
		return create(dir, name, mode, o, from)
	case tar.TypeSymlink:
		if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := dir.Symlink(h.Linkname, name); err != nil {
			return err
		}
		if o != nil && (o.UID != os.Geteuid() || o.GID != os.Getegid()) {
			return dir.Lchown(name, o.UID, o.GID)
		}
		return nil
	case tar.TypeLink:
		to, err := inside(h.Linkname)
		if err != nil {
			return err
		}
		if err := noLink(dir, to); err != nil {
			return err
		}
		if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return dir.Link(to, name)
	}
	return fmt.Errorf("%w: it is neither a file, a folder nor a link", ErrUnsafe)
}

// inside is the name of an entry, cleaned, if it stays below its folder.
func inside(name string) (string, error) {
	clean := path.Clean(strings.TrimPrefix(name, "./"))
	if path.IsAbs(name) || clean == ".." || strings.HasPrefix(clean, "../") || strings.Contains(name, "\x00") {
		return "", fmt.Errorf("%w: it would lie outside", ErrUnsafe)
	}
	if strings.Count(clean, "/") > maxDepth {
		return "", fmt.Errorf("%w: more than %d folders deep", ErrTooLarge, maxDepth)
	}
	return clean, nil
}

// noLink refuses a path that leads through a link of the same archive.
func noLink(dir *os.Root, name string) error {
	for at := name; at != "."; at = path.Dir(at) {
		info, err := dir.Lstat(at)
		if err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return fmt.Errorf("%w: %s is a link", ErrUnsafe, at)
		}
	}
	return nil
}

// parents makes the folders that an archive has no entries for.
func parents(dir *os.Root, name string, o *Owner) error {
	if name == "." {
		return nil
	}
	if _, err := dir.Lstat(name); err == nil {
		return nil
	}
	if err := parents(dir, path.Dir(name), o); err != nil {
		return err
	}
	if err := dir.Mkdir(name, 0o755); err != nil {
		return err
	}
	return own(dir, name, 0o755, o)
}

// bound ends what is read with ErrTooLarge.
type bound struct {
	r    io.Reader
	left int64
}

func (b *bound) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: it does not end", ErrTooLarge)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// own gives name its mode, whatever the umask, and its owner.
func own(dir *os.Root, name string, mode fs.FileMode, o *Owner) error {
	if o != nil && (o.UID != os.Geteuid() || o.GID != os.Getegid()) {
		if err := dir.Lchown(name, o.UID, o.GID); err != nil {
			return err
		}
	}
	return dir.Chmod(name, mode) // after the owner, whose change takes bits away
}

func create(dir *os.Root, name string, mode fs.FileMode, o *Owner, from io.Reader) error {
	if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = own(dir, name, mode, o)
	}
	return err
}

func kindOf(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}
