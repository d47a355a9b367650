package usage

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// uncovered shows the intervals as reporter[from,to) in hours, "*" when open.
func (w *world) uncovered() string {
	var out []string
	for _, i := range w.l.Uncovered() {
		to := "*"
		if !i.To.IsZero() {
			to = hours(i.To)
		}
		out = append(out, fmt.Sprintf("%s[%s,%s)", i.Reporter, hours(i.From), to))
	}
	return strings.Join(out, " ")
}

func hours(t time.Time) string { return fmt.Sprintf("%.4g", t.Sub(day0).Hours()) }

func (w *world) wantUncovered(want string) {
	w.Helper()
	if got := w.uncovered(); got != want {
		w.Errorf("uncovered is %q, want %q", got, want)
	}
}

// beats has a reporter speak once a period, and time pass.
func (w *world) beats(s Statement, d time.Duration) {
	w.Helper()
	for end := w.clock.Now().Add(d); w.clock.Now().Before(end); {
		w.pass(s.Period)
		w.report(Identity{}, s)
	}
}

func TestSilence(t *testing.T) {
	w := newWorld(t)
	s := says("a")
	s.Period = 6 * time.Minute // a tenth of an hour
	w.report(Identity{}, s)
	w.pass(18 * time.Minute) // just three periods
	w.wantUncovered("")
	if w.l.Reporters()[0].Silent {
		t.Error("silent after three periods")
	}
	w.pass(time.Second)
	w.wantUncovered("host[0,*)")
	if !w.l.Reporters()[0].Silent {
		t.Error("not silent after more than three periods")
	}
	got := w.l.Uncovered()[0]
	if want := "reporter host has been silent since 2026-11-22 00:00:00 UTC (3 periods of 6m)"; got.Why != want {
		t.Errorf("why: %q, want %q", got.Why, want)
	}
	if !strings.Contains(got.Cure, "cairn cluster forget host") {
		t.Errorf("cure: %q", got.Cure)
	}
	w.wantLast("a", "0!") // it may well go on
	w.pass(time.Hour - 18*time.Minute - time.Second)
	w.report(Identity{}, s)
	w.wantUncovered("host[0,1)")
	w.beats(s, time.Hour)
	w.wantUncovered("host[0,1)") // it stays
	w.stop()
	w.start()
	w.wantUncovered("host[0,1) host[2,*)") // not heard since the start
	w.report(Identity{}, s)
	w.wantUncovered("host[0,1)")
}

// A crash right after the alive mark, before the ledger writes anything else,
// does not lose a silence or a jump that ended just before.
func TestDoubtIsStoredBeforeTheMark(t *testing.T) {
	w := newWorld(t)
	w.report(Identity{}, says("a"))
	w.pass(time.Hour)
	w.report(Identity{}, says("a"))
	w.clock.Jump(time.Hour)
	w.l.watch()
	if err := w.l.mark(w.ctx, false); err != nil {
		t.Fatal(err)
	}
	w.crash()
	w.start()
	w.report(Identity{}, says("a"))
	w.wantUncovered("host[0,1) [1,2) host[1,2)")
}

func TestSilenceScope(t *testing.T) {
	w := newWorld(t)
	w.report(Identity{Name: "ci", Scope: []string{"app/**"}}, Statement{Period: time.Minute, Complete: true})
	w.pass(time.Hour)
	for repo, want := range map[string]time.Duration{"app/web": 0, "lib/x": time.Hour} {
		if got := Covered(day0, w.clock.Now(), repo, w.l.Uncovered()); got != want {
			t.Errorf("%s is covered for %v, want %v", repo, got, want)
		}
	}
	// The gap belongs to the scope it had then.
	w.report(Identity{Name: "ci", Scope: []string{"lib/**"}}, Statement{Period: time.Minute, Complete: true})
	for repo, want := range map[string]time.Duration{"app/web": 0, "lib/x": time.Hour} {
		if got := Covered(day0, w.clock.Now(), repo, w.l.Uncovered()); got != want {
			t.Errorf("afterwards %s is covered for %v, want %v", repo, got, want)
		}
	}
}

func TestSilenceWhileDown(t *testing.T) {
	tests := []struct {
		name          string
		down, return_ time.Duration // how long Cairn was down, when the reporter came after it
		want          string
	}{
		{"a short restart", time.Minute, time.Minute, ""},
		{"the reporter comes back late", time.Minute, 59 * time.Minute, "host[1,2)"},
		{"a long one", 54 * time.Minute, 6 * time.Minute, "[1,1.9) host[1,2)"},
	}
	for _, tt := range tests {
		for _, clean := range []bool{true, false} {
			t.Run(fmt.Sprint(tt.name, " clean ", clean), func(t *testing.T) {
				w := newWorld(t)
				s := says("a")
				w.report(Identity{}, s)
				w.beats(s, time.Hour)
				w.pass(0)
				if clean {
					w.stop()
				} else {
					w.tick()
					if err := w.l.mark(w.ctx, false); err != nil { // the minute was just over
						t.Fatal(err)
					}
					w.crash()
				}
				w.clock.Advance(tt.down)
				w.start()
				w.pass(tt.return_)
				w.report(Identity{}, s)
				w.wantUncovered(tt.want)
			})
		}
	}
}

func TestForget(t *testing.T) {
	w := newWorld(t)
	if err := w.l.Forget(w.ctx, "host"); !errors.Is(err, ErrUnknownReporter) {
		t.Errorf("forget a stranger: %v", err)
	}
	w.report(Identity{}, says("a"))
	w.pass(time.Hour)
	w.wantUncovered("host[0,*)")
	w.report(Identity{}, says("b").called("x").partOf(1, 2))
	if err := w.l.Forget(w.ctx, "host"); err != nil {
		t.Fatal(err)
	}
	w.wantUncovered("host[0,1)")
	w.wantLast("a", "0")
	if w.l.pendings != 0 {
		t.Errorf("%d uses are still pending", w.l.pendings)
	}
	w.pass(time.Hour)
	w.wantUncovered("host[0,1)")
	if !w.l.EverEnrolled() {
		t.Error("EverEnrolled was forgotten, too")
	}
	w.stop()
	w.start()
	w.wantUncovered("host[0,1)")
	if len(w.l.Reporters()) != 0 || !w.l.EverEnrolled() {
		t.Errorf("after a restart: reporters %v, ever enrolled %v", w.l.Reporters(), w.l.EverEnrolled())
	}
	// It is welcome again, as a new one.
	if rc := w.report(Identity{}, says("a")); !rc.Enrolled {
		t.Error("it is not enrolled anew")
	}
	w.wantUncovered("host[0,1)")
	// One that speaks leaves no doubt behind.
	if err := w.l.Forget(w.ctx, "host"); err != nil {
		t.Fatal(err)
	}
	w.wantUncovered("host[0,1)")
	// One that was not heard since the start does.
	w.report(Identity{}, says("a"))
	w.stop()
	w.clock.Advance(time.Minute)
	w.start()
	if err := w.l.Forget(w.ctx, "host"); err != nil {
		t.Fatal(err)
	}
	w.wantUncovered("host[0,1) host[2,2.017)")
}

func TestShellWord(t *testing.T) {
	for name, want := range map[string]string{
		"agents/host-a.example:5": "agents/host-a.example:5",
		"my host":                 "-- 'my host'",
		"a'; rm -rf /":            `-- 'a'\''; rm -rf /'`,
		"-f":                      "-- '-f'",
		"höst":                    "-- 'höst'",
	} {
		if got := shellWord(name); got != want {
			t.Errorf("shellWord(%q) = %s, want %s", name, got, want)
		}
	}
}

func TestIntervals(t *testing.T) {
	w := newWorld(t)
	for _, bad := range []Interval{
		{Why: "no beginning"}, {From: h(0)}, {From: h(1), To: h(0), Why: "backwards"}, {From: h(0), Why: "no scope", Scope: []string{""}},
	} {
		if _, err := w.l.OpenInterval(w.ctx, bad); err == nil {
			t.Errorf("opened %+v", bad)
		}
	}
	id, err := w.l.OpenInterval(w.ctx, Interval{From: h(1), Why: "code scan is stale", Reporter: "scan", Scope: []string{"app/**"}, Cure: "cairn scan ."})
	if err != nil {
		t.Fatal(err)
	}
	w.crash() // it is stored
	w.start()
	w.wantUncovered("scan[1,*)")
	if err := w.l.CloseInterval(w.ctx, id, h(3)); err != nil {
		t.Fatal(err)
	}
	if err := w.l.CloseInterval(w.ctx, id, h(2)); err != nil { // never shortened
		t.Fatal(err)
	}
	id2, err := w.l.OpenInterval(w.ctx, Interval{From: h(5), Why: "another", Reporter: "x"})
	if err != nil || id2 == id {
		t.Fatalf("a second interval has the number %d, %v", id2, err)
	}
	if err := w.l.CloseInterval(w.ctx, id2, h(4)); err != nil { // never before it began
		t.Fatal(err)
	}
	if err := w.l.CloseInterval(w.ctx, 77, h(4)); err == nil {
		t.Error("closed an interval that is not known")
	}
	w.crash()
	w.start()
	w.wantUncovered("scan[1,3) x[5,5)")
	if got := w.l.Uncovered()[0]; got.ID != id || got.Why != "code scan is stale" || got.Cure != "cairn scan ." || got.Scope[0] != "app/**" {
		t.Errorf("it came back as %+v", got)
	}
}

func TestNotRunning(t *testing.T) {
	for _, tt := range []struct {
		down time.Duration
		want string
	}{{3 * time.Minute, ""}, {6 * time.Minute, "[1,1.1)"}, {365 * 24 * time.Hour, "[1,8761)"}} {
		for _, clean := range []bool{true, false} {
			w := newWorld(t)
			w.pass(time.Hour)
			if clean {
				w.stop()
			} else {
				w.crash()
			}
			w.clock.Advance(tt.down)
			w.start()
			w.wantUncovered(tt.want)
			w.crash() // it is stored
			w.start()
			w.wantUncovered(tt.want)
			if ok, why := w.l.ClockOK(); !ok {
				t.Errorf("clock: %s", why)
			}
		}
	}
}

const year = 365 * 24 * time.Hour

func TestClockJumpsForward(t *testing.T) {
	for _, tt := range []struct {
		by   time.Duration
		want string
	}{{59 * time.Second, ""}, {6 * time.Minute, "[1,1.1)"}, {year, "[1,8761)"}} {
		w := newWorld(t)
		w.l.Pull("app/web", dg("a"), "alice")
		w.pass(time.Hour)
		w.clock.Jump(tt.by)
		// Before any tick: whoever asks is told.
		w.wantUncovered(tt.want)
		if tt.want != "" {
			age := Covered(day0, w.clock.Now(), "app/web", w.l.Uncovered())
			if age != time.Hour {
				t.Errorf("after a jump by %v an image used an hour ago is %v old", tt.by, age)
			}
			if why := w.l.Uncovered()[0].Why; !strings.Contains(why, "the clock jumped forward by "+short(tt.by)) {
				t.Errorf("why: %q", why)
			}
		}
		if ok, why := w.l.ClockOK(); !ok {
			t.Errorf("clock: %s", why)
		}
		w.pass(time.Hour)
		w.wantUncovered(tt.want)
	}
}

func TestClockSetBack(t *testing.T) {
	w := newWorld(t)
	w.pass(time.Hour)
	w.clock.Jump(-4 * time.Minute)
	if ok, why := w.l.ClockOK(); !ok {
		t.Errorf("four minutes are too much: %s", why)
	}
	w.wantUncovered("")
	w.l.Pull("app/web", dg("small"), "alice")
	w.wantLast("small", "1") // not in the past
	w.pass(5 * time.Minute)

	w.clock.Jump(-year)
	ok, why := w.l.ClockOK()
	if ok || !strings.Contains(why, "2025-11-22 01:01:00 UTC") || !strings.Contains(why, "2026-11-22 01:01:00 UTC") {
		t.Errorf("a year back: %v, %s", ok, why)
	}
	w.wantUncovered("[1.017,*)")
	w.l.Pull("app/web", dg("a"), "alice")
	w.report(Identity{}, says("b"))
	w.wantLast("a", hours(h(61. / 60))[:1]+fmt.Sprint(61. / 60)[1:])
	w.pass(59 * time.Minute)
	w.tick()
	// Restarts do not help.
	w.crash()
	w.start()
	if ok, _ := w.l.ClockOK(); ok {
		t.Error("a restart made the clock good")
	}
	w.report(Identity{}, says("b"))
	w.stop()
	w.start()
	if ok, _ := w.l.ClockOK(); ok {
		t.Error("a clean restart made the clock good")
	}
	w.report(Identity{}, says("b"))
	// Somebody sets it right.
	w.clock.Jump(year)
	if ok, why := w.l.ClockOK(); !ok {
		t.Errorf("clock: %s", why)
	}
	w.wantUncovered("[1.017,2)")
	// What was used meanwhile does not look a year old.
	if age := Covered(w.l.Uses(dg("a"))[0].At, w.clock.Now(), "app/web", w.l.Uncovered()); age != 0 {
		t.Errorf("what was used while the clock was behind is %v old", age)
	}
	w.report(Identity{}, says("b"))
	w.beats(says("b"), time.Hour)
	w.wantUncovered("[1.017,2)")
	w.stop()
	w.start()
	w.report(Identity{}, says("b"))
	w.wantUncovered("[1.017,2)")
}

func TestClockWasAheadAndIsTrusted(t *testing.T) {
	w := newWorld(t)
	w.report(Identity{}, says("b"))
	w.clock.Jump(year)
	w.l.Pull("app/web", dg("a"), "alice")
	w.report(Identity{}, says("b"))
	w.tick()
	w.clock.Jump(-year)
	if ok, _ := w.l.ClockOK(); ok {
		t.Fatal("the clock is good")
	}
	w.pass(time.Hour)
	w.report(Identity{}, says("b"))
	if err := w.l.TrustClock(w.ctx); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		if ok, why := w.l.ClockOK(); !ok {
			t.Errorf("clock: %s", why)
		}
		w.wantLast("a", "1") // a later use than now becomes one of now
		for _, i := range w.l.Uncovered() {
			if i.To.After(h(1.1)) {
				t.Errorf("doubt reaches beyond now: %v", i)
			}
		}
	}
	check()
	w.stop()
	w.start()
	check()
}

func TestClockJumpWhileDown(t *testing.T) {
	w := newWorld(t)
	w.l.Pull("app/web", dg("a"), "alice")
	w.pass(time.Hour)
	w.stop()
	w.clock.Jump(-year)
	w.start()
	if ok, _ := w.l.ClockOK(); ok {
		t.Error("a clock a year behind is good")
	}
	w.wantUncovered("[1,*)")
	// It was a machine without a battery: the right time comes from outside.
	w.clock.Jump(year + time.Hour)
	w.wantUncovered("[1,2)")
	if got := Covered(day0, w.clock.Now(), "app/web", w.l.Uncovered()); got != time.Hour {
		t.Errorf("covered for %v, want the hour before", got)
	}
}

// A reporter that never stopped is silent on no clock but the wrong one.
func TestSilenceByEitherClock(t *testing.T) {
	w := newWorld(t)
	w.report(Identity{}, says("a"))
	w.clock.Advance(30 * time.Second)
	w.clock.Jump(-2 * time.Minute) // hides the time that passes
	w.clock.Advance(3 * time.Minute)
	if got := w.l.Reporters()[0]; !got.Silent {
		t.Error("a step back of the clock hid the silence")
	}
}
