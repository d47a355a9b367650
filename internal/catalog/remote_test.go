package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/catalog/catalogtest"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/upstream"
)

// A fake registry answers as a test says and notes what it was asked.
type fake struct {
	*httptest.Server
	answer func(w http.ResponseWriter, r *http.Request)

	mu    sync.Mutex
	asked []string
}

func newFake(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *fake {
	t.Helper()
	f := &fake{answer: answer}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.asked = append(f.asked, r.Method+" "+r.URL.RequestURI())
		answer := f.answer
		f.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// took returns what was asked since the last call.
func (f *fake) took() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.asked
	f.asked = nil
	return a
}

func (f *fake) set(answer func(w http.ResponseWriter, r *http.Request)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// of is a catalog that believes the fake to be host.
func (f *fake) of(t *testing.T, host string, more ...func(*catalog.RemoteConfig)) (*catalog.Remote, *clock.Fake) {
	t.Helper()
	c := clock.NewFake(catalogtest.Start)
	cfg := catalog.RemoteConfig{Clock: c, Registries: []catalog.Registry{{Host: host, URL: f.URL}}, Timeout: 5 * time.Second}
	for _, m := range more {
		m(&cfg)
	}
	r, err := catalog.NewRemote(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, c
}

func TestCostOfImages(t *testing.T) {
	dir := t.TempDir()
	store := database(t, dir)
	doc := catalogtest.Linux("amd64", nil, "layer")
	d := catalogtest.Dig(doc.Body())
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", image.MediaTypeManifest)
			w.Header().Set("Docker-Content-Digest", string(d))
			w.Write(doc.Body())
		default:
			w.Write(doc.Config)
		}
	})
	r, c := f.of(t, "r.example", func(c *catalog.RemoteConfig) { c.Memory = store })
	for range 3 {
		if _, err := r.Lookup(t.Context(), "r.example/a/b", "1"); err != nil {
			t.Fatal(err)
		}
	}
	if asked := f.took(); !slices.Equal(asked, []string{"HEAD /v2/a/b/manifests/1"}) {
		t.Errorf("a tag was looked up by %q", asked)
	}
	first, err := r.Image(t.Context(), "r.example/a/b", d)
	if err != nil {
		t.Fatal(err)
	}
	if asked := f.took(); len(asked) != 2 {
		t.Errorf("an image was described by %q", asked)
	}
	// For ever, and by the next process, too.
	c.Advance(1000 * time.Hour)
	again, c2 := f.of(t, "r.example", func(c *catalog.RemoteConfig) { c.Memory = store })
	c2.Advance(2000 * time.Hour)
	for _, r := range []*catalog.Remote{r, again} {
		im, err := r.Image(t.Context(), "r.example/a/b", d)
		if err != nil || fmt.Sprint(im) != fmt.Sprint(first) || !im.Since.Equal(catalogtest.Start) {
			t.Errorf("got %+v, %v; want %+v", im, err, first)
		}
	}
	if asked := f.took(); len(asked) != 0 {
		t.Errorf("it was asked again: %q", asked)
	}
}

// A registry that lies about what it has is not believed.
func TestLies(t *testing.T) {
	good, bad := catalogtest.Linux("amd64", nil, "good"), catalogtest.Linux("amd64", nil, "bad")
	d := catalogtest.Dig(good.Body())
	manifest := func(w http.ResponseWriter, doc catalogtest.Doc, say image.Digest) {
		w.Header().Set("Content-Type", image.MediaTypeManifest)
		w.Header().Set("Docker-Content-Digest", string(say))
		w.Write(doc.Body())
	}
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"another manifest": func(w http.ResponseWriter, r *http.Request) { manifest(w, bad, d) },
		"another config": func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				manifest(w, good, d)
				return
			}
			w.Write([]byte(`{"os":"linux","architecture":"s390x"}`))
		},
		"HTML": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") },
		"a config too big": func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				manifest(w, good, d)
				return
			}
			for range 9 {
				w.Write(make([]byte, 1<<20))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := newFake(t, answer).of(t, "r.example")
			if im, err := r.Image(t.Context(), "r.example/a/b", d); err == nil {
				t.Errorf("believed: %+v", im)
			}
		})
	}
	t.Run("of a tag", func(t *testing.T) {
		// HEAD is of a page for people, so that GET decides; and that lies.
		r, _ := newFake(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.Header().Set("Content-Type", "text/html")
				w.Header().Set("Docker-Content-Digest", string(d))
				return
			}
			manifest(w, bad, d)
		}).of(t, "r.example")
		if d, err := r.Lookup(t.Context(), "r.example/a/b", "1"); err == nil {
			t.Errorf("believed: %s", d)
		}
	})
	t.Run("no digest", func(t *testing.T) {
		r, _ := newFake(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", image.MediaTypeManifest)
			w.Write(good.Body())
		}).of(t, "r.example")
		if got, err := r.Lookup(t.Context(), "r.example/a/b", "1"); err != nil || got != d {
			t.Errorf("%s, %v; want %s", got, err, d)
		}
	})
}

// A registry that wants to be left alone is.
func TestBusy(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	r, c := f.of(t, "r.example")
	for range 3 {
		_, err := r.Tags(t.Context(), "r.example/a/b")
		e, ok := errors.AsType[*upstream.Error](err)
		if !ok || e.Kind != upstream.Busy || e.RetryAfter != 2*time.Minute {
			t.Fatalf("error %v", err)
		}
	}
	if n := len(f.took()); n != 1 {
		t.Errorf("%d questions to a registry that asked to be left alone", n)
	}
	f.set(func(w http.ResponseWriter, r *http.Request) { list(w, "", "1") })
	c.Advance(2 * time.Minute)
	if tags, err := r.Tags(t.Context(), "r.example/a/b"); err != nil || len(tags) != 1 {
		t.Errorf("%v, %v", tags, err)
	}
}

// Hosts come from code, which anybody may have written.
func TestHosts(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) { list(w, "", "1") })
	addr := strings.TrimPrefix(f.URL, "http://")
	server, _ := f.of(t, "r.example")
	for _, host := range []string{addr, "localhost:1", "[::1]:1", "169.254.169.254", "10.0.0.1:5000", "db:5432"} {
		if _, err := server.Tags(t.Context(), host+"/a/b"); err == nil || !strings.Contains(err.Error(), "configure") {
			t.Errorf("%s on a server: %v", host, err)
		}
	}
	if n := len(f.took()); n != 0 {
		t.Errorf("%d questions to what was not configured", n)
	}
	laptop, _ := f.of(t, "r.example", func(c *catalog.RemoteConfig) { c.Local = true })
	if tags, err := laptop.Tags(t.Context(), addr+"/a/b"); err != nil || len(tags) != 1 {
		t.Errorf("on a laptop: %v, %v", tags, err)
	}
	for i := range 2000 {
		_, err := server.Image(t.Context(), fmt.Sprintf("h%d.invalid/a/b", i), "sha256:x")
		if err != nil && strings.Contains(err.Error(), "more than") {
			return
		}
	}
	t.Error("any number of registries can be named")
}

// Docker Hub's names are made whole.
func TestHubNames(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) { list(w, "", "1") })
	r, _ := f.of(t, "docker.io")
	for _, name := range []string{"nginx", "docker.io/nginx", "index.docker.io/library/nginx", "docker.io/library/nginx"} {
		if _, err := r.Tags(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	if asked := f.took(); !slices.Equal(asked, []string{"GET /v2/library/nginx/tags/list?n=1000"}) {
		t.Errorf("asked %q", asked)
	}
}

type keychain func(host string) (upstream.Account, error)

func (k keychain) Account(_ context.Context, host string) (upstream.Account, error) { return k(host) }

func TestAccounts(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "ann" || p != "pw" {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		list(w, "", "1")
	})
	host := strings.TrimPrefix(f.URL, "http://")
	for name, tc := range map[string]struct {
		chain keychain
		env   string // configured, with its password there
		want  string // in the error
	}{
		"nobody":     {func(string) (upstream.Account, error) { return upstream.Account{}, nil }, "", "not found"},
		"keychain":   {func(string) (upstream.Account, error) { return upstream.Account{Username: "ann", Password: "pw"}, nil }, "", ""},
		"locked":     {func(string) (upstream.Account, error) { return upstream.Account{}, errors.New("it is locked") }, "", "it is locked"},
		"configured": {func(string) (upstream.Account, error) { return upstream.Account{}, errors.New("it is locked") }, "pw", ""},
		"wrong":      {nil, "other", "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := catalog.RemoteConfig{Clock: clock.NewFake(catalogtest.Start), Keychain: keychain(func(h string) (upstream.Account, error) {
				if h != host {
					t.Errorf("asked for an account at %s", h)
				}
				return tc.chain(h)
			}), Local: true, Getenv: func(string) string { return tc.env }}
			if tc.env != "" {
				cfg.Registries = []catalog.Registry{{Host: host, URL: f.URL, Username: "ann", PasswordEnv: "PW"}}
			}
			r, err := catalog.NewRemote(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			tags, err := r.Tags(t.Context(), host+"/a/b")
			switch {
			case tc.want == "" && (err != nil || len(tags) != 1):
				t.Errorf("%v, %v", tags, err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want %q in it", err, tc.want)
			}
		})
	}
}

// Who leaves does not end a question that others wait for.
func TestLeaving(t *testing.T) {
	arrived, reply := make(chan struct{}, 1), make(chan struct{})
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-reply
		list(w, "", "1")
	})
	r, _ := f.of(t, "r.example")
	ctx, leave := context.WithCancel(t.Context())
	first, second := make(chan error), make(chan error)
	go func() { _, err := r.Tags(ctx, "r.example/a/b"); first <- err }()
	<-arrived
	go func() { _, err := r.Tags(t.Context(), "r.example/a/b"); second <- err }()
	leave()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	close(reply)
	if err := <-second; err != nil {
		t.Errorf("who stayed got %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// No more than AtOnce questions are on their way to one host.
func TestAtOnce(t *testing.T) {
	var mu sync.Mutex
	now, most := 0, 0
	gate := make(chan struct{})
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now++
		most = max(most, now)
		if now == 2 {
			select {
			case <-gate:
			default:
				close(gate)
			}
		}
		mu.Unlock()
		<-gate
		mu.Lock()
		now--
		mu.Unlock()
		list(w, "", "1")
	})
	r, _ := f.of(t, "r.example", func(c *catalog.RemoteConfig) { c.AtOnce = 2 })
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := r.Tags(t.Context(), fmt.Sprintf("r.example/a/b%d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most != 2 {
		t.Errorf("%d questions at once, want 2", most)
	}
}
