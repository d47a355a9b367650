package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/rest"
)

type end struct {
	Ref  string `json:"ref"`
	SHA  string `json:"sha"`
	Repo *struct {
		FullName string `json:"full_name"`
	} `json:"repo"` // nil when a fork is gone
}

type pull struct {
	Number    int64      `json:"number"`
	Title     string     `json:"title"`
	Body      string     `json:"body"`
	State     string     `json:"state"`
	MergedAt  *time.Time `json:"merged_at"`
	Mergeable *bool      `json:"mergeable"` // nil while GitHub finds out
	Head      end        `json:"head"`
	Base      end        `json:"base"`
	User      user       `json:"user"`
	Labels    []struct {
		Name string `json:"name"`
	} `json:"labels"`
	UpdatedAt time.Time `json:"updated_at"`
	HTMLURL   string    `json:"html_url"`
}

func (p pull) forge() forge.Pull {
	f := forge.Pull{Number: p.Number, Title: p.Title, Body: p.Body, Branch: p.Head.Ref, Head: p.Head.SHA, Base: p.Base.Ref,
		Open: p.State == "open", Merged: p.MergedAt != nil, Author: p.User.Login, UpdatedAt: p.UpdatedAt, URL: p.HTMLURL}
	for _, l := range p.Labels {
		f.Labels = append(f.Labels, l.Name)
	}
	return f
}

// ours: it comes from a branch of the repository itself. A fork's branch may
// be called like one of ours.
func (p pull) ours() bool {
	return p.Head.Repo != nil && p.Base.Repo != nil && p.Head.Repo.FullName == p.Base.Repo.FullName
}

// closed is one closing of a pull request.
type closed struct {
	repo   string
	number int64
	at     time.Time
}

// ListPulls implements [forge.Pulls].
func (g *Driver) ListPulls(ctx context.Context, repo, prefix string, since time.Time) ([]forge.Pull, error) {
	p, err := g.path(repo, "pulls")
	if err != nil {
		return nil, err
	}
	open, whole, err := list[pull](ctx, g, rest.Request{Path: p, Query: url.Values{"state": {"open"}}, As: repo}, nil)
	if err != nil {
		return nil, err
	}
	if !whole {
		return nil, fmt.Errorf("list pull requests of %s: more than %d are open: %w", repo, len(open), forge.ErrInvalid)
	}
	old, _, err := list(ctx, g, rest.Request{Path: p, Query: url.Values{"state": {"closed"}, "sort": {"updated"}, "direction": {"desc"}}, As: repo}, func(some []pull) bool {
		return len(some) > 0 && !some[len(some)-1].UpdatedAt.Before(since)
	})
	if err != nil {
		return nil, err
	}
	var pulls []forge.Pull
	seen := map[int64]bool{} // one may be closed, or pages may shift, while they are read
	for _, p := range append(open, old...) {
		if !p.ours() || !strings.HasPrefix(p.Head.Ref, prefix) || p.State != "open" && p.UpdatedAt.Before(since) || seen[p.Number] {
			continue
		}
		seen[p.Number] = true
		f := p.forge()
		if !f.Open && !f.Merged {
			f.ClosedBy, err = g.closers.Get(closed{repo, p.Number, p.UpdatedAt}, func() (string, error) {
				var i struct {
					ClosedBy *user `json:"closed_by"`
				}
				err := g.ask(ctx, "GET", repo, nil, nil, &i, "issues", fmt.Sprint(p.Number))
				if i.ClosedBy == nil {
					return "", err
				}
				return i.ClosedBy.Login, err
			})
			if err != nil {
				return nil, err
			}
		}
		pulls = append(pulls, f)
	}
	slices.SortFunc(pulls, func(a, b forge.Pull) int { return int(b.Number - a.Number) })
	return pulls, nil
}

// CreatePull implements [forge.Pulls]. Once the pull request is there, a label
// or a reviewer that is refused does not make it an error.
func (g *Driver) CreatePull(ctx context.Context, repo string, n forge.NewPull) (forge.Pull, error) {
	if err := errors.Join(forge.CheckBranch(n.Branch), forge.CheckBranch(n.Base)); err != nil {
		return forge.Pull{}, err
	}
	var p pull
	err := g.ask(ctx, "POST", repo, nil, map[string]any{"title": n.Title, "body": n.Body, "head": n.Branch, "base": n.Base}, &p, "pulls")
	if rest.Says(err, "already exists") {
		return forge.Pull{}, fmt.Errorf("%w (%w)", forge.ErrExists, err)
	}
	if err != nil {
		return forge.Pull{}, err
	}
	f := p.forge()
	if len(n.Labels) > 0 && g.label(ctx, repo, p.Number, n.Labels) == nil {
		f.Labels = slices.Clone(n.Labels)
	}
	for _, r := range n.Reviewers {
		ask := map[string]any{"reviewers": []string{r}}
		if _, team, ok := strings.Cut(r, "/"); ok {
			ask = map[string]any{"team_reviewers": []string{team}}
		}
		_ = g.ask(ctx, "POST", repo, nil, ask, nil, "pulls", fmt.Sprint(p.Number), "requested_reviewers")
	}
	return f, nil
}

// label adds labels, which GitHub makes where they are missing.
func (g *Driver) label(ctx context.Context, repo string, number int64, names []string) error {
	return g.ask(ctx, "POST", repo, nil, map[string]any{"labels": names}, nil, "issues", fmt.Sprint(number), "labels")
}

// EditPull implements [forge.Pulls].
func (g *Driver) EditPull(ctx context.Context, repo string, number int64, e forge.PullEdit) (forge.Pull, error) {
	if len(e.Labels) > 0 {
		if err := g.label(ctx, repo, number, e.Labels); err != nil {
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
		err = g.ask(ctx, "GET", repo, nil, nil, &p, "pulls", fmt.Sprint(number))
	} else {
		err = g.ask(ctx, "PATCH", repo, nil, body, &p, "pulls", fmt.Sprint(number))
	}
	return p.forge(), err
}

// Comment implements [forge.Pulls].
func (g *Driver) Comment(ctx context.Context, repo string, number int64, body string) error {
	return g.ask(ctx, "POST", repo, nil, map[string]any{"body": body}, nil, "issues", fmt.Sprint(number), "comments")
}

// Checks implements [forge.Pulls]: what apps say (check runs) and what others
// say (statuses) together.
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
	some, failed, pending := s.Total > 0, false, false
	if some { // without any, GitHub calls it pending
		failed, pending = s.State == "failure" || s.State == "error", s.State == "pending"
	}
	for n := 1; n <= maxPages; n++ {
		var runs struct {
			Total int `json:"total_count"`
			Runs  []struct {
				Status     string `json:"status"`
				Conclusion string `json:"conclusion"`
			} `json:"check_runs"`
		}
		if err := g.ask(ctx, "GET", repo, url.Values{"per_page": {"100"}, "page": {fmt.Sprint(n)}}, nil, &runs, "commits", commit, "check-runs"); err != nil {
			return "", err
		}
		for _, r := range runs.Runs {
			some = true
			switch {
			case r.Status != "completed":
				pending = true
			case r.Conclusion != "success" && r.Conclusion != "neutral" && r.Conclusion != "skipped":
				failed = true
			}
		}
		if len(runs.Runs) == 0 || n*100 >= runs.Total {
			break
		}
	}
	switch {
	case failed:
		return forge.ChecksFailed, nil
	case pending:
		return forge.ChecksPending, nil
	case some:
		return forge.ChecksPassed, nil
	}
	return forge.ChecksNone, nil
}

// Merge implements [forge.Pulls], in the first way that the repository allows:
// a merge commit, squashed, rebased.
func (g *Driver) Merge(ctx context.Context, repo string, number int64, head string) error {
	if err := forge.CheckHash(head); err != nil {
		return err
	}
	r, err := g.repository(ctx, repo)
	if err != nil {
		return err
	}
	method := "merge"
	if no := func(allowed *bool) bool { return allowed != nil && !*allowed }; no(r.MergeCommit) {
		if method = "squash"; no(r.Squash) {
			method = "rebase"
		}
	}
	err = g.ask(ctx, "PUT", repo, nil, map[string]any{"sha": head, "merge_method": method}, nil, "pulls", fmt.Sprint(number), "merge")
	if rest.Status(err) == http.StatusMethodNotAllowed {
		var p pull
		if g.ask(ctx, "GET", repo, nil, nil, &p, "pulls", fmt.Sprint(number)) == nil && p.State == "open" && p.Mergeable == nil {
			return &forge.LaterError{Err: err} // it still finds out whether it can be merged
		}
	}
	return err
}

type issue struct {
	Number  int64     `json:"number"`
	Title   string    `json:"title"`
	Body    string    `json:"body"`
	HTMLURL string    `json:"html_url"`
	User    user      `json:"user"`
	Pull    *struct{} `json:"pull_request"` // to GitHub, pull requests are issues
}

// issue is our open issue of that title, or nil.
func (g *Driver) issue(ctx context.Context, repo, title string) (*issue, error) {
	who, err := g.Account(ctx)
	if err != nil {
		return nil, err
	}
	p, err := g.path(repo, "issues")
	if err != nil {
		return nil, err
	}
	all, _, err := list[issue](ctx, g, rest.Request{Path: p, Query: url.Values{"state": {"open"}, "creator": {who}}, As: repo}, nil)
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.Title == title && i.Pull == nil && i.User.Login == who {
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
	signature, ok := strings.CutPrefix(header("X-Hub-Signature-256"), "sha256=")
	if !ok {
		return nil, forge.ErrSignature
	}
	if err := forge.CheckSignature(secret, signature, body); err != nil {
		return nil, err
	}
	type request struct {
		Number int64 `json:"number"`
	}
	type suite struct {
		Pulls []request `json:"pull_requests"`
	}
	var h struct {
		Ref, Before, After string
		Number             int64
		Repository         struct {
			FullName string `json:"full_name"`
		}
		Suite suite `json:"check_suite"`
	}
	if err := forge.ParseHook(body, &h); err != nil {
		return nil, err
	}
	switch header("X-GitHub-Event") {
	case "push":
		return forge.PushEvent(h.Repository.FullName, h.Ref, h.Before, h.After)
	case "pull_request":
		return forge.PullEvent(h.Repository.FullName, h.Number)
	case "check_suite":
		if len(h.Suite.Pulls) > 0 {
			return forge.PullEvent(h.Repository.FullName, h.Suite.Pulls[0].Number)
		}
	}
	return nil, nil
}
