package retention

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

type house struct {
	*testing.T
	ctx      context.Context
	clock    *clock.Fake
	registry *registry
	ledger   *ledger
	memory   *forgetful
	cfg      Config
	engine   *Engine
}

func newHouse(t *testing.T, ps ...Policy) *house {
	if len(ps) == 0 {
		ps = []Policy{{Repositories: []string{"**"}, After: 30 * day}}
	}
	c := clock.NewFake(t0)
	h := &house{T: t, ctx: t.Context(), clock: c, registry: newRegistry(c), ledger: &ledger{}, memory: &forgetful{},
		cfg: Config{Policies: ps, Explicit: true}}
	h.restart()
	return h
}

func (h *house) restart(owners ...Owner) {
	h.engine = New(h.cfg, Deps{Content: h.registry, Ledger: h.ledger, Owners: owners, Memory: h.memory, Clock: h.clock})
}

func (h *house) pass(days float64) { h.clock.Advance(time.Duration(days * float64(day))) }

// tick runs as the loop does.
func (h *house) tick() Report {
	h.Helper()
	r, err := h.engine.run(h.ctx, RunOptions{}, true)
	if err != nil {
		h.Fatal(err)
	}
	return r
}

func (h *house) want(states string) {
	h.Helper()
	if got := h.registry.states("app"); got != states {
		h.Errorf("images are %s, want %s", got, states)
	}
}

func (h *house) pull(n string) {
	h.ledger.use(usage.Use{Digest: dg(n), Repository: "app", Source: usage.Pull, Subject: "ci", At: h.clock.Now()})
}

func TestEngineLife(t *testing.T) {
	h := newHouse(t)
	h.registry.push("app", "old", tags("v1"))
	h.registry.push("app", "used", tags("v2"))
	h.tick()
	h.pass(29)
	h.pull("used")
	h.tick()
	h.want("[old:live used:live]")
	if at, ok := h.engine.Expires("app", dg("old")); !ok || !at.Equal(t0.Add(30*day)) {
		t.Errorf("old goes at %v, %v", at, ok)
	}
	if at, ok := h.engine.Expires("app", dg("used")); ok {
		t.Errorf("used is said to go at %v", at)
	}
	h.pass(1.5)
	if r := h.tick(); r.Expired != 1 || r.Bytes != 100 || r.Plan.Reasons["unused"] != 1 {
		t.Errorf("report: %+v", r)
	}
	h.want("[old:expired used:live]")
	h.pass(6)
	h.tick()
	h.want("[old:expired used:live]")
	h.pass(1)
	if r := h.tick(); r.Swept != 1 {
		t.Errorf("report: %+v", r)
	}
	h.want("[used:live]")
	if c := h.engine.Counters(); c.Expired != 1 || c.Swept != 1 || c.Runs != 5 || c.LastLive != 1 {
		t.Errorf("counters: %+v", c)
	}
	if s := h.engine.Status(); s.LastRun == nil || s.LastRun.Swept != 1 || s.Cure != "" || s.LastError != "" {
		t.Errorf("status: %+v", s)
	}
}

func TestEngineRevives(t *testing.T) {
	h := newHouse(t)
	h.registry.push("app", "i", lists("c"))
	h.registry.push("app", "c", config("cfg"))
	h.registry.push("app", "s", refersTo("i"))
	h.registry.push("app", "keep", tags("v1"))
	h.tick()
	h.pass(20)
	h.pull("keep")
	h.pass(15)
	h.tick()
	h.want("[c:expired i:expired keep:live s:expired]")
	h.pass(1)
	h.ledger.use(usage.Use{Digest: dg("cfg"), Source: usage.Container, Subject: "host-a", At: h.clock.Now(), Now: true})
	if err := h.engine.ReviveUsed(h.ctx); err != nil {
		t.Fatal(err)
	}
	h.want("[c:live i:live keep:live s:live]")
	if c := h.engine.Counters(); c.Revived != 3 {
		t.Errorf("counters: %+v", c)
	}
}

// A use, a pin, doubt or a wrong clock that comes between the decision and its
// execution stops the image, and what it needs.
func TestEngineRechecks(t *testing.T) {
	tests := map[string]func(h *house){
		"use of the index":  func(h *house) { h.pull("i") },
		"use of the child":  func(h *house) { h.pull("c") },
		"use of the config": func(h *house) { h.pull("cfg") },
		"late use of the index": func(h *house) {
			h.ledger.use(usage.Use{Digest: dg("i"), Source: usage.Container, At: h.clock.Now().Add(-5 * day)})
		},
		"doubt": func(h *house) {
			h.ledger.doubt = append(h.ledger.doubt, usage.Interval{Scope: []string{"**"}, From: t0.Add(day)})
		},
		"clock":               func(h *house) { h.ledger.clock = "went back" },
		"version of the root": func(h *house) { h.registry.find("app", dg("i")).Version++ },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.registry.push("app", "i", lists("c"))
			h.registry.push("app", "c", config("cfg"))
			h.registry.push("app", "s", refersTo("i"))
			h.tick()
			h.pass(31)
			h.registry.push("app", "new")
			done := false
			h.registry.beforeExpire = func(content.Expiry) {
				if !done {
					done = true
					change(h)
				}
			}
			r := h.tick()
			h.want("[c:live i:live new:live s:live]")
			if r.Expired != 0 || r.Changed != 3 || r.Failed != 0 {
				t.Errorf("report: %+v", r)
			}
		})
	}
}

// The same for what is to be swept.
func TestEngineRechecksSweep(t *testing.T) {
	h := newHouse(t)
	h.registry.push("app", "a", config("cfg"))
	h.tick()
	h.pass(31)
	h.tick()
	h.want("[a:expired]")
	h.pass(8)
	h.registry.beforeExpire = func(content.Expiry) { h.pull("cfg") }
	if r := h.tick(); r.Swept != 0 || r.Changed != 1 {
		t.Errorf("report: %+v", r)
	}
	h.tick()
	h.want("[a:live]")
}

func TestEnginePlansOnly(t *testing.T) {
	h := newHouse(t)
	h.cfg.Explicit = false
	h.restart()
	h.registry.push("app", "a")
	h.registry.push("app", "gone", deleted(0))
	h.tick()
	h.pass(40)
	if r := h.tick(); r.Plan.Expire != 1 || r.Applied || !r.Plan.PlanningOnly {
		t.Errorf("report: %+v", r)
	}
	// What a client deleted is swept all the same.
	h.want("[a:live]")
	if s := h.engine.Status(); !s.PlanningOnly || !strings.Contains(s.Cure, "retention.policies") {
		t.Errorf("status: %+v", s)
	}
	if _, err := h.engine.RunOnce(h.ctx, RunOptions{}); !errors.Is(err, ErrPlanningOnly) {
		t.Errorf("by hand: %v", err)
	}
	if _, ok := h.engine.Expires("app", dg("a")); ok {
		t.Error("warns of what will not happen")
	}
	h.registry.push("app", "b")
	h.ledger.enrolled = true
	h.tick()
	h.want("[a:expired b:live]")
}

func TestEngineGuardsAgainstEverything(t *testing.T) {
	h := newHouse(t)
	h.registry.push("app", "a")
	h.registry.push("app", "b")
	h.tick()
	h.pass(10)
	h.tick()
	h.cfg.Policies = []Policy{{Repositories: []string{"**"}, After: day}}
	h.restart()
	h.tick()
	h.want("[a:live b:live]")
	s := h.engine.Status()
	if s.Held == nil || *s.Held != (Held{2, 2}) || !strings.Contains(s.Cure, "--yes") {
		t.Errorf("status: %+v", s)
	}
	var all *EverythingError
	if _, err := h.engine.RunOnce(h.ctx, RunOptions{}); !errors.As(err, &all) || all.Expire != 2 || all.Live != 2 || !all.Changed {
		t.Errorf("by hand: %v", err)
	}
	h.tick()
	h.want("[a:live b:live]")
	if r, err := h.engine.RunOnce(h.ctx, RunOptions{Yes: true}); err != nil || r.Expired != 2 {
		t.Errorf("with yes: %+v, %v", r, err)
	}
	h.want("[a:expired b:expired]")
	if s := h.engine.Status(); s.Held != nil {
		t.Errorf("status: %+v", s)
	}
}

// Without a change of policies a registry that nobody uses empties itself, but
// not by hand without a word.
func TestEngineEmptiesItself(t *testing.T) {
	h := newHouse(t)
	h.registry.push("app", "a")
	h.tick()
	h.pass(31)
	var all *EverythingError
	if _, err := h.engine.RunOnce(h.ctx, RunOptions{}); !errors.As(err, &all) || all.Changed {
		t.Errorf("by hand: %v", err)
	}
	h.want("[a:live]")
	h.tick()
	h.want("[a:expired]")
}

// Policies that could show nothing because of doubt do not count as applied.
func TestEngineGuardWaitsForDoubtToEnd(t *testing.T) {
	h := newHouse(t)
	h.ledger.doubt = []usage.Interval{{Scope: []string{"**"}, From: t0}}
	h.registry.push("app", "a")
	h.tick()
	h.pass(31)
	h.tick()
	h.ledger.doubt = nil
	h.tick()
	h.want("[a:live]")
	if h.engine.Status().Held == nil {
		t.Error("is not held")
	}
}

func TestEngineGoesOnAfterErrors(t *testing.T) {
	h := newHouse(t)
	for _, repo := range []string{"app", "bad", "cat"} {
		h.registry.push(repo, "a")
		h.registry.push(repo, "b")
	}
	h.tick()
	h.pass(31)
	h.registry.push("app", "new")
	h.registry.broken["bad"] = errBroken
	h.registry.broken[string(dg("a"))] = errBroken
	r := h.tick()
	h.want("[a:live b:expired new:live]")
	if got := h.registry.states("cat"); got != "[a:live b:expired]" {
		t.Errorf("cat: %s", got)
	}
	if r.Failed != 3 || len(r.Errors) != 3 || r.Expired != 2 {
		t.Errorf("report: %+v", r)
	}
	if s := h.engine.Status(); len(s.Errors) != 3 {
		t.Errorf("status: %+v", s)
	}
}

func TestEngineOwners(t *testing.T) {
	h := newHouse(t)
	o := &owner{uses: map[image.Digest][]usage.Use{dg("a"): {{Source: usage.Code, Subject: "infra/main.tf:3", At: t0, Now: true}}}}
	h.restart(o)
	h.registry.push("app", "a")
	h.registry.push("app", "b")
	h.tick()
	h.pass(31)
	h.tick()
	h.want("[a:live b:expired]")
	o.err = errBroken // who does not know must not lose it
	h.pass(1)
	h.tick()
	h.want("[a:live b:expired]")
	o.uses, o.err = nil, nil
	h.tick()
	h.want("[a:expired b:expired]")
}

func TestPlanInTheFuture(t *testing.T) {
	h := newHouse(t)
	h.registry.push("app", "a")
	h.registry.push("app", "p")
	h.registry.pins = []content.Pin{{Repository: "app", Digest: dg("p"), Created: t0, Expires: t0.Add(50 * day)}}
	for days, want := range map[float64]string{1: "a:keep p:keep", 31: "a:expire p:keep", 51: "a:expire p:expire"} {
		var got []string
		sum, err := h.engine.Plan(h.ctx, at(days), func(d Decision) error {
			got = append(got, name(d.Image.Digest)+":"+d.Action.String())
			return nil
		})
		if err != nil || sum.Images != 2 {
			t.Fatal(sum, err)
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("after %g days %s, want %s", days, g, want)
		}
	}
	h.want("[a:live p:live]")
	if _, err := h.engine.Plan(h.ctx, t0, func(Decision) error { return errBroken }); !errors.Is(err, errBroken) {
		t.Errorf("the error of f is lost: %v", err)
	}
}

// The loop runs at once and at each interval, and revives in between.
func TestEngineLoop(t *testing.T) {
	h := newHouse(t)
	h.cfg.Interval = time.Minute
	h.restart()
	h.registry.push("app", "a")
	ctx, cancel := context.WithCancel(h.ctx)
	done := make(chan error)
	go func() { done <- h.engine.Run(ctx) }()
	waits := func() {
		for h.clock.Waiting() == 0 {
			time.Sleep(50 * time.Microsecond) // for the goroutine, not for time
		}
	}
	steps := 0
	for h.engine.Counters().Runs < 3 {
		waits()
		h.clock.Advance(look)
		if steps++; steps > 10_000 {
			t.Fatal("the loop does not run")
		}
	}
	if want := int(2 * time.Minute / look); steps < want || steps > want+2 {
		t.Errorf("3 runs took %d looks, want %d", steps, want)
	}
	if next := h.engine.Status().NextRun; !next.After(h.clock.Now().Add(-look)) {
		t.Errorf("next run at %v, now is %v", next, h.clock.Now())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFileMemory(t *testing.T) {
	m := FileMemory(filepath.Join(t.TempDir(), "applied"))
	if s, err := m.Applied(t.Context()); s != "" || err != nil {
		t.Error(s, err)
	}
	for _, want := range []string{"one", "two"} {
		if err := m.SetApplied(t.Context(), want); err != nil {
			t.Error(err)
		}
		if s, err := m.Applied(t.Context()); s != want || err != nil {
			t.Error(s, err)
		}
	}
	if err := FileMemory("/nonexistent/x").SetApplied(t.Context(), "x"); err == nil {
		t.Error("no error")
	}
}
