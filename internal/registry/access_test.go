package registry_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
)

// pulls records what the ledger would be told.
type pulls struct {
	mu  sync.Mutex
	all []string
}

func (p *pulls) Pull(repository string, d image.Digest, subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, fmt.Sprint(repository, "@", d[:15], " by ", subject))
}

func (p *pulls) take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := strings.Join(p.all, "; ")
	p.all = nil
	return s
}

// guarded is a registry with accounts; login maps names to Authorization lines.
func guarded(t *testing.T) (h http.Handler, p *pulls, login map[string]string, token func(account, scope string) string) {
	t.Helper()
	g, secrets := registrytest.Guard(t, clock.NewFake(registrytest.Start),
		access.NewAccount{Name: "root", Kind: access.KindAdmin},
		access.NewAccount{Name: "dev", Grants: []access.Grant{{Repositories: []string{"app/**"}, Actions: []access.Action{access.Pull, access.Push}}}},
		access.NewAccount{Name: "scanner", Uncounted: true, Grants: []access.Grant{{Repositories: []string{"**"}, Actions: []access.Action{access.Pull}}}})
	p = &pulls{}
	login = map[string]string{}
	for name, secret := range secrets {
		login[name] = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+secret))
	}
	login["wrong"] = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("dev:wrong"))
	token = func(account, scope string) string {
		t.Helper()
		q := httptest.NewRequest("GET", "/auth/token?scope="+scope, nil)
		for _, l := range headerLines(login[account]) {
			q.Header.Set(l[0], l[1])
		}
		rec := httptest.NewRecorder()
		g.Token().ServeHTTP(rec, q)
		var reply struct{ Token string }
		if err := json.Unmarshal(rec.Body.Bytes(), &reply); err != nil || reply.Token == "" {
			t.Fatalf("token for %q: %d %s", account, rec.Code, rec.Body)
		}
		return "Authorization: Bearer " + reply.Token
	}
	h = newHandler(t, func(c *registry.Config) {
		c.Access, c.Pulls = g, p
		c.Expires = func(repository string, _ image.Digest) (time.Time, bool) {
			return registrytest.Start.Add(48 * time.Hour), repository == "app/old"
		}
	})
	return h, p, login, token
}

func with(header string, rows ...row) []row {
	for i := range rows {
		rows[i].header += "\n" + header
	}
	return rows
}

func TestAccess(t *testing.T) {
	h, _, login, token := guarded(t)
	d := string(registrytest.Digest(layer))
	run(t, h, with(login["root"], pushed("secret/x", "v1")...))
	run(t, h, with(login["root"], pushed("public/x", "v1")...))
	run(t, h, with(login["dev"], pushed("app/web", "v1")...))

	const challenge = `WWW-Authenticate: Bearer realm="http://example.com/auth/token",service="cairn"`
	scoped := func(repo, actions string) string {
		return challenge + `,scope="repository:` + repo + ":" + actions + `"`
	}
	t.Run("nobody", func(t *testing.T) {
		run(t, h, []row{
			{name: "clients learn here that there is a login", call: "GET /v2/", status: 401, code: "UNAUTHORIZED", want: challenge, says: "cairn token create"},
			{call: "HEAD /v2/", status: 401, want: challenge},
			{call: "GET /v2/app/web/manifests/v1", status: 401, code: "UNAUTHORIZED", want: scoped("app/web", "pull")},
			{call: "HEAD /v2/app/web/manifests/v1", status: 401, want: scoped("app/web", "pull")},
			{name: "the same whether it is there or not", call: "HEAD /v2/app/nothing/manifests/v1", status: 401, want: scoped("app/nothing", "pull")},
			{call: "PUT /v2/app/web/manifests/v1", status: 401, code: "UNAUTHORIZED", want: scoped("app/web", "pull,push")},
			{call: "POST /v2/app/web/blobs/uploads/", status: 401, code: "UNAUTHORIZED", want: scoped("app/web", "pull,push")},
			{call: "DELETE /v2/app/web/manifests/v1", status: 401, code: "UNAUTHORIZED", want: scoped("app/web", "delete")},
			{call: "GET /v2/public/x/manifests/v1", status: 200, bytes: manifest},
			{call: "GET /v2/public/x/tags/list", status: 200},
			{call: "POST /v2/public/x/blobs/uploads/", status: 401, code: "UNAUTHORIZED"},
			{call: "GET /v2/_catalog", status: 200, bytes: []byte(`{"repositories":["public/x"]}` + "\n")},
		})
	})
	t.Run("wrong", func(t *testing.T) {
		run(t, h, with(login["wrong"], []row{
			{call: "GET /v2/", status: 401, code: "UNAUTHORIZED", want: challenge},
			{name: "wrong credentials are not no credentials", call: "GET /v2/public/x/manifests/v1", status: 401, code: "UNAUTHORIZED"},
		}...))
	})
	t.Run("dev", func(t *testing.T) {
		run(t, h, with(login["dev"], []row{
			{call: "GET /v2/", status: 200},
			{call: "GET /v2/app/web/manifests/v1", status: 200},
			{call: "GET /v2/secret/x/manifests/v1", status: 403, code: "DENIED", says: `account "dev" may not pull secret/x`, want: "WWW-Authenticate: "},
			{call: "PUT /v2/secret/x/manifests/v1", status: 403, code: "DENIED", says: "may not push"},
			{call: "DELETE /v2/app/web/manifests/v1", status: 403, code: "DENIED", says: "may not delete"},
			{call: "GET /v2/_catalog", status: 200, bytes: []byte(`{"repositories":["app/web"]}` + "\n")},
			{name: "no mount from where one may not read", call: "POST /v2/app/new/blobs/uploads/?mount=" + d + "&from=secret/x", status: 202},
			{name: "a mount from where one may", call: "POST /v2/app/new/blobs/uploads/?mount=" + d + "&from=app/web", status: 201},
		}...))
		// The blob is in secret/x only: dev must not get at it by its digest.
		b := []byte("only in secret/x")
		run(t, h, with(login["root"], blobRow("secret/x", b)))
		mount := "POST /v2/app/new/blobs/uploads/?mount=" + string(registrytest.Digest(b))
		run(t, h, with(login["dev"], row{call: mount, status: 202}))
		run(t, h, with(login["root"], row{call: mount, status: 201}))
	})
	t.Run("token", func(t *testing.T) {
		pull := token("dev", "repository:app/web:pull")
		run(t, h, with(pull, []row{
			{call: "GET /v2/", status: 200},
			{call: "GET /v2/app/web/manifests/v1", status: 200},
			{name: "a wider token would do", call: "POST /v2/app/web/blobs/uploads/", status: 401, code: "UNAUTHORIZED", want: scoped("app/web", "pull,push")},
			{name: "no token would do", call: "GET /v2/secret/x/manifests/v1", status: 403, code: "DENIED"},
		}...))
		run(t, h, with(token("dev", "repository:app/web:pull,push"), row{call: "POST /v2/app/web/blobs/uploads/", status: 202}))
		nobody := token("", "repository:public/x:pull")
		run(t, h, with(nobody, []row{
			{call: "GET /v2/", status: 200},
			{call: "GET /v2/public/x/manifests/v1", status: 200},
			{call: "GET /v2/app/web/manifests/v1", status: 401, code: "UNAUTHORIZED", want: scoped("app/web", "pull")},
		}...))
		run(t, h, with(token("dev", ""), row{call: "GET /v2/_catalog", status: 403, code: "DENIED", says: "Basic"}))
	})
	t.Run("too often", func(t *testing.T) {
		for range 1000 {
			q := httptest.NewRequest("GET", "/v2/", nil)
			q.Header.Set("Authorization", strings.TrimPrefix(login["wrong"], "Authorization: "))
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, q)
			if rec.Code == 429 {
				if rec.Header().Get("Retry-After") == "" || !strings.Contains(rec.Body.String(), "TOOMANYREQUESTS") {
					t.Errorf("429 with %v %s", rec.Header(), rec.Body)
				}
				return
			}
		}
		t.Error("a client that repeats a wrong secret is never slowed down")
	})
}

func TestPulls(t *testing.T) {
	h, p, login, _ := guarded(t)
	d := string(registrytest.Digest(manifest))
	run(t, h, with(login["root"], pushed("app/web", "v1")...))
	run(t, h, with(login["root"], pushed("public/x", "v1")...))
	if got := p.take(); got != "" {
		t.Errorf("a push is a pull: %s", got)
	}
	dev := "app/web@" + d[:15] + " by dev"
	for _, c := range []struct {
		row
		pulls string
	}{
		{with(login["dev"], row{call: "GET /v2/app/web/manifests/v1", status: 200})[0], dev},
		{with(login["dev"], row{call: "HEAD /v2/app/web/manifests/v1", status: 200})[0], dev},
		{with(login["dev"], row{call: "HEAD /v2/app/web/manifests/" + d, status: 200})[0], dev},
		{with(login["dev"], row{name: "a node that has it already", call: "GET /v2/app/web/manifests/v1", header: "If-None-Match: \"" + d + "\"", status: 304})[0], dev},
		{with(login["dev"], row{call: "GET /v2/app/web/manifests/v2", status: 404, code: "MANIFEST_UNKNOWN"})[0], ""},
		{with(login["dev"], row{call: "GET /v2/app/web/blobs/" + string(registrytest.Digest(layer)), status: 200})[0], ""},
		{with(login["dev"], row{call: "GET /v2/app/web/tags/list", status: 200})[0], ""},
		{with(login["dev"], row{call: "GET /v2/app/web/referrers/" + d, status: 200})[0], ""},
		{with(login["scanner"], row{call: "GET /v2/app/web/manifests/v1", status: 200})[0], ""},
		{row{call: "GET /v2/app/web/manifests/v1", status: 401, code: "UNAUTHORIZED"}, ""},
		{row{call: "GET /v2/public/x/manifests/v1", status: 200}, "public/x@" + d[:15] + " by anonymous"},
	} {
		run(t, h, []row{c.row})
		if got := p.take(); got != c.pulls {
			t.Errorf("%s: pulls %q, want %q", c.call, got, c.pulls)
		}
	}
}

func TestWarning(t *testing.T) {
	h, _, login, _ := guarded(t)
	d := string(registrytest.Digest(manifest))
	run(t, h, with(login["root"], pushed("app/old", "v1")...))
	run(t, h, with(login["root"], pushed("app/web", "v1")...))
	mine := `Warning: 299 - "app/old@` + d + ` was about to expire at 2026-11-24 22:00 UTC because nothing used it; this pull is a use and keeps it"`
	theirs := strings.Replace(mine, "this pull is a use and keeps it", "pulls of this account do not count as a use; to keep it, run it, or pin it with 'cairn image pin'", 1)
	run(t, h, with(login["dev"], []row{
		{call: "GET /v2/app/old/manifests/v1", status: 200, want: mine},
		{call: "HEAD /v2/app/old/manifests/v1", status: 200, want: mine},
		{call: "GET /v2/app/web/manifests/v1", status: 200, want: "Warning: "},
	}...))
	run(t, h, with(login["scanner"], row{call: "GET /v2/app/old/manifests/v1", status: 200, want: theirs}))
}

// A scanner's look at an expired image brings nothing back; a pull that counts
// does.
func TestScannersReviveNothing(t *testing.T) {
	store := registrytest.Store(t, registrytest.Disk(t))
	p := &pulls{}
	g, secrets := registrytest.Guard(t, clock.NewFake(registrytest.Start),
		access.NewAccount{Name: "root", Kind: access.KindAdmin},
		access.NewAccount{Name: "scanner", Uncounted: true, Grants: []access.Grant{{Repositories: []string{"**"}, Actions: []access.Action{access.Pull}}}})
	h := registry.New(registry.Config{Content: store, Access: g, Pulls: p})
	login := func(name string) string {
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+secrets[name]))
	}
	run(t, h, with(login("root"), pushed("app/web", "v1")...))
	im, err := store.Peek(t.Context(), "app/web", "v1")
	if err != nil {
		t.Fatal(err)
	}
	errs, err := store.Expire(t.Context(), []content.Expiry{{Repository: "app/web", Digest: im.Digest, Version: im.Version, Reason: "unused"}})
	if err != nil || errs[0] != nil {
		t.Fatal(err, errs)
	}
	v1, byDigest := "GET /v2/app/web/manifests/v1", "GET /v2/app/web/manifests/"+string(im.Digest)
	run(t, h, with(login("scanner"), []row{{call: v1, status: 404, code: "MANIFEST_UNKNOWN"}, {call: byDigest, status: 404, code: "MANIFEST_UNKNOWN"}}...))
	run(t, h, with(login("root"), row{call: v1, status: 200}))
	run(t, h, with(login("scanner"), row{call: v1, status: 200}))
}
