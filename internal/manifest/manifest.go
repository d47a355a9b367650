// Package manifest finds the images in YAML of Kubernetes, Kustomize, Helm,
// Pulumi and Compose, and in Dockerfiles.
//
// It owns these formats: which files are of them, where each writes an image,
// and which bytes of the file an image comes from, through anchors, merges,
// ARG defaults and variables of Compose. It promises to be pure, that the
// ranges it returns hold exactly the bytes of a scalar, and that no file makes
// it panic, follow an alias for ever or hold more than a bounded amount. It
// renders no Helm templates and runs no Kustomize: what stands in the files is
// what it knows. It edits nothing.
package manifest

import (
	"context"
	"crypto/sha256"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/image"
)

// maxFile is the size of the longest file that is read.
const maxFile = 4 << 20

// maxRemembered is after how many files the reader begins to forget.
const maxRemembered = 200_000

// Reader finds images and remembers, by content, what it found in each file.
// Make one with [New]; it is safe for concurrent use.
type Reader struct {
	mu sync.Mutex
	// What was asked for lately, and what was before: the second is dropped when
	// the first is full.
	young, old map[key]*found
}

// New makes a reader that remembers nothing yet.
func New() *Reader { return &Reader{young: map[key]*found{}} }

// key is a file at its place. Results name the place, so it is part of the key.
type key struct {
	path string
	sum  [sha256.Size]byte
	kind kind
}

// found is what a file says. It is not changed once it is remembered.
type found struct {
	images   []code.Image
	problems []code.Problem
	near     []neighbour
}

// A neighbour is another file that a result depends on. A zero sum: it was not there.
type neighbour struct {
	path string
	sum  [sha256.Size]byte
}

// Read returns the images of all files of the formats that this package owns.
// It fails only when ctx ends.
func (r *Reader) Read(ctx context.Context, t *code.Tree, o code.Options) (*code.Result, error) {
	files := r.files(t, o)
	results := make([]*found, len(files))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(files)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(files) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				results[i] = r.file(t, files[i])
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all := &code.Result{}
	for _, f := range results {
		all.Images = append(all.Images, f.images...)
		all.Problems = append(all.Problems, f.problems...)
	}
	slices.SortFunc(all.Images, func(a, b code.Image) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// input is one file to be read.
type input struct {
	file code.File
	kind kind
}

// files lists what is to be read, in the order of paths.
func (r *Reader) files(t *code.Tree, o code.Options) []input {
	var list []input
	for _, p := range t.Paths() {
		k := kindOf(p)
		if k == other && image.MatchAny(o.Marked, p) {
			k = marked
		}
		if k == other || image.MatchAny(o.Ignore, p) {
			continue
		}
		f, err := t.Read(p)
		if err != nil || f.Path != p {
			continue // a link: what it leads to is read where it is
		}
		list = append(list, input{f, k})
	}
	return list
}

// file returns what a file says, from memory if neither it nor what it depends
// on changed.
func (r *Reader) file(t *code.Tree, in input) *found {
	k := key{in.file.Path, in.file.Sum, in.kind}
	if f := r.remembered(k); f != nil && f.holds(t) {
		return f
	}
	s := &sheet{tree: t, file: in.file, kind: in.kind, found: &found{}, ids: map[string]int{}}
	s.read()
	r.remember(k, s.found)
	return s.found
}

func (r *Reader) remembered(k key) *found {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.young[k]; f != nil {
		return f
	}
	f := r.old[k]
	if f != nil {
		r.young[k] = f
	}
	return f
}

func (r *Reader) remember(k key, f *found) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.young) >= maxRemembered {
		r.old, r.young = r.young, map[key]*found{}
	}
	r.young[k] = f
}

// holds reports whether the files that f depends on are as they were.
func (f *found) holds(t *code.Tree) bool {
	for _, n := range f.near {
		now, _ := t.Read(n.path) // the zero file if there is none
		if now.Sum != n.sum {
			return false
		}
	}
	return true
}

// A sheet is one file while it is read.
type sheet struct {
	tree  *code.Tree
	file  code.File
	kind  kind
	found *found
	ids   map[string]int
	// templated are where templates spell images out.
	templated []int
}

func (s *sheet) read() {
	if len(s.file.Data) > maxFile {
		s.problem(0, "it has more than "+strconv.Itoa(maxFile>>20)+" MiB and is not read")
		return
	}
	switch s.kind {
	case dockerfile:
		s.dockerfile()
	case marked:
	default:
		s.yaml()
	}
	s.markers()
	s.templates()
}

func (s *sheet) problem(line int, text string) {
	s.found.problems = append(s.found.problems, code.Problem{Place: code.Place{File: s.file.Path, Line: line}, Text: text})
}

// neighbour returns another file of the same folder, and remembers that the
// result depends on it.
func (s *sheet) neighbour(name string) (code.File, bool) {
	p := path.Join(path.Dir(s.file.Path), name)
	f, err := s.tree.Read(p)
	s.found.near = append(s.found.near, neighbour{p, f.Sum})
	return f, err == nil
}

// add gives the image its ID, which is its place in the structure of the file,
// and keeps it.
func (s *sheet) add(i code.Image) {
	i.ID = s.file.Path + "#" + i.Address + ":" + i.Path
	s.ids[i.ID]++
	if n := s.ids[i.ID]; n > 1 { // two objects of one name
		i.ID += "~" + strconv.Itoa(n)
	}
	i.Dir = path.Dir(s.file.Path)
	if len(i.Chain) == 0 {
		i.Chain = []code.Step{{Name: i.Path, Place: i.Place}}
	}
	if i.Fixed == "" && len(i.Sources) == 0 {
		i.Fixed = "its text cannot be told from what is around it; write it on one line"
	}
	s.found.images = append(s.found.images, i)
}
