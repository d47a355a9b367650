package forgetest

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/object"
)

// GiteaToken is what the fake Gitea knows its user by.
const GiteaToken = "0123456789abcdef0123456789abcdef01234567"

// Gitea is a Gitea around a Memory. It answers as a real one does, which the
// suite of test/gitea runs on, troubles included: a pull request right after
// the push of its branch is a 404 once, and a commit that is not there a 500.
// It ends with the test.
func Gitea(t testing.TB, m *Memory) *Fake {
	f := newFake(t, m, GiteaToken)
	g := &gitea{f: f, m: m, pushed: map[string]bool{}}
	for pattern, h := range map[string]http.HandlerFunc{
		"GET /user":          g.user,
		"GET /user/repos":    g.userRepos,
		"GET /repos/{o}/{r}": g.repository,
		"GET /repos/{o}/{r}/git/refs/heads/{b...}":          g.refs,
		"GET /repos/{o}/{r}/git/commits/{c}":                g.commit,
		"GET /repos/{o}/{r}/git/trees/{c}":                  g.tree,
		"GET /repos/{o}/{r}/archive/{c}":                    g.archive,
		"GET /repos/{o}/{r}/raw/{p...}":                     g.raw,
		"GET /repos/{o}/{r}/compare/{basehead}":             g.compare,
		"GET /repos/{o}/{r}/commits/{c}/status":             g.status,
		"GET /repos/{o}/{r}/labels":                         g.listLabels,
		"POST /repos/{o}/{r}/labels":                        g.createLabel,
		"GET /repos/{o}/{r}/pulls":                          g.pulls,
		"POST /repos/{o}/{r}/pulls":                         g.createPull,
		"GET /repos/{o}/{r}/pulls/{n}":                      g.pull,
		"PATCH /repos/{o}/{r}/pulls/{n}":                    g.editPull,
		"POST /repos/{o}/{r}/pulls/{n}/merge":               g.merge,
		"POST /repos/{o}/{r}/pulls/{n}/requested_reviewers": g.reviewers,
		"GET /repos/{o}/{r}/issues":                         g.issues,
		"POST /repos/{o}/{r}/issues":                        g.createIssue,
		"GET /repos/{o}/{r}/issues/{n}":                     g.pull,
		"PATCH /repos/{o}/{r}/issues/{n}":                   g.editIssue,
		"GET /repos/{o}/{r}/issues/{n}/timeline":            g.timeline,
		"POST /repos/{o}/{r}/issues/{n}/labels":             g.addLabels,
		"POST /repos/{o}/{r}/issues/{n}/comments":           g.comment,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		f.mux.HandleFunc(method+" /api/v1"+path, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "token "+GiteaToken {
				reply(w, http.StatusUnauthorized, fields{"message": "token is required"})
				return
			}
			h(w, r)
		})
	}
	f.mux.HandleFunc("POST /{path...}", func(w http.ResponseWriter, r *http.Request) { f.receive(w, r, "cairn") })
	return f
}

type gitea struct {
	f *Fake
	m *Memory

	mu     sync.Mutex
	labels []string        // their numbers are their places, from 1
	pushed map[string]bool // branches that were taken up
}

func (g *gitea) user(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, fields{"id": 7, "login": g.m.Self, "full_name": "", "email": "cairn@forge.test"})
}

func (g *gitea) shapeOf(x forge.Repository) fields {
	return fields{"full_name": x.Name, "default_branch": x.DefaultBranch, "archived": x.Archived, "html_url": x.URL, "default_merge_style": "squash",
		"permissions": fields{"push": x.CanPush || x.Archived}}
}

func (g *gitea) userRepos(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "limit", "page")
	names, err := g.m.Repositories(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	list := []fields{g.shapeOf(forge.Repository{Name: "team/old", Archived: true})}
	for _, n := range names {
		list = append(list, g.shapeOf(forge.Repository{Name: n, CanPush: true}))
	}
	page(g.f, w, r, list)
}

func (g *gitea) repository(w http.ResponseWriter, r *http.Request) {
	x, err := g.m.Repository(r.Context(), repoOf(r))
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, http.StatusOK, g.shapeOf(x))
}

// refs are all that begin so.
func (g *gitea) refs(w http.ResponseWriter, r *http.Request) {
	list := []fields{}
	for name, h := range g.m.Branches(repoOf(r)) {
		if strings.HasPrefix(name, r.PathValue("b")) {
			list = append(list, fields{"ref": "refs/heads/" + name, "object": fields{"type": "commit", "sha": h}})
		}
	}
	if len(list) == 0 {
		refuse(w, forge.ErrNotFound)
		return
	}
	reply(w, http.StatusOK, list)
}

func (g *gitea) commit(w http.ResponseWriter, r *http.Request) {
	err := g.m.with(repoOf(r), func(x *repo) error {
		_, _, err := x.commit(r.PathValue("c"))
		return err
	})
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, http.StatusOK, fields{"sha": r.PathValue("c")})
}

func (g *gitea) tree(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "page", "per_page")
	var entries []object.Entry
	err := g.m.with(repoOf(r), func(x *repo) (err error) {
		if entries, err = x.list(r.PathValue("c"), ""); err != nil && x.objects[r.PathValue("c")].Kind == object.Tree {
			entries, err = x.folder(r.PathValue("c"), "")
		}
		return err
	})
	if err != nil {
		refuse(w, err)
		return
	}
	list := []fields{}
	for _, e := range entries {
		kind, mode := "blob", e.Mode
		if e.IsTree() {
			kind, mode = "tree", "040000"
		}
		list = append(list, fields{"path": e.Name, "mode": mode, "type": kind, "sha": e.Hash})
	}
	n, _ := strconv.Atoi(r.URL.Query().Get("page"))
	from := min(max(n-1, 0)*g.f.Per, len(list))
	reply(w, http.StatusOK, fields{"sha": r.PathValue("c"), "tree": list[from:min(from+g.f.Per, len(list))], "total_count": len(list), "page": n})
}

func (g *gitea) archive(w http.ResponseWriter, r *http.Request) {
	commit, ok := strings.CutSuffix(r.PathValue("c"), ".tar.gz")
	body, err := g.m.Archive(r.Context(), repoOf(r), commit)
	if err != nil || !ok {
		reply(w, http.StatusInternalServerError, fields{"message": ""})
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = io.Copy(w, body)
}

func (g *gitea) raw(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "ref")
	b, err := g.m.File(r.Context(), repoOf(r), r.URL.Query().Get("ref"), r.PathValue("p"))
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write(b)
}

// compare tells the commits that the second has and the first has not.
func (g *gitea) compare(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "verification", "files")
	from, to, _ := strings.Cut(r.PathValue("basehead"), "...")
	commits := []fields{}
	err := g.m.with(repoOf(r), func(x *repo) error {
		seen := map[string]bool{}
		for h := from; h != ""; {
			seen[h] = true
			_, parents, err := x.commit(h)
			if err != nil {
				return err
			}
			if h = ""; len(parents) > 0 {
				h = parents[0]
			}
		}
		for h := to; h != "" && !seen[h]; {
			_, parents, err := x.commit(h)
			if err != nil {
				return err
			}
			files, above := []fields{}, []fields{}
			if len(parents) > 0 {
				paths, err := x.changed(parents[0], h)
				if err != nil {
					return err
				}
				for _, p := range paths {
					files = append(files, fields{"filename": p, "status": "modified"})
				}
				above = append(above, fields{"sha": parents[0]})
			}
			commits = append(commits, fields{"sha": h, "parents": above, "files": files})
			if h = ""; len(parents) > 0 {
				h = parents[0]
			}
		}
		return nil
	})
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, http.StatusOK, fields{"total_commits": len(commits), "commits": commits})
}

func (g *gitea) status(w http.ResponseWriter, r *http.Request) {
	s, err := g.m.Checks(r.Context(), repoOf(r), r.PathValue("c"))
	if err != nil {
		refuse(w, err)
		return
	}
	state := map[forge.CheckState]string{forge.ChecksNone: "", forge.ChecksPending: "pending", forge.ChecksFailed: "error", forge.ChecksPassed: "success"}[s]
	n := 1
	if state == "" {
		n = 0
	}
	reply(w, http.StatusOK, fields{"state": state, "total_count": n})
}

func (g *gitea) listLabels(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "limit", "page")
	g.mu.Lock()
	list := []fields{}
	for i, name := range g.labels {
		list = append(list, fields{"id": i + 1, "name": name})
	}
	g.mu.Unlock()
	page(g.f, w, r, list)
}

func (g *gitea) createLabel(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ Name, Color string }](g.f, r)
	g.mu.Lock()
	defer g.mu.Unlock()
	if slices.Contains(g.labels, b.Name) || !strings.HasPrefix(b.Color, "#") {
		g.f.t.Errorf("a label %+v beside %q", b, g.labels)
	}
	g.labels = append(g.labels, b.Name)
	reply(w, http.StatusCreated, fields{"id": len(g.labels), "name": b.Name})
}

// names of labels by their numbers.
func (g *gitea) names(ids []int) (names []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range ids {
		if id < 1 || id > len(g.labels) {
			g.f.t.Errorf("no label has the number %d", id)
			continue
		}
		names = append(names, g.labels[id-1])
	}
	return names
}

func (g *gitea) shape(p forge.Pull) fields {
	labels := []fields{}
	for _, l := range p.Labels {
		labels = append(labels, fields{"name": l})
	}
	s := fields{"number": p.Number, "title": p.Title, "body": p.Body, "state": "open", "merged": p.Merged, "user": fields{"login": p.Author}, "labels": labels,
		"head": fields{"label": p.Branch, "ref": p.Branch, "sha": p.Head, "repo_id": 1}, "base": fields{"label": p.Base, "ref": p.Base, "repo_id": 1},
		"updated_at": p.UpdatedAt.Format(time.RFC3339), "html_url": p.URL}
	if !p.Open {
		s["state"] = "closed"
		s["head"].(fields)["ref"] = fmt.Sprintf("refs/pull/%d/head", p.Number) // as if its branch were gone
	}
	return s
}

func (g *gitea) pulls(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "state", "sort", "limit", "page")
	all, err := g.m.ListPulls(r.Context(), repoOf(r), "", time.Time{})
	if err != nil {
		refuse(w, err)
		return
	}
	list := []fields{}
	for _, p := range all {
		if s := g.shape(p); s["state"] == r.URL.Query().Get("state") {
			list = append(list, s)
		}
	}
	if r.URL.Query().Get("state") == "open" { // somebody's fork has a branch of that name, too
		s := g.shape(forge.Pull{Number: 900, Title: "from a fork", Branch: "cairn/app", Base: "main", Open: true, Author: "mallory"})
		s["head"].(fields)["repo_id"] = 2
		list = append(list, s)
	}
	page(g.f, w, r, list)
}

func (g *gitea) createPull(w http.ResponseWriter, r *http.Request) {
	b := body[struct {
		Title, Body, Head, Base string
		Labels                  []int
	}](g.f, r)
	branch := repoOf(r) + " " + b.Head
	g.mu.Lock()
	known := g.pushed[branch]
	g.pushed[branch] = true
	g.mu.Unlock()
	if !known {
		refuse(w, forge.ErrNotFound)
		return
	}
	p, err := g.m.CreatePull(r.Context(), repoOf(r), forge.NewPull{Title: b.Title, Body: b.Body, Branch: b.Head, Base: b.Base, Labels: g.names(b.Labels)})
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, http.StatusCreated, g.shape(p))
}

func (g *gitea) edit(w http.ResponseWriter, r *http.Request, status int, e forge.PullEdit) {
	p, err := g.m.EditPull(r.Context(), repoOf(r), number(r), e)
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, status, g.shape(p))
}

func (g *gitea) pull(w http.ResponseWriter, r *http.Request) {
	g.edit(w, r, http.StatusOK, forge.PullEdit{})
}

func (g *gitea) editPull(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ Title, Body, State *string }](g.f, r)
	e := forge.PullEdit{Title: b.Title, Body: b.Body}
	if b.State != nil {
		open := *b.State == "open"
		e.Open = &open
	}
	g.edit(w, r, http.StatusCreated, e)
}

func (g *gitea) addLabels(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ Labels []int }](g.f, r)
	p, err := g.m.EditPull(r.Context(), repoOf(r), number(r), forge.PullEdit{Labels: g.names(b.Labels)})
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, http.StatusOK, g.shape(p)["labels"])
}

func (g *gitea) reviewers(w http.ResponseWriter, r *http.Request) {
	b := body[struct {
		Reviewers []string
		Teams     []string `json:"team_reviewers"`
	}](g.f, r)
	if !slices.Equal(b.Reviewers, []string{"ada"}) || len(b.Teams) > 0 {
		refuse(w, forge.ErrNotFound)
		return
	}
	_ = g.m.with(repoOf(r), func(x *repo) error {
		p, err := x.pull(number(r))
		if err == nil {
			p.reviewers = append(p.reviewers, b.Reviewers...)
		}
		return err
	})
	reply(w, http.StatusCreated, []fields{})
}

func (g *gitea) merge(w http.ResponseWriter, r *http.Request) {
	b := body[struct {
		Do   string
		Head string `json:"head_commit_id"`
	}](g.f, r)
	if b.Do != "squash" {
		g.f.t.Errorf("merged by %q, and the repository prefers another way", b.Do)
	}
	if err := g.m.Merge(r.Context(), repoOf(r), number(r), b.Head); err != nil {
		refuse(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (g *gitea) comment(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ Body string }](g.f, r)
	if err := g.m.Comment(r.Context(), repoOf(r), number(r), b.Body); err != nil {
		reply(w, http.StatusInternalServerError, fields{"message": ""})
		return
	}
	reply(w, http.StatusCreated, fields{"id": 1})
}

// timeline tells who closed a pull request, among much else.
func (g *gitea) timeline(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "limit", "page")
	list := []fields{{"type": "close", "user": fields{"login": g.m.Self}}, {"type": "reopen", "user": fields{"login": "ada"}}, {"type": "comment", "user": nil}}
	for _, p := range g.m.Pulls(repoOf(r)) {
		if p.Number == number(r) && p.ClosedBy != "" {
			list = append(list, fields{"type": "close", "user": fields{"login": p.ClosedBy}})
		}
	}
	page(g.f, w, r, list)
}

func (g *gitea) issues(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "state", "type", "created_by", "limit", "page")
	(&github{f: g.f, m: g.m}).listIssues(w, r, r.URL.Query().Get("created_by"), []fields{})
}

func (g *gitea) createIssue(w http.ResponseWriter, r *http.Request) {
	(&github{f: g.f, m: g.m}).createIssue(w, r)
}

func (g *gitea) editIssue(w http.ResponseWriter, r *http.Request) {
	(&github{f: g.f, m: g.m}).editIssue(w, r)
}
