// Package agent tells a Cairn server which images are in use where it runs.
//
// It owns what a use looks like from outside a registry ([ParseImageID],
// [Subject], [Stem]), how a place that is looked at becomes a statement
// ([Compose], pure), and the promise to speak: [Agent] states what is in use
// once in every period, tells starts and ends within a second, and keeps what
// it could not deliver until it can. It promises that it says nothing rather
// than something that may be wrong: a [Source] that is not sure makes it
// silent, and the server then deletes nothing. It does not know Kubernetes or
// a container runtime, which are the packages below it, and never asks a node
// or a cluster to do anything.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

const (
	// DefaultPeriod is how often an agent speaks unless told otherwise.
	DefaultPeriod = time.Minute
	// MaxPart is how many uses go into one request. The server takes ten times
	// as many; small ones keep a slow link from timing out.
	MaxPart = 10_000
	// coalesce is how long starts wait for company before they are sent.
	coalesce = 250 * time.Millisecond
	// sendTimeout bounds one round of requests to the server.
	sendTimeout = 2 * time.Minute
	minBackoff  = time.Second
)

// A Source looks at one place: a cluster, or the runtime of a node.
type Source interface {
	// Run watches the place until ctx ends, and calls seen for what starts and
	// what ends, dated, as soon as it is known. seen does not block. An error
	// is for what cannot get better by itself.
	Run(ctx context.Context, seen func(...usage.Use)) error
	// Snapshot is all that is in use now. It fails when that is not known for
	// sure, such as before the first full list or without a connection.
	Snapshot(ctx context.Context) (Snapshot, error)
}

// A Snapshot is what a place uses at one moment. The agent owns it.
type Snapshot struct {
	Uses      []usage.Use      // At is not read; the same one may come many times
	Wanted    []Wanted         // by reference, to be resolved by the server
	Platforms []usage.Platform // of the nodes
}

// Wanted is an image that a workload names by tag, whether or not it runs.
type Wanted struct {
	Reference string
	Subject   string
}

// A Sink takes statements. Errors it returns are temporary to the agent,
// whatever they are: it tries again, later and later.
type Sink interface {
	Report(ctx context.Context, s usage.Statement) (usage.Receipt, error)
	// Resolve says which digests the references name at the server; those it
	// has no image for are left out.
	Resolve(ctx context.Context, references []string) (map[string][]image.Digest, error)
}

// Config of an [Agent].
type Config struct {
	// Reporter is the name to speak under: of the cluster or host.
	Reporter string
	// Period between statements; DefaultPeriod when zero.
	Period time.Duration
	// Dated: promise nothing. What is in use is told as uses that happened,
	// once in every period, and nobody misses this agent when it goes away. For
	// nodes of a cluster whose own agent is the one that is missed.
	Dated bool
	// Sources of uses that a statement speaks for.
	Sources []usage.Source
	// MaxSpool is how many uses are kept while the server is away; 200,000
	// when zero. Beyond, the oldest go: the agent was silent then, which the
	// server knows and counts as doubt.
	MaxSpool int
}

// Deps of an [Agent].
type Deps struct {
	Source Source
	Sink   Sink
	Clock  clock.Clock
	Log    *slog.Logger
	// Jitter is a random number in [0,1) that keeps agents apart;
	// rand.Float64 when nil.
	Jitter func() float64
}

// An Agent reports one place to one server. Its methods are safe for
// concurrent use.
type Agent struct {
	cfg    Config
	source Source
	sink   Sink
	clock  clock.Clock
	log    *slog.Logger
	jitter func() float64
	spool  *spool
	names  *resolver
	wake   chan struct{} // something was spooled

	// Only Run uses these.
	inForce string // name of the statement the server acknowledged
	before  []usage.Use
	beforeT time.Time

	mu     sync.Mutex
	status Status
}

// New returns an agent that does nothing until [Agent.Run].
func New(cfg Config, d Deps) (*Agent, error) {
	if cfg.Reporter == "" {
		return nil, errors.New("an agent needs the name of the cluster or host it speaks for")
	}
	if cfg.Period == 0 {
		cfg.Period = DefaultPeriod
	}
	if cfg.Period < usage.MinPeriod || cfg.Period > usage.MaxPeriod {
		return nil, fmt.Errorf("period %s is outside %s to %s", cfg.Period, usage.MinPeriod, usage.MaxPeriod)
	}
	if len(cfg.Sources) == 0 {
		cfg.Sources = []usage.Source{usage.Container, usage.Workload}
	}
	if cfg.MaxSpool == 0 {
		cfg.MaxSpool = 200_000
	}
	if d.Jitter == nil {
		d.Jitter = rand.Float64
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	a := &Agent{cfg: cfg, source: d.Source, sink: d.Sink, clock: d.Clock, log: d.Log, jitter: d.Jitter,
		spool: newSpool(cfg.MaxSpool), wake: make(chan struct{}, 1)}
	a.names = newResolver(d.Sink, d.Clock, d.Jitter)
	a.status.Started = d.Clock.Now()
	return a, nil
}

// Run reports until ctx ends, or the source fails for good.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- a.source.Run(ctx, a.seen) }()
	err := a.loop(ctx, failed)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil
	}
	return err
}

// seen spools what a source saw and wakes the loop.
func (a *Agent) seen(uses ...usage.Use) {
	if a.spool.add(uses...) {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

// loop is the only one who talks to the server. Events go out after coalesce,
// statements by the period, and both wait while the server does not answer.
func (a *Agent) loop(ctx context.Context, failed <-chan error) error {
	var (
		due   = a.clock.After(0) // the next statement
		flush <-chan time.Time   // the next delivery of events
		wait  time.Duration      // backoff; 0 when the last call succeeded
	)
	for {
		wake := a.wake
		if flush != nil || wait > 0 { // it goes out already, or nothing does
			wake = nil
		}
		select {
		case <-ctx.Done():
			a.farewell()
			return ctx.Err()
		case err := <-failed:
			if err == nil {
				err = errors.New("the source ended")
			}
			return err
		case <-wake:
			flush = a.clock.After(coalesce)
			continue
		case <-flush:
			flush = nil
			if err := a.deliver(ctx); err == nil {
				continue
			} else if wait = a.failed(wait, err); wait > 0 {
				due = a.clock.After(wait)
			}
		case <-due:
			flush = nil
			err := a.state(ctx)
			switch {
			case err == nil:
				wait, due = 0, a.clock.After(a.next())
			case errors.As(err, new(*unsure)):
				// Not the server's fault: look again soon, and let events out.
				wait, due = 0, a.clock.After(min(a.cfg.Period, 5*time.Second))
				a.silent(err)
			default:
				wait = a.failed(wait, err)
				due = a.clock.After(wait)
			}
		}
	}
}

// next is when to speak again: a little before the period ends, not all agents
// at once.
func (a *Agent) next() time.Duration {
	return time.Duration(float64(a.cfg.Period) * (0.85 + 0.1*a.jitter()))
}

// failed notes that the server did not take something and returns how long to
// wait: twice as long each time, up to the period, with half of it random.
func (a *Agent) failed(wait time.Duration, err error) time.Duration {
	wait = min(max(2*wait, minBackoff), a.cfg.Period)
	a.mu.Lock()
	a.status.Failures++
	first := a.status.Error == ""
	a.status.Error = err.Error()
	a.mu.Unlock()
	a.log.Log(context.Background(), levelOf(first), "the server did not take the report; trying again", "err", err, "in", wait, "waiting_uses", a.spool.len())
	return max(time.Duration(float64(wait)*(0.5+0.5*a.jitter())), minBackoff/2)
}

// levelOf keeps an outage of hours from filling the log with warnings.
func levelOf(first bool) slog.Level {
	if first {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// farewell delivers what is left when the process is told to end. The
// statement stays in force until the server misses the next one.
func (a *Agent) farewell() {
	if a.spool.len() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = a.deliver(ctx)
}

// deliver sends what is spooled as dated uses.
func (a *Agent) deliver(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	for {
		batch := a.spool.take(MaxPart)
		if len(batch) == 0 {
			return nil
		}
		rc, err := a.sink.Report(ctx, usage.Statement{Reporter: a.cfg.Reporter, Uses: batch})
		if err != nil {
			a.spool.add(batch...)
			return fmt.Errorf("report %d uses: %w", len(batch), err)
		}
		a.delivered(rc, len(batch))
	}
}

// state looks and says what is in use.
func (a *Agent) state(ctx context.Context) error {
	snap, err := a.source.Snapshot(ctx)
	now := a.clock.Now()
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if err != nil {
		_ = a.deliver(ctx) // what happened is true all the same
		return &unsure{err}
	}
	found, sure := a.names.resolve(ctx, snap.Wanted)
	uses := Compose(snap.Uses, snap.Wanted, found)
	a.remember(uses, now)
	if err := a.deliver(ctx); err != nil {
		return err
	}
	if err := a.say(ctx, uses, snap.Platforms, sure); err != nil {
		return err
	}
	a.spoke(len(uses), sure)
	return nil
}

// remember spools what was in use when last looked and is not any more: it was
// in use at least until then. While the server is away that is the only trace.
func (a *Agent) remember(uses []usage.Use, now time.Time) {
	for _, u := range Gone(a.before, uses) {
		u.At = a.beforeT
		a.spool.add(u)
	}
	a.before, a.beforeT = uses, now
}

// say sends the statement. Not sure means that it may lack something: then
// what was stated before stays in force beside it.
func (a *Agent) say(ctx context.Context, uses []usage.Use, platforms []usage.Platform, sure bool) error {
	if a.cfg.Dated || !sure {
		s := usage.Statement{Reporter: a.cfg.Reporter}
		if !a.cfg.Dated {
			s.Period = a.cfg.Period
		}
		a.inForce = ""
		for first := true; first || len(uses) > 0; first = false {
			n := min(len(uses), MaxPart)
			s.Uses, uses = uses[:n], uses[n:]
			if n == 0 && a.cfg.Dated {
				return nil // nothing happened, and nobody waits for us
			}
			if _, err := a.sink.Report(ctx, s); err != nil {
				return fmt.Errorf("report what is in use: %w", err)
			}
		}
		return nil
	}
	name := Name(uses)
	if name == a.inForce {
		_, err := a.sink.Report(ctx, usage.Statement{Reporter: a.cfg.Reporter, Period: a.cfg.Period, SameAs: name, Platforms: platforms})
		if err == nil || !errors.Is(err, usage.ErrUnknownStatement) {
			return wrap(err, "restate what is in use")
		}
		a.inForce = "" // the server restarted: in full
	}
	parts := Parts(usage.Statement{Reporter: a.cfg.Reporter, Period: a.cfg.Period, Complete: true, Sources: slices.Clone(a.cfg.Sources), Statement: name, Platforms: platforms, Uses: uses}, MaxPart)
	applied := false
	for _, p := range parts {
		rc, err := a.sink.Report(ctx, p)
		if err != nil {
			return fmt.Errorf("report what is in use, part %d of %d: %w", p.Part, p.Parts, err)
		}
		for _, w := range rc.Warnings {
			a.log.Warn("the server took the report differently: " + w)
		}
		applied = rc.Applied
	}
	if !applied {
		return fmt.Errorf("report what is in use: the server misses a part of statement %s", name)
	}
	a.inForce = name
	return nil
}

func wrap(err error, tried string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", tried, err)
}

// unsure is why the agent keeps silent.
type unsure struct{ error }

func (e *unsure) Unwrap() error { return e.error }

// Look looks once, without a word to the server but to ask what tags name, and
// returns what a statement would say. It waits for the source to be sure until
// ctx ends. unresolved are references that the server was not asked for, or
// has no image for.
func (a *Agent) Look(ctx context.Context) (uses []usage.Use, unresolved []Wanted, err error) {
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- a.source.Run(watch, func(...usage.Use) {}) }()
	for {
		snap, err := a.source.Snapshot(ctx)
		if err == nil {
			found, _ := a.names.resolve(ctx, snap.Wanted)
			for _, w := range snap.Wanted {
				if len(found[w.Reference]) == 0 {
					unresolved = append(unresolved, w)
				}
			}
			return Compose(snap.Uses, snap.Wanted, found), unresolved, nil
		}
		select {
		case e := <-failed:
			return nil, nil, errors.Join(e, err)
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("%w (%w)", err, ctx.Err())
		case <-a.clock.After(100 * time.Millisecond):
		}
	}
}
