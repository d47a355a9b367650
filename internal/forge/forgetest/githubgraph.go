package forgetest

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/object"
)

// graphql answers the three questions that are put to it, and checks that a
// question declares the variables that come with it, and no others.
func (g *github) graphql(w http.ResponseWriter, r *http.Request) {
	b := body[struct {
		Query     string
		Variables json.RawMessage
	}](g.f, r)
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b.Variables, &all); err != nil {
		g.f.t.Errorf("variables: %v", err)
	}
	declared := 0
	for _, v := range regexp.MustCompile(`\$(\w+):`).FindAllStringSubmatch(strings.SplitN(b.Query, "{", 2)[0], -1) {
		declared++
		if _, ok := all[v[1]]; !ok {
			g.f.t.Errorf("no variable $%s comes with %s", v[1], b.Query)
		}
	}
	if declared != len(all) || strings.Count(b.Query, "{") != strings.Count(b.Query, "}") || strings.Count(b.Query, "(") != strings.Count(b.Query, ")") {
		g.f.t.Errorf("%d variables come with %s", len(all), b.Query)
	}
	switch {
	case strings.Contains(b.Query, "createCommitOnBranch("):
		g.createCommitOnBranch(w, r, b.Variables)
	case strings.Contains(b.Query, "updateRefs("):
		g.updateRefs(w, r, b.Variables)
	default:
		g.survey(w, r, b.Query, all)
	}
}

// wrong is how GraphQL refuses.
func wrong(w http.ResponseWriter, kind, message string) {
	reply(w, http.StatusOK, fields{"data": nil, "errors": []fields{{"type": kind, "message": message}}})
}

func wrongFor(w http.ResponseWriter, err error) {
	kind, message := "UNPROCESSABLE", err.Error()
	switch statusOf(err) {
	case http.StatusNotFound:
		kind = "NOT_FOUND"
	case http.StatusForbidden:
		message = "Repository rule violations found\n\nCannot update this protected ref.\n\n"
	}
	wrong(w, kind, message)
}

func input[T any](g *github, variables json.RawMessage) T {
	var v struct{ Input T }
	d := json.NewDecoder(strings.NewReader(string(variables)))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		g.f.t.Errorf("input %s: %v", variables, err)
	}
	return v.Input
}

func (g *github) createCommitOnBranch(w http.ResponseWriter, _ *http.Request, variables json.RawMessage) {
	in := input[struct {
		Branch struct {
			Repository string `json:"repositoryNameWithOwner"`
			Name       string `json:"branchName"`
		}
		Message     struct{ Headline, Body string }
		Expected    string `json:"expectedHeadOid"`
		FileChanges struct {
			Additions []struct {
				Path     string
				Contents []byte
			}
		}
	}](g, variables)
	if in.Message.Headline == "" || strings.Contains(in.Message.Headline, "\n") {
		g.f.t.Errorf("headline %q", in.Message.Headline)
	}
	var hash string
	err := g.m.with(in.Branch.Repository, func(x *repo) error {
		at := x.branches[in.Branch.Name]
		switch {
		case at == "":
			return fmt.Errorf("no such branch: %w", forge.ErrNotFound)
		case at != in.Expected:
			return forge.ErrMoved
		}
		if err := x.writable(in.Branch.Name); err != nil {
			return err
		}
		files, modes := map[string][]byte{}, map[string]string{}
		for _, a := range in.FileChanges.Additions {
			files[a.Path], modes[a.Path] = a.Contents, object.ModeFile // whatever it was before
		}
		tree, _, err := x.commit(at)
		if err != nil {
			return err
		}
		root, err := x.splice(tree, files, modes)
		if err != nil {
			return err
		}
		g.m.serial++
		hash = x.keep(object.EncodeCommit(root, []string{at}, object.Person{Name: "GitHub", Email: "noreply@forge.test"}, g.m.clock.Now(),
			in.Message.Headline+"\n\n"+in.Message.Body+"\n\nNo. "+strconv.Itoa(g.m.serial)))
		g.m.move(x, in.Branch.Name, hash)
		return nil
	})
	switch {
	case statusOf(err) == http.StatusConflict:
		wrong(w, "STALE_DATA", "Expected branch to point to x but it did not.")
	case err != nil:
		wrongFor(w, err)
	default:
		reply(w, http.StatusOK, fields{"data": fields{"createCommitOnBranch": fields{"commit": fields{"oid": hash}}}})
	}
}

func (g *github) updateRefs(w http.ResponseWriter, _ *http.Request, variables json.RawMessage) {
	in := input[struct {
		Repository string `json:"repositoryId"`
		Updates    []struct {
			Name, BeforeOid, AfterOid string
			Force                     bool
		} `json:"refUpdates"`
	}](g, variables)
	err := g.m.with(strings.TrimPrefix(in.Repository, "R_"), func(x *repo) error {
		for _, u := range in.Updates {
			branch := strings.TrimPrefix(u.Name, "refs/heads/")
			at, zero := x.branches[branch], object.SHA1.Zero()
			if at == "" {
				at = zero
			}
			if err := x.writable(branch); err != nil {
				return err
			}
			if at != u.BeforeOid {
				return fmt.Errorf("reference update failed: %w", forge.ErrInvalid)
			}
			if u.AfterOid == zero {
				u.AfterOid = ""
			} else if _, _, err := x.commit(u.AfterOid); err != nil {
				return err
			}
			g.m.move(x, branch, u.AfterOid)
		}
		return nil
	})
	if err != nil {
		wrongFor(w, err)
		return
	}
	reply(w, http.StatusOK, fields{"data": fields{"updateRefs": fields{"clientMutationId": nil}}})
}

func (g *github) survey(w http.ResponseWriter, r *http.Request, query string, variables map[string]json.RawMessage) {
	text := func(k string) (s string) {
		_ = json.Unmarshal(variables[k], &s)
		return s
	}
	name := text("owner") + "/" + text("name")
	answer := fields{"id": "R_" + name, "ref": nil, "parent": nil}
	err := g.m.with(name, func(x *repo) error {
		answer["isArchived"] = x.archived
		if h := x.branches[strings.TrimPrefix(text("ref"), "refs/heads/")]; h != "" {
			answer["ref"] = fields{"target": fields{"oid": h}}
		}
		if tree, _, err := x.commit(text("parent")); err == nil {
			answer["parent"] = fields{"__typename": "Commit", "tree": fields{"oid": tree}}
		}
		for _, ask := range regexp.MustCompile(`(d\d+):object\(expression:\$(d\d+)\)`).FindAllStringSubmatch(query, -1) {
			answer[ask[1]] = nil
			commit, dir, _ := strings.Cut(text(ask[2]), ":")
			entries, err := x.list(commit, dir)
			if err != nil {
				if files, err := x.files(commit); err == nil {
					if _, is := files[dir]; is {
						answer[ask[1]] = fields{"__typename": "Blob"}
					}
				}
				continue
			}
			list := []fields{}
			for _, e := range entries {
				mode, _ := strconv.ParseUint(e.Mode, 8, 32)
				list = append(list, fields{"name": e.Name, "mode": mode})
			}
			answer[ask[1]] = fields{"__typename": "Tree", "entries": list}
		}
		return nil
	})
	if err != nil {
		reply(w, http.StatusOK, fields{"data": fields{"repository": nil}, "errors": []fields{{"type": "NOT_FOUND", "message": "Could not resolve to a Repository."}}})
		return
	}
	reply(w, http.StatusOK, fields{"data": fields{"repository": answer}})
}

// appState is what the fake knows of a GitHub App.
type appState struct {
	mu     sync.Mutex
	tokens map[string]time.Time
}

// AppID is the GitHub App that the fake knows, by the key that AppKey sets.
const AppID = "Iv23cairn"

func (a *appState) holds(token string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(a.tokens[token])
}

// AppKey is set by a test that signs on as an app.
func (f *Fake) AppKey(key *rsa.PublicKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.appKey = key
}

// apps are the paths of GitHub Apps: whoever asks shows a statement signed with
// the app's key, which ends within ten minutes.
func (g *github) apps() {
	g.app = &appState{tokens: map[string]time.Time{}}
	signed := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if err := g.verify(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")); err != nil {
				reply(w, http.StatusUnauthorized, fields{"message": "A JSON web token could not be decoded: " + err.Error()})
				return
			}
			h(w, r)
		}
	}
	g.f.mux.HandleFunc("GET /api/v3/app", signed(func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, fields{"slug": "cairn"}) }))
	g.f.mux.HandleFunc("GET /api/v3/app/installations", signed(func(w http.ResponseWriter, r *http.Request) {
		page(g.f, w, r, []fields{{"id": 41, "suspended_at": "2026-01-01T00:00:00Z"}, {"id": 42, "suspended_at": nil}, {"id": 43}})
	}))
	g.f.mux.HandleFunc("GET /api/v3/repos/{o}/{r}/installation", signed(func(w http.ResponseWriter, r *http.Request) {
		if _, err := g.m.Repository(r.Context(), repoOf(r)); err != nil {
			refuseGitHub(w, err)
			return
		}
		reply(w, http.StatusOK, fields{"id": 42})
	}))
	g.f.mux.HandleFunc("POST /api/v3/app/installations/{id}/access_tokens", signed(func(w http.ResponseWriter, r *http.Request) {
		g.app.mu.Lock()
		defer g.app.mu.Unlock()
		token := fmt.Sprintf("ghs_of_%s_no_%d", r.PathValue("id"), len(g.app.tokens))
		g.app.tokens[token] = g.m.clock.Now().Add(time.Hour)
		reply(w, http.StatusCreated, fields{"token": token, "expires_at": g.app.tokens[token].Format(time.RFC3339)})
	}))
	g.f.mux.HandleFunc("GET /api/v3/installation/repositories", g.known(func(w http.ResponseWriter, r *http.Request) {
		list := []fields{}
		if strings.Contains(r.Header.Get("Authorization"), "_of_42_") {
			list = g.repositories()
		}
		reply(w, http.StatusOK, fields{"total_count": len(list), "repositories": list})
	}))
}

// verify verifies a statement of the app.
func (g *github) verify(s string) error {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return fmt.Errorf("%d parts", len(parts))
	}
	g.f.mu.Lock()
	key := g.f.appKey
	g.f.mu.Unlock()
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || key == nil {
		return fmt.Errorf("no signature: %w", err)
	}
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature); err != nil {
		return err
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return err
	}
	var claims struct {
		Iss      string
		Iat, Exp int64
	}
	if err := json.Unmarshal(b, &claims); err != nil {
		return err
	}
	now := g.m.clock.Now().Unix()
	if claims.Iss != AppID || claims.Iat > now || claims.Exp <= now || claims.Exp-now > 600 {
		return fmt.Errorf("claims %+v at %d", claims, now)
	}
	return nil
}
