// Package gitea drives Gitea and Forgejo by their API, version 1.
//
// It owns the shapes of that API and of its webhooks. It promises what package
// forge promises; commits go over git's protocol, because the API that writes
// files compares blobs and not the branch's head, and leaves a half-made
// branch when it is stopped. It asks nothing that Forgejo 1.20 or Gitea 1.20
// does not have. It does not keep a clone.
package gitea

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/object"
	"cairn.dev/cairn/internal/forge/push"
	"cairn.dev/cairn/internal/forge/rest"
)

// Config of a [Driver].
type Config struct {
	// URL of the site, without /api: https://git.example.org.
	URL string
	// Token of the account that works for us. Scopes: read:user,
	// write:repository, write:issue.
	Token rest.Secret
	CAs   []byte // certificates to trust besides the system's, PEM
	// Timeout of an answer; a minute when zero.
	Timeout time.Duration
}

// Deps of a [Driver].
type Deps struct{ Clock clock.Clock }

// A Driver speaks to one site. It is safe for concurrent use.
type Driver struct {
	rest    *rest.Client
	clock   clock.Clock
	push    push.Server
	account rest.Memo[string, user]
	closers rest.Memo[closed, string]
}

var (
	_ forge.Forge = (*Driver)(nil)
	_ forge.Hooks = (*Driver)(nil)
)

const (
	api      = "/api/v1"
	pageSize = 50 // the most that a site allows by default
	maxPages = 100
)

// New returns a driver. It contacts nobody.
func New(c Config, d Deps) (*Driver, error) {
	g := &Driver{clock: d.Clock}
	var err error
	g.rest, err = rest.New(rest.Config{URL: c.URL, CAs: c.CAs, Timeout: c.Timeout, Clock: d.Clock, Classify: classify,
		Sign: func(_ context.Context, _ string, h http.Header) error {
			token, err := c.Token.Read()
			if err == nil && token != "" {
				h.Set("Authorization", "token "+token)
			}
			return err
		}})
	if err != nil {
		return nil, fmt.Errorf("set up the forge gitea: %w", err)
	}
	// A token signs on whoever is named beside it.
	g.push = push.Server{Client: g.rest, Clock: d.Clock, User: "cairn", Password: c.Token}
	return g, nil
}

// classify reads Gitea's own meanings.
func classify(s *rest.StatusError) error {
	m := strings.ToLower(s.Message)
	if s.Status == http.StatusForbidden && strings.Contains(m, "archived") {
		return forge.ErrArchived
	}
	return nil
}

// repoPath is the API's path of something in a repository; the segments are
// escaped, slashes included.
func repoPath(repo string, segments ...string) (string, error) {
	owner, name, err := forge.SplitRepository(repo)
	if err != nil {
		return "", err
	}
	return api + "/repos" + rest.Path(append([]string{owner, name}, segments...)...), nil
}

// within is a path of several segments that stay segments.
func within(p string) string { return strings.TrimPrefix(rest.Path(strings.Split(p, "/")...), "/") }

// ask puts a question about a repository.
func (g *Driver) ask(ctx context.Context, method, repo string, query url.Values, body, into any, segments ...string) error {
	p, err := repoPath(repo, segments...)
	if err != nil {
		return err
	}
	return g.rest.JSON(ctx, rest.Request{Method: method, Path: p, Query: query, Body: body}, into)
}

// list collects all pages of a list; more says whether the next is wanted.
func list[T any](ctx context.Context, g *Driver, path string, query url.Values, more func([]T) bool) (all []T, whole bool, err error) {
	if query == nil {
		query = url.Values{}
	}
	query.Set("limit", fmt.Sprint(pageSize))
	whole, err = g.rest.Pages(ctx, rest.Request{Path: path, Query: query}, maxPages, func(page json.RawMessage) (bool, error) {
		var some []T
		err := json.Unmarshal(page, &some)
		all = append(all, some...)
		return more == nil || more(some), err
	})
	return all, whole, err
}

type user struct {
	Login    string `json:"login"`
	FullName string `json:"full_name"`
	Email    string `json:"email"`
}

func (g *Driver) self(ctx context.Context) (user, error) {
	return g.account.Get("", func() (u user, err error) {
		err = g.rest.JSON(ctx, rest.Request{Path: api + "/user"}, &u)
		if err == nil && u.Login == "" {
			err = &forge.LaterError{Err: errors.New("ask who we are: the answer names nobody")}
		}
		return u, err
	})
}

// Account implements [forge.Forge].
func (g *Driver) Account(ctx context.Context) (string, error) {
	u, err := g.self(ctx)
	return u.Login, err
}

type repository struct {
	FullName      string `json:"full_name"`
	DefaultBranch string `json:"default_branch"`
	Archived      bool   `json:"archived"`
	Mirror        bool   `json:"mirror"`
	HTMLURL       string `json:"html_url"`
	MergeStyle    string `json:"default_merge_style"`
	Permissions   struct {
		Push bool `json:"push"`
	} `json:"permissions"`
}

func (r repository) writable() bool { return r.Permissions.Push && !r.Archived && !r.Mirror }

// Repositories implements [forge.Forge].
func (g *Driver) Repositories(ctx context.Context) ([]string, error) {
	all, whole, err := list[repository](ctx, g, api+"/user/repos", nil, nil)
	if err != nil {
		return nil, err
	}
	if !whole {
		return nil, fmt.Errorf("list repositories: there are more than %d; name them in the configuration: %w", len(all), forge.ErrInvalid)
	}
	var names []string
	for _, r := range all {
		if r.writable() {
			names = append(names, r.FullName)
		}
	}
	return names, nil
}

func (g *Driver) repository(ctx context.Context, repo string) (r repository, err error) {
	err = g.ask(ctx, "GET", repo, nil, nil, &r)
	return r, err
}

// Repository implements [forge.Code].
func (g *Driver) Repository(ctx context.Context, repo string) (forge.Repository, error) {
	r, err := g.repository(ctx, repo)
	return forge.Repository{Name: r.FullName, DefaultBranch: r.DefaultBranch, Archived: r.Archived, CanPush: r.writable(), URL: r.HTMLURL}, err
}

// Head implements [forge.Code]. It reads the reference: the list of branches
// lags behind pushes.
func (g *Driver) Head(ctx context.Context, repo, branch string) (string, error) {
	if err := forge.CheckBranch(branch); err != nil {
		return "", err
	}
	p, err := repoPath(repo, "git", "refs", "heads")
	if err != nil {
		return "", err
	}
	var refs json.RawMessage
	if err := g.rest.JSON(ctx, rest.Request{Path: p + "/" + within(branch)}, &refs); err != nil {
		return "", err
	}
	type ref struct {
		Ref    string `json:"ref"`
		Object struct {
			SHA string `json:"sha"`
		} `json:"object"`
	}
	// All that begin with the name; one alone comes without a list.
	var some []ref
	if json.Unmarshal(refs, &some) != nil {
		some = make([]ref, 1)
		if err := json.Unmarshal(refs, &some[0]); err != nil {
			return "", &forge.LaterError{Err: fmt.Errorf("read the head of %s: %w", branch, err)}
		}
	}
	for _, r := range some {
		if r.Ref == "refs/heads/"+branch && forge.CheckHash(r.Object.SHA) == nil {
			return r.Object.SHA, nil
		}
	}
	return "", fmt.Errorf("branch %s of %s: %w", branch, repo, forge.ErrNotFound)
}

// Archive implements [forge.Code].
func (g *Driver) Archive(ctx context.Context, repo, commit string) (io.ReadCloser, error) {
	if err := forge.CheckHash(commit); err != nil {
		return nil, err
	}
	p, err := repoPath(repo, "archive", commit+".tar.gz")
	if err != nil {
		return nil, err
	}
	body, err := g.rest.Stream(ctx, rest.Request{Path: p, Header: map[string]string{"Accept": "*/*"}})
	return body, g.missing(ctx, err, repo, "git", "commits", commit)
}

// missing makes sense of a failure: for some things that are not there Gitea
// answers 500, as if it were broken.
func (g *Driver) missing(ctx context.Context, err error, repo string, segments ...string) error {
	if rest.Status(err) == http.StatusInternalServerError {
		if gone := g.ask(ctx, "GET", repo, nil, nil, nil, segments...); errors.Is(gone, forge.ErrNotFound) {
			return gone
		}
	}
	return err
}

// File implements [forge.Code].
func (g *Driver) File(ctx context.Context, repo, commit, path string) ([]byte, error) {
	if err := errors.Join(forge.CheckHash(commit), forge.CheckPath(path)); err != nil {
		return nil, err
	}
	p, err := repoPath(repo, "raw")
	if err != nil {
		return nil, err
	}
	b, _, err := g.rest.Bytes(ctx, rest.Request{Path: p + "/" + within(path), Query: url.Values{"ref": {commit}}, Header: map[string]string{"Accept": "*/*"}})
	return b, err
}

// comparison of two commits: those that the second has and the first has not.
type comparison struct {
	Total   int `json:"total_commits"`
	Commits []struct {
		Parents []struct{} `json:"parents"`
		Files   []struct {
			Filename string `json:"filename"`
		} `json:"files"`
	} `json:"commits"`
}

// Changed implements [forge.Code]. Gitea lists files by commit; a merge hides
// what it changed itself, and what only from has is not in the list.
func (g *Driver) Changed(ctx context.Context, repo, from, to string) ([]string, bool, error) {
	if err := errors.Join(forge.CheckHash(from), forge.CheckHash(to)); err != nil {
		return nil, false, err
	}
	if from == to {
		return nil, true, nil
	}
	var there, back comparison
	if err := g.ask(ctx, "GET", repo, url.Values{"verification": {"false"}}, nil, &there, "compare", from+"..."+to); err != nil {
		return nil, false, err
	}
	if err := g.ask(ctx, "GET", repo, url.Values{"verification": {"false"}, "files": {"false"}}, nil, &back, "compare", to+"..."+from); err != nil {
		return nil, false, err
	}
	paths, whole := map[string]bool{}, there.Total == len(there.Commits) && back.Total == 0
	for _, c := range there.Commits {
		whole = whole && len(c.Parents) == 1
		for _, f := range c.Files {
			paths[f.Filename] = true
		}
	}
	list := make([]string, 0, len(paths))
	for p := range paths {
		list = append(list, p)
	}
	slices.Sort(list)
	return list, whole, nil
}

// Commit implements [forge.Code].
func (g *Driver) Commit(ctx context.Context, repo string, c forge.Commit) (string, error) {
	if err := c.Check(); err != nil {
		return "", err
	}
	git, err := gitPath(repo)
	if err != nil {
		return "", err
	}
	u, err := g.self(ctx)
	if err != nil {
		return "", err
	}
	by := object.Person{Name: u.FullName, Email: u.Email}
	if by.Name == "" {
		by.Name = u.Login
	}
	hash, err := g.push.Commit(ctx, git, c, by, g.folders(repo, c.Parent))
	if err != nil {
		return "", g.why(ctx, repo, c.Branch, c.Head, err)
	}
	return hash, nil
}

// DeleteBranch implements [forge.Code].
func (g *Driver) DeleteBranch(ctx context.Context, repo, branch, head string) error {
	if err := errors.Join(forge.CheckBranch(branch), forge.CheckHash(head)); err != nil {
		return err
	}
	git, err := gitPath(repo)
	if err != nil {
		return err
	}
	if err := g.push.Delete(ctx, git, branch, head); err != nil {
		if errors.Is(err, push.ErrRefused) {
			if _, gone := g.Head(ctx, repo, branch); errors.Is(gone, forge.ErrNotFound) {
				return nil
			}
		}
		return g.why(ctx, repo, branch, head, err)
	}
	return nil
}

func gitPath(repo string) (string, error) {
	p, err := repoPath(repo)
	return strings.TrimPrefix(p, api+"/repos") + ".git", err
}

// why finds out why a push was refused: git's answer does not say.
func (g *Driver) why(ctx context.Context, repo, branch, head string, err error) error {
	if !errors.Is(err, push.ErrRefused) && !errors.Is(err, forge.ErrForbidden) {
		return err
	}
	at, herr := g.Head(ctx, repo, branch)
	if herr != nil && !errors.Is(herr, forge.ErrNotFound) {
		return fmt.Errorf("%w; and its head cannot be read: %w", err, herr)
	}
	if at != head {
		return fmt.Errorf("%w: %s of %s is at %q, not at %q: %w", err, branch, repo, at, head, forge.ErrMoved)
	}
	if r, rerr := g.repository(ctx, repo); rerr == nil && r.Archived {
		return fmt.Errorf("%w: %s: %w", err, repo, forge.ErrArchived)
	}
	return fmt.Errorf("%w; is %s protected from us? %w", err, branch, forge.ErrForbidden)
}

// folders lists folders of a commit: each is asked for by its hash, which its
// parent's list told.
func (g *Driver) folders(repo, commit string) object.List {
	known := map[string]string{"": commit}
	return func(ctx context.Context, dir string) ([]object.Entry, error) {
		type tree struct {
			Entries []struct {
				Path, Mode, SHA string
			} `json:"tree"`
			Total int `json:"total_count"`
		}
		var entries []object.Entry
		for page := 1; ; page++ {
			var t tree
			if err := g.ask(ctx, "GET", repo, url.Values{"page": {fmt.Sprint(page)}, "per_page": {"1000"}}, nil, &t, "git", "trees", known[dir]); err != nil {
				return nil, err
			}
			for _, e := range t.Entries {
				mode := strings.TrimLeft(e.Mode, "0")
				entries = append(entries, object.Entry{Name: e.Path, Mode: mode, Hash: e.SHA})
				if mode == object.ModeTree {
					known[strings.TrimPrefix(dir+"/"+e.Path, "/")] = e.SHA
				}
			}
			if len(entries) >= t.Total {
				return entries, nil
			}
			if len(t.Entries) == 0 || page > maxPages {
				return nil, &forge.LaterError{Err: fmt.Errorf("list %q of %s: %d of %d entries came", dir, commit, len(entries), t.Total)}
			}
		}
	}
}
