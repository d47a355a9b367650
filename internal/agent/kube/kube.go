// Package kube looks at one Kubernetes cluster and says which images it uses.
//
// It owns the watches of an API server (one for each kind of [Kinds]), the
// little that is kept of each object, and what counts as a use in Kubernetes:
// containers that started, image volumes that are mounted, and what templates
// name. It promises to fail rather than to answer from a picture that may be
// old ([Cluster.Snapshot]), and to need no right but list and watch. It writes
// nothing to the cluster, reads no secrets, and keeps no whole objects: 100,000
// pods take some 100 MiB.
package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"cairn.dev/cairn/internal/agent"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/usage"
)

// patience is how long a watch may be away before what it told is not believed
// any more. API servers end watches every few minutes; a new one takes
// milliseconds.
const patience = 30 * time.Second

// Config of a [Cluster].
type Config struct {
	Name string // of the cluster: all subjects begin with it
	REST *rest.Config
}

// Deps of a [Cluster].
type Deps struct {
	Clock clock.Clock
	Log   *slog.Logger
}

// A Cluster is an [agent.Source]. It is safe for concurrent use.
type Cluster struct {
	name  string
	clock clock.Clock
	log   *slog.Logger
	kinds []*kind

	mu    sync.Mutex
	seen  func(...usage.Use)
	model *model
}

// New returns a cluster that is not looked at until [Cluster.Run].
func New(cfg Config, d Deps) (*Cluster, error) {
	if cfg.Name == "" {
		return nil, errors.New("the cluster needs a name: it tells clusters apart in reports")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cluster{name: cfg.Name, clock: d.Clock, log: d.Log, seen: func(...usage.Use) {}, model: newModel(cfg.Name)}
	kinds, err := connect(cfg.REST)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server %s: %w", cfg.REST.Host, err)
	}
	c.kinds = kinds
	return c, nil
}

// Run implements [agent.Source]. It ends with ctx only: an API server that is
// away may come back.
func (c *Cluster) Run(ctx context.Context, seen func(...usage.Use)) error {
	c.mu.Lock()
	c.seen = seen
	c.mu.Unlock()
	// What the library has to say goes where everything is said.
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(c.log.Handler()))
	var wg sync.WaitGroup
	for _, k := range c.kinds {
		r := cache.NewReflectorWithOptions(&watcher{c, k}, &item{}, &store{c, k}, cache.ReflectorOptions{Name: k.resource, TypeDescription: k.resource})
		wg.Go(func() { r.RunWithContext(ctx) })
	}
	wg.Wait()
	return ctx.Err()
}

// Snapshot implements [agent.Source].
func (c *Cluster) Snapshot(context.Context) (agent.Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Mono()
	for _, k := range c.kinds {
		switch {
		case !k.synced && k.err != nil:
			return agent.Snapshot{}, fmt.Errorf("list %s: %w", k.resource, k.err)
		case !k.synced:
			return agent.Snapshot{}, fmt.Errorf("the first list of %s is not complete", k.resource)
		case !k.live && now-k.lost > patience:
			return agent.Snapshot{}, fmt.Errorf("no watch of %s for %s: %w", k.resource, (now - k.lost).Round(time.Second), errOr(k.err, "it ended"))
		}
	}
	return c.model.snapshot(), nil
}

func errOr(err error, why string) error {
	if err == nil {
		return errors.New(why)
	}
	return err
}

// listed notes whether a list or watch of a kind began.
func (c *Cluster) listed(k *kind, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k.err = err
}

// watching notes that the watch of a kind began or ended.
func (c *Cluster) watching(k *kind, live bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.live && !live {
		k.lost = c.clock.Mono()
	}
	k.live = live
}
