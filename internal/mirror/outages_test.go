package mirror_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/mirror"
	"cairn.dev/cairn/internal/registry/registrytest"
)

// Whatever the upstream does, what is here is served, with a warning; what is
// not here is an error that says whose fault it is.
func TestOutages(t *testing.T) {
	status := func(code int, header ...string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			return true
		}
	}
	page := func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>please log in</html>")
		return true
	}
	for _, c := range []struct {
		name    string
		spoil   func(http.ResponseWriter, *http.Request) bool
		warning string
		status  int // for what is not here
		code    string
	}{
		{"404", status(404), "docker.io does not have a/b:1, or not for us (it answers 404 Not Found)", 404, "MANIFEST_UNKNOWN"},
		{"401", status(401), "it answers 401 Unauthorized", 404, "MANIFEST_UNKNOWN"},
		{"403", status(403), "it answers 403 Forbidden", 404, "MANIFEST_UNKNOWN"},
		{"429", status(429, "Retry-After", "120"), "left alone for 2m0s", 429, "TOOMANYREQUESTS"},
		{"500", status(500), "docker.io answers 500 Internal Server Error", 502, "UNAVAILABLE"},
		{"503", status(503), "docker.io answers 503 Service Unavailable", 502, "UNAVAILABLE"},
		{"no answer in time", func(w http.ResponseWriter, q *http.Request) bool { <-q.Context().Done(); return true }, "docker.io does not answer: ", 502, "UNAVAILABLE"},
		{"connection cut", func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, "docker.io does not answer: ", 502, "UNAVAILABLE"},
		{"a page for every request", page, "docker.io sent something that is no manifest (text/html from ", 502, "UNAVAILABLE"},
		{"redirect to nowhere", status(302, "Location", "http://127.0.0.1:1/login"), "docker.io does not answer: ", 502, "UNAVAILABLE"},
		{"redirects without end", status(302, "Location", "/v2/"), "more than 5 redirects", 502, "UNAVAILABLE"},
		{"a digest that leads nowhere", func(w http.ResponseWriter, q *http.Request) bool {
			if q.Method == http.MethodHead {
				w.Header().Set("Docker-Content-Digest", string(registrytest.Digest([]byte("?"))))
				return true
			}
			http.NotFound(w, q)
			return true
		}, "docker.io does not have a/b@sha256:", 404, "MANIFEST_UNKNOWN"},
		{"other bytes than the digest's", func(w http.ResponseWriter, q *http.Request) bool {
			w.Header().Set("Docker-Content-Digest", string(registrytest.Digest([]byte("?"))))
			w.Header().Set("Content-Type", image.MediaTypeManifest)
			_, _ = w.Write(registrytest.Manifest([]byte("config")))
			return true
		}, "docker.io sent something that is not the manifest sha256:", 502, "UNAVAILABLE"},
		{"right digest, not a manifest", func(w http.ResponseWriter, q *http.Request) bool {
			w.Header().Set("Docker-Content-Digest", string(registrytest.Digest([]byte("{}"))))
			_, _ = io.WriteString(w, "{}")
			return true
		}, "docker.io sent something that is no manifest", 502, "UNAVAILABLE"},
		{"a manifest cut in the middle", func(w http.ResponseWriter, q *http.Request) bool {
			w.Header().Set("Docker-Content-Digest", string(registrytest.Digest([]byte("?"))))
			w.Header().Set("Content-Length", "500")
			if q.Method == http.MethodGet {
				_, _ = io.WriteString(w, "{")
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			return true
		}, "docker.io broke off in the middle of a manifest", 502, "UNAVAILABLE"},
		{"an endless manifest", func(w http.ResponseWriter, q *http.Request) bool {
			w.Header().Set("Docker-Content-Digest", string(registrytest.Digest([]byte("?"))))
			for q.Method == http.MethodGet {
				if _, err := io.WriteString(w, strings.Repeat(" ", 1<<20)); err != nil {
					return true
				}
			}
			return true
		}, "docker.io sent something that is not the manifest", 502, "UNAVAILABLE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(cfg *mirror.Config) {
				if c.name == "no answer in time" {
					cfg.Timeout = 50 * time.Millisecond
				}
			})
			d := r.push(t, "a/b", []string{"1"}, "config", "layer")
			if a := r.pull(t, "1", ""); a.status != 200 || a.header.Get("Warning") != "" {
				t.Fatalf("while all is well: %d, warning %q", a.status, a.header.Get("Warning"))
			}
			r.wait(t, "1", d)
			r.clock.Advance(time.Hour)
			r.run(t)
			r.set(c.spoil)
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := r.do(t, method, "/v2/"+repo+"/manifests/1")
				if a.status != 200 || a.digest() != string(d) {
					t.Fatalf("%s of what is here: %d %s", method, a.status, a.body)
				}
				w := a.header.Get("Warning")
				if !strings.HasPrefix(w, `299 - "`) || !strings.Contains(w, c.warning) || !strings.HasSuffix(w, `; this is the copy that is here"`) {
					t.Errorf("%s: Warning is %q, want %q in it", method, w, c.warning)
				}
			}
			for _, ref := range []string{"2", string(registrytest.Digest([]byte("?")))} {
				a := r.get(t, "/v2/"+repo+"/manifests/"+ref)
				if a.status != c.status || !strings.Contains(string(a.body), c.code) {
					t.Errorf("%s, which is not here: %d %s, want %d %s", ref, a.status, a.body, c.status, c.code)
				}
			}
			// And it ends.
			r.set(nil)
			r.clock.Advance(time.Hour)
			until(t, "an answer without a warning", func() bool {
				a := r.pull(t, "1", "")
				return a.status == 200 && a.header.Get("Warning") == ""
			})
		})
	}
}

// Nothing is asked of an upstream that wants to be left alone, until then.
func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		header string
		wait   time.Duration
	}{
		{"120", 2 * time.Minute},
		{"0", time.Second},
		{"", time.Minute},
		{"soon", time.Minute},
		{"99999999", 24 * time.Hour},
		{registrytest.Start.Add(time.Hour).Format(http.TimeFormat), time.Hour},
		{registrytest.Start.Add(-time.Hour).Format(http.TimeFormat), time.Second},
	} {
		t.Run(c.header, func(t *testing.T) {
			r := newRig(t, nil)
			r.set(func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Retry-After", c.header)
				w.WriteHeader(http.StatusTooManyRequests)
				return true
			})
			ask := func(want int) {
				t.Helper()
				for i := range 3 {
					a := r.get(t, fmt.Sprintf("/v2/docker.io/r/%d/manifests/latest", i))
					if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
						t.Fatalf("%d %s", a.status, a.body)
					}
				}
				if n := len(r.all()); n != want {
					t.Fatalf("%d requests, want %d: %v", n, want, r.all())
				}
			}
			ask(1)
			r.clock.Advance(c.wait - time.Nanosecond)
			ask(1)
			r.clock.Advance(time.Nanosecond)
			ask(2)
		})
	}
}

// An upstream that does not answer is not waited for by every pull.
func TestCircuit(t *testing.T) {
	r := newRig(t, func(c *mirror.Config) { c.Timeout = 50 * time.Millisecond })
	r.set(func(w http.ResponseWriter, q *http.Request) bool { <-q.Context().Done(); return true })
	for i := range 10 {
		if a := r.get(t, fmt.Sprintf("/v2/docker.io/r/%d/manifests/latest", i)); a.status != http.StatusBadGateway {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if n := len(r.all()); n != 1 {
		t.Errorf("%d requests to an upstream that does not answer, want 1", n)
	}
	r.clock.Advance(time.Minute)
	r.set(nil)
	if a := r.get(t, "/v2/docker.io/r/0/manifests/latest"); a.status != http.StatusNotFound {
		t.Errorf("after it is back: %d %s", a.status, a.body)
	}
}

// The old image is served whole, while the new one cannot be had whole.
func TestOutageInTheMiddle(t *testing.T) {
	r := newRig(t, nil)
	one := r.push(t, "a/b", []string{"1"}, "config 1", "layer 1")
	r.pull(t, "1", "")
	r.wait(t, "1", one)
	r.push(t, "a/b", []string{"1"}, "config 2", "layer 2")
	r.clock.Advance(time.Hour)
	r.set(func(w http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/blobs/") {
			w.Header().Set("Retry-After", "600")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
		return false
	})
	until(t, "the old image in the place of the new one", func() bool {
		a := r.pull(t, "1", "")
		return a.status == 200 && a.digest() == string(one) && strings.Contains(a.header.Get("Warning"), "this is the copy that is here")
	})
}
