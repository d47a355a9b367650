package client_test

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/image"
)

func TestFromEnvironment(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("HOME", home)
	file, err := client.TokenFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	get := func(name string) string { return env[name] }
	if c := client.FromEnvironment(client.Config{}, get); c.Token != "from-file" || c.Server != "" {
		t.Errorf("from the file: %+v", c)
	}
	env[client.TokenVariable], env[client.ServerVariable] = "from-env", "http://env:1"
	if c := client.FromEnvironment(client.Config{}, get); c.Token != "from-env" || c.Server != "http://env:1" {
		t.Errorf("the environment wins over the file: %+v", c)
	}
	if c := client.FromEnvironment(client.Config{Server: "http://flag:1", Token: "flag"}, get); c.Token != "flag" || c.Server != "http://flag:1" {
		t.Errorf("what is given wins over the environment: %+v", c)
	}
}

func TestServer(t *testing.T) {
	for in, want := range map[string]string{
		"":                        client.DefaultServer,
		"host:5080":               "http://host:5080",
		"https://host/":           "https://host",
		"https://host/under/?a=b": "https://host/under",
	} {
		c, err := client.New(client.Config{Server: in})
		if err != nil || c.Server() != want {
			t.Errorf("%q is %v, %v; want %s", in, c, err, want)
		}
	}
	for _, in := range []string{"ftp://host", "http://", "://x", "http://[::1"} {
		if _, err := client.New(client.Config{Server: in}); err == nil || !strings.Contains(err.Error(), client.DefaultServer) {
			t.Errorf("%q: error %v, want one with an example", in, err)
		}
	}
}

func TestErrors(t *testing.T) {
	problem := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc
		status int
		wants  []string // in the error and its hint
	}{
		{"a problem", problem(404, `{"title":"Not Found","status":404,"detail":"no such image","hint":"look"}`), 404, []string{"no such image", "look"}},
		{"fields", problem(422, `{"title":"Unprocessable","detail":"validation failed","errors":[{"message":"expected string","location":"body.tag"}]}`), 422, []string{"validation failed", "expected string", "body.tag"}},
		{"no secret", problem(401, `{"title":"Unauthorized"}`), 401, []string{client.TokenVariable}},
		{"forbidden", problem(403, `{"title":"Forbidden","detail":"ci may not"}`), 403, []string{"ci may not", "token ls"}},
		{"something else answers", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", 404) }, 404, []string{"404", "Cairn server", "--server"}},
		{"broken problem", problem(500, `{`), 500, []string{"500"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewServer(tc.answer)
			defer srv.Close()
			c, err := client.New(client.Config{Server: srv.URL})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Status(t.Context())
			var p *wire.Problem
			if !errors.As(err, &p) || p.Status != tc.status {
				t.Fatalf("error %v, want a problem of status %d", err, tc.status)
			}
			for _, w := range tc.wants {
				if !strings.Contains(p.Error()+" "+p.Hint, w) {
					t.Errorf("%q with the hint %q does not mention %q", p, p.Hint, w)
				}
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	srv := httptest.NewServer(nil)
	srv.Close()
	c, err := client.New(client.Config{Server: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Version(t.Context())
	var u *client.Unreachable
	if !errors.As(err, &u) || u.Server != srv.URL || strings.Contains(u.Error(), "/api/v1") || !strings.Contains(u.Hint(), "cairn serve") {
		t.Errorf("error %v", err)
	}
}

// TestWrongAddress: what answers is not what was asked for, and the cure is
// another one than to start a server.
func TestWrongAddress(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	trusting := secure.Client()
	misnamed := trusting.Transport.(*http.Transport).Clone()
	misnamed.TLSClientConfig.ServerName = "registry.example.net"
	for name, c := range map[string]struct {
		server string
		http   *http.Client
		hint   string
	}{
		"nobody trusts it":        {secure.URL, nil, "SSL_CERT_FILE"},
		"its name is another":     {secure.URL, &http.Client{Transport: misnamed}, "a name that its certificate is for"},
		"https where http is":     {"https" + strings.TrimPrefix(plain.URL, "http"), nil, "http://"},
		"http where https is":     {"http" + strings.TrimPrefix(secure.URL, "https"), nil, "https://"},
		"not a server of Cairn's": {plain.URL, nil, "is this the address"},
	} {
		cl, err := client.New(client.Config{Server: c.server, HTTP: c.http})
		if err != nil {
			t.Fatal(err)
		}
		_, err = cl.Version(t.Context())
		var u *client.Unreachable
		var p *wire.Problem
		hint := ""
		switch {
		case errors.As(err, &u):
			hint = u.Hint()
		case errors.As(err, &p):
			hint = p.Hint
		}
		if !strings.Contains(hint, c.hint) {
			t.Errorf("%s: %v, with the hint %q, want %q", name, err, hint, c.hint)
		}
	}
}

func TestRequests(t *testing.T) {
	var got *http.Request
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		io.WriteString(w, `{}`)
	}))
	defer srv.Close()
	c, err := client.New(client.Config{Server: srv.URL + "/under", Token: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Image(t.Context(), image.Reference{Repository: "app/web", Tag: "1.0"}); err != nil {
		t.Fatal(err)
	}
	if want := "/under/api/v1/image?ref=app%2Fweb%3A1.0"; got.URL.RequestURI() != want || got.Header.Get("Authorization") != "Bearer s3cret" || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("sent %s with %v, want %s with the secret as JSON", got.URL, got.Header, want)
	}
	if err := c.RevokeToken(t.Context(), "a/b"); err != nil || got.URL.EscapedPath() != "/under/api/v1/tokens/a%2Fb" {
		t.Errorf("sent %s, %v", got.URL.EscapedPath(), err)
	}
}

func TestLines(t *testing.T) {
	for _, tc := range []struct {
		name, answer string
		items        int
		wants        string // in the error; "" for none
	}{
		{"whole", "{\"item\":{\"repository\":\"a\"}}\n{\"item\":{\"repository\":\"b\"}}\n{\"end\":{\"images\":2}}\n", 2, ""},
		{"empty", "{\"end\":{\"images\":0}}\n", 0, ""},
		{"broke off", "{\"item\":{\"repository\":\"a\"}}\n", 1, "broke off"},
		{"failed half way", "{\"item\":{\"repository\":\"a\"}}\n{\"error\":{\"status\":500,\"detail\":\"disk\"}}\n", 1, "disk"},
		{"not JSON", "hello\n", 0, "invalid"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, tc.answer) }))
		c, err := client.New(client.Config{Server: srv.URL})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		sum, err := c.Plan(t.Context(), time.Time{}, false, func(wire.Decision) error { n++; return nil })
		switch {
		case n != tc.items:
			t.Errorf("%s: %d items, want %d", tc.name, n, tc.items)
		case tc.wants == "" && (err != nil || sum.Images != tc.items):
			t.Errorf("%s: %+v, %v", tc.name, sum, err)
		case tc.wants != "" && (err == nil || !strings.Contains(err.Error(), tc.wants)):
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.wants)
		}
		srv.Close()
	}
}
