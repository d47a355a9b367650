package scan

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"cairn.dev/cairn/internal/code"
)

// A Folder is code on this machine's disk. It remembers the files it loaded,
// so that loading again reads only what changed. It is not safe for concurrent
// use.
type Folder struct {
	path   string
	ignore []string
	extra  []string
	known  map[string]known
}

// known is a file as it was loaded: the same file, size and time of change are
// the same bytes. An edit within one tick of the disk's clock that keeps the
// size is not seen, as in git.
type known struct {
	info os.FileInfo
	file code.File
}

// OpenFolder makes a Folder of the folder at path. Files that ignore matches
// are left out; files that extra matches are loaded even if their names do not
// look like code (both image.Glob, of paths from the folder, with slashes).
func OpenFolder(path string, ignore, extra []string) (*Folder, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open the folder of code: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open the folder of code: %s is not a folder; name the folder that it is in", path)
	}
	return &Folder{path: path, ignore: ignore, extra: extra, known: map[string]known{}}, nil
}

// Load reads the folder. Symbolic links are not followed; they become links of
// the tree, which resolves them within itself only. Folders of tools (.git,
// .terraform, node_modules) are skipped.
func (f *Folder) Load(ctx context.Context) (*Loaded, error) {
	root, err := os.OpenRoot(f.path)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", f.path, err)
	}
	defer root.Close()
	l := &loading{ignore: f.ignore, extra: f.extra}
	now := make(map[string]known, len(f.known))
	err = filepath.WalkDir(f.path, func(name string, e fs.DirEntry, err error) error {
		if cerr := ctx.Err(); cerr != nil {
			return cerr
		}
		rel, rerr := filepath.Rel(f.path, name)
		if rerr != nil {
			return rerr
		}
		p := filepath.ToSlash(rel)
		if err != nil {
			if p == "." {
				return err
			}
			l.problem(p, "it cannot be read: "+reason(err))
			if e != nil && e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if e.IsDir() {
			if p != "." && leftOut(p, f.ignore) {
				return fs.SkipDir
			}
			return nil
		}
		i := l.wants(p)
		if i == none {
			return nil
		}
		switch e.Type() {
		case fs.ModeSymlink:
			to, err := os.Readlink(name)
			if err != nil {
				l.problem(p, "it cannot be read: "+reason(err))
				return nil
			}
			return l.add(code.File{Path: p, Link: filepath.ToSlash(to)})
		case 0:
		default:
			return nil // a pipe, a device: reading it may never end
		}
		info, err := e.Info()
		if err != nil {
			return nil // gone since it was listed
		}
		if !l.fits(p, info.Size(), i) {
			return nil
		}
		if k, ok := f.known[p]; ok && k.info.Size() == info.Size() && k.info.ModTime().Equal(info.ModTime()) && os.SameFile(k.info, info) {
			now[p] = k
			return l.add(k.file)
		}
		data, err := readWithin(root, rel)
		if err != nil {
			l.problem(p, "it cannot be read: "+reason(err))
			return nil
		}
		if !l.fits(p, int64(len(data)), i) { // it grew
			return nil
		}
		now[p] = known{info, code.File{Path: p, Data: data}}
		return l.add(now[p].file)
	})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", f.path, err)
	}
	done, err := l.done()
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", f.path, err)
	}
	for p, k := range now { // with the sums
		if k.file, err = done.Tree.Read(p); err == nil {
			now[p] = k
		}
	}
	f.known = now
	return done, nil
}

// readWithin reads at most one byte more than MaxFile. The root makes sure that
// a folder that just became a link leads nowhere else.
func readWithin(root *os.Root, name string) ([]byte, error) {
	file, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is not a file any more")
	}
	data := make([]byte, 0, min(info.Size(), MaxFile)+1)
	r := io.LimitReader(file, MaxFile+1)
	for {
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if err == io.EOF {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
	}
}

// reason is an error of the system without the path, which the place says.
func reason(err error) string {
	if p, ok := err.(*fs.PathError); ok {
		return p.Err.Error()
	}
	return err.Error()
}
