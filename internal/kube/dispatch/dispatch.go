// Package dispatch hands tasks of the work server on to pods of a cluster.
//
// It owns the one holder that the work server knows of a cluster: it takes
// leases of the cluster's pool ahead of need, sorts them by what a container
// has to be for them ([Shape]), beats for those that wait here, and hands each
// on, token and all, to a pod of its shape that asks. It says what pods are
// wanted ([Dispatcher.Demand]) and makes none itself (jobs). It promises that
// what it holds is bounded, however large a run is; that a pod gets tasks of
// its own run and shape and no others, by a token that says so; that what a
// dead pod held, or one that cannot start, is told to the server; and that
// nothing is lost with its memory: after a start it gives back what nobody
// beats for. Requests that tasks make in place of programs it runs itself.
package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
)

// PoolPrefix begins the names of pools that are clusters.
const PoolPrefix = work.ClusterPool

// Config of a [Dispatcher]. Zero values take the defaults that are named.
type Config struct {
	// Cluster is the name people gave it.
	Cluster string
	// Secret makes the tokens of pods; the same after a restart.
	Secret []byte
	// Ahead is how many tasks of a run are taken before there are pods for
	// them; 200. MaxQueued bounds those of all runs; 20,000.
	Ahead, MaxQueued int
	// Idle is how long a pod waits for more before it is told to leave; 10 s.
	Idle time.Duration
	// Warm, when it is not 0, has runs of one namespace share pods, which wait so
	// long for more: many small runs then need no pods of their own.
	Warm time.Duration
	// Beat is how often the server hears that what waits here is held; 5 s.
	Beat time.Duration
	// TokenLife bounds how long a pod may ask; 30 days. Its run bounds it, too. It
	// gets tasks for half of that.
	TokenLife time.Duration
	// Requests is how many requests of tasks are made at a time; 32.
	Requests int
}

// Server is who leases tasks; [work.Server] is one.
type Server interface {
	Lend(ctx context.Context, a task.Ask, room work.Room) (task.Grant, error)
	Work(ctx context.Context, a task.Ask) (task.Grant, error)
	Beat(ctx context.Context, b task.Beat) (task.Beaten, error)
	Release(ctx context.Context, worker string, lately time.Duration) error
}

// Deps of a [Dispatcher].
type Deps struct {
	Server Server
	Clock  clock.Clock
	Log    *slog.Logger
	// HTTP makes the request of a task; nil: such tasks are refused. A timeout
	// of 0 is its own to choose.
	HTTP func(ctx context.Context, r *task.HTTP, timeout time.Duration) task.Outcome
	// Owner is the object that a run is, for what tasks make that goes with it;
	// nil: no run is one.
	Owner func(run string) (task.Owner, bool)
}

// maxShapes bounds the shapes of one run: each has a Job of its own.
const maxShapes = 64

// Dispatcher is safe for concurrent use. Run has to be called once.
type Dispatcher struct {
	cfg    Config
	d      Deps
	log    *slog.Logger
	name   string // as a worker, and of its pool
	signer Signer

	changed chan struct{} // what Demand says has changed; holds one
	nudge   chan struct{} // there is room for more; holds one
	heard   chan struct{} // closed when the first pod is heard of
	once    sync.Once     // closes it
	tell    chan struct{} // there are outcomes to be told; holds one
	making  chan struct{} // requests that are being made

	// mu guards what follows. It is a leaf: nobody calls the server with it.
	mu      sync.Mutex
	term    time.Duration
	runs    map[string]*run
	warm    map[string]*run              // what stands in place of one, see [Shared]
	ended   map[string]time.Duration     // runs that have, and when
	places  map[string]map[string]string // by run and task: which pod had it
	queued  int
	found   chan struct{} // closed and replaced when there is a new group
	results []task.Outcome
	working map[string]*request // requests by their tokens
}

// request is one that is being made.
type request struct {
	*item
	run *run // to which it counts
	end context.CancelCauseFunc
}

// run is a run of which there are tasks here, or were.
type run struct {
	id, namespace string
	queued        int
	groups        map[string]*group // by class
}

// group is the tasks of one run and shape, and the pods that run them.
type group struct {
	run     *run
	class   string
	shape   Shape
	shaped  bool
	queue   []*item
	pods    map[string]*pod
	changed chan struct{} // closed and replaced when there is more, or no more to come
	closed  bool
	asked   bool // a pod was heard of
	served  int  // tasks that were handed out
	apart   bool // pods cannot keep tasks of this shape apart: one pod each
}

// item is a task that is held.
type item struct {
	task.Lease
	body *task.Task
}

// pod is a worker in a pod.
type pod struct {
	name    string
	held    map[string]*item // by token; nil for what it held before this process
	seen    time.Duration
	served  int
	waiting int
	idle    time.Duration // since when it has had nothing; 0: it has
}

// New makes a dispatcher.
func New(cfg Config, d Deps) (*Dispatcher, error) {
	if cfg.Cluster == "" || len(cfg.Secret) < 16 || d.Server == nil || d.Clock == nil {
		return nil, errors.New("a dispatcher needs the name of its cluster, a secret of 16 bytes, a server and a clock")
	}
	def := func(v *int, to int) {
		if *v <= 0 {
			*v = to
		}
	}
	def(&cfg.Ahead, 200)
	def(&cfg.MaxQueued, 20_000)
	def(&cfg.Requests, 32)
	for v, to := range map[*time.Duration]time.Duration{&cfg.Idle: 10 * time.Second, &cfg.Beat: 5 * time.Second, &cfg.TokenLife: 30 * 24 * time.Hour} {
		if *v <= 0 {
			*v = to
		}
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return &Dispatcher{cfg: cfg, d: d, log: d.Log.With("cluster", cfg.Cluster), name: PoolPrefix + cfg.Cluster, signer: NewSigner(cfg.Secret),
		changed: make(chan struct{}, 1), nudge: make(chan struct{}, 1), tell: make(chan struct{}, 1), making: make(chan struct{}, cfg.Requests),
		term: 30 * time.Second, runs: map[string]*run{}, warm: map[string]*run{}, ended: map[string]time.Duration{}, places: map[string]map[string]string{}, found: make(chan struct{}), working: map[string]*request{}, heard: make(chan struct{})}, nil
}

// Pool is the pool whose tasks it takes.
func (d *Dispatcher) Pool() string { return d.name }

// Run works until ctx ends, or the server has.
func (d *Dispatcher) Run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var wg sync.WaitGroup
	wg.Go(func() { d.forgotten(ctx) })
	wg.Go(func() { d.beats(ctx) })
	wg.Go(func() { d.reports(ctx) })
	wg.Go(func() { d.nudges(ctx) })
	err := d.pull(ctx)
	end()
	wg.Wait()
	return err
}

// forgotten gives back, once pods have had time to beat, what this holder was
// granted before it was started and nobody has. How long it takes until pods
// find a server again that was started elsewhere is the cluster's to say: until
// one has, leases have the term that they have.
func (d *Dispatcher) forgotten(ctx context.Context) {
	quiet := 2 * d.cfg.Beat
	d.mu.Lock()
	term := d.term
	d.mu.Unlock()
	select {
	case <-d.heard:
	case <-d.d.Clock.After(max(0, term-quiet-time.Second)):
	case <-ctx.Done():
	}
	for wait := quiet + time.Second; clock.Sleep(ctx, d.d.Clock, wait) == nil; wait = time.Second {
		err := d.d.Server.Release(ctx, d.name, quiet)
		if err == nil || ctx.Err() != nil {
			return
		}
		d.log.Warn("what was held before the start could not be given back", "error", err)
	}
}

// pull takes leases for as long as there is room.
func (d *Dispatcher) pull(ctx context.Context) error {
	for ctx.Err() == nil {
		g, err := d.d.Server.Lend(ctx, task.Ask{Worker: d.name, Pool: d.name, Want: 256, Wait: 30 * time.Second}, d.room)
		switch {
		case errors.Is(err, work.ErrClosed):
			return nil
		case err != nil && ctx.Err() == nil:
			d.log.Warn("no leases can be had", "error", err)
			if clock.Sleep(ctx, d.d.Clock, time.Second) != nil {
				return nil
			}
		case g.Drain:
			if clock.Sleep(ctx, d.d.Clock, time.Second) != nil {
				return nil
			}
		}
		d.file(ctx, g)
	}
	return nil
}

// room implements [work.Room]. There is none until half of what may wait is
// gone, so that leases come in batches.
func (d *Dispatcher) room(id, namespace string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.runs[id]
	if r == nil {
		r = &run{id: id, namespace: namespace, groups: map[string]*group{}}
		d.runs[id] = r
		delete(d.ended, id) // it was retried
	}
	if r.queued > d.cfg.Ahead/2 {
		return 0
	}
	return min(d.cfg.Ahead-r.queued, d.cfg.MaxQueued-d.queued)
}

// nudges has the server ask for room again.
func (d *Dispatcher) nudges(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.nudge:
		}
		_, _ = d.d.Server.Work(ctx, task.Ask{Worker: d.name, Pool: d.name}) // it says nothing; its coming is a turn
	}
}

// file puts leases where pods find them.
func (d *Dispatcher) file(ctx context.Context, g task.Grant) {
	if len(g.Leases) == 0 {
		return
	}
	shapes := make([]*Shape, len(g.Bodies))
	var bad []task.Outcome
	d.mu.Lock()
	if g.Term > 0 {
		d.term = g.Term
	}
	for _, l := range g.Leases {
		if l.Body < 0 || l.Body >= len(g.Bodies) || d.runs[l.Run] == nil {
			bad = append(bad, failed(l.Ref, "it came without what it is", true))
			continue
		}
		x := &item{Lease: l, body: &g.Bodies[l.Body]}
		if x.body.HTTP != nil {
			d.request(ctx, x)
			continue
		}
		if err := d.owned(x); err != nil {
			bad = append(bad, failed(l.Ref, err.Error(), true)) // soon after a start it is not known yet
			continue
		}
		if shapes[l.Body] == nil {
			s := ShapeOf(x.body)
			shapes[l.Body] = &s
		}
		if err := d.put(x, *shapes[l.Body]); err != nil {
			bad = append(bad, failed(l.Ref, err.Error(), false))
		}
	}
	d.mu.Unlock()
	d.report(bad...)
	d.signal(d.changed)
}

// put files one task; the lock is held.
func (d *Dispatcher) put(x *item, s Shape) error {
	r := d.runs[x.Run]
	var g *group
	if d.cfg.Warm > 0 && s.sharable() {
		g = d.group(d.shared(r.namespace), s.Class())
	}
	if g == nil {
		g = d.group(r, s.Class())
	}
	if g == nil {
		return fmt.Errorf("its tasks need more than %d kinds of pods: images, resources and volumes that differ by item", maxShapes)
	}
	if g.apart {
		return d.put(apart(x), ShapeOf(apart(x).body))
	}
	g.shape, g.shaped = s, true
	g.queue = append(g.queue, x)
	d.count(x, 1)
	g.change()
	return nil
}

// apart is a task that gets a pod of its own.
func apart(x *item) *item {
	t := *x.body
	t.Isolation = "pod"
	return &item{Lease: x.Lease, body: &t}
}

// group finds one, or makes it if there may be one more; the lock is held.
func (d *Dispatcher) group(r *run, class string) *group {
	g := r.groups[class]
	if g == nil && len(r.groups) < maxShapes {
		g = &group{run: r, class: class, pods: map[string]*pod{}, changed: make(chan struct{})}
		r.groups[class] = g
		close(d.found)
		d.found = make(chan struct{})
	}
	return g
}

func (g *group) change() {
	close(g.changed)
	g.changed = make(chan struct{})
}

func (d *Dispatcher) signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Ended is told of runs that have ended: their pods leave.
func (d *Dispatcher) Ended(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.d.Clock.Mono()
	for k, at := range d.ended {
		if now-at > 10*time.Minute {
			delete(d.ended, k)
			delete(d.places, k)
		}
	}
	r := d.runs[id]
	if r == nil {
		return
	}
	d.ended[id] = now
	delete(d.runs, id)
	d.queued -= r.queued
	for _, g := range r.groups {
		g.closed, g.queue = true, nil
		g.change()
	}
	if s := d.warm[sharedBy(r.namespace)]; s != nil {
		for _, g := range s.groups {
			g.queue = slices.DeleteFunc(g.queue, func(x *item) bool { return x.Run == id })
		}
	}
	d.signal(d.changed)
}

func failed(r task.Ref, why string, infrastructure bool) task.Outcome {
	return task.Outcome{Ref: r, Phase: task.Errored, Exit: -1, Message: why, Infrastructure: infrastructure}
}
