package gitea

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/rest"
)

type ref struct {
	Label  string `json:"label"`
	Ref    string `json:"ref"`
	SHA    string `json:"sha"`
	RepoID int64  `json:"repo_id"`
}

type pull struct {
	Number  int64     `json:"number"`
	Title   string    `json:"title"`
	Body    string    `json:"body"`
	State   string    `json:"state"`
	Merged  bool      `json:"merged"`
	Base    ref       `json:"base"`
	Head    ref       `json:"head"`
	User    user      `json:"user"`
	Labels  []label   `json:"labels"`
	Updated time.Time `json:"updated_at"`
	HTMLURL string    `json:"html_url"`
}

type label struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
}

// branch is where the pull request comes from. Once the branch is gone its
// reference is another one, and only the label tells.
func (p pull) branch() string {
	if strings.HasPrefix(p.Head.Ref, "refs/") {
		return p.Head.Label
	}
	return p.Head.Ref
}

func (p pull) forge() forge.Pull {
	f := forge.Pull{Number: p.Number, Title: p.Title, Body: p.Body, Branch: p.branch(), Head: p.Head.SHA, Base: p.Base.Ref,
		Open: p.State == "open", Merged: p.Merged, Author: p.User.Login, UpdatedAt: p.Updated, URL: p.HTMLURL}
	for _, l := range p.Labels {
		f.Labels = append(f.Labels, l.Name)
	}
	return f
}

// closed is one closing of a pull request.
type closed struct {
	repo   string
	number int64
	at     time.Time
}

// ListPulls implements [forge.Pulls]. Pull requests from forks are nobody's of
// ours, whatever their branch is called.
func (g *Driver) ListPulls(ctx context.Context, repo, prefix string, since time.Time) ([]forge.Pull, error) {
	p, err := repoPath(repo, "pulls")
	if err != nil {
		return nil, err
	}
	open, whole, err := list[pull](ctx, g, p, url.Values{"state": {"open"}}, nil)
	if err != nil {
		return nil, err
	}
	if !whole {
		return nil, fmt.Errorf("list pull requests of %s: more than %d are open: %w", repo, len(open), forge.ErrInvalid)
	}
	old, _, err := list(ctx, g, p, url.Values{"state": {"closed"}, "sort": {"recentupdate"}}, func(some []pull) bool {
		return len(some) > 0 && !some[len(some)-1].Updated.Before(since)
	})
	if err != nil {
		return nil, err
	}
	var pulls []forge.Pull
	seen := map[int64]bool{} // one may be closed, or pages may shift, while they are read
	for _, p := range append(open, old...) {
		if p.Head.RepoID != p.Base.RepoID || !strings.HasPrefix(p.branch(), prefix) || p.State != "open" && p.Updated.Before(since) || seen[p.Number] {
			continue
		}
		seen[p.Number] = true
		f := p.forge()
		if !f.Open && !f.Merged {
			if f.ClosedBy, err = g.closers.Get(closed{repo, p.Number, p.Updated}, func() (string, error) { return g.closer(ctx, repo, p.Number) }); err != nil {
				return nil, err
			}
		}
		pulls = append(pulls, f)
	}
	slices.SortFunc(pulls, func(a, b forge.Pull) int { return int(b.Number - a.Number) })
	return pulls, nil
}

// closer is who closed a pull request last.
func (g *Driver) closer(ctx context.Context, repo string, number int64) (who string, err error) {
	p, err := repoPath(repo, "issues", fmt.Sprint(number), "timeline")
	if err != nil {
		return "", err
	}
	type event struct {
		Type string `json:"type"`
		User *user  `json:"user"`
	}
	events, _, err := list[event](ctx, g, p, nil, nil)
	for _, e := range events {
		if e.Type == "close" && e.User != nil {
			who = e.User.Login
		}
	}
	return who, err
}

const (
	// settles is how often, and settlePause how long, a pull request waits for a
	// branch that was just pushed: Gitea takes it up behind its answer.
	settles     = 8
	settlePause = 150 * time.Millisecond
)

// CreatePull implements [forge.Pulls].
func (g *Driver) CreatePull(ctx context.Context, repo string, n forge.NewPull) (forge.Pull, error) {
	if err := errors.Join(forge.CheckBranch(n.Branch), forge.CheckBranch(n.Base)); err != nil {
		return forge.Pull{}, err
	}
	labels, err := g.labels(ctx, repo, n.Labels)
	if err != nil {
		return forge.Pull{}, err
	}
	var p pull
	for try := 1; ; try++ {
		err = g.ask(ctx, "POST", repo, nil, map[string]any{"title": n.Title, "body": n.Body, "head": n.Branch, "base": n.Base, "labels": labels}, &p, "pulls")
		if !errors.Is(err, forge.ErrNotFound) || try == settles {
			break
		}
		if _, herr := g.Head(ctx, repo, n.Branch); herr != nil {
			if !errors.Is(herr, forge.ErrNotFound) {
				err = herr
			}
			break
		}
		if clock.Sleep(ctx, g.clock, settlePause) != nil {
			break
		}
	}
	if rest.Status(err) == http.StatusConflict {
		return forge.Pull{}, fmt.Errorf("%w (%w)", forge.ErrExists, err)
	}
	if err != nil {
		return forge.Pull{}, err
	}
	for _, r := range n.Reviewers {
		ask := map[string]any{"reviewers": []string{r}}
		if _, team, ok := strings.Cut(r, "/"); ok {
			ask = map[string]any{"team_reviewers": []string{team}}
		}
		// The pull request is there, and worth more than who looks at it.
		_ = g.ask(ctx, "POST", repo, nil, ask, nil, "pulls", fmt.Sprint(p.Number), "requested_reviewers")
	}
	return p.forge(), nil
}

// labels are the numbers of labels, which are made where they are missing.
func (g *Driver) labels(ctx context.Context, repo string, names []string) ([]int64, error) {
	ids := []int64{}
	if len(names) == 0 {
		return ids, nil
	}
	p, err := repoPath(repo, "labels")
	if err != nil {
		return nil, err
	}
	all, _, err := list[label](ctx, g, p, nil, nil)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		i := slices.IndexFunc(all, func(l label) bool { return l.Name == name })
		if i < 0 {
			var l label
			if err := g.ask(ctx, "POST", repo, nil, map[string]any{"name": name, "color": "#8a7f70"}, &l, "labels"); err != nil {
				return nil, fmt.Errorf("make the label %q: %w", name, err)
			}
			all, i = append(all, l), len(all)
		}
		ids = append(ids, all[i].ID)
	}
	return ids, nil
}

// EditPull implements [forge.Pulls].
func (g *Driver) EditPull(ctx context.Context, repo string, number int64, e forge.PullEdit) (forge.Pull, error) {
	n := fmt.Sprint(number)
	if len(e.Labels) > 0 {
		ids, err := g.labels(ctx, repo, e.Labels)
		if err != nil {
			return forge.Pull{}, err
		}
		if err := g.ask(ctx, "POST", repo, nil, map[string]any{"labels": ids}, nil, "issues", n, "labels"); err != nil {
			return forge.Pull{}, err
		}
	}
	body := map[string]any{}
	if e.Title != nil {
		body["title"] = *e.Title
	}
	if e.Body != nil {
		body["body"] = *e.Body
	}
	if e.Open != nil {
		body["state"] = map[bool]string{true: "open", false: "closed"}[*e.Open]
	}
	var p pull
	var err error
	if len(body) == 0 {
		err = g.ask(ctx, "GET", repo, nil, nil, &p, "pulls", n)
	} else {
		err = g.ask(ctx, "PATCH", repo, nil, body, &p, "pulls", n)
	}
	return p.forge(), err
}

// Comment implements [forge.Pulls].
func (g *Driver) Comment(ctx context.Context, repo string, number int64, body string) error {
	n := fmt.Sprint(number)
	err := g.ask(ctx, "POST", repo, nil, map[string]any{"body": body}, nil, "issues", n, "comments")
	return g.missing(ctx, err, repo, "issues", n)
}

// Checks implements [forge.Pulls]. What Actions do is among the statuses.
func (g *Driver) Checks(ctx context.Context, repo, commit string) (forge.CheckState, error) {
	if err := forge.CheckHash(commit); err != nil {
		return "", err
	}
	var s struct {
		State string `json:"state"`
		Total int    `json:"total_count"`
	}
	if err := g.ask(ctx, "GET", repo, nil, nil, &s, "commits", commit, "status"); err != nil {
		return "", err
	}
	switch {
	case s.Total == 0:
		return forge.ChecksNone, nil
	case s.State == "success", s.State == "warning", s.State == "skipped":
		return forge.ChecksPassed, nil
	case s.State == "failure", s.State == "error":
		return forge.ChecksFailed, nil
	}
	return forge.ChecksPending, nil
}

// Merge implements [forge.Pulls], in the style that the repository prefers.
func (g *Driver) Merge(ctx context.Context, repo string, number int64, head string) error {
	if err := forge.CheckHash(head); err != nil {
		return err
	}
	var p pull
	if err := g.ask(ctx, "GET", repo, nil, nil, &p, "pulls", fmt.Sprint(number)); err != nil {
		return err
	}
	switch {
	case p.State != "open":
		return fmt.Errorf("merge pull request %d of %s: it is closed: %w", number, repo, forge.ErrInvalid)
	case p.Head.SHA != head:
		return fmt.Errorf("merge pull request %d of %s: it is at %s, not at %s: %w", number, repo, p.Head.SHA, head, forge.ErrMoved)
	}
	r, err := g.repository(ctx, repo)
	if err != nil {
		return err
	}
	if r.MergeStyle == "" {
		r.MergeStyle = "merge"
	}
	err = g.ask(ctx, "POST", repo, nil, map[string]any{"Do": r.MergeStyle, "head_commit_id": head}, nil, "pulls", fmt.Sprint(number), "merge")
	if rest.Status(err) == http.StatusMethodNotAllowed {
		switch {
		case rest.Says(err, "try again"):
			return &forge.LaterError{Err: err} // it still finds out whether it can be merged
		case rest.Says(err, "not allowed to merge"):
			return fmt.Errorf("%w (%w)", forge.ErrForbidden, err)
		}
	}
	return err
}

type issue struct {
	Number  int64  `json:"number"`
	Title   string `json:"title"`
	Body    string `json:"body"`
	HTMLURL string `json:"html_url"`
	User    user   `json:"user"`
}

// issue is our open issue of that title, or nil.
func (g *Driver) issue(ctx context.Context, repo, title string) (*issue, error) {
	who, err := g.Account(ctx)
	if err != nil {
		return nil, err
	}
	p, err := repoPath(repo, "issues")
	if err != nil {
		return nil, err
	}
	// Not by the index of words, which lags behind.
	all, _, err := list[issue](ctx, g, p, url.Values{"state": {"open"}, "type": {"issues"}, "created_by": {who}}, nil)
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.Title == title && i.User.Login == who {
			return &i, nil
		}
	}
	return nil, nil
}

// EnsureIssue implements [forge.Issues].
func (g *Driver) EnsureIssue(ctx context.Context, repo, title, body string) (string, error) {
	i, err := g.issue(ctx, repo, title)
	switch {
	case err != nil:
		return "", err
	case i == nil:
		i = &issue{}
		err = g.ask(ctx, "POST", repo, nil, map[string]any{"title": title, "body": body}, i, "issues")
	case i.Body != body:
		err = g.ask(ctx, "PATCH", repo, nil, map[string]any{"body": body}, i, "issues", fmt.Sprint(i.Number))
	}
	return i.HTMLURL, err
}

// CloseIssue implements [forge.Issues].
func (g *Driver) CloseIssue(ctx context.Context, repo, title string) error {
	i, err := g.issue(ctx, repo, title)
	if err != nil || i == nil {
		return err
	}
	return g.ask(ctx, "PATCH", repo, nil, map[string]any{"state": "closed"}, nil, "issues", fmt.Sprint(i.Number))
}

// ReadHook implements [forge.Hooks].
func (g *Driver) ReadHook(secret []byte, header func(string) string, body []byte) (*forge.Event, error) {
	if err := forge.CheckSignature(secret, header("X-Gitea-Signature"), body); err != nil {
		return nil, err
	}
	var h struct {
		Ref, Before, After string
		RefType            string `json:"ref_type"`
		Number             int64
		Repository         struct {
			FullName string `json:"full_name"`
		}
	}
	if err := forge.ParseHook(body, &h); err != nil {
		return nil, err
	}
	switch event := header("X-Gitea-Event"); {
	case event == "push":
		return forge.PushEvent(h.Repository.FullName, h.Ref, h.Before, h.After)
	case event == "delete" && h.RefType == "branch":
		return forge.PushEvent(h.Repository.FullName, "refs/heads/"+h.Ref, "", "")
	case strings.HasPrefix(event, "pull_request"):
		return forge.PullEvent(h.Repository.FullName, h.Number)
	}
	return nil, nil
}
