package serve

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"cairn.dev/cairn/internal/catalog/keychain"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/pool"
	"cairn.dev/cairn/internal/pool/source"
	"cairn.dev/cairn/internal/usage"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/worker"
)

// openPool makes the worker of this machine, which comes in by the doors as
// all others do; none when it is not wanted, or wanted only if it can be had.
func (s *Server) openPool(doors http.Handler) error {
	mode := s.cfg.Work.Pool
	if mode == "off" || mode == "auto" && !s.loopback() {
		return nil
	}
	server, err := worker.NewHTTP("http://inside", nil)
	if err != nil {
		return err
	}
	server.Client = &http.Client{Transport: inside{doors}}
	runner, err := s.openContainers(mode, server)
	if mode == "auto" && err != nil {
		s.log.Warn("no tasks are run on this machine", "err", err, "cure", "start workers with cairn worker, or say work.pool: off")
		return nil
	}
	if err != nil {
		return fmt.Errorf("work.pool is %s: %w", mode, err)
	}
	s.closers = append(s.closers, func() error { runner.Close(); return nil })
	host, _ := os.Hostname()
	s.work.name, s.work.restless = "cairn/"+host, restless(s.dir.Path("pool.began"), s.deps.Clock.Now())
	s.work.worker, err = worker.New(worker.Config{Name: s.work.name, Pool: work.DefaultPool, Slots: slots(s.cfg.Work.Slots), LogLimit: int64(s.cfg.Work.LogLimit)},
		worker.Deps{Server: server, Runner: runner, Clock: s.deps.Clock, Log: s.log})
	return err
}

// restless reports whether another process began less than a minute before this
// one, which is noted for the next. Without a note there was none.
func restless(note string, now time.Time) bool {
	text, _ := os.ReadFile(note)
	before, err := time.Parse(time.RFC3339, string(text))
	_ = os.WriteFile(note, []byte(now.Format(time.RFC3339)), 0o600)
	return err == nil && now.Sub(before) < time.Minute
}

// openContainers is what runs them.
func (s *Server) openContainers(mode string, x worker.Exchange) (worker.Runner, error) {
	logins, err := keychain.New(keychain.Config{Clock: s.deps.Clock, Getenv: os.Getenv})
	if err != nil {
		return nil, err
	}
	remote, err := source.NewRemote(source.RemoteConfig{Keychain: logins, Clock: s.deps.Clock, Agent: "cairn/" + s.deps.Version.Version})
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() error { remote.Close(); return nil })
	sc := source.Config{Content: usedContent{s.content, s.ledger}, Own: s.hosts(), Remote: remote}
	if s.mirror != nil {
		sc.Mirror = s.mirror
	}
	images, err := source.New(sc)
	if err != nil {
		return nil, err
	}
	c := pool.Config{Dir: s.dir.Path("pool"), MaxBytes: int64(s.cfg.Work.Images)}
	d := pool.Deps{Images: images, Exchange: x, Clock: s.deps.Clock, Log: s.log,
		HTTP: s.work.requests.Do}
	if mode == "docker" || mode == "podman" {
		return pool.NewEngine(context.Background(), pool.EngineConfig{Command: []string{mode}, Config: c}, d)
	}
	return pool.New(c, d)
}

// usedContent is our registry as tasks use it: what they run is in use now.
type usedContent struct {
	*content.Store
	ledger *usage.Ledger
}

// LiveManifest implements [source.Content].
func (u usedContent) LiveManifest(ctx context.Context, repository, reference string) (*content.Manifest, error) {
	m, err := u.Store.LiveManifest(ctx, repository, reference)
	if err == nil {
		u.ledger.Pull(repository, m.Digest, "run")
	}
	return m, err
}
