package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

var day0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// place is a Source that tests set.
type place struct {
	mu   sync.Mutex
	snap Snapshot
	err  error
	seen func(...usage.Use)
}

func (p *place) Run(ctx context.Context, seen func(...usage.Use)) error {
	p.mu.Lock()
	p.seen = seen
	p.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

func (p *place) Snapshot(context.Context) (Snapshot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Snapshot{Uses: slices.Clone(p.snap.Uses), Wanted: slices.Clone(p.snap.Wanted)}, p.err
}

func (p *place) set(err error, wanted []Wanted, uses ...usage.Use) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.snap, p.err = Snapshot{Uses: uses, Wanted: wanted}, err
}

// sink is a server that tests set. It keeps what it took, as lines.
type sink struct {
	mu     sync.Mutex
	err    error
	known  map[string]bool // statements it could be asked to restate
	took   []string
	tags   map[string][]image.Digest
	tagErr error
	asked  int
}

func (s *sink) Report(_ context.Context, st usage.Statement) (usage.Receipt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return usage.Receipt{}, s.err
	}
	if st.SameAs != "" {
		if !s.known[st.SameAs] {
			return usage.Receipt{}, usage.ErrUnknownStatement
		}
		s.took = append(s.took, "same")
		return usage.Receipt{Applied: true}, nil
	}
	kind := "dated"
	switch {
	case st.Complete:
		kind = "all"
		s.known = map[string]bool{st.Statement: true}
	case st.Period > 0:
		kind = "some"
	}
	if st.Parts > 1 {
		kind += fmt.Sprintf(" %d/%d", st.Part, st.Parts)
	}
	if len(st.Uses) > 5 {
		s.took = append(s.took, fmt.Sprintf("%s: %d uses", kind, len(st.Uses)))
		return usage.Receipt{Applied: st.Part == st.Parts}, nil
	}
	line := kind + ":"
	for _, u := range st.Uses {
		line += " " + u.Subject
		if !u.At.IsZero() {
			line += "@" + u.At.Sub(day0).String()
		}
	}
	s.took = append(s.took, line)
	return usage.Receipt{Applied: st.Part == st.Parts}, nil
}

func (s *sink) Resolve(_ context.Context, refs []string) (map[string][]image.Digest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked += len(refs)
	return s.tags, s.tagErr
}

func (s *sink) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *sink) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = nil
}

// taken is what came since the last call.
func (s *sink) taken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := strings.Join(s.took, "\n")
	s.took = nil
	return out
}

type world struct {
	*testing.T
	clock *clock.Fake
	place *place
	sink  *sink
	agent *Agent
	stop  func()
}

// inWorld runs f beside an agent. Time stands still but for pass.
func inWorld(t *testing.T, change func(*Config), f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, clock: clock.NewFake(day0), place: &place{}, sink: &sink{}}
		cfg := Config{Reporter: "prod"}
		if change != nil {
			change(&cfg)
		}
		var err error
		// Half way of all that is random: a period of a minute is 54 s.
		w.agent, err = New(cfg, Deps{Source: w.place, Sink: w.sink, Clock: w.clock, Jitter: func() float64 { return 0.5 }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		w.stop = func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
			ended <- nil
		}
		w.place.set(nil, nil, running("a", "a"))
		go func() { ended <- w.agent.Run(ctx) }()
		synctest.Wait()
		f(w)
		w.stop()
	})
}

// pass lets time pass second by second.
func (w *world) pass(d time.Duration) {
	for ; d > 0; d -= 250 * time.Millisecond {
		w.clock.Advance(250 * time.Millisecond)
		synctest.Wait()
	}
}

func (w *world) want(lines ...string) {
	w.Helper()
	if got, want := w.sink.taken(), strings.Join(lines, "\n"); got != want {
		w.Errorf("the server took:\n%s\nwant:\n%s", got, want)
	}
}

func (w *world) start(digest string) {
	u := running(digest, digest)
	u.At = w.clock.Now()
	w.place.seen(u)
	synctest.Wait()
}

func TestSpeaksOnceAPeriod(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.want("all: a")
		w.pass(53 * time.Second)
		w.want()
		w.pass(2 * time.Second)
		w.want("same")
		w.place.set(nil, nil, running("a", "a"), running("b", "b"))
		w.pass(54 * time.Second)
		w.want("all: a b")
		w.place.set(nil, nil, running("b", "b"))
		w.pass(54 * time.Second)
		w.want("dated: a@1m48s", "all: b") // what is gone was there until then
		w.place.set(nil, nil)
		w.pass(54 * time.Second)
		w.want("dated: b@2m42s", "all:")
		if err := w.agent.Healthy(); err != nil {
			w.Error(err)
		}
	})
}

func TestStartsAreToldWithinASecond(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.want("all: a")
		w.pass(10 * time.Second)
		w.start("b")
		w.start("c")
		w.pass(time.Second)
		w.want("dated: b@10s c@10s")
		for range 300 { // one that restarts all the time is told each time, together
			w.start("b")
		}
		w.pass(time.Second)
		w.want("dated: b@11s")
	})
}

func TestServerRestarts(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.pass(time.Minute)
		w.want("all: a", "same")
		w.sink.forget()
		w.pass(time.Minute)
		w.want("all: a")
	})
}

func TestServerAwayForHours(t *testing.T) {
	inWorld(t, func(c *Config) { c.MaxSpool = 1000 }, func(w *world) {
		w.want("all: a")
		w.sink.fail(errors.New("connection refused"))
		w.pass(time.Hour)
		w.start("b") // runs for a moment
		w.pass(time.Hour)
		// c runs long enough to be seen by two looks, but no event tells of it.
		w.place.set(nil, nil, running("a", "a"), running("c", "c"))
		w.pass(5 * time.Minute)
		w.place.set(nil, nil, running("a", "a"))
		w.pass(time.Hour)
		w.want()
		if err := w.agent.Healthy(); err == nil || !strings.Contains(err.Error(), "connection refused") {
			w.Errorf("healthy: %v", err)
		}
		if n := w.agent.Status().Failures; n < 100 || n > 400 {
			w.Errorf("%d attempts in three hours", n)
		}
		w.sink.fail(nil)
		w.pass(time.Minute)
		got := strings.Split(w.sink.taken(), "\n")
		if len(got) < 2 || !strings.HasPrefix(got[0], "dated: b@1h0m0s c@2h") || got[1] != "same" {
			w.Errorf("the server took %q, want what ended meanwhile with its times, then that a goes on", got)
		}
		if err := w.agent.Healthy(); err != nil {
			w.Error(err)
		}
	})
}

func TestNotSureIsSilent(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.want("all: a")
		w.place.set(errors.New("no connection to the API server"), nil)
		w.pass(10 * time.Minute)
		w.want()
		if err := w.agent.Healthy(); err == nil || !strings.Contains(err.Error(), "no connection to the API server") {
			w.Errorf("healthy: %v", err)
		}
		w.start("b") // what happened is true all the same
		w.pass(time.Second)
		w.want("dated: b@10m0s")
		w.place.set(nil, nil, running("b", "b"))
		w.pass(10 * time.Second)
		got := strings.Split(w.sink.taken(), "\n")
		if len(got) != 2 || got[1] != "all: b" {
			w.Errorf("the server took %q", got)
		}
	})
}

func TestTags(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.want("all: a")
		w.sink.tagErr = errors.New("not now")
		w.place.set(nil, []Wanted{{"x:1", "job"}, {"x:2", "cron"}}, running("a", "a"))
		w.pass(time.Minute)
		w.want("some: a") // nothing goes out of force while x is not known
		w.sink.tagErr, w.sink.tags = nil, map[string][]image.Digest{"x:1": {dg("x")}}
		w.pass(time.Minute)
		w.want("all: a job")
		w.sink.asked = 0
		w.pass(3 * time.Minute)
		w.want("same", "same", "same")
		if w.sink.asked != 0 {
			w.Errorf("asked %d times for what it knows", w.sink.asked)
		}
		w.sink.tagErr = errors.New("not now") // what was known goes on
		w.pass(10 * time.Minute)
		for line := range strings.Lines(w.sink.taken()) {
			if strings.TrimSpace(line) != "same" {
				w.Errorf("took %q, want the same", line)
			}
		}
		if w.sink.asked == 0 {
			w.Error("never asked again")
		}
	})
}

func TestManyUsesComeInParts(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.want("all: a")
		var uses []usage.Use
		for i := range MaxPart*2 + 1 {
			uses = append(uses, running(fmt.Sprint(i%7), fmt.Sprint(i)))
		}
		w.place.set(nil, nil, uses...)
		w.pass(time.Minute)
		w.want("dated: a@0s", "all 1/3: 10000 uses", "all 2/3: 10000 uses", "all 3/3: 9995")
	})
}

func TestDated(t *testing.T) {
	inWorld(t, func(c *Config) { c.Dated = true }, func(w *world) {
		w.want("dated: a")
		w.pass(time.Minute)
		w.want("dated: a")
		w.place.set(nil, nil)
		w.pass(time.Minute)
		w.want("dated: a@54s")
		w.pass(time.Minute)
		w.want()
	})
}

func TestEndDeliversWhatWaits(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.want("all: a")
		w.start("b")
		w.stop()
		w.want("dated: b@0s")
	})
}

func TestSourceFails(t *testing.T) {
	a, err := New(Config{Reporter: "x"}, Deps{Source: failing{}, Sink: &sink{}, Clock: clock.NewFake(day0)})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no such socket") {
		t.Errorf("Run: %v", err)
	}
}

type failing struct{}

func (failing) Run(context.Context, func(...usage.Use)) error { return errors.New("no such socket") }
func (failing) Snapshot(context.Context) (Snapshot, error)    { return Snapshot{}, errors.New("not yet") }

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []Config{{}, {Reporter: "x", Period: time.Second}, {Reporter: "x", Period: 2 * time.Hour}} {
		if _, err := New(cfg, Deps{Clock: clock.NewFake(day0)}); err == nil {
			t.Errorf("New(%+v) succeeded", cfg)
		}
	}
}

func TestHandler(t *testing.T) {
	c := clock.NewFake(day0)
	a, err := New(Config{Reporter: "prod"}, Deps{Source: &place{}, Sink: &sink{}, Clock: c, Jitter: func() float64 { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		a.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	if code, _ := get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("ready before the first report: %d", code)
	}
	if err := a.state(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code, body := get("/readyz"); code != http.StatusOK {
		t.Errorf("readyz: %d %s", code, body)
	}
	c.Advance(time.Hour)
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "no report for 1h0m0s") {
		t.Errorf("readyz after an hour: %d %s", code, body)
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d: a restart would lose what waits", code)
	}
	if _, body := get("/metrics"); !strings.Contains(body, "\ncairn_agent_reports_total 1\n") {
		t.Errorf("metrics: %s", body)
	}
	if _, body := get("/status"); !strings.Contains(body, `"reporter":"prod"`) {
		t.Errorf("status: %s", body)
	}
}
