package scan

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/image"
)

// Bounds of what is loaded.
const (
	MaxFile  = 4 << 20   // bytes of one file of code; longer ones are left out, with a Problem
	maxNamed = 1 << 20   // bytes of one that code may name: most JSON and text is data
	MaxFiles = 200_000   // files that are loaded
	MaxTree  = 512 << 20 // bytes of all files that are loaded
)

// ErrTooLarge: a tree is beyond [MaxFiles] or [MaxTree].
var ErrTooLarge = errors.New("the tree is too large")

// Loaded is a tree as it was found.
type Loaded struct {
	Tree *code.Tree
	// Problems of loading: files that were left out and should not have been.
	Problems []code.Problem
}

// skipped are folders that hold what tools put there.
var skipped = []string{".git", ".hg", ".svn", ".terraform", ".terragrunt-cache", "node_modules"}

// An interest in a file, by its name.
type interest int

const (
	none    interest = iota
	named            // code may name it (templatefile, file): it is loaded, and not missed
	written          // code itself
)

// interestIn says whether a reader may want the file at p. Others are never
// opened, because a repository may hold gigabytes of what is not code.
func interestIn(p string) interest {
	base := strings.ToLower(path.Base(p))
	for _, suffix := range []string{".tf", ".tofu", ".tf.json", ".tofu.json", ".tfvars", ".tfvars.json", ".yaml", ".yml", ".dockerfile", ".containerfile", ".env"} {
		if strings.HasSuffix(base, suffix) {
			return written
		}
	}
	for _, name := range []string{"dockerfile", "containerfile"} {
		if base == name || strings.HasPrefix(base, name+".") || strings.HasPrefix(base, name+"-") {
			return written
		}
	}
	switch base {
	case "kustomization":
		return written
	case "package-lock.json", "composer.lock":
		return none
	}
	for _, suffix := range []string{".json", ".tpl", ".tftpl", ".tmpl", ".template", ".hcl", ".nomad", ".txt"} {
		if strings.HasSuffix(base, suffix) {
			return named
		}
	}
	if path.Ext(strings.TrimPrefix(base, ".")) == "" && (strings.Contains(base, "version") || strings.Contains(base, "tag") || strings.Contains(base, "image")) {
		return named // VERSION, IMAGE_TAG
	}
	return none
}

// leftOut reports whether nothing below the folder is to be loaded.
func leftOut(dir string, ignore []string) bool {
	if slices.Contains(skipped, path.Base(dir)) {
		return true
	}
	for _, g := range ignore {
		// What ends in ** matches everything below if it matches this.
		if strings.HasSuffix(g, "**") && image.Glob(g).Match(dir+"/") {
			return true
		}
	}
	return false
}

// loading collects files within the bounds.
type loading struct {
	extra    []string // globs of files that are loaded whatever their names are
	ignore   []string
	files    []code.File
	bytes    int64
	problems []code.Problem
}

// wants says whether the file is to be loaded. Links always are: they may stand
// for folders.
func (l *loading) wants(p string, link bool) interest {
	i := interestIn(p)
	if i == none && link {
		i = named
	}
	if i != written && image.MatchAny(l.extra, p) {
		i = written
	}
	if i == none || image.MatchAny(l.ignore, p) {
		return none
	}
	return i
}

// fits reports whether a file of that size may be loaded, and says so if not.
func (l *loading) fits(p string, size int64, i interest) bool {
	if size <= maxNamed || i == written && size <= MaxFile {
		return true
	}
	if i == written {
		l.problem(p, fmt.Sprintf("it has %.1f MiB and is not read; the limit of a file is %d MiB", float64(size)/(1<<20), MaxFile>>20))
	}
	return false
}

func (l *loading) problem(p, text string) {
	l.problems = append(l.problems, code.Problem{Place: code.Place{File: p}, Text: text})
}

func (l *loading) add(f code.File) error {
	l.bytes += int64(len(f.Data))
	if err := bounds(len(l.files)+1, l.bytes); err != nil {
		return err
	}
	l.files = append(l.files, f)
	return nil
}

// bounds fails when a tree of so many files and bytes is too large.
func bounds(files int, bytes int64) error {
	switch {
	case files > MaxFiles:
		return fmt.Errorf("%w: more than %d files of code; leave folders out by ignore in .cairn.yaml", ErrTooLarge, MaxFiles)
	case bytes > MaxTree:
		return fmt.Errorf("%w: more than %d MiB of code; leave folders out by ignore in .cairn.yaml", ErrTooLarge, MaxTree>>20)
	}
	return nil
}

func (l *loading) done() (*Loaded, error) {
	t, err := code.NewTree(l.files)
	if err != nil {
		return nil, err
	}
	SortProblems(l.problems)
	return &Loaded{Tree: t, Problems: l.problems}, nil
}
