package isolate

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Clear removes a folder that roots were made in, with all that tasks left:
// folders that even their owner may not read, such as those that an overlay
// keeps for itself, too.
func Clear(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() { // it is asked before the folder is read
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
