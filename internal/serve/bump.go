package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"cairn.dev/cairn/internal/bump"
	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/catalog/keychain"
	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/gitea"
	"cairn.dev/cairn/internal/forge/github"
	"cairn.dev/cairn/internal/forge/gitlab"
	git "cairn.dev/cairn/internal/forge/plain"
	"cairn.dev/cairn/internal/forge/rest"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/mirror"
	"cairn.dev/cairn/internal/scan"
)

// openBump makes the engine that moves code, if there is code to be moved, or
// was before: then it has to take back what it told the ledger. It contacts
// nobody.
func (s *Server) openBump(ctx context.Context, openDB func(string, []string, db.Sync) (*db.DB, error)) error {
	if _, err := os.Stat(s.dir.Path("bump.db")); len(s.cfg.Bump.Forges) == 0 && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := s.openCatalog(openDB); err != nil {
		return err
	}
	cfg := bump.Config{Interval: s.cfg.Bump.Interval.Std(), URL: s.cfg.ExternalURL}
	for _, f := range s.cfg.Bump.Forges {
		source, err := s.openForge(f)
		if err != nil {
			return fmt.Errorf("forge %s: %w", f.Name, err)
		}
		cfg.Sources = append(cfg.Sources, source)
	}
	bumpDB, err := openDB("bump.db", bump.Schema, db.Full)
	if err != nil {
		return err
	}
	s.bump, err = bump.New(ctx, cfg, bump.Deps{DB: bumpDB, Scanner: scan.New(), Rules: bump.ReadRules, Choose: choose.Choose,
		Catalog: s.catalog, Pushes: s.pushes, Registry: s.ownRegistry(), Ledger: s.ledger, Clock: s.deps.Clock, Log: s.log})
	if err != nil {
		return fmt.Errorf("open what is known of code: %w", err)
	}
	return nil
}

// openCatalog makes the catalog of our registry and of all others.
func (s *Server) openCatalog(openDB func(string, []string, db.Sync) (*db.DB, error)) error {
	d, err := openDB("catalog.db", catalog.Schema, db.Normal)
	if err != nil {
		return err
	}
	memory, err := catalog.NewStore(d)
	if err != nil {
		return err
	}
	var keys []catalog.Key
	for _, name := range s.cfg.Bump.Keys {
		text, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read the keys that sign images: %w", err)
		}
		k, err := catalog.ReadKeys(name, text)
		if err != nil {
			return err
		}
		keys = append(keys, k...)
	}
	logins, err := keychain.New(keychain.Config{Clock: s.deps.Clock, Getenv: os.Getenv})
	if err != nil {
		return err
	}
	rc := catalog.RemoteConfig{Keychain: logins, Memory: memory, Keys: keys, Clock: s.deps.Clock, Log: s.log, Agent: "cairn/" + s.deps.Version.Version, Getenv: os.Getenv}
	for _, r := range s.cfg.Bump.Registries {
		rc.Registries = append(rc.Registries, catalog.Registry{Host: r.Host, URL: r.URL, Username: r.Username, PasswordFile: r.PasswordFile, PasswordEnv: r.PasswordEnv, CAFile: r.CAFile})
	}
	remote, err := catalog.NewRemote(rc)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, remote.Close)
	s.remote = remote
	own, err := catalog.NewOwn(s.content, keys)
	if err != nil {
		return err
	}
	mirrors := map[string]string{}
	for _, m := range s.cfg.Mirrors {
		mirrors[mirror.Prefix(m.Host)] = m.Host
	}
	s.catalog, err = catalog.NewMux(catalog.MuxConfig{Own: own, Hosts: s.hosts(), Others: remote, Mirrors: mirrors})
	if err != nil {
		return err
	}
	s.pushes = catalog.NewFeed()
	return nil
}

// hosts are the names by which code may mean our registry, the best one first.
func (s *Server) hosts() []string {
	var out []string
	if u, err := url.Parse(s.cfg.ExternalURL); err == nil && u.Host != "" {
		out = append(out, strings.ToLower(u.Host))
	}
	addr := s.listener.Addr().String()
	host, port, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	if err == nil && ip != nil && !ip.IsUnspecified() {
		out = append(out, addr)
	}
	if err == nil && ip != nil && (ip.IsUnspecified() || ip.IsLoopback()) {
		out = append(out, net.JoinHostPort("localhost", port))
		if ip.IsUnspecified() {
			out = append(out, net.JoinHostPort("127.0.0.1", port))
		}
	}
	return append(out, s.cfg.Bump.Aliases...)
}

// onTag hears of every push to a tag, and must not wait.
func (s *Server) onTag(repository, tag string, d image.Digest) {
	if s.catalog != nil {
		s.pushes.Put(s.catalog.Pushed(repository, tag, d))
	}
}

// openForge makes the driver of a forge.
func (s *Server) openForge(f config.Forge) (bump.Source, error) {
	out := bump.Source{Name: f.Name, Repositories: f.Repositories, Interval: f.Interval.Std()}
	var cas []byte
	if f.CAFile != "" {
		var err error
		if cas, err = os.ReadFile(f.CAFile); err != nil {
			return out, fmt.Errorf("read the certificates to trust: %w", err)
		}
	}
	token := rest.Secret{File: f.TokenFile}
	if f.TokenEnv != "" {
		token.Value = os.Getenv(f.TokenEnv)
		if token.Value == "" {
			return out, fmt.Errorf("the environment variable %s, which is to hold the token, is empty", f.TokenEnv)
		}
	}
	if f.SecretFile != "" {
		secret := rest.Secret{File: f.SecretFile}
		out.Secret = func() ([]byte, error) {
			text, err := secret.Read()
			return []byte(text), err
		}
	}
	var driver forge.Forge
	var err error
	switch f.Kind {
	case "github":
		gc := github.Config{URL: f.URL, Token: token, CAs: cas}
		if f.AppID != "" {
			gc.App = github.App{ID: f.AppID, Key: rest.Secret{File: f.KeyFile}}
		}
		driver, err = github.New(gc, github.Deps{Clock: s.deps.Clock})
	case "gitea":
		driver, err = gitea.New(gitea.Config{URL: f.URL, Token: token, CAs: cas}, gitea.Deps{Clock: s.deps.Clock})
	case "gitlab":
		driver, err = gitlab.New(gitlab.Config{URL: f.URL, Token: token, CAs: cas}, gitlab.Deps{Clock: s.deps.Clock})
	case "git":
		repositories := map[string]string{}
		for _, name := range f.Repositories {
			repositories[name] = strings.TrimSuffix(f.URL, "/") + "/" + name
		}
		driver, err = git.New(git.Config{Repositories: repositories, User: f.Username, Password: token, KeyFile: f.KeyFile, KnownHosts: f.KnownHosts}, git.Deps{Clock: s.deps.Clock})
	default:
		err = fmt.Errorf("there is no driver for the kind %q", f.Kind)
	}
	if err != nil {
		return out, err
	}
	out.Forge = driver
	out.Hooks, _ = driver.(forge.Hooks)
	return out, nil
}

// ownRegistry is our registry as bump asks it.
type ownRegistry struct {
	mux     *catalog.Mux
	content *content.Store
	first   string            // the host that all of ours are written as
	copies  map[string]string // host -> what our copies of its images are called by
}

func (s *Server) ownRegistry() ownRegistry {
	o := ownRegistry{mux: s.catalog, content: s.content, first: s.hosts()[0], copies: map[string]string{}}
	for _, m := range s.cfg.Mirrors {
		o.copies[m.Host] = mirror.Prefix(m.Host)
	}
	return o
}

// Name implements bump.Registry.
func (o ownRegistry) Name(repository string) (name, own string) {
	name, err := o.mux.Name(repository)
	if err != nil {
		return repository, ""
	}
	host, rest, _ := strings.Cut(name, "/")
	if host == o.first {
		return name, rest
	}
	if prefix := o.copies[host]; prefix != "" {
		return name, prefix + "/" + rest
	}
	return name, ""
}

// Resolve implements bump.Registry.
func (o ownRegistry) Resolve(ctx context.Context, repository, tag string) (image.Digest, error) {
	im, err := o.content.Peek(ctx, repository, tag)
	if errors.Is(err, content.ErrManifestUnknown) || errors.Is(err, content.ErrRepositoryUnknown) {
		return "", nil
	}
	return im.Digest, err
}

// bump turns the numbers of bump into metrics.
func (c *state) bump(ch chan<- prometheus.Metric) {
	m := (*metrics)(c)
	if m.s.bump == nil {
		return
	}
	n := m.s.bump.Counters()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descBumpCode, float64(n.Repositories-n.Failing), "fine")
	gauge(descBumpCode, float64(n.Failing), "failing")
	gauge(descBumpCode, float64(n.Stale), "stale")
	gauge(descBumpImages, float64(n.Images))
	gauge(descBumpAge, n.Oldest.Seconds())
	for action, v := range map[string]int64{"opened": n.Opened, "updated": n.Updated, "closed": n.Closed, "merged": n.Merged} {
		counter(descBumpPulls, v, action)
	}
	counter(descBumpPasses, n.Passes-n.PassesFailed, "ok")
	counter(descBumpPasses, n.PassesFailed, "error")
	ch <- prometheus.MustNewConstMetric(descBumpSeconds, prometheus.CounterValue, n.Seconds)
	counter(descBumpEvents, n.Pushes, "push")
	counter(descBumpEvents, n.Hooks, "webhook")
}
