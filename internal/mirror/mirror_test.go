package mirror_test

import (
	"net/http"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/registry/registrytest"
)

// A node pulls a manifest and then its blobs; afterwards all of it is here and
// the upstream is not needed.
func TestPullThrough(t *testing.T) {
	for _, ways := range []struct{ name, path, query string }{
		{"by path", "/v2/docker.io/library/busybox", ""},
		{"by short path", "/v2/docker.io/busybox", ""},
		{"by ns", "/v2/library/busybox", "?ns=docker.io"},
		{"by short ns", "/v2/busybox", "?ns=docker.io"},
	} {
		t.Run(ways.name, func(t *testing.T) {
			r := newRig(t, nil)
			d := r.push(t, "library/busybox", []string{"1"}, "config", "layer one", "layer two")
			m := r.get(t, ways.path+"/manifests/1"+ways.query)
			if m.status != http.StatusOK || m.header.Get("Docker-Content-Digest") != string(d) {
				t.Fatalf("manifest: %d %s %s", m.status, m.header.Get("Docker-Content-Digest"), m.body)
			}
			if want := strings.TrimPrefix(ways.query, "?ns="); m.header.Get("OCI-Namespace") != want {
				t.Errorf("OCI-Namespace is %q, want %q", m.header.Get("OCI-Namespace"), want)
			}
			for _, b := range []string{"config", "layer one", "layer two"} {
				r.get(t, ways.path+"/blobs/"+string(registrytest.Digest([]byte(b)))+ways.query).wantBytes(t, []byte(b))
			}
			until(t, "the image is here", func() bool { return r.here("docker.io/library/busybox", "1") })
			for _, b := range []string{"config", "layer one", "layer two"} {
				if n := r.count("GET /v2/library/busybox/blobs/" + string(registrytest.Digest([]byte(b)))); n != 1 {
					t.Errorf("%q was fetched %d times", b, n)
				}
			}
			// The upstream is gone, and time passes.
			r.set(func(w http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) })
			before := len(r.all())
			r.get(t, ways.path+"/manifests/"+string(d)+ways.query).wantBytes(t, m.body)
			r.get(t, ways.path+"/blobs/"+string(registrytest.Digest([]byte("layer one")))+ways.query).wantBytes(t, []byte("layer one"))
			r.get(t, ways.path+"/manifests/1"+ways.query).wantBytes(t, m.body)
			if n := len(r.all()); n != before {
				t.Errorf("%d requests to the upstream for what is here", n-before)
			}
			if want := "docker.io/library/busybox@" + string(d); len(r.pulls.is) != 3 || r.pulls.is[0] != want || r.pulls.is[2] != want {
				t.Errorf("pulls noted: %v", r.pulls.is)
			}
		})
	}
}
