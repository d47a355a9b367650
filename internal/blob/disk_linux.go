package blob

import (
	"os"

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

// startWriting asks the kernel to begin writing a part of f. It is only a
// hint: the sync that counts comes later, and so do errors.
func startWriting(f *os.File, from, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), from, n, unix.SYNC_FILE_RANGE_WRITE)
}
