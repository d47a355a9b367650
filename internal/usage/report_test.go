package usage

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// says makes a complete statement of containers, by the name of their digests.
func says(names ...string) Statement {
	s := Statement{Reporter: "host", Period: time.Minute, Complete: true}
	for _, n := range names {
		s.Uses = append(s.Uses, use(n, Container, "host/"+n))
	}
	return s
}

func (s Statement) called(id string) Statement         { s.Statement = id; return s }
func (s Statement) partOf(part, parts int) Statement   { s.Part, s.Parts = part, parts; return s }
func (s Statement) naming(sources ...Source) Statement { s.Sources = sources; return s }
func (s Statement) with(name string, src Source) Statement {
	s.Uses = append(s.Uses, use(name, src, "x"))
	return s
}

func TestReportDated(t *testing.T) {
	w := newWorld(t)
	w.clock.Advance(10 * time.Hour)
	at := func(u Use, hour float64) Use { u.At = h(hour); return u }
	s := Statement{Uses: []Use{at(use("a", Run, "job"), 4), use("b", Workload, ""), at(use("c", Container, "vm"), 13)}}
	s.Uses[0].Repository = "app/web"
	rc := w.report(Identity{Name: "ci"}, s)
	if rc.Accepted != 3 || rc.Enrolled || !rc.Applied || rc.Period != 0 {
		t.Errorf("receipt: %+v", rc)
	}
	if len(rc.Warnings) != 1 || rc.Warnings[0] != "uses[2].at: 2026-11-22 13:00:00 UTC is 3h in the future; recorded as now" {
		t.Errorf("warnings: %q", rc.Warnings)
	}
	w.wantLast("a", "4")
	w.wantLast("b", "10")
	w.wantLast("c", "10")
	if u := w.l.Uses(dg("b")); u[0].Subject != "ci" {
		t.Errorf("without a subject it is %q, want the reporter's name", u[0].Subject)
	}
	// They are stored when Report returns.
	if n := w.inDB("SELECT count(*) FROM use"); n != 3 {
		t.Errorf("%d uses are stored, want 3", n)
	}
	// Again, or with an older time, changes nothing.
	s.Uses = s.Uses[:1]
	w.report(Identity{Name: "ci"}, s)
	s.Uses[0] = at(s.Uses[0], 2)
	w.report(Identity{Name: "ci"}, s)
	w.wantLast("a", "4")
	s.Uses[0] = at(s.Uses[0], 6)
	w.report(Identity{Name: "ci"}, s)
	w.wantLast("a", "6")
	if got := w.l.Uses(dg("a")); len(got) != 1 {
		t.Errorf("one fact became %v", got)
	}
	if len(w.l.Reporters()) != 0 || w.l.EverEnrolled() || len(w.l.Uncovered()) != 0 {
		t.Error("dated uses enrolled somebody")
	}
	// A clock a little ahead is not worth a word; many are worth a few.
	rc = w.report(Identity{Name: "ci"}, Statement{Uses: []Use{{Digest: dg("d"), Source: Run, At: h(10).Add(3 * time.Second)}}})
	if len(rc.Warnings) != 0 {
		t.Errorf("warnings: %q", rc.Warnings)
	}
	w.wantLast("d", "10")
	s = Statement{}
	for range 100 {
		s.Uses = append(s.Uses, at(use("d", Run, "x"), 20))
	}
	if rc = w.report(Identity{Name: "ci"}, s); len(rc.Warnings) > maxWarnings+1 {
		t.Errorf("%d warnings", len(rc.Warnings))
	}
	rc = w.report(Identity{Name: "ci"}, Statement{Uses: []Use{at(use("ancient", Run, "x"), -24*401)}})
	if rc.Accepted != 0 || len(rc.Warnings) != 1 || !strings.Contains(rc.Warnings[0], "not recorded") {
		t.Errorf("a use of 401 days ago: %+v", rc)
	}
}

func TestReportBad(t *testing.T) {
	w := newWorld(t)
	ok := use("a", Container, "x")
	mod := func(f func(*Use)) Statement {
		u := ok
		f(&u)
		return Statement{Uses: []Use{ok, u}}
	}
	tests := []struct {
		s    Statement
		want string
	}{
		{mod(func(u *Use) { u.Digest = "" }), "uses[1].digest: missing"},
		{mod(func(u *Use) { u.Digest = "sha256:abc" }), "uses[1].digest: invalid digest"},
		{mod(func(u *Use) { u.Digest = "md5:00" }), "uses[1].digest: invalid digest"},
		{mod(func(u *Use) { u.Repository = "App/Web" }), "uses[1].repository: invalid repository"},
		{mod(func(u *Use) { u.Repository = "../x" }), "uses[1].repository: invalid repository"},
		{mod(func(u *Use) { u.Source = Pin }), "uses[1].source: pins are not reported; use: cairn image pin REF"},
		{mod(func(u *Use) { u.Source = Push }), "uses[1].source: pushes are recorded by the registry itself; push the image, or use: cairn tag"},
		{mod(func(u *Use) { u.Source = 0 }), "uses[1].source: missing or unknown"},
		{mod(func(u *Use) { u.Source = 99 }), "uses[1].source: missing or unknown"},
		{mod(func(u *Use) { u.Subject = strings.Repeat("x", 513) }), "uses[1].subject: it has 513 bytes, the limit is 512"},
		{mod(func(u *Use) { u.Subject = "a\nb" }), "uses[1].subject: it contains the control character U+000A"},
		{mod(func(u *Use) { u.Subject = "a\u0085b" }), "uses[1].subject: it contains the control character U+0085"},
		{mod(func(u *Use) { u.Subject = "a\xffb" }), "uses[1].subject: it is not valid UTF-8"},
		{mod(func(u *Use) { u.Subject = "" }), "uses[1].subject: missing"},
		{Statement{Uses: make([]Use, MaxUses+1)}, "uses: there are 100001, the limit is 100000"},
		{Statement{Period: time.Minute}, "reporter: missing"},
		{Statement{SameAs: "x"}, "reporter: missing"},
		{Statement{Reporter: "a/b"}, "reporter: \"a/b\" contains '/'"},
		{Statement{Reporter: "a\x00b"}, "reporter: it contains the control character U+0000"},
		{Statement{Period: -1}, "period: -1ns is negative"},
		{Statement{Reporter: "a", Complete: true}, "period: missing"},
		{says("a").partOf(1, 0), "parts: 0 is not between 1 and 1000"},
		{says("a").partOf(1, 1001), "parts: 1001 is not between 1 and 1000"},
		{says("a").called("x").partOf(0, 2), "part: 0 is not between 1 and parts (2)"},
		{says("a").called("x").partOf(3, 2), "part: 3 is not between 1 and parts (2)"},
		{says("a").partOf(1, 2), "statement: missing"},
		{Statement{Reporter: "a", Period: time.Minute, Statement: "x", Part: 1, Parts: 2}, "complete: only a complete statement comes in parts"},
		{Statement{Reporter: "a", SameAs: "x", Uses: []Use{ok}}, "same_as: it restates a statement without its uses"},
		{Statement{Reporter: "a", SameAs: "x", Statement: "y"}, "same_as: it names \"x\" while statement names \"y\""},
		{Statement{Reporter: "a", SameAs: "x", Part: 1, Parts: 2}, "same_as: it restates the whole statement"},
		{says("a").naming(Container, Pin), "sources[1]: pins are not reported"},
		{says("a").naming(Workload), "uses[0].source: container is not among the sources that this statement names"},
	}
	for _, tt := range tests {
		_, err := w.l.Report(w.ctx, Identity{}, tt.s)
		var b *BadStatementError
		if !errors.As(err, &b) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v\nwant a BadStatementError with %q", err, tt.want)
		}
	}
	if st := w.l.Stats(); st.Uses != 0 || st.Reporters != 0 {
		t.Errorf("a statement that was refused left %+v", st)
	}
}

func TestReportIdentity(t *testing.T) {
	tests := []struct {
		account, reporter, want string
	}{
		{"", "host-a", "host-a"},
		{"agent", "", "agent"},
		{"agent", "agent", "agent"},
		{"agent", "host-a", "agent/host-a"},
	}
	for _, tt := range tests {
		w := newWorld(t)
		s := says("a")
		s.Reporter = tt.reporter
		if rc := w.report(Identity{Name: tt.account}, s); !rc.Enrolled {
			t.Error("it does not say that it enrolled")
		}
		if rs := w.l.Reporters(); len(rs) != 1 || rs[0].Name != tt.want {
			t.Errorf("account %q, reporter %q: enrolled %v, want %s", tt.account, tt.reporter, rs, tt.want)
		}
	}
	// Two hosts of one account do not replace each other's statements.
	w := newWorld(t)
	a, b := says("a"), says("b")
	b.Reporter = "other"
	w.report(Identity{Name: "agent"}, a)
	w.report(Identity{Name: "agent"}, b)
	if got := w.inUse("a", "b"); len(got) != 2 {
		t.Errorf("in use: %v", got)
	}
}

func TestReportScope(t *testing.T) {
	w := newWorld(t)
	by := Identity{Name: "ci", Scope: []string{"app/*", "lib/x"}}
	in := func(repository string) Statement {
		u := use("a", Container, "x")
		u.Repository = repository
		return Statement{Period: time.Minute, Complete: true, Uses: []Use{use("b", Container, "x"), u}}
	}
	for _, repo := range []string{"app/web", "lib/x", ""} {
		w.report(by, in(repo))
	}
	if rs := w.l.Reporters(); !slices.Equal(rs[0].Scope, by.Scope) {
		t.Errorf("scope is %v", rs[0].Scope)
	}
	_, err := w.l.Report(w.ctx, by, in("team/web"))
	if !errors.Is(err, ErrScope) || !strings.Contains(err.Error(), "uses[1].repository") || !strings.Contains(err.Error(), "team/web") {
		t.Errorf("outside the scope: %v", err)
	}
	by.Name, by.Scope = "other", []string{"none"}
	if _, err := w.l.Report(w.ctx, by, in("app/web")); !errors.Is(err, ErrScope) {
		t.Errorf("outside the scope: %v", err)
	}
	if len(w.l.Reporters()) != 1 {
		t.Error("a statement that was refused enrolled its sender")
	}
}

func TestReportPeriod(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ period, want time.Duration }{
		{time.Nanosecond, MinPeriod}, {MinPeriod, MinPeriod}, {90 * time.Second, 90 * time.Second}, {time.Hour, time.Hour}, {2 * time.Hour, time.Hour},
	} {
		s := says("a")
		s.Period = tt.period
		rc := w.report(Identity{}, s)
		if rc.Period != tt.want || (len(rc.Warnings) > 0) != (tt.period != tt.want) {
			t.Errorf("period %v: %+v, want %v", tt.period, rc, tt.want)
		}
		if got := w.l.Reporters()[0].Period; got != tt.want {
			t.Errorf("period %v: enrolled with %v", tt.period, got)
		}
	}
}

func TestReportComplete(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	tests := []struct {
		name string
		says []Statement
		want string // in use now
	}{
		{"one", []Statement{says("a", "b")}, "a b"},
		{"the next replaces it", []Statement{says("a", "b"), says("b", "c")}, "b c"},
		{"the same twice in it counts once", []Statement{says("a", "a"), says("b")}, "b"},
		{"the same twice in it is one", []Statement{says("a", "a")}, "a"},
		{"nothing in use", []Statement{says("a", "b"), says()}, ""},
		{"without complete nothing is replaced", []Statement{says("a"), {Reporter: "host", Period: time.Minute, Uses: []Use{use("b", Container, "x")}}}, "a"},
		{"other sources stay", []Statement{says("a").with("b", Workload), says("c")}, "b c"},
		{"but not if they are named", []Statement{says("a").with("b", Workload), says("c").naming(Container, Workload)}, "c"},
		{"empty means containers and workloads", []Statement{says("a").with("b", Workload).with("c", Run), says()}, "c"},
		{"empty with a source named", []Statement{says("a").with("b", Workload), says().naming(Workload)}, "a"},
		{"code, run and pull may be stated", []Statement{says().with("a", Code).with("b", Run).with("c", Pull)}, "a b c"},
		{"in parts", []Statement{says("a").called("1").partOf(1, 2), says("b").called("1").partOf(2, 2)}, "a b"},
		{"in parts, out of order", []Statement{says("d"), says("c").called("1").partOf(3, 3), says("a").called("1").partOf(1, 3), says("b").called("1").partOf(2, 3)}, "a b c"},
		{"a part missing", []Statement{says("d"), says("c").called("1").partOf(3, 3), says("a").called("1").partOf(1, 3)}, "d"},
		{"a part twice is not all", []Statement{says("d"), says("a").called("1").partOf(1, 2), says("a").called("1").partOf(1, 2)}, "d"},
		{"a newer one abandons it", []Statement{says("a").called("1").partOf(1, 2), says("b").called("2").partOf(1, 2), says("c").called("2").partOf(2, 2)}, "b c"},
		{"a whole one abandons it", []Statement{says("a").called("1").partOf(1, 2), says("b").called("2")}, "b"},
		{"sources of parts add up", []Statement{says("d").with("c", Workload), says("a").called("1").partOf(1, 2), says().with("b", Workload).called("1").partOf(2, 2)}, "a b"},
		{"one part of one", []Statement{says("a").partOf(1, 1)}, "a"},
		{"restated in parts by the same name", []Statement{
			says("a").called("1").partOf(1, 2), says("b").called("1").partOf(2, 2),
			says("a").called("1").partOf(1, 2), says("b").called("1").partOf(2, 2)}, "a b"},
		{"another number of parts begins anew", []Statement{says("a").called("1").partOf(1, 3), says("b").called("1").partOf(1, 2), says("c").called("1").partOf(2, 2)}, "b c"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			for i, s := range tt.says {
				rc := w.report(Identity{}, s)
				if rc.Accepted != len(s.Uses) {
					t.Errorf("statement %d: %+v", i, rc)
				}
				w.clock.Advance(time.Second)
			}
			if got := strings.Join(w.inUse(names...), " "); got != tt.want {
				t.Errorf("in use are %q, want %q", got, tt.want)
			}
			if got := w.l.Reporters()[0].Digests; got != len(strings.Fields(tt.want)) {
				t.Errorf("the reporter has %d uses in force, want %d", got, len(strings.Fields(tt.want)))
			}
			if w.l.pendings != 0 && w.l.reporters["host"].pending == nil {
				t.Errorf("%d uses are pending of no statement", w.l.pendings)
			}
		})
	}
}

func TestReportApplied(t *testing.T) {
	w := newWorld(t)
	if rc := w.report(Identity{}, says("a").called("1").partOf(2, 2)); rc.Applied || !rc.Enrolled {
		t.Errorf("first part: %+v", rc)
	}
	if rc := w.report(Identity{}, says("b").called("1").partOf(1, 2)); !rc.Applied || rc.Enrolled {
		t.Errorf("last part: %+v", rc)
	}
	// A part alone does not count as being heard: it is not a statement.
	w.clock.Advance(2 * time.Minute)
	w.report(Identity{}, says("a").called("2").partOf(1, 2))
	if got := w.l.Reporters()[0].Last; !got.Equal(day0) {
		t.Errorf("last heard at %v, want %v", got, day0)
	}
	// What left keeps the time it was last stated.
	w.report(Identity{}, says("a").called("2").partOf(2, 2))
	w.clock.Advance(time.Hour)
	w.wantLast("b", "0")
	if got := w.inUse("a", "b"); len(got) != 1 || got[0] != "a" {
		t.Errorf("in use: %v", got)
	}
	// A complete statement says "now", whatever its uses say.
	s := says("c")
	s.Uses[0].At = h(-100)
	w.report(Identity{}, s)
	w.wantLast("c", fmt.Sprint(62./60)+"!")
	if rc := w.report(Identity{}, says().with("x", Workload)); len(rc.Warnings) != 1 || !strings.Contains(rc.Warnings[0], "earlier uses of source container stay in force") {
		t.Errorf("warnings: %q", rc.Warnings)
	}
}

func TestReportAbandonedParts(t *testing.T) {
	w := newWorld(t)
	w.report(Identity{}, says("a").called("1").partOf(1, 2))
	w.report(Identity{}, says("b").called("2").partOf(1, 2))
	if _, err := w.l.Report(w.ctx, Identity{}, says("c").called("1").partOf(2, 2)); !errors.Is(err, ErrUnknownStatement) {
		t.Errorf("a late part of an abandoned statement: %v", err)
	}
	w.report(Identity{}, says("d").called("2").partOf(2, 2))
	if got := strings.Join(w.inUse("a", "b", "c", "d"), " "); got != "b d" {
		t.Errorf("in use: %q", got)
	}
	// Once the newer one is whole, or from its first part, the older may come
	// again: a name may stand for the same uses again and again.
	w.report(Identity{}, says("c").called("1").partOf(2, 2))
	w.report(Identity{}, says("b").called("2").partOf(2, 2))
	w.report(Identity{}, says("a").called("1").partOf(1, 2))
	w.report(Identity{}, says("c").called("1").partOf(2, 2))
	if got := strings.Join(w.inUse("a", "b", "c", "d"), " "); got != "a c" {
		t.Errorf("in use: %q", got)
	}
	// An unfinished one is dropped after an hour.
	w.report(Identity{}, says("a").called("3").partOf(1, 2))
	w.clock.Advance(MaxPeriod + time.Second)
	w.tick()
	if w.l.pendings != 0 {
		t.Errorf("%d uses are still pending", w.l.pendings)
	}
}

func TestSameAs(t *testing.T) {
	same := func(id string) Statement { return Statement{Reporter: "host", SameAs: id} }
	w := newWorld(t)
	unknown := func(s Statement) {
		t.Helper()
		if _, err := w.l.Report(w.ctx, Identity{}, s); !errors.Is(err, ErrUnknownStatement) {
			t.Errorf("same_as %s: %v, want ErrUnknownStatement", s.SameAs, err)
		}
	}
	unknown(same("1")) // nobody enrolled
	if len(w.l.Reporters()) != 0 {
		t.Error("same_as enrolled somebody")
	}
	w.report(Identity{}, says("a", "b").called("1"))
	w.clock.Advance(time.Hour)
	rc := w.report(Identity{}, same("1"))
	if rc.Accepted != 2 || !rc.Applied || rc.Period != time.Minute {
		t.Errorf("receipt: %+v", rc)
	}
	w.wantLast("a", "1!")
	unknown(same("2"))
	unknown(same(" 1"))
	w.report(Identity{}, says("b").called("2"))
	unknown(same("1"))
	w.report(Identity{}, same("2"))

	// Statements of different sources stand side by side.
	w.report(Identity{}, says().with("w", Workload).called("w1"))
	w.clock.Advance(time.Hour)
	if rc := w.report(Identity{}, same("2")); rc.Accepted != 1 {
		t.Errorf("receipt: %+v", rc)
	}
	w.wantLast("b", "2!")
	w.wantLast("w", "1!")
	w.report(Identity{}, same("w1"))
	w.wantLast("w", "2!")
	// One that was replaced in part is no longer in force.
	w.report(Identity{}, says("a").with("w", Workload).called("both"))
	w.report(Identity{}, says().with("w", Workload).called("w2"))
	unknown(same("both"))

	// A new period, an unfinished newer statement, a new process.
	s := same("w2")
	s.Period = 2 * time.Minute
	w.report(Identity{}, s)
	if got := w.l.Reporters()[0].Period; got != 2*time.Minute {
		t.Errorf("period is %v", got)
	}
	w.report(Identity{}, says("z").called("3").partOf(1, 2))
	w.report(Identity{}, same("w2"))
	w.stop()
	w.start()
	unknown(same("w2"))
}

func TestTwoReportersOneUse(t *testing.T) {
	w := newWorld(t)
	one, two := Statement{Reporter: "h1", Period: time.Minute, Complete: true, Uses: []Use{use("a", Workload, "prod/web")}}, Statement{Reporter: "h2", Period: time.Minute, Complete: true, Uses: []Use{use("a", Workload, "prod/web")}}
	w.report(Identity{}, one)
	w.report(Identity{}, two)
	one.Uses, one.Sources = nil, []Source{Workload}
	w.report(Identity{}, one)
	w.wantLast("a", "0!")
	if len(w.l.Uses(dg("a"))) != 1 {
		t.Error("one fact became two")
	}
	two.Uses, two.Sources = nil, []Source{Workload}
	w.report(Identity{}, two)
	w.wantLast("a", "0")
}
