// Package reap applies retention to registries that are not Cairn's.
//
// It owns the first sight of every image there (an image's time starts when
// Cairn first saw it, never at a date it bears), the plan for one repository
// there at a time, its execution, and the list from which what was deleted is
// pushed again. It promises that nothing is deleted unless asked for; that
// nothing goes before a whole `after` of covered time has passed since its
// first sight; that a use of a digest keeps it, whatever repository the use
// names, and everything made of it; that all doubt counts, whatever its scope;
// that a repository about which the registry answers in part, or which changes
// while it is looked at, stays as it is; that each image is judged and its tags
// are resolved again right before it goes; and that its manifest is on disk
// here by then. It does not see images that no tag leads to, because the
// distribution protocol does not list them, and deletes no blobs: that is the
// other registry's collection.
package reap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/upstream"
	"cairn.dev/cairn/internal/usage"
)

// DefaultPerHour is how many images are deleted in an hour at most.
const DefaultPerHour = 100

// timeout is how long a registry may take to begin an answer. Nobody's pull
// waits for it.
const timeout = 30 * time.Second

// A Ledger knows uses and doubt. *usage.Ledger is one.
type Ledger interface {
	LastUse(d image.Digest, repository string) (anywhere, here usage.Use)
	Uncovered() []usage.Interval
	Reporters() []usage.Reporter
	ClockOK() (ok bool, why string)
}

// Pins knows what people want to keep. *content.Store is one.
type Pins interface {
	Pins(ctx context.Context, repository string) ([]content.Pin, error)
}

// Config of a [Reaper].
type Config struct {
	// Policies: the first that matches "<host>/<repository>" decides, with the
	// colon of a port written as '_'. MaxBytes is not applied.
	Policies []retention.Policy
	// Agent is what registries see as User-Agent.
	Agent string
	// Getenv gives the keys of clouds; none when nil.
	Getenv func(string) string
}

// Deps are what a [Reaper] works with.
type Deps struct {
	DB     *db.DB // with [Schema]; the reaper does not close it
	Ledger Ledger
	Pins   Pins
	// Owners are asked for "<host>/<repository>", as policies are.
	Owners []retention.Owner
	Clock  clock.Clock
	Log    *slog.Logger // slog.Default when nil
}

// A Reaper is safe for concurrent use; runs come one after the other.
type Reaper struct {
	cfg     Config
	deps    Deps
	memory  *memory
	running sync.Mutex
}

// New returns a reaper. It contacts nobody.
func New(cfg Config, deps Deps) (*Reaper, error) {
	if deps.DB == nil || deps.Ledger == nil || deps.Pins == nil || deps.Clock == nil {
		return nil, errors.New("reap: a database, a ledger, pins and a clock are needed")
	}
	if cfg.Getenv == nil {
		cfg.Getenv = func(string) string { return "" }
	}
	if deps.Log == nil {
		deps.Log = slog.Default()
	}
	return &Reaper{cfg: cfg, deps: deps, memory: &memory{deps.DB}}, nil
}

// An Account is how to reach and sign on to a registry.
type Account struct {
	// Registry is its URL: https://registry.example.org.
	Registry string
	Username string
	Password string
}

// A Request asks for one run.
type Request struct {
	Account
	// Repositories are globs of names there, without the host; all when empty.
	// Without '*' and '?' they are names, and nothing is asked for a list.
	Repositories []string
	// Delete what the plan says; else it is only told.
	Delete bool
	// PerHour bounds deletions in any hour; DefaultPerHour when zero.
	PerHour int
}

// A Sink is told what happens, in order. An error of it ends the run.
type Sink interface {
	// Decided is called for every image that can be seen.
	Decided(*Decision) error
	// Skipped: the repository stays as it is.
	Skipped(Skipped) error
	// Deleted is called for every image that went.
	Deleted(Record) error
}

// A Decision is what retention says of an image there.
type Decision struct {
	retention.Decision
	// FirstSeen is when Cairn first saw it, or the newest of its tags.
	FirstSeen time.Time

	since time.Duration // first seen
}

// Skipped is a repository, or an image in it, that stays as it is although the
// plan may say otherwise.
type Skipped struct {
	Repository string       `json:"repository"`
	Digest     image.Digest `json:"digest,omitempty"`
	Why        string       `json:"why"`
}

// A Record is what it takes to push a deleted image again.
type Record struct {
	Registry   string       `json:"registry"` // URL
	Repository string       `json:"repository"`
	Digest     image.Digest `json:"digest"`
	MediaType  string       `json:"media_type"`
	Tags       []string     `json:"tags"`
	At         time.Time    `json:"at"`
	Reason     string       `json:"reason,omitempty"`
	Manifest   []byte       `json:"manifest"` // as it was, in base64
}

// A Summary says what a run found and did.
type Summary struct {
	Registry     string    `json:"registry"`
	At           time.Time `json:"at"`
	DryRun       bool      `json:"dry_run"`
	Repositories int       `json:"repositories"` // looked at in whole
	Skipped      int       `json:"skipped"`      // repositories that stay as they are for a reason
	Images       int       `json:"images"`
	Keep         int       `json:"keep"`
	Expire       int       `json:"expire"`
	ExpireBytes  int64     `json:"expire_bytes"` // what images share is counted each time
	Deleted      int       `json:"deleted"`
	Changed      int       `json:"changed"` // were used or moved meanwhile, and stay
	Failed       int       `json:"failed"`
	// Waiting would have gone but for the limit of deletions in an hour, which
	// leaves room again at Again.
	Waiting int       `json:"waiting"`
	PerHour int       `json:"per_hour"`
	Again   time.Time `json:"again,omitzero"`
	// Held says why nothing may be deleted now, if that is so.
	Held string `json:"held,omitempty"`
}

// Errors that callers tell apart.
var (
	// ErrRunning: another run is under way.
	ErrRunning = errors.New("another reap is under way: wait until it ends")
	// ErrRequest: the request makes no sense.
	ErrRequest = errors.New("bad request")
)

func badRequest(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRequest, fmt.Sprintf(format, args...))
}

// A place is one registry, being talked to.
type place struct {
	url    string // as it was given, without a path
	host   string // with its port
	client *upstream.Client
	driver driver
}

// locate reads the URL of a registry.
func locate(registry string) (*place, error) {
	s := registry
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return nil, badRequest("%.200q is no URL of a registry: write https://registry.example.org, and what comes after that as repositories", registry)
	}
	host := strings.ToLower(u.Host)
	return &place{host: host, url: u.Scheme + "://" + host}, nil
}

// open prepares to talk to a registry.
func (r *Reaper) open(ctx context.Context, a Account) (*place, error) {
	p, err := locate(a.Registry)
	if err != nil {
		return nil, err
	}
	if p.driver, a, err = pickDriver(ctx, p.host, a, r.cfg.Getenv, r.deps.Clock, r.cfg.Agent); err != nil {
		return nil, err
	}
	if p.driver == nil {
		p.driver = oci{p}
	}
	p.client, err = upstream.New(upstream.Config{Host: p.host, URL: p.url, Username: a.Username, Password: a.Password,
		Getenv: func(string) string { return "" }, Clock: r.deps.Clock, Agent: r.cfg.Agent, Timeout: timeout})
	if err != nil {
		return nil, badRequest("%v", err)
	}
	return p, nil
}

// name is what a repository there is called in policies and by owners: as a
// copy of it would be called here.
func (p *place) name(repository string) string {
	return strings.ReplaceAll(p.host, ":", "_") + "/" + repository
}

// Run looks at a registry, says what retention would do there, and does it if
// the request says so. The error says why the run as a whole ended early; what
// concerns one repository is told to the sink and counted.
func (r *Reaper) Run(ctx context.Context, q Request, sink Sink) (Summary, error) {
	x := &run{r: r, q: q, sink: sink}
	x.sum = Summary{DryRun: !q.Delete, At: r.deps.Clock.Now(), PerHour: q.PerHour}
	if q.PerHour < 0 {
		return x.sum, badRequest("%d deletions an hour: write how many at most", q.PerHour)
	}
	if q.PerHour == 0 {
		x.sum.PerHour = DefaultPerHour
	}
	for _, g := range q.Repositories {
		if err := image.CheckGlob(g); err != nil {
			return x.sum, badRequest("%v", err)
		}
	}
	var err error
	if x.at, err = r.open(ctx, q.Account); err != nil {
		return x.sum, err
	}
	defer x.at.client.Close()
	x.sum.Registry = x.at.url
	if !r.running.TryLock() {
		return x.sum, ErrRunning
	}
	defer r.running.Unlock()
	err = x.all(ctx)
	if x.sum.Deleted+x.sum.Failed > 0 {
		r.deps.Log.Info("reaped", "registry", x.at.url, "deleted", x.sum.Deleted, "changed", x.sum.Changed, "failed", x.sum.Failed, "waiting", x.sum.Waiting)
	}
	return x.sum, err
}

// run is one Run.
type run struct {
	r    *Reaper
	q    Request
	sink Sink
	at   *place
	sum  Summary
}

// all goes over the repositories.
func (x *run) all(ctx context.Context) error {
	repos, err := x.repositories(ctx)
	if err != nil {
		return err
	}
	x.sum.Held = x.held()
	if err := x.r.memory.prune(ctx, x.r.deps.Clock.Now()); err != nil {
		return err
	}
	for _, repo := range repos {
		err := x.repository(ctx, repo)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var s *skip
		switch {
		case errors.As(err, &s):
			x.sum.Skipped++
			if err := x.sink.Skipped(Skipped{Repository: repo, Why: s.why}); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
	return nil
}

// skip ends the work on one repository, and not the run.
type skip struct{ why string }

func (s *skip) Error() string { return s.why }

func skipf(format string, args ...any) error { return &skip{fmt.Sprintf(format, args...)} }

// repositories are the names to look at.
func (x *run) repositories(ctx context.Context) ([]string, error) {
	globs := false
	for _, g := range x.q.Repositories {
		globs = globs || strings.ContainsAny(g, "*?")
	}
	if !globs && len(x.q.Repositories) > 0 {
		for _, n := range x.q.Repositories {
			if err := image.CheckRepository(n); err != nil {
				return nil, badRequest("%v", err)
			}
		}
		return x.q.Repositories, nil
	}
	all, err := x.at.driver.repositories(ctx, x.q.Repositories)
	if err != nil {
		return nil, fmt.Errorf("list the repositories of %s: %w; nothing was deleted. Name them one by one if it does not list them", x.at.host, err)
	}
	var out []string
	for _, n := range all {
		if err := image.CheckRepository(n); err != nil {
			return nil, fmt.Errorf("list the repositories of %s: %w; nothing was deleted", x.at.host, err)
		}
		if len(x.q.Repositories) == 0 || image.MatchAny(x.q.Repositories, n) {
			out = append(out, n)
		}
	}
	return out, nil
}
