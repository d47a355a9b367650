package scan

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"

	"cairn.dev/cairn/internal/code"
)

// Write puts the splices of the tree into the folder it was loaded from. Each
// file is replaced whole, by renaming, and keeps its permissions; one that is
// not as it was loaded any more is an error, and the files before it stay
// changed. Nothing outside of the folder is written.
func (f *Folder) Write(t *code.Tree, splices []code.Splice) error {
	after, err := t.With(splices)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	root, err := os.OpenRoot(f.path)
	if err != nil {
		return fmt.Errorf("write to %s: %w", f.path, err)
	}
	defer root.Close()
	var names []string
	for _, s := range splices {
		names = append(names, s.File)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		was, err := t.Read(name)
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		is, err := after.Read(name)
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if err := replace(root, filepath.FromSlash(name), was.Data, is.Data); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		delete(f.known, name)
	}
	return nil
}

// replace changes a file from was to is.
func replace(root *os.Root, name string, was, is []byte) error {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	now, err := readWithin(root, name)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, was) {
		return errors.New("it changed since it was read; do it again")
	}
	temp := filepath.Join(filepath.Dir(name), ".cairn-"+path.Base(filepath.ToSlash(name)))
	file, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = file.Write(is)
	if err == nil {
		err = file.Chmod(info.Mode().Perm()) // whatever the umask is
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		_ = root.Remove(temp)
	}
	return err
}

func readWithin(root *os.Root, name string) ([]byte, error) {
	file, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readBounded(file, 0)
}
