package mirror_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/mirror"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
)

// An origin is an upstream: a registry behind a hand that spoils answers.
type origin struct {
	addr  string
	store *content.Store

	mu    sync.Mutex
	asked []string
	spoil func(w http.ResponseWriter, r *http.Request) bool // true: it answered
}

func newOrigin(t testing.TB) *origin {
	o := &origin{store: registrytest.Store(t, registrytest.Disk(t))}
	reg := registry.New(registry.Config{Content: o.store, Log: quiet()})
	o.addr = registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.asked = append(o.asked, r.Method+" "+r.URL.Path)
		spoil := o.spoil
		o.mu.Unlock()
		if spoil != nil && spoil(w, r) {
			return
		}
		reg.ServeHTTP(w, r)
	}))
	return o
}

func (o *origin) set(spoil func(w http.ResponseWriter, r *http.Request) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spoil = spoil
}

// count is how many requests begin with prefix.
func (o *origin) count(prefix string) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.asked {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

func (o *origin) all() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.asked)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// push puts an image into the origin.
func (o *origin) push(t testing.TB, repository string, tags []string, config string, layers ...string) image.Digest {
	t.Helper()
	var ls [][]byte
	for _, l := range append([]string{config}, layers...) {
		if _, err := o.store.PutBlob(t.Context(), repository, strings.NewReader(l), registrytest.Digest([]byte(l))); err != nil {
			t.Fatal(err)
		}
		ls = append(ls, []byte(l))
	}
	return o.put(t, repository, tags, registrytest.Manifest(ls[0], ls[1:]...))
}

func (o *origin) put(t testing.TB, repository string, tags []string, body []byte) image.Digest {
	t.Helper()
	m, err := image.ParseManifest("", body)
	if err != nil {
		t.Fatal(err)
	}
	d := registrytest.Digest(body)
	err = o.store.PutManifest(t.Context(), content.Push{Repository: repository, Digest: d, Tags: tags, MediaType: m.MediaType, Body: body, Manifest: m, Actor: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// index is the body of an index of children by platform.
func index(children ...image.Descriptor) []byte {
	s := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[`, image.MediaTypeIndex)
	for i, c := range children {
		if i > 0 {
			s += ","
		}
		s += fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":7,"platform":{"os":%q,"architecture":%q}}`, image.MediaTypeManifest, c.Digest, c.Platform.OS, c.Platform.Architecture)
	}
	return []byte(s + "]}")
}

func on(arch string, d image.Digest) image.Descriptor {
	return image.Descriptor{Digest: d, Platform: &image.Platform{OS: "linux", Architecture: arch}}
}

// A rig is a mirror of an origin, behind the registry that serves it.
type rig struct {
	*origin
	clock  *clock.Fake
	local  *content.Store
	mirror *mirror.Mirror
	addr   string
	pulls  *pulls
}

type pulls struct {
	mu sync.Mutex
	is []string
}

func (p *pulls) Pull(repository string, d image.Digest, subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.is = append(p.is, repository+"@"+string(d))
}

func newRig(t testing.TB, edit func(*mirror.Config)) *rig {
	t.Helper()
	r := &rig{origin: newOrigin(t), clock: clock.NewFake(registrytest.Start), pulls: &pulls{}}
	r.local = registrytest.Store(t, registrytest.Disk(t))
	r.start(t, edit)
	return r
}

// start makes a mirror over what is here, as after a restart.
func (r *rig) start(t testing.TB, edit func(*mirror.Config)) {
	t.Helper()
	cfg := mirror.Config{Content: r.local, Clock: r.clock, Log: quiet(), Timeout: 5 * time.Second,
		Upstreams: []mirror.Upstream{{Host: "docker.io", URL: "http://" + r.origin.addr}}}
	if edit != nil {
		edit(&cfg)
	}
	var err error
	if r.mirror, err = mirror.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.mirror.Close() })
	r.addr = registrytest.Serve(t, registry.New(registry.Config{Content: r.local, Mirror: r.mirror, Pulls: r.pulls, Log: quiet()}))
}

type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // while reading the body
}

func (r *rig) get(t testing.TB, path string, header ...string) answer {
	t.Helper()
	return r.do(t, http.MethodGet, path, header...)
}

func (r *rig) do(t testing.TB, method, path string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, b, err}
}

// wantBytes fails unless the answer is exactly these bytes.
func (a answer) wantBytes(t testing.TB, want []byte) {
	t.Helper()
	if a.status != http.StatusOK || a.err != nil || !bytes.Equal(a.body, want) {
		t.Fatalf("%d, %d bytes %.300q, %v; want %d bytes", a.status, len(a.body), a.body, a.err, len(want))
	}
}

// until waits for what happens in the background.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s did not happen", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// here reports whether content has a live image under the tag or digest.
func (r *rig) here(repository, reference string) bool {
	i, err := r.local.Peek(context.Background(), repository, reference)
	return err == nil && i.State == content.Live
}
