package dispatch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/kube/dispatch"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/worker/isolate"
	"cairn.dev/cairn/internal/workflow"
)

var secret = []byte("0123456789abcdef")

// leaf makes tasks by hand.
type leaf func(workflow.Scope) task.Task

func (l leaf) Render(s workflow.Scope) (*task.Task, error) { t := l(s); return &t, nil }
func (l leaf) Images() []string                            { return nil }

// rig is a work server and a dispatcher of one cluster, on a clock by hand.
type rig struct {
	t      *testing.T
	clock  *clock.Fake
	graphs worktest.Graphs
	path   string
	cfg    dispatch.Config
	http   func(context.Context, *task.HTTP, time.Duration) task.Outcome
	owner  func(string) (task.Owner, bool)

	s     *work.Server
	d     *dispatch.Dispatcher
	beats atomic.Int64 // of the dispatcher and of pods
	stop  func()
}

// heard is a server that counts beats.
type heard struct {
	*work.Server
	r *rig
}

func (h heard) Beat(ctx context.Context, b task.Beat) (task.Beaten, error) {
	defer h.r.beats.Add(1)
	return h.Server.Beat(ctx, b)
}

func newRig(t *testing.T, cfg dispatch.Config) *rig {
	t.Helper()
	return newRigWith(t, cfg, nil)
}

// newRigWith is one that makes requests.
func newRigWith(t *testing.T, cfg dispatch.Config, http func(context.Context, *task.HTTP, time.Duration) task.Outcome) *rig {
	t.Helper()
	cfg.Cluster, cfg.Secret = "prod", secret
	r := &rig{t: t, cfg: cfg, http: http, clock: clock.NewFake(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)), graphs: worktest.Graphs{}, path: filepath.Join(t.TempDir(), "work.db")}
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *rig) start() {
	r.t.Helper()
	d, err := db.Open(r.t.Context(), db.Config{Path: r.path, Sync: db.Full, Schema: work.Schema})
	if err != nil {
		r.t.Fatal(err)
	}
	if r.s, err = work.New(r.t.Context(), work.Config{Secret: secret}, work.Deps{DB: d, Clock: r.clock, Blobs: &worktest.Blobs{}, Compile: r.graphs.Compile,
		Ended: func(run string) { r.d.Ended(run) }}); err != nil {
		r.t.Fatal(err)
	}
	if r.d, err = dispatch.New(r.cfg, dispatch.Deps{Server: heard{r.s, r}, Clock: r.clock, HTTP: r.http, Owner: r.owner}); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.s.Run(ctx) })
	wg.Go(func() { _ = r.d.Run(ctx) })
	r.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		_ = d.Close()
	})
}

func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

// submit begins a run of n tasks.
func (r *rig) submit(name string, n int, l leaf) string {
	r.t.Helper()
	g := worktest.Fan(name, n)
	if l != nil {
		for _, t := range g.Templates {
			if t.Leaf != nil {
				t.Leaf = l
			}
		}
	}
	id, err := r.s.Submit(r.t.Context(), r.graphs.Add(g), "ann", work.Options{Pool: "cluster/prod"})
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// until waits for something that goroutines do without the clock.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for begin := time.Now(); !ok(); {
		if time.Since(begin) > 10*time.Second {
			all, _, _ := r.s.Runs(r.t.Context(), work.RunFilter{}, "", 0)
			r.t.Fatalf("%s does not happen: %+v\n%+v", what, r.d.Demand(), all)
		}
		runtime.Gosched()
	}
}

// tick is a second. Goroutines that wait for it have their turn: the clock is
// ours, the processors are not.
func (r *rig) tick() {
	before := r.clock.Waiting()
	r.clock.Advance(time.Second)
	for begin := time.Now(); r.clock.Waiting() < before && time.Since(begin) < 20*time.Millisecond; {
		time.Sleep(100 * time.Microsecond)
	}
	time.Sleep(2 * time.Millisecond)
}

// demand waits until there is some for the run, of so many queued tasks.
func (r *rig) demand(run string, queued int) (out dispatch.Demand) {
	r.t.Helper()
	r.until(fmt.Sprintf("a demand of %d tasks", queued), func() bool {
		for _, x := range r.d.Demand() {
			if x.Run == run && x.Queued == queued {
				out = x
				return true
			}
		}
		return false
	})
	return out
}

// tokensEnd is long after what the tests' clocks show.
var tokensEnd = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)

func claims(x dispatch.Demand) dispatch.Claims {
	return dispatch.Claims{Cluster: "prod", Namespace: x.Namespace, Run: x.Run, Class: x.Class, Expires: tokensEnd.Unix()}
}

func (r *rig) ask(x dispatch.Demand, pod string, want int, outcomes ...task.Outcome) task.Grant {
	r.t.Helper()
	g, err := r.d.Work(r.t.Context(), claims(x), task.Ask{Worker: pod, Want: want, Outcomes: outcomes})
	if err != nil {
		r.t.Fatal(err)
	}
	return g
}

func ok(l task.Lease) task.Outcome { return task.Outcome{Ref: l.Ref, Phase: task.Succeeded} }

func (r *rig) get(id string) work.Info {
	r.t.Helper()
	i, err := r.s.Get(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return i
}

// A run of any size is held here by a bounded number of tasks, and ends.
func TestBounded(t *testing.T) {
	r := newRig(t, dispatch.Config{Ahead: 20})
	id := r.submit("large", 1000, nil)
	x := r.demand(id, 20)
	done := 0
	for r.get(id).Ended.IsZero() {
		g := r.ask(x, "pod-1", 64)
		if len(g.Leases) > 20 {
			t.Fatalf("%d tasks were held, at most 20 may be", len(g.Leases))
		}
		var all []task.Outcome
		for _, l := range g.Leases {
			if l.Run != id || g.Bodies[l.Body].Image == "" {
				t.Fatalf("%+v", l)
			}
			all = append(all, ok(l))
		}
		done += len(all)
		if n := r.d.Demand(); len(n) > 0 && n[0].Queued > 20 {
			t.Fatalf("%+v", n)
		}
		r.ask(x, "pod-1", 0, all...)
	}
	if i := r.get(id); done != 1000 || i.Phase != machine.Succeeded || i.Counts.Crashes != 0 {
		t.Errorf("%d tasks: %+v", done, i)
	}
}

// A large run leaves room for others.
func TestRoomIsOfTheRun(t *testing.T) {
	r := newRig(t, dispatch.Config{Ahead: 10})
	big := r.submit("big", 1000, nil)
	r.demand(big, 10)
	small := r.submit("small", 3, nil)
	r.demand(small, 3)
}

// What a container has to be tells tasks apart, per item as well.
func TestShapesOfOneRun(t *testing.T) {
	r := newRig(t, dispatch.Config{})
	id := r.submit("images", 9, func(s workflow.Scope) task.Task {
		v, _ := s.Lookup("inputs", "parameters", "item")
		return task.Task{Image: []string{"a", "b", "c"}[int(fmt.Sprint(v)[0])%3]}
	})
	r.until("three shapes", func() bool {
		n := 0
		for _, x := range r.d.Demand() {
			if n += x.Queued; x.Run != id || x.Queued > 0 && x.Shape.Image == "" {
				t.Fatalf("%+v", x)
			}
		}
		return n == 9
	})
	seen := map[string]bool{}
	for _, x := range r.d.Demand() {
		for _, l := range r.ask(x, "pod-"+x.Class, 9).Leases {
			seen[l.Task] = true
		}
	}
	if len(seen) != 9 {
		t.Errorf("%d tasks were handed out, want 9", len(seen))
	}
}

// A pod for one task gets one, and leaves.
func TestSingle(t *testing.T) {
	r := newRig(t, dispatch.Config{})
	id := r.submit("single", 3, func(workflow.Scope) task.Task { return task.Task{Image: "a", Isolation: "pod"} })
	x := r.demand(id, 3)
	g := r.ask(x, "pod-1", 9)
	if len(g.Leases) != 1 || g.Drain {
		t.Fatalf("%+v", g)
	}
	if g := r.ask(x, "pod-1", 1, ok(g.Leases[0])); len(g.Leases) != 0 || !g.Drain {
		t.Errorf("it gets another one: %+v", g)
	}
	if g := r.ask(x, "pod-2", 1); len(g.Leases) != 1 {
		t.Errorf("another pod gets none: %+v", g)
	}
}

// A task that asks for the name of its pod has a pod of its own, and is told that
// one's name; who has it after that pod was lost is told another. Where stores
// know it, it goes by a name that no retry changes.
func TestPodName(t *testing.T) {
	r := newRig(t, dispatch.Config{})
	id := r.submit("named", 2, func(s workflow.Scope) task.Task {
		pod, _ := s.Lookup("pod", "name")
		name := fmt.Sprint(pod)
		return task.Task{Image: "a", Command: []string{"echo", name}, Inputs: []task.Input{{Name: "f", Path: "/f", Content: []byte(name)}},
			Outputs: []task.Output{{Name: "o", Kind: task.Artifact, Path: "/tmp/o", To: &task.Source{Kind: "s3", Key: name}}}}
	})
	x := r.demand(id, 2)
	if !x.Shape.Single() {
		t.Errorf("its pods are for many: %+v", x.Shape)
	}
	keys := map[string]bool{}
	for _, pod := range []string{"p-0-aaa", "p-1-bbb"} {
		g := r.ask(x, pod, 4)
		if len(g.Leases) != 1 {
			t.Fatalf("%s has %d tasks", pod, len(g.Leases))
		}
		if got := r.d.Place(id, g.Leases[0].Task); got != pod {
			t.Errorf("the task of %s is at %q", pod, got)
		}
		b := g.Bodies[g.Leases[0].Body]
		if o := g.Leases[0].Own; o != nil && o.Command != nil {
			b.Command = o.Command
		}
		if b.Command[1] != pod || string(b.Inputs[0].Content) != pod || b.Isolation != "pod" {
			t.Errorf("%s is told %+v", pod, b)
		}
		keys[b.Outputs[0].To.Key] = true
	}
	if len(keys) != 2 || keys["p-0-aaa"] {
		t.Errorf("stores know them as %v", keys)
	}
}

// Where a pod cannot keep tasks apart, each gets a pod of its own, and no
// outcome is told of what never ran.
func TestApart(t *testing.T) {
	r := newRig(t, dispatch.Config{})
	id := r.submit("apart", 5, nil)
	x := r.demand(id, 5)
	l := r.ask(x, "pod-1", 1).Leases[0]
	r.ask(x, "pod-1", 0, task.Outcome{Ref: l.Ref, Phase: task.Errored, Exit: -1, Message: isolate.NoneHere + ": overlay: the kernel says no"})
	y := r.demand(id, 5)
	if y.Class == x.Class || !y.Shape.Single() {
		t.Fatalf("%+v", y.Shape)
	}
	if g := r.ask(y, "pod-2", 5); len(g.Leases) != 1 || g.Bodies[0].Isolation != "pod" {
		t.Errorf("%+v", g)
	}
	if i := r.get(id); i.Counts.Failed != 0 || i.Counts.Crashes != 0 || i.Counts.Active != 5 {
		t.Errorf("%+v", i.Counts)
	}
	// Asked for by name it is an error of the task, as anywhere.
	id = r.submit("named", 1, func(workflow.Scope) task.Task { return task.Task{Image: "a", Isolation: "overlay"} })
	x = r.demand(id, 1)
	l = r.ask(x, "pod-3", 1).Leases[0]
	r.ask(x, "pod-3", 0, task.Outcome{Ref: l.Ref, Phase: task.Errored, Exit: -1, Message: "isolation overlay cannot be had here"})
	if i := r.get(id); i.Phase != machine.Errored {
		t.Errorf("%+v", i)
	}
}

// Pods share what waits.
func TestShare(t *testing.T) {
	r := newRig(t, dispatch.Config{})
	id := r.submit("fan", 8, nil)
	x := r.demand(id, 8)
	for i := range 4 {
		r.ask(x, fmt.Sprint("pod-", i), 0)
		if _, err := r.d.Beat(t.Context(), claims(x), task.Beat{Worker: fmt.Sprint("pod-", i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []int{2, 2, 1, 1} {
		if n := len(r.ask(x, fmt.Sprint("pod-", i), 64).Leases); n != want {
			t.Errorf("pod %d gets %d tasks of 8, want %d", i, n, want)
		}
	}
}

// What a pod has not begun is at hand for the next one.
func TestBack(t *testing.T) {
	r := newRig(t, dispatch.Config{})
	id := r.submit("fan", 3, nil)
	x := r.demand(id, 3)
	g := r.ask(x, "pod-1", 3)
	if _, err := r.d.Work(t.Context(), claims(x), task.Ask{Worker: "pod-1", Back: []task.Ref{g.Leases[1].Ref, g.Leases[2].Ref}}); err != nil {
		t.Fatal(err)
	}
	r.demand(id, 2)
	if n := len(r.ask(x, "pod-2", 3).Leases); n != 2 && n != 1 {
		t.Errorf("%d", n)
	}
	if i := r.get(id); i.Counts.Active != 3 {
		t.Errorf("%+v", i.Counts)
	}
}

// What a dead pod held goes to others, at nobody's expense but the crash
// budget's; what cannot start is an error in words.
func TestGoneAndFail(t *testing.T) {
	r := newRig(t, dispatch.Config{})
	id := r.submit("fan", 2, nil)
	x := r.demand(id, 2)
	old := r.ask(x, "pod-1", 2).Leases
	r.d.Gone(id, x.Class, "pod-1", "Evicted: the node was low on memory")
	r.until("the loss to be told", func() bool { return r.get(id).Counts.Crashes == 2 })
	r.until("lost tasks to have rested", func() bool {
		r.tick()
		all := r.d.Demand()
		return len(all) == 1 && all[0].Queued == 2
	})
	if g := r.ask(x, "pod-1", 0, ok(old[0])); len(g.Refused) != 1 {
		t.Errorf("an outcome of a pod that is gone is taken: %+v", g)
	}
	if i := r.get(id); i.Counts.Crashes != 2 || i.Counts.Retries != 0 {
		t.Errorf("%+v", i.Counts)
	}
	r.d.Fail(id, x.Class, "image x cannot be pulled", false)
	r.until("its end", func() bool { return !r.get(id).Ended.IsZero() })
	nodes, _, err := r.s.Nodes(t.Context(), id, "2", "", 0, machine.Filter{})
	if err != nil || len(nodes) != 2 || nodes[0].Phase != machine.Errored || nodes[0].Message != "image x cannot be pulled" {
		t.Errorf("%+v %v", nodes, err)
	}
}

// After a start nothing is known but what pods say: they keep what they have,
// and the rest is given back without being spent.
func TestRestart(t *testing.T) {
	r := newRig(t, dispatch.Config{Beat: 5 * time.Second})
	id := r.submit("fan", 10, nil)
	x := r.demand(id, 10)
	held := r.ask(x, "pod-1", 2).Leases
	r.restart()
	beat := func() task.Beaten {
		b, err := r.d.Beat(t.Context(), claims(x), task.Beat{Worker: "pod-1", Held: []task.Ref{held[0].Ref, held[1].Ref}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	r.until("the rest to be given back", func() bool {
		if b := beat(); len(b.Lost)+len(b.Cancel) != 0 {
			t.Fatalf("%+v", b)
		}
		r.tick()
		all := r.d.Demand()
		return len(all) == 1 && all[0].Queued == 8 && all[0].Held == 2
	})
	if g := r.ask(x, "pod-1", 0, ok(held[0]), ok(held[1])); len(g.Refused) != 0 {
		t.Errorf("%+v", g)
	}
	r.until("its end", func() bool {
		for _, l := range r.ask(x, "pod-2", 64).Leases {
			r.ask(x, "pod-2", 0, ok(l))
		}
		return !r.get(id).Ended.IsZero()
	})
	if i := r.get(id); i.Phase != machine.Succeeded || i.Counts.Crashes != 0 {
		t.Errorf("%+v", i)
	}
}

// What waits here is beaten for, and goes when it is not wanted.
func TestWaitingIsHeld(t *testing.T) {
	r := newRig(t, dispatch.Config{Beat: 5 * time.Second})
	id := r.submit("fan", 3, nil)
	r.demand(id, 3)
	for range 30 {
		before := r.beats.Load()
		r.until("a beat", func() bool {
			r.tick()
			return r.beats.Load() > before
		})
	}
	r.demand(id, 3)
	if i := r.get(id); i.Counts.Crashes != 0 {
		t.Fatalf("what waits was lost: %+v", i.Counts)
	}
	if err := r.s.Cancel(t.Context(), id, "ann", true); err != nil {
		t.Fatal(err)
	}
	r.until("its end", func() bool {
		r.tick()
		return !r.get(id).Ended.IsZero()
	})
	if n := r.d.Demand(); len(n) != 0 {
		t.Errorf("%+v", n)
	}
}

// Idle pods leave, and all do when the run has ended.
func TestDrain(t *testing.T) {
	r := newRig(t, dispatch.Config{Idle: 10 * time.Second})
	id := r.submit("fan", 1, nil)
	x := r.demand(id, 1)
	l := r.ask(x, "pod-1", 1).Leases[0]
	got := make(chan task.Grant, 2)
	wait := func(pod string) {
		g, err := r.d.Work(t.Context(), claims(x), task.Ask{Worker: pod, Want: 1, Wait: 20 * time.Second})
		if err != nil {
			t.Error(err)
		}
		got <- g
	}
	go wait("pod-2")
	r.until("an idle pod to be told", func() bool {
		select {
		case g := <-got:
			if !g.Drain {
				t.Errorf("%+v", g)
			}
			return true
		default:
			if _, err := r.d.Beat(t.Context(), claims(x), task.Beat{Worker: "pod-1", Held: []task.Ref{l.Ref}}); err != nil {
				t.Error(err)
			}
			r.tick()
			return false
		}
	})
	go wait("pod-3")
	r.ask(x, "pod-1", 0, ok(l))
	if g := <-got; !g.Drain {
		t.Errorf("the run has ended, and a pod is kept: %+v", g)
	}
	if g := r.ask(x, "pod-1", 1); !g.Drain {
		t.Errorf("%+v", g)
	}
	if !r.d.Over(id) {
		t.Error("it is not over")
	}
}

func TestRequests(t *testing.T) {
	asked := make(chan string, 1)
	r := &rig{t: t, cfg: dispatch.Config{Cluster: "prod", Secret: secret}, clock: clock.NewFake(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)), graphs: worktest.Graphs{}, path: filepath.Join(t.TempDir(), "work.db"),
		http: func(_ context.Context, h *task.HTTP, _ time.Duration) task.Outcome {
			asked <- h.URL
			return task.Outcome{Phase: task.Succeeded}
		}}
	r.start()
	t.Cleanup(func() { r.stop() })
	id := r.submit("request", 1, func(workflow.Scope) task.Task { return task.Task{HTTP: &task.HTTP{URL: "http://x/"}} })
	if u := <-asked; u != "http://x/" {
		t.Error(u)
	}
	r.until("its end", func() bool { return r.get(id).Phase == machine.Succeeded })
}

// What a task makes goes with the object that its run is, if it says so.
func TestOwner(t *testing.T) {
	r := &rig{t: t, cfg: dispatch.Config{Cluster: "prod", Secret: secret}, clock: clock.NewFake(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)), graphs: worktest.Graphs{}, path: filepath.Join(t.TempDir(), "work.db")}
	r.owner = func(string) (task.Owner, bool) {
		return task.Owner{APIVersion: "cairn.dev/v1alpha1", Kind: "Workflow", Name: "w", UID: "u"}, true
	}
	r.start()
	t.Cleanup(func() { r.stop() })
	wants := func(workflow.Scope) task.Task {
		return task.Task{Resource: &task.Resource{Action: "create", Owner: &task.Owner{}}}
	}
	id := r.submit("owned", 3, wants)
	g := r.ask(r.demand(id, 3), "pod-1", 3)
	for _, l := range g.Leases {
		if o := g.Bodies[l.Body].Resource.Owner; o == nil || o.UID != "u" {
			t.Errorf("the owner is %+v", o)
		}
	}
	if len(g.Leases) != 3 {
		t.Errorf("%d leases", len(g.Leases))
	}
}

// What a pod may ask for is of its own run and shape, whatever it says.
func TestDoor(t *testing.T) {
	r := newRig(t, dispatch.Config{})
	mine, theirs := r.submit("mine", 2, nil), r.submit("theirs", 2, nil)
	x, y := r.demand(mine, 2), r.demand(theirs, 2)
	foreign := r.ask(y, "pod-y", 1).Leases[0]
	var through []string
	h := dispatch.Door(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		c, in := dispatch.Admitted(q.Context())
		through = append(through, fmt.Sprint(q.URL.Path, " ", in, " ", c.Run == mine))
	}), r.d)
	call := func(token, path string, lease *task.Ref, body any) *httptest.ResponseRecorder {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		q := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(b))
		q.Header.Set("Authorization", "Bearer "+token)
		if lease != nil {
			q.Header.Set(task.HeaderLease, lease.Header())
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, q)
		return w
	}
	open := r.d.Token(x) // as whoever may view the pod reads it
	token := open + "." + r.d.Key(x.Namespace)
	var g task.Grant
	w := call(token, task.PathWork, nil, task.Ask{Worker: "pod-x", Pool: "cluster/prod", Want: 64, Outcomes: []task.Outcome{ok(foreign)}})
	if err := json.NewDecoder(w.Body).Decode(&g); err != nil || w.Code != 200 {
		t.Fatal(w.Code, err)
	}
	if len(g.Leases) != 2 || g.Leases[0].Run != mine || len(g.Refused) != 1 {
		t.Errorf("%+v", g)
	}
	var b task.Beaten
	w = call(token, task.PathBeat, nil, task.Beat{Worker: "pod-x", Held: []task.Ref{foreign.Ref}})
	if err := json.NewDecoder(w.Body).Decode(&b); err != nil || len(b.Lost) != 1 {
		t.Errorf("it beats for another run: %+v %v", b, err)
	}
	for _, c := range []struct {
		name, token, path string
		lease             *task.Ref
		want              int
	}{
		{"files of its own", token, task.PathBlob + "sha256:a", &g.Leases[0].Ref, 200},
		{"files of another run", token, task.PathBlob + "sha256:a", &foreign.Ref, 403},
		{"files without a lease", token, task.PathArtifact, nil, 403},
		{"logs", token, task.PathLogs, nil, 200},
		{"the API", token, "/api/v1/runs", nil, 403},
		{"the registry", token, "/v2/", nil, 403},
		{"a forged token", open[:len(open)-2] + "xx." + r.d.Key(x.Namespace), task.PathWork, nil, 401},
		{"what stands in a pod's definition", open, task.PathWork, nil, 401},
		{"the key of another namespace", open + "." + r.d.Key("other"), task.PathWork, nil, 401},
		{"somebody else", "cairn_other", "/api/v1/runs", nil, 200},
	} {
		if w := call(c.token, c.path, c.lease, struct{}{}); w.Code != c.want {
			t.Errorf("%s: %d, want %d: %s", c.name, w.Code, c.want, w.Body)
		}
	}
	want := []string{task.PathBlob + "sha256:a true true", task.PathLogs + " true true", "/api/v1/runs false false"}
	if fmt.Sprint(through) != fmt.Sprint(want) {
		t.Errorf("%q went through, want %q", through, want)
	}
}

func TestTokens(t *testing.T) {
	at := time.Unix(1000, 0)
	s := dispatch.NewSigner(secret)
	c := dispatch.Claims{Cluster: "a", Namespace: "b", Run: "c", Class: "d", Expires: 2000}
	good := s.Sign(c) + "." + s.Key("a", "b")
	if got, err := s.Verify(good, at); err != nil || got != c {
		t.Errorf("%+v %v", got, err)
	}
	if !dispatch.Is(good) || dispatch.Is("cairn_abc") {
		t.Error("tokens are not told apart")
	}
	body, sum, _ := strings.Cut(good, ".")
	elsewhere := dispatch.NewSigner([]byte("another secret.."))
	for name, bad := range map[string]string{
		"of another server":  elsewhere.Sign(c) + "." + elsewhere.Key("a", "b"),
		"another's key":      s.Sign(c) + "." + elsewhere.Key("a", "b"),
		"of its namespace":   s.Sign(c) + "." + s.Key("a", "c"),
		"of its cluster":     s.Sign(c) + "." + s.Key("b", "b"),
		"no key":             s.Sign(c),
		"an empty key":       s.Sign(c) + ".",
		"two keys":           good + "." + s.Key("a", "b"),
		"no signature":       body,
		"empty signature":    body + ".",
		"another's body":     s.Sign(dispatch.Claims{Run: "x"})[:20] + "." + sum,
		"no prefix":          strings.TrimPrefix(good, "cairn_pod_"),
		"too long":           good + strings.Repeat("A", 4000),
		"of another purpose": "cairn_pod_" + good,
	} {
		if _, err := s.Verify(bad, at); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	if _, err := s.Verify(good, time.Unix(2000, 0)); err == nil || !strings.Contains(err.Error(), "1970-01-01T00:33:20Z") {
		t.Errorf("an old one: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	s := dispatch.NewSigner(secret)
	good := s.Sign(dispatch.Claims{Run: "c", Expires: 2000}) + "." + s.Key("", "")
	f.Add(good)
	f.Add("cairn_pod_.")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := s.Verify(token, time.Unix(1000, 0)); err == nil && token != good {
			t.Errorf("%q was not made here", token)
		}
	})
}

// Every field by which one pod can be told from another is listed here: a task
// that has one gets a pod of its own.
func TestIdentity(t *testing.T) {
	type m = map[string]any
	type l = []any
	for want, pod := range map[string]m{
		"containerSet":                             {"containerSet": m{"containers": l{m{}}}},
		"initContainers":                           {"initContainers": l{m{}}},
		"metadata":                                 {"metadata": m{"labels": m{"a": "b"}}},
		"sidecars":                                 {"sidecars": l{m{}}},
		"retryAffinity":                            {"retryAffinity": m{"nodeAntiAffinity": m{"x": 1}}},
		"container.lifecycle":                      {"container": m{"lifecycle": m{"preStop": m{}}}},
		"container.livenessProbe":                  {"container": m{"livenessProbe": m{"exec": m{}}}},
		"container.readinessProbe":                 {"container": m{"readinessProbe": m{"exec": m{}}}},
		"container.startupProbe":                   {"container": m{"startupProbe": m{"exec": m{}}}},
		"container.env.valueFrom.fieldRef":         {"container": m{"env": l{m{"name": "A", "valueFrom": m{"fieldRef": m{"fieldPath": "metadata.name"}}}}}},
		"container.env.valueFrom.resourceFieldRef": {"container": m{"env": l{m{"name": "A", "valueFrom": m{"resourceFieldRef": m{"resource": "limits.cpu"}}}}}},
		"container.volumeMounts.subPathExpr":       {"container": m{"volumeMounts": l{m{"subPathExpr": "$(POD)"}}}},
		"volumes.downwardAPI":                      {"volumes": l{m{"downwardAPI": m{}}}},
		"volumes.ephemeral":                        {"volumes": l{m{"ephemeral": m{}}}},
		"volumes.projected.sources.downwardAPI":    {"volumes": l{m{"projected": m{"sources": l{m{"downwardAPI": m{}}}}}}},
		"": {"sidecars": l{}, "nodeSelector": m{"a": "b"}, "serviceAccountName": "x", "podSpecPatch": "{}", "podMetadata": m{"labels": m{"a": "b"}},
			"container": m{"env": l{m{"name": "A", "valueFrom": m{"secretKeyRef": m{"name": "s", "key": "k"}}}}}, "volumes": l{m{"secret": m{}}, m{"emptyDir": m{}}}},
	} {
		if got := strings.Join(dispatch.Identity(pod), " "); got != want {
			t.Errorf("%v: %q, want %q", pod, got, want)
		}
		s := dispatch.ShapeOf(&task.Task{Image: "a", Pod: pod})
		if s.Single() != (want != "") {
			t.Errorf("%q: single is %v", want, s.Single())
		}
	}
}

func TestClass(t *testing.T) {
	base := task.Task{Image: "a", Command: []string{"x"}}
	same := base
	same.Command, same.Env, same.Script, same.Isolation = []string{"y", "z"}, []task.Env{{Name: "A", Value: "b"}}, "s", "auto"
	class := func(t task.Task) string { s := dispatch.ShapeOf(&t); return s.Class() }
	if class(base) != class(same) {
		t.Error("what goes with the task makes another class")
	}
	for name, edit := range map[string]func(*task.Task){
		"image":             func(t *task.Task) { t.Image = "b" },
		"entrypoint":        func(t *task.Task) { t.Command = nil },
		"user":              func(t *task.Task) { t.User = "7" },
		"cpu":               func(t *task.Task) { t.CPU = 100 },
		"memory":            func(t *task.Task) { t.Memory = 100 },
		"volume":            func(t *task.Task) { t.Volumes = []task.Volume{{Name: "v", Path: "/v"}} },
		"isolation":         func(t *task.Task) { t.Isolation = "shared" },
		"output elsewhere":  func(t *task.Task) { t.Outputs = []task.Output{{Name: "o", Path: "/data/o"}} },
		"field of a pod":    func(t *task.Task) { t.Pod = map[string]any{"nodeSelector": map[string]any{"a": "b"}} },
		"another such":      func(t *task.Task) { t.Pod = map[string]any{"nodeSelector": map[string]any{"a": "c"}} },
		"request":           func(t *task.Task) { t.Resource = &task.Resource{Action: "get"} },
		"output in a place": nil,
	} {
		x := base
		if edit == nil {
			x.Outputs = []task.Output{{Name: "o", Path: "/tmp/o"}}
			if class(x) != class(base) {
				t.Error("an output in a place that may be written makes another class")
			}
			continue
		}
		edit(&x)
		if class(x) == class(base) {
			t.Errorf("%s makes no other class", name)
		}
	}
}

// What the container has seen to is not done again by the worker in it.
func TestInPod(t *testing.T) {
	r := newRig(t, dispatch.Config{})
	id := r.submit("pod", 3, func(workflow.Scope) task.Task {
		return task.Task{Image: "a", User: "7:8", Volumes: []task.Volume{{Name: "new", Path: "/new"}, {Name: "keys", Path: "/keys"}, {Name: "mine", Path: "/mine"}, {Name: "big", Path: "/big"}},
			Pod: map[string]any{"volumes": []any{map[string]any{"name": "keys", "secret": map[string]any{}}, map[string]any{"name": "big", "emptyDir": map[string]any{"medium": "Memory"}}},
				"volumeClaimTemplates": []any{map[string]any{"metadata": map[string]any{"name": "mine"}}}}}
	})
	x := r.demand(id, 3)
	if x.Shape.User != "7:8" || x.Shape.Pod == nil {
		t.Errorf("%+v", x.Shape)
	}
	g := r.ask(x, "pod-1", 3)
	if len(g.Leases) != 3 || len(g.Bodies) != 1 {
		t.Fatalf("%d bodies of %d tasks that are the same", len(g.Bodies), len(g.Leases))
	}
	b := g.Bodies[0]
	if b.User != "" || b.Pod != nil || fmt.Sprint(b.Volumes) != "[{new /new  false } {keys /keys keys false } {mine /mine mine false } {big /big  false }]" {
		t.Errorf("%+v", b)
	}
}

// Where pods are warm, runs of one namespace share them, and no others.
func TestWarm(t *testing.T) {
	r := newRig(t, dispatch.Config{Warm: 30 * time.Second})
	a, b := r.submit("a", 2, nil), r.submit("b", 2, nil)
	var x dispatch.Demand
	r.until("one demand of both", func() bool {
		all := r.d.Demand()
		if len(all) == 1 && all[0].Queued == 4 {
			x = all[0]
		}
		return x.Queued == 4
	})
	if !dispatch.Shared(x.Run) || x.Namespace != "default" || dispatch.Shared(a) {
		t.Errorf("%+v", x)
	}
	g := r.ask(x, "pod-1", 64)
	runs := map[string]int{}
	var all []task.Outcome
	for _, l := range g.Leases {
		runs[l.Run]++
		all = append(all, ok(l))
	}
	if runs[a] != 2 || runs[b] != 2 {
		t.Errorf("%v", runs)
	}
	if g := r.ask(x, "pod-1", 0, all...); len(g.Refused) != 0 {
		t.Errorf("%+v", g)
	}
	for _, id := range []string{a, b} {
		if i := r.get(id); i.Phase != machine.Succeeded {
			t.Errorf("%+v", i)
		}
	}
	// The pod stays for the next run.
	got := make(chan task.Grant)
	wait := func() {
		g, err := r.d.Work(t.Context(), claims(x), task.Ask{Worker: "pod-1", Want: 1, Wait: 20 * time.Second})
		if err != nil {
			t.Error(err)
		}
		got <- g
	}
	go wait()
	c := r.submit("c", 1, nil)
	next := <-got
	if len(next.Leases) != 1 || next.Leases[0].Run != c {
		t.Fatalf("%+v", next)
	}
	r.ask(x, "pod-1", 0, ok(next.Leases[0]))
	// What waits goes with its run.
	held := r.submit("d", 3, nil)
	r.demand(x.Run, 3)
	if err := r.s.Cancel(t.Context(), held, "ann", true); err != nil {
		t.Fatal(err)
	}
	r.until("its end", func() bool { r.tick(); return !r.get(held).Ended.IsZero() })
	if n := r.d.Demand(); len(n) != 0 {
		t.Errorf("%+v", n)
	}
	// A shape that is one run's own has pods of its own.
	single := r.submit("single", 1, func(workflow.Scope) task.Task { return task.Task{Image: "a", Isolation: "pod"} })
	r.demand(single, 1)
	// And when nothing comes it leaves.
	for drained := false; !drained; {
		go wait()
		r.until("an answer", func() bool {
			select {
			case g := <-got:
				drained = g.Drain
				return true
			default:
				r.tick()
				return false
			}
		})
	}
	// Another namespace's token is none of this one's.
	other := claims(x)
	other.Namespace = "other"
	if g, err := r.d.Work(t.Context(), other, task.Ask{Worker: "pod-9", Want: 1}); err != nil || len(g.Leases) != 0 {
		t.Errorf("%+v %v", g, err)
	}
}
