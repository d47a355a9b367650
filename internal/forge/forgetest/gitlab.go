package forgetest

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/forge"
)

// GitLabToken is what the fake GitLab knows its user by.
const GitLabToken = "glpat-0123456789abcdef"

// GitLab is a GitLab around a Memory, as its public documentation of the REST
// API, version 4, describes it. It ends with the test.
func GitLab(t testing.TB, m *Memory) *Fake {
	f := newFake(t, m, GitLabToken)
	g := gitlab{f, m}
	for pattern, h := range map[string]func(http.ResponseWriter, *http.Request){
		"GET /user":          g.user,
		"GET /users":         g.users,
		"GET /projects":      g.projects,
		"GET /projects/{id}": g.project,
		"GET /projects/{id}/repository/branches/{b}":   g.branch,
		"GET /projects/{id}/repository/tree":           g.tree,
		"GET /projects/{id}/repository/archive.tar.gz": g.archive,
		"GET /projects/{id}/repository/files/{p}/raw":  g.file,
		"GET /projects/{id}/repository/compare":        g.compare,
		"GET /projects/{id}/pipelines":                 g.pipelines,
		"GET /projects/{id}/merge_requests":            g.merges,
		"POST /projects/{id}/merge_requests":           g.create,
		"GET /projects/{id}/merge_requests/{n}":        g.merge,
		"PUT /projects/{id}/merge_requests/{n}":        g.edit,
		"PUT /projects/{id}/merge_requests/{n}/merge":  g.accept,
		"POST /projects/{id}/merge_requests/{n}/notes": g.note,
		"GET /projects/{id}/issues":                    g.issues,
		"POST /projects/{id}/issues":                   g.createIssue,
		"PUT /projects/{id}/issues/{n}":                g.editIssue,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		f.mux.HandleFunc(method+" /api/v4"+path, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Private-Token") != GitLabToken {
				reply(w, http.StatusUnauthorized, fields{"message": "401 Unauthorized"})
				return
			}
			h(w, r)
		})
	}
	f.mux.HandleFunc("POST /{path...}", func(w http.ResponseWriter, r *http.Request) { f.receive(w, r, "oauth2") })
	return f
}

type gitlab struct {
	f *Fake
	m *Memory
}

func number(r *http.Request) int64 {
	n, _ := strconv.ParseInt(r.PathValue("n"), 10, 64)
	return n
}

func (g gitlab) user(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusOK, fields{"id": 7, "username": g.m.Self, "name": "Cairn", "email": "cairn@forge.test", "commit_email": "7-cairn@users.forge.test"})
}

func (g gitlab) users(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "username")
	found := []fields{}
	if r.URL.Query().Get("username") == "ada" {
		found = append(found, fields{"id": 8, "username": "ada"})
	}
	reply(w, http.StatusOK, found)
}

func (g gitlab) projects(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "membership", "archived", "min_access_level", "simple", "pagination", "order_by", "per_page", "page")
	names, err := g.m.Repositories(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	list := make([]fields, len(names))
	for i, n := range names {
		list[i] = fields{"id": i, "path_with_namespace": n}
	}
	page(g.f, w, r, list)
}

func (g gitlab) project(w http.ResponseWriter, r *http.Request) {
	x, err := g.m.Repository(r.Context(), r.PathValue("id"))
	if err != nil {
		refuse(w, err)
		return
	}
	level := 40
	if !x.CanPush && !x.Archived {
		level = 20
	}
	reply(w, http.StatusOK, fields{"id": 1, "path_with_namespace": x.Name, "default_branch": x.DefaultBranch, "archived": x.Archived, "web_url": x.URL,
		"permissions": fields{"project_access": nil, "group_access": fields{"access_level": level, "notification_level": 3}}})
}

func (g gitlab) branch(w http.ResponseWriter, r *http.Request) {
	h, err := g.m.Head(r.Context(), r.PathValue("id"), r.PathValue("b"))
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, http.StatusOK, fields{"name": r.PathValue("b"), "commit": fields{"id": h}})
}

func (g gitlab) tree(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "ref", "path", "per_page", "pagination", "page")
	q := r.URL.Query()
	list := []fields{}
	err := g.m.with(r.PathValue("id"), func(x *repo) error {
		entries, err := x.list(q.Get("ref"), q.Get("path"))
		for _, e := range entries {
			kind, mode := "blob", e.Mode
			if e.IsTree() {
				kind, mode = "tree", "040000"
			}
			list = append(list, fields{"id": e.Hash, "name": e.Name, "type": kind, "path": strings.TrimPrefix(q.Get("path")+"/"+e.Name, "/"), "mode": mode})
		}
		return err
	})
	if err != nil {
		refuse(w, err)
		return
	}
	page(g.f, w, r, list)
}

func (g gitlab) archive(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "sha")
	body, err := g.m.Archive(r.Context(), r.PathValue("id"), r.URL.Query().Get("sha"))
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = io.Copy(w, body)
}

func (g gitlab) file(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "ref")
	b, err := g.m.File(r.Context(), r.PathValue("id"), r.URL.Query().Get("ref"), r.PathValue("p"))
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write(b)
}

func (g gitlab) compare(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "from", "to", "straight")
	q := r.URL.Query()
	paths, _, err := g.m.Changed(r.Context(), r.PathValue("id"), q.Get("from"), q.Get("to"))
	if err != nil {
		refuse(w, err)
		return
	}
	diffs := []fields{}
	for _, p := range paths {
		diffs = append(diffs, fields{"old_path": p, "new_path": p})
	}
	reply(w, http.StatusOK, fields{"compare_timeout": false, "compare_same_ref": false, "diffs": diffs})
}

func (g gitlab) pipelines(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "sha", "order_by", "sort", "per_page")
	s, err := g.m.Checks(r.Context(), r.PathValue("id"), r.URL.Query().Get("sha"))
	if err != nil {
		refuse(w, err)
		return
	}
	list := []fields{}
	if s != forge.ChecksNone {
		status := map[forge.CheckState]string{forge.ChecksPending: "running", forge.ChecksFailed: "failed", forge.ChecksPassed: "success"}[s]
		list = append(list, fields{"id": 3, "status": status, "source": "push", "ref": "x"}, fields{"id": 2, "status": "failed", "source": "push", "ref": "x"},
			fields{"id": 1, "status": "skipped", "source": "merge_request_event", "ref": "refs/merge-requests/1/head"})
	}
	reply(w, http.StatusOK, list)
}

// shape is a merge request as GitLab shows it.
func (g gitlab) shape(p forge.Pull) fields {
	state := "opened"
	switch {
	case p.Merged:
		state = "merged"
	case !p.Open:
		state = "closed"
	}
	s := fields{"id": 1000 + p.Number, "iid": p.Number, "title": p.Title, "description": p.Body, "state": state, "source_branch": p.Branch, "target_branch": p.Base,
		"source_project_id": 1, "target_project_id": 1, "sha": p.Head, "author": fields{"id": 7, "username": p.Author}, "labels": append([]string{}, p.Labels...),
		"updated_at": p.UpdatedAt.Format("2006-01-02T15:04:05.000Z"), "web_url": p.URL, "detailed_merge_status": "mergeable", "closed_by": nil}
	if p.ClosedBy != "" {
		s["closed_by"] = fields{"id": 9, "username": p.ClosedBy}
	}
	return s
}

func (g gitlab) merges(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "state", "order_by", "updated_after", "per_page", "page")
	q := r.URL.Query()
	since, _ := time.Parse(time.RFC3339, q.Get("updated_after"))
	pulls, err := g.m.ListPulls(r.Context(), r.PathValue("id"), "", time.Time{})
	if err != nil {
		refuse(w, err)
		return
	}
	list := []fields{}
	for _, p := range pulls {
		if s := g.shape(p); s["state"] == q.Get("state") && !p.UpdatedAt.Before(since) {
			list = append(list, s)
		}
	}
	if q.Get("state") == "opened" { // somebody's fork has a branch of that name, too
		s := g.shape(forge.Pull{Number: 900, Title: "from a fork", Branch: "cairn/app", Base: "main", Open: true, Author: "mallory"})
		s["source_project_id"] = 2
		list = append(list, s)
	}
	page(g.f, w, r, list)
}

func (g gitlab) create(w http.ResponseWriter, r *http.Request) {
	b := body[struct {
		Title, Description, Labels string
		Source                     string  `json:"source_branch"`
		Target                     string  `json:"target_branch"`
		Reviewers                  []int64 `json:"reviewer_ids"`
	}](g.f, r)
	n := forge.NewPull{Title: b.Title, Body: b.Description, Branch: b.Source, Base: b.Target}
	if b.Labels != "" {
		n.Labels = strings.Split(b.Labels, ",")
	}
	if slices.Contains(b.Reviewers, 8) {
		n.Reviewers = []string{"ada"}
	}
	p, err := g.m.CreatePull(r.Context(), r.PathValue("id"), n)
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, http.StatusCreated, g.shape(p))
}

func (g gitlab) merge(w http.ResponseWriter, r *http.Request) {
	p, err := g.m.EditPull(r.Context(), r.PathValue("id"), number(r), forge.PullEdit{})
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, http.StatusOK, g.shape(p))
}

func (g gitlab) edit(w http.ResponseWriter, r *http.Request) {
	b := body[struct {
		Title, Description *string
		Labels             string `json:"add_labels"`
		State              string `json:"state_event"`
	}](g.f, r)
	e := forge.PullEdit{Title: b.Title, Body: b.Description}
	if b.Labels != "" {
		e.Labels = strings.Split(b.Labels, ",")
	}
	switch b.State {
	case "":
	case "close", "reopen":
		open := b.State == "reopen"
		e.Open = &open
	default:
		g.f.t.Errorf("state_event %q", b.State)
	}
	p, err := g.m.EditPull(r.Context(), r.PathValue("id"), number(r), e)
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, http.StatusOK, g.shape(p))
}

func (g gitlab) accept(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ SHA string }](g.f, r)
	err := g.m.Merge(r.Context(), r.PathValue("id"), number(r), b.SHA)
	switch {
	case statusOf(err) == http.StatusUnprocessableEntity:
		reply(w, http.StatusMethodNotAllowed, fields{"message": "405 Method Not Allowed"})
	case err != nil:
		refuse(w, err)
	default:
		reply(w, http.StatusOK, fields{"state": "merged"})
	}
}

func (g gitlab) note(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ Body string }](g.f, r)
	if err := g.m.Comment(r.Context(), r.PathValue("id"), number(r), b.Body); err != nil {
		refuse(w, err)
		return
	}
	reply(w, http.StatusCreated, fields{"id": 1, "body": b.Body})
}

func (g gitlab) issueShape(repository string, i *Issue) fields {
	return fields{"id": 5000 + i.Number, "iid": i.Number, "title": i.Title, "description": i.Body, "web_url": fmt.Sprintf("https://forge.test/%s/-/issues/%d", repository, i.Number)}
}

func (g gitlab) issues(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "state", "scope", "per_page", "page")
	list := []fields{}
	err := g.m.with(r.PathValue("id"), func(x *repo) error {
		for _, i := range x.issues {
			if i.State == "open" && i.Author == g.m.Self {
				list = append(list, g.issueShape(x.name, i))
			}
		}
		return nil
	})
	if err != nil {
		refuse(w, err)
		return
	}
	page(g.f, w, r, list)
}

func (g gitlab) createIssue(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ Title, Description string }](g.f, r)
	err := g.m.with(r.PathValue("id"), func(x *repo) error {
		i := &Issue{Number: x.next(), Title: b.Title, Body: b.Description, State: "open", Author: g.m.Self}
		x.issues = append(x.issues, i)
		reply(w, http.StatusCreated, g.issueShape(x.name, i))
		return nil
	})
	if err != nil {
		refuse(w, err)
	}
}

func (g gitlab) editIssue(w http.ResponseWriter, r *http.Request) {
	b := body[struct {
		Description *string
		State       string `json:"state_event"`
	}](g.f, r)
	err := g.m.with(r.PathValue("id"), func(x *repo) error {
		for _, i := range x.issues {
			if i.Number != number(r) {
				continue
			}
			if b.Description != nil {
				i.Body = *b.Description
			}
			if b.State == "close" {
				i.State = "closed"
			}
			reply(w, http.StatusOK, g.issueShape(x.name, i))
			return nil
		}
		return forge.ErrNotFound
	})
	if err != nil {
		refuse(w, err)
	}
}
