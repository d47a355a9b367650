package catalog_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/catalog/catalogtest"
)

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
