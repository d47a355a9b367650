package retention

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/goldentest"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

func TestMaxBytes(t *testing.T) {
	// Images of 10 bytes each, of which 4 are in a base that all share.
	setup := func(t *testing.T, limit int64, opts ...func(*Policy)) *house {
		p := Policy{Repositories: []string{"app", "lib"}, MaxBytes: limit}
		for _, o := range opts {
			o(&p)
		}
		h := newHouse(t, p)
		for i, n := range []string{"a", "b", "c", "d"} {
			repo := []string{"app", "lib"}[i%2]
			h.registry.push(repo, n, tags("t"+n))
			h.registry.blobs[dg(n)] = map[image.Digest]int64{dg("base"): 4, dg(n + "1"): 6}
			h.pass(1)
		}
		h.registry.push("free", "z")
		h.registry.blobs[dg("z")] = map[image.Digest]int64{dg("z1"): 1000}
		h.pass(1)
		return h
	}
	states := func(h *house) string {
		return h.registry.states("app") + h.registry.states("lib") + h.registry.states("free")
	}
	tests := []struct {
		name  string
		limit int64
		opt   func(*Policy)
		do    func(h *house)
		want  string
	}{
		{"fits exactly", 28, nil, nil, "[a:live c:live][b:live d:live][z:live]"},
		{"one goes", 27, nil, nil, "[a:expired c:live][b:live d:live][z:live]"},
		{"three go", 15, nil, nil, "[a:expired c:expired][b:expired d:live][z:live]"},
		{"least recently used", 27, nil, func(h *house) { h.pull("a") }, "[a:live c:live][b:expired d:live][z:live]"},
		{"never in use", 15, nil, func(h *house) {
			h.ledger.use(usage.Use{Digest: dg("a"), Source: usage.Container, At: t0, Now: true})
		}, "[a:live c:expired][b:expired d:expired][z:live]"},
		{"never pinned", 21, nil, func(h *house) {
			h.registry.pins = []content.Pin{{Repository: "app", Digest: dg("a"), Created: t0}}
		}, "[a:live c:expired][b:expired d:live][z:live]"},
		{"never protected", 21, func(p *Policy) { p.Protect = []string{"ta"} }, nil, "[a:live c:expired][b:expired d:live][z:live]"},
		{"never the newest tag", 5, func(p *Policy) { p.KeepLast = 1 }, nil, "[a:expired c:live][b:expired d:live][z:live]"},
		{"never young", 5, func(p *Policy) { p.MinAge = 60 * time.Hour }, nil, "[a:expired c:expired][b:expired d:live][z:live]"},
		{"not in doubt", 5, nil, func(h *house) {
			h.ledger.doubt = []usage.Interval{{Scope: []string{"app"}, From: h.clock.Now()}}
		}, "[a:live c:live][b:expired d:expired][z:live]"},
		{"by age first", 21, func(p *Policy) { p.After = 84 * time.Hour }, nil, "[a:expired c:live][b:expired d:live][z:live]"},
		{"an index with its children", 27, nil, func(h *house) {
			h.registry.push("app", "i", lists("a", "b"), func(im *content.Image) { im.Pushed = t0 })
			h.registry.push("app", "s", refersTo("i"))
		}, "[a:expired c:live i:expired s:expired][b:live d:live][z:live]"},
		{"a child of an index in use", 27, nil, func(h *house) {
			h.registry.push("app", "i", lists("a"))
			h.ledger.use(usage.Use{Digest: dg("i"), Source: usage.Container, At: t0, Now: true})
		}, "[a:live c:live i:live][b:expired d:live][z:live]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var opts []func(*Policy)
			if tt.opt != nil {
				opts = append(opts, tt.opt)
			}
			h := setup(t, tt.limit, opts...)
			if tt.do != nil {
				tt.do(h)
			}
			r := h.tick()
			if got := states(h); got != tt.want {
				t.Errorf("got  %s\nwant %s\n%+v", got, tt.want, r.Plan)
			}
			// It does not swing: the next run finds nothing to do.
			h.pass(0.01)
			if r := h.tick(); r.Expired+r.Revived > 0 {
				t.Errorf("the next run expired %d and revived %d", r.Expired, r.Revived)
			}
		})
	}
}

func TestWhy(t *testing.T) {
	h := newHouse(t, Policy{Name: "month", Repositories: []string{"app"}, After: 30 * day}, Policy{Name: "cache", Repositories: []string{"cache"}, MaxBytes: 1000})
	h.registry.push("app", "i", lists("c", "e"), tags("v1", "latest"))
	h.registry.push("app", "c", config("cfg"))
	h.registry.push("app", "e")
	h.registry.push("app", "old", tags("v0"))
	h.registry.push("app", "doubtful", tags("v3"))
	h.registry.push("app", "pinned", tags("v4"))
	h.registry.push("cache", "x", tags("v1"))
	h.registry.pins = []content.Pin{{Repository: "app", Digest: dg("pinned"), Created: t0, By: "ops", Reason: "release 4", Expires: t0.Add(90 * day)}}
	h.tick()
	h.pass(10)
	h.ledger.doubt = []usage.Interval{{Scope: []string{"app"}, From: h.clock.Now(), To: h.clock.Now().Add(5 * day), Why: "the clock jumped"}}
	h.ledger.use(usage.Use{Digest: dg("doubtful"), Repository: "app", Source: usage.Pull, Subject: "ci", At: h.clock.Now()})
	h.pass(10)
	h.ledger.use(usage.Use{Digest: dg("cfg"), Source: usage.Container, Subject: "host-a/web", At: h.clock.Now()})
	h.ledger.use(usage.Use{Digest: dg("i"), Repository: "app", Source: usage.Pull, Subject: "ci", At: h.clock.Now().Add(-day)})
	h.pass(16)
	h.registry.push("cache", "y", tags("v2"))
	h.tick() // old goes
	h.pass(2)
	h.ledger.doubt = append(h.ledger.doubt, usage.Interval{Scope: []string{"app"}, From: h.clock.Now().Add(-day), Reporter: "host-a",
		Why: "reporter host-a has been silent", Cure: "start it again; if it is gone for good: cairn cluster forget host-a"})
	h.registry.audit = append(h.registry.audit, content.AuditEntry{ID: 99, At: h.clock.Now(), Action: "sweep", Repository: "app", Digest: dg("swept"),
		Tags: []string{"v-1"}, Actor: "retention", Reason: "hidden for 7d", Uses: []usage.Use{{Digest: dg("swept"), Source: usage.Pull, Subject: "ci", At: t0}}})
	h.ledger.use(usage.Use{Digest: dg("foreign"), Source: usage.Container, Subject: "host-b/db", At: h.clock.Now(), Now: true})
	for _, tt := range []struct{ file, repo, ref string }{
		{"index", "app", "v1"},
		{"child", "app", string(dg("c"))},
		{"sibling", "app", string(dg("e"))},
		{"expired", "app", "v0"},
		{"doubt", "app", "v3"},
		{"pinned", "app", "v4"},
		{"cache", "cache", "v1"},
		{"swept", "app", "v-1"},
		{"unknown", "app", "v9"},
		{"unknown-digest", "app", string(dg("foreign"))},
		{"unknown-repository", "none", "v1"},
	} {
		t.Run(tt.file, func(t *testing.T) {
			x, err := h.engine.Why(h.ctx, tt.repo, tt.ref)
			if err != nil {
				t.Fatal(err)
			}
			goldentest.Check(t, "testdata/why-"+tt.file+".txt", x.Text())
		})
	}
	h.registry.broken["app"] = errBroken
	if _, err := h.engine.Why(h.ctx, "app", "v1"); !errors.Is(err, errBroken) {
		t.Errorf("want the error of the store, got %v", err)
	}
}

func TestWhyLimits(t *testing.T) {
	h := newHouse(t)
	h.registry.push("app", "a", tags("v1"))
	for i := range 200 {
		h.ledger.use(usage.Use{Digest: dg("a"), Source: usage.Container, Subject: fmt.Sprintf("host-%03d", i), At: t0.Add(time.Duration(i) * time.Second)})
	}
	x, err := h.engine.Why(h.ctx, "app", "v1")
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Uses) != whyUses || !slices.IsSortedFunc(x.Uses, func(a, b Used) int { return b.At.Compare(a.At) }) {
		t.Errorf("%d uses", len(x.Uses))
	}
	if text := x.Text(); !strings.Contains(text, "and 90 more") {
		t.Error(text)
	}
}
