package bump

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// subjects are who uses a digest of our repository api, by InUse.
func (g *rig) subjects(e *Engine, d image.Digest) string {
	g.Helper()
	m, err := e.InUse(g.ctx, "api")
	if err != nil {
		g.Fatal(err)
	}
	var out []string
	for _, u := range m[d] {
		if u.Source != usage.Code || !u.Now || u.Repository != "api" || u.Digest != d {
			g.Errorf("%+v", u)
		}
		out = append(out, u.Subject)
	}
	return strings.Join(out, ", ")
}

func TestCodeIsAUse(t *testing.T) {
	g := newRig(t)
	one := g.push("cairn.test/api", "1.1")
	g.push("docker.io/library/nginx", "1.1")
	g.add(map[string]string{"main.tf": main1})
	e := g.engine("a")
	if _, err := e.InUse(g.ctx, "api"); err == nil || !strings.Contains(err.Error(), "were not read yet") {
		t.Fatalf("before anything was read: %v", err)
	}
	g.pass(e)
	if got := g.subjects(e, one); got != "forge/team/app: main.tf" {
		t.Errorf("%q", got)
	}
	two := g.push("cairn.test/api", "1.2")
	if got := g.subjects(e, two); got != "" {
		t.Errorf("nobody uses it yet: %q", got)
	}
	g.pass(e)
	if got := g.subjects(e, two); got != "forge/team/app: pull request 1" {
		t.Errorf("an open pull request is a use: %q", got)
	}
	if got := g.subjects(e, one); got != "forge/team/app: main.tf" {
		t.Errorf("the default branch uses it still: %q", got)
	}
	// A restart knows it without asking anybody.
	calls := len(g.forge.Calls())
	again := g.engine("a")
	if got := g.subjects(again, two) + "; " + g.subjects(again, one); got != "forge/team/app: pull request 1; forge/team/app: main.tf" {
		t.Errorf("%q", got)
	}
	if len(g.forge.Calls()) != calls {
		t.Error("the forge was asked")
	}
	if err := g.forge.MergeByHand("team/app", 1); err != nil {
		t.Fatal(err)
	}
	g.pass(e)
	if got := g.subjects(e, one) + "; " + g.subjects(e, two); got != "; forge/team/app: main.tf" {
		t.Errorf("after the merge: %q", got)
	}
}

// A file that cannot be read any more names what it named.
func TestABrokenFileKeepsItsUses(t *testing.T) {
	g, e := begun(t)
	one := g.regs.tags["cairn.test/api"][0].Digest
	g.forge.Push("team/app", "main", map[string]string{"main.tf": "BROKEN"})
	for range 2 {
		g.pass(e)
		if got := g.subjects(e, one); got != "forge/team/app: main.tf" {
			t.Errorf("%q", got)
		}
	}
	g.forge.Push("team/app", "main", map[string]string{"main.tf": "nothing\n"})
	g.pass(e)
	if got := g.subjects(e, one); got != "" {
		t.Errorf("%q", got)
	}
}

func TestAFailingRegistryOfOursFailsClosed(t *testing.T) {
	g, e := begun(t)
	g.regs.fail = map[string]error{"cairn.test/api": errors.New("disk")}
	if m, err := e.InUse(g.ctx, "api"); err == nil {
		t.Errorf("%v", m)
	}
	if _, err := e.InUse(g.ctx, "other"); err != nil {
		t.Errorf("nobody names it: %v", err)
	}
}

func TestStaleScansAreDoubt(t *testing.T) {
	g, e := begun(t)
	if d := g.led.doubts(); len(d) != 0 {
		t.Fatalf("%+v", d)
	}
	g.forge.Fail(func(forgetest.Call) *forgetest.Fault { return &forgetest.Fault{Err: forge.ErrUnauthorized} })
	for range 3 {
		g.clock.Advance(time.Hour)
		if err := g.try(e); !errors.Is(err, forge.ErrUnauthorized) {
			t.Fatal(err)
		}
	}
	if d := g.led.doubts(); len(d) != 0 {
		t.Fatalf("three intervals are not over: %+v", d)
	}
	g.clock.Advance(time.Minute)
	for range 2 {
		if err := e.doubt(g.ctx); err != nil {
			t.Fatal(err)
		}
	}
	d := g.led.doubts()
	if len(d) != 1 || d[0].From != epoch || !strings.Contains(d[0].Why, "forge/team/app") || !strings.Contains(d[0].Cure, "secret") || d[0].Scope[0] != "**" {
		t.Fatalf("%+v", d)
	}
	// Another start finds it again, and does not open a second one.
	b := g.engine("a")
	if err := b.doubt(g.ctx); err != nil {
		t.Fatal(err)
	}
	if d := g.led.doubts(); len(d) != 1 {
		t.Fatalf("%+v", d)
	}
	if c := b.Counters(); c.Stale != 1 || c.Failing != 1 {
		t.Errorf("%+v", c)
	}
	g.forge.Fail(nil)
	g.pass(b)
	if d := g.led.doubts(); len(d) != 0 {
		t.Fatalf("%+v", d)
	}
}

func TestNeverReadIsDoubt(t *testing.T) {
	g := newRig(t)
	g.repos = []string{"team/*", "team/app"}
	e := g.engine("a") // there is no team/app
	if err := g.try(e); !errors.Is(err, forge.ErrNotFound) {
		t.Fatal(err)
	}
	if d := g.led.doubts(); len(d) != 1 || !strings.Contains(d[0].Why, "could not be read yet") {
		t.Fatalf("%+v", d)
	}
	st, err := e.Repository("team/app")
	if err != nil || st.Error == "" || !strings.Contains(st.Cure, "is the name right") {
		t.Errorf("%+v, %v", st, err)
	}
	if n := e.unread.Load(); n != 1 { // the glob was never listed
		t.Errorf("%d", n)
	}
	g.add(map[string]string{"main.tf": main1})
	if err := e.list(g.ctx, e.sources["forge"]); err != nil {
		t.Fatal(err)
	}
	g.pass(e)
	if m, err := e.InUse(g.ctx, "api"); err != nil || len(m) != 0 {
		t.Errorf("%v, %v", m, err)
	}
	if d := g.led.doubts(); len(d) != 0 {
		t.Fatalf("%+v", d)
	}
}

func TestARepositoryThatIsGone(t *testing.T) {
	g, _ := begun(t)
	g.repos = []string{"team/*", "team/app"}
	e := g.engine("a")
	g.forge.AddRepository("team/gone", map[string]string{"a.tf": "a = \"cairn.test/api:1.1\"\n"})
	if err := e.list(g.ctx, e.sources["forge"]); err != nil {
		t.Fatal(err)
	}
	r := e.repository("forge/team/gone")
	if r == nil {
		t.Fatal("the glob did not find it")
	}
	if err := e.pass(g.ctx, r); err != nil && !errors.As(err, new(*soonError)) {
		t.Fatal(err)
	}
	one := g.regs.tags["cairn.test/api"][0].Digest
	if got := g.subjects(e, one); !strings.Contains(got, "team/gone") {
		t.Fatal(got)
	}
	g.forge.Remove("team/gone")
	for range 7 {
		g.clock.Advance(24 * time.Hour)
		if got := g.subjects(e, one); !strings.Contains(got, "team/gone") {
			t.Fatal("it was forgotten within a week")
		}
		_ = e.pass(g.ctx, r)
		g.pass(e)
	}
	g.clock.Advance(48 * time.Hour)
	_ = e.pass(g.ctx, r)
	g.pass(e)
	if got := g.subjects(e, one); strings.Contains(got, "team/gone") {
		t.Errorf("it is remembered after more than a week: %s", got)
	}
	if d := g.led.doubts(); len(d) != 0 {
		t.Errorf("%+v", d)
	}
}

func TestPushesFindTheirReaders(t *testing.T) {
	g, e := begun(t)
	r := e.repository("forge/team/app")
	due := func() bool { _, ok := e.queue.dueAt(r); return ok }
	e.Pushed([]catalog.Pushed{{Repository: "cairn.test/other", Tag: "1"}}, false)
	if due() {
		t.Error("nobody names that")
	}
	e.Pushed([]catalog.Pushed{{Repository: "cairn.test/api", Tag: "1.2"}}, false)
	if !due() {
		t.Error("it is not looked at")
	}
	b := g.engine("b")
	b.Pushed(nil, true)
	if _, ok := b.queue.dueAt(b.repository("forge/team/app")); !ok {
		t.Error("when not all pushes are known, all are looked at")
	}
}

// The nodes of all reporters, each platform once.
func TestNodes(t *testing.T) {
	e := &Engine{deps: Deps{Ledger: &ledger{}}}
	var got []string
	for _, p := range e.nodes() {
		got = append(got, p.String())
	}
	if want := []string{"linux/amd64", "linux/arm64"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := (&Engine{}).nodes(); got != nil {
		t.Errorf("without a ledger: %v", got)
	}
}
