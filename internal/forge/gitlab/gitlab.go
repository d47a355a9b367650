// Package gitlab drives GitLab by its API, version 4.
//
// It owns the shapes of that API and of its webhooks. It promises what package
// forge promises. Commits go over git's protocol: the commits API compares
// single files and not the branch's head, and overwrites a head that moved
// when it is told to force. So HTTP has to be among the protocols that the
// instance allows for git. It does not keep a clone.
package gitlab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
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
	// URL of the site, without /api; https://gitlab.com when empty.
	URL string
	// Token of a user, a group or a project, with the scope api and at least
	// the role Developer.
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
	push    push.Server
	account rest.Memo[string, user]
	ids     rest.Memo[string, int64]
}

var (
	_ forge.Forge = (*Driver)(nil)
	_ forge.Hooks = (*Driver)(nil)
)

const (
	api      = "/api/v4"
	maxPages = 100
	// developer is the least role that may push branches (access levels of the API).
	developer = 30
	// maxDiffs is how many files a comparison tells at least, if there are more.
	maxDiffs = 1000
)

// New returns a driver. It contacts nobody.
func New(c Config, d Deps) (*Driver, error) {
	g := &Driver{}
	var err error
	g.rest, err = rest.New(rest.Config{URL: cmp.Or(c.URL, "https://gitlab.com"), CAs: c.CAs, Timeout: c.Timeout, Clock: d.Clock,
		Classify: func(s *rest.StatusError) error {
			if s.Status == http.StatusForbidden && strings.Contains(strings.ToLower(s.Message), "archived") {
				return forge.ErrArchived
			}
			return nil
		},
		Sign: func(_ context.Context, _ string, h http.Header) error {
			token, err := c.Token.Read()
			if err == nil && token != "" {
				h.Set("Private-Token", token)
			}
			return err
		}})
	if err != nil {
		return nil, fmt.Errorf("set up the forge gitlab: %w", err)
	}
	// Any name goes with a token; this one goes with tokens of OAuth, too.
	g.push = push.Server{Client: g.rest, Clock: d.Clock, User: "oauth2", Password: c.Token}
	return g, nil
}

// project is the API's path of something in a project. The project's whole
// name, groups in groups included, is one escaped segment.
func project(repo string, segments ...string) (string, error) {
	if err := forge.CheckRepository(repo); err != nil {
		return "", err
	}
	return api + "/projects" + rest.Path(append([]string{repo}, segments...)...), nil
}

// ask puts a question about a project.
func (g *Driver) ask(ctx context.Context, method, repo string, query url.Values, body, into any, segments ...string) error {
	p, err := project(repo, segments...)
	if err != nil {
		return err
	}
	return g.rest.JSON(ctx, rest.Request{Method: method, Path: p, Query: query, Body: body}, into)
}

// list collects all pages of a list.
func list[T any](ctx context.Context, g *Driver, path string, query url.Values) (all []T, whole bool, err error) {
	query.Set("per_page", "100")
	whole, err = g.rest.Pages(ctx, rest.Request{Path: path, Query: query}, maxPages, func(page json.RawMessage) (bool, error) {
		var some []T
		err := json.Unmarshal(page, &some)
		all = append(all, some...)
		return true, err
	})
	return all, whole, err
}

type user struct {
	ID          int64  `json:"id"`
	Username    string `json:"username"`
	Name        string `json:"name"`
	Email       string `json:"email"`
	CommitEmail string `json:"commit_email"`
}

func (g *Driver) self(ctx context.Context) (user, error) {
	return g.account.Get("", func() (u user, err error) {
		err = g.rest.JSON(ctx, rest.Request{Path: api + "/user"}, &u)
		if err == nil && u.Username == "" {
			err = &forge.LaterError{Err: errors.New("ask who we are: the answer names nobody")}
		}
		return u, err
	})
}

// Account implements [forge.Forge].
func (g *Driver) Account(ctx context.Context) (string, error) {
	u, err := g.self(ctx)
	return u.Username, err
}

type repository struct {
	Path          string `json:"path_with_namespace"`
	DefaultBranch string `json:"default_branch"`
	Archived      bool   `json:"archived"`
	WebURL        string `json:"web_url"`
	Permissions   struct {
		Project *access `json:"project_access"`
		Group   *access `json:"group_access"`
	} `json:"permissions"`
}

type access struct {
	Level int `json:"access_level"`
}

// Repositories implements [forge.Forge].
func (g *Driver) Repositories(ctx context.Context) ([]string, error) {
	all, whole, err := list[repository](ctx, g, api+"/projects", url.Values{"membership": {"true"}, "archived": {"false"},
		"min_access_level": {fmt.Sprint(developer)}, "simple": {"true"}, "pagination": {"keyset"}, "order_by": {"id"}})
	if err != nil {
		return nil, err
	}
	if !whole {
		return nil, fmt.Errorf("list projects: there are more than %d; name them in the configuration: %w", len(all), forge.ErrInvalid)
	}
	names := make([]string, len(all))
	for i, r := range all {
		names[i] = r.Path
	}
	return names, nil
}

// Repository implements [forge.Code].
func (g *Driver) Repository(ctx context.Context, repo string) (forge.Repository, error) {
	var r repository
	if err := g.ask(ctx, "GET", repo, nil, nil, &r); err != nil {
		return forge.Repository{}, err
	}
	level := 0
	for _, a := range []*access{r.Permissions.Project, r.Permissions.Group} {
		if a != nil {
			level = max(level, a.Level)
		}
	}
	return forge.Repository{Name: r.Path, DefaultBranch: r.DefaultBranch, Archived: r.Archived, CanPush: level >= developer && !r.Archived, URL: r.WebURL}, nil
}

// Head implements [forge.Code].
func (g *Driver) Head(ctx context.Context, repo, branch string) (string, error) {
	if err := forge.CheckBranch(branch); err != nil {
		return "", err
	}
	var b struct {
		Commit struct {
			ID string `json:"id"`
		} `json:"commit"`
	}
	if err := g.ask(ctx, "GET", repo, nil, nil, &b, "repository", "branches", branch); err != nil {
		return "", err
	}
	if err := forge.CheckHash(b.Commit.ID); err != nil {
		return "", &forge.LaterError{Err: fmt.Errorf("head of %s of %s: %w", branch, repo, err)}
	}
	return b.Commit.ID, nil
}

// Archive implements [forge.Code]. GitLab.com makes five a minute; the answer
// to a sixth is a [forge.LaterError].
func (g *Driver) Archive(ctx context.Context, repo, commit string) (io.ReadCloser, error) {
	if err := forge.CheckHash(commit); err != nil {
		return nil, err
	}
	p, err := project(repo, "repository", "archive.tar.gz")
	if err != nil {
		return nil, err
	}
	return g.rest.Stream(ctx, rest.Request{Path: p, Query: url.Values{"sha": {commit}}, Header: map[string]string{"Accept": "*/*"}})
}

// File implements [forge.Code].
func (g *Driver) File(ctx context.Context, repo, commit, path string) ([]byte, error) {
	if err := errors.Join(forge.CheckHash(commit), forge.CheckPath(path)); err != nil {
		return nil, err
	}
	p, err := project(repo, "repository", "files", path, "raw")
	if err != nil {
		return nil, err
	}
	b, _, err := g.rest.Bytes(ctx, rest.Request{Path: p, Query: url.Values{"ref": {commit}}, Header: map[string]string{"Accept": "*/*"}})
	return b, err
}

// Changed implements [forge.Code].
func (g *Driver) Changed(ctx context.Context, repo, from, to string) ([]string, bool, error) {
	if err := errors.Join(forge.CheckHash(from), forge.CheckHash(to)); err != nil {
		return nil, false, err
	}
	if from == to {
		return nil, true, nil
	}
	var c struct {
		Timeout bool `json:"compare_timeout"`
		Diffs   []struct {
			Old string `json:"old_path"`
			New string `json:"new_path"`
		} `json:"diffs"`
	}
	// straight: the two trees, and not the second one and where they parted.
	if err := g.ask(ctx, "GET", repo, url.Values{"from": {from}, "to": {to}, "straight": {"true"}}, nil, &c, "repository", "compare"); err != nil {
		return nil, false, err
	}
	var paths []string
	for _, d := range c.Diffs {
		paths = append(paths, d.New)
		if d.Old != d.New && d.Old != "" {
			paths = append(paths, d.Old)
		}
	}
	return paths, !c.Timeout && len(c.Diffs) < maxDiffs, nil
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
	// Push rules may want an address of the account that pushes.
	by := object.Person{Name: cmp.Or(u.Name, u.Username), Email: cmp.Or(u.CommitEmail, u.Email)}
	hash, err := g.push.Commit(ctx, git, c, by, func(ctx context.Context, dir string) ([]object.Entry, error) {
		return g.folder(ctx, repo, c.Parent, dir)
	})
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

// gitPath is where git finds a project.
func gitPath(repo string) (string, error) {
	if err := forge.CheckRepository(repo); err != nil {
		return "", err
	}
	return rest.Path(strings.Split(repo, "/")...) + ".git", nil
}

// folder lists a folder of a commit.
func (g *Driver) folder(ctx context.Context, repo, commit, dir string) ([]object.Entry, error) {
	p, err := project(repo, "repository", "tree")
	if err != nil {
		return nil, err
	}
	type entry struct {
		ID, Name, Mode string
	}
	all, whole, err := list[entry](ctx, g, p, url.Values{"ref": {commit}, "path": {dir}, "pagination": {"keyset"}})
	if err != nil {
		return nil, err
	}
	if !whole {
		return nil, fmt.Errorf("list folder %q of %s: it has more than %d entries: %w", dir, repo, len(all), forge.ErrInvalid)
	}
	entries := make([]object.Entry, len(all))
	for i, e := range all {
		entries[i] = object.Entry{Name: e.Name, Mode: strings.TrimLeft(e.Mode, "0"), Hash: e.ID}
	}
	return entries, nil
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
	if r, rerr := g.Repository(ctx, repo); rerr == nil && r.Archived {
		return fmt.Errorf("%w: %s: %w", err, repo, forge.ErrArchived)
	}
	return fmt.Errorf("%w; is %s protected from us? %w", err, branch, forge.ErrForbidden)
}
