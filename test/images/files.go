package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// files are the contents of a layer by path, without a slash at the front.
type files map[string]entry

// entry is a file, a directory or a symbolic link, as its mode says; content
// is where a link points.
type entry struct {
	mode    fs.FileMode
	content []byte
}

func link(to string) entry    { return entry{fs.ModeSymlink | 0o777, []byte(to)} }
func script(s string) entry   { return entry{0o755, []byte(s)} }
func text(s string) entry     { return entry{0o644, []byte(s)} }
func dir(m fs.FileMode) entry { return entry{fs.ModeDir | m, nil} }

// tar packs the files: sorted, all of one time, all of root, so that the same
// files are the same bytes.
func (f files) tar() ([]byte, error) {
	all := maps.Clone(f)
	for name := range f {
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			if _, ok := all[d]; !ok {
				all[d] = dir(0o755)
			}
		}
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		e := all[name]
		h := &tar.Header{Name: name, Mode: int64(e.mode.Perm()), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if e.mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		switch {
		case e.mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, name+"/"
		case e.mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname = tar.TypeSymlink, string(e.content)
		default:
			h.Size = int64(len(e.content))
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(e.content); err != nil {
				return nil, err
			}
		}
	}
	return b.Bytes(), w.Close()
}

// take adds files of an unpacked package. A pattern names files, or a folder
// with all in it; each must match something.
func (f files) take(root string, patterns ...string) error {
	for _, p := range patterns {
		matches, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(p)))
		if err != nil || len(matches) == 0 {
			return fmt.Errorf("%s has no files %s", filepath.Base(root), p)
		}
		for _, m := range matches {
			err := filepath.WalkDir(m, func(file string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				name, err := filepath.Rel(root, file)
				if err != nil {
					return err
				}
				name = filepath.ToSlash(name)
				i, err := d.Info()
				if err != nil {
					return err
				}
				switch {
				case d.IsDir():
					return nil
				case i.Mode()&fs.ModeSymlink != 0:
					to, err := os.Readlink(file)
					if err != nil {
						return err
					}
					f[name] = link(to)
				case i.Mode().IsRegular() && !strings.HasSuffix(name, ".pyc"):
					b, err := os.ReadFile(file)
					if err != nil {
						return err
					}
					f[name] = entry{i.Mode().Perm(), b}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
