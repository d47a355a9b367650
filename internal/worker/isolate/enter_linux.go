package isolate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/worker/files"
)

// devices are what a program may expect in /dev, and what nobody is harmed by.
func devices() []string { return []string{"null", "zero", "full", "random", "urandom", "tty"} }

// links are those of /dev.
func links() map[string]string {
	return map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}
}

// Enter puts the root together and makes it that of this process. It is called
// in namespaces of its own; a process in which it failed has to end.
// What it returns is for a root that is used again, and nil for others.
func (r *Root) Enter() (_ *Inside, err error) {
	if len(r.Layers) == 0 {
		return nil, errors.New("a root without layers")
	}
	if !r.Again {
		return nil, r.enter()
	}
	in, err := r.begin()
	if err != nil {
		return nil, err
	}
	if err = r.enter(); err == nil {
		err = in.arrive()
	}
	if err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

func (r *Root) enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	for i, l := range r.Layers {
		if err := r.layer(i, l); err != nil {
			return err
		}
	}
	if r.Image { // what is of the kernel lies below what a task brings
		if err := r.machine(); err != nil {
			return err
		}
	}
	for _, b := range r.Binds {
		if err := r.bind(b); err != nil {
			return err
		}
	}
	if err := r.kernel(); err != nil {
		return err
	}
	// The new root is mounted over the old one, which then goes.
	if err := os.Chdir(r.At); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return os.Chdir("/")
}

// layer mounts one overlay. volatile: nothing of it is wanted after a loss of
// power, and without it every end of a task would wait for the disk.
func (r *Root) layer(i int, l Layer) error {
	lower := make([]string, len(l.Lower))
	for i, d := range l.Lower {
		lower[i] = escape(d)
	}
	options := "userxattr,lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + escape(l.Upper) + ",workdir=" + escape(l.Work)
	at := r.At
	if i > 0 {
		at = filepath.Join(r.At, l.Path)
	}
	err := unix.Mount("overlay", at, "overlay", unix.MS_NODEV, options+",volatile")
	if errors.Is(err, unix.EINVAL) { // older kernels
		err = unix.Mount("overlay", at, "overlay", unix.MS_NODEV, options)
	}
	if err != nil {
		return fmt.Errorf("mount an overlay on %s: %w", l.Path, err)
	}
	return nil
}

// escape is a path as the options of an overlay take it.
func escape(p string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(p)
}

// in opens a path of the new root: links in it lead nowhere else.
func (r *Root) in(path string) (*os.File, error) {
	root, err := os.OpenFile(r.At, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	fd, err := unix.Openat2(int(root.Fd()), "."+filepath.Clean("/"+path), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("find %s in the new root: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// mount mounts something on a path of the new root.
func (r *Root) mount(source, path, kind string, flags uintptr, data string) error {
	on, err := r.in(path)
	if err != nil {
		return err
	}
	defer on.Close()
	if err := unix.Mount(source, "/proc/self/fd/"+strconv.Itoa(int(on.Fd())), kind, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	return nil
}

// The file systems of which everybody has his own.
const (
	ptsOptions = "newinstance,ptmxmode=0666,mode=0620"
	shmOptions = "mode=1777"
)

// make has a folder at a path of the new root, if nothing is there.
func (r *Root) make(path string) error {
	root, err := files.OpenRoot(r.At)
	if err != nil {
		return err
	}
	defer root.Close()
	return root.Mkdir(path, 0o755, nil)
}

func (r *Root) bind(b Bind) error {
	source := b.Source
	if source == "" {
		source = b.Path
	} else if err := r.make(b.Path); err != nil {
		return err
	}
	if err := r.mount(source, b.Path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if !b.ReadOnly {
		return nil
	}
	return r.readonly(b.Path)
}

// readonly makes what is mounted on a path read-only.
func (r *Root) readonly(path string) error {
	on, err := r.in(path)
	if err != nil {
		return err
	}
	defer on.Close()
	err = unix.MountSetattr(int(on.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if err != nil {
		return fmt.Errorf("make %s read-only: %w", path, err)
	}
	return nil
}

// kernel mounts what is the kernel's in a root that is like the container's.
func (r *Root) kernel() error {
	if r.Image || r.Bare {
		return nil
	}
	if err := r.proc(); err != nil {
		return err
	}
	for _, p := range sealed() {
		if err := r.seal(p); err != nil {
			return err
		}
	}
	if _, err := os.Stat("/sys/kernel"); err == nil {
		if err := r.bind(Bind{Path: "/sys", ReadOnly: true}); err != nil {
			return err
		}
	}
	return r.devices()
}

func (r *Root) proc() error {
	err := r.mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if errors.Is(err, unix.EPERM) {
		// Parts of the container's /proc are hidden from it, and the kernel
		// does not show more to us. In it tasks see the PIDs of others, and
		// can do nothing to them.
		err = r.bind(Bind{Path: "/proc"})
	}
	return err
}

// devices shows those that every program may expect, and makes new ones of the
// kinds of which everybody has his own.
func (r *Root) devices() error {
	for _, d := range devices() {
		if _, err := os.Stat("/dev/" + d); err != nil {
			continue
		}
		// Read-only: it can be written to, and its mode, which is the
		// container's, cannot be changed.
		if err := r.bind(Bind{Path: "/dev/" + d, ReadOnly: !r.Image}); err != nil {
			return err
		}
	}
	if err := r.mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, ptsOptions); err != nil {
		return err
	}
	return r.mount("tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, shmOptions)
}
