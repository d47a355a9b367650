package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/pool"
	"cairn.dev/cairn/internal/upstream"
)

const (
	maxHosts = 1000
	maxTags  = 10_000
	// tagsFor is how long an answer about a tag holds: a thousand tasks of one
	// image are one question.
	tagsFor = time.Minute
	// stall is how long the next bytes of a layer may take.
	stall = time.Minute
)

// Keychain knows accounts at registries. catalog/keychain has one.
type Keychain interface {
	Account(ctx context.Context, host string) (upstream.Account, error)
}

// RemoteConfig of a [Remote].
type RemoteConfig struct {
	// Keychain is optional.
	Keychain Keychain
	Clock    clock.Clock
	Agent    string // User-Agent
	// Configured are registries that are somewhere else than their host says,
	// or have an account that is not in the keychain, by host.
	Configured map[string]upstream.Config
}

// Remote asks registries that are not ours. It is safe for concurrent use.
type Remote struct {
	cfg RemoteConfig

	mu    sync.Mutex
	hosts map[string]*upstream.Client
	tags  map[string]answer
}

// answer is what a tag named until a monotonic time.
type answer struct {
	found pool.Found
	until time.Duration
}

// NewRemote returns a Remote. It contacts nobody.
func NewRemote(c RemoteConfig) (*Remote, error) {
	if c.Clock == nil {
		return nil, errors.New("images of other registries: no clock given")
	}
	return &Remote{cfg: c, hosts: map[string]*upstream.Client{}, tags: map[string]answer{}}, nil
}

// Close closes connections that nobody uses.
func (r *Remote) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.hosts {
		c.Close()
	}
}

// Find is what a reference names in a registry.
func (r *Remote) Find(ctx context.Context, host string, ref image.Reference) (pool.Found, error) {
	key := host + "/" + ref.String()
	r.mu.Lock()
	a, ok := r.tags[key]
	r.mu.Unlock()
	if ok && (ref.Digest != "" || r.cfg.Clock.Mono() < a.until) {
		return a.found, nil
	}
	c, err := r.connect(host)
	if err != nil {
		return pool.Found{}, err
	}
	from := remote{c, host, ref.Repository}
	what := ref.Tag
	if ref.Digest != "" {
		what = string(ref.Digest)
	}
	d, m, err := from.manifest(ctx, what)
	if err != nil {
		return pool.Found{}, err
	}
	f := pool.Found{Name: host + "/" + ref.Repository, Digest: d, Manifest: m, From: from}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.tags) >= maxTags {
		clear(r.tags)
	}
	r.tags[key] = answer{f, r.cfg.Clock.Mono() + tagsFor}
	return f, nil
}

// connect finds the client of a registry, or makes it.
func (r *Remote) connect(host string) (*upstream.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.hosts[host]; c != nil {
		return c, nil
	}
	if len(r.hosts) >= maxHosts {
		return nil, fmt.Errorf("%w: %s is not asked, because tasks named more than %d registries", pool.ErrNoImage, host, maxHosts)
	}
	cfg, configured := r.cfg.Configured[host]
	if !configured {
		cfg = upstream.Config{Host: host, Clock: r.cfg.Clock, Agent: r.cfg.Agent}
		if local(host) {
			cfg.URL = "http://" + host
		}
		if k := r.cfg.Keychain; k != nil {
			cfg.Account = func(ctx context.Context) (upstream.Account, error) { return k.Account(ctx, host) }
		}
	}
	c, err := upstream.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", pool.ErrNoImage, err)
	}
	r.hosts[host] = c
	return c, nil
}

// local reports whether a host is this machine, which clients ask by plain HTTP.
func local(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// remote is one repository of another registry.
type remote struct {
	client *upstream.Client
	host   string
	name   string
}

func (r remote) ask(ctx context.Context, what string) (*http.Response, error) {
	resp, e := r.client.Ask(ctx, upstream.Question{Method: http.MethodGet, Repository: r.name, What: what})
	if e != nil {
		return nil, named(e)
	}
	return resp, nil
}

func (r remote) manifest(ctx context.Context, reference string) (image.Digest, *image.Manifest, error) {
	resp, err := r.ask(ctx, "manifests/"+reference)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	want, err := image.ParseDigest(reference)
	if err != nil { // what it says of a tag has to be so, too
		want, _ = image.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
	}
	body, m, e := r.client.ReadManifest(resp, want)
	if e != nil {
		return "", nil, e
	}
	if want == "" {
		want = digest.FromBytes(body)
	}
	return want, m, nil
}

// Manifest implements [pool.Repository].
func (r remote) Manifest(ctx context.Context, d image.Digest) (*image.Manifest, error) {
	_, m, err := r.manifest(ctx, string(d))
	return m, err
}

// Blob implements [pool.Repository].
func (r remote) Blob(ctx context.Context, d image.Descriptor) (io.ReadCloser, error) {
	ctx, patient, cancel := upstream.Patient(ctx, stall)
	resp, err := r.ask(ctx, "blobs/"+string(d.Digest))
	if err != nil {
		cancel()
		return nil, err
	}
	return &download{patient(resp.Body), cancel}, nil
}

// download ends its request when it is closed.
type download struct {
	io.ReadCloser
	cancel func()
}

func (d *download) Close() error {
	err := d.ReadCloser.Close()
	d.cancel()
	return err
}
