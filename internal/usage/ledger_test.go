package usage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

func TestPull(t *testing.T) {
	w := newWorld(t)
	w.l.Pull("app/web", dg("a"), "alice")
	w.clock.Advance(time.Hour)
	w.l.Pull("app/web", dg("a"), "bob")
	w.l.Pull("app/api", dg("a"), "bob")
	w.clock.Advance(time.Hour)
	w.l.Pull("app/web", dg("a"), "alice")
	w.l.Pull("app/web", dg("b"), "")
	w.l.Pull("app/web", "", "nobody") // must not panic

	want := []Use{
		{Digest: dg("a"), Repository: "app/web", Source: Pull, Subject: "alice", At: h(2)},
		{Digest: dg("a"), Repository: "app/api", Source: Pull, Subject: "bob", At: h(1)},
		{Digest: dg("a"), Repository: "app/web", Source: Pull, Subject: "bob", At: h(1)},
	}
	if got := w.l.Uses(dg("a")); !reflect.DeepEqual(got, want) {
		t.Errorf("Uses = %v\nwant %v", got, want)
	}
	check := func(wants map[string]Use) {
		t.Helper()
		for repo, want := range wants {
			anywhere, here := w.l.LastUse(dg("a"), repo)
			if anywhere.Subject != "alice" || here != want {
				t.Errorf("LastUse in %q = %v, %v, want here %v", repo, anywhere, here, want)
			}
		}
	}
	check(map[string]Use{"app/web": want[0], "app/api": want[1], "app/other": {}, "": {}})
	any := Use{Digest: dg("a"), Source: Run, Subject: "job", At: h(1.5)}
	w.report(Identity{Name: "ci"}, Statement{Uses: []Use{any}})
	check(map[string]Use{"app/web": want[0], "app/api": any, "app/other": any, "": any})
	if a, h := w.l.LastUse(dg("stranger"), "app/web"); a != (Use{}) || h != (Use{}) {
		t.Errorf("a digest nobody used has %v, %v", a, h)
	}
	if got := w.l.Uses(dg("stranger")); got != nil {
		t.Errorf("a digest nobody used has %v", got)
	}
}

func TestCleanStop(t *testing.T) {
	w := newWorld(t)
	w.l.Pull("app/web", dg("a"), "alice")
	w.tick()
	w.clock.Advance(17 * time.Minute) // too little to be written by itself
	w.l.Pull("app/web", dg("a"), "alice")
	w.tick()
	w.report(Identity{Name: "host", Scope: []string{"app/**"}}, Statement{Period: time.Minute, Complete: true, Uses: []Use{use("b", Container, "host/b")}})
	if _, err := w.l.OpenInterval(w.ctx, Interval{From: h(-2), To: h(-1), Why: "a backup was restored", Cure: "none"}); err != nil {
		t.Fatal(err)
	}
	uses, reporters, uncovered := w.l.Uses(dg("a")), w.l.Reporters(), w.l.Uncovered()
	w.stop()
	w.clock.Advance(30 * time.Second)
	w.start()
	if got := w.l.Uses(dg("a")); !reflect.DeepEqual(got, uses) {
		t.Errorf("uses were %v, are %v", uses, got)
	}
	w.wantLast("b", fmt.Sprint(17.0/60)) // not in force until it is said again
	reporters[0].Silent, reporters[0].Digests = true, 0
	if got := w.l.Reporters(); !reflect.DeepEqual(got, reporters) {
		t.Errorf("reporters were %v, are %v", reporters, got)
	}
	if !w.l.EverEnrolled() {
		t.Error("it was forgotten that a reporter was enrolled")
	}
	got := w.l.Uncovered()
	if len(got) != 2 || !reflect.DeepEqual(got[:1], uncovered) {
		t.Errorf("intervals were %v, are %v", uncovered, got)
	}
	if len(got) == 2 && (got[1].Reporter != "host" || !got[1].To.IsZero() || !strings.Contains(got[1].Why, "not been heard since Cairn started")) {
		t.Errorf("the reporter that was not heard since the start opens %+v", got[1])
	}
}

func TestUncleanStop(t *testing.T) {
	w := newWorld(t)
	w.l.Pull("app/web", dg("a"), "alice")
	w.pass(3 * time.Hour)
	w.l.Pull("app/web", dg("late"), "alice")
	w.tick()
	w.pass(time.Minute) // the alive mark
	w.crash()
	w.start()
	w.wantLast("a", "1")                    // stored at 0, and perhaps used until 1
	w.wantLast("late", fmt.Sprint(181./60)) // but not after the start that found it

	// Another crash does not add another hour, nor does a clean stop take the
	// doubt away.
	w.pass(2 * time.Hour)
	w.crash()
	w.start()
	w.wantLast("a", "1")
	w.wantLast("late", "4")
	w.pass(2 * time.Hour)
	w.stop()
	w.start()
	w.wantLast("a", "1")
	w.wantLast("late", "4")

	// A use since then is exact again after a clean stop.
	w.pass(time.Hour)
	w.l.Pull("app/web", dg("a"), "alice")
	want := w.last("a")
	w.stop()
	w.start()
	w.wantLast("a", want)
}

func TestUncleanStopUsesTheGranularityOfThen(t *testing.T) {
	w := newWorld(t)
	w.stop()
	w.cfg.Granularity = 2 * time.Hour
	w.start()
	w.l.Pull("app/web", dg("a"), "alice")
	w.pass(3 * time.Hour)
	w.crash()
	w.cfg.Granularity = 6 * time.Minute
	w.start()
	w.wantLast("a", "2")
	// It counts for what has not been used since, after a later crash, too.
	w.crash()
	w.start()
	w.wantLast("a", "2")
}

func TestRecencyIsWrittenRarely(t *testing.T) {
	w := newWorld(t)
	const images = 20 // each is due at another time
	writes, before := 0, map[int64]int64{}
	for range 10 * 60 { // ten hours, a pull of each every minute
		for i := range images {
			w.l.Pull("app/web", dg(fmt.Sprint(i)), "alice")
		}
		w.tick()
		for id := int64(1); id <= images; id++ {
			now := w.inDB("SELECT last FROM use WHERE id = ?", id)
			if now != before[id] {
				writes, before[id] = writes+1, now
			}
			if behind := w.clock.Now().UnixMilli() - now; behind >= time.Hour.Milliseconds() {
				t.Fatalf("the stored time is %v behind, not less than the granularity", time.Duration(behind)*time.Millisecond)
			}
		}
		w.clock.Advance(time.Minute)
	}
	if writes < 10*images || writes > 21*images {
		t.Errorf("%d writes of %d images in ten hours, want between one and two an hour of each", writes, images)
	}
	if n := w.inDB("SELECT count(*) FROM use"); n != images {
		t.Errorf("%d rows", n)
	}
}

func TestManyRowsSurvive(t *testing.T) {
	w := newWorld(t)
	const n = 2 * loadPage / 10 * 11
	for i := range n {
		w.l.Pull(fmt.Sprint("app/r", i%7), dg(fmt.Sprint("d", i%5000)), fmt.Sprint("s", i/5000))
	}
	want := w.l.Uses(dg("d77"))
	w.stop()
	w.start()
	if st := w.l.Stats(); st.Uses != n || st.Digests != 5000 {
		t.Fatalf("%+v, want %d uses of 5000 digests", st, n)
	}
	if got := w.l.Uses(dg("d77")); !reflect.DeepEqual(got, want) {
		t.Errorf("uses were %v, are %v", want, got)
	}
	if n := w.inDB("SELECT count(*) FROM digest"); n != 5000 {
		t.Errorf("%d digests are stored, want 5000", n)
	}
	// Numbers go on where they stopped.
	w.l.Pull("app/new", dg("new"), "newcomer")
	w.stop()
	w.start()
	if got := w.l.Uses(dg("new")); len(got) != 1 || got[0].Subject != "newcomer" || got[0].Repository != "app/new" {
		t.Errorf("the new one is %v", got)
	}
	if got := w.l.Uses(dg("d77")); !reflect.DeepEqual(got, want) {
		t.Errorf("uses were %v, are %v", want, got)
	}
}

func TestDatabaseFails(t *testing.T) {
	w := newWorld(t)
	w.report(Identity{}, Statement{Reporter: "host", Period: time.Minute, Complete: true})
	w.db.Close()
	w.l.Pull("app/web", dg("a"), "alice")
	w.tick()
	w.wantLast("a", "0")
	if !w.l.Stats().Failing {
		t.Error("Stats does not say that the ledger cannot be written")
	}
	// What repeats itself is accepted, what is said once is not.
	w.report(Identity{}, Statement{Reporter: "host", Period: time.Minute, Complete: true, Uses: []Use{use("b", Container, "x")}})
	w.wantLast("b", "0!")
	if _, err := w.l.Report(w.ctx, Identity{Name: "ci"}, Statement{Uses: []Use{use("c", Run, "job")}}); err == nil {
		t.Error("a dated use was acknowledged that is not stored")
	}
	if _, err := w.l.Report(w.ctx, Identity{}, Statement{Reporter: "host2", Period: time.Minute, Complete: true}); err == nil {
		t.Error("a reporter was enrolled that is not stored")
	}
	if _, err := w.l.Report(w.ctx, Identity{}, Statement{Reporter: "host2", Period: time.Minute, Complete: true}); err == nil {
		t.Error("a reporter was accepted the second time although it is not stored")
	}
	// When it works again, everything is written.
	var err error
	if w.db, err = db.Open(w.ctx, db.Config{Path: w.path, Sync: db.Normal, Schema: Schema, Readers: 1}); err != nil {
		t.Fatal(err)
	}
	w.l.db = w.db
	w.clock.Advance(time.Minute)
	w.tick()
	if w.l.Stats().Failing {
		t.Error("Stats still says that the ledger cannot be written")
	}
	if n := w.inDB("SELECT count(*) FROM use"); n != 3 {
		t.Errorf("%d uses are stored, want 3", n)
	}
	w.crash()
	w.start()
	if got := w.l.Reporters(); len(got) != 2 {
		t.Errorf("reporters: %v", got)
	}
}

func TestLedgerFull(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxRows = 3
	w.crash()
	w.start()
	for i := range 3 {
		w.l.Pull("app/web", dg("a"), fmt.Sprint("s", i))
	}
	s := Statement{Reporter: "host", Period: time.Minute, Complete: true, Uses: []Use{use("b", Container, "x")}}
	if _, err := w.l.Report(w.ctx, Identity{}, s); err == nil || !strings.Contains(err.Error(), "uses[0]: the ledger is full") {
		t.Errorf("a report to a full ledger: %v", err)
	}
	if len(w.l.Reporters()) != 0 {
		t.Error("its reporter was enrolled")
	}
	// A pull is never lost: its subject is.
	w.l.Pull("app/web", dg("c"), "s")
	w.l.Pull("app/web", dg("c"), "t")
	if got := w.l.Uses(dg("c")); len(got) != 1 || got[0].Subject != "" {
		t.Errorf("pulls beyond the bound: %v", got)
	}
	// What is there already goes on.
	w.clock.Advance(time.Hour)
	w.l.Pull("app/web", dg("a"), "s1")
	w.wantLast("a", "1")
}

func TestChanged(t *testing.T) {
	w := newWorld(t)
	names := func(since uint64) ([]image.Digest, uint64) {
		ds, next, all := w.l.Changed(since)
		if all {
			t.Fatal("too many")
		}
		slices.Sort(ds)
		return slices.Compact(ds), next
	}
	w.l.Pull("app/web", dg("a"), "alice")
	w.report(Identity{}, Statement{Reporter: "host", Period: time.Minute, Complete: true, Statement: "1", Uses: []Use{use("b", Container, "x")}})
	got, next := names(0)
	if !slices.Equal(got, []image.Digest{dg("a"), dg("b")}) {
		t.Errorf("changed: %v", got)
	}
	w.clock.Advance(time.Minute)
	w.l.Pull("app/web", dg("a"), "alice")
	w.report(Identity{}, Statement{Reporter: "host", Period: time.Minute, SameAs: "1"})
	if got, _ := names(next); len(got) != 0 {
		t.Errorf("changed by a repetition: %v", got)
	}
	w.clock.Advance(time.Hour)
	w.l.Pull("app/web", dg("a"), "alice")
	if got, _ := names(next); !slices.Equal(got, []image.Digest{dg("a")}) {
		t.Errorf("changed by a pull after an hour: %v", got)
	}
	for i := range feedSize + 1 {
		w.l.Pull("app/web", dg(fmt.Sprint(i)), "alice")
	}
	_, end, all := w.l.Changed(next)
	if !all {
		t.Error("more digests changed than are remembered, and nothing says so")
	}
	if ds, _, all := w.l.Changed(end); all || len(ds) != 0 {
		t.Errorf("nothing changed since: %v, %v", ds, all)
	}
	if _, _, all := w.l.Changed(end + 1); !all {
		t.Error("a number of another process was taken for one of this")
	}
}

func TestPrune(t *testing.T) {
	w := newWorld(t)
	w.l.Pull("app/web", dg("old"), "alice")
	w.l.Pull("app/web", dg("used"), "alice")
	w.report(Identity{}, Statement{Reporter: "host", Period: time.Hour, Complete: true, Statement: "1", Uses: []Use{use("held", Container, "x")}})
	if _, err := w.l.OpenInterval(w.ctx, Interval{From: h(-2), To: h(-1), Why: "long ago"}); err != nil {
		t.Fatal(err)
	}
	w.tick()
	day := 24 * time.Hour
	restate := func() {
		w.clock.Advance(day)
		w.report(Identity{}, Statement{Reporter: "host", Period: time.Hour, SameAs: "1"})
		w.tick()
	}
	// Every gap of a day is uncovered, so that nothing grows old.
	for range 500 {
		restate()
	}
	w.wantLast("old", "0")
	// Once it is gone, time counts.
	if err := w.l.Forget(w.ctx, "host"); err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(200 * day)
	w.l.Pull("app/web", dg("used"), "alice")
	w.tick()
	w.clock.Advance(201 * day)
	w.tick()
	w.wantLast("old", "")
	w.wantLast("held", "")
	if w.last("used") == "" {
		t.Error("what was used 201 days ago was forgotten")
	}
	if n := w.inDB("SELECT count(*) FROM use"); n != 1 {
		t.Errorf("%d rows are stored, want 1", n)
	}
	if n := w.inDB("SELECT count(*) FROM digest"); n != 1 {
		t.Errorf("%d digests are stored, want 1", n)
	}
	if got := w.l.Uncovered(); len(got) != 0 {
		t.Errorf("%d intervals of long ago remain", len(got))
	}
	if n := w.inDB("SELECT count(*) FROM uncovered"); n != 0 {
		t.Errorf("%d intervals are stored, want 0", n)
	}
	names := w.inDB("SELECT count(*) FROM name") // app/web, alice, x
	// Their places are used again, and survive.
	w.l.Pull("app/web", dg("fresh"), "alice")
	w.l.Pull("app/web", dg("old"), "alice")
	want := w.last("old")
	w.stop()
	w.start()
	w.wantLast("old", want)
	w.wantLast("fresh", want)
	if n := w.inDB("SELECT count(*) FROM name"); names != 3 || n != 2 {
		t.Errorf("%d names were stored, %d after a restart; want 3 and 2", names, n)
	}
	if st := w.l.Stats(); st.Uses != 3 || st.Digests != 3 {
		t.Errorf("%+v, want 3 uses of 3 digests", st)
	}
}

func TestPruneKeepsWhatIsInForce(t *testing.T) {
	w := newWorld(t)
	// Its silence says nothing of images elsewhere, but its statement does.
	w.report(Identity{Name: "ci", Scope: []string{"app/**"}}, Statement{Period: time.Hour, Complete: true, Uses: []Use{use("a", Container, "x")}})
	w.l.Pull("lib/x", dg("b"), "alice")
	w.clock.Advance(500 * 24 * time.Hour)
	w.tick()
	w.wantLast("a", "0!")
	w.wantLast("b", "")
}

func TestCompact(t *testing.T) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(1, 4))
	var uncovered []Interval
	for i := range 1500 {
		from := float64(rnd.IntN(3000))
		in := iv(from, from+float64(rnd.IntN(3)), []string{"app/**", "lib/**", "**"}[i%3])
		in.Why = "some reason"
		if i%100 == 0 {
			in.To = time.Time{}
			in.From = h(2900)
		}
		uncovered = append(uncovered, in)
		w.l.mu.Lock()
		w.l.addInterval(in)
		w.l.mu.Unlock()
	}
	if err := w.l.flush(w.ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.l.compact(w.ctx); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got := w.l.Uncovered()
		if len(got) >= 1200 {
			t.Errorf("%d intervals remain of 1500", len(got))
		}
		for _, repo := range []string{"app/x", "lib/x", "other"} {
			for k := range 300 {
				now := h(float64(10 * k))
				if got, want := Covered(h(0), now, repo, got), Covered(h(0), now, repo, uncovered); got != want {
					t.Fatalf("%s at %v: covered for %v, was %v before", repo, now, got, want)
				}
			}
		}
		w.stop()
		w.start()
	}
}

func TestRunEnds(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan error)
	go func() { done <- w.l.Run(ctx) }()
	w.l.Pull("app/web", dg("a"), "alice")
	for w.inDB("SELECT count(*) FROM use") == 0 {
		w.clock.Advance(tickEvery)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := w.l.Close(); err != nil {
		t.Error(err)
	}
	if err := w.l.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

// TestConcurrent is for the race detector, and checks that nothing is lost.
func TestConcurrent(t *testing.T) {
	w := newWorld(t)
	const workers, rounds = 4, 25
	var wg sync.WaitGroup
	for k := range workers {
		wg.Go(func() {
			for i := range rounds {
				w.l.Pull("app/web", dg(fmt.Sprint("p", i)), fmt.Sprint("s", k))
				w.l.LastUse(dg(fmt.Sprint("p", i)), "app/web")
				w.l.Uses(dg("shared"))
			}
		})
		wg.Go(func() {
			for i := range rounds {
				name := fmt.Sprint("host", k%2) // two speak for one
				s := Statement{Reporter: name, Period: time.Minute, Complete: true, Statement: fmt.Sprint(k, "-", i), Uses: []Use{use("shared", Container, "x"), use(fmt.Sprint("c", k, i), Container, name)}}
				if _, err := w.l.Report(w.ctx, Identity{}, s); err != nil {
					t.Error(err)
				}
				_, _ = w.l.Report(w.ctx, Identity{}, Statement{Reporter: name, Period: time.Minute, SameAs: s.Statement})
			}
		})
	}
	wg.Go(func() {
		for range rounds {
			w.l.Uncovered()
			w.l.Reporters()
			w.l.ClockOK()
			w.l.Changed(0)
			w.clock.Advance(time.Second)
			w.tick()
		}
	})
	wg.Go(func() {
		for range rounds {
			_ = w.l.Forget(w.ctx, "host1")
		}
	})
	wg.Wait()
	for i := range rounds {
		if got := len(w.l.Uses(dg(fmt.Sprint("p", i)))); got != workers {
			t.Errorf("p%d has %d uses, want %d", i, got, workers)
		}
	}
	_ = w.l.Forget(w.ctx, "host0")
	_ = w.l.Forget(w.ctx, "host1")
	for i := range w.l.shards {
		for _, r := range w.l.shards[i].rows {
			if r.now != 0 {
				t.Errorf("a row is held %d times by nobody", r.now)
			}
		}
	}
	if w.l.pendings != 0 {
		t.Errorf("%d uses of unfinished statements are counted, and there is none", w.l.pendings)
	}
}
