package logs

import (
	"os"
	"syscall"
)

// syncData makes the bytes of f durable, and what is needed to find them.
func syncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err != syscall.EINTR {
			return err
		}
	}
}
