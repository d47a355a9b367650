package catalog

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
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/upstream"
)

// Defaults of a [RemoteConfig].
const (
	DefaultTTL     = 5 * time.Minute
	DefaultAtOnce  = 4
	defaultTimeout = 30 * time.Second
)

// maxHosts bounds the registries that are talked to. Their names come from
// code, which anybody may have written.
const maxHosts = 1000

// A Keychain knows accounts at registries. [keychain.New] returns one.
type Keychain interface {
	// Account is the one to use at a host, or nobody. It is asked whenever one
	// is needed and should remember what is costly to find out.
	Account(ctx context.Context, host string) (upstream.Account, error)
}

// A Registry is one that is configured. Others are asked at their own address,
// with what the keychain has.
type Registry struct {
	Host string // as code calls it: docker.io, registry.example.org:5000
	URL  string // https://<host> when empty; plain http only if it says so
	// Username and one of the password's places; the keychain when empty.
	Username     string
	PasswordFile string
	PasswordEnv  string
	CAFile       string // certificates to trust besides the system's, PEM
}

// RemoteConfig of a [Remote].
type RemoteConfig struct {
	Registries []Registry
	Keychain   Keychain // optional
	Memory     Memory   // [NewMemory] when nil
	Keys       []Key    // for signatures; none are looked for without
	Clock      clock.Clock
	Log        *slog.Logger // slog.Default when nil
	Agent      string       // User-Agent
	Getenv     func(string) string
	// TTL is how long an answer about tags holds: a repository that many name
	// is asked once.
	TTL time.Duration
	// AtOnce bounds the questions on their way to one host.
	AtOnce int
	// Local allows code to name this machine and addresses without a name,
	// and asks the former by plain http, as clients do. Without it only
	// configured ones are asked: a server's neighbours are not for everybody
	// who writes code.
	Local bool
	// Timeout is how long a registry may take to begin an answer.
	Timeout time.Duration
}

// Remote is the catalog of registries that are not ours. It is safe for
// concurrent use.
type Remote struct {
	cfg        RemoteConfig
	clock      clock.Clock
	log        *slog.Logger
	memory     Memory
	signed     *verifier
	configured map[string]Registry

	// Work that several wait for goes on when one of them leaves.
	ctx    context.Context
	stop   context.CancelFunc
	shared singleflight.Group

	mu       sync.Mutex
	hosts    map[string]*host
	listings map[string]*listing
	listed   int // tags in listings
	lookups  map[string]lookup
}

// lookup is an answer about one tag.
type lookup struct {
	digest image.Digest
	until  time.Duration // monotonic
}

// host is one registry being talked to.
type host struct {
	name   string
	client *upstream.Client
	slots  chan struct{}
}

// NewRemote returns a catalog of other registries. It contacts nobody.
func NewRemote(c RemoteConfig) (*Remote, error) {
	if c.Clock == nil {
		return nil, errors.New("catalog: no clock given")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Memory == nil {
		c.Memory = NewMemory()
	}
	if c.Getenv == nil {
		c.Getenv = func(string) string { return "" }
	}
	if c.TTL <= 0 {
		c.TTL = DefaultTTL
	}
	if c.AtOnce <= 0 {
		c.AtOnce = DefaultAtOnce
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	r := &Remote{cfg: c, clock: c.Clock, log: c.Log, memory: c.Memory, signed: newVerifier(c.Keys),
		configured: map[string]Registry{}, hosts: map[string]*host{}, listings: map[string]*listing{}, lookups: map[string]lookup{}}
	r.signed.clock, r.signed.again = c.Clock, c.TTL
	for _, g := range c.Registries {
		g.Host = strings.ToLower(g.Host)
		if err := checkHost(g.Host); err != nil {
			return nil, fmt.Errorf("catalog: %w", err)
		}
		if _, twice := r.configured[g.Host]; twice {
			return nil, fmt.Errorf("catalog: the registry %s is configured twice", g.Host)
		}
		r.configured[g.Host] = g
		if _, err := r.connect(g.Host); err != nil { // says now what is wrong with it
			return nil, fmt.Errorf("catalog: registry %s: %w", g.Host, err)
		}
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r, nil
}

// Close ends what is being asked.
func (r *Remote) Close() error {
	r.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.hosts {
		h.client.Close()
	}
	return nil
}

// Forget drops answers about the tags of a repository, because somebody says
// that there was a push. It believes nothing else of that.
func (r *Remote) Forget(repository string) {
	repository, err := Normal(repository)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.listings[repository]; l != nil {
		l.until = 0 // what it has is still good to compare with
	}
	for k := range r.lookups {
		if strings.HasPrefix(k, repository+":") {
			delete(r.lookups, k)
		}
	}
}

// connect finds the client of a host, or makes it.
func (r *Remote) connect(name string) (*host, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.hosts[name]; h != nil {
		return h, nil
	}
	g, configured := r.configured[name]
	if !configured {
		if !r.cfg.Local && !named(name) {
			return nil, fmt.Errorf("%s is not asked, because it is an address of a machine and no name of a registry: configure it if that is meant", name)
		}
		g.Host = name
		if loopback(name) {
			g.URL = "http://" + name
		}
	}
	if len(r.hosts) >= maxHosts {
		return nil, fmt.Errorf("%s is not asked, because code names more than %d registries: configure those that count", name, maxHosts)
	}
	c := upstream.Config{Host: g.Host, URL: g.URL, Username: g.Username, PasswordFile: g.PasswordFile, PasswordEnv: g.PasswordEnv,
		CAFile: g.CAFile, Getenv: r.cfg.Getenv, Clock: r.clock, Agent: r.cfg.Agent, Timeout: r.cfg.Timeout}
	if k := r.cfg.Keychain; k != nil && g.Username == "" {
		c.Account = func(ctx context.Context) (upstream.Account, error) { return k.Account(ctx, name) }
	}
	client, err := upstream.New(c)
	if err != nil {
		return nil, err
	}
	h := &host{name: name, client: client, slots: make(chan struct{}, r.cfg.AtOnce)}
	r.hosts[name] = h
	return h, nil
}

// place is a repository at its host.
func (r *Remote) place(repository string) (remoteRepository, error) {
	name, repo, err := split(repository)
	if err != nil {
		return remoteRepository{}, err
	}
	h, err := r.connect(name)
	if err != nil {
		return remoteRepository{}, err
	}
	return remoteRepository{host: h, repo: repo, name: name + "/" + repo, stall: r.cfg.Timeout}, nil
}

// Lookup implements [Catalog].
func (r *Remote) Lookup(ctx context.Context, repository, tag string) (image.Digest, error) {
	at, err := r.place(repository)
	if err != nil {
		return "", err
	}
	if err := image.CheckTag(tag); err != nil {
		return "", err
	}
	k := at.name + ":" + tag
	r.mu.Lock()
	known := r.lookups[k]
	r.mu.Unlock()
	if r.clock.Mono() < known.until {
		return known.digest, nil
	}
	d, err := share(ctx, r, "lookup "+k, func(ctx context.Context) (image.Digest, error) {
		d, err := at.resolve(ctx, tag)
		if err != nil {
			return "", err
		}
		// Its time begins when it is first heard of.
		if _, err := r.memory.Digest(ctx, at.name, d, r.clock.Now()); err != nil {
			return "", err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.lookups) >= maxLookups {
			clear(r.lookups)
		}
		r.lookups[k] = lookup{d, r.clock.Mono() + r.cfg.TTL}
		return d, nil
	})
	if err != nil {
		return "", fmt.Errorf("look up %s: %w", k, err)
	}
	return d, nil
}

// maxLookups is how many answers about tags are kept.
const maxLookups = 100_000

// Image implements [Catalog].
func (r *Remote) Image(ctx context.Context, repository string, d image.Digest) (Image, error) {
	at, err := r.place(repository)
	if err != nil {
		return Image{}, err
	}
	if _, err := image.ParseDigest(string(d)); err != nil {
		return Image{}, err
	}
	im, ok, err := r.memory.Facts(ctx, at.name, d)
	if err != nil {
		return Image{}, err
	}
	if !ok {
		im, err = share(ctx, r, "image "+at.name+"@"+string(d), func(ctx context.Context) (Image, error) {
			im, err := describe(ctx, at, d)
			if err != nil {
				return Image{}, err
			}
			if _, err := r.memory.Digest(ctx, at.name, d, r.clock.Now()); err != nil {
				return Image{}, err
			}
			return im, r.memory.Keep(ctx, at.name, im)
		})
		if err != nil {
			return Image{}, fmt.Errorf("describe %s@%s: %w", at.name, d, err)
		}
	}
	if im.Since, err = r.memory.Digest(ctx, at.name, d, r.clock.Now()); err != nil {
		return Image{}, err
	}
	im.Signer, err = share(ctx, r, "signature "+at.name+"@"+string(d), func(ctx context.Context) (string, error) {
		return r.signed.check(ctx, at.name, at, d)
	})
	if err != nil {
		return Image{}, fmt.Errorf("look for signatures on %s@%s: %w", at.name, d, err)
	}
	im.Signed = im.Signer != ""
	return im, nil
}

// share does f once for all who ask for the same at the same time. Who leaves
// does not end it for the others.
func share[T any](ctx context.Context, r *Remote, key string, f func(context.Context) (T, error)) (T, error) {
	done := r.shared.DoChan(key, func() (any, error) { return f(r.ctx) })
	var zero T
	select {
	case <-ctx.Done():
		return zero, context.Cause(ctx)
	case res := <-done:
		if res.Err != nil {
			return zero, res.Err
		}
		return res.Val.(T), nil
	}
}
