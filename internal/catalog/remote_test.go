package catalog_test

import (
	"context"
	"encoding/json"
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

func list(w http.ResponseWriter, next string, tags ...string) {
	if next != "" {
		w.Header().Set("Link", `<`+next+`>; rel="next"`)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(map[string]any{"name": "a/b", "tags": tags}); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func names(tags []catalog.Tag) string {
	var s []string
	for _, t := range tags {
		s = append(s, t.Name)
	}
	slices.Sort(s)
	return strings.Join(s, " ")
}

func TestPages(t *testing.T) {
	thousand := make([]string, 1000)
	for i := range thousand {
		thousand[i] = fmt.Sprintf("t%04d", i)
	}
	for name, tc := range map[string]struct {
		host   string
		answer func(w http.ResponseWriter, r *http.Request)
		want   int
		asked  []string
	}{
		"by links": {"r.example", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("last") == "" {
				list(w, "/v2/a/b/tags/list?last=1&n=1000", "1")
				return
			}
			list(w, "", "2")
		}, 2, []string{"GET /v2/a/b/tags/list?n=1000", "GET /v2/a/b/tags/list?last=1&n=1000"}},
		"full page without a link": {"r.example", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("last") == "" {
				list(w, "", thousand...)
				return
			}
			list(w, "", "x")
		}, 1001, []string{"GET /v2/a/b/tags/list?n=1000", "GET /v2/a/b/tags/list?last=t0999&n=1000"}},
		"pages are unknown there": {"r.example", func(w http.ResponseWriter, r *http.Request) { list(w, "", thousand...) },
			1000, []string{"GET /v2/a/b/tags/list?n=1000", "GET /v2/a/b/tags/list?last=t0999&n=1000"}},
		"quay": {"quay.io", func(w http.ResponseWriter, r *http.Request) { list(w, "", "1") }, 1, []string{"GET /v2/a/b/tags/list?n=100"}},
		"refuses large pages": {"r.example", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("n") != "100" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			list(w, "", "1")
		}, 1, []string{"GET /v2/a/b/tags/list?n=1000", "GET /v2/a/b/tags/list?n=100"}},
		"null":                {"r.example", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"name":"a/b","tags":null}`) }, 0, nil},
		"the same tag on two": {"r.example", twice, 3, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, tc.answer)
			r, _ := f.of(t, tc.host)
			tags, err := r.Tags(t.Context(), tc.host+"/a/b")
			if err != nil || len(tags) != tc.want {
				t.Fatalf("%d tags, %v; want %d", len(tags), err, tc.want)
			}
			if asked := f.took(); tc.asked != nil && !slices.Equal(asked, tc.asked) {
				t.Errorf("asked %q, want %q", asked, tc.asked)
			}
		})
	}
}

func twice(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("last") == "" {
		list(w, "/?last=2", "1", "2")
		return
	}
	list(w, "", "2", "3")
}

// A list that is not whole is an error, and so is what is no list.
func TestPartialLists(t *testing.T) {
	endless := 0
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"second page fails": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("last") == "" {
				list(w, "/?last=1", "1")
				return
			}
			w.WriteHeader(http.StatusNotImplemented)
		},
		"second page is cut off": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("last") == "" {
				list(w, "/?last=1", "1")
				return
			}
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"tags":["2"`)
		},
		"the same page for ever": func(w http.ResponseWriter, r *http.Request) { list(w, "/?last=1", "1") },
		"tags without end": func(w http.ResponseWriter, r *http.Request) {
			many := make([]string, 20_000)
			for i := range many {
				endless++
				many[i] = fmt.Sprint(endless)
			}
			list(w, fmt.Sprint("/?last=", endless), many...)
		},
		"HTML":          func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>please sign in</html>") },
		"an error, 200": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"errors":[{"code":"DENIED"}]}`) },
		"garbage":       func(w http.ResponseWriter, r *http.Request) { w.Write([]byte{0, 1, 2, 0xff}) },
		"another shape": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"tags":{"1":"sha256:x"}}`) },
		"bad tag":       func(w http.ResponseWriter, r *http.Request) { list(w, "", "1", "../../etc/passwd") },
		"too long": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"tags":["`)
			for range 33 {
				w.Write(make([]byte, 1<<20))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, answer)
			r, _ := f.of(t, "r.example")
			tags, err := r.Tags(t.Context(), "r.example/a/b")
			if err == nil || tags != nil {
				t.Fatalf("%d tags and no error", len(tags))
			}
			if errors.Is(err, catalog.ErrNotFound) || !strings.Contains(err.Error(), "r.example") {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// Answers hold for a while, are asked for again by ETag, and at once when
// somebody tells of a push.
func TestCostOfTags(t *testing.T) {
	etag, tag := `"1"`, "1"
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		list(w, "", tag)
	})
	r, c := f.of(t, "r.example")
	check := func(want string, asked int) {
		t.Helper()
		tags, err := r.Tags(t.Context(), "r.example/a/b")
		if err != nil || names(tags) != want {
			t.Fatalf("tags %q, %v; want %q", names(tags), err, want)
		}
		if n := len(f.took()); n != asked {
			t.Errorf("%d questions, want %d", n, asked)
		}
	}
	check("1", 1)
	check("1", 0)
	c.Advance(catalog.DefaultTTL)
	check("1", 1) // 304
	f.set(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") != `"1"` {
			t.Errorf("asked with %q", r.Header.Get("If-None-Match"))
		}
		w.Header().Set("ETag", `"2"`)
		list(w, "", "1", "2")
	})
	check("1", 0)
	r.Forget("r.example/a/b")
	check("1 2", 1)
	check("1 2", 0)
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

// Google says in its lists what others have to be asked for.
func TestGoogle(t *testing.T) {
	uploaded := catalogtest.Start.Add(-72 * time.Hour)
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"child":[],"manifest":{
			%q:{"imageSizeBytes":"1","layerId":"","mediaType":"x","tag":["1","latest"],"timeCreatedMs":"0","timeUploadedMs":"%d"},
			%q:{"tag":["2"],"timeUploadedMs":"%d"}},"name":"p/r/a","tags":["1","2","latest","3"]}`,
			catalogtest.Dig([]byte("1")), uploaded.UnixMilli(), catalogtest.Dig([]byte("2")), catalogtest.Start.Add(time.Hour).UnixMilli())
	})
	for host, told := range map[string]bool{"europe-docker.pkg.dev": true, "gcr.io": true, "r.example": false} {
		r, _ := f.of(t, host)
		tags, err := r.Tags(t.Context(), host+"/p/r/a")
		if err != nil {
			t.Fatal(err)
		}
		for _, tag := range tags {
			want := catalog.Tag{Name: tag.Name, Since: catalogtest.Start}
			if told && (tag.Name == "1" || tag.Name == "latest") {
				want.Since, want.Pushed = uploaded, true
			}
			if told && tag.Name != "3" {
				want.Digest = catalogtest.Dig([]byte("1"))
				if tag.Name == "2" {
					want.Digest = catalogtest.Dig([]byte("2")) // a clock ahead is not believed
				}
			}
			if tag != want {
				t.Errorf("%s: %+v, want %+v", host, tag, want)
			}
		}
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
