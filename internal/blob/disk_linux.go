package blob

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// syncFileSystem writes everything that is dirty on the file system of f.
func syncFileSystem(f *os.File) error {
	for {
		err := unix.Syncfs(int(f.Fd()))
		if err != unix.EINTR {
			return err
		}
	}
}

// canSyncFileSystem: there is such a call here.
const canSyncFileSystem = true

// sameFileSystem reports whether syncFileSystem of root covers f.
func sameFileSystem(root, f *os.File) bool {
	var a, b unix.Stat_t
	return unix.Fstat(int(root.Fd()), &a) == nil && unix.Fstat(int(f.Fd()), &b) == nil && a.Dev == b.Dev
}

// syncData makes the bytes of f durable, and what is needed to find them.
func syncData(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return err
		}
	}
}

// forget has the next reader of f see what the disk has, where the kernel has
// nothing of it left to write. It is only a hint.
func forget(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }

// startWriting asks the kernel to begin writing a part of f. It is only a
// hint: the sync that counts comes later, and so do errors.
func startWriting(f *os.File, from, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), from, n, unix.SYNC_FILE_RANGE_WRITE)
}

// createNameless makes a file in dir that vanishes with its last user unless
// link gives it a name.
func createNameless(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return nil, errors.ErrUnsupported
	}
	return f, err
}

// link gives a file without a name one that is free.
func link(f *os.File, to string) error {
	// By way of /proc, because linking a descriptor itself needs a
	// capability on older kernels.
	from := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	if err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW); err != nil {
		return &os.LinkError{Op: "link", Old: f.Name(), New: to, Err: err}
	}
	return nil
}

// spreadFolders asks the file system to place the folders made in dir far from
// each other. ext2 to ext4 do; it is only a hint.
func spreadFolders(dir string) {
	const topDir = 0x00020000 // FS_TOPDIR_FL
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return
	}
	_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|topDir)
}
