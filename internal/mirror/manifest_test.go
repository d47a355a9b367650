package mirror_test

import (
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
