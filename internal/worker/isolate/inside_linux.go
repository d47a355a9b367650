package isolate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrAnew means that a root cannot be mended: another one has to be made.
var ErrAnew = errors.New("it takes a new root")

// An Inside is a root that the calling thread is in and that is used again.
//
// What makes that safe: a task can change its root in no other way than by its
// mounts. It cannot mount, because it has no CAP_SYS_ADMIN here (see
// [Renounce]), and of the mounts it finds only the spots can be written and are
// not shared on purpose. Behind each spot lies a folder that holds what was
// changed and nothing else, and which no task can reach but through it. So a
// spot whose folder looks as it did before the task is as it was; one that does
// not is emptied, if there is nothing below it and it looks as before then, or
// replaced, with all that is in it.
//
// Only the thread that made it is in the root. All others of the process see
// what it saw before, and make there what it then attaches here: what tasks
// could break out to is not in their mount namespace at all.
//
// Its methods are for that thread, while no task runs.
type Inside struct {
	outer *os.File // the mount namespace that the thread was in before
	dir   string   // of new folders, out there
	root  *os.File
	spots []*spot // the root itself is the first
	made  int     // layers since the root was entered
}

// begin takes this thread, and no other, to a mount namespace of its own.
func (r *Root) begin() (*Inside, error) {
	outer, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("see where we are: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		_ = outer.Close()
		return nil, fmt.Errorf("leave the mounts of other threads: %w", err)
	}
	in := &Inside{outer: outer, dir: filepath.Dir(r.At)}
	for i, l := range r.Layers {
		s := &spot{path: l.Path, alone: i > 0 && !r.bindsBelow(l.Path), make: in.overlay(l)}
		s.folders, s.room = []string{l.Upper, l.Work}, l.Room
		in.spots = append(in.spots, s)
		if s.dir, err = os.Open(l.Upper); err != nil {
			in.close()
			return nil, err
		}
	}
	return in, nil
}

// bindsBelow reports whether something is shared below a path: it would go with
// what is replaced there.
func (r *Root) bindsBelow(path string) bool {
	for _, b := range r.Binds {
		if strings.HasPrefix(b.Path, path+"/") {
			return true
		}
	}
	return false
}

// arrive is called when the root is that of this thread.
func (in *Inside) arrive() (err error) {
	if in.root, err = os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return err
	}
	for _, s := range []*spot{{path: "/dev/pts", make: pts}, {path: "/dev/shm", make: shm, room: true}} {
		if s.dir, err = os.Open(s.path); err != nil {
			return err
		}
		s.alone = true
		in.spots = append(in.spots, s)
	}
	return in.Mark()
}

// Mark has everything be as it should be found after a task: to be called when
// something was made for it that the next one may find, too.
func (in *Inside) Mark() error {
	for _, s := range in.spots {
		if err := s.look(&s.mark); err != nil {
			return fmt.Errorf("look at %s before a task: %w", s.path, err)
		}
	}
	return nil
}

// Renew has the next task find what this one found: what was touched is emptied
// or replaced. left are folders out there that are of no use any more. It fails
// with ErrAnew where that cannot be done; the root must not be used then.
func (in *Inside) Renew() (left []string, err error) {
	for i, s := range in.spots {
		if s.untouched() {
			continue
		}
		// What lies on the root could have been moved, if the root was touched:
		// it comes first.
		if i > 0 && s.alone && s.room && s.wipe() {
			continue
		}
		if i == 0 || !s.alone {
			return left, fmt.Errorf("%w: %s was written to", ErrAnew, s.path)
		}
		gone, err := in.replace(s)
		if err != nil {
			return left, fmt.Errorf("%w: replace %s: %w", ErrAnew, s.path, err)
		}
		left = append(left, gone...)
	}
	return left, nil
}

// Leave takes the thread back to where it was before.
func (in *Inside) Leave() error {
	defer in.close()
	if err := unix.Setns(int(in.outer.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("leave a root: %w", err)
	}
	return nil
}

func (in *Inside) close() {
	for _, s := range in.spots {
		_ = s.dir.Close()
	}
	_, _ = in.root.Close(), in.outer.Close()
}

// replace puts a new file system in the place of one that was touched.
func (in *Inside) replace(s *spot) (left []string, err error) {
	var mount, dir *os.File
	old := s.folders
	made := make(chan struct{})
	go func() { // on a thread that is still out there
		defer close(made)
		mount, dir, err = s.make(s)
	}()
	<-made
	if err != nil {
		return nil, err
	}
	defer mount.Close()
	_ = s.dir.Close()
	s.dir = dir
	if err := unix.Unmount(s.path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return nil, err
	}
	if err := unix.MoveMount(int(mount.Fd()), "", int(in.root.Fd()), strings.TrimPrefix(s.path, "/"), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, err
	}
	return old, s.look(&s.mark)
}

// overlay makes a layer over the same folder as l.
func (in *Inside) overlay(l Layer) func(*spot) (mount, dir *os.File, err error) {
	return func(s *spot) (mount, dir *os.File, err error) {
		in.made++
		fresh := l
		if err := fresh.blank(in.dir, "x"+strconv.Itoa(in.made)); err != nil {
			return nil, nil, err
		}
		options := [][2]string{{"lowerdir", l.Lower[0]}, {"upperdir", fresh.Upper}, {"workdir", fresh.Work}, {"userxattr"}, {"volatile"}}
		for _, o := range options {
			if strings.ContainsAny(o[1], `\:,`) { // kernels differ in how these are written
				return nil, nil, fmt.Errorf("%q in its options", o[1])
			}
		}
		if mount, err = detached("overlay", unix.MOUNT_ATTR_NODEV, options); err != nil {
			return nil, nil, err
		}
		if dir, err = os.Open(fresh.Upper); err != nil {
			_ = mount.Close()
			return nil, nil, err
		}
		s.folders = []string{fresh.Upper, fresh.Work}
		return mount, dir, nil
	}
}

func pts(*spot) (mount, dir *os.File, err error) {
	return own("devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, ptsOptions)
}

func shm(*spot) (mount, dir *os.File, err error) {
	return own("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, shmOptions)
}

// own makes a file system without folders behind it.
func own(kind string, attributes int, options string) (mount, dir *os.File, err error) {
	var all [][2]string
	for o := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(o, "=")
		all = append(all, [2]string{key, value})
	}
	if mount, err = detached(kind, attributes, all); err != nil {
		return nil, nil, err
	}
	fd, err := unix.Openat(int(mount.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = mount.Close()
		return nil, nil, err
	}
	return mount, os.NewFile(uintptr(fd), kind), nil
}

// detached makes a file system that is mounted nowhere yet. An option without a
// value is a flag.
func detached(kind string, attributes int, options [][2]string) (*os.File, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a %s: %w", kind, err)
	}
	defer unix.Close(fs)
	for _, o := range options {
		if o[1] == "" {
			err = unix.FsconfigSetFlag(fs, o[0])
		} else {
			err = unix.FsconfigSetString(fs, o[0], o[1])
		}
		if err != nil {
			return nil, fmt.Errorf("make a %s: %s %s: %w", kind, o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("make a %s: %w", kind, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return nil, fmt.Errorf("make a %s: %w", kind, err)
	}
	return os.NewFile(uintptr(fd), kind), nil
}
