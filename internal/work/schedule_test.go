package work_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

func TestNextTime(t *testing.T) {
	for _, c := range []struct{ cron, zone, after, want string }{
		{"0 3 * * *", "UTC", "2026-11-01T03:00:00Z", "2026-11-02T03:00:00Z"},
		{"0 3 * * *", "Europe/Berlin", "2026-11-01T03:00:00Z", "2026-11-02T02:00:00Z"},
		{"*/20 * * * *", "Europe/Berlin", "2026-11-01T03:05:00Z", "2026-11-01T03:20:00Z"},
		{"@daily", "Asia/Kolkata", "2026-11-01T00:00:00Z", "2026-11-01T18:30:00Z"},
		// The hour that is left out: as much later.
		{"30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:30:00Z"},
		{"30 2 * * *", "Europe/Berlin", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"},
		// The hour that comes twice: once.
		{"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", "2026-10-26T01:30:00Z"},
		// What comes every hour follows time.
		{"15 * * * *", "Europe/Berlin", "2026-10-25T00:15:00Z", "2026-10-25T01:15:00Z"},
		{"15 * * * *", "Europe/Berlin", "2026-10-25T01:15:00Z", "2026-10-25T02:15:00Z"},
		{"15 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", "2026-03-29T01:15:00Z"},
	} {
		zone, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		after, _ := time.Parse(time.RFC3339, c.after)
		got, err := work.NextTime(c.cron, zone, after)
		if err != nil || got.Format(time.RFC3339) != c.want {
			t.Errorf("%q in %s after %s: %s %v, want %s", c.cron, c.zone, c.after, got.Format(time.RFC3339), err, c.want)
		}
	}
}

func (r *rig) schedule(overlap string, late time.Duration, crons ...string) *workflow.Schedule {
	r.t.Helper()
	g := r.graphs.Add(worktest.Fan("nightly", 1))
	x := &workflow.Schedule{Name: "nightly", Namespace: "default", Crons: crons, Overlap: overlap, Late: late, Graph: g, Documents: []byte("nightly")}
	r.schedules["nightly"] = x
	if err := r.s.PutSchedule(r.t.Context(), x, "ann", ""); err != nil {
		r.t.Fatal(err)
	}
	return x
}

func (r *rig) runs() (live, all int) {
	r.t.Helper()
	out, _, err := r.s.Runs(r.t.Context(), work.RunFilter{Schedule: "default/nightly"}, "", 0)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, i := range out {
		if i.Ended.IsZero() {
			live++
		}
	}
	return live, len(out)
}

func TestSchedules(t *testing.T) {
	for _, c := range []struct {
		overlap    string
		live, runs int // after three times, of which nobody works on any
	}{{"allow", 3, 3}, {"forbid", 1, 1}, {"replace", 1, 3}} {
		t.Run(c.overlap, func(t *testing.T) {
			r := newRig(t, work.Config{})
			r.schedule(c.overlap, 0, "0 3 * * *")
			for _, d := range []time.Duration{3 * time.Hour, 24 * time.Hour, 24 * time.Hour} {
				r.pass(d)
			}
			if live, all := r.runs(); live != c.live || all != c.runs {
				t.Errorf("%d of %d runs go on, want %d of %d", live, all, c.live, c.runs)
			}
		})
	}
}

// Whatever is killed when, each time comes once: also one that came while nobody
// was there, as long as it is not too late, which is the newest only.
func TestScheduleThroughKills(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 7))
		r := newRig(t, work.Config{})
		begin := r.clock.Now()
		r.schedule("allow", 10*time.Minute, "* * * * *")
		want := map[time.Time]bool{}
		away, last := false, begin // last: up to here times were dealt with
		for range 60 {
			switch rng.IntN(4) {
			case 0:
				if !away {
					r.end()
				} else {
					r.start()
				}
				away = !away
			case 1:
				if !away {
					r.restart()
				}
			default:
				r.clock.Advance(time.Duration(rng.IntN(150_000)) * time.Millisecond)
			}
			if away {
				continue
			}
			r.settle()
			now := r.clock.Now()
			// Of those that passed while nobody looked the newest is made up for.
			if due := now.Truncate(time.Minute); due.After(last) {
				want[due] = true
				last = due
			}
		}
		if away {
			r.start()
			r.settle()
			if due := r.clock.Now().Truncate(time.Minute); due.After(last) && r.clock.Now().Sub(due) <= 10*time.Minute {
				want[due] = true
			}
		}
		if _, all := r.runs(); all != len(want) || all == 0 {
			t.Errorf("seed %d: %d runs, want %d", seed, all, len(want))
		}
		r.end()
	}
}

// While the server was away times went by: the newest is made up for, if it is
// not too late, and none comes twice.
func TestScheduleCatchesUp(t *testing.T) {
	for name, c := range map[string]struct {
		late, away time.Duration
		want       int
	}{
		"many missed":    {late: 24 * time.Hour, away: 80 * time.Hour, want: 1},
		"too late":       {late: time.Hour, away: 30 * time.Hour, want: 0},
		"late enough":    {late: 4 * time.Hour, away: 30 * time.Hour, want: 1},
		"nothing missed": {late: time.Hour, away: 2 * time.Hour, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, work.Config{})
			r.schedule("allow", c.late, "0 3 * * *")
			r.end()
			r.clock.Advance(c.away)
			r.start()
			r.settle()
			if _, all := r.runs(); all != c.want {
				t.Errorf("%d runs, want %d", all, c.want)
			}
			r.restart()
			r.settle()
			if _, all := r.runs(); all != c.want {
				t.Errorf("%d runs after another start, want %d", all, c.want)
			}
		})
	}
}

// lately is true when no run was due within a time, or there was none at all.
type lately time.Duration

func (l lately) String() string { return "lately" }

func (l lately) Eval(s workflow.Scope) (workflow.Value, error) {
	v, ok := s.Lookup("cronworkflow", "lastScheduledTime")
	if !ok {
		return true, nil
	}
	now, _ := s.Lookup("now")
	before, _ := time.Parse(time.RFC3339, v.(string))
	at, err := time.Parse(time.RFC3339, now.(string))
	return at.Sub(before) >= time.Duration(l), err
}

// Conditions see when the last run was due, and times at which none began are
// not it. A restart does not change that, nor does a schedule that is put again.
func TestScheduleConditionsSeeTheLastRun(t *testing.T) {
	r := newRig(t, work.Config{})
	x := r.schedule("allow", 0, "0 * * * *")
	x.When = lately(150 * time.Minute)
	if err := r.s.PutSchedule(t.Context(), x, "ann", ""); err != nil {
		t.Fatal(err)
	}
	if l := r.s.Schedules()[0].Last; !l.IsZero() {
		t.Errorf("before its first run: last %v", l)
	}
	var first time.Time
	for hour, want := range []int{1, 1, 1, 2, 2, 2, 3} {
		r.pass(time.Hour)
		last := r.s.Schedules()[0].Last
		if hour == 0 {
			first = last
		}
		if _, all := r.runs(); all != want || last.Sub(first) != time.Duration(want-1)*3*time.Hour {
			t.Errorf("after hour %d: %d runs, want %d; last %v", hour+1, all, want, last)
		}
		if hour == 1 {
			r.restart()
		}
	}
}

func TestSchedulesThatMakeNoSense(t *testing.T) {
	r := newRig(t, work.Config{})
	g := worktest.Fan("x", 1)
	for name, x := range map[string]*workflow.Schedule{
		"never comes": {Name: "x", Crons: []string{"0 0 30 2 *"}, Graph: g},
		"no times":    {Name: "x", Graph: g},
		"no zone":     {Name: "x", Crons: []string{"@daily"}, Timezone: "Europe/Atlantis", Graph: g},
		"no name":     {Crons: []string{"@daily"}, Graph: g},
		"no graph":    {Name: "x", Crons: []string{"@daily"}},
	} {
		if err := r.s.PutSchedule(t.Context(), x, "ann", ""); !errors.Is(err, work.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestImagesOfWorkAreInUse(t *testing.T) {
	r := newRig(t, work.Config{})
	uses := func() int {
		t.Helper()
		m, err := r.s.InUse(t.Context(), "app")
		if err != nil {
			t.Fatal(err)
		}
		return len(m)
	}
	if uses() != 0 {
		t.Error("something is in use before there is any work")
	}
	if m, err := r.s.InUse(t.Context(), "another"); err != nil || len(m) != 0 {
		t.Errorf("of another repository %v, %v is in use", m, err)
	}
	r.schedule("forbid", 0, "0 3 1 * *")
	if uses() != 1 {
		t.Error("what is scheduled is not in use")
	}
	r.restart()
	if uses() != 1 {
		t.Error("after a start what is scheduled is not in use")
	}
	id := r.submit(worktest.Fan("fan", 1))
	if err := r.s.WithdrawSchedule(t.Context(), "default", "nightly", "who did not put it"); !errors.Is(err, work.ErrNotFound) {
		t.Errorf("withdrawn by somebody else: %v", err)
	}
	by := r.s.Schedules()[0].By
	if err := r.s.WithdrawSchedule(t.Context(), "default", "nightly", by); err != nil {
		t.Fatal(err)
	}
	if n := len(r.s.Schedules()); n != 0 {
		t.Errorf("there are %d schedules", n)
	}
	if uses() != 1 {
		t.Error("what is queued is not in use")
	}
	if err := r.s.Cancel(t.Context(), id, "ann", true); err != nil {
		t.Fatal(err)
	}
	if uses() != 0 {
		t.Error("what has ended is in use")
	}
}

// names and digestOf know one repository of ours.
func names(string) []string { return []string{"app"} }

func digestOf(_ context.Context, repository, ref string) (image.Digest, error) {
	if repository != "app" {
		return "", work.ErrNotFound
	}
	return image.Digest("sha256:" + ref[len(ref)-64:]), nil
}
