package forgetest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/forge"
)

// shape is a pull request as GitHub shows it.
func (g *github) shape(repository string, p forge.Pull) fields {
	repo := fields{"full_name": repository}
	labels := []fields{}
	for _, l := range p.Labels {
		labels = append(labels, fields{"name": l})
	}
	s := fields{"number": p.Number, "title": p.Title, "body": p.Body, "state": "open", "merged_at": nil, "mergeable": true, "user": fields{"login": p.Author}, "labels": labels,
		"head": fields{"ref": p.Branch, "sha": p.Head, "repo": repo}, "base": fields{"ref": p.Base, "sha": "", "repo": repo}, "updated_at": p.UpdatedAt.Format(time.RFC3339), "html_url": p.URL}
	if p.Body == "" {
		s["body"] = nil
	}
	if !p.Open {
		s["state"] = "closed"
	}
	if p.Merged {
		s["merged_at"] = p.UpdatedAt.Format(time.RFC3339)
	}
	return s
}

func (g *github) pulls(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "state", "sort", "direction", "per_page", "page")
	state := r.URL.Query().Get("state")
	all, err := g.m.ListPulls(r.Context(), repoOf(r), "", time.Time{})
	if err != nil {
		refuseGitHub(w, err)
		return
	}
	list := []fields{}
	for _, p := range all {
		if s := g.shape(repoOf(r), p); s["state"] == state {
			list = append(list, s)
		}
	}
	if state == "open" { // somebody's fork has a branch of that name, too; another's is gone
		for n, from := range map[int64]any{900: fields{"full_name": "mallory/app"}, 901: nil} {
			s := g.shape(repoOf(r), forge.Pull{Number: n, Title: "from a fork", Branch: "cairn/app", Base: "main", Open: true, Author: "mallory"})
			s["head"].(fields)["repo"] = from
			list = append(list, s)
		}
	}
	page(g.f, w, r, list)
}

func (g *github) createPull(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ Title, Body, Head, Base string }](g.f, r)
	p, err := g.m.CreatePull(r.Context(), repoOf(r), forge.NewPull{Title: b.Title, Body: b.Body, Branch: b.Head, Base: b.Base})
	if statusOf(err) == http.StatusNotFound {
		err = fmt.Errorf("head is invalid: %w", forge.ErrInvalid)
	}
	if err != nil {
		refuseGitHub(w, err)
		return
	}
	reply(w, http.StatusCreated, g.shape(repoOf(r), p))
}

// edit edits and replies with how it is then.
func (g *github) edit(w http.ResponseWriter, r *http.Request, e forge.PullEdit) {
	p, err := g.m.EditPull(r.Context(), repoOf(r), number(r), e)
	if err != nil {
		refuseGitHub(w, err)
		return
	}
	reply(w, http.StatusOK, g.shape(repoOf(r), p))
}

func (g *github) pull(w http.ResponseWriter, r *http.Request) { g.edit(w, r, forge.PullEdit{}) }

func (g *github) editPull(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ Title, Body, State *string }](g.f, r)
	e := forge.PullEdit{Title: b.Title, Body: b.Body}
	if b.State != nil {
		if *b.State != "open" && *b.State != "closed" {
			g.f.t.Errorf("state %q", *b.State)
		}
		open := *b.State == "open"
		e.Open = &open
	}
	g.edit(w, r, e)
}

func (g *github) labels(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ Labels []string }](g.f, r)
	p, err := g.m.EditPull(r.Context(), repoOf(r), number(r), forge.PullEdit{Labels: b.Labels})
	if err != nil {
		refuseGitHub(w, err)
		return
	}
	reply(w, http.StatusOK, g.shape("", p)["labels"])
}

func (g *github) reviewers(w http.ResponseWriter, r *http.Request) {
	b := body[struct {
		Reviewers []string
		Teams     []string `json:"team_reviewers"`
	}](g.f, r)
	if !slices.Equal(b.Reviewers, []string{"ada"}) || len(b.Teams) > 0 {
		reply(w, http.StatusUnprocessableEntity, fields{"message": "Reviews may only be requested from collaborators."})
		return
	}
	_ = g.m.with(repoOf(r), func(x *repo) error {
		p, err := x.pull(number(r))
		if err == nil {
			p.reviewers = append(p.reviewers, b.Reviewers...)
		}
		return err
	})
	reply(w, http.StatusCreated, fields{})
}

func (g *github) merge(w http.ResponseWriter, r *http.Request) {
	b := body[struct {
		SHA    string
		Method string `json:"merge_method"`
	}](g.f, r)
	if b.Method != "squash" { // the only one that the fake allows
		reply(w, http.StatusMethodNotAllowed, fields{"message": "Merge commits are not allowed on this repository."})
		return
	}
	err := g.m.Merge(r.Context(), repoOf(r), number(r), b.SHA)
	switch {
	case statusOf(err) == http.StatusUnprocessableEntity:
		reply(w, http.StatusMethodNotAllowed, fields{"message": "Pull Request is not mergeable"})
	case err != nil:
		refuseGitHub(w, err)
	default:
		reply(w, http.StatusOK, fields{"merged": true})
	}
}

func (g *github) comment(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ Body string }](g.f, r)
	if err := g.m.Comment(r.Context(), repoOf(r), number(r), b.Body); err != nil {
		refuseGitHub(w, err)
		return
	}
	reply(w, http.StatusCreated, fields{"id": 1})
}

func (g *github) issueShape(repository string, i *Issue) fields {
	return fields{"number": i.Number, "title": i.Title, "body": i.Body, "user": fields{"login": i.Author}, "html_url": fmt.Sprintf("https://forge.test/%s/issues/%d", repository, i.Number)}
}

func (g *github) issues(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "state", "creator", "per_page", "page")
	g.listIssues(w, r, r.URL.Query().Get("creator"),
		[]fields{{"number": 899, "title": "cairn: .cairn.yaml cannot be read", "user": fields{"login": g.m.Self}, "pull_request": fields{"url": "x"}}})
}

// listIssues replies with list, and behind it the open issues of an account.
func (g *github) listIssues(w http.ResponseWriter, r *http.Request, of string, list []fields) {
	err := g.m.with(repoOf(r), func(x *repo) error {
		for _, i := range x.issues {
			if i.State == "open" && i.Author == of {
				list = append(list, g.issueShape(x.name, i))
			}
		}
		return nil
	})
	if err != nil {
		refuseGitHub(w, err)
		return
	}
	page(g.f, w, r, list)
}

func (g *github) createIssue(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ Title, Body string }](g.f, r)
	err := g.m.with(repoOf(r), func(x *repo) error {
		i := &Issue{Number: x.next(), Title: b.Title, Body: b.Body, State: "open", Author: g.m.Self}
		x.issues = append(x.issues, i)
		reply(w, http.StatusCreated, g.issueShape(x.name, i))
		return nil
	})
	if err != nil {
		refuseGitHub(w, err)
	}
}

// issue is a pull request, too, and says who closed it.
func (g *github) issue(w http.ResponseWriter, r *http.Request) {
	for _, p := range g.m.Pulls(repoOf(r)) {
		if p.Number == number(r) {
			s := fields{"number": p.Number, "closed_by": nil}
			if p.ClosedBy != "" {
				s["closed_by"] = fields{"login": p.ClosedBy}
			}
			reply(w, http.StatusOK, s)
			return
		}
	}
	refuseGitHub(w, forge.ErrNotFound)
}

func (g *github) editIssue(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ Body, State *string }](g.f, r)
	err := g.m.with(repoOf(r), func(x *repo) error {
		for _, i := range x.issues {
			if i.Number != number(r) {
				continue
			}
			if b.Body != nil {
				i.Body = *b.Body
			}
			if b.State != nil {
				i.State = strings.TrimSpace(*b.State)
			}
			reply(w, http.StatusOK, g.issueShape(x.name, i))
			return nil
		}
		return forge.ErrNotFound
	})
	if err != nil {
		refuseGitHub(w, err)
	}
}
