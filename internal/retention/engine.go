package retention

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// Reader is what the engine reads of the registry ([content.Store]).
type Reader interface {
	// Scan calls f with each repository and all its images.
	Scan(ctx context.Context, after string, f func(repo string, images []content.Image) error) error
	ImagesOf(ctx context.Context, repo string) ([]content.Image, error)
	BlobsOf(ctx context.Context, repo string, f func(manifest, blob image.Digest, size int64) error) error
	Pins(ctx context.Context, repo string) ([]content.Pin, error)
}

// Changer is what the engine does to images ([content.Store]).
type Changer interface {
	Expire(ctx context.Context, items []content.Expiry) ([]error, error)
	Revive(ctx context.Context, repo string, d image.Digest, why string) error
	Sweep(ctx context.Context, items []content.Expiry) ([]error, error)
}

// Finder is what [Engine.Why] asks beside ([content.Store]).
type Finder interface {
	Peek(ctx context.Context, repo, ref string) (content.Image, error)
	Audit(ctx context.Context, repo string, before int64, n int) ([]content.AuditEntry, error)
}

// Content is the registry, as far as retention touches it.
type Content interface {
	Reader
	Changer
	Finder
}

// Ledger is what the engine asks of [usage.Ledger]. All of it is answered from
// memory, also within a transaction of the registry.
type Ledger interface {
	// LastUse is a [usage.Lookup].
	LastUse(d image.Digest, repository string) (anywhere, here usage.Use)
	Uses(d image.Digest) []usage.Use
	Uncovered() []usage.Interval
	EverEnrolled() bool
	ClockOK() (ok bool, why string)
}

// A Feed tells which digests came into use ([usage.Ledger] does). If the ledger
// of an engine is one, hidden images that are used come back at once and not
// with the next run.
type Feed interface {
	// Changed are the digests since an earlier call returned next, 0 at first;
	// all means that there were too many to say.
	Changed(since uint64) (digests []image.Digest, next uint64, all bool)
}

// An Owner is a part of Cairn that owns facts about what is in use now, such
// as code and runs. Pins are asked of the content itself.
type Owner interface {
	// InUse returns what is in use now in the repository. An error keeps the
	// whole repository as it is.
	InUse(ctx context.Context, repository string) (map[image.Digest][]usage.Use, error)
}

// Memory remembers one word across restarts: which policies were applied last.
type Memory interface {
	Applied(ctx context.Context) (string, error) // "" when none were
	SetApplied(ctx context.Context, fingerprint string) error
}

// Config of an [Engine]. Zero durations take the defaults of this package.
type Config struct {
	Policies []Policy
	// Explicit: the policies come from the user and not from a default. While
	// they do not, and no reporter was ever enrolled, the engine only plans.
	Explicit bool
	Interval time.Duration // between two runs of the loop
	Keep     time.Duration // covered time that hidden images are kept
	// WarnWithin is how long before its end Expires begins to name an image.
	WarnWithin time.Duration
}

// Deps are what an [Engine] works with. Memory may be nil: then policies count
// as changed at every start.
type Deps struct {
	Content Content
	Ledger  Ledger
	Owners  []Owner
	Memory  Memory
	Clock   clock.Clock
	Log     *slog.Logger
}

// An Engine plans and executes retention. It is safe for concurrent use; runs
// come one after the other, plans and explanations at any time.
type Engine struct {
	cfg         Config
	deps        Deps
	fingerprint string

	running sync.Mutex // held by a run

	soon   atomic.Pointer[map[uint64]int64] // see Expires
	hidden atomic.Pointer[hiddenIndex]
	seen   uint64 // of the feed; guarded by running

	mu     sync.Mutex
	status Status
	totals Counters
}

// New returns an engine that does nothing until [Engine.Run] or
// [Engine.RunOnce].
func New(cfg Config, deps Deps) *Engine {
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Keep <= 0 {
		cfg.Keep = DefaultKeep
	}
	if cfg.WarnWithin <= 0 {
		cfg.WarnWithin = DefaultWarnWithin
	}
	if deps.Clock == nil {
		deps.Clock = clock.Real()
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Memory == nil {
		deps.Memory = &forgetful{}
	}
	for i := range cfg.Policies {
		if p := &cfg.Policies[i]; p.Name == "" {
			p.Name = joinGlobs(p.Repositories)
		}
	}
	e := &Engine{cfg: cfg, deps: deps, fingerprint: Fingerprint(cfg.Policies)}
	e.soon.Store(&map[uint64]int64{})
	e.hidden.Store(newHiddenIndex())
	return e
}

func joinGlobs(gs []string) string {
	s := ""
	for i, g := range gs {
		if i > 0 {
			s += ","
		}
		s += g
	}
	return s
}

// look is how often the loop asks the feed for uses of hidden images.
const look = 2 * time.Second

// Run plans and executes now and at every interval, and in between brings back
// hidden images that are used, until ctx ends. It returns nil then.
func (e *Engine) Run(ctx context.Context) error {
	for {
		if _, err := e.run(ctx, RunOptions{}, true); err != nil && ctx.Err() == nil {
			e.deps.Log.Error("retention run failed; it is tried again at the next interval", "err", err)
		}
		due := e.deps.Clock.Mono() + e.cfg.Interval
		e.set(func(s *Status) { s.NextRun = e.deps.Clock.Now().Add(e.cfg.Interval) })
		for {
			left := due - e.deps.Clock.Mono()
			if left <= 0 {
				break
			}
			if clock.Sleep(ctx, e.deps.Clock, min(left, look)) != nil {
				return nil
			}
			if err := e.ReviveUsed(ctx); err != nil && ctx.Err() == nil {
				e.deps.Log.Error("could not bring back used images; tried again at the next run", "err", err)
			}
		}
	}
}

// Expires says when the image goes, for images that go within
// [Config.WarnWithin] by the last run's plan. It takes no lock.
func (e *Engine) Expires(repository string, d image.Digest) (time.Time, bool) {
	at, ok := (*e.soon.Load())[key(repository, d)]
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(at, 0).UTC(), true
}

func (e *Engine) set(f func(*Status)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.status)
}

// planningOnly: the engine has not been told to delete anything.
func (e *Engine) planningOnly() bool { return !e.cfg.Explicit && !e.deps.Ledger.EverEnrolled() }
