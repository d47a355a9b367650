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

// Mkdir makes the folder and those it lies in. One that is there stays as it is.
func (r *Root) Mkdir(name string, mode fs.FileMode, o *Owner) error {
	if fd, err := r.find(name); err == nil { // as it mostly is
		return unix.Close(fd)
	}
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

// Unpack makes the folder at name from a tar, which may be compressed by gzip.
// An entry that would lie outside of it, or lie in a link, or be a device is
// refused with everything after it.
func (r *Root) Unpack(name string, o *Owner, from io.Reader, limits Limits) error {
	dir, err := r.folder(name, 0o755, o, 0)
	if err != nil {
		return failed("unpack to", name, err)
	}
	defer dir.Close()
	if err := unpack(dir, o, from, limits); err != nil {
		return failed("unpack to", name, err)
	}
	return nil
}
