// Package mirror keeps copies of images that live in other registries, so
// that nodes keep starting when those do not answer.
//
// It owns the clients of the upstream registries, with their sign-on, their
// patience and their bad days; which name here is whose there; and images on
// their way in. It promises one question per tag and ttl, one download per
// blob however many wait for it, that nobody receives the end of a blob whose
// bytes do not have its digest, that no manifest is served which its upstream
// did not vouch for by digest and shape, that what is here is served when the
// upstream fails, and that only configured hosts are ever contacted. A tag here
// moves only once the image it moves to is here, as far as it was asked for.
// It does not speak HTTP to clients (registry), does not decide who may cause
// a download (access), and keeps nothing on disk but what content keeps for it:
// a restart forgets only images that were not here in whole, and they are
// asked for again.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// Defaults of an [Upstream] and of a [Config].
const (
	DefaultTTL     = time.Minute
	DefaultMaxBlob = 64 << 30
	// defaultTimeout is how long an upstream may take to begin an answer. A
	// node waits for it when there is a copy, so it is short.
	defaultTimeout = 10 * time.Second
	// defaultStall is how long an upstream may take for the next bytes.
	defaultStall = 30 * time.Second
	// ahead is how many blobs are fetched at once that nobody waits for yet.
	ahead = 4
)

// An Upstream is one registry that is mirrored.
type Upstream struct {
	// Host is what clients call it: docker.io, ghcr.io, registry.local:5000.
	// Its repositories are called <host>/… here; the colon of a port, which
	// no name may have, is written as '_'.
	Host string
	// URL is where it is; https://<host> when empty, and Docker Hub's own for
	// docker.io. A path in it goes before the repository names there. Plain
	// http is spoken only if the URL says so.
	URL   string
	TTL   time.Duration // how long an answer about a tag holds; DefaultTTL when zero
	Allow []string      // globs of repository names there; all when empty
	// Username and one of the password's places. They are read again whenever
	// they are needed, because some passwords (ECR's) change.
	Username     string
	PasswordFile string
	PasswordEnv  string
	CAFile       string // certificates to trust besides the system's, PEM
	// Offline: never contact it. What is here is served, and pushes are how it
	// gets here.
	Offline bool
	MaxBlob int64 // bytes; DefaultMaxBlob when zero
}

// Config of a [Mirror].
type Config struct {
	Content   *content.Store
	Clock     clock.Clock
	Log       *slog.Logger // slog.Default when nil
	Upstreams []Upstream
	// Own are hosts under which this registry itself is known: a question for
	// one of them is for what is stored here.
	Own    []string
	Getenv func(string) string // for PasswordEnv
	// Agent is what upstreams see as User-Agent.
	Agent string
	// Timeout and Stall are for tests: the first bytes and the next ones.
	Timeout, Stall time.Duration
}

// A Mirror is safe for concurrent use.
type Mirror struct {
	cfg      Config
	content  *content.Store
	clock    clock.Clock
	log      *slog.Logger
	byHost   map[string]*source
	byPrefix map[string]*source

	// Downloads go on when those who wait for them leave: work ends with stop.
	ctx  context.Context
	stop context.CancelFunc
	work sync.WaitGroup
	slot chan struct{} // one token per download ahead of demand

	manifests singleflight.Group
	mu        sync.Mutex
	closed    bool
	tags      map[string]*tag
	lists     map[string]list
	fetches   map[string]*fetch
	pending   *pending
}

// New returns a mirror of the upstreams. It contacts nobody.
func New(cfg Config) (*Mirror, error) {
	if cfg.Content == nil || cfg.Clock == nil {
		return nil, errors.New("mirror: no content or no clock given")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Getenv == nil {
		cfg.Getenv = func(string) string { return "" }
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Stall <= 0 {
		cfg.Stall = defaultStall
	}
	m := &Mirror{cfg: cfg, content: cfg.Content, clock: cfg.Clock, log: cfg.Log, byHost: map[string]*source{}, byPrefix: map[string]*source{},
		slot: make(chan struct{}, ahead), tags: map[string]*tag{}, lists: map[string]list{}, fetches: map[string]*fetch{}, pending: newPending()}
	for _, c := range cfg.Upstreams {
		u, err := newSource(cfg, c)
		if err != nil {
			return nil, fmt.Errorf("mirror of %s: %w", c.Host, err)
		}
		if m.byHost[u.Host] != nil {
			return nil, fmt.Errorf("mirror of %s: it is configured twice", u.Host)
		}
		m.byHost[u.Host], m.byPrefix[u.prefix] = u, u
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m, nil
}

// Close ends what is being fetched and waits for it.
func (m *Mirror) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	m.work.Wait()
	for _, u := range m.byHost {
		u.client.Close()
	}
	return nil
}

// spawn runs f unless the mirror is closed. Hold mu.
func (m *Mirror) spawn(f func()) bool {
	if m.closed {
		return false
	}
	m.work.Go(f)
	return true
}

// Prefix is the first part of the names that images of a host have here.
func Prefix(host string) string { return strings.ReplaceAll(strings.ToLower(host), ":", "_") }

// Name is what a repository is called here that a client asked for, with ns
// the host it believes to talk to (distribution-spec, "Registry Proxying"), or "".
// The error is an [*Error].
func (m *Mirror) Name(ns, repository string) (string, error) {
	u := m.byPrefix[firstPart(repository)]
	if ns != "" {
		ns = strings.ToLower(ns)
		for _, own := range m.cfg.Own {
			if ns == own {
				ns = ""
			}
		}
	}
	if ns != "" {
		if u = m.byHost[ns]; u == nil {
			return "", &Error{Kind: UnknownHost, Host: ns, Why: fmt.Sprintf("%.80s is not mirrored here: an operator can add it to the key mirrors of cairn.yaml", ns)}
		}
		repository = u.prefix + "/" + repository
	}
	if u == nil {
		return repository, nil
	}
	// Docker Hub's own images have a first part that people leave out.
	if rest := repository[len(u.prefix)+1:]; u.Host == dockerHub && rest != "" && !strings.Contains(rest, "/") {
		repository = u.prefix + "/library/" + rest
	}
	return repository, nil
}

func firstPart(repository string) string {
	first, _, ok := strings.Cut(repository, "/")
	if !ok {
		return "" // a repository here may be called like a host
	}
	return first
}

// A Place is where what a client asked for is here.
type Place struct {
	Repository string
	Mirrored   bool // it is a copy
	Writable   bool // clients may push to it
}

// Locate finds the place of a repository that a client asked for; see
// [Mirror.Name]. The error is an [*Error].
func (m *Mirror) Locate(ns, repository string) (Place, error) {
	name, err := m.Name(ns, repository)
	if err != nil {
		return Place{}, err
	}
	p := Place{Repository: name}
	p.Mirrored, p.Writable = m.Mirrors(name)
	return p, nil
}

// Mirrors reports whether the repository is a copy, and whether clients may
// push to it nevertheless.
func (m *Mirror) Mirrors(repository string) (mirrored, writable bool) {
	u := m.byPrefix[firstPart(repository)]
	return u != nil, u == nil || u.Offline
}

// upstreamOf is whose copy the repository is, and what it is called there. The
// error is an [*Error].
func (m *Mirror) upstreamOf(repository string) (u *source, there string, err error) {
	u = m.byPrefix[firstPart(repository)]
	if u == nil {
		return nil, "", &Error{Kind: NotFound, Why: repository + " is not below a host that is mirrored here"}
	}
	there = repository[len(u.prefix)+1:]
	switch {
	case u.Offline:
		return u, there, &Error{Kind: NotFound, Host: u.Host, Why: u.Host + " is not asked, because its mirror is set offline: push the image here, or pull it while the mirror is not offline"}
	case !image.MatchAny(u.Allow, there):
		return u, there, &Error{Kind: NotAllowed, Host: u.Host, Why: fmt.Sprintf("%s of %s may not be fetched: the key allow of its mirror names %s", there, u.Host, strings.Join(u.Allow, ", "))}
	}
	return u, there, nil
}

// actor is who changes what the mirror changes, in the audit log.
func (u *source) actor() string { return "mirror of " + u.Host }
