package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/mirror"
	"cairn.dev/cairn/internal/pool"
	"cairn.dev/cairn/internal/upstream"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"alpine":                                  "|alpine:latest",
		"argoproj/argosay:v2":                     "|argoproj/argosay:v2",
		"docker.io/library/alpine:3":              "docker.io|library/alpine:3",
		"index.docker.io/library/alpine":          "docker.io|library/alpine:latest",
		"Registry.local:5000/a/b:c":               "registry.local:5000|a/b:c",
		"localhost/a":                             "localhost|a:latest",
		"ghcr.io/a/b":                             "ghcr.io|a/b:latest",
		"a.b/c@sha256:" + strings.Repeat("0", 64): "a.b|c@sha256:" + strings.Repeat("0", 64),
	} {
		host, r, err := Parse(in)
		if got := host + "|" + r.String(); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "A", "a b", "../x", "ghcr.io/", "a:b:c"} {
		if _, _, err := Parse(in); err == nil {
			t.Errorf("%q was read", in)
		}
	}
}

// store is content that has manifests by repository and reference.
type store struct {
	manifests map[string][]byte
	blobs     map[image.Digest][]byte
	asked     []string
}

func (s *store) LiveManifest(_ context.Context, repository, reference string) (*content.Manifest, error) {
	s.asked = append(s.asked, repository+":"+reference)
	b, ok := s.manifests[repository+":"+reference]
	if !ok {
		return nil, content.ErrManifestUnknown
	}
	return &content.Manifest{Repository: repository, Digest: digest.FromBytes(b), MediaType: image.MediaTypeManifest, Body: b}, nil
}

func (s *store) OpenBlob(_ context.Context, _ string, d image.Digest) (blob.Reader, error) {
	b, ok := s.blobs[d]
	if !ok {
		return nil, content.ErrBlobUnknown
	}
	return reader{bytes.NewReader(b)}, nil
}

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

// mirrored is a mirror of one prefix.
type mirrored struct {
	prefix string
	store
	err error
}

func (m *mirrored) Mirrors(repository string) (bool, bool) {
	return strings.HasPrefix(repository, m.prefix+"/"), false
}

func (m *mirrored) Manifest(ctx context.Context, repository, reference string, _ bool) (*content.Manifest, string, error) {
	if m.err != nil {
		return nil, "", m.err
	}
	found, err := m.LiveManifest(ctx, repository, reference)
	if err != nil {
		return nil, "", &mirror.Error{Kind: mirror.NotFound, Host: m.prefix, Why: "not there"}
	}
	return found, "", nil
}

func (m *mirrored) Blob(ctx context.Context, repository string, d image.Digest, _ bool) (blob.Reader, error) {
	return m.OpenBlob(ctx, repository, d)
}

// manifest is one whose only layer is text.
func manifest(text string) []byte {
	d := func(s string) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%d}`, digest.FromString(s), len(s))
	}
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}`, image.MediaTypeManifest, d("{}"), d(text))
}

// Which of the places a name means.
func TestWhere(t *testing.T) {
	ours, hub, other := &store{manifests: map[string][]byte{}}, &mirrored{prefix: "docker.io"}, manifest("elsewhere")
	hub.manifests, hub.blobs = map[string][]byte{}, map[image.Digest][]byte{}
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/team/app/manifests/1" || r.URL.Path == "/v2/team/app/manifests/"+string(digest.FromBytes(other)):
			w.Header().Set("Content-Type", image.MediaTypeManifest)
			_, _ = w.Write(other)
		case r.URL.Path == "/v2/team/app/blobs/"+string(digest.FromString("elsewhere")):
			_, _ = io.WriteString(w, "elsewhere")
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer registry.Close()
	there := strings.TrimPrefix(registry.URL, "http://")
	fake := clock.NewFake(time.Unix(1e9, 0))
	remote, err := NewRemote(RemoteConfig{Clock: fake})
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	images, err := New(Config{Content: ours, Mirror: hub, Own: []string{"cairn.local:5080"}, Remote: remote})
	if err != nil {
		t.Fatal(err)
	}
	put := func(s *store, name, text string) { s.manifests[name] = manifest(text) }
	put(ours, "app:1", "ours")
	put(ours, "library/alpine:latest", "pushed")
	put(ours, "ghcr.io/team/tool:2", "pushed under its host")
	put(&hub.store, "docker.io/library/busybox:latest", "mirrored")
	put(&hub.store, "docker.io/library/alpine:latest", "mirrored alpine")
	for ref, want := range map[string]string{
		"app:1": "ours", "cairn.local:5080/app:1": "ours", "alpine": "pushed", "busybox": "mirrored", "docker.io/alpine": "mirrored alpine",
		"docker.io/library/alpine": "mirrored alpine", "ghcr.io/team/tool:2": "pushed under its host", there + "/team/app:1": "elsewhere",
		there + "/team/app@" + string(digest.FromBytes(other)): "elsewhere",
	} {
		f, err := images.Find(t.Context(), ref)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if got := f.Manifest.Layers[0].Digest; got != digest.FromString(want) {
			t.Errorf("%s: %s of %s is not %q", ref, got, f.Name, want)
		}
	}
	for _, ref := range []string{"cairn.local:5080/nosuch", there + "/team/nosuch:1", "not a name", ""} {
		if _, err := images.Find(t.Context(), ref); !errors.Is(err, pool.ErrNoImage) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	// A mirror whose upstream is down is no reason to ask somebody else.
	hub.err = &mirror.Error{Kind: upstream.Unreachable, Host: "docker.io", Why: "down"}
	var e *upstream.Error
	if _, err := images.Find(t.Context(), "docker.io/library/nosuch"); !errors.As(err, &e) || e.Kind != upstream.Unreachable {
		t.Errorf("%v", err)
	}
	// Without others nobody is asked.
	alone, err := New(Config{Content: ours})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone.Find(t.Context(), "ghcr.io/x/y"); !errors.Is(err, pool.ErrNoImage) {
		t.Errorf("%v", err)
	}
	f, err := images.Find(t.Context(), there+"/team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	body, err := f.From.Blob(t.Context(), f.Manifest.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(body)
	if closed := body.Close(); err != nil || closed != nil || string(b) != "elsewhere" {
		t.Errorf("%q, %v, %v", b, err, closed)
	}
	registry.Close() // what a tag named a moment ago holds
	if _, err := images.Find(t.Context(), there+"/team/app:1"); err != nil {
		t.Error(err)
	}
	over := make(chan struct{})
	defer close(over)
	go func() { // it is asked again, later
		for {
			select {
			case <-over:
				return
			default:
				if fake.Waiting() > 0 {
					fake.Advance(time.Second)
				}
				runtime.Gosched()
			}
		}
	}()
	if _, err := images.Find(t.Context(), there+"/team/other:1"); !errors.As(err, &e) || e.Kind != upstream.Unreachable {
		t.Errorf("%v", err)
	}
}

func TestLocal(t *testing.T) {
	for host, want := range map[string]bool{"localhost": true, "localhost:5000": true, "127.0.0.1:5": true, "[::1]:5": true, "ghcr.io": false, "10.0.0.1:5000": false} {
		if local(host) != want {
			t.Errorf("%s", host)
		}
	}
}
