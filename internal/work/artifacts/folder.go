package artifacts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func checkRoots(roots []string) error {
	for _, r := range roots {
		if !filepath.IsAbs(r) || filepath.Clean(r) == "/" {
			return fmt.Errorf("%q cannot be a folder for workflows: name a folder below the root by its whole path", r)
		}
	}
	return nil
}

// root opens the configured folder that a path lies in, and returns what the
// path is in it. What is opened by that never leaves the folder, whatever links
// lie there.
func (s *Store) root(name string) (*os.Root, string, error) {
	clean := filepath.Clean(name)
	for _, r := range s.cfg.FileRoots {
		rest, ok := strings.CutPrefix(clean, filepath.Clean(r))
		if !ok || rest != "" && rest[0] != filepath.Separator {
			continue
		}
		if rest = strings.TrimPrefix(rest, string(filepath.Separator)); rest == "" {
			rest = "."
		}
		dir, err := os.OpenRoot(r)
		if err != nil {
			return nil, "", fmt.Errorf("open the folder for workflows: %w", err)
		}
		return dir, rest, nil
	}
	if len(s.cfg.FileRoots) == 0 {
		return nil, "", fmt.Errorf("%.200q: this server lists no folders of its machine; name those it may under work.folders in its configuration: %w", name, ErrRefused)
	}
	return nil, "", fmt.Errorf("%.200q lies in none of the folders that this server lists (work.folders in its configuration): %w", name, ErrRefused)
}

// openFile opens a file of this machine.
func (s *Store) openFile(name string) (File, error) {
	dir, rest, err := s.root(name)
	if err != nil {
		return File{}, err
	}
	defer dir.Close()
	info, err := dir.Stat(rest) // before it is opened, which a pipe would have wait
	if err != nil {
		return File{}, fileError(err)
	}
	if !info.Mode().IsRegular() {
		return File{}, fmt.Errorf("%.200q is no file: %w", name, ErrInvalid)
	}
	f, err := dir.Open(rest)
	if err != nil {
		return File{}, fileError(err)
	}
	if info, err = f.Stat(); err == nil && info.Size() > s.cfg.MaxSize {
		err = fmt.Errorf("%.200q has %d bytes, at most %d are fetched: %w", name, info.Size(), s.cfg.MaxSize, ErrTooLarge)
	}
	if err != nil {
		_ = f.Close()
		return File{}, err
	}
	return File{ReadCloser: f, Size: -1}, nil // it may grow while it is read
}

func fileError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", err, ErrNotFound)
	case errors.Is(err, fs.ErrPermission), strings.Contains(err.Error(), "escapes"): // os.Root names no error for it
		return fmt.Errorf("%w: %w", err, ErrRefused)
	}
	return err
}
