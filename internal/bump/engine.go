package bump

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/image"
)

// An Engine watches repositories of code. It is safe for concurrent use.
type Engine struct {
	cfg   Config
	deps  Deps
	store store
	queue *queue
	trees *treeCache
	index *index

	// unread is how many repositories were not yet tried since they were configured.
	unread   atomic.Int32
	doubting sync.Mutex

	mu       sync.Mutex
	sources  map[string]*source
	repos    map[string]*repository // by key
	counters Counters
}

// source is a [Source] and what is known of its forge.
type source struct {
	Source
	mu      sync.Mutex
	account string // who we are there; "" when not asked yet
	// unlisted: it has globs, and what they mean was never found out.
	unlisted bool
}

// A repository of code, for as long as it is watched.
type repository struct {
	source *source
	name   string
	// pass is held by the pass that runs; the fields below belong to it.
	pass      sync.Mutex
	info      forge.Repository
	infoUntil time.Duration // monotonic: info is asked for anew then
	pullless  bool
	fails     int
	// strange remembers heads of branches that were found to be a person's, so
	// that they are not read again.
	strange map[string]bool
	cleaned map[int64]bool // closed pull requests whose branches are gone
	gone    bool           // it was forgotten

	// mu guards rec, which is replaced and never changed.
	mu    sync.Mutex
	rec   *record
	tried bool // a pass has ended, or one did before the last start
}

func (r *repository) key() string { return r.source.Name + "/" + r.name }

func (r *repository) record() *record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rec
}

// change replaces the record by a changed copy.
func (r *repository) change(f func(*record)) *record {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := *r.rec
	f(&c)
	r.rec = &c
	return r.rec
}

// New returns an engine that knows what bump.db remembers, so that
// [Engine.InUse] answers at once, and does nothing until [Engine.Run].
func New(ctx context.Context, cfg Config, deps Deps) (*Engine, error) {
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Quiet <= 0 {
		cfg.Quiet = DefaultQuiet
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 4
	}
	if cfg.Cache <= 0 {
		cfg.Cache = 256 << 20
	}
	if deps.Clock == nil {
		deps.Clock = clock.Real()
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.DB == nil || deps.Scanner == nil || deps.Catalog == nil || deps.Rules == nil || deps.Choose == nil {
		return nil, errors.New("bump: a database, a scanner, a catalog, and readers of rules and of versions are needed")
	}
	e := &Engine{cfg: cfg, deps: deps, store: store{deps.DB}, queue: newQueue(), trees: newTreeCache(cfg.Cache),
		index: newIndex(), sources: map[string]*source{}, repos: map[string]*repository{}}
	for _, s := range cfg.Sources {
		if s.Interval <= 0 {
			s.Interval = cfg.Interval
		}
		if e.sources[s.Name] != nil {
			return nil, fmt.Errorf("bump: two forges are called %s: give one another name", s.Name)
		}
		e.sources[s.Name] = &source{Source: s}
	}
	records, err := e.store.repositories(ctx)
	if err != nil {
		return nil, err
	}
	for _, rec := range records {
		s := e.sources[rec.forge]
		if s == nil || !image.MatchAny(s.Repositories, rec.name) {
			// An operator took it out of the configuration: what it needs is
			// not ours to know any more.
			if err := e.store.remove(ctx, rec.id); err != nil {
				return nil, fmt.Errorf("forget %s/%s, which is not configured any more: %w", rec.forge, rec.name, err)
			}
			if err := e.closeDoubt(ctx, rec.forge+"/"+rec.name); err != nil {
				return nil, err
			}
			continue
		}
		e.adopt(s, rec)
	}
	for _, s := range e.sources {
		s.unlisted = slices.ContainsFunc(s.Repositories, isGlob) && !slices.ContainsFunc(records, func(r *record) bool { return r.forge == s.Name })
		if s.unlisted {
			e.unread.Add(1)
		}
		// Names that are no globs need no forge to be known.
		for _, name := range s.Repositories {
			if !isGlob(name) {
				if _, err := e.watch(ctx, s, name); err != nil {
					return nil, err
				}
			}
		}
	}
	return e, nil
}

func isGlob(s string) bool { return strings.ContainsAny(s, "*?") }

// adopt begins to watch what a record remembers.
func (e *Engine) adopt(s *source, rec *record) *repository {
	r := &repository{source: s, name: rec.name, rec: rec, strange: map[string]bool{}, cleaned: map[int64]bool{}, tried: !rec.checked.IsZero()}
	e.repos[r.key()] = r
	if !r.tried {
		e.unread.Add(1)
	}
	e.index.set(r.key(), e.named(rec.uses))
	return r
}

// watch begins to watch a repository, unless it is watched already.
func (e *Engine) watch(ctx context.Context, s *source, name string) (*repository, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.repos[s.Name+"/"+name]; r != nil {
		return r, nil
	}
	rec := &record{forge: s.Name, name: name, since: e.deps.Clock.Now()}
	if err := e.store.add(ctx, rec); err != nil {
		return nil, err
	}
	return e.adopt(s, rec), nil
}

// forget ends watching.
func (e *Engine) forget(ctx context.Context, r *repository) error {
	if err := e.store.remove(ctx, r.record().id); err != nil {
		return fmt.Errorf("forget %s: %w", r.key(), err)
	}
	e.mu.Lock()
	delete(e.repos, r.key())
	e.mu.Unlock()
	for _, c := range e.queue.remove(r) {
		c <- fmt.Errorf("%s is not watched any more", r.key())
	}
	e.index.set(r.key(), nil)
	e.try(r)
	e.trees.drop(r)
	return e.closeDoubt(ctx, r.key())
}

// all are the repositories, by key.
func (e *Engine) all() []*repository {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*repository, 0, len(e.repos))
	for _, r := range e.repos {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *repository) int { return cmp.Compare(a.key(), b.key()) })
	return out
}

// tend is how often the engine looks after itself: stale scans.
const tend = time.Minute

// Run works until ctx ends, and returns nil then.
func (e *Engine) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	// What is known is looked at in an order of chance over the first minute or
	// the interval, if that is shorter, so that a start is no storm.
	now := e.deps.Clock.Mono()
	for _, r := range e.all() {
		delay := time.Duration(0)
		if r.record().head != "" {
			delay = time.Duration(rand.Int64N(int64(min(time.Minute, r.source.Interval))))
		}
		e.queue.plan(r, now+delay)
	}
	for _, s := range e.sources {
		if slices.ContainsFunc(s.Repositories, isGlob) {
			g.Go(func() error { return e.listLoop(ctx, s) })
		}
	}
	if e.deps.Pushes != nil {
		g.Go(func() error { return e.pushLoop(ctx) })
	}
	g.Go(func() error { return e.tendLoop(ctx) })
	g.Go(func() error { return e.dispatch(ctx, g) })
	return g.Wait()
}

// dispatch hands out what is due, to as many at once as there may be.
func (e *Engine) dispatch(ctx context.Context, g *errgroup.Group) error {
	free := make(chan struct{}, e.cfg.Workers)
	var alarm <-chan time.Time // set for the time rings
	var rings time.Duration
	for {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		var r *repository
		var done []chan error
		for r == nil {
			now := e.deps.Clock.Mono()
			var wait time.Duration
			if r, done, wait = e.queue.take(now); r != nil {
				break
			}
			if alarm == nil || now+wait < rings {
				alarm, rings = e.deps.Clock.After(wait), now+wait
			}
			select {
			case <-ctx.Done():
				return nil
			case <-e.queue.wake:
			case <-alarm:
				alarm = nil
			}
		}
		g.Go(func() error {
			defer func() { <-free }()
			err := e.pass(ctx, r)
			now := e.deps.Clock.Mono()
			e.queue.release(r, now+e.until(r, err), now, e.cfg.Quiet)
			for _, c := range done {
				c <- err
			}
			return nil
		})
	}
}

// until is how long after a pass the next one is made.
func (e *Engine) until(r *repository, err error) time.Duration {
	interval := r.source.Interval
	// A tenth of chance keeps repositories apart from each other.
	next := interval - time.Duration(rand.Int64N(int64(interval)/10+1))
	var later *forge.LaterError
	var soon *soonError
	switch {
	case errors.As(err, &soon):
		return min(soon.after, next)
	case err == nil:
		return next
	case errors.As(err, &later) && later.After > 0:
		return min(max(later.After, time.Second), 24*time.Hour)
	}
	return min(next, time.Minute<<min(r.fails, 6))
}

// soonError asks for another pass before the interval is over; the pass itself
// went well.
type soonError struct{ after time.Duration }

func (e *soonError) Error() string { return "more is to be done in " + e.after.String() }

// listLoop finds the repositories of a forge that its globs mean.
func (e *Engine) listLoop(ctx context.Context, s *source) error {
	for fails := 0; ctx.Err() == nil; {
		wait := s.Interval
		if err := e.list(ctx, s); err != nil && ctx.Err() == nil {
			// A forge that is down for a moment is not left alone for an hour.
			wait = min(wait, 10*time.Second<<min(fails, 8))
			fails++
			e.deps.Log.Error("could not list the repositories of a forge; those that are known are watched on", "forge", s.Name, "again in", wait, "err", err)
			e.skip()
		} else {
			fails = 0
		}
		_ = clock.Sleep(ctx, e.deps.Clock, wait)
	}
	return nil
}

func (e *Engine) list(ctx context.Context, s *source) error {
	names, err := s.Forge.Repositories(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !image.MatchAny(s.Repositories, name) || forge.CheckRepository(name) != nil {
			continue
		}
		r, err := e.watch(ctx, s, name)
		if err != nil {
			return err
		}
		if _, planned := e.queue.dueAt(r); !planned && r.record().checked.IsZero() {
			e.queue.plan(r, e.deps.Clock.Mono())
		}
	}
	s.mu.Lock()
	first := s.unlisted
	s.unlisted = false
	s.mu.Unlock()
	if first { // only now: what was found is counted itself
		e.unread.Add(-1)
	}
	return nil
}

func (e *Engine) skip() {
	e.mu.Lock()
	e.counters.Skipped++
	e.mu.Unlock()
}

// pushLoop turns pushes into passes over the repositories that name the image.
func (e *Engine) pushLoop(ctx context.Context) error {
	for {
		pushes, lost, err := e.deps.Pushes.Take(ctx)
		if err != nil {
			return nil
		}
		e.Pushed(pushes, lost)
	}
}

// Close does nothing: Run has ended everything when it returns, and the
// database is its owner's.
func (e *Engine) Close() error { return nil }
