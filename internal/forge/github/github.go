// Package github drives GitHub, and GitHub Enterprise, by its REST and GraphQL
// APIs.
//
// It owns the shapes of those APIs and of the webhooks, and signing on as a
// GitHub App or with a token. It promises what package forge promises: a branch
// moves from the head that was named or not at all (expectedHeadOid, beforeOid).
// Commits are made by GitHub and so bear its signature wherever it signs them.
// It needs no right to workflows, does not ask for one, and keeps no clone.
package github

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
	"cairn.dev/cairn/internal/forge/rest"
)

// Config of a [Driver].
type Config struct {
	// URL of the site, for people: https://github.com when empty.
	URL string
	// Token of an account that works for us; contents and pull requests to
	// write, issues to write, checks and statuses to read. Or an App.
	Token rest.Secret
	App   App
	CAs   []byte // certificates to trust besides the system's, PEM
	// Timeout of an answer; a minute when zero.
	Timeout time.Duration
}

// An App is a GitHub App that works for us.
type App struct {
	ID  string      // client ID, or the number
	Key rest.Secret // its private key, PEM
}

// Deps of a [Driver].
type Deps struct{ Clock clock.Clock }

// A Driver speaks to one site. It is safe for concurrent use.
type Driver struct {
	rest    *rest.Client
	api     string // what REST's paths begin with
	graphql string
	app     *app // nil with a token
	account rest.Memo[string, string]
	closers rest.Memo[closed, string]
}

var (
	_ forge.Forge = (*Driver)(nil)
	_ forge.Hooks = (*Driver)(nil)
)

const maxPages = 100

// New returns a driver. It contacts nobody.
func New(c Config, d Deps) (*Driver, error) {
	site, err := url.Parse(strings.TrimRight(cmp.Or(c.URL, "https://github.com"), "/"))
	if err != nil || site.Path != "" {
		return nil, fmt.Errorf("set up the forge github: %.200q is no URL of a site: write https://github.com", c.URL)
	}
	g := &Driver{api: "/api/v3", graphql: "/api/graphql"}
	if site.Host == "github.com" || strings.HasSuffix(site.Host, ".ghe.com") {
		site.Host, g.api, g.graphql = "api."+site.Host, "", "/graphql"
	}
	config := rest.Config{URL: site.String(), CAs: c.CAs, Timeout: c.Timeout, Clock: d.Clock, Classify: classify}
	if c.App.ID != "" {
		if c.Token.Given() {
			return nil, errors.New("set up the forge github: there are an app and a token: use one of them")
		}
		if g.app, err = newApp(c.App, config, g.api); err != nil {
			return nil, fmt.Errorf("set up the forge github: %w", err)
		}
	}
	config.Sign = func(ctx context.Context, repo string, h http.Header) error {
		h.Set("X-GitHub-Api-Version", "2022-11-28")
		read := c.Token.Read
		if g.app != nil {
			read = func() (string, error) { return g.app.token(ctx, repo) }
		}
		token, err := read()
		if err == nil && token != "" {
			h.Set("Authorization", "Bearer "+token)
		}
		return err
	}
	if g.rest, err = rest.New(config); err != nil {
		return nil, fmt.Errorf("set up the forge github: %w", err)
	}
	return g, nil
}

// classify reads GitHub's own meanings.
func classify(s *rest.StatusError) error {
	if s.Status == http.StatusForbidden && strings.Contains(strings.ToLower(s.Message), "archived") {
		return forge.ErrArchived
	}
	return nil
}

// path of something in a repository.
func (g *Driver) path(repo string, segments ...string) (string, error) {
	owner, name, err := forge.SplitRepository(repo)
	if err != nil {
		return "", err
	}
	return g.api + "/repos" + rest.Path(append([]string{owner, name}, segments...)...), nil
}

// within is a path of several segments that stay segments.
func within(p string) string { return rest.Path(strings.Split(p, "/")...) }

// ask puts a question about a repository.
func (g *Driver) ask(ctx context.Context, method, repo string, query url.Values, body, into any, segments ...string) error {
	p, err := g.path(repo, segments...)
	if err != nil {
		return err
	}
	return g.rest.JSON(ctx, rest.Request{Method: method, Path: p, Query: query, Body: body, As: repo}, into)
}

// list collects pages of a list; more, unless nil, says whether the next is wanted.
func list[T any](ctx context.Context, g *Driver, r rest.Request, more func([]T) bool) (all []T, whole bool, err error) {
	if r.Query == nil {
		r.Query = url.Values{}
	}
	r.Query.Set("per_page", "100")
	whole, err = g.rest.Pages(ctx, r, maxPages, func(page json.RawMessage) (bool, error) {
		var some []T
		err := json.Unmarshal(page, &some)
		all = append(all, some...)
		return more == nil || more(some), err
	})
	return all, whole, err
}

// Account implements [forge.Forge].
func (g *Driver) Account(ctx context.Context) (string, error) {
	return g.account.Get("", func() (string, error) {
		if g.app != nil {
			return g.app.account(ctx)
		}
		var u user
		err := g.rest.JSON(ctx, rest.Request{Path: g.api + "/user"}, &u)
		if err == nil && u.Login == "" {
			err = &forge.LaterError{Err: errors.New("ask who we are: the answer names nobody")}
		}
		return u.Login, err
	})
}

type user struct {
	Login string `json:"login"`
}

type repository struct {
	FullName      string `json:"full_name"`
	DefaultBranch string `json:"default_branch"`
	Archived      bool   `json:"archived"`
	HTMLURL       string `json:"html_url"`
	Permissions   struct {
		Push bool `json:"push"`
	} `json:"permissions"`
	// How pull requests may be merged; not told to everybody.
	MergeCommit *bool `json:"allow_merge_commit"`
	Squash      *bool `json:"allow_squash_merge"`
	Rebase      *bool `json:"allow_rebase_merge"`
}

// writable: an app's rights are not the account's that are told here; that it
// may not write shows when it does.
func (g *Driver) writable(r repository) bool {
	return (r.Permissions.Push || g.app != nil) && !r.Archived
}

// Repositories implements [forge.Forge].
func (g *Driver) Repositories(ctx context.Context) ([]string, error) {
	var all []repository
	if g.app == nil {
		some, whole, err := list[repository](ctx, g, rest.Request{Path: g.api + "/user/repos"}, nil)
		if err != nil {
			return nil, err
		}
		if !whole {
			return nil, fmt.Errorf("list repositories: there are more than %d; name them in the configuration: %w", len(some), forge.ErrInvalid)
		}
		all = some
	} else {
		var err error
		if all, err = g.app.repositories(ctx); err != nil {
			return nil, err
		}
	}
	var names []string
	for _, r := range all {
		if g.writable(r) {
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
	return forge.Repository{Name: r.FullName, DefaultBranch: r.DefaultBranch, Archived: r.Archived, CanPush: g.writable(r), URL: r.HTMLURL}, err
}

// Head implements [forge.Code].
func (g *Driver) Head(ctx context.Context, repo, branch string) (string, error) {
	if err := forge.CheckBranch(branch); err != nil {
		return "", err
	}
	p, err := g.path(repo, "git", "ref", "heads")
	if err != nil {
		return "", err
	}
	var ref struct {
		Object struct {
			SHA string `json:"sha"`
		} `json:"object"`
	}
	err = g.rest.JSON(ctx, rest.Request{Path: p + within(branch), As: repo}, &ref)
	if rest.Status(err) == http.StatusConflict { // the repository is empty
		return "", fmt.Errorf("branch %s of %s: %w", branch, repo, forge.ErrNotFound)
	}
	if err != nil {
		return "", err
	}
	if err := forge.CheckHash(ref.Object.SHA); err != nil {
		return "", &forge.LaterError{Err: fmt.Errorf("head of %s of %s: %w", branch, repo, err)}
	}
	return ref.Object.SHA, nil
}

// Archive implements [forge.Code].
func (g *Driver) Archive(ctx context.Context, repo, commit string) (io.ReadCloser, error) {
	if err := forge.CheckHash(commit); err != nil {
		return nil, err
	}
	p, err := g.path(repo, "tarball", commit)
	if err != nil {
		return nil, err
	}
	return g.rest.Stream(ctx, rest.Request{Path: p, As: repo, Header: map[string]string{"Accept": "*/*"}})
}

// File implements [forge.Code].
func (g *Driver) File(ctx context.Context, repo, commit, path string) ([]byte, error) {
	if err := errors.Join(forge.CheckHash(commit), forge.CheckPath(path)); err != nil {
		return nil, err
	}
	p, err := g.path(repo, "contents")
	if err != nil {
		return nil, err
	}
	const raw = "application/vnd.github.raw+json"
	b, t, err := g.rest.Bytes(ctx, rest.Request{Path: p + within(path), Query: url.Values{"ref": {commit}}, As: repo, Header: map[string]string{"Accept": raw}})
	if err == nil && !strings.Contains(t, "raw") { // of a folder comes a list
		return nil, fmt.Errorf("%s in %s is no file: %w", path, repo, forge.ErrNotFound)
	}
	return b, err
}

// maxFiles is how many files a comparison tells.
const maxFiles = 300

// Changed implements [forge.Code].
func (g *Driver) Changed(ctx context.Context, repo, from, to string) ([]string, bool, error) {
	if err := errors.Join(forge.CheckHash(from), forge.CheckHash(to)); err != nil {
		return nil, false, err
	}
	var c struct {
		Status string `json:"status"`
		Files  []struct {
			Filename string `json:"filename"`
			Previous string `json:"previous_filename"`
		} `json:"files"`
	}
	// All files come with the first page of commits, which are not wanted.
	err := g.ask(ctx, "GET", repo, url.Values{"per_page": {"1"}}, nil, &c, "compare", from+"..."+to)
	if err != nil {
		return nil, false, err
	}
	var paths []string
	for _, f := range c.Files {
		paths = append(paths, f.Filename)
		if f.Previous != "" {
			paths = append(paths, f.Previous)
		}
	}
	// It compares with where the two parted: that is from if to is ahead of it.
	return paths, (c.Status == "ahead" || c.Status == "identical") && len(c.Files) < maxFiles, nil
}
