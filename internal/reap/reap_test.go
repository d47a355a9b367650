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
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/usage"
)

// An image's time starts when it is first seen, whatever its age, survives a
// restart, and starts anew when it is gone in between.
func TestFirstSight(t *testing.T) {
	f, h := newForeign(t), newHouse(t)
	h.pass(100 * hour) // the image is old, and nobody has looked yet
	d := f.push("app/web", "one", "v1")
	if s := h.reap(f); s.action[d] != "keep recent" || s.sum.Images != 1 || !strings.Contains(s.reason[d], "first seen 0s ago") {
		t.Errorf("at first sight: %s, %s, %+v", s.action[d], s.reason[d], s.sum)
	}
	h.pass(20 * hour)
	late := f.push("app/web", "two", "v2")
	h.restart()
	h.plan(f) // a plan is a look, too
	h.pass(4 * hour)
	if s := h.reap(f); s.action[d] != "keep recent" {
		t.Errorf("after 24 h: %v", s.action)
	}
	h.clock.Advance(time.Minute)
	if s := h.plan(f); s.action[d] != "expire unused" || s.action[late] != "keep recent" || s.sum.Expire != 1 || !s.sum.DryRun {
		t.Errorf("after 24 h and a minute: %v %+v", s.action, s.sum)
	}
	if !f.has("app/web", "v1") {
		t.Fatal("a plan deleted it")
	}
	s := h.reap(f)
	if len(s.deleted) != 1 || s.deleted[0].Digest != d || fmt.Sprint(s.deleted[0].Tags) != "[v1]" || s.sum.Deleted != 1 {
		t.Fatalf("after 24 h and a minute: %+v %+v", s.deleted, s.sum)
	}
	if f.has("app/web", "v1") || f.has("app/web", string(d)) || !f.has("app/web", "v2") {
		t.Error("v1 is to be gone, and v2 is not")
	}
	f.push("app/web", "one", "v1")
	if s := h.reap(f); s.action[d] != "keep recent" {
		t.Errorf("pushed again: %v", s.action)
	}
}

// A tag that is new on an old image is like a push of it.
func TestNewTag(t *testing.T) {
	f, h := newForeign(t), newHouse(t)
	d := f.push("app", "one", "v1")
	h.plan(f)
	h.pass(20 * hour)
	f.push("app", "one", "stable")
	h.plan(f)
	h.pass(10 * hour)
	if s := h.reap(f); s.action[d] != "keep recent" {
		t.Errorf("%v", s.action)
	}
}

// A use keeps an image whatever repository it names, and by every digest that
// a runtime may know.
func TestUsesKeep(t *testing.T) {
	f, h := newForeign(t), newHouse(t)
	host := strings.TrimPrefix(f.url, "http://")
	type c struct {
		name, repository string
		by               func(i, child image.Digest) image.Digest
	}
	self := func(i, _ image.Digest) image.Digest { return i }
	cases := []c{
		{"bare", "app/bare", self},
		{"host", strings.ReplaceAll(host, ":", "_") + "/app/host", self},
		{"other", "quite/another", self},
		{"none", "", self},
		{"child", "", func(_, child image.Digest) image.Digest { return child }},
		{"config", "other.example/x", func(image.Digest, image.Digest) image.Digest { return configOf("config") }},
	}
	roots := map[string]image.Digest{}
	children := map[string]image.Digest{}
	for _, c := range cases {
		child := f.push("app/"+c.name, c.name)
		children[c.name], roots[c.name] = child, f.index("app/"+c.name, []image.Digest{child}, "v1")
	}
	lost := f.push("app/lost", "lost", "v1")
	pinned := f.push("app/pinned", "pinned", "v1")
	h.pins = pins{{Repository: "elsewhere", Digest: pinned, By: "ann", Created: epoch}}
	h.plan(f)
	h.pass(20 * hour)
	for _, c := range cases {
		h.use(c.by(roots[c.name], children[c.name]), c.repository)
	}
	h.pass(6 * hour)
	s := h.reap(f)
	for _, c := range cases {
		for what, d := range map[string]image.Digest{"index": roots[c.name], "child": children[c.name]} {
			if a := s.action[d]; !strings.HasPrefix(a, "keep") || !f.has("app/"+c.name, string(d)) {
				t.Errorf("%s: the %s: %s", c.name, what, a)
			}
		}
	}
	if s.action[lost] != "expire unused" || f.has("app/lost", "v1") || len(s.deleted) != 1 {
		t.Errorf("unused: %s, %d deleted", s.action[lost], len(s.deleted))
	}
	if s.action[pinned] != "keep pinned" {
		t.Errorf("pinned: %s", s.action[pinned])
	}
	h.pass(25 * hour)
	// Its index goes with it, first, and all of the rest.
	if s := h.reap(f); len(s.deleted) != 2*len(cases) || s.sum.Keep != 1 {
		t.Errorf("later: %+v", s.sum)
	}
}

// Silence, a clock in doubt, and nobody who reports at all keep everything.
func TestDoubtKeeps(t *testing.T) {
	for name, doubt := range map[string]func(*house){
		"silent": func(h *house) { h.mute = true; h.pass(10 * hour) },
		"was silent": func(h *house) {
			h.mute = true
			h.pass(10 * hour)
			h.mute = false
			h.report()
		},
		"another's scope": func(h *house) {
			if _, err := h.ledger.OpenInterval(h.ctx, usage.Interval{Scope: []string{"quite/another"}, From: h.clock.Now(), Why: "a scan is stale"}); err != nil {
				h.Fatal(err)
			}
		},
		"another's scope, over": func(h *house) {
			iv := usage.Interval{Scope: []string{"quite/another"}, From: h.clock.Now().Add(-10 * hour), To: h.clock.Now(), Why: "a scan was stale"}
			if _, err := h.ledger.OpenInterval(h.ctx, iv); err != nil {
				h.Fatal(err)
			}
		},
		"clock": func(h *house) { h.clock.Jump(-time.Hour) },
		"nobody": func(h *house) {
			if err := h.ledger.Forget(h.ctx, "prod"); err != nil {
				h.Fatal(err)
			}
		},
		"none": nil,
		"somebody new": func(h *house) {
			if err := h.ledger.Forget(h.ctx, "prod"); err != nil {
				h.Fatal(err)
			}
			h.report()
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, h := newForeign(t), newHouse(t)
			d := f.push("app", "one", "v1")
			h.plan(f)
			h.pass(17 * hour)
			if name != "was silent" { // whose 10 hours come in place of these
				h.pass(3 * hour)
			}
			if doubt != nil {
				doubt(h)
			}
			h.pass(5 * hour)
			s := h.reap(f)
			if there := f.has("app", "v1"); there == (doubt == nil) {
				t.Errorf("it is there: %v; %s", there, s.action[d])
			}
		})
	}
}

// What was seen while the clock could not be trusted has no time yet.
func TestClockInDoubtWritesNothing(t *testing.T) {
	f, h := newForeign(t), newHouse(t)
	f.push("app", "zero", "v0")
	h.pass(5 * hour)
	h.clock.Jump(-4 * hour)
	d := f.push("app", "one", "v1")
	h.plan(f)
	h.clock.Jump(4 * hour)
	h.pass(hour)
	h.plan(f)
	h.pass(22 * hour)
	if s := h.reap(f); s.action[d] != "keep recent" {
		t.Errorf("%v", s.action)
	}
}

// No more go in an hour than may, whoever asks how often, and an index counts
// with its images.
func TestPerHour(t *testing.T) {
	f, h := newForeign(t), newHouse(t)
	var roots []image.Digest
	for i := range 4 {
		text := fmt.Sprint("image ", i)
		roots = append(roots, f.index("app", []image.Digest{f.push("app", text)}, fmt.Sprint("v", i)))
	}
	h.plan(f)
	h.pass(25 * hour)
	limited := func(n int) *seen {
		t.Helper()
		h.restart()
		s, err := h.try(f, func(q *reap.Request) { q.PerHour = n })
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := limited(5)
	if s.sum.Expire != 8 || s.sum.Deleted != 4 || s.sum.Waiting != 4 || !s.sum.Again.Equal(h.clock.Now().Add(hour)) {
		t.Errorf("first: %+v", s.sum)
	}
	if s := limited(5); s.sum.Deleted != 0 || s.sum.Waiting != 4 {
		t.Errorf("at once again: %+v", s.sum)
	}
	h.pass(hour)
	if s := limited(1); s.sum.Deleted != 0 || len(s.skipped) != 2 || !strings.Contains(s.skipped[0].Why, "more than the 1") {
		t.Errorf("with too small a limit: %+v %+v", s.sum, s.skipped)
	}
	if s := limited(5); s.sum.Deleted != 4 || s.sum.Waiting != 0 {
		t.Errorf("an hour later: %+v", s.sum)
	}
	for _, d := range roots {
		if f.has("app", string(d)) {
			t.Errorf("%s is still there", d)
		}
	}
}

// What an image shares stays until the last that needs it goes; fallback tags
// go with their subject, and show an image that has no tag.
func TestSharedAndFallback(t *testing.T) {
	f, h := newForeign(t), newHouse(t)
	shared := f.push("app", "shared")
	a := f.index("app", []image.Digest{shared, f.push("app", "only a")}, "a")
	signature := f.push("app", "signature of a", strings.Replace(string(a), ":", "-", 1)+".sig")
	untagged := f.push("app", "untagged")
	f.push("app", "signature of untagged", strings.Replace(string(untagged), ":", "-", 1)+".sig")
	h.plan(f)
	h.pass(23 * hour)
	b := f.index("app", []image.Digest{shared, f.push("app", "only b")}, "b")
	h.plan(f)
	h.pass(2 * hour)
	s := h.reap(f)
	if s.action[signature] != "expire subject_goes" || s.action[b] != "keep recent" || s.action[untagged] != "expire unused" {
		t.Errorf("%v", s.action)
	}
	if f.has("app", "a") || f.has("app", string(signature)) || !f.has("app", "b") || !f.has("app", string(shared)) || f.has("app", string(untagged)) {
		t.Error("a and its signature are to be gone, b and what they share not")
	}
	if s.sum.Deleted != 5 {
		t.Errorf("%+v", s.sum)
	}
	h.pass(24 * hour)
	if s := h.reap(f); s.sum.Deleted != 3 || f.has("app", string(shared)) {
		t.Errorf("later: %+v", s.sum)
	}
}

// keep_last with tags that were first seen together keeps all of them rather
// than the wrong ones; protect keeps its tags.
func TestPolicies(t *testing.T) {
	f, h := newForeign(t), newHouse(t)
	h.cfg.Policies = []retention.Policy{
		{Repositories: []string{"127.0.0.1_*/last"}, After: after, KeepLast: 1},
		{Repositories: []string{"127.0.0.1_*/safe"}, After: after, Protect: []string{"v*"}},
		{Repositories: []string{"127.0.0.1_*/app"}, After: after, MaxBytes: 1},
	}
	h.restart()
	for _, tag := range []string{"v1", "v2", "x"} {
		for _, repo := range []string{"last", "safe", "app", "unmatched"} {
			f.push(repo, repo+tag, tag)
		}
	}
	h.plan(f)
	h.pass(hour)
	f.push("app", "young", "young")
	h.plan(f)
	h.pass(24 * hour)
	s := h.reap(f)
	for what, want := range map[string]bool{"last:v1": true, "last:v2": true, "last:x": true, "safe:v1": true, "safe:v2": true, "safe:x": false, "app:v1": false, "app:young": true, "unmatched:x": true} {
		repo, tag, _ := strings.Cut(what, ":")
		if f.has(repo, tag) != want {
			t.Errorf("%s is there: %v", what, !want)
		}
	}
	if len(s.skipped) != 1 || s.skipped[0].Repository != "unmatched" {
		t.Errorf("skipped: %+v", s.skipped)
	}
	// One seen later is newer than those.
	f.push("last", "later", "later")
	h.plan(f)
	h.pass(2 * hour)
	h.reap(f)
	if f.has("last", "v1") || f.has("last", "x") || !f.has("last", "later") {
		t.Error("only the last one is to be left")
	}
}

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

// What was deleted comes back as it was, from the records alone.
func TestUndo(t *testing.T) {
	f, h := newForeign(t), newHouse(t)
	child := f.push("app", "child")
	root := f.index("app", []image.Digest{child}, "v1", "stable")
	h.plan(f)
	h.pass(25 * hour)
	s := h.reap(f)
	if len(s.deleted) != 2 || s.deleted[0].Digest != root || s.deleted[1].Digest != child {
		t.Fatalf("deleted: %+v", s.deleted)
	}
	f.push("app", "another", "stable")
	account := reap.Account{Registry: f.url}
	for i := len(s.deleted) - 1; i >= 0; i-- {
		u, err := h.reaper.Undo(h.ctx, account, s.deleted[i])
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 && (fmt.Sprint(u.Tags) != "[v1]" || fmt.Sprint(u.Left) != "[stable]") {
			t.Errorf("%+v", u)
		}
	}
	if !f.has("app", "v1") || !f.has("app", string(child)) {
		t.Error("it is not back")
	}
	if s := h.reap(f); s.action[root] != "keep recent" {
		t.Errorf("its time does not start anew: %v", s.action)
	}
	// Again does no harm.
	if _, err := h.reaper.Undo(h.ctx, account, s.deleted[1]); err != nil {
		t.Error(err)
	}
	bad := s.deleted[1]
	bad.Manifest = append([]byte(" "), bad.Manifest...)
	if _, err := h.reaper.Undo(h.ctx, account, bad); err == nil || !strings.Contains(err.Error(), "digest differs") {
		t.Errorf("other bytes: %v", err)
	}
	lost := s.deleted[1]
	lost.Repository = "nowhere" // has none of the blobs
	if _, err := h.reaper.Undo(h.ctx, account, lost); err == nil || !strings.Contains(err.Error(), "blobs are gone") {
		t.Errorf("without blobs: %v", err)
	}
}

// Two registries know nothing of each other; the limit is each one's own.
func TestTwoRegistries(t *testing.T) {
	f, g, h := newForeign(t), newForeign(t), newHouse(t)
	d := f.push("app", "one", "v1")
	h.plan(f)
	h.pass(25 * hour)
	g.push("app", "one", "v1")
	if s := h.reap(g); s.action[d] != "keep recent" {
		t.Errorf("first seen at the other: %v", s.action)
	}
	one := func(q *reap.Request) { q.PerHour = 1 }
	if s, err := h.try(f, one); err != nil || s.sum.Deleted != 1 || f.has("app", "v1") || !g.has("app", "v1") {
		t.Fatalf("%+v %v", s.sum, err)
	}
	h.pass(24*hour + time.Minute)
	f.push("app", "two", "v2")
	if s, err := h.try(g, one); err != nil || s.sum.Deleted != 1 || g.has("app", "v1") {
		t.Errorf("%+v %v", s.sum, err)
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
