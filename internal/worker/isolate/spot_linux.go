package isolate

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxTraces bounds what there may be in the folder of a spot before a task, and
// maxFile the bytes of a file in it.
const (
	maxTraces = 64
	maxFile   = 1 << 20
)

// A spot is a mount that tasks may write to.
type spot struct {
	path    string
	alone   bool                                           // it can be replaced without the others
	room    bool                                           // nothing is below it, nor was anything in it at first
	make    func(s *spot) (mount, dir *os.File, err error) // another one, mounted nowhere yet
	folders []string                                       // that are of no use after that
	dir     *os.File                                       // where changes go
	mark    []trace                                        // what is in there, before a task
}

// A trace is all that a file system says of one thing in it, but for when it was
// read.
//
// A clock of ctime that is coarse cannot hide anything: a change that was undone
// within one tick of it is not seen, and has left nothing. What a file holds is
// compared for that reason.
type trace struct {
	name  string
	stat  unix.Statx_t
	attrs string
	holds [sha256.Size]byte // of a file
}

var errCrowded = errors.New("too much is in there")

// untouched reports whether all is as it was marked. What cannot be read is not.
func (s *spot) untouched() bool {
	var now []trace
	return s.look(&now) == nil && slices.Equal(now, s.mark)
}

// wipe removes, by way of the mount, what was not there before the task, and
// reports whether all is as it was then, but for the time of that. It is for
// rooms with no other mounts in them.
func (s *spot) wipe() bool {
	root, err := os.OpenRoot(s.path)
	if err != nil {
		return false
	}
	defer root.Close()
	stays := map[string]bool{}
	for _, t := range s.mark {
		stays[t.name] = true
	}
	for _, t := range s.mark {
		if t.stat.Mode&unix.S_IFMT != unix.S_IFDIR {
			return false
		}
		entries, err := fs.ReadDir(root.FS(), t.name)
		if err != nil {
			return false
		}
		for _, e := range entries {
			if name := path.Join(t.name, e.Name()); !stays[name] && root.RemoveAll(name) != nil {
				return false
			}
		}
	}
	var now []trace
	if s.look(&now) != nil || !slices.EqualFunc(now, s.mark, func(a, b trace) bool { return a.timeless() == b.timeless() }) {
		return false
	}
	s.mark = now
	return true
}

func (t trace) timeless() trace {
	t.stat.Mtime, t.stat.Ctime = unix.StatxTimestamp{}, unix.StatxTimestamp{}
	return t
}

// look takes the traces of all that is in the folder.
func (s *spot) look(traces *[]trace) error {
	*traces = (*traces)[:0]
	return look(s.dir, ".", traces)
}

func look(dir *os.File, name string, traces *[]trace) error {
	t := trace{name: name}
	if err := t.stats(int(dir.Fd()), "", unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	var err error
	if t.attrs, err = attributes(int(dir.Fd())); err != nil {
		return err
	}
	*traces = append(*traces, t)
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return err
	}
	names, err := dir.Readdirnames(maxTraces)
	if err != nil && err != io.EOF {
		return err
	}
	if len(*traces)+len(names) > maxTraces {
		return errCrowded
	}
	slices.Sort(names)
	for _, n := range names {
		fd, err := unix.Openat(int(dir.Fd()), n, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			below := os.NewFile(uintptr(fd), n)
			err = look(below, path.Join(name, n), traces)
			_ = below.Close()
		} else if err == unix.ENOTDIR || err == unix.ELOOP {
			t := trace{name: name + "/" + n}
			if err = t.stats(int(dir.Fd()), n, unix.AT_SYMLINK_NOFOLLOW); err == nil && t.stat.Mode&unix.S_IFMT == unix.S_IFREG {
				t.holds, err = digest(int(dir.Fd()), n)
			}
			if err == nil {
				*traces = append(*traces, t)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// digest is of what a file holds. Those that are there before a task are small.
func digest(at int, name string) (sum [sha256.Size]byte, err error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return sum, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = errCrowded
	}
	return sha256.Sum256(b), err
}

func (t *trace) stats(at int, name string, flags int) error {
	if err := unix.Statx(at, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &t.stat); err != nil {
		return err
	}
	t.stat.Atime = unix.StatxTimestamp{}
	return nil
}

// attributes are the names and values of extended attributes.
func attributes(fd int) (string, error) {
	var buffer [4096]byte
	n, err := unix.Flistxattr(fd, buffer[:])
	if err == unix.ENOTSUP || err == nil && n == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	all := string(buffer[:n])
	for name := range strings.SplitSeq(strings.TrimRight(all, "\x00"), "\x00") {
		n, err := unix.Fgetxattr(fd, name, buffer[:])
		if err != nil && err != unix.EPERM && err != unix.EACCES && err != unix.ENODATA && err != unix.ENOTSUP {
			return "", err
		}
		all += name + "=" + string(buffer[:max(n, 0)]) + "\x00"
	}
	return all, nil
}
