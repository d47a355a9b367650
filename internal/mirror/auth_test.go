package mirror_test

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/mirror"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
)

// Another Cairn with accounts is an upstream: its token endpoint is used, once
// per repository and life of a token.
func TestSignOnToCairn(t *testing.T) {
	r := newRig(t, nil)
	r.push(t, "private/x", []string{"1", "2"}, "config")
	r.push(t, "public/x", []string{"1"}, "config")
	guard, secrets := registrytest.Guard(t, r.clock, access.NewAccount{Name: "edge", Kind: "robot", Grants: []access.Grant{{Repositories: []string{"private/**"}, Actions: []access.Action{access.Pull}}}})
	var mu sync.Mutex
	tokens := 0
	h := registrytest.WithTokens(guard, registry.New(registry.Config{Content: r.store, Access: guard, Log: quiet()}))
	addr := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == access.TokenPath {
			mu.Lock()
			tokens++
			mu.Unlock()
		}
		h.ServeHTTP(w, q)
	}))
	file := filepath.Join(t.TempDir(), "password")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(secrets["edge"] + "\n")
	r.start(t, func(c *mirror.Config) {
		c.Upstreams = []mirror.Upstream{
			{Host: "main.cairn", URL: "http://" + addr, Username: "edge", PasswordFile: file},
			{Host: "strangers.cairn", URL: "http://" + addr},
			{Host: "env.cairn", URL: "http://" + addr, Username: "edge", PasswordEnv: "EDGE"},
			{Host: "noenv.cairn", URL: "http://" + addr, Username: "edge", PasswordEnv: "NOBODY"},
			{Host: "wrong.cairn", URL: "http://" + addr, Username: "edge", PasswordEnv: "WRONG"},
		}
		c.Getenv = func(k string) string {
			return map[string]string{"EDGE": secrets["edge"], "WRONG": "cairn_edge_wrong"}[k]
		}
	})
	for _, c := range []struct {
		path   string
		status int
		says   string
	}{
		{"main.cairn/private/x/manifests/1", 200, ""},
		{"main.cairn/private/x/manifests/2", 200, ""},
		{"env.cairn/private/x/manifests/1", 200, ""},
		{"strangers.cairn/public/x/manifests/1", 200, ""},
		{"strangers.cairn/private/x/manifests/1", 404, "if it is private, it needs an account"},
		{"main.cairn/other/x/manifests/1", 404, "main.cairn does not have other/x:1, or not for us"},
		{"noenv.cairn/private/x/manifests/1", 502, "the environment has no NOBODY, which password_env names"},
		{"wrong.cairn/private/x/manifests/1", 404, "its token server " + addr + " answers 401"},
	} {
		a := r.get(t, "/v2/"+c.path)
		if a.status != c.status || !strings.Contains(string(a.body), c.says) {
			t.Errorf("%s: %d %s, want %d %q", c.path, a.status, a.body, c.status, c.says)
		}
		if strings.Contains(string(a.body), secrets["edge"]) {
			t.Errorf("%s: the answer holds the secret", c.path)
		}
	}
	until(t, "the image is here", func() bool { return r.here("main.cairn/private/x", "2") })
	before := tokens
	r.clock.Advance(2 * time.Minute)
	r.get(t, "/v2/main.cairn/private/x/manifests/1")
	if mu.Lock(); tokens != before {
		t.Errorf("%d more tokens for a repository that has one", tokens-before)
	}
	mu.Unlock()
	r.clock.Advance(24 * time.Hour)
	if a := r.get(t, "/v2/main.cairn/private/x/manifests/1"); a.header.Get("Warning") != "" || a.status != 200 {
		t.Errorf("after the token's end: %d, %q", a.status, a.header.Get("Warning"))
	}
	// A password that was changed on disk is used; one that is wrong is no
	// reason not to serve what is here.
	write("wrong")
	r.clock.Advance(24 * time.Hour)
	if a := r.get(t, "/v2/main.cairn/private/x/manifests/1"); a.status != 200 || !strings.Contains(a.header.Get("Warning"), "main.cairn does not have private/x:1, or not for us") {
		t.Errorf("with a wrong password: %d, %q", a.status, a.header.Get("Warning"))
	}
	write(secrets["edge"])
	r.clock.Advance(time.Hour)
	if a := r.get(t, "/v2/main.cairn/private/x/manifests/1"); a.header.Get("Warning") != "" {
		t.Errorf("with the right one again: %q", a.header.Get("Warning"))
	}
}

// Who may cause a fetch: who may pull the repository that it ends in, by
// whichever name it is asked for.
func TestWhoMayFetch(t *testing.T) {
	r := newRig(t, nil)
	r.push(t, "library/x", []string{"1"}, "config")
	r.push(t, "public/x", []string{"1"}, "config")
	pull := []access.Action{access.Pull}
	guard, secrets := registrytest.Guard(t, r.clock,
		access.NewAccount{Name: "node", Kind: "robot", Grants: []access.Grant{{Repositories: []string{"docker.io/**"}, Actions: pull}}},
		access.NewAccount{Name: "other", Kind: "robot", Grants: []access.Grant{{Repositories: []string{"library/**", "public/**"}, Actions: []access.Action{access.Pull, access.Push}}}})
	addr := registrytest.Serve(t, registrytest.WithTokens(guard, registry.New(registry.Config{Content: r.local, Mirror: r.mirror, Access: guard, Log: quiet()})))
	for _, path := range []string{"/v2/library/x/manifests/1?ns=docker.io", "/v2/docker.io/library/x/manifests/1", "/v2/docker.io/x/manifests/1", "/v2/public/x/manifests/1?ns=docker.io"} {
		for who, want := range map[string]int{"": 401, "other": 403, "node": 200} {
			r.clock.Advance(time.Hour)
			before := r.count("HEAD ") // the rest of an image may come in the background
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
			if who != "" {
				req.SetBasicAuth(who, secrets[who])
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s by %q: %d, want %d", path, who, resp.StatusCode, want)
			}
			if asked := r.count("HEAD ") != before; asked != (want == 200) {
				t.Errorf("%s by %q: the upstream was asked: %v", path, who, asked)
			}
			if c := resp.Header.Get("WWW-Authenticate"); want == 401 && !strings.Contains(c, `scope="repository:docker.io/`) {
				t.Errorf("%s: the challenge %q does not name the repository here", path, c)
			}
		}
	}
}

// Basic, as ECR has it; blobs come from another host, which must not see the
// password.
func TestBasicAndRedirect(t *testing.T) {
	r := newRig(t, nil)
	r.push(t, "a/b", []string{"1"}, "config", "layer")
	var mu sync.Mutex
	var seen []string
	see := func(who string, q *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if q.Header.Get("Authorization") != "" {
			seen = append(seen, who)
		}
	}
	reg := registry.New(registry.Config{Content: r.store, Log: quiet()})
	store := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		see("store", q)
		reg.ServeHTTP(w, q)
	}))
	front := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		see("registry", q)
		if u, p, _ := q.BasicAuth(); u != "AWS" || p != "pass:word" {
			w.Header().Set("WWW-Authenticate", `Basic realm="https://ecr",service="ecr"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.Contains(q.URL.Path, "/blobs/") {
			http.Redirect(w, q, "http://"+store+q.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		reg.ServeHTTP(w, q)
	}))
	r.start(t, func(c *mirror.Config) {
		c.Upstreams[0] = mirror.Upstream{Host: "docker.io", URL: "http://" + front, Username: "AWS", PasswordEnv: "P"}
		c.Getenv = func(string) string { return "pass:word" }
	})
	if a := r.pull(t, "1", ""); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) == 0 || strings.Contains(strings.Join(seen, " "), "store") {
		t.Errorf("the password was seen by %v", seen)
	}
}

func TestTLS(t *testing.T) {
	r := newRig(t, nil)
	r.push(t, "a/b", []string{"1"}, "config")
	srv := httptest.NewUnstartedServer(registry.New(registry.Config{Content: r.store, Log: quiet()}))
	srv.Config.ErrorLog = nil
	srv.TLS = &tls.Config{}
	srv.StartTLS()
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(srv.URL, "https://")
	r.run(t)
	r.start(t, func(c *mirror.Config) {
		c.Upstreams = []mirror.Upstream{
			{Host: "trusted.io", URL: srv.URL, CAFile: ca},
			{Host: "strange.io", URL: srv.URL},
			{Host: addr}, // https by default
			{Host: "plain.io", URL: "http://" + addr},
		}
	})
	if a := r.get(t, "/v2/trusted.io/a/b/manifests/1"); a.status != 200 {
		t.Errorf("with its CA: %d %s", a.status, a.body)
	}
	for _, path := range []string{"/v2/strange.io/a/b/manifests/1", "/v2/a/b/manifests/1?ns=" + addr} {
		if a := r.get(t, path); a.status != 502 || !strings.Contains(string(a.body), "certificate") {
			t.Errorf("without: %d %s", a.status, a.body)
		}
	}
	if a := r.get(t, "/v2/plain.io/a/b/manifests/1"); a.status != 502 {
		t.Errorf("http to https: %d %s", a.status, a.body)
	}
}

// What sign-on must not do with a password.
func TestSignOnSuspicions(t *testing.T) {
	r := newRig(t, nil)
	r.push(t, "a/b", []string{"1"}, "config")
	var mu sync.Mutex
	stolen := ""
	thief := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		stolen += q.Header.Get("Authorization")
		fmt.Fprint(w, `{"token":"x"}`)
	}))
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+thief+`/token",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start(t, func(c *mirror.Config) {
		c.Upstreams = []mirror.Upstream{{Host: "a.io", URL: srv.URL, CAFile: ca, Username: "me", PasswordEnv: "P"}}
		c.Getenv = func(string) string { return "secret" }
	})
	a := r.get(t, "/v2/a.io/a/b/manifests/1")
	if a.status != 502 || !strings.Contains(string(a.body), "no address that can be trusted with a password") {
		t.Errorf("%d %s", a.status, a.body)
	}
	mu.Lock()
	defer mu.Unlock()
	if stolen != "" {
		t.Error("a password for https went over http")
	}
}

// Token servers that fail.
func TestTokenServers(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter)
		status int
		says   string
	}{
		{"token", func(w http.ResponseWriter) { fmt.Fprint(w, `{"token":"good","expires_in":300}`) }, 200, ""},
		{"access_token", func(w http.ResponseWriter) { fmt.Fprint(w, `{"access_token":"good"}`) }, 200, ""},
		{"a token that is not taken", func(w http.ResponseWriter) { fmt.Fprint(w, `{"token":"bad"}`) }, 404, "401 Unauthorized"},
		{"nothing", func(w http.ResponseWriter) { fmt.Fprint(w, `{}`) }, 502, "answers no token"},
		{"a page", func(w http.ResponseWriter) { fmt.Fprint(w, `<html>`) }, 502, "answers no token"},
		{"a token with a line break", func(w http.ResponseWriter) { fmt.Fprint(w, `{"token":"good\r\nX: y"}`) }, 502, "answers no token"},
		{"500", func(w http.ResponseWriter) { w.WriteHeader(500) }, 502, "answers 500"},
		{"403", func(w http.ResponseWriter) { w.WriteHeader(403) }, 404, "answers 403"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.push(t, "a/b", []string{"1"}, "config")
			r.run(t)
			scope := ""
			r.set(func(w http.ResponseWriter, q *http.Request) bool {
				if q.URL.Path == "/token" {
					scope = q.URL.Query().Get("scope") + " " + q.URL.Query().Get("service")
					c.answer(w)
					return true
				}
				if q.Header.Get("Authorization") == "Bearer good" {
					return false
				}
				w.Header().Set("WWW-Authenticate", `Negotiate, Bearer realm="http://`+r.origin.addr+`/token",service="it's, \"it\""`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			})
			a := r.get(t, "/v2/docker.io/a/b/manifests/1")
			if a.status != c.status || !strings.Contains(string(a.body), c.says) {
				t.Errorf("%d %s, want %d %q", a.status, a.body, c.status, c.says)
			}
			if want := `repository:a/b:pull it's, "it"`; scope != want {
				t.Errorf("scope and service are %q, want %q", scope, want)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	r := newRig(t, nil)
	for _, c := range []struct {
		u    mirror.Upstream
		says string
	}{
		{mirror.Upstream{}, "is no host"},
		{mirror.Upstream{Host: "a/b"}, "is no host"},
		{mirror.Upstream{Host: "a.b", URL: "ftp://a.b"}, "no URL of a registry"},
		{mirror.Upstream{Host: "a.b", URL: "https://x:y@a.b"}, "no URL of a registry"},
		{mirror.Upstream{Host: "a.b", Username: "x"}, "password_file or password_env"},
		{mirror.Upstream{Host: "a.b", PasswordEnv: "x"}, "needs a username"},
		{mirror.Upstream{Host: "a.b", CAFile: "/no/such"}, "ca_file"},
		{mirror.Upstream{Host: "docker.io"}, "configured twice"},
	} {
		_, err := mirror.New(mirror.Config{Content: r.local, Clock: r.clock, Upstreams: []mirror.Upstream{{Host: "docker.io"}, c.u}})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.u, err, c.says)
		}
	}
}
