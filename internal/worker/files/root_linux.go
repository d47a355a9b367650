package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Root is the root of a task, seen from outside. It is safe for concurrent
// use.
type Root struct{ dir *os.File }

// NewRoot takes over an open folder.
func NewRoot(dir *os.File) *Root { return &Root{dir: dir} }

// OpenRoot opens the folder at a path of this process.
func OpenRoot(name string) (*Root, error) {
	f, err := os.OpenFile(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return NewRoot(f), nil
}

// Close closes the folder.
func (r *Root) Close() error { return r.dir.Close() }

// maxDepth bounds the folders of a path.
const maxDepth = 256

// lookup opens the folder that name is in this root, as a root below which
// nothing leads out.
func (r *Root) lookup(name string) (*os.Root, error) {
	fd, err := r.find(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return os.OpenRoot("/proc/self/fd/" + strconv.Itoa(fd))
}

// find opens the folder that name is in this root.
func (r *Root) find(name string) (int, error) {
	return unix.Openat2(int(r.dir.Fd()), "."+path.Clean("/"+name), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// folder is lookup, and makes what is missing.
func (r *Root) folder(name string, mode fs.FileMode, o *Owner, depth int) (*os.Root, error) {
	dir, err := r.lookup(name)
	if !errors.Is(err, unix.ENOENT) {
		return dir, err
	}
	parent, base := path.Split(path.Clean("/" + name))
	if base == "" || depth > maxDepth {
		return nil, err
	}
	up, err := r.folder(parent, 0o755, o, depth+1)
	if err != nil {
		return nil, err
	}
	defer up.Close()
	if err := up.Mkdir(base, mode.Perm()); err != nil {
		return nil, err
	}
	if err := own(up, base, mode, o); err != nil {
		return nil, err
	}
	return up.OpenRoot(base)
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

// Mkdir makes the folder and those it lies in. One that is there stays as it is.
func (r *Root) Mkdir(name string, mode fs.FileMode, o *Owner) error {
	dir, err := r.folder(name, mode, o, 0)
	if err != nil {
		return failed("make the folder", name, err)
	}
	return dir.Close()
}

// Write makes the file from what is read, and the folders that it lies in.
// What lay there is replaced, and not written through.
func (r *Root) Write(name string, mode fs.FileMode, o *Owner, from io.Reader) error {
	parent, base := path.Split(path.Clean("/" + name))
	if base == "" {
		return failed("write", name, errors.New("it names no file"))
	}
	dir, err := r.folder(parent, 0o755, o, 0)
	if err != nil {
		return failed("write", name, err)
	}
	defer dir.Close()
	if err := create(dir, base, mode, o, from); err != nil {
		return failed("write", name, err)
	}
	return nil
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

// Open opens what a program left at a path. The error is ErrNotThere when it
// left nothing, and ErrUnsafe when it is neither a file nor a folder.
func (r *Root) Open(name string) (*Found, error) {
	found, err := r.open(name)
	switch {
	case err == nil:
		return found, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil, failed("read", name, ErrNotThere)
	case strings.Contains(err.Error(), "escapes"): // os.Root names no error for it
		err = fmt.Errorf("%w: %w", ErrUnsafe, err)
	}
	return nil, failed("read", name, err)
}

func (r *Root) open(name string) (*Found, error) {
	parent, base := path.Split(path.Clean("/" + name))
	dir, err := r.lookup(parent)
	if err != nil {
		return nil, err
	}
	if base == "" {
		return &Found{dir: dir, Folder: true}, nil
	}
	defer dir.Close()
	info, err := dir.Lstat(base)
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		below, err := dir.OpenRoot(base)
		if err != nil {
			return nil, err
		}
		return &Found{dir: below, Folder: true}, nil
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: it is %s, and neither a file nor a folder", ErrUnsafe, kindOf(info.Mode()))
	}
	f, err := dir.OpenFile(base, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(info, now) {
		_ = f.Close()
		return nil, fmt.Errorf("%w: it changes while it is read", ErrUnsafe)
	}
	return &Found{body: f, Size: info.Size(), Mode: info.Mode().Perm()}, nil
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

// Found is a file or a folder that a program left.
type Found struct {
	Folder bool
	Size   int64 // of a file
	Mode   fs.FileMode
	body   io.ReadCloser // a file, or the tar of a folder that is elsewhere
	dir    *os.Root
}

// NewFound is what another process found: body is the file, or the tar of the
// folder.
func NewFound(folder bool, size int64, mode fs.FileMode, body io.ReadCloser) *Found {
	return &Found{Folder: folder, Size: size, Mode: mode, body: body}
}

// Close closes it.
func (f *Found) Close() error {
	if f.body != nil {
		return f.body.Close()
	}
	return f.dir.Close()
}

// Text is a file whole, of at most limit bytes; else the error is ErrTooLarge.
func (f *Found) Text(limit int64) (string, error) {
	if f.Folder {
		return "", fmt.Errorf("%w: it is a folder, and a text is wanted", ErrUnsafe)
	}
	b, err := io.ReadAll(io.LimitReader(f.body, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: more than %d bytes; make it an artifact", ErrTooLarge, limit)
	}
	return string(b), err
}

// WriteTo writes a file as it is and a folder as a tar.
func (f *Found) WriteTo(w io.Writer) (int64, error) {
	switch {
	case f.dir != nil:
		c := &counter{w: w}
		err := pack(c, f.dir)
		return c.n, err
	case f.Folder:
		return io.Copy(w, f.body)
	}
	n, err := io.Copy(w, io.LimitReader(f.body, f.Size)) // as large as it was said to be
	if err == nil && n < f.Size {
		// It may be the process that reads it which failed.
		if _, err = f.body.Read(make([]byte, 1)); err == io.EOF {
			err = nil
		}
	}
	return n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
