// Package serve wires the rooms into a process: `cairn serve`.
//
// It owns the data folder as a whole (its lock, its version and which file is
// whose), the listener and what answers where on it, the order in which parts
// start and stop, the metrics and the access log. It promises that a data
// folder is never used by two processes or by a Cairn too old for it, that a
// stop lets running requests end and writes down what memory knows, and that
// the program ends when a part of it fails. It decides nothing about images.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/bump"
	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/mirror"
	"cairn.dev/cairn/internal/reap"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/usage"
)

// drain is how long running requests may take to end after a stop. A push that
// takes longer is cut off; its client resumes or repeats it.
const drain = 20 * time.Second

// Config of a server: the settings of cairn.yaml, and what only a flag says.
type Config struct {
	config.Config
	// Pprof is a loopback address for profiles; none when empty.
	Pprof string
}

// Deps of a server. All but Clock have defaults that do nothing.
type Deps struct {
	Clock  clock.Clock
	Log    *slog.Logger
	Stdout io.Writer // for the admin secret, once
	// Version is what the API and the front page show; see [Version].
	Version wire.Version
}

// A Server is Cairn as one process.
type Server struct {
	cfg  Config
	deps Deps
	log  *slog.Logger

	dir       *DataDir
	closers   []func() error // in the order of opening
	content   *content.Store
	ledger    *usage.Ledger
	retention *retention.Engine
	guard     *access.Guard
	mirror    *mirror.Mirror // nil: nothing is mirrored
	reaper    *reap.Reaper
	bump      *bump.Engine // nil: no forge is configured
	work      *works
	pushes    *catalog.Feed
	catalog   *catalog.Mux
	remote    *catalog.Remote
	api       *api.API
	metrics   *metrics

	listener net.Listener
	http     *http.Server
	ready    atomic.Bool
	closing  sync.Once
	closeErr error
}

// New opens the data folder and the listener. Requests that come before
// [Server.Run] wait. When it returns an error, everything is closed again.
func New(ctx context.Context, cfg Config, deps Deps) (_ *Server, err error) {
	if deps.Clock == nil {
		deps.Clock = clock.Real()
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Stdout == nil {
		deps.Stdout = io.Discard
	}
	s := &Server{cfg: cfg, deps: deps, log: deps.Log}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if cfg.Data == "" {
		return nil, errors.New("no data folder: name one with --data")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Open { // before anything is made on disk
		if err := access.CheckOpen(cfg.Listen); err != nil {
			return nil, err
		}
	}
	if s.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, listenError(cfg.Listen, err)
	}
	s.closers = append(s.closers, func() error {
		// The HTTP server may have closed it already.
		if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	if cfg.Open {
		if err := access.CheckOpen(s.listener.Addr().String()); err != nil {
			return nil, err
		}
	}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if err := s.build(); err != nil {
		return nil, err
	}
	return s, nil
}

func listenError(addr string, err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	hint := "name another address with --listen"
	if strings.Contains(err.Error(), "address already in use") {
		hint = "another program (another `cairn serve`?) listens there: stop it, or name another address with --listen"
	}
	return &hintError{fmt.Errorf("listen on %s: %w", addr, err), hint}
}

// hintError is an error with its cure.
type hintError struct {
	error
	hint string
}

func (e *hintError) Hint() string  { return e.hint }
func (e *hintError) Unwrap() error { return e.error }

// open takes the data folder and opens what is in it, bottom up.
func (s *Server) open(ctx context.Context) (err error) {
	if s.dir, err = OpenDataDir(s.cfg.Data); err != nil {
		return err
	}
	s.closers = append(s.closers, s.dir.Close)
	openDB := func(name string, schema []string, sync db.Sync) (*db.DB, error) {
		d, err := db.Open(ctx, db.Config{Path: s.dir.Path(name), Schema: schema, Sync: sync})
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, d.Close)
		return d, nil
	}

	usageDB, err := openDB("usage.db", usage.Schema, db.Normal)
	if err != nil {
		return err
	}
	s.ledger, err = usage.Open(ctx, usage.Config{DB: usageDB, Clock: s.deps.Clock, Log: s.log, Granularity: s.granularity()})
	if err != nil {
		return fmt.Errorf("open the usage ledger: %w", err)
	}
	s.closers = append(s.closers, s.ledger.Close)

	s.metrics = newMetrics(s)
	var closeContent func() error
	s.content, closeContent, err = openContent(ctx, s.dir, content.Config{Clock: s.deps.Clock, Log: s.log, Grace: s.cfg.Collect.Grace.Std(), OnRevive: s.metrics.onRevive, OnTag: s.onTag})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, closeContent)

	guard := access.Config{Open: s.cfg.Open, AnonymousPull: s.cfg.Access.AnonymousPull, ExternalURL: s.cfg.ExternalURL, Clock: s.deps.Clock, Log: s.log}
	for _, c := range s.cfg.Clusters {
		var keys access.KeySource = access.KeyFile(c.JWKS)
		if strings.Contains(c.JWKS, "://") {
			if keys, err = access.NewKeyURL(c.JWKS, c.CAFile); err != nil {
				return fmt.Errorf("keys of the cluster %s: %w", c.Name, err)
			}
		}
		guard.Clusters = append(guard.Clusters, access.Cluster{Name: c.Name, Issuer: c.Issuer, Audience: c.Audience, Keys: keys, Agents: c.Agent, Pull: c.Pull})
	}
	if !s.cfg.Open {
		if guard.DB, err = openDB("access.db", access.Schema, db.Full); err != nil {
			return err
		}
		if guard.Secret, err = access.SigningKey(s.dir.Path("secret")); err != nil {
			return err
		}
	}
	if s.guard, err = access.New(ctx, guard); err != nil {
		return err
	}
	if err := s.openMirror(); err != nil {
		return err
	}
	if err := s.openBump(ctx, openDB); err != nil {
		return err
	}
	if err := s.openWork(ctx, openDB); err != nil {
		return err
	}
	owners := []retention.Owner{s.work.server}
	if s.bump != nil {
		owners = append(owners, s.bump)
	}
	s.retention = retention.New(policies(s.cfg.Retention), retention.Deps{Content: s.content, Ledger: s.ledger, Owners: owners,
		Memory: retention.FileMemory(s.dir.Path("policies")), Clock: s.deps.Clock, Log: s.log})
	reapDB, err := openDB("reap.db", reap.Schema, db.Full)
	if err != nil {
		return err
	}
	s.reaper, err = reap.New(reap.Config{Policies: policies(s.cfg.Retention).Policies, Agent: "cairn/" + s.deps.Version.Version, Getenv: os.Getenv},
		reap.Deps{DB: reapDB, Ledger: s.ledger, Pins: s.content, Clock: s.deps.Clock, Log: s.log})
	return err
}

// openContent opens the registry's database and blobs in a data folder: what
// cfg leaves open.
func openContent(ctx context.Context, dir *DataDir, cfg content.Config) (_ *content.Store, close func() error, err error) {
	blobs, err := blob.OpenDisk(dir.Path(), blob.DiskConfig{})
	if err != nil {
		return nil, nil, fmt.Errorf("open the blobs: %w", err)
	}
	dbc := db.Config{Path: dir.Path("registry.db"), Schema: content.Schema, Sync: db.Full}
	if cfg.Flushed = blobs.Flushes(); cfg.Flushed {
		dbc.Flush = blobs.Flush
	}
	registry, err := db.Open(ctx, dbc)
	if err != nil {
		return nil, nil, errors.Join(err, blobs.Close())
	}
	cfg.DB, cfg.Blobs = registry, blobs
	store, err := content.New(ctx, cfg)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open the registry: %w", err), registry.Close(), blobs.Close())
	}
	return store, func() error { return errors.Join(store.Close(), registry.Close(), blobs.Close()) }, nil
}

// openMirror makes the mirror of what is configured; of nothing, none. It
// contacts nobody.
func (s *Server) openMirror() (err error) {
	if len(s.cfg.Mirrors) == 0 {
		return nil
	}
	c := mirror.Config{Content: s.content, Clock: s.deps.Clock, Log: s.log, Getenv: os.Getenv, Agent: "cairn/" + s.deps.Version.Version}
	if u, err := url.Parse(s.cfg.ExternalURL); err == nil && u.Host != "" {
		c.Own = []string{strings.ToLower(u.Host)}
	}
	for _, m := range s.cfg.Mirrors {
		c.Upstreams = append(c.Upstreams, mirror.Upstream{Host: m.Host, URL: m.URL, TTL: m.TTL.Std(), Allow: m.Allow, Username: m.Username,
			PasswordFile: m.PasswordFile, PasswordEnv: m.PasswordEnv, CAFile: m.CAFile, Offline: m.Offline, MaxBlob: int64(m.MaxBlob)})
	}
	if s.mirror, err = mirror.New(c); err != nil {
		return err
	}
	s.closers = append(s.closers, s.mirror.Close)
	return nil
}

// granularity is how stale a stored last use may become: small against the
// shortest time anything is kept, so that counting a stored use later by that
// much after a crash does not matter.
func (s *Server) granularity() time.Duration {
	g := s.cfg.Usage.Granularity.Std()
	for _, p := range s.cfg.Retention.Policies {
		for _, d := range []config.Duration{p.After, p.UntaggedAfter} {
			if d > 0 {
				g = min(g, d.Std()/10)
			}
		}
	}
	return max(g, time.Millisecond)
}

// policies are the settings of retention in its own words.
func policies(c config.Retention) retention.Config {
	r := retention.Config{Explicit: c.Explicit, Interval: c.Interval.Std(), Keep: c.Keep.Std(), WarnWithin: c.WarnWithin.Std()}
	for _, p := range c.Policies {
		r.Policies = append(r.Policies, retention.Policy{Name: p.Name, Repositories: p.Repositories, After: p.After.Std(),
			UntaggedAfter: p.UntaggedAfter.Std(), MinAge: p.MinAge.Std(), KeepLast: p.KeepLast, Protect: p.Protect, MaxBytes: int64(p.MaxBytes)})
	}
	return r
}

// build makes the handlers.
func (s *Server) build() error {
	ad := api.Deps{Content: s.content, Ledger: s.ledger, Retention: s.retention, Guard: s.guard,
		Clock: s.deps.Clock, Log: s.log, Version: s.deps.Version, Open: s.cfg.Open, ExternalURL: s.cfg.ExternalURL, Reaper: s.reaper}
	rc := registry.Config{Content: s.content, Access: s.guard, Pulls: s.ledger, Expires: s.retention.Expires, Log: s.log}
	if s.mirror != nil {
		rc.Mirror, ad.Mirror = s.mirror, s.mirror
	}
	if s.bump != nil {
		ad.Bump = s.bump
	}
	s.work.fill(&ad)
	s.api = api.New(ad)
	reg := registry.New(rc)
	counted := s.metrics.count("registry", reg)
	mux := http.NewServeMux()
	mux.Handle("/api/", s.metrics.count("api", s.api))
	workers := http.NewServeMux()
	s.work.doors(workers, orPod(s.guard.Allow(access.Work)))
	mux.Handle("/api/v1/work/", s.metrics.count("work", s.work.podDoor(workers)))
	own := http.NewServeMux()
	s.work.doors(own, nil)
	if err := s.openPool(own); err != nil {
		return err
	}
	mux.Handle(access.TokenPath, s.metrics.count("auth", s.guard.Token()))
	if err := s.hooks(mux); err != nil {
		return err
	}
	mux.Handle("GET /metrics", s.metrics.handler(s.log))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /{$}", s.front)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		plain(w, http.StatusNotFound, "There is nothing at this path. The registry is under /v2/, the API under /api/v1/ (see /api/openapi.json).\n")
	})
	// The registry gets its paths as they came: the mux would answer names
	// with ".." or "//" by a redirect to another name.
	root := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2" || strings.HasPrefix(r.URL.Path, "/v2/") {
			counted.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
	s.http = &http.Server{
		// No ReadTimeout and no WriteTimeout: they would bound the size of a
		// blob by the speed of its client. Rooms set deadlines as bytes flow.
		ReadHeaderTimeout: 20 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.http.Handler = s.accessLog(leaving(s.http, s.guard.Protect(root)))
	if s.cfg.TLS.On() {
		cert, err := openCertificate(s.cfg.TLS, s.deps.Clock, s.log)
		if err != nil {
			return err
		}
		s.http.TLSConfig = &tls.Config{GetCertificate: cert.get, MinVersion: tls.VersionTLS12}
	}
	return nil
}

// Addr is the address that was bound.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// URL is where the server can be reached from this machine.
func (s *Server) URL() string {
	scheme := "http"
	if s.cfg.TLS.On() {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(s.Addr().String())
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return scheme + "://" + net.JoinHostPort("localhost", port)
	}
	return scheme + "://" + s.Addr().String()
}

// Run serves until ctx ends, then stops in order: not ready, requests end,
// loops end, memory is written down, files are closed. It returns nil after an
// orderly stop.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	if !s.cfg.Open {
		secret, created, err := s.guard.Bootstrap(ctx)
		if err != nil {
			return fmt.Errorf("make the first account: %w", err)
		}
		if created {
			s.showSecret(secret)
		}
	}
	// The loops outlive the listener: what the last requests did is still
	// theirs to write down.
	loops, stopLoops := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLoops()
	g, gctx := errgroup.WithContext(loops)
	part := func(name string, run func(context.Context) error) {
		g.Go(func() error {
			if err := run(gctx); err != nil && gctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	part("registry", s.content.Run)
	part("usage ledger", s.ledger.Run)
	part("retention", s.retention.Run)
	part("accounts", s.guard.Run)
	s.work.parts(part)
	if s.bump != nil {
		part("bump", s.bump.Run)
	}
	if s.cfg.Pprof != "" {
		part("profiles", s.runPprof)
	}
	served := make(chan error, 1)
	go func() {
		if s.cfg.TLS.On() {
			served <- s.http.ServeTLS(s.listener, "", "")
			return
		}
		served <- s.http.Serve(s.listener)
	}()
	s.ready.Store(true)
	s.logStart()

	var failed error
	select {
	case <-ctx.Done():
		s.log.Info("stopping")
	case <-gctx.Done(): // a part failed
	case err := <-served:
		failed = fmt.Errorf("serve on %s: %w", s.Addr(), err)
	}
	s.ready.Store(false)
	dctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := s.http.Shutdown(dctx); err != nil {
		s.log.Warn("some requests did not end in time and were cut off", "waited", drain)
		_ = s.http.Close()
	}
	stopLoops()
	failed = errors.Join(failed, g.Wait())
	return errors.Join(failed, s.Close())
}

// Close closes what New opened, without waiting for requests. [Server.Run]
// does it by itself.
func (s *Server) Close() error {
	s.closing.Do(func() {
		var errs []error
		for i := len(s.closers) - 1; i >= 0; i-- {
			errs = append(errs, s.closers[i]())
		}
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}

func (s *Server) showSecret(secret string) {
	fmt.Fprintf(s.deps.Stdout, `
This is the first start with this data folder. The secret of the account "admin",
shown this once:

  %s

Log in:        docker login -u admin %s
Use commands:  export %s=%s

`, secret, strings.TrimPrefix(strings.TrimPrefix(s.URL(), "http://"), "https://"), "CAIRN_TOKEN", secret)
}

// logStart says what runs, and what an operator should know about it.
func (s *Server) logStart() {
	s.log.Info("cairn serves", "address", s.URL(), "data", s.dir.Path(), "open", s.cfg.Open, "version", s.deps.Version.Version)
	for _, p := range s.cfg.Retention.Policies {
		s.log.Info("retention policy", "repositories", strings.Join(p.Repositories, ","), "after", p.After, "keep_last", p.KeepLast, "max_bytes", p.MaxBytes)
	}
	for _, m := range s.cfg.Mirrors {
		s.log.Info("mirror", "host", m.Host, "allow", strings.Join(m.Allow, ","), "ttl", m.TTL, "offline", m.Offline)
	}
	for _, f := range s.cfg.Bump.Forges {
		s.log.Info("forge", "name", f.Name, "kind", f.Kind, "repositories", strings.Join(f.Repositories, ","))
	}
	if st := s.retention.Status(); st.PlanningOnly {
		s.log.Warn("retention only plans and deletes nothing: no policy is configured and nobody ever reported uses", "cure", st.Cure)
	}
}
