// Package plain drives any git server, over ssh, https or from a folder, with
// the git program.
//
// It owns how git is called: in an empty folder that is removed afterwards,
// with nothing of the repository's or the machine's configuration, without
// hooks, prompts, checkouts or protocols other than the one of the address. It
// promises what package forge promises of reading and writing; a branch moves
// from the head that was named or not at all (--force-with-lease). Such a server
// has no pull requests, issues or webhooks: these are [forge.ErrUnsupported].
package plain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/git"
	"cairn.dev/cairn/internal/forge/object"
	"cairn.dev/cairn/internal/forge/rest"
)

// Config of a [Driver].
type Config struct {
	// Repositories by the names that people use, each with its address:
	// ssh://git@host/path, https://host/path or file:///path.
	Repositories map[string]string
	// User and Password for https.
	User     string
	Password rest.Secret
	// KeyFile is the private key for ssh and KnownHosts the file of the servers'
	// keys; ssh's own defaults when empty. Both are paths without quotes.
	KeyFile, KnownHosts string
	// Author of commits; Cairn when empty.
	Author object.Person
	// Dir is where temporary folders are made; the system's when empty.
	Dir string
	// Timeout of one call of git; ten minutes when zero.
	Timeout time.Duration
}

// Deps of a [Driver].
type Deps struct{ Clock clock.Clock }

// A Driver speaks to git servers. It is safe for concurrent use.
type Driver struct {
	Config
	clock clock.Clock
	git   *git.Git
}

var _ forge.Forge = (*Driver)(nil)

// New returns a driver. It contacts nobody.
func New(c Config, d Deps) (*Driver, error) {
	for name, address := range c.Repositories {
		if err := forge.CheckRepository(name); err != nil {
			return nil, fmt.Errorf("set up the forge git: %w", err)
		}
		if err := git.CheckAddress(address); err != nil {
			return nil, fmt.Errorf("set up the forge git: the address of %s: %w", name, err)
		}
	}
	g, err := git.New(git.Config{User: c.User, Password: c.Password.Read, KeyFile: c.KeyFile, KnownHosts: c.KnownHosts, Dir: c.Dir, Timeout: c.Timeout})
	if err != nil {
		return nil, fmt.Errorf("set up the forge git: %w", err)
	}
	if c.Author.Name == "" {
		c.Author = object.Person{Name: "Cairn", Email: "cairn@localhost"}
	}
	return &Driver{Config: c, clock: d.Clock, git: g}, nil
}

func (d *Driver) address(repo string) (string, error) {
	if a, ok := d.Config.Repositories[repo]; ok {
		return a, nil
	}
	return "", fmt.Errorf("%.100q has no address in the configuration: %w", repo, forge.ErrNotFound)
}

// open makes the folder in which git works on a repository.
func (d *Driver) open(repo string) (*git.Repository, error) {
	address, err := d.address(repo)
	if err != nil {
		return nil, err
	}
	return d.git.Open(repo, address)
}

// Account implements [forge.Forge]; a git server does not say.
func (d *Driver) Account(context.Context) (string, error) {
	return "", fmt.Errorf("ask who we are: %w", forge.ErrUnsupported)
}

// Repositories implements [forge.Forge]: those that are configured.
func (d *Driver) Repositories(context.Context) ([]string, error) {
	return slices.Sorted(maps.Keys(d.Config.Repositories)), nil
}

// Repository implements [forge.Code]. Whether we may push shows when we do.
func (d *Driver) Repository(ctx context.Context, repo string) (forge.Repository, error) {
	w, err := d.open(repo)
	if err != nil {
		return forge.Repository{}, err
	}
	defer w.Close()
	out, err := w.Run(ctx, nil, "ls-remote", "--symref", "origin", "HEAD")
	if err != nil {
		return forge.Repository{}, err
	}
	for line := range strings.Lines(string(out)) {
		if to, ok := strings.CutPrefix(strings.TrimSpace(line), "ref: refs/heads/"); ok {
			if branch, _, ok := strings.Cut(to, "\t"); ok && forge.CheckBranch(branch) == nil {
				return forge.Repository{Name: repo, DefaultBranch: branch, CanPush: true}, nil
			}
		}
	}
	return forge.Repository{}, fmt.Errorf("%s does not say which branch is its default: is it empty? %w", repo, forge.ErrNotFound)
}

// Head implements [forge.Code].
func (d *Driver) Head(ctx context.Context, repo, branch string) (string, error) {
	if err := forge.CheckBranch(branch); err != nil {
		return "", err
	}
	w, err := d.open(repo)
	if err != nil {
		return "", err
	}
	defer w.Close()
	return headOf(ctx, w, branch)
}

func headOf(ctx context.Context, w *git.Repository, branch string) (string, error) {
	out, err := w.Run(ctx, nil, "ls-remote", "origin", "refs/heads/"+branch)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		if hash, ref, _ := strings.Cut(strings.TrimSpace(line), "\t"); ref == "refs/heads/"+branch && forge.CheckHash(hash) == nil {
			return hash, nil
		}
	}
	return "", fmt.Errorf("branch %s of %s: %w", branch, w.Name(), forge.ErrNotFound)
}

// Archive implements [forge.Code].
func (d *Driver) Archive(ctx context.Context, repo, commit string) (io.ReadCloser, error) {
	if err := forge.CheckHash(commit); err != nil {
		return nil, err
	}
	w, err := d.open(repo)
	if err != nil {
		return nil, err
	}
	if err := w.Fetch(ctx, false, commit); err != nil {
		w.Close()
		return nil, err
	}
	files, err := w.Files(ctx, commit)
	if err != nil {
		w.Close()
		return nil, err
	}
	return w.Archive(ctx, git.Tar{Top: filepath.Base(repo) + "-" + commit[:7]}, files), nil
}

// Changed implements [forge.Code]: it compares the two trees.
func (d *Driver) Changed(ctx context.Context, repo, from, to string) ([]string, bool, error) {
	if err := errors.Join(forge.CheckHash(from), forge.CheckHash(to)); err != nil {
		return nil, false, err
	}
	if from == to {
		return nil, true, nil
	}
	w, err := d.open(repo)
	if err != nil {
		return nil, false, err
	}
	defer w.Close()
	if err := w.Fetch(ctx, true, from, to); err != nil {
		return nil, false, err
	}
	out, err := w.Run(ctx, nil, "diff-tree", "-r", "-z", "--name-only", "--no-renames", from, to)
	if err != nil {
		return nil, false, err
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 }), true, nil
}

// File implements [forge.Code].
func (d *Driver) File(ctx context.Context, repo, commit, path string) ([]byte, error) {
	if err := errors.Join(forge.CheckHash(commit), forge.CheckPath(path)); err != nil {
		return nil, err
	}
	w, err := d.open(repo)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if err := w.Fetch(ctx, true, commit); err != nil {
		return nil, err
	}
	entries, err := w.List(ctx, commit, filepath.ToSlash(filepath.Dir(path)))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name == filepath.Base(path) && (e.Mode == object.ModeFile || e.Mode == object.ModeExecutable) {
			return w.Run(ctx, nil, "cat-file", "blob", e.Hash)
		}
	}
	return nil, fmt.Errorf("file %s of %s: %w", path, repo, forge.ErrNotFound)
}

// Commit implements [forge.Code].
func (d *Driver) Commit(ctx context.Context, repo string, c forge.Commit) (string, error) {
	if err := c.Check(); err != nil {
		return "", err
	}
	w, err := d.open(repo)
	if err != nil {
		return "", err
	}
	defer w.Close()
	if err := w.Fetch(ctx, true, c.Parent); err != nil {
		return "", err
	}
	f := object.FormatOf(c.Parent)
	objects, root, err := object.Splice(ctx, f, func(ctx context.Context, dir string) ([]object.Entry, error) { return w.List(ctx, c.Parent, dir) }, c.Files)
	if r := (*object.Refusal)(nil); errors.As(err, &r) {
		return "", fmt.Errorf("write %w: %w", err, forge.ErrInvalid)
	}
	if err != nil {
		return "", err
	}
	commit := object.EncodeCommit(root, []string{c.Parent}, d.Author, d.clock.Now(), c.Message)
	if _, err := w.Run(ctx, object.Pack(f, append(objects, commit)), "unpack-objects", "-q"); err != nil {
		return "", err
	}
	hash := f.Hash(commit)
	return hash, push(ctx, w, c.Branch, c.Head, hash)
}

// DeleteBranch implements [forge.Code].
func (d *Driver) DeleteBranch(ctx context.Context, repo, branch, head string) error {
	if err := errors.Join(forge.CheckBranch(branch), forge.CheckHash(head)); err != nil {
		return err
	}
	w, err := d.open(repo)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := headOf(ctx, w, branch); errors.Is(err, forge.ErrNotFound) {
		return nil
	}
	return push(ctx, w, branch, head, "")
}

// unsupported is what a git server has no idea of.
func unsupported(what string) error { return fmt.Errorf("%s: %w", what, forge.ErrUnsupported) }

// ListPulls implements [forge.Pulls].
func (d *Driver) ListPulls(context.Context, string, string, time.Time) ([]forge.Pull, error) {
	return nil, unsupported("list pull requests")
}

// CreatePull implements [forge.Pulls].
func (d *Driver) CreatePull(context.Context, string, forge.NewPull) (forge.Pull, error) {
	return forge.Pull{}, unsupported("open a pull request")
}

// EditPull implements [forge.Pulls].
func (d *Driver) EditPull(context.Context, string, int64, forge.PullEdit) (forge.Pull, error) {
	return forge.Pull{}, unsupported("edit a pull request")
}

// Comment implements [forge.Pulls].
func (d *Driver) Comment(context.Context, string, int64, string) error {
	return unsupported("comment on a pull request")
}

// Checks implements [forge.Pulls].
func (d *Driver) Checks(context.Context, string, string) (forge.CheckState, error) {
	return "", unsupported("ask for checks")
}

// Merge implements [forge.Pulls].
func (d *Driver) Merge(context.Context, string, int64, string) error {
	return unsupported("merge a pull request")
}

// EnsureIssue implements [forge.Issues].
func (d *Driver) EnsureIssue(context.Context, string, string, string) (string, error) {
	return "", unsupported("open an issue")
}

// CloseIssue implements [forge.Issues].
func (d *Driver) CloseIssue(context.Context, string, string) error {
	return unsupported("close an issue")
}
