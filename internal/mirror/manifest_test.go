package mirror_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/mirror"
	"cairn.dev/cairn/internal/registry/registrytest"
)

const repo = "docker.io/a/b"

// pull is what a node does: the manifest by tag, then what it needs, for the
// architecture arch if the tag is an index.
func (r *rig) pull(t testing.TB, tag, arch string) answer {
	t.Helper()
	first := r.get(t, "/v2/"+repo+"/manifests/"+tag)
	a := first
	for {
		if a.status != http.StatusOK {
			return a
		}
		m, err := image.ParseManifest("", a.body)
		if err != nil {
			t.Fatal(err)
		}
		if !m.Index {
			for _, b := range m.Blobs() {
				if got := r.get(t, blobPath+string(b.Digest)); got.status != http.StatusOK || got.err != nil {
					return got
				}
			}
			return first
		}
		for _, c := range m.Children {
			if c.Platform.Architecture == arch {
				a = r.get(t, "/v2/"+repo+"/manifests/"+string(c.Digest))
			}
		}
	}
}

func (a answer) digest() string { return a.header.Get("Docker-Content-Digest") }

func (r *rig) wait(t testing.TB, tag string, d image.Digest) {
	t.Helper()
	until(t, "tag "+tag+" names "+string(d), func() bool {
		i, err := r.local.Peek(t.Context(), repo, tag)
		return err == nil && i.State == content.Live && i.Digest == d
	})
}

// One HEAD per tag and ttl; a GET only of what is new.
func TestTTL(t *testing.T) {
	r := newRig(t, func(c *mirror.Config) { c.Upstreams[0].TTL = time.Minute })
	one := r.push(t, "a/b", []string{"1"}, "config 1", "layer")
	heads := func() int { return r.count("HEAD /v2/a/b/manifests/1") }
	gets := func() int { return r.count("GET /v2/a/b/manifests/") }
	want := func(what string, d image.Digest, h, g int) {
		t.Helper()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if a := r.get(t, "/v2/"+repo+"/manifests/1"); a.status != 200 || a.digest() != string(d) {
					t.Errorf("%s: %d %s, want %s", what, a.status, a.digest(), d)
				}
			})
		}
		all.Wait()
		if heads() != h || gets() != g {
			t.Fatalf("%s: %d HEAD and %d GET, want %d and %d", what, heads(), gets(), h, g)
		}
	}
	want("first", one, 1, 1)
	r.wait(t, "1", one)
	r.clock.Advance(59 * time.Second)
	want("within the ttl", one, 1, 1)
	r.clock.Advance(time.Second)
	want("after it", one, 2, 1)
	two := r.push(t, "a/b", []string{"1"}, "config 2", "layer")
	want("moved, within the ttl", one, 2, 1)
	r.clock.Advance(time.Minute)
	want("moved, after it", two, 3, 2)
	r.wait(t, "1", two)
	if err := r.store.SetTag(t.Context(), "a/b", one, "1", "test"); err != nil {
		t.Fatal(err)
	}
	r.clock.Advance(time.Minute)
	want("moved back to what is here", one, 4, 2)
	if i, err := r.local.Peek(t.Context(), repo, "1"); err != nil || i.Digest != one {
		t.Errorf("the tag here names %s, %v", i.Digest, err)
	}
	if n := r.count("GET /v2/a/b/blobs/" + string(registrytest.Digest([]byte("layer")))); n != 1 {
		t.Errorf("the layer of both was fetched %d times", n)
	}
	// What is not there is asked for once per ttl, too.
	for range 5 {
		if a := r.get(t, "/v2/"+repo+"/manifests/none"); a.status != http.StatusNotFound || !strings.Contains(string(a.body), "docker.io does not have a/b:none") {
			t.Fatalf("no such tag: %d %s", a.status, a.body)
		}
	}
	if n := r.count("HEAD /v2/a/b/manifests/none"); n != 1 {
		t.Errorf("%d HEADs of what is not there", n)
	}
}

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

// An index is here when all of it that anybody asked for is; its tag stays on
// the old one until all platforms that were here are here again.
func TestIndex(t *testing.T) {
	r := newRig(t, nil)
	child := func(name string) image.Digest { return r.push(t, "a/b", nil, "config "+name, "layer "+name) }
	amd, arm, s390 := child("amd64 1"), child("arm64 1"), child("s390x 1")
	one := r.put(t, "a/b", []string{"1"}, index(on("amd64", amd), on("arm64", arm), on("s390x", s390)))
	if a := r.get(t, "/v2/"+repo+"/manifests/1"); a.digest() != string(one) {
		t.Fatalf("index: %d %s", a.status, a.body)
	}
	if r.here(repo, "1") {
		t.Error("an index is here before anything of it")
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if a := r.pull(t, "1", arch); a.digest() != string(one) {
			t.Fatalf("pull for %s: %d %s", arch, a.status, a.body)
		}
	}
	r.wait(t, "1", one)
	until(t, "both children are here", func() bool { return r.here(repo, string(amd)) && r.here(repo, string(arm)) })
	if r.here(repo, string(s390)) || r.count("GET /v2/a/b/manifests/"+string(s390)) > 0 {
		t.Error("a platform was fetched that nobody asked for")
	}

	// A new one; only amd64 is pulled, and the upstream hesitates with arm64.
	amd2, arm2, s2 := child("amd64 2"), child("arm64 2"), child("s390x 2")
	two := r.put(t, "a/b", []string{"1"}, index(on("amd64", amd2), on("arm64", arm2), on("s390x", s2)))
	r.clock.Advance(time.Hour)
	gate := make(chan struct{})
	r.set(func(w http.ResponseWriter, q *http.Request) bool {
		if strings.HasSuffix(q.URL.Path, "/blobs/"+string(registrytest.Digest([]byte("layer arm64 2")))) {
			<-gate
		}
		return false
	})
	if a := r.pull(t, "1", "amd64"); a.digest() != string(two) {
		t.Fatalf("pull of the new one: %d %s %s", a.status, a.digest(), a.body)
	}
	until(t, "the new amd64 is here", func() bool { return r.here(repo, string(amd2)) })
	if i, err := r.local.Peek(t.Context(), repo, "1"); err != nil || i.Digest != one {
		t.Errorf("the tag here moved to %s before arm64 came (%v)", i.Digest, err)
	}
	close(gate)
	r.wait(t, "1", two)
	if !r.here(repo, string(arm2)) || r.here(repo, string(s2)) {
		t.Error("the platforms that are here are not those that were here before")
	}
	// All of this is left without the upstream.
	r.clock.Advance(time.Hour)
	r.set(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	r.run(t)
	for _, arch := range []string{"amd64", "arm64"} {
		if a := r.pull(t, "1", arch); a.status != 200 || a.digest() != string(two) || a.header.Get("Warning") == "" {
			t.Errorf("%s without the upstream: %d %s", arch, a.status, a.body)
		}
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

// An expired copy comes back by a pull; if its upstream has a newer one, that
// comes.
func TestExpired(t *testing.T) {
	for _, c := range []struct {
		name string
		up   bool
	}{{"with the upstream", true}, {"without", false}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			d := r.push(t, "a/b", []string{"1"}, "config", "layer")
			r.pull(t, "1", "")
			r.wait(t, "1", d)
			i, err := r.local.Peek(t.Context(), repo, "1")
			if err != nil {
				t.Fatal(err)
			}
			errs, err := r.local.Expire(t.Context(), []content.Expiry{{Repository: repo, Digest: d, Version: i.Version, Reason: "unused"}})
			if err != nil || errs[0] != nil {
				t.Fatal(errs, err)
			}
			before := r.count("GET ")
			r.clock.Advance(time.Hour)
			if !c.up {
				r.set(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
				r.run(t)
			}
			if a := r.pull(t, "1", ""); a.status != 200 || a.digest() != string(d) {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if i, err := r.local.Peek(t.Context(), repo, "1"); err != nil || i.State != content.Live || len(i.Tags) != 1 {
				t.Errorf("it is %s with the tags %v (%v)", i.State, i.Tags, err)
			}
			if n := r.count("GET "); c.up && n != before {
				t.Errorf("%d downloads of what is here", n-before)
			}
		})
	}
}

// Who deletes a copy gets a new one by the next pull.
func TestDeleted(t *testing.T) {
	r := newRig(t, nil)
	d := r.push(t, "a/b", []string{"1"}, "config", "layer")
	r.pull(t, "1", "")
	r.wait(t, "1", d)
	if a := r.do(t, http.MethodDelete, "/v2/"+repo+"/manifests/"+string(d)); a.status != http.StatusAccepted {
		t.Fatalf("delete: %d %s", a.status, a.body)
	}
	if a := r.pull(t, "1", ""); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	r.wait(t, "1", d)
}

// An image that comes late does not take a tag that has moved on.
func TestLateImage(t *testing.T) {
	r := newRig(t, nil)
	one := r.push(t, "a/b", []string{"1"}, "config 1")
	r.pull(t, "1", "")
	r.wait(t, "1", one)
	two := r.push(t, "a/b", []string{"1"}, "config 2")
	gate := make(chan struct{})
	r.set(func(w http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/blobs/") {
			<-gate
		}
		return false
	})
	r.clock.Advance(time.Hour)
	if a := r.get(t, "/v2/"+repo+"/manifests/1"); a.digest() != string(two) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if err := r.store.SetTag(t.Context(), "a/b", one, "1", "test"); err != nil {
		t.Fatal(err)
	}
	r.clock.Advance(time.Hour)
	if a := r.get(t, "/v2/"+repo+"/manifests/1"); a.digest() != string(one) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	close(gate)
	until(t, "the late image is here", func() bool { return r.here(repo, string(two)) })
	if i, err := r.local.Peek(t.Context(), repo, "1"); err != nil || i.Digest != one {
		t.Errorf("the tag names %s (%v), want %s", i.Digest, err, one)
	}
}

// A look (HEAD) brings no blobs.
func TestLook(t *testing.T) {
	r := newRig(t, nil)
	d := r.push(t, "a/b", []string{"1"}, "config", "layer")
	for range 3 {
		if a := r.do(t, http.MethodHead, "/v2/"+repo+"/manifests/1"); a.status != 200 || a.digest() != string(d) {
			t.Fatalf("HEAD: %d", a.status)
		}
	}
	r.mirror.Close() // waits for what goes on
	if n := r.count("GET /v2/a/b/blobs/"); n != 0 || r.count("GET /v2/a/b/manifests/") != 1 {
		t.Errorf("requests: %v", r.all())
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t, func(c *mirror.Config) {
		c.Upstreams[0].Allow = []string{"library/*", "a/**"}
		c.Upstreams = append(c.Upstreams, mirror.Upstream{Host: "air.gap:5000", URL: c.Upstreams[0].URL, Offline: true})
		c.Own = []string{"registry.example.org"}
	})
	r.push(t, "a/b", []string{"1"}, "config")
	r.push(t, "c/d", []string{"1"}, "config")
	for _, c := range []struct {
		call   string
		status int
		says   string
	}{
		{"GET /v2/a/b/manifests/1?ns=ghcr.io", 404, "ghcr.io is not mirrored here: an operator can add it to the key mirrors of cairn.yaml"},
		{"GET /v2/a/b/blobs/" + image.EmptyDigest.String() + "?ns=169.254.169.254", 404, "NAME_UNKNOWN"},
		{"GET /v2/a/b/manifests/1?ns=http://127.0.0.1", 404, "NAME_UNKNOWN"},
		{"GET /v2/ghcr.io/a/b/manifests/1", 404, "NAME_UNKNOWN"},
		{"GET /v2/docker.io/manifests/1", 404, "NAME_UNKNOWN"}, // a repository here may be called so
		{"GET /v2/a/b/manifests/1?ns=registry.example.org", 404, "repository a/b is not known here"},
		{"GET /v2/a/b/manifests/1?ns=" + r.addr, 404, "repository a/b is not known here"},
		{"GET /v2/c/d/manifests/1?ns=docker.io", 403, "the key allow of its mirror names library/*, a/**"},
		{"GET /v2/docker.io/c/d/blobs/" + image.EmptyDigest.String(), 403, "DENIED"},
		{"GET /v2/A/b/manifests/1?ns=docker.io", 400, "NAME_INVALID"},
		{"GET /v2/a/../b/manifests/1?ns=docker.io", 400, "NAME_INVALID"},
		{"GET /v2/a/b/manifests/-?ns=docker.io", 400, "TAG_INVALID"},
		{"GET /v2/a/b/manifests/sha256:x?ns=docker.io", 400, "DIGEST_INVALID"},
		{"PUT /v2/docker.io/a/b/manifests/1", 403, "set offline: true"},
		{"POST /v2/docker.io/a/b/blobs/uploads/", 403, "DENIED"},
		{"POST /v2/a/b/blobs/uploads/?ns=docker.io", 403, "DENIED"},
		{"POST /v2/a/b/blobs/uploads/", 202, ""},
		{"POST /v2/air.gap_5000/a/b/blobs/uploads/", 202, ""},
		{"POST /v2/a/b/blobs/uploads/?ns=air.gap:5000", 202, ""},
		{"GET /v2/a/b/manifests/1?ns=air.gap:5000", 404, "its mirror is set offline"},
		{"GET /v2/a/b/manifests/1?ns=docker.io", 200, ""},
	} {
		before := len(r.all())
		method, path, _ := strings.Cut(c.call, " ")
		a := r.do(t, method, path)
		if a.status != c.status || !strings.Contains(string(a.body), c.says) {
			t.Errorf("%s: %d %s, want %d %q", c.call, a.status, a.body, c.status, c.says)
		}
		if n := len(r.all()) - before; n > 0 && c.status != 200 {
			t.Errorf("%s: the upstream was asked", c.call)
		}
	}
}
