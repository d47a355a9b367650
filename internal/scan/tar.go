package scan

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"cairn.dev/cairn/internal/code"
)

// maxArchive bounds what an archive may unpack to, wanted or not.
const maxArchive = 8 << 30

// ErrArchive: an archive is broken, or holds names that lead out of it.
var ErrArchive = errors.New("the archive cannot be used")

// Tar reads a forge's archive of a commit, compressed by gzip or not. If
// everything in it lies in one folder, as forges make it, that folder is the
// root. Nothing is written to disk; what no reader wants is passed over.
func Tar(ctx context.Context, r io.Reader, ignore, extra []string) (*Loaded, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	var in io.Reader = b
	if magic, _ := b.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrArchive, err)
		}
		defer z.Close()
		in = z
	}
	bounded := &io.LimitedReader{R: in, N: maxArchive}
	t := tar.NewReader(bounded)
	// Which folder to strip is known at the end only, so that what is wanted is
	// decided on names without the first folder and with it.
	a := &archive{whole: loading{extra: extra, ignore: ignore}, below: loading{extra: extra, ignore: ignore}}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			if bounded.N <= 0 {
				return nil, fmt.Errorf("%w: the archive unpacks to more than %d GiB", ErrTooLarge, int64(maxArchive)>>30)
			}
			return nil, fmt.Errorf("%w: %w", ErrArchive, err)
		}
		if err := a.entry(h, t); err != nil {
			return nil, err
		}
	}
	return a.done()
}

// archive is an archive being read, both as it stands and below its one folder.
type archive struct {
	whole, below loading
	folder       string // the first part of all names so far
	several      bool   // they differ
}

func (a *archive) entry(h *tar.Header, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeSymlink, tar.TypeDir:
	default: // headers of git, and what no repository holds
		return nil
	}
	p := path.Clean(h.Name)
	if h.Name == "" || path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../") || strings.ContainsAny(h.Name, "\x00\\") || strings.Contains("/"+h.Name+"/", "/../") {
		return fmt.Errorf("%w: the name %.100q leads out of it or is not portable", ErrArchive, h.Name)
	}
	if p == "." {
		return nil
	}
	first, rest, deeper := strings.Cut(p, "/")
	if a.folder == "" {
		a.folder = first
	}
	if first != a.folder || !deeper && h.Typeflag != tar.TypeDir {
		a.several = true
	}
	if h.Typeflag == tar.TypeDir {
		return nil
	}
	f := code.File{}
	link := h.Typeflag == tar.TypeSymlink
	wholeWants, belowWants := a.interest(&a.whole, p, link), none
	if deeper && !a.several {
		belowWants = a.interest(&a.below, rest, link)
	}
	if link {
		f.Link = h.Linkname
	} else if i := max(wholeWants, belowWants); i != none {
		if h.Size <= MaxFile {
			f.Data = make([]byte, h.Size)
			if _, err := io.ReadFull(r, f.Data); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrArchive, p, err)
			}
		}
	}
	for _, side := range []struct {
		l *loading
		p string
		i interest
	}{{&a.whole, p, wholeWants}, {&a.below, rest, belowWants}} {
		if side.i == none || f.Link == "" && !side.l.fits(side.p, h.Size, side.i) {
			continue
		}
		f.Path = side.p
		if err := side.l.add(f); err != nil {
			return err
		}
	}
	return nil
}

// interest is what l wants of a path, folders that are left out included.
func (a *archive) interest(l *loading, p string, link bool) interest {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if leftOut(dir, l.ignore) {
			return none
		}
	}
	return l.wants(p, link)
}

func (a *archive) done() (*Loaded, error) {
	l := &a.below
	if a.several {
		l = &a.whole
	}
	done, err := l.done()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArchive, err)
	}
	return done, nil
}
