// Package controller turns custom resources of a Kubernetes cluster into runs
// of the work server, and tells in their status what becomes of them.
//
// It owns the watches of our kinds and of Argo's, the rule which object is
// which run (its namespace and uid), and what a status says. It promises that
// an object is one run, however often this process begins anew and whatever
// answers got lost; that a run whose object is gone is canceled, also when it
// went while nobody looked; that the status of an object is written at most
// once a second, only when it says something new, and has at most [MaxStatus]
// bytes; that all objects together are written to at most 50 times a second, of
// many runs that come together each but once, at its end; and that an API server that is away, or has too much to do, is asked
// again with patience. It keeps nothing itself: what runs are is the server's,
// what is wanted is the cluster's. It starts no pods (package jobs does), reads
// no secrets, and adds no finalizers: an object can always be deleted.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// What is done with Argo's objects.
const (
	// Auto takes all where the definitions are ours, else those with the label.
	Auto = "auto"
	// Labelled takes those with the label [InstanceLabel], which Argo leaves alone.
	Labelled = "labelled"
	// Off takes none.
	Off = "off"
)

// InstanceLabel is how an object of Argo's kinds says whose it is, and Instance
// its value when it is Cairn's.
const (
	InstanceLabel = "workflows.argoproj.io/controller-instanceid"
	Instance      = "cairn"
)

// Config of a [Controller].
type Config struct {
	// Cluster is the name of the cluster: runs are called by it, so that it
	// must stay the same.
	Cluster string
	REST    *rest.Config
	// Namespaces that are looked at; all when empty.
	Namespaces []string
	// Argo is what is done with Argo's objects; [Auto] when empty.
	Argo string
	// URL of the server as people reach it; links are left out when it is "".
	URL string
	// Rate bounds requests a second to the API server; 100.
	Rate float32
	// Workers is how many objects are dealt with at a time; 8.
	Workers int
}

// Runs are handed in and looked at.
type Runs interface {
	Submit(ctx context.Context, g *workflow.Graph, by string, o work.Options) (string, error)
	Get(ctx context.Context, id string) (work.Info, error)
	Nodes(ctx context.Context, id, parent, after string, limit int, f machine.Filter) ([]machine.View, bool, error)
	Live(id string) bool
}

// Keys tell whose run is whose. What a status says does not: whoever may edit an
// object may write there what he likes.
type Keys interface {
	Find(ctx context.Context, key string) (id string, err error)
	Keyed(ctx context.Context, prefix string) (map[string]string, error)
}

// Control changes runs that go on.
type Control interface {
	Cancel(ctx context.Context, id, by string, now bool) error
	Suspend(ctx context.Context, id string) error
	Resume(ctx context.Context, id, node string, outputs map[string]workflow.Value, fail bool, message string) error
}

// Schedules start runs at their times.
type Schedules interface {
	PutSchedule(ctx context.Context, x *workflow.Schedule, by, pool string) error
	WithdrawSchedule(ctx context.Context, namespace, name, by string) error
	Schedules() []work.ScheduleInfo
	Runs(ctx context.Context, f work.RunFilter, after string, limit int) ([]work.Info, string, error)
}

// Server is what the controller needs of a work server.
type Server interface {
	Runs
	Keys
	Control
	Schedules
}

var _ Server = (*work.Server)(nil)

// Deps of a [Controller].
type Deps struct {
	Server Server
	// Waits says what keeps the pods of a run from starting, "" for nothing; may
	// be nil. [Controller.Changed] is to be called when it says something new.
	Waits func(run string) string
	// Place says which pod has a task of a run, or had it, and on which node; ""
	// for what is not known. It may be nil.
	Place func(run, namespace, task string) (pod, node string)
	// Ease is the part of what may be written a second that is written now, above
	// 0 to 1: less while the API server is slow. It may be nil: always all.
	Ease  func() float64
	Clock clock.Clock
	Log   *slog.Logger
}

// A Controller looks after one cluster. It is safe for concurrent use.
type Controller struct {
	cfg  Config
	d    Deps
	log  *slog.Logger
	api  dynamic.Interface
	defs metadata.Interface

	kinds    []*kind
	queue    *queue
	brake    brake
	patience time.Duration // with one request

	mu      sync.Mutex
	watches map[*kind]*watch
	records map[ref]*record
	runs    map[string]owner // whose run it is
	gone    map[ref][]string // uids of deleted objects that were not dealt with
	rivaled bool             // somebody was told that another server is here
}

// New makes a controller. It does not contact the API server.
func New(cfg Config, d Deps) (*Controller, error) {
	if cfg.Cluster == "" || strings.Contains(cfg.Cluster, "/") {
		return nil, fmt.Errorf("the cluster %q needs a name without slashes: it is part of the names of its runs", cfg.Cluster)
	}
	switch cfg.Argo {
	case "":
		cfg.Argo = Auto
	case Auto, Labelled, Off:
	default:
		return nil, fmt.Errorf("cluster %s: argo is %q: choose from %s, %s and %s", cfg.Cluster, cfg.Argo, Auto, Labelled, Off)
	}
	if cfg.Rate <= 0 {
		cfg.Rate = 100
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 8
	}
	if d.Ease == nil {
		d.Ease = func() float64 { return 1 }
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{cfg: cfg, d: d, log: d.Log.With("cluster", cfg.Cluster), kinds: kinds(), queue: newQueue(d.Clock), patience: callTimeout, brake: brake{every: time.Second / writesPerSecond, burst: writesAtOnce, ease: d.Ease},
		watches: map[*kind]*watch{}, records: map[ref]*record{}, runs: map[string]owner{}, gone: map[ref][]string{}}
	r := rest.CopyConfig(cfg.REST)
	r.QPS, r.Burst = cfg.Rate, int(2*cfg.Rate)
	if r.UserAgent == "" {
		r.UserAgent = "cairn"
	}
	var err error
	if c.api, err = dynamic.NewForConfig(r); err == nil {
		c.defs, err = metadata.NewForConfig(r)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the API server %s of cluster %s: %w", r.Host, cfg.Cluster, err)
	}
	return c, nil
}

// callTimeout bounds a request that is no watch: an API server that never
// answers would keep everything else waiting.
const callTimeout = 20 * time.Second

// Pool is the pool of the cluster's runs.
func Pool(cluster string) string { return "cluster/" + cluster }

// key is the name of an object's run.
func (c *Controller) key(namespace, uid string) string {
	return c.prefix() + namespace + "/" + uid
}

func (c *Controller) prefix() string { return "kube/" + c.cfg.Cluster + "/" }

// Run looks after the cluster until ctx ends: an API server that is away may
// come back.
func (c *Controller) Run(ctx context.Context) error {
	// What the library has to say goes where everything is said.
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(c.log.Handler()))
	var wg sync.WaitGroup
	defer wg.Wait()
	c.watchDefinitions(ctx, &wg)
	if err := c.awaitSync(ctx); err != nil {
		return err
	}
	wg.Go(func() { c.clean(ctx) })
	for range c.cfg.Workers {
		wg.Go(func() {
			for {
				r, err := c.queue.next(ctx)
				if err != nil {
					return
				}
				c.deal(ctx, r)
				c.queue.done(r)
			}
		})
	}
	<-ctx.Done()
	return ctx.Err()
}

// Changed notes that something happened to a run; it is [work.Deps.Changed],
// for all runs, whoever handed them in.
func (c *Controller) Changed(run string) {
	c.mu.Lock()
	o, ok := c.runs[run]
	c.mu.Unlock()
	if ok {
		c.queue.add(o.ref, 0)
	}
}

// deal does what has to be done about one object, and has it dealt with again
// when that failed.
func (c *Controller) deal(ctx context.Context, r ref) {
	if !c.informed(r.kind) {
		c.queue.add(r, uninformed)
		return
	}
	rec := c.record(r)
	wait, err := c.reconcile(ctx, r, rec)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		wait = max(retryAfter(err), backoff(rec.failures))
		rec.failures++
		c.log.Warn("an object could not be dealt with", "object", r.String(), "again_in", wait.Round(time.Millisecond), "error", err)
	default:
		rec.failures = 0
	}
	if wait > 0 {
		c.queue.add(r, wait)
	}
}

func (c *Controller) reconcile(ctx context.Context, r ref, rec *record) (again time.Duration, err error) {
	defer func() {
		if v := recover(); v != nil { // a mistake about one object is not the others'
			c.log.Error("panic", "object", r.String(), "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if err := c.forget(ctx, r, rec); err != nil {
		return 0, err
	}
	o := c.object(r)
	if o == nil {
		c.mu.Lock()
		if len(c.gone[r]) == 0 {
			delete(c.records, r)
		}
		c.mu.Unlock()
		return 0, nil
	}
	switch r.kind.role {
	case roleRun:
		return c.dealRun(ctx, r, rec, o)
	case roleCron:
		return c.dealCron(ctx, r, rec, o)
	default:
		return c.dealTemplate(ctx, r, rec, o)
	}
}

// clean ends what objects asked for that went while nobody looked. It is tried
// until it was done once: afterwards every deletion is heard of.
func (c *Controller) clean(ctx context.Context) {
	for n := 0; ; n++ {
		if c.Ready() == nil { // what was not listed is not known to be gone
			err := c.cleanOnce(ctx)
			if err == nil || ctx.Err() != nil {
				return
			}
			c.log.Warn("runs without objects could not be looked for", "error", err)
		}
		if clock.Sleep(ctx, c.d.Clock, backoff(n)) != nil {
			return
		}
	}
}

func (c *Controller) cleanOnce(ctx context.Context) error {
	runs, err := c.d.Server.Keyed(ctx, c.prefix())
	if err != nil {
		return err
	}
	var schedules []work.ScheduleInfo
	for _, s := range c.d.Server.Schedules() {
		if strings.HasPrefix(s.By, c.prefix()) {
			schedules = append(schedules, s)
		}
	}
	there := c.keys() // after the runs: whose run it is was there before it
	for key, id := range runs {
		if namespace, _, _ := strings.Cut(strings.TrimPrefix(key, c.prefix()), "/"); there[key] || !c.looksAt(namespace) {
			continue
		}
		c.log.Info("a run is canceled: its object was deleted", "run", id)
		if err := c.cancel(ctx, id, false); err != nil {
			return err
		}
	}
	for _, s := range schedules {
		if there[s.By] || !c.looksAt(s.Namespace) {
			continue
		}
		if err := c.d.Server.WithdrawSchedule(ctx, s.Namespace, s.Name, s.By); err != nil && !errors.Is(err, work.ErrNotFound) {
			return err
		}
	}
	return nil
}

// cancel ends a run, if it has not ended.
func (c *Controller) cancel(ctx context.Context, id string, now bool) error {
	err := c.d.Server.Cancel(ctx, id, c.who(), now)
	if errors.Is(err, work.ErrNotFound) || errors.Is(err, work.ErrConflict) {
		return nil
	}
	return err
}

// who hands runs in.
func (c *Controller) who() string { return "cluster/" + c.cfg.Cluster }
