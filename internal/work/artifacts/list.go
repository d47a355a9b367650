package artifacts

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
)

// List implements the sources of the work server: the files of a folder or of
// an s3:// prefix that match, all below it without a match, in order of their
// names. The match is a glob over the name as seen from the folder: '*' and '?'
// stay in one part of it, '**' does not. The files themselves are fetched by
// whoever is handed one. More than limit is an error, because half a list looks
// like a whole one.
func (s *Store) List(ctx context.Context, run string, files, s3 workflow.Value, match string, limit int) ([]workflow.Value, error) {
	if err := checkRun(run); err != nil {
		return nil, err
	}
	if match == "" {
		match = "**"
	}
	if err := image.CheckGlob(match); err != nil {
		return nil, fmt.Errorf("match %.80q: %w: %w", match, ErrInvalid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.MaxTime)
	defer cancel()
	list, err := s.list(ctx, run, files, s3, match, limit)
	if err != nil {
		return nil, fmt.Errorf("list files: %w", err)
	}
	return list, nil
}

func (s *Store) list(ctx context.Context, run string, files, s3 workflow.Value, match string, limit int) ([]workflow.Value, error) {
	if s3 != nil {
		address, ok := s3.(string)
		if !ok {
			return nil, fmt.Errorf("s3: this is %T: write s3://BUCKET/PREFIX: %w", s3, ErrInvalid)
		}
		return s.listObjects(ctx, address, match, limit)
	}
	switch v := files.(type) {
	case string:
		return s.listFolder(ctx, v, match, limit)
	case *workflow.File:
		digest, err := s.folder(ctx, run, v)
		if err != nil {
			return nil, err
		}
		return s.listParts(ctx, run, digest, match, limit)
	}
	return nil, fmt.Errorf("files: this is %T: write the path of a folder of the server's machine, or an artifact that is a folder: %w", files, ErrInvalid)
}

// A listing is files that are being listed.
type listing struct {
	match image.Glob
	limit int
	found []found
}

type found struct {
	name string
	file *workflow.File
}

func newListing(match string, limit int) *listing {
	return &listing{match: image.Glob(match), limit: limit}
}

func (l *listing) add(name string, size int64, src *task.Source) error {
	if !l.match.Match(name) {
		return nil
	}
	if len(l.found) == l.limit {
		return fmt.Errorf("there are more than %d files; a narrower match takes fewer: %w", l.limit, ErrTooLarge)
	}
	l.found = append(l.found, found{name, &workflow.File{Name: path.Base(name), Size: size, Source: src}})
	return nil
}

func (l *listing) files() []workflow.Value {
	slices.SortFunc(l.found, func(a, b found) int { return strings.Compare(a.name, b.name) })
	out := make([]workflow.Value, len(l.found))
	for i, f := range l.found {
		out[i] = f.file
	}
	return out
}

// listFolder lists the files of a folder of this machine. Links are not
// followed.
func (s *Store) listFolder(ctx context.Context, name, match string, limit int) ([]workflow.Value, error) {
	dir, rest, err := s.root(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	top, err := dir.Stat(rest)
	if err != nil {
		return nil, fileError(err)
	}
	if !top.IsDir() {
		return nil, fmt.Errorf("%.200q is no folder: %w", name, ErrInvalid)
	}
	below, err := dir.OpenRoot(rest)
	if err != nil {
		return nil, fileError(err)
	}
	defer below.Close()
	l := newListing(match, limit)
	err = fs.WalkDir(below.FS(), ".", func(at string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) && at != "." { // gone meanwhile
			return nil
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return l.add(at, info.Size(), &task.Source{Kind: kindFile, URL: filepath.Join(filepath.Clean(name), filepath.FromSlash(at))})
	})
	if err != nil {
		return nil, fileError(err)
	}
	return l.files(), nil
}

// folder is the digest of an uncompressed tar that the run holds, of an
// artifact that is a folder.
func (s *Store) folder(ctx context.Context, run string, v *workflow.File) (string, error) {
	f, err := s.fetch(ctx, run, task.Input{Digest: v.Digest, Folder: v.Folder, Source: v.Source})
	if err != nil {
		return "", err
	}
	defer f.Close()
	if !f.Folder && !v.Folder {
		return "", fmt.Errorf("the artifact is a file and no folder; items that are in a file are taken with in: %w", ErrInvalid)
	}
	r, packed, err := unzipped(f)
	if err != nil {
		return "", err
	}
	if v.Source == nil && !packed {
		return v.Digest, nil // as nearly always
	}
	digest, _, err := s.Put(ctx, run, &bound{io.NopCloser(r), s.cfg.MaxSize})
	return digest, err
}

// listParts lists the files of a folder in the store: an uncompressed tar.
func (s *Store) listParts(ctx context.Context, run, digest, match string, limit int) ([]workflow.Value, error) {
	f, err := s.OpenOf(ctx, run, digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l := newListing(match, limit)
	names := map[string]int{}
	t := tar.NewReader(f) // which seeks over what is in files
	for {
		h, err := t.Next()
		if err == nil {
			err = ctx.Err()
		}
		if err == io.EOF {
			return l.files(), nil
		}
		if err != nil {
			return nil, fmt.Errorf("the folder is no tar: %w", invalid(err))
		}
		name, ok := entryName(h.Name)
		if !ok || h.Typeflag != tar.TypeReg {
			continue
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		src := &task.Source{Kind: kindPart, URL: digest, Key: name}
		if !sparse(h) {
			src.Revision = span{at, h.Size}.String()
		}
		if i, twice := names[name]; twice { // the later one counts
			l.found[i].file.Size, l.found[i].file.Source = h.Size, src
			continue
		}
		n := len(l.found)
		if err := l.add(name, h.Size, src); err != nil {
			return nil, err
		}
		if len(l.found) > n {
			names[name] = n
		}
	}
}
