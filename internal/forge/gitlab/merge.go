package gitlab

import (
	"context"
	"crypto/subtle"
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

type merge struct {
	IID          int64     `json:"iid"`
	Title        string    `json:"title"`
	Description  string    `json:"description"`
	State        string    `json:"state"`
	SourceBranch string    `json:"source_branch"`
	TargetBranch string    `json:"target_branch"`
	Source       int64     `json:"source_project_id"`
	Target       int64     `json:"target_project_id"`
	SHA          string    `json:"sha"`
	Author       *user     `json:"author"`
	ClosedBy     *user     `json:"closed_by"`
	Labels       []string  `json:"labels"`
	UpdatedAt    time.Time `json:"updated_at"`
	WebURL       string    `json:"web_url"`
	Mergeable    string    `json:"detailed_merge_status"`
}

func (m merge) forge() forge.Pull {
	// locked is for the moment of a merge
	p := forge.Pull{Number: m.IID, Title: m.Title, Body: m.Description, Branch: m.SourceBranch, Head: m.SHA, Base: m.TargetBranch,
		Open: m.State == "opened" || m.State == "locked", Merged: m.State == "merged", Labels: m.Labels, UpdatedAt: m.UpdatedAt, URL: m.WebURL}
	if m.Author != nil {
		p.Author = m.Author.Username
	}
	if m.ClosedBy != nil && m.State == "closed" {
		p.ClosedBy = m.ClosedBy.Username
	}
	return p
}

// ListPulls implements [forge.Pulls]. Merge requests from forks are nobody's of
// ours, whatever their branch is called.
func (g *Driver) ListPulls(ctx context.Context, repo, prefix string, since time.Time) ([]forge.Pull, error) {
	p, err := project(repo, "merge_requests")
	if err != nil {
		return nil, err
	}
	var pulls []forge.Pull
	seen := map[int64]bool{} // one may be closed while the lists are read
	for _, state := range []string{"opened", "locked", "closed", "merged"} {
		query := url.Values{"state": {state}, "order_by": {"updated_at"}}
		old := state == "closed" || state == "merged"
		if old && !since.IsZero() {
			query.Set("updated_after", since.UTC().Format(time.RFC3339))
		}
		all, whole, err := list[merge](ctx, g, p, query)
		if err != nil {
			return nil, err
		}
		if !whole && !old {
			return nil, fmt.Errorf("list merge requests of %s: more than %d are open: %w", repo, len(all), forge.ErrInvalid)
		}
		for _, m := range all {
			if m.Source == m.Target && strings.HasPrefix(m.SourceBranch, prefix) && !seen[m.IID] {
				seen[m.IID] = true
				pulls = append(pulls, m.forge())
			}
		}
	}
	slices.SortFunc(pulls, func(a, b forge.Pull) int { return int(b.Number - a.Number) })
	return pulls, nil
}

// labels as the API takes them: it splits them at commas.
func labels(names []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.Contains(n, ",") }), ",")
}

// CreatePull implements [forge.Pulls]. Reviewers whom the site does not know
// are left out.
func (g *Driver) CreatePull(ctx context.Context, repo string, n forge.NewPull) (forge.Pull, error) {
	if err := errors.Join(forge.CheckBranch(n.Branch), forge.CheckBranch(n.Base)); err != nil {
		return forge.Pull{}, err
	}
	body := map[string]any{"title": n.Title, "description": n.Body, "source_branch": n.Branch, "target_branch": n.Base}
	if l := labels(n.Labels); l != "" {
		body["labels"] = l
	}
	if ids := g.people(ctx, n.Reviewers); len(ids) > 0 {
		body["reviewer_ids"] = ids
	}
	var m merge
	err := g.ask(ctx, "POST", repo, nil, body, &m, "merge_requests")
	if rest.Status(err) == http.StatusConflict {
		return forge.Pull{}, fmt.Errorf("%w (%w)", forge.ErrExists, err)
	}
	return m.forge(), err
}

// people are the numbers of accounts.
func (g *Driver) people(ctx context.Context, names []string) (ids []int64) {
	for _, name := range names {
		id, err := g.ids.Get(name, func() (int64, error) {
			var found []user
			if err := g.rest.JSON(ctx, rest.Request{Path: api + "/users", Query: url.Values{"username": {name}}}, &found); err != nil {
				return 0, err
			}
			if len(found) != 1 {
				return 0, forge.ErrNotFound
			}
			return found[0].ID, nil
		})
		if err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// EditPull implements [forge.Pulls].
func (g *Driver) EditPull(ctx context.Context, repo string, number int64, e forge.PullEdit) (forge.Pull, error) {
	body := map[string]any{}
	if e.Title != nil {
		body["title"] = *e.Title
	}
	if e.Body != nil {
		body["description"] = *e.Body
	}
	if l := labels(e.Labels); l != "" {
		body["add_labels"] = l
	}
	method := "PUT"
	if e.Open != nil {
		// GitLab refuses to close what is closed.
		var now merge
		if err := g.ask(ctx, "GET", repo, nil, nil, &now, "merge_requests", fmt.Sprint(number)); err != nil {
			return forge.Pull{}, err
		}
		if now.forge().Open != *e.Open {
			body["state_event"] = map[bool]string{true: "reopen", false: "close"}[*e.Open]
		}
	}
	if len(body) == 0 {
		method = "GET"
	}
	var m merge
	var send any
	if method == "PUT" {
		send = body
	}
	err := g.ask(ctx, method, repo, nil, send, &m, "merge_requests", fmt.Sprint(number))
	return m.forge(), err
}

// Comment implements [forge.Pulls].
func (g *Driver) Comment(ctx context.Context, repo string, number int64, body string) error {
	return g.ask(ctx, "POST", repo, nil, map[string]any{"body": body}, nil, "merge_requests", fmt.Sprint(number), "notes")
}

// Checks implements [forge.Pulls]: the newest pipeline of each kind. What other
// systems say about a commit is a pipeline, too.
func (g *Driver) Checks(ctx context.Context, repo, commit string) (forge.CheckState, error) {
	if err := forge.CheckHash(commit); err != nil {
		return "", err
	}
	var pipelines []struct {
		Status, Source, Ref string
	}
	if err := g.ask(ctx, "GET", repo, url.Values{"sha": {commit}, "order_by": {"id"}, "sort": {"desc"}, "per_page": {"100"}}, nil, &pipelines, "pipelines"); err != nil {
		return "", err
	}
	state := forge.ChecksNone
	seen := map[string]bool{}
	for _, p := range pipelines {
		if kind := p.Source + " " + p.Ref; seen[kind] {
			continue
		} else {
			seen[kind] = true
		}
		switch p.Status {
		case "failed", "canceled":
			return forge.ChecksFailed, nil
		case "success", "skipped":
			if state == forge.ChecksNone {
				state = forge.ChecksPassed
			}
		default:
			state = forge.ChecksPending
		}
	}
	return state, nil
}

// Merge implements [forge.Pulls], in the way that the project is set to.
func (g *Driver) Merge(ctx context.Context, repo string, number int64, head string) error {
	if err := forge.CheckHash(head); err != nil {
		return err
	}
	n := fmt.Sprint(number)
	err := g.ask(ctx, "PUT", repo, nil, map[string]any{"sha": head}, nil, "merge_requests", n, "merge")
	switch rest.Status(err) {
	case http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusUnprocessableEntity:
		var m merge
		if g.ask(ctx, "GET", repo, nil, nil, &m, "merge_requests", n) == nil && m.State == "opened" &&
			slices.Contains([]string{"unchecked", "checking", "preparing", "approvals_syncing"}, m.Mergeable) {
			return &forge.LaterError{Err: err} // it still finds out whether it can be merged
		}
	}
	return err
}

type issue struct {
	IID         int64  `json:"iid"`
	Title       string `json:"title"`
	Description string `json:"description"`
	WebURL      string `json:"web_url"`
}

// issue is our open issue of that title, or nil.
func (g *Driver) issue(ctx context.Context, repo, title string) (*issue, error) {
	p, err := project(repo, "issues")
	if err != nil {
		return nil, err
	}
	all, _, err := list[issue](ctx, g, p, url.Values{"state": {"opened"}, "scope": {"created_by_me"}})
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.Title == title {
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
		err = g.ask(ctx, "POST", repo, nil, map[string]any{"title": title, "description": body}, i, "issues")
	case i.Description != body:
		err = g.ask(ctx, "PUT", repo, nil, map[string]any{"description": body}, i, "issues", fmt.Sprint(i.IID))
	}
	return i.WebURL, err
}

// CloseIssue implements [forge.Issues].
func (g *Driver) CloseIssue(ctx context.Context, repo, title string) error {
	i, err := g.issue(ctx, repo, title)
	if err != nil || i == nil {
		return err
	}
	return g.ask(ctx, "PUT", repo, nil, map[string]any{"state_event": "close"}, nil, "issues", fmt.Sprint(i.IID))
}

// ReadHook implements [forge.Hooks]. GitLab sends the secret itself.
func (g *Driver) ReadHook(secret []byte, header func(string) string, body []byte) (*forge.Event, error) {
	if len(secret) == 0 || subtle.ConstantTimeCompare([]byte(header("X-Gitlab-Token")), secret) != 1 {
		return nil, forge.ErrSignature
	}
	type request struct {
		IID int64 `json:"iid"`
	}
	var h struct {
		Ref, Before, After string
		Project            struct {
			Path string `json:"path_with_namespace"`
		}
		Attributes request  `json:"object_attributes"`
		Merge      *request `json:"merge_request"` // of a pipeline
	}
	if err := forge.ParseHook(body, &h); err != nil {
		return nil, err
	}
	switch header("X-Gitlab-Event") {
	case "Push Hook":
		return forge.PushEvent(h.Project.Path, h.Ref, h.Before, h.After)
	case "Merge Request Hook":
		return forge.PullEvent(h.Project.Path, h.Attributes.IID)
	case "Pipeline Hook":
		if h.Merge != nil {
			return forge.PullEvent(h.Project.Path, h.Merge.IID)
		}
	}
	return nil, nil
}
