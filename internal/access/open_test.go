package access

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/clock"
)

func TestCheckOpen(t *testing.T) {
	for addr, ok := range map[string]bool{
		"127.0.0.1:5080": true, "127.8.9.1:0": true, "[::1]:5080": true, "localhost:5080": true, "LOCALHOST:80": true, "[::ffff:127.0.0.1]:80": true,
		":5080": false, "0.0.0.0:5080": false, "[::]:5080": false, "192.168.1.2:5080": false, "10.0.0.1:80": false, "example.org:80": false, "localhost.example.org:80": false, "128.0.0.1:80": false, "127.0.0.1": false, "": false,
	} {
		err := CheckOpen(addr)
		if (err == nil) != ok {
			t.Errorf("CheckOpen(%q) = %v", addr, err)
		}
		if err != nil && !strings.Contains(err.Error(), "listen on 127.0.0.1") && !strings.Contains(err.Error(), "host:port") {
			t.Errorf("CheckOpen(%q) = %v names no cure", addr, err)
		}
	}
}

func TestProtect(t *testing.T) {
	open, err := New(context.Background(), Config{Open: true, Clock: clock.NewFake(start)})
	if err != nil {
		t.Fatal(err)
	}
	closed := newFixture(t, nil).Guard
	type headers map[string]string
	js := headers{"Content-Type": "application/json"}
	for _, c := range []struct {
		name         string
		method, path string
		host         string // 127.0.0.1:5080 when empty
		headers      headers
		body         string
		open, closed int // status; 0: let through
	}{
		{"a pull", "GET", "/v2/a/manifests/b", "", nil, "", 0, 0},
		{"a push", "POST", "/v2/a/blobs/uploads/", "", nil, "", 0, 0},
		{"a push of bytes", "PATCH", "/v2/a/blobs/uploads/1", "", headers{"Content-Type": "application/octet-stream"}, "x", 0, 0},
		{"a push of a manifest", "PUT", "/v2/a/manifests/b", "", headers{"Content-Type": "application/vnd.oci.image.manifest.v1+json"}, "{}", 0, 0},
		{"the UI typed in", "GET", "/", "", headers{"Sec-Fetch-Site": "none"}, "", 0, 0},
		{"the UI's own call", "POST", "/api/v1/uses", "", headers{"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:5080", "Content-Type": "application/json; charset=utf-8"}, "{}", 0, 0},

		{"localhost", "GET", "/", "localhost:5080", nil, "", 0, 0},
		{"localhost with a dot", "GET", "/", "localhost.:5080", nil, "", 0, 0},
		{"a name below localhost", "GET", "/", "cairn.localhost", nil, "", 0, 0},
		{"IPv6", "GET", "/", "[::1]:5080", nil, "", 0, 0},
		{"no port", "GET", "/", "127.0.0.1", nil, "", 0, 0},
		{"rebinding", "GET", "/v2/", "evil.example:5080", nil, "", 403, 0},
		{"rebinding to the API", "GET", "/api/v1/images", "evil.example:5080", nil, "", 403, 0},
		{"a name that ends alike", "GET", "/", "notlocalhost:5080", nil, "", 403, 0},
		{"a name that begins alike", "GET", "/", "localhost.evil.example", nil, "", 403, 0},
		{"a name that begins like an address", "GET", "/", "127.0.0.1.evil.example", nil, "", 403, 0},
		{"another address", "GET", "/", "192.0.2.1:5080", nil, "", 403, 0},
		{"all addresses", "GET", "/", "0.0.0.0:5080", nil, "", 403, 0},
		{"no host", "GET", "/", "-", nil, "", 403, 0},

		{"foreign origin", "POST", "/v2/a/blobs/uploads/", "", headers{"Origin": "https://evil.example"}, "", 403, 0},
		{"foreign origin reads", "GET", "/v2/", "", headers{"Origin": "https://evil.example"}, "", 403, 0},
		{"sandboxed page", "POST", "/v2/a/blobs/uploads/", "", headers{"Origin": "null"}, "", 403, 0},
		{"another port", "POST", "/v2/a/blobs/uploads/", "", headers{"Origin": "http://127.0.0.1:3000"}, "", 403, 0},
		{"another name for here", "POST", "/v2/a/blobs/uploads/", "", headers{"Origin": "http://localhost:5080"}, "", 403, 0},
		{"own origin", "POST", "/v2/a/blobs/uploads/", "", headers{"Origin": "http://127.0.0.1:5080"}, "", 0, 0},
		{"origin of a file", "POST", "/v2/a/blobs/uploads/", "", headers{"Origin": "file://127.0.0.1:5080"}, "", 403, 0},

		{"cross-site", "GET", "/", "", headers{"Sec-Fetch-Site": "cross-site"}, "", 403, 0},
		{"cross-site change", "POST", "/v2/a/blobs/uploads/", "", headers{"Sec-Fetch-Site": "cross-site"}, "", 403, 403},
		{"cross-site change of the API", "DELETE", "/api/v1/tokens/x", "", headers{"Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}, "", 403, 403},
		{"same-site", "POST", "/api/v1/uses", "", headers{"Sec-Fetch-Site": "same-site", "Content-Type": "application/json"}, "", 403, 403},

		{"API, JSON", "POST", "/api/v1/uses", "", js, "{}", 0, 0},
		{"API, JSON of a kind", "PATCH", "/api/v1/x", "", headers{"Content-Type": "application/merge-patch+json"}, "{}", 0, 0},
		{"API, read", "GET", "/api/v1/images", "", nil, "", 0, 0},
		{"API, form", "POST", "/api/v1/uses", "", headers{"Content-Type": "application/x-www-form-urlencoded"}, "{}", 415, 0},
		{"API, YAML", "POST", "/api/v1/runs", "", headers{"Content-Type": "application/yaml"}, "a: b", 0, 0},
		{"API, bytes", "POST", "/api/v1/uploads", "", headers{"Content-Type": "application/octet-stream"}, "x", 0, 0},
		{"API, bytes in parts", "POST", "/api/v1/uploads", "", headers{"Content-Type": "multipart/form-data; boundary=x"}, "x", 415, 0},
		{"API, plain text", "POST", "/api/v1/uses", "", headers{"Content-Type": "text/plain"}, "{}", 415, 0},
		{"API, text that says JSON", "POST", "/api/v1/uses", "", headers{"Content-Type": "text/plain; application/json"}, "{}", 415, 0},
		{"API, no type", "POST", "/api/v1/uses", "", nil, "{}", 415, 0},
		{"API, no body and no type", "POST", "/api/v1/retention/run", "", nil, "", 415, 0},
		{"API, delete without a type", "DELETE", "/api/v1/tokens/x", "", nil, "", 415, 0},
		{"API, read with a body", "GET", "/api/v1/images", "", headers{"Content-Type": "text/plain"}, "{}", 415, 0},
	} {
		for which, g := range map[string]*Guard{"open": open, "closed": closed} {
			want := c.open
			if which == "closed" {
				want = c.closed
			}
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			r := httptest.NewRequest(c.method, c.path, body)
			switch r.Host = c.host; c.host {
			case "":
				r.Host = "127.0.0.1:5080"
			case "-":
				r.Host = ""
			}
			for k, v := range c.headers {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			reached := false
			g.Protect(http.HandlerFunc(func(got http.ResponseWriter, _ *http.Request) {
				reached = true
				if got != http.ResponseWriter(w) {
					t.Errorf("%s, %s: the ResponseWriter is wrapped", which, c.name)
				}
			})).ServeHTTP(w, r)
			if reached != (want == 0) || !reached && w.Code != want {
				t.Errorf("%s, %s: reached %v, status %d, want %d", which, c.name, reached, w.Code, want)
			}
			if reached {
				continue
			}
			var problem struct {
				Detail string
				Errors []struct{ Code, Message string }
			}
			if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil {
				t.Errorf("%s, %s: %q: %v", which, c.name, w.Body, err)
				continue
			}
			oci := strings.HasPrefix(c.path, "/v2/")
			if oci && (len(problem.Errors) != 1 || problem.Errors[0].Message == "" || problem.Errors[0].Code != "DENIED") || !oci && (problem.Detail == "" || w.Header().Get("Content-Type") != "application/problem+json") {
				t.Errorf("%s, %s: the refusal %q is not in the form of %s", which, c.name, w.Body, c.path)
			}
		}
	}
}
