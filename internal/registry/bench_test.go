package registry_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
)

// A sink is a response that goes nowhere.
type sink struct {
	head   http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.head }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }

type noPulls struct{}

func (noPulls) Pull(string, image.Digest, string) {}

// BenchmarkHandler is what the registry itself adds to a request: net/http's
// part is not in it. Allocations are what it is about.
func BenchmarkHandler(b *testing.B) {
	guard, err := access.New(b.Context(), access.Config{Open: true, Clock: clock.NewFake(registrytest.Start)})
	if err != nil {
		b.Fatal(err)
	}
	h := newHandler(b, func(c *registry.Config) { c.Access, c.Pulls = guard, noPulls{} })
	for _, r := range pushed("team/app", "v1") {
		serveRow(b, h, r)
	}
	for name, path := range map[string]string{
		"manifest":      "/v2/team/app/manifests/v1",
		"manifest-hash": "/v2/team/app/manifests/" + string(registrytest.Digest(manifest)),
		"tags":          "/v2/team/app/tags/list",
		"blob-head":     "HEAD /v2/team/app/blobs/" + string(registrytest.Digest(layer)),
	} {
		b.Run(name, func(b *testing.B) {
			method := "GET"
			if len(path) > 5 && path[:5] == "HEAD " {
				method, path = "HEAD", path[5:]
			}
			q := httptest.NewRequest(method, path, nil)
			s := &sink{head: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(s.head)
				h.ServeHTTP(s, q)
			}
			if s.status != 0 && s.status != 200 {
				b.Fatalf("status %d", s.status)
			}
		})
	}
}

func serveRow(t testing.TB, h http.Handler, r row) {
	t.Helper()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r.request(""))
	if rec.Code != r.status {
		t.Fatalf("%s: %d %s", r.call, rec.Code, rec.Body)
	}
}
