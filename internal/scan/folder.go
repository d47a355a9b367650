package scan

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

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
	l := &loading{ignore: f.ignore, extra: f.extra}
	list, err := f.list(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", f.path, err)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(list)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(list) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				f.read(&list[i])
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("load %s: %w", f.path, err)
	}
	now := make(map[string]known, len(list))
	for _, e := range list {
		if e.err != nil {
			l.problem(e.file.Path, "it cannot be read: "+reason(e.err))
			continue
		}
		if !l.fits(e.file.Path, int64(len(e.file.Data)), e.interest) { // it grew
			continue
		}
		if err := l.add(e.file); err != nil {
			return nil, fmt.Errorf("load %s: %w", f.path, err)
		}
		if e.file.Link == "" {
			now[e.file.Path] = known{e.info, e.file}
		}
	}
	done, err := l.done()
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", f.path, err)
	}
	f.known = now
	return done, nil
}

// An entry is a file that is wanted.
type entry struct {
	file     code.File
	info     os.FileInfo
	interest interest
	err      error
}

// list walks over the folder, and reads links but no files.
func (f *Folder) list(ctx context.Context, l *loading) ([]entry, error) {
	var list []entry
	size := int64(0)
	err := filepath.WalkDir(f.path, func(name string, d fs.DirEntry, err error) error {
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
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			if p != "." && leftOut(p, f.ignore) {
				return fs.SkipDir
			}
			return nil
		}
		link := d.Type() == fs.ModeSymlink
		e := entry{file: code.File{Path: p}, interest: l.wants(p, link)}
		if e.interest == none {
			return nil
		}
		switch d.Type() {
		case fs.ModeSymlink:
			var to string
			if to, e.err = os.Readlink(name); e.err == nil {
				e.file.Link = filepath.ToSlash(to)
			}
		case 0:
			if e.info, err = d.Info(); err != nil {
				return nil // gone since it was listed
			}
			if !l.fits(p, e.info.Size(), e.interest) {
				return nil
			}
			size += e.info.Size()
		default:
			return nil // a pipe, a device: reading it may never end
		}
		list = append(list, e)
		return bounds(len(list), size)
	})
	return list, err
}

// read fills a file in, from memory if it is as it was.
func (f *Folder) read(e *entry) {
	if e.err != nil || e.file.Link != "" {
		return
	}
	k, ok := f.known[e.file.Path]
	if ok && k.info.Size() == e.info.Size() && k.info.ModTime().Equal(e.info.ModTime()) && os.SameFile(k.info, e.info) {
		e.file = k.file
		return
	}
	if e.file.Data, e.err = readListed(filepath.Join(f.path, filepath.FromSlash(e.file.Path)), e.info); e.err == nil {
		e.file.Sum = sha256.Sum256(e.file.Data)
	}
}

// readListed reads a file if it is the one that was listed: a folder that has
// become a link since leads to another one. It reads at most one byte more
// than MaxFile.
func readListed(name string, listed os.FileInfo) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(info, listed) {
		return nil, errors.New("it became another file while the folder was read")
	}
	return readBounded(file, info.Size())
}

// readBounded reads at most one byte more than MaxFile.
func readBounded(r io.Reader, size int64) ([]byte, error) {
	data := make([]byte, 0, min(size, MaxFile)+1)
	r = io.LimitReader(r, MaxFile+1)
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
