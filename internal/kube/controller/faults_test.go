package controller

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/kube/crd"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// runs is a work server that keeps what it is told.
type runs struct {
	mu        sync.Mutex
	keyed     map[string]string
	info      map[string]*work.Info
	canceled  []string
	schedules map[string]work.ScheduleInfo
	looked    func() // called after schedules were listed
	gets      int
}

func newRuns() *runs {
	return &runs{keyed: map[string]string{}, info: map[string]*work.Info{}, schedules: map[string]work.ScheduleInfo{}}
}

func (s *runs) Submit(_ context.Context, _ *workflow.Graph, _ string, o work.Options) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := s.keyed[o.Key]; id != "" {
		return id, nil
	}
	id := fmt.Sprint("r", len(s.info)+1)
	s.keyed[o.Key] = id
	s.info[id] = &work.Info{ID: id, Namespace: o.Namespace, Name: o.Name, Phase: machine.Running, Created: time.Unix(1000, 0)}
	return id, nil
}

func (s *runs) Get(_ context.Context, id string) (work.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	if i := s.info[id]; i != nil {
		return *i, nil
	}
	return work.Info{}, work.ErrNotFound
}

func (s *runs) Nodes(context.Context, string, string, string, int, machine.Filter) ([]machine.View, bool, error) {
	return nil, false, nil
}

func (s *runs) Live(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info[id] != nil && !s.info[id].Phase.Ended()
}

func (s *runs) Find(_ context.Context, key string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := s.keyed[key]; id != "" {
		return id, nil
	}
	return "", work.ErrNotFound
}

func (s *runs) Keyed(_ context.Context, prefix string) (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]string{}
	for k, id := range s.keyed {
		if strings.HasPrefix(k, prefix) && !s.info[id].Phase.Ended() {
			out[k] = id
		}
	}
	return out, nil
}

func (s *runs) Cancel(_ context.Context, id, _ string, _ bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.canceled = append(s.canceled, id)
	s.info[id].Phase, s.info[id].Ended = machine.Canceled, time.Unix(2000, 0)
	return nil
}

func (s *runs) Suspend(context.Context, string) error { return nil }
func (s *runs) Resume(context.Context, string, string, map[string]workflow.Value, bool, string) error {
	return nil
}

func (s *runs) PutSchedule(_ context.Context, x *workflow.Schedule, by, pool string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schedules[x.Namespace+"/"+x.Name] = work.ScheduleInfo{Namespace: x.Namespace, Name: x.Name, By: by, Pool: pool, Next: time.Unix(5000, 0)}
	return nil
}

func (s *runs) WithdrawSchedule(_ context.Context, namespace, name, by string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := namespace + "/" + name
	if x, ok := s.schedules[k]; !ok || x.By != by {
		return work.ErrNotFound
	}
	delete(s.schedules, k)
	return nil
}

func (s *runs) Schedules() []work.ScheduleInfo {
	s.mu.Lock()
	out := slices.Collect(maps.Values(s.schedules))
	s.mu.Unlock()
	if s.looked != nil {
		s.looked()
	}
	return out
}

func (s *runs) Runs(_ context.Context, f work.RunFilter, _ string, _ int) ([]work.Info, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var newest []work.Info
	for _, i := range s.info {
		if i.Schedule == f.Schedule && (newest == nil || newest[0].Created.Before(i.Created)) {
			newest = []work.Info{*i}
		}
	}
	return newest, "", nil
}

// stage is a controller between the two.
type stage struct {
	t     *testing.T
	api   *apiServer
	runs  *runs
	clock *clock.Fake
	c     *Controller
}

// newStage makes one that does not run yet.
func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, api: newAPIServer(t), runs: newRuns(), clock: clock.NewFake(time.Unix(3000, 0))}
	s.c = s.controller(s.runs, nil)
	return s
}

// controller is one more.
func (s *stage) controller(r *runs, log *slog.Logger) *Controller {
	s.t.Helper()
	c, err := New(Config{Cluster: "prod", REST: &rest.Config{Host: s.api.URL, QPS: 1000}, Rate: 10_000}, Deps{Server: r, Clock: s.clock, Log: log})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *stage) run() { s.start(s.c) }

func (s *stage) start(c *Controller) {
	ctx, end := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	s.t.Cleanup(func() { end(); <-done })
	s.until("all is looked at", func() bool { return c.Ready() == nil })
}

// until lets time pass until something has happened. What the processors do
// takes time that is not the clock's.
func (s *stage) until(what string, ok func() bool) {
	s.t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			s.t.Fatalf("it does not come to pass: %s", what)
		}
		s.clock.Advance(20 * time.Millisecond)
	}
}

// pass lets so much time pass.
func (s *stage) pass(d time.Duration) {
	for range int(d / (100 * time.Millisecond)) {
		s.clock.Advance(100 * time.Millisecond)
		time.Sleep(time.Millisecond)
	}
}

func (s *stage) phase(path, want string) {
	s.t.Helper()
	s.until(path+" is "+want, func() bool { return s.api.get(path, "status", "phase") == want })
}

func (s *stage) canceled() []string {
	s.runs.mu.Lock()
	defer s.runs.mu.Unlock()
	return slices.Clone(s.runs.canceled)
}

// When a definition goes, its objects went, whether or not each of them was
// heard of: what they asked for ends.
func TestDefinitionGoes(t *testing.T) {
	s := newStage(t)
	s.api.define(crd.Group, nil, "workflows")
	path, u := asked(crd.Group, "a", "u1", nil)
	s.api.put(path, u)
	s.run()
	s.phase(path, "Running")
	s.api.drop(definitionsPath + "/workflows." + crd.Group)
	s.until("its run is canceled", func() bool { return len(s.canceled()) == 1 })
}

// When Argo comes to a cluster, what is not labelled is Argo's from then on: two
// would run it otherwise.
func TestArgoComes(t *testing.T) {
	s := newStage(t)
	s.api.define(crd.ArgoGroup, map[string]any{crd.Minimal: "true"}, "workflows")
	theirs, u := asked(crd.ArgoGroup, "theirs", "u1", nil)
	s.api.put(theirs, u)
	ours, u := asked(crd.ArgoGroup, "ours", "u2", map[string]any{InstanceLabel: Instance})
	s.api.put(ours, u)
	s.run()
	s.phase(theirs, "Running")
	s.phase(ours, "Running")
	id, _ := s.api.get(theirs, "status", "cairn", "run").(string)
	s.api.define(crd.ArgoGroup, nil, "workflows")
	s.until("the run of what is Argo's now is canceled", func() bool { return len(s.canceled()) > 0 })
	s.pass(5 * time.Second)
	if got := s.canceled(); !slices.Equal(got, []string{id}) {
		t.Errorf("canceled %v, want %s alone", got, id)
	}
}

// An object that loses the label is not ours any more; one that gets it is.
func TestLabelComesAndGoes(t *testing.T) {
	s := newStage(t)
	s.api.define(crd.ArgoGroup, nil, "workflows")
	path, u := asked(crd.ArgoGroup, "a", "u1", nil)
	s.api.put(path, u)
	s.run()
	label := func(v any) {
		s.api.edit(path, func(o map[string]any) {
			o["metadata"].(map[string]any)["labels"] = map[string]any{InstanceLabel: v}
		})
	}
	label(Instance)
	s.phase(path, "Running")
	label("another")
	s.until("its run is canceled", func() bool { return len(s.canceled()) == 1 })
}

// Labels, ours among them, do not make it another workflow.
func TestLabelsAreNoChange(t *testing.T) {
	s := newStage(t)
	s.api.define(crd.ArgoGroup, map[string]any{crd.Minimal: "true"}, "workflows")
	path, u := asked(crd.ArgoGroup, "a", "u1", nil)
	s.api.put(path, u)
	s.run()
	s.phase(path, "Running")
	s.runs.mu.Lock()
	s.runs.info["r1"].Phase, s.runs.info["r1"].Ended = machine.Succeeded, time.Unix(2000, 0)
	s.runs.mu.Unlock()
	s.c.Changed("r1")
	s.phase(path, "Succeeded")
	if c := fmt.Sprint(s.api.get(path, "status", "cairn", "conditions")); strings.Contains(c, "Changed") {
		t.Errorf("nobody has changed it: %s", c)
	}
}

// A status that somebody erases, or writes over, is written again.
func TestStatusErased(t *testing.T) {
	s := newStage(t)
	s.api.define(crd.Group, nil, "workflows")
	path, u := asked(crd.Group, "a", "u1", nil)
	s.api.put(path, u)
	s.run()
	s.phase(path, "Running")
	s.pass(2 * time.Second)
	s.api.edit(path, func(o map[string]any) { delete(o, "status") })
	s.phase(path, "Running")
	s.pass(2 * time.Second)
	s.api.edit(path, func(o map[string]any) { o["status"].(map[string]any)["phase"] = "Succeeded" })
	s.phase(path, "Running")
	s.pass(10 * time.Second)
	s.api.mu.Lock()
	defer s.api.mu.Unlock()
	if s.api.patches > 6 {
		t.Errorf("%d patches for one run", s.api.patches)
	}
}

// An API server that takes a request and never answers it keeps no others
// waiting for ever.
func TestSilence(t *testing.T) {
	s := newStage(t)
	s.c.patience = 50 * time.Millisecond
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	s.api.odd = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/silent-") {
			<-over
			return true
		}
		return false
	}
	s.api.define(crd.Group, nil, "workflows")
	s.run()
	for i := range 10 { // more than there are workers
		path, u := asked(crd.Group, fmt.Sprint("silent-", i), fmt.Sprint("s", i), nil)
		s.api.put(path, u)
	}
	s.until("all have runs", func() bool { s.runs.mu.Lock(); defer s.runs.mu.Unlock(); return len(s.runs.info) == 10 })
	s.pass(2 * time.Second)
	path, u := asked(crd.Group, "a", "u1", nil)
	s.api.put(path, u)
	s.phase(path, "Running")
}

// What an object put that is gone is withdrawn, and not what another one put in
// its place while that was found out.
func TestScheduleMadeAgainWhileCleaning(t *testing.T) {
	s := newStage(t)
	s.runs.schedules["data/nightly"] = work.ScheduleInfo{Namespace: "data", Name: "nightly", By: s.c.key("data", "old")}
	s.runs.looked = func() {
		s.runs.mu.Lock()
		defer s.runs.mu.Unlock()
		s.runs.schedules["data/nightly"] = work.ScheduleInfo{Namespace: "data", Name: "nightly", By: s.c.key("data", "new")}
	}
	if err := s.c.cleanOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if by := s.runs.schedules["data/nightly"].By; by != s.c.key("data", "new") {
		t.Errorf("the schedule is now %q's", by)
	}
}

// A schedule that somebody deletes on the server, while its object is there, is
// put again.
func TestScheduleDeletedOnTheServer(t *testing.T) {
	s := newStage(t)
	s.api.define(crd.Group, nil, "cronworkflows")
	_, w := asked(crd.Group, "a", "u1", nil)
	path := "/apis/" + crd.Group + "/v1alpha1/cronworkflows/data/nightly"
	s.api.put(path, map[string]any{"apiVersion": crd.Group + "/v1alpha1", "kind": "CronWorkflow", "metadata": map[string]any{"name": "nightly", "namespace": "data", "uid": "u1", "generation": int64(1)},
		"spec": map[string]any{"schedules": "0 3 * * *", "workflow": w["spec"]}})
	s.run()
	put := func() bool { return len(s.runs.Schedules()) == 1 }
	s.until("it is put", put)
	s.until("that is told", func() bool { return s.api.get(path, "status", "nextScheduleTime") != nil })
	if err := s.runs.WithdrawSchedule(t.Context(), "data", "nightly", s.c.key("data", "u1")); err != nil {
		t.Fatal(err)
	}
	s.c.queue.add(ref{s.c.kindOf("cronworkflows." + crd.Group), "data", "nightly"}, 0)
	s.until("it is put again", put)
}

// Each run of a schedule is remembered until it has ended, and no longer.
func TestRunsOfSchedulesAreForgotten(t *testing.T) {
	s := newStage(t)
	r, rec := ref{s.c.kinds[5], "data", "nightly"}, &record{}
	for i := range 100 {
		id := fmt.Sprint("c", i)
		s.runs.info[id] = &work.Info{ID: id, Phase: machine.Running}
		s.c.belong(r, rec, id)
		if i != 50 { // which goes on
			s.runs.info[id].Phase = machine.Succeeded
		}
	}
	if _, ok := s.c.Owner("c50"); !ok {
		t.Error("nobody knows whose the run is that goes on")
	}
	if n := len(s.c.runs); n > 3 {
		t.Errorf("%d runs are remembered, of two that matter", n)
	}
	s.c.begin(r, rec, "")
	if n := len(s.c.runs); n != 0 {
		t.Errorf("%d runs are remembered of an object that is gone", n)
	}
}

// Many objects that have to wait for their turn are not looked at over and over.
func TestTurnsAreWaitedForInPeace(t *testing.T) {
	fake := clock.NewFake(time.Unix(0, 0))
	fake.Advance(time.Second)
	c := &Controller{d: Deps{Clock: fake}, brake: brake{every: time.Second / writesPerSecond, burst: writesAtOnce}}
	const many = 10_000
	next := make([]time.Duration, many)
	looks, left := 0, many
	for left > 0 && fake.Mono() < 20*time.Minute {
		for i := range next {
			if next[i] < 0 || next[i] > fake.Mono() {
				continue
			}
			looks++
			d := c.queued(&record{}, false)
			if next[i] = fake.Mono() + d; d == 0 {
				next[i], left = -1, left-1
			}
		}
		fake.Advance(10 * time.Millisecond)
	}
	if left > 0 || fake.Mono() > 6*time.Minute {
		t.Errorf("%d have not had a turn after %v", left, fake.Mono())
	}
	if looks > 15*many {
		t.Errorf("%d objects were looked at %d times", many, looks)
	}
}

// A kind whose status was written apart, and is not any more, gets one again.
func TestStatusApartNoLonger(t *testing.T) {
	s := newStage(t)
	s.api.define(crd.ArgoGroup, map[string]any{crd.Minimal: "true"}, "workflows")
	s.api.odd = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/status") {
			fail(w, http.StatusNotFound, "NotFound")
			return true
		}
		return false
	}
	s.run()
	s.c.mu.Lock()
	s.c.watches[s.c.kindOf("workflows."+crd.ArgoGroup)].separate = true
	s.c.mu.Unlock()
	path, u := asked(crd.ArgoGroup, "a", "u1", nil)
	s.api.put(path, u)
	s.phase(path, "Running")
}

// Two servers that look after one cluster, by mistake: that is said, and they do
// not write over each other without end, whether both run what comes or one
// finds what is the other's.
func TestTwoServers(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("late=", late), func(t *testing.T) {
			s := newStage(t)
			s.api.define(crd.Group, nil, "workflows")
			other := newRuns()
			other.info["theirs"] = &work.Info{} // so that runs have other names there
			var said lines
			log := slog.New(slog.NewTextHandler(&said, nil))
			s.c.log = log
			second := s.controller(other, log)
			taken := func(r *runs, n int) bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return len(r.info) >= n
			}
			s.api.odd = func(w http.ResponseWriter, r *http.Request) bool {
				if late || r.Method != http.MethodPatch || taken(s.runs, 1) && taken(other, 2) {
					return false
				}
				fail(w, http.StatusServiceUnavailable, "")
				return true
			}
			s.run()
			if !late {
				s.start(second)
			}
			path, u := asked(crd.Group, "a", "u1", nil)
			s.api.put(path, u)
			s.phase(path, "Running")
			if late {
				s.start(second)
			}
			for range 20 * 60 { // seconds
				s.clock.Advance(time.Second)
				time.Sleep(time.Millisecond)
			}
			s.api.mu.Lock()
			n := s.api.patches
			s.api.mu.Unlock()
			if n > 20 {
				t.Errorf("%d patches in twenty minutes", n)
			}
			if !late && !strings.Contains(said.String(), "another server looks after this cluster") {
				t.Errorf("it was not said: %s", said.String())
			}
		})
	}
}

// lines is what was logged.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
