//go:build !linux

package blob

import (
	"errors"
	"os"
)

func syncFileSystem(*os.File) error { return errors.ErrUnsupported }

const canSyncFileSystem = false

func sameFileSystem(_, _ *os.File) bool { return false }

func syncData(f *os.File) error { return f.Sync() }

func forget(*os.File) {}

func startWriting(*os.File, int64, int64) {}

func createNameless(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func link(*os.File, string) error { return errors.ErrUnsupported }

func spreadFolders(string) {}
