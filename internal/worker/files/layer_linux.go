package files

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How a layer says that something below it is gone (image-spec, layer.md,
// "Whiteouts").
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// Applied is what a layer brought.
type Applied struct {
	Entries int
	Bytes   int64 // of its files
	// Skipped are entries that no task gets: devices, and what only the
	// machine's root may make.
	Skipped int
}

// Layer applies a layer of an image, as an uncompressed tar, to a root that
// holds the layers below it. Paths are looked up as programs in the root would,
// so that entries go through links of lower layers and never out of the root.
// Devices are left out, and so are extended attributes: capabilities of files
// and an overlay's own marks are not for an image to give.
//
// With oneOwner everything belongs to who applies it: where there is only one
// user. What was applied before an error stays. A root that may contain other
// people's mounts is not for this.
func (r *Root) Layer(from io.Reader, limits Limits, oneOwner bool) (Applied, error) {
	l := layer{root: r, left: limits, one: oneOwner, mine: map[string]bool{}, fd: -1}
	defer l.close()
	bounded := &bound{r: from, left: limits.Bytes + int64(limits.Entries)*4096}
	t := tar.NewReader(bounded)
	for {
		h, err := t.Next()
		if err == io.EOF {
			_, err := io.Copy(io.Discard, bounded) // who writes it waits for somebody who reads
			return l.done, err
		}
		if err != nil {
			return l.done, fmt.Errorf("read the layer: %w", err)
		}
		if err := l.entry(h, t); err != nil {
			return l.done, fmt.Errorf("entry %.200q of the layer: %w", h.Name, err)
		}
	}
}

// layer is one that is being applied.
type layer struct {
	root *Root
	left Limits
	one  bool
	done Applied
	mine map[string]bool // what this layer brought, by path

	// The folder of the last entry; the next one mostly lies in it, too.
	dir string
	fd  int
}

func (l *layer) close() {
	if l.fd >= 0 {
		_ = unix.Close(l.fd)
		l.fd = -1
	}
}

func (l *layer) entry(h *tar.Header, from io.Reader) error {
	name, err := layerName(h.Name)
	if err != nil || h.Typeflag == tar.TypeXGlobalHeader {
		return err
	}
	l.done.Entries++
	switch {
	case l.done.Entries > l.left.Entries:
		return fmt.Errorf("%w: more than %d entries", ErrTooLarge, l.left.Entries)
	case h.Size < 0 || h.Size > l.left.Bytes-l.done.Bytes:
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, l.left.Bytes)
	}
	l.done.Bytes += h.Size
	if name == "/" {
		return l.rootItself(h)
	}
	dir, base := path.Split(name)
	if err := l.enter(dir); err != nil {
		return err
	}
	switch {
	case base == opaque:
		return l.clear(path.Clean(dir), l.fd)
	case strings.HasPrefix(base, whiteout):
		gone := strings.TrimPrefix(base, whiteout)
		if gone == "" || gone == "." || gone == ".." {
			return fmt.Errorf("%w: it names nothing that could be gone", ErrUnsafe)
		}
		if l.mine[path.Join(dir, gone)] {
			return nil // it is for lower layers only
		}
		return removeAll(l.fd, gone, 0)
	}
	l.mine[name] = true
	return l.make(base, h, from)
}

// layerName is where an entry lies, from the root on. Names with ".." that
// stay inside are not made by anybody either.
func layerName(name string) (string, error) {
	if len(name) > unix.PathMax || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w: no path can be such", ErrUnsafe)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("%w: it would lie outside", ErrUnsafe)
		}
	}
	clean := path.Clean("/" + name)
	if strings.Count(clean, "/") > maxDepth {
		return "", fmt.Errorf("%w: more than %d folders deep", ErrTooLarge, maxDepth)
	}
	return clean, nil
}

// enter opens the folder of an entry, and makes it where the layer has no
// entry for it.
func (l *layer) enter(dir string) error {
	if l.fd >= 0 && l.dir == dir {
		return nil
	}
	l.close()
	fd, err := l.root.find(dir)
	if errors.Is(err, unix.ENOENT) {
		up, base := path.Split(path.Clean(dir))
		if err := l.enter(up); err != nil {
			return err
		}
		if err := unix.Mkdirat(l.fd, base, 0o755); err != nil {
			return fmt.Errorf("make the folder %s: %w", dir, err)
		}
		l.close()
		fd, err = l.root.find(dir)
	}
	if err != nil {
		return fmt.Errorf("open the folder %s: %w", dir, err)
	}
	l.dir, l.fd = dir, fd
	return nil
}

// make makes one entry in the folder that is open; what lay there goes, unless
// both are folders.
func (l *layer) make(base string, h *tar.Header, from io.Reader) error {
	var st unix.Stat_t
	err := unix.Fstatat(l.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	there := err == nil
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if there && !(h.Typeflag == tar.TypeDir && st.Mode&unix.S_IFMT == unix.S_IFDIR) {
		if h.Typeflag == tar.TypeLink {
			if same, err := l.same(h, st); err != nil || same {
				return err
			}
		}
		if err := removeAll(l.fd, base, 0); err != nil {
			return err
		}
		there = false
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if !there {
			if err := unix.Mkdirat(l.fd, base, 0o700); err != nil {
				return err
			}
		}
	case tar.TypeReg, tar.TypeGNUSparse:
		if err := l.file(base, from); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := unix.Symlinkat(h.Linkname, l.fd, base); err != nil {
			return err
		}
	case tar.TypeFifo:
		if err := unix.Mknodat(l.fd, base, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
	case tar.TypeLink:
		return l.link(base, h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		l.done.Skipped++
		return nil
	default:
		return fmt.Errorf("%w: it is of an unknown kind %q", ErrUnsafe, h.Typeflag)
	}
	return l.attributes(l.fd, base, h)
}

func (l *layer) file(base string, from io.Reader) error {
	fd, err := unix.Openat(l.fd, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	_, err = io.Copy(f, from)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// link makes a further name of a file of this layer or a lower one.
func (l *layer) link(base, to string) error {
	target, fd, err := l.target(to)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Linkat(fd, path.Base(target), l.fd, base, 0); err != nil {
		return fmt.Errorf("link to %s: %w", target, err)
	}
	return nil
}

// same reports whether a link leads to what lies in its own place already.
func (l *layer) same(h *tar.Header, st unix.Stat_t) (bool, error) {
	target, fd, err := l.target(h.Linkname)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var to unix.Stat_t
	if err := unix.Fstatat(fd, path.Base(target), &to, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, fmt.Errorf("link to %s: %w", target, err)
	}
	return to.Dev == st.Dev && to.Ino == st.Ino, nil
}

// target opens the folder that a link's target lies in.
func (l *layer) target(name string) (string, int, error) {
	target, err := layerName(name)
	if err != nil {
		return "", -1, fmt.Errorf("its target %.200q: %w", name, err)
	}
	if target == "/" {
		return "", -1, fmt.Errorf("its target %.200q: %w: a folder has one name", name, ErrUnsafe)
	}
	fd, err := l.root.find(path.Dir(target))
	if err != nil {
		return "", -1, fmt.Errorf("its target %s: %w", target, err)
	}
	return target, fd, nil
}

// clear removes what lower layers have in a folder, and in those folders of it
// that the layer has an entry for.
func (l *layer) clear(dir string, fd int) error {
	names, err := namesOf(fd, ".")
	if err != nil {
		return err
	}
	for _, n := range names {
		at := path.Join(dir, n)
		if !l.mine[at] {
			if err := removeAll(fd, n, 0); err != nil {
				return err
			}
			continue
		}
		below, err := unix.Openat(fd, n, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			return err
		}
		err = l.clear(at, below)
		_ = unix.Close(below)
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *layer) rootItself(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return fmt.Errorf("%w: the root is a folder", ErrUnsafe)
	}
	fd, err := l.root.find("/")
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return l.attributes(fd, ".", h)
}

// attributes gives an entry its owner, mode and time.
func (l *layer) attributes(dir int, base string, h *tar.Header) error {
	uid, gid := h.Uid, h.Gid
	if l.one {
		uid, gid = -1, -1
	}
	if err := unix.Fchownat(dir, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("its owner %d:%d is outside of the range of users that tasks have here: give the pool more", h.Uid, h.Gid)
		}
		return fmt.Errorf("give it to %d:%d: %w", h.Uid, h.Gid, err)
	}
	if h.Typeflag != tar.TypeSymlink { // after the owner, whose change takes bits away
		if err := unix.Fchmodat(dir, base, uint32(h.Mode)&0o7777, 0); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeDir {
		return nil // what is still to come changes it again
	}
	at := unix.NsecToTimespec(clamp(h.ModTime))
	return unix.UtimesNanoAt(dir, base, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

// clamp is a time that every file system can keep.
func clamp(t time.Time) int64 {
	if t.Unix() < 0 {
		return 0
	}
	if t.Unix() > math.MaxUint32 {
		return math.MaxUint32 * int64(time.Second)
	}
	return t.UnixNano()
}

// removeAll removes what has a name in an open folder, and follows nothing.
func removeAll(dir int, name string, depth int) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if depth > maxDepth {
		return fmt.Errorf("remove %s: %w: more than %d folders deep", name, ErrTooLarge, maxDepth)
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	defer unix.Close(fd)
	names, err := namesOf(fd, ".")
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAll(fd, n, depth+1); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// namesOf lists a folder below an open one.
func namesOf(dir int, name string) ([]string, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return f.Readdirnames(-1)
}
