package reap_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

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
