package forgetest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/object"
)

// GitHubToken is what the fake GitHub knows its user by.
const GitHubToken = "github_pat_0123456789abcdef"

// GitHub is a GitHub Enterprise around a Memory, as its public documentation of
// the REST API (2022-11-28) and of GraphQL describes it. It ends with the test.
func GitHub(t testing.TB, m *Memory) *Fake {
	f := newFake(t, m, GitHubToken)
	g := &github{f: f, m: m}
	// Archives are elsewhere, and signing on there would give the token away.
	codeload := httptest.NewServer(http.HandlerFunc(g.codeload))
	t.Cleanup(codeload.Close)
	g.elsewhere = codeload.URL
	for pattern, h := range map[string]http.HandlerFunc{
		"GET /user":          g.user,
		"GET /user/repos":    g.userRepos,
		"GET /repos/{o}/{r}": g.repository,
		"GET /repos/{o}/{r}/git/ref/heads/{b...}":           g.ref,
		"POST /repos/{o}/{r}/git/refs":                      g.createRef,
		"POST /repos/{o}/{r}/git/blobs":                     g.createBlob,
		"POST /repos/{o}/{r}/git/trees":                     g.createTree,
		"POST /repos/{o}/{r}/git/commits":                   g.createCommit,
		"GET /repos/{o}/{r}/tarball/{c}":                    g.tarball,
		"GET /repos/{o}/{r}/contents/{p...}":                g.contents,
		"GET /repos/{o}/{r}/compare/{basehead}":             g.compare,
		"GET /repos/{o}/{r}/commits/{c}/status":             g.status,
		"GET /repos/{o}/{r}/commits/{c}/check-runs":         g.checkRuns,
		"GET /repos/{o}/{r}/pulls":                          g.pulls,
		"POST /repos/{o}/{r}/pulls":                         g.createPull,
		"GET /repos/{o}/{r}/pulls/{n}":                      g.pull,
		"PATCH /repos/{o}/{r}/pulls/{n}":                    g.editPull,
		"PUT /repos/{o}/{r}/pulls/{n}/merge":                g.merge,
		"POST /repos/{o}/{r}/pulls/{n}/requested_reviewers": g.reviewers,
		"GET /repos/{o}/{r}/issues":                         g.issues,
		"POST /repos/{o}/{r}/issues":                        g.createIssue,
		"GET /repos/{o}/{r}/issues/{n}":                     g.issue,
		"PATCH /repos/{o}/{r}/issues/{n}":                   g.editIssue,
		"POST /repos/{o}/{r}/issues/{n}/labels":             g.labels,
		"POST /repos/{o}/{r}/issues/{n}/comments":           g.comment,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		f.mux.HandleFunc(method+" /api/v3"+path, g.known(h))
	}
	f.mux.HandleFunc("POST /api/graphql", g.known(g.graphql))
	g.apps()
	return f
}

type github struct {
	f         *Fake
	m         *Memory
	elsewhere string
	app       *appState
}

// known lets in who has the token, or one that the app was given.
func (g *github) known(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if v := r.Header.Get("X-GitHub-Api-Version"); v != "2022-11-28" {
			g.f.t.Errorf("%s %s: X-GitHub-Api-Version %q", r.Method, r.URL.Path, v)
		}
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if token != GitHubToken && !g.app.holds(token, g.m.clock.Now()) {
			reply(w, http.StatusUnauthorized, fields{"message": "Bad credentials"})
			return
		}
		h(w, r)
	}
}

func repoOf(r *http.Request) string { return r.PathValue("o") + "/" + r.PathValue("r") }

// refuseGitHub answers in GitHub's words.
func refuseGitHub(w http.ResponseWriter, err error) {
	switch status := statusOf(err); {
	case status == http.StatusForbidden && strings.Contains(err.Error(), forge.ErrArchived.Error()):
		reply(w, status, fields{"message": "Repository was archived so is read-only."})
	case strings.Contains(err.Error(), forge.ErrExists.Error()):
		reply(w, http.StatusUnprocessableEntity, fields{"message": "Validation Failed", "errors": []fields{{"resource": "PullRequest", "code": "custom", "message": "A pull request already exists for team:x."}}})
	case status == http.StatusConflict:
		reply(w, status, fields{"message": "Head branch was modified. Review and try the merge again."})
	case status == http.StatusNotFound:
		reply(w, status, fields{"message": "Not Found", "documentation_url": "https://docs.github.test/rest"})
	default:
		reply(w, status, fields{"message": err.Error()})
	}
}

func (g *github) user(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, fields{"login": g.m.Self, "id": 7})
}

func (g *github) userRepos(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "per_page", "page")
	page(g.f, w, r, g.repositories())
}

func (g *github) repositories() []fields {
	g.m.mu.Lock()
	defer g.m.mu.Unlock()
	list := []fields{}
	for name, x := range g.m.repos {
		list = append(list, fields{"full_name": name, "archived": x.archived, "permissions": fields{"push": !x.readOnly}})
	}
	slices.SortFunc(list, func(a, b fields) int { return strings.Compare(a["full_name"].(string), b["full_name"].(string)) })
	return list
}

func (g *github) repository(w http.ResponseWriter, r *http.Request) {
	x, err := g.m.Repository(r.Context(), repoOf(r))
	if err != nil {
		refuseGitHub(w, err)
		return
	}
	w.Header().Set("Etag", `"`+strconv.FormatBool(x.Archived)+`"`)
	if r.Header.Get("If-None-Match") == w.Header().Get("Etag") {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	reply(w, http.StatusOK, fields{"full_name": x.Name, "node_id": "R_" + x.Name, "default_branch": x.DefaultBranch, "archived": x.Archived, "html_url": x.URL,
		"permissions": fields{"push": x.CanPush || x.Archived}, "allow_merge_commit": false, "allow_squash_merge": true})
}

func (g *github) ref(w http.ResponseWriter, r *http.Request) {
	h, err := g.m.Head(r.Context(), repoOf(r), r.PathValue("b"))
	if err != nil {
		refuseGitHub(w, err)
		return
	}
	reply(w, http.StatusOK, fields{"ref": "refs/heads/" + r.PathValue("b"), "object": fields{"type": "commit", "sha": h}})
}

func (g *github) createRef(w http.ResponseWriter, r *http.Request) {
	b := body[struct{ Ref, SHA string }](g.f, r)
	branch, ok := strings.CutPrefix(b.Ref, "refs/heads/")
	if !ok {
		g.f.t.Errorf("a reference %q", b.Ref)
	}
	err := g.m.with(repoOf(r), func(x *repo) error {
		if err := x.writable(branch); err != nil {
			return err
		}
		if _, _, err := x.commit(b.SHA); err != nil {
			return fmt.Errorf("object does not exist: %w", forge.ErrInvalid)
		}
		if x.branches[branch] != "" {
			return fmt.Errorf("reference already exists: %w", forge.ErrInvalid)
		}
		g.m.move(x, branch, b.SHA)
		return nil
	})
	if err != nil {
		refuseGitHub(w, err)
		return
	}
	reply(w, http.StatusCreated, fields{"ref": b.Ref})
}

func (g *github) createBlob(w http.ResponseWriter, r *http.Request) {
	b := body[struct {
		Content  []byte
		Encoding string
	}](g.f, r)
	if b.Encoding != "base64" {
		g.f.t.Errorf("a blob encoded as %q", b.Encoding)
	}
	_ = g.m.with(repoOf(r), func(x *repo) error {
		reply(w, http.StatusCreated, fields{"sha": x.keep(object.Object{Kind: object.Blob, Body: b.Content})})
		return nil
	})
}

func (g *github) createTree(w http.ResponseWriter, r *http.Request) {
	b := body[struct {
		Base string `json:"base_tree"`
		Tree []struct {
			Path, Mode, Type string
			SHA              string
			Content          *string
		}
	}](g.f, r)
	err := g.m.with(repoOf(r), func(x *repo) error {
		if x.objects[b.Base].Kind != object.Tree {
			return fmt.Errorf("base_tree is no tree: %w", forge.ErrInvalid)
		}
		files, modes := map[string][]byte{}, map[string]string{}
		for _, e := range b.Tree {
			if e.Type != "blob" || (e.Content == nil) == (e.SHA == "") {
				g.f.t.Errorf("an entry of a tree: %+v", e)
			}
			files[e.Path], modes[e.Path] = x.objects[e.SHA].Body, e.Mode
			if e.Content != nil {
				files[e.Path] = []byte(*e.Content)
			}
		}
		root, err := x.splice(b.Base, files, modes)
		if err == nil {
			reply(w, http.StatusCreated, fields{"sha": root})
		}
		return err
	})
	if err != nil {
		refuseGitHub(w, err)
	}
}

func (g *github) createCommit(w http.ResponseWriter, r *http.Request) {
	b := body[struct {
		Message, Tree string
		Parents       []string
	}](g.f, r)
	err := g.m.with(repoOf(r), func(x *repo) error {
		g.m.serial++
		c := object.EncodeCommit(b.Tree, b.Parents, object.Person{Name: g.m.Self, Email: "x@forge.test"}, g.m.clock.Now().Add(time.Duration(g.m.serial)*time.Second), b.Message)
		reply(w, http.StatusCreated, fields{"sha": x.keep(c)})
		return nil
	})
	if err != nil {
		refuseGitHub(w, err)
	}
}

func (g *github) tarball(w http.ResponseWriter, r *http.Request) {
	if _, err := g.m.Archive(r.Context(), repoOf(r), r.PathValue("c")); err != nil {
		refuseGitHub(w, err)
		return
	}
	http.Redirect(w, r, g.elsewhere+"/"+repoOf(r)+"/"+r.PathValue("c")+"?token=for-this-archive", http.StatusFound)
}

func (g *github) codeload(w http.ResponseWriter, r *http.Request) {
	if a := r.Header.Get("Authorization"); a != "" || r.URL.Query().Get("token") != "for-this-archive" {
		g.f.t.Errorf("asked for an archive elsewhere, signed on with %q", a)
	}
	path := strings.Trim(r.URL.Path, "/")
	i := strings.LastIndexByte(path, '/')
	body, err := g.m.Archive(r.Context(), path[:i], path[i+1:])
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/x-gzip")
	_, _ = io.Copy(w, body)
}

func (g *github) contents(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "ref")
	if a := r.Header.Get("Accept"); a != "application/vnd.github.raw+json" {
		g.f.t.Errorf("contents: Accept %q", a)
	}
	b, err := g.m.File(r.Context(), repoOf(r), r.URL.Query().Get("ref"), r.PathValue("p"))
	if err != nil {
		folder := g.m.with(repoOf(r), func(x *repo) error {
			_, err := x.list(r.URL.Query().Get("ref"), r.PathValue("p"))
			return err
		})
		if folder == nil {
			reply(w, http.StatusOK, []fields{{"type": "file"}})
			return
		}
		refuseGitHub(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.github.raw+json; charset=utf-8")
	_, _ = w.Write(b)
}

func (g *github) compare(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "per_page")
	from, to, _ := strings.Cut(r.PathValue("basehead"), "...")
	paths, _, err := g.m.Changed(r.Context(), repoOf(r), from, to)
	if err != nil {
		refuseGitHub(w, err)
		return
	}
	status := "diverged"
	_ = g.m.with(repoOf(r), func(x *repo) error {
		for h := to; h != ""; {
			if h == from {
				status = "ahead"
			}
			_, parents, _ := x.commit(h)
			if h = ""; len(parents) > 0 {
				h = parents[0]
			}
		}
		return nil
	})
	if status == "diverged" { // nothing in common
		reply(w, http.StatusNotFound, fields{"message": "No common ancestor between x and y."})
		return
	}
	files := []fields{}
	for _, p := range paths {
		files = append(files, fields{"filename": p, "status": "modified"})
	}
	reply(w, http.StatusOK, fields{"status": status, "total_commits": 1, "files": files})
}

func (g *github) status(w http.ResponseWriter, r *http.Request) {
	if _, err := g.m.Checks(r.Context(), repoOf(r), r.PathValue("c")); err != nil {
		refuseGitHub(w, err)
		return
	}
	reply(w, http.StatusOK, fields{"state": "pending", "total_count": 0, "statuses": []fields{}})
}

func (g *github) checkRuns(w http.ResponseWriter, r *http.Request) {
	g.f.query(r, "per_page", "page")
	s, err := g.m.Checks(r.Context(), repoOf(r), r.PathValue("c"))
	if err != nil {
		refuseGitHub(w, err)
		return
	}
	runs := []fields{{"status": "completed", "conclusion": "neutral"}}
	switch s {
	case forge.ChecksNone:
		runs = []fields{}
	case forge.ChecksPending:
		runs = append(runs, fields{"status": "in_progress", "conclusion": nil})
	case forge.ChecksFailed:
		runs = append(runs, fields{"status": "completed", "conclusion": "timed_out"})
	case forge.ChecksPassed:
		runs = append(runs, fields{"status": "completed", "conclusion": "success"})
	}
	reply(w, http.StatusOK, fields{"total_count": len(runs), "check_runs": runs})
}
