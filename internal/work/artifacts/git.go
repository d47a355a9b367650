package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/git"
	"cairn.dev/cairn/internal/outbound"
	"cairn.dev/cairn/internal/task"
)

// fetched is where git puts what it fetches.
const fetched = "refs/cairn/fetched"

const maxRevision = 255

// clone fetches the tree of a revision, without its history, as a tar.
func (s *Store) clone(ctx context.Context, src *task.Source) (File, error) {
	revision := src.Revision
	if revision == "" {
		revision = "HEAD"
	}
	if err := checkRevision(revision); err != nil {
		return File{}, err
	}
	address, err := s.gitAddress(src.URL)
	if err != nil {
		return File{}, err
	}
	cfg := git.Config{Dir: s.cfg.Dir, Timeout: s.cfg.MaxTime}
	if src.Secret != "" {
		if address.Scheme != "https" && address.Scheme != "http" {
			return File{}, fmt.Errorf("a secret is for https: %w", ErrInvalid)
		}
		user, password, err := s.accountFor(src.Secret, address.Host)
		if err != nil {
			return File{}, err
		}
		cfg.User, cfg.Password = user, func() (string, error) { return password, nil }
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.MaxTime)
	end := cancel
	var t *tunnel
	if address.Scheme == "https" {
		if t, err = newTunnel(s.cfg.AllowPrivate, s.cfg.MaxSize); err != nil {
			cancel()
			return File{}, err
		}
		cfg.Proxy = t.address()
		end = func() { cancel(); t.close() }
	}
	f, err := s.checkout(ctx, cfg, address.String(), revision)
	if err != nil {
		end()
		return File{}, gitError(t.explain(nameless(ctx, address, err)))
	}
	return File{ReadCloser: &bound{closing{f, end}, s.cfg.MaxSize}, Size: -1, Folder: true}, nil
}

func (s *Store) checkout(ctx context.Context, cfg git.Config, address, revision string) (io.ReadCloser, error) {
	g, err := git.New(cfg)
	if err != nil {
		return nil, err
	}
	r, err := g.Open("the repository", address)
	if err != nil {
		return nil, err
	}
	if err = r.Fetch(ctx, false, "+"+revision+":"+fetched); err == nil {
		files, ferr := r.Files(ctx, fetched)
		if ferr == nil {
			return r.Archive(ctx, git.Tar{Links: true}, files), nil
		}
		err = ferr
	}
	r.Close()
	return nil, err
}

// nameless adds to an error of git that there is no such host, which git tells
// in words only.
func nameless(ctx context.Context, address *url.URL, err error) error {
	if address.Host == "" {
		return err
	}
	if _, e := net.DefaultResolver.LookupHost(ctx, address.Hostname()); outbound.Never(e) {
		return fmt.Errorf("%w: %w: %w", err, e, ErrNotFound)
	}
	return err
}

// checkRevision allows names of branches and tags, whole hashes, and refs.
func checkRevision(r string) error {
	bad := len(r) > maxRevision || strings.HasPrefix(r, "-") || strings.HasPrefix(r, "/") || strings.Contains(r, "..") || strings.Contains(r, "@{")
	if bad || strings.ContainsFunc(r, func(c rune) bool { return c <= ' ' || c == 0x7f || strings.ContainsRune(`:+^~*?[\`, c) }) {
		return fmt.Errorf("%.80q is no revision: name a branch, a tag or a whole commit: %w", r, ErrInvalid)
	}
	return nil
}

// gitAddress says what is fetched with git: https, where the connection is made
// by us; http where anything may be reached; and folders that workflows may
// read.
func (s *Store) gitAddress(text string) (*url.URL, error) {
	if err := git.CheckAddress(text); err != nil {
		return nil, fmt.Errorf("the address of the repository: %w: %w", err, ErrInvalid)
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && s.cfg.AllowPrivate:
	case u.Scheme == "file" && u.Host == "":
		return u, s.gitFolder(u.Path)
	default:
		return nil, fmt.Errorf("repositories are read over https, not %s: %w", u.Scheme, ErrRefused)
	}
	return u, nil
}

// gitFolder checks that a folder is one that workflows may read. Git is handed
// a path and follows links, so that the path it is handed must have none.
func (s *Store) gitFolder(name string) error {
	dir, rest, err := s.root(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, err := dir.Stat(rest); err != nil {
		return fileError(err)
	}
	root := strings.TrimSuffix(filepath.Clean(name), rest)
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return fileError(err)
	}
	if top, err := filepath.EvalSymlinks(root); err != nil || real != filepath.Join(top, rest) {
		return fmt.Errorf("%.200q goes through a symbolic link: %w", name, ErrRefused)
	}
	return nil
}

// gitError gives what forges call errors of git the names of this room.
func gitError(err error) error {
	switch {
	case errors.Is(err, forge.ErrNotFound):
		return fmt.Errorf("%w: %w", err, ErrNotFound)
	case errors.Is(err, forge.ErrUnauthorized), errors.Is(err, forge.ErrForbidden), errors.Is(err, forge.ErrInvalid):
		return fmt.Errorf("%w: %w", err, ErrRefused)
	}
	return err
}
