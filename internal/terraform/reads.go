package terraform

import (
	"crypto/sha256"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	"cairn.dev/cairn/internal/code"
)

// reads is what the evaluation of one root module reads of a tree. It writes
// down what it was told, so that the answer can be used again as long as the
// tree would say the same.
type reads struct {
	tree   *code.Tree
	graph  *graph
	parsed *parsed
	seen   witness
	loaded map[string]*module
	size   int
	skip   func(string) bool // paths that are not parts of modules
}

// A witness is everything that an answer depends on.
type witness struct {
	files   map[string][sha256.Size]byte // by path; zero: there was none
	folders map[string][]string          // the files of a folder
	below   map[string][]string          // those of a folder and all below it
	needed  map[string]bool
	links   map[string]string // where paths led
}

func newReads(t *code.Tree, g *graph, p *parsed, skip func(string) bool) *reads {
	return &reads{tree: t, graph: g, parsed: p, skip: skip, loaded: map[string]*module{}, seen: witness{
		files: map[string][sha256.Size]byte{}, folders: map[string][]string{}, below: map[string][]string{}, needed: map[string]bool{}, links: map[string]string{},
	}}
}

// holds reports whether a tree still says what was seen.
func (w *witness) holds(t *code.Tree, g *graph) bool {
	for p, sum := range w.files {
		f, err := t.Read(p)
		if err != nil && sum != [sha256.Size]byte{} || err == nil && f.Sum != sum {
			return false
		}
	}
	for dir, files := range w.folders {
		if !slices.Equal(t.Dir(dir), files) {
			return false
		}
	}
	for dir, files := range w.below {
		if !slices.Equal(below(t, dir), files) {
			return false
		}
	}
	for p, to := range w.links {
		if at, err := t.Follow(p); err != nil || at != to {
			return false
		}
	}
	for dir, is := range w.needed {
		if g.needed[dir] != is {
			return false
		}
	}
	return true
}

// resolve is where a path leads as seen from a folder, links followed.
func (r *reads) resolve(dir, name string) (string, error) {
	p, err := r.tree.Resolve(dir, name)
	if err != nil {
		return "", err
	}
	at, err := r.tree.Follow(p)
	if err != nil {
		return "", err
	}
	if at != p {
		r.seen.links[p] = at
	}
	return at, nil
}

func (r *reads) needed(dir string) bool {
	r.seen.needed[dir] = r.graph.needed[dir]
	return r.graph.needed[dir]
}

// read reads a file of the tree.
func (r *reads) read(p string) (code.File, error) {
	f, err := r.tree.Read(p)
	if err != nil {
		r.seen.files[p] = [sha256.Size]byte{}
		return f, err
	}
	if _, again := r.seen.files[p]; !again {
		r.size += len(f.Data)
	}
	r.seen.files[p] = f.Sum
	if r.size > maxFileBytes {
		return code.File{}, fmt.Errorf("%s: one module reads more than %d MiB of files", p, maxFileBytes>>20)
	}
	return f, nil
}

// source is a file, parsed.
func (r *reads) source(p string) (*source, error) {
	f, err := r.read(p)
	if err != nil {
		return nil, err
	}
	return r.parsed.get(f, r.graph.types), nil
}

// folder returns the files right in a folder that count.
func (r *reads) folder(dir string) []string {
	all := r.tree.Dir(dir)
	r.seen.folders[dir] = all
	if !slices.ContainsFunc(all, r.skip) {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), r.skip)
}

// below returns the files of a folder and of those below it, as seen from it.
func (r *reads) below(dir string) []string {
	r.seen.below[dir] = below(r.tree, dir)
	return r.seen.below[dir]
}

func below(t *code.Tree, dir string) []string {
	all := t.Paths()
	if dir = path.Clean(dir); dir == "." {
		return all
	}
	var out []string
	for i := sort.SearchStrings(all, dir+"/"); i < len(all) && strings.HasPrefix(all[i], dir+"/"); i++ {
		out = append(out, all[i][len(dir)+1:])
	}
	return out
}

// module is the one in a folder; nil if there is none.
func (r *reads) module(dir string) *module {
	if m, ok := r.loaded[dir]; ok {
		return m
	}
	names := configFiles(r.folder(dir))
	if len(names) == 0 {
		r.loaded[dir] = nil
		return nil
	}
	var files []*source
	var problems []code.Problem
	kept := names[:0:0]
	for _, name := range names {
		s, err := r.source(name)
		if err != nil {
			problems = append(problems, code.Problem{Place: code.Place{File: name}, Text: "not read: " + err.Error()})
			continue
		}
		files, kept = append(files, s), append(kept, name)
	}
	m := newModule(dir, files, kept)
	m.problems = append(problems, m.problems...)
	r.loaded[dir] = m
	return m
}
