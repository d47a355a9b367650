// Package scan reads a repository of code whole, and changes it.
//
// It owns the loading of trees (a folder of this machine, a forge's archive),
// the composition of the readers of formats, the editor that moves an image to
// another reference, and the picture of a change as a diff. It promises that
// nothing outside of the folder or archive is read, that what is read is
// bounded, that a change was verified by reading the changed tree again before
// anybody sees it, and that one changed file costs about one file. It knows no
// format, asks no registry and chooses nothing.
package scan

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/manifest"
	"cairn.dev/cairn/internal/terraform"
)

// A Reader finds the images that code of some formats names. It remembers what
// it parsed, so that reading a tree that differs in one file is cheap, and is
// safe for concurrent use.
type Reader interface {
	Read(ctx context.Context, t *code.Tree, o code.Options) (*code.Result, error)
}

// A Scanner reads trees with several readers. It is safe for concurrent use.
type Scanner struct {
	readers []Reader
}

// New makes a scanner of all formats.
func New() *Scanner { return Of(&terraform.Reader{}, manifest.New()) }

// Of makes a scanner of some readers, whose formats do not overlap.
func Of(readers ...Reader) *Scanner { return &Scanner{readers: readers} }

// Scan reads the tree with all readers. It fails only when ctx ends or a
// reader says that it cannot be relied on; code that cannot be read is among
// the Problems.
func (s *Scanner) Scan(ctx context.Context, t *code.Tree, o code.Options) (*code.Result, error) {
	all := &code.Result{}
	for _, r := range s.readers {
		got, err := r.Read(ctx, t, o)
		if err != nil {
			return nil, fmt.Errorf("scan: %w", err)
		}
		all.Images = append(all.Images, got.Images...)
		all.Problems = append(all.Problems, got.Problems...)
	}
	slices.SortFunc(all.Images, func(a, b code.Image) int { return strings.Compare(a.ID, b.ID) })
	for i := 1; i < len(all.Images); i++ {
		if a := all.Images[i]; a.ID == all.Images[i-1].ID {
			return nil, fmt.Errorf("scan: two images have the ID %q: %s and %s", a.ID, all.Images[i-1].Place, a.Place)
		}
	}
	SortProblems(all.Problems)
	return all, nil
}

// Load reads a forge's archive; see [Tar].
func (s *Scanner) Load(ctx context.Context, r io.Reader, ignore []string) (*Loaded, error) {
	return Tar(ctx, r, ignore, nil)
}

// Change finds the splices after which every wanted image of the tree is
// exactly what is wanted; see the function [Change].
func (s *Scanner) Change(ctx context.Context, t *code.Tree, o code.Options, wants []code.Want) (code.Change, error) {
	read := func(t *code.Tree) (*code.Result, error) { return s.Scan(ctx, t, o) }
	before, err := read(t)
	if err != nil {
		return code.Change{}, err
	}
	return Change(ctx, read, t, before, wants)
}

// SortProblems puts problems in the order of their places.
func SortProblems(list []code.Problem) {
	slices.SortStableFunc(list, func(a, b code.Problem) int {
		if c := strings.Compare(a.Place.File, b.Place.File); c != 0 {
			return c
		}
		return a.Place.Line - b.Place.Line
	})
}
