package reap_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/reap"
)

// Whatever the registry answers in part leaves the repository as it is, and
// the others go.
func TestPartialAnswers(t *testing.T) {
	html := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html>please log in</html>")
	}
	type answer = func(w http.ResponseWriter, r *http.Request) bool
	on := func(method, part string, do func(w http.ResponseWriter)) answer {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if (method == "" || r.Method == method) && strings.HasPrefix(r.URL.Path, "/v2/bad/") && strings.Contains(r.URL.Path, part) {
				do(w)
				return true
			}
			return false
		}
	}
	status := func(code int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(code) }
	}
	f := newForeign(t)
	cases := map[string]answer{
		"list 500":        on("", "/tags/list", status(500)),
		"list html":       on("", "/tags/list", html),
		"list empty body": on("", "/tags/list", func(w http.ResponseWriter) {}),
		"list wrong key":  on("", "/tags/list", func(w http.ResponseWriter) { fmt.Fprint(w, `{"errors":[]}`) }),
		"list bad name":   on("", "/tags/list", func(w http.ResponseWriter) { fmt.Fprint(w, `{"tags":["../x"]}`) }),
		"list cut off":    on("", "/tags/list", func(w http.ResponseWriter) { w.Header().Set("Content-Length", "100"); fmt.Fprint(w, `{"tags":[]}`) }),
		"list in a circle": on("", "/tags/list", func(w http.ResponseWriter) {
			w.Header().Set("Link", `</v2/bad/tags/list?last=v1&n=1>; rel="next"`)
			fmt.Fprint(w, `{"tags":["v1"]}`)
		}),
		"second page": func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/v2/bad/tags/list") {
				return false
			}
			if r.URL.Query().Get("last") != "" {
				w.WriteHeader(500)
				return true
			}
			w.Header().Set("Link", `</v2/bad/tags/list?last=v1&n=1>; rel="next"`)
			fmt.Fprint(w, `{"tags":["v1"]}`)
			return true
		},
		"tag 404":       on("HEAD", "/manifests/v1", status(404)),
		"tag 403":       on("HEAD", "/manifests/v1", status(403)),
		"manifest html": on("GET", "/manifests/", html),
		"manifest other": on("GET", "/manifests/", func(w http.ResponseWriter) {
			fmt.Fprint(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
		}),
		"manifest 404":    on("GET", "/manifests/", status(404)),
		"referrers 500":   on("", "/referrers/", status(500)),
		"referrers html":  on("", "/referrers/", html),
		"delete 500":      on("DELETE", "/manifests/", status(500)),
		"delete and lies": on("DELETE", "/manifests/", status(202)),
		"delete redirect": on("DELETE", "/manifests/", func(w http.ResponseWriter) { w.Header().Set("Location", "/v2/"); w.WriteHeader(302) }),
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			bad, good := f.push("bad", "bad", "v1", "v2"), f.push("good", name, "v1")
			h.plan(f)
			h.pass(25 * hour)
			h.pump()
			f.spoil.Store(&spoil)
			s, err := h.try(f, nil)
			f.spoil.Store(nil)
			if err != nil {
				t.Fatal(err)
			}
			if !f.has("bad", "v1") || !f.has("bad", string(bad)) {
				t.Error("it is gone")
			}
			if f.has("good", string(good)) {
				t.Error("the other one stays")
			}
			if len(s.skipped) != 1 || s.skipped[0].Repository != "bad" || s.skipped[0].Why == "" || s.sum.Skipped != 1 {
				t.Errorf("skipped: %+v", s.skipped)
			}
			t.Log(s.skipped)
		})
	}
}

// A 429 is obeyed: nothing is asked any more. A registry that does not list
// what it has, or does not delete, ends the run.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		method, part string
		code         int
		says         string
	}{
		"catalog":    {"GET", "/v2/_catalog", 401, "Name them one by one"},
		"no deletes": {"DELETE", "/manifests/", 405, "DELETE_ENABLED"},
		"not to us":  {"DELETE", "/manifests/", 403, "to this account"},
	} {
		t.Run(name, func(t *testing.T) {
			f, h := newForeign(t), newHouse(t)
			f.push("app", "one", "v1")
			h.plan(f)
			h.pass(25 * hour)
			spoil := func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == c.method && strings.Contains(r.URL.Path, c.part) {
					w.WriteHeader(c.code)
					return true
				}
				return false
			}
			f.spoil.Store(&spoil)
			_, err := h.try(f, nil)
			if err == nil || !strings.Contains(err.Error(), c.says) || !f.has("app", "v1") {
				t.Errorf("%v", err)
			}
		})
	}
	f, h := newForeign(t), newHouse(t)
	f.push("app", "one", "v1")
	f.push("bee", "one", "v1")
	h.plan(f)
	h.pass(25 * hour)
	n := 0
	spoil := func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "_catalog") {
			n++
			w.Header().Set("Retry-After", "600")
			w.WriteHeader(429)
			return true
		}
		return false
	}
	f.spoil.Store(&spoil)
	s := h.reap(f)
	if n != 1 || len(s.skipped) != 2 || !strings.Contains(s.skipped[1].Why, "left alone") {
		t.Errorf("%d requests, %+v", n, s.skipped)
	}
}

// What happens between the plan and the deletion stops it.
func TestRechecks(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(f *foreign, h *house, d image.Digest)
		when string // before the nth request that matches
	}{
		"use":          {func(_ *foreign, h *house, d image.Digest) { h.use(d, "") }, "GET manifest 2"},
		"config's use": {func(_ *foreign, h *house, _ image.Digest) { h.use(configOf("one"), "") }, "GET manifest 2"},
		"pin":          {func(_ *foreign, h *house, d image.Digest) { h.pins = pins{content.Pin{Digest: d, Created: epoch}} }, "GET manifest 2"},
		"clock":        {func(_ *foreign, h *house, _ image.Digest) { h.clock.Jump(-hour) }, "GET manifest 2"},
		"doubt":        {func(_ *foreign, h *house, _ image.Digest) { h.clock.Advance(5 * hour) }, "GET manifest 2"},
		"tag moves on": {func(f *foreign, _ *house, _ image.Digest) { f.push("app", "two", "v1") }, "HEAD v1 2"},
		"tag moves in": {func(f *foreign, _ *house, _ image.Digest) { f.push("app", "one", "release") }, "HEAD v1 2"},
		"tag goes":     {func(f *foreign, _ *house, _ image.Digest) { f.do("DELETE", "/v2/app/manifests/v1", "", nil) }, "HEAD v1 2"},
	} {
		t.Run(name, func(t *testing.T) {
			f, h := newForeign(t), newHouse(t)
			d := f.push("app", "one", "v1")
			h.plan(f)
			h.pass(25 * hour)
			n, busy := 0, false
			hook := func(r *http.Request) {
				kind := ""
				switch {
				case r.Method == "GET" && strings.Contains(r.URL.Path, "/manifests/"):
					kind = "GET manifest"
				case r.Method == "HEAD" && strings.HasSuffix(r.URL.Path, "/manifests/v1"):
					kind = "HEAD v1"
				}
				if busy || kind == "" || !strings.HasPrefix(c.when, kind) {
					return
				}
				if n++; fmt.Sprint(kind, " ", n) == c.when {
					busy = true
					c.do(f, h, d)
					busy = false
				}
			}
			f.seen.Store(&hook)
			s, err := h.try(f, nil)
			f.seen.Store(nil)
			if err != nil {
				t.Fatal(err)
			}
			if n < 2 {
				t.Fatalf("it was asked %d times: the test does nothing", n)
			}
			if s.sum.Expire != 1 || s.sum.Deleted != 0 || !f.has("app", string(d)) {
				t.Errorf("%+v %+v", s.sum, s.skipped)
			}
		})
	}
}

// A tag of another image that moves to the one that is about to go is found
// when what tags name is no longer fresh.
func TestRollbackInTheMiddle(t *testing.T) {
	f, h := newForeign(t), newHouse(t)
	old := f.push("app", "old", "v1")
	f.push("app", "new", "latest")
	h.plan(f)
	h.pass(24 * hour)
	h.use(f.push("app", "new", "latest"), "")
	h.clock.Advance(hour)
	h.report()
	once := false
	hook := func(r *http.Request) {
		if !once && r.Method == "GET" && strings.Contains(r.URL.Path, "/manifests/") {
			once = true
			f.push("app", "old", "latest")
			h.clock.Advance(time.Minute)
		}
	}
	f.seen.Store(&hook)
	s := h.reap(f)
	f.seen.Store(nil)
	if s.sum.Deleted != 0 || !f.has("app", string(old)) || !f.has("app", "latest") {
		t.Errorf("%+v %v", s.sum, s.action)
	}
}

// Names without globs are looked at without a list; what is asked for makes
// sense, or is refused.
func TestRequests(t *testing.T) {
	f, h := newForeign(t), newHouse(t)
	f.push("app/a", "a", "v1")
	f.push("app/b", "b", "v1")
	f.push("c", "c", "v1")
	listed := 0
	hook := func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "_catalog") {
			listed++
		}
	}
	f.seen.Store(&hook)
	for _, c := range []struct {
		repositories  string
		images, lists int
	}{{"", 3, 1}, {"app/**", 2, 1}, {"app/a c", 2, 0}, {"none/such", 0, 0}} {
		listed = 0
		s, err := h.try(f, func(q *reap.Request) { q.Repositories = strings.Fields(c.repositories) })
		if err != nil || s.sum.Images != c.images || listed != c.lists {
			t.Errorf("%q: %d images, %d lists, %v", c.repositories, s.sum.Images, listed, err)
		}
	}
	for _, c := range []struct {
		edit func(*reap.Request)
		says string
	}{
		{func(q *reap.Request) { q.Registry = "" }, "no URL"},
		{func(q *reap.Request) { q.Registry = "ftp://x" }, "no URL"},
		{func(q *reap.Request) { q.Registry = f.url + "/app" }, "as repositories"},
		{func(q *reap.Request) { q.Repositories = []string{"Bad"} }, "upper-case"},
		{func(q *reap.Request) { q.Password = "x" }, "username"},
		{func(q *reap.Request) { q.PerHour = -1 }, "an hour"},
	} {
		if _, err := h.try(f, c.edit); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
}

// When the answer to a deletion is lost, it is looked up what became of it; if
// that is not known either, it counts as deleted, and can be pushed again.
func TestLostAnswers(t *testing.T) {
	for name, blind := range map[string]bool{"looked up": false, "not known": true} {
		t.Run(name, func(t *testing.T) {
			f, h := newForeign(t), newHouse(t)
			d := f.push("app", "one", "v1")
			f.push("zoo", "two", "v1") // waits: what may have gone counts
			h.plan(f)
			h.pass(25 * hour)
			h.pump()
			var direct http.Handler
			lost := false
			spoil := func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.Method == "DELETE" && !lost:
					lost = true
					direct.ServeHTTP(httptest.NewRecorder(), r)
					w.WriteHeader(http.StatusBadGateway)
					return true
				case r.Method == "HEAD" && lost && blind && strings.HasPrefix(r.URL.Path, "/v2/app/"):
					w.WriteHeader(http.StatusBadGateway)
					return true
				}
				return false
			}
			direct = f.proxy
			f.spoil.Store(&spoil)
			s, err := h.try(f, func(q *reap.Request) { q.PerHour = 1 })
			f.spoil.Store(nil)
			if err != nil {
				t.Fatal(err)
			}
			if blind && (s.sum.Failed != 1 || len(s.skipped) != 1 || !strings.Contains(s.skipped[0].Why, "not known")) || !blind && s.sum.Deleted != 1 {
				t.Errorf("%+v %+v", s.sum, s.skipped)
			}
			if s.sum.Waiting != 1 || !f.has("zoo", "v1") {
				t.Errorf("the limit: %+v", s.sum)
			}
			if f.has("app", "v1") {
				t.Fatal("the test deletes nothing")
			}
			h.restart()
			var list []reap.Record
			if err := h.reaper.Deleted(h.ctx, f.url, func(r reap.Record) error { list = append(list, r); return nil }); err != nil || len(list) != 1 || list[0].Digest != d {
				t.Fatalf("%+v %v", list, err)
			}
			if _, err := h.reaper.Undo(h.ctx, reap.Account{Registry: f.url}, list[0]); err != nil || !f.has("app", "v1") {
				t.Errorf("undo: %v", err)
			}
			if err := h.reaper.Deleted(h.ctx, "http://elsewhere", func(r reap.Record) error { t.Error("another registry's"); return nil }); err != nil {
				t.Error(err)
			}
		})
	}
}

// What somebody else deleted and pushed again starts anew.
func TestGoneInBetween(t *testing.T) {
	f, h := newForeign(t), newHouse(t)
	d := f.push("app", "one", "v1")
	f.push("app", "two", "v2")
	h.plan(f)
	h.pass(20 * hour)
	f.do("DELETE", "/v2/app/manifests/"+string(d), "", nil)
	h.plan(f)
	f.push("app", "one", "v1")
	h.pass(5 * hour)
	if s := h.reap(f); s.action[d] != "keep recent" || s.sum.Deleted != 1 {
		t.Errorf("%v", s.action)
	}
}

// Lists come page by page, as short as the registry likes.
func TestPages(t *testing.T) {
	f, h := newForeign(t), newHouse(t)
	for _, repo := range []string{"a", "b", "c"} {
		for _, tag := range []string{"1", "2", "3"} {
			f.push(repo, repo+tag, tag)
		}
	}
	spoil := func(w http.ResponseWriter, r *http.Request) bool {
		if q := r.URL.Query(); q.Get("n") != "" {
			q.Set("n", "1")
			r.URL.RawQuery = q.Encode()
		}
		return false
	}
	f.spoil.Store(&spoil)
	if s := h.plan(f); s.sum.Images != 9 || s.sum.Repositories != 3 {
		t.Errorf("%+v %+v", s.sum, s.skipped)
	}
}
