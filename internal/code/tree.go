package code

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// maxLinks bounds how many symbolic links one path may go through.
const maxLinks = 8

// A File of a tree. Data is not changed after it is there.
type File struct {
	Path string // from the root, with slashes, clean
	Data []byte
	Link string            // where a symbolic link leads, as it stands in it; then there is no Data
	Sum  [sha256.Size]byte // of Data
}

// A Tree is the files of a repository at one moment. It is never changed, and
// safe for concurrent use.
type Tree struct {
	files map[string]File
	paths []string // sorted
	dirs  map[string][]string
}

// NewTree makes a tree of the files, whose sums it fills in where they are
// zero. It refuses paths that are not clean, lead out, or come twice.
func NewTree(files []File) (*Tree, error) {
	t := &Tree{files: make(map[string]File, len(files)), paths: make([]string, 0, len(files)), dirs: map[string][]string{}}
	for _, f := range files {
		if f.Path == "" || f.Path == "." || f.Path != path.Clean(f.Path) || !inside(f.Path) {
			return nil, fmt.Errorf("file %q: its path is not a clean one within the repository", f.Path)
		}
		if _, twice := t.files[f.Path]; twice {
			return nil, fmt.Errorf("file %q is there twice", f.Path)
		}
		if f.Sum == ([sha256.Size]byte{}) {
			f.Sum = sha256.Sum256(f.Data)
		}
		t.files[f.Path] = f
		t.paths = append(t.paths, f.Path)
	}
	t.index()
	return t, nil
}

func (t *Tree) index() {
	slices.Sort(t.paths)
	for _, p := range t.paths {
		dir := path.Dir(p)
		t.dirs[dir] = append(t.dirs[dir], p)
	}
}

// inside reports whether a clean path stays within the root.
func inside(p string) bool {
	return p != ".." && !strings.HasPrefix(p, "../") && !path.IsAbs(p)
}

// Paths of all files, sorted. The slice is the tree's: it is not to be changed.
func (t *Tree) Paths() []string { return t.paths }

// Dir returns the paths of the files right in the folder, sorted; the root is
// ".". The slice is the tree's.
func (t *Tree) Dir(dir string) []string { return t.dirs[path.Clean(dir)] }

// ErrOutside: a path that leads out of the repository.
var ErrOutside = errors.New("leads out of the repository")

// ErrNoFile: there is no such file.
var ErrNoFile = errors.New("no such file in the repository")

// Resolve returns the path of name as seen from the folder dir. It fails with
// [ErrOutside] when that is not within the tree.
func (t *Tree) Resolve(dir, name string) (string, error) {
	p := name
	if !path.IsAbs(p) {
		p = path.Join(dir, name)
	}
	if p = path.Clean(p); !inside(p) {
		return "", fmt.Errorf("%s from %s: %w", name, dir, ErrOutside)
	}
	return p, nil
}

// Read returns the file at the clean path p, following symbolic links within
// the tree, of folders, too; the file's own Path is where it was found.
func (t *Tree) Read(p string) (File, error) {
	at, err := t.Follow(p)
	if err != nil {
		return File{}, err
	}
	f, ok := t.files[at]
	if !ok {
		return File{}, fmt.Errorf("%s: %w", p, ErrNoFile)
	}
	return f, nil
}

// Follow returns the path to which the clean path p leads when the symbolic
// links on it are followed: itself, mostly. Whether something is there is
// another question.
func (t *Tree) Follow(p string) (string, error) {
	if f, ok := t.files[p]; ok && f.Link == "" {
		return p, nil
	}
	at := p
	for range maxLinks {
		link, rest, ok := t.link(at)
		if !ok {
			return at, nil
		}
		to, err := t.Resolve(path.Dir(link.Path), link.Link)
		if err != nil {
			return "", fmt.Errorf("%s: symbolic link: %w", p, err)
		}
		at = path.Join(to, rest)
	}
	return "", fmt.Errorf("%s: symbolic link: more than %d in a row", p, maxLinks)
}

// link finds the first link on the way to p, and what of p is behind it.
func (t *Tree) link(p string) (link File, rest string, ok bool) {
	for i := range len(p) + 1 {
		if i < len(p) && p[i] != '/' {
			continue
		}
		if f, there := t.files[p[:i]]; there && f.Link != "" {
			return f, strings.TrimPrefix(p[i:], "/"), true
		}
	}
	return File{}, "", false
}

// With returns the tree with the splices applied. They must lie within their
// files and must not overlap.
func (t *Tree) With(splices []Splice) (*Tree, error) {
	by := map[string][]Splice{}
	for _, s := range splices {
		by[s.File] = append(by[s.File], s)
	}
	changed := &Tree{files: make(map[string]File, len(t.files)), paths: t.paths, dirs: t.dirs}
	for p, f := range t.files {
		changed.files[p] = f
	}
	for p, list := range by {
		f, ok := t.files[p]
		if !ok || f.Link != "" {
			return nil, fmt.Errorf("splice %s: %w", p, ErrNoFile)
		}
		data, err := splice(f.Data, list)
		if err != nil {
			return nil, fmt.Errorf("splice %s: %w", p, err)
		}
		f.Data, f.Sum = data, sha256.Sum256(data)
		changed.files[p] = f
	}
	return changed, nil
}

func splice(data []byte, list []Splice) ([]byte, error) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Splice) int { return a.Start - b.Start })
	var out bytes.Buffer
	at := 0
	for _, s := range list {
		if s.Start < at || s.End < s.Start || s.End > len(data) {
			return nil, fmt.Errorf("bytes %d to %d of %d overlap another splice or the end", s.Start, s.End, len(data))
		}
		out.Write(data[at:s.Start])
		out.WriteString(s.New)
		at = s.End
	}
	out.Write(data[at:])
	return out.Bytes(), nil
}

// PlaceOf is where the byte at offset of the file stands, for people.
func PlaceOf(f File, offset int) Place {
	offset = min(max(offset, 0), len(f.Data))
	before := f.Data[:offset]
	return Place{File: f.Path, Line: bytes.Count(before, []byte("\n")) + 1, Column: offset - bytes.LastIndexByte(before, '\n')}
}
