// Package demo tells the story of `cairn demo`: images are pushed, one of them
// is in use, time passes, and what nobody used goes; a newer one is pushed, and
// code moves to it; and containers of an image are run, one for each file of a
// folder.
//
// It owns the story and how it reads. Everything it shows goes through a real
// server with its store and retention loop, in a temporary folder, over HTTP;
// the commands it prints are the ones that run. The clock is the only thing
// replaced, and with [Config.RealTime] not even that. It promises to end
// within seconds, to clean up, and to fail when the story does not come out.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/serve"
	"cairn.dev/cairn/internal/usage"
)

// Config of the demo.
type Config struct {
	Listen   string // address; a free port of 127.0.0.1 when empty
	Exit     bool   // end after the story instead of waiting for the end of ctx
	RealTime bool   // seconds that pass instead of days that do not
}

// Deps of the demo.
type Deps struct {
	Out io.Writer // the story
	// Cairn runs a command line, such as "why", "shop/web:1.0", against the
	// server at url, and writes what it prints to out.
	Cairn func(ctx context.Context, out io.Writer, url string, args ...string) error
}

// start is when the story begins. It is always the same, so that the story
// always reads the same.
var start = time.Date(2026, 1, 1, 9, 0, 0, 0, time.UTC)

// pace is how the time of the story passes.
type pace struct {
	after    config.Duration // policy: an image goes this long after its last use
	interval config.Duration // of the retention loop
	period   time.Duration   // of the reporter
	restate  time.Duration   // how often the reporter speaks
	unused   time.Duration   // how long the story waits for an image to expire
	silent   time.Duration   // how long the reporter says nothing
}

var (
	days    = pace{after: 30 * config.Day, interval: config.Duration(time.Hour), period: time.Hour, restate: 2 * time.Hour, unused: 31 * 24 * time.Hour, silent: 40 * 24 * time.Hour}
	seconds = pace{after: config.Duration(18 * time.Second), interval: config.Duration(time.Second), period: 5 * time.Second, restate: 2 * time.Second, unused: 20 * time.Second, silent: 22 * time.Second}
)

// Run tells the story. It returns nil when ctx ends while the server stays up
// for the reader to try.
func Run(ctx context.Context, cfg Config, deps Deps) error {
	dir, err := os.MkdirTemp("", "cairn-demo-")
	if err != nil {
		return fmt.Errorf("make a temporary folder for the demo: %w", err)
	}
	defer os.RemoveAll(dir)

	s := &story{out: deps.Out, cairn: deps.Cairn, pace: days, fake: clock.NewFake(start)}
	s.clock = s.fake
	if cfg.RealTime {
		s.pace, s.fake, s.clock = seconds, nil, clock.Real()
	}
	c := config.Default()
	c.Data, c.Listen, c.Open = filepath.Join(dir, "data"), cfg.Listen, true
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	c.Retention.Interval = s.pace.interval
	c.Retention.Policies = []config.Policy{{Repositories: []string{"**"}, After: s.pace.after}}
	c.Retention.Explicit = true
	c.Work.Pool = "off" // nothing runs while weeks pass at once

	srv, err := serve.New(ctx, serve.Config{Config: *c}, serve.Deps{Clock: s.clock, Log: slog.New(slog.DiscardHandler), Version: serve.Version("")})
	if err != nil {
		return err
	}
	// The server outlives the story's context by its orderly stop.
	sctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- srv.Run(sctx) }()
	defer func() {
		stop()
		if served != nil {
			<-served
		}
	}()
	s.url = srv.URL()
	s.registry = registry{base: s.url, http: http.DefaultClient}
	if s.client, err = client.New(client.Config{Server: s.url}); err != nil {
		return err
	}
	if s.fake != nil {
		s.started(ctx)
	}
	err = s.tell(ctx)
	if err == nil {
		err = s.moves(ctx, dir)
	}
	if err == nil {
		err = s.runs(ctx, dir)
	}
	if err != nil {
		return fmt.Errorf("the demo broke off: %w", err)
	}
	if cfg.Exit {
		return nil
	}
	s.say("\nThe server stays up at %s until Ctrl-C. Try it from another terminal:", s.url)
	s.say("  export %s=%s", client.ServerVariable, s.url)
	s.say("  go run ./cmd/cairn why shop/web:2.0")
	if s.fake != nil {
		go s.tick(sctx)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-served:
		served = nil
		return err
	}
}

type story struct {
	out      io.Writer
	cairn    func(ctx context.Context, out io.Writer, url string, args ...string) error
	pace     pace
	clock    clock.Clock
	fake     *clock.Fake // nil when time is real
	url      string
	client   *client.Client
	registry registry
	spoken   int // statements of the reporter
	loops    int // of the server, that wait for the clock
}

func (s *story) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// tell is the story itself.
func (s *story) tell(ctx context.Context) error {
	s.say("Cairn on %s, in a temporary folder. Server, store and retention loop are the real", s.url)
	if s.fake != nil {
		s.say("ones and everything goes over HTTP; only the clock is replaced, so that weeks pass at once.")
	} else {
		s.say("ones and everything goes over HTTP; instead of 30d an image goes %s after its last use.", s.pace.after)
	}

	s.say("\n1. Three images are pushed. One is pinned, one runs on host-a, which says so.")
	old, err := s.push(ctx, "shop/web", "1.0", "the old shop\n")
	if err != nil {
		return err
	}
	running, err := s.push(ctx, "shop/web", "2.0", "the new shop\n")
	if err != nil {
		return err
	}
	if _, err := s.push(ctx, "shop/audit", "2025", "the tool for the yearly audit\n"); err != nil {
		return err
	}
	if err := s.command(ctx, "image", "pin", "shop/audit:2025", "--reason", "yearly audit"); err != nil {
		return err
	}
	if err := s.report(ctx, running, true); err != nil {
		return err
	}

	s.say("\n2. %s pass. host-a goes on saying what it runs; nobody touches the others.", config.Duration(s.pace.unused))
	if err := s.pass(ctx, s.pace.unused, running); err != nil {
		return err
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	if err := s.command(ctx, "image", "ls", "--state", "all"); err != nil {
		return err
	}
	if err := s.command(ctx, "why", "shop/web:1.0"); err != nil {
		return err
	}
	if err := s.command(ctx, "why", "shop/web:2.0"); err != nil {
		return err
	}
	if err := s.expect(ctx, old, "expired"); err != nil {
		return err
	}
	if err := s.expect(ctx, running, "live"); err != nil {
		return err
	}

	s.say("\n3. Somebody needs the old one after all. A pull is enough (or: cairn image restore).")
	s.say("  $ curl -sI %s/v2/shop/web/manifests/1.0 | head -1", s.url)
	if err := s.registry.pull(ctx, "shop/web", "1.0"); err != nil {
		return err
	}
	s.say("  HTTP/1.1 200 OK")
	if err := s.expect(ctx, old, "live"); err != nil {
		return err
	}

	s.say("\n4. host-a falls silent for %s. Who knows what it starts? Nothing is deleted.", config.Duration(s.pace.silent))
	if err := s.pass(ctx, s.pace.silent, nil); err != nil {
		return err
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	if err := s.command(ctx, "status"); err != nil {
		return err
	}
	if err := s.expect(ctx, old, "live"); err != nil {
		return err
	}

	s.say("\n5. host-a was scrapped: forget it. Images go once %s have passed that somebody can", s.pace.after)
	s.say("vouch for; the time in which nobody could tell does not count.")
	if err := s.command(ctx, "cluster", "forget", "host-a"); err != nil {
		return err
	}
	if err := s.pass(ctx, s.pace.interval.Std(), nil); err != nil {
		return err
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	return s.expect(ctx, old, "live")
}

func (s *story) push(ctx context.Context, repository, tag, text string) (*built, error) {
	return s.pushFile(ctx, repository, tag, "amd64", file{"hello.txt", 0o644, []byte(text)})
}

func (s *story) pushFile(ctx context.Context, repository, tag, architecture string, f file) (*built, error) {
	b, err := build(repository, tag, architecture, f)
	if err == nil {
		err = s.registry.push(ctx, b)
	}
	if err != nil {
		return nil, err
	}
	s.say("  pushed %s:%s  %s", repository, tag, b.digest[:19])
	return b, nil
}

// command shows a command line, runs it and shows what it prints.
func (s *story) command(ctx context.Context, args ...string) error {
	shown := make([]string, len(args))
	for i, a := range args {
		if shown[i] = a; strings.ContainsAny(a, " '") {
			shown[i] = "'" + a + "'"
		}
	}
	s.say("  $ cairn %s", strings.Join(shown, " "))
	var out strings.Builder
	if err := s.cairn(ctx, &out, s.url, args...); err != nil {
		return fmt.Errorf("cairn %s: %w", strings.Join(shown, " "), err)
	}
	for line := range strings.Lines(out.String()) {
		s.say("  %s", strings.TrimRight(line, "\n"))
	}
	return nil
}

// report states what host-a runs: in full the first time, as before later on.
func (s *story) report(ctx context.Context, runs *built, show bool) error {
	st := usage.Statement{Reporter: "host-a", Period: s.pace.period, Complete: true, Statement: "s1"}
	if s.spoken == 0 {
		st.Uses = []usage.Use{{Digest: runs.digest, Repository: runs.repository, Source: usage.Container, Subject: "host-a/web"}}
	} else {
		st.Statement, st.SameAs = "", "s1"
	}
	if show {
		s.say(`  $ curl %s/api/v1/uses -H 'Content-Type: application/json' -d '{"reporter": "host-a",`, s.url)
		s.say(`      "period": "%s", "complete": true, "statement": "s1", "uses": [{"source": "container",`, config.Duration(s.pace.period))
		s.say(`      "digest": "%s",`, runs.digest)
		s.say(`      "repository": "shop/web", "subject": "host-a/web"}]}'`)
	}
	s.spoken++
	r, err := s.client.Report(ctx, st)
	if err != nil {
		return err
	}
	if show {
		s.say("  accepted: host-a now says at least every %s what it runs", r.Period)
	}
	return nil
}

// pass lets time pass, in which host-a keeps saying that it runs an image;
// with none it is silent.
func (s *story) pass(ctx context.Context, d time.Duration, runs *built) error {
	last := time.Now()
	for gone := time.Duration(0); gone < d; {
		step := min(s.pace.restate, d-gone)
		if s.fake != nil {
			s.fake.Advance(step)
			s.quiet(ctx)
		} else if err := clock.Sleep(ctx, s.clock, step); err != nil {
			return err
		}
		if gone += step; runs != nil {
			if err := s.report(ctx, runs, false); err != nil {
				return err
			}
		}
		if now := time.Now(); now.Sub(last) > time.Second {
			last = now
			s.say("  … %s", config.Duration(gone))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// quiet waits until every loop of the server has done what was due and waits
// for the clock again, so that the story is always the same. How many loops
// there are is found by looking: the most that were ever seen to wait.
func (s *story) quiet(ctx context.Context) {
	for deadline := time.Now().Add(time.Second); s.fake.Waiting() < s.loops; {
		if ctx.Err() != nil {
			return
		}
		if time.Now().After(deadline) {
			s.loops = s.fake.Waiting()
			return
		}
		time.Sleep(50 * time.Microsecond)
	}
	s.loops = s.fake.Waiting()
}

// started waits until the number of waiting loops no longer grows.
func (s *story) started(ctx context.Context) {
	for same := 0; same < 20 && ctx.Err() == nil; same++ {
		time.Sleep(time.Millisecond)
		if n := s.fake.Waiting(); n > s.loops {
			s.loops, same = n, 0
		}
	}
}

// settled waits until the retention loop has seen the present time.
func (s *story) settled(ctx context.Context) error {
	now := s.clock.Now()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		st, err := s.client.Status(ctx)
		if err != nil {
			return err
		}
		if l := st.Retention.LastRun; l != nil && !l.Started.Before(now) && !st.Retention.Running {
			return nil
		}
		if err := clock.Sleep(ctx, clock.Real(), time.Millisecond); err != nil {
			return err
		}
	}
	return errors.New("the retention loop did not run within 20 s")
}

// expect fails unless the image is in the state the story says it is in.
func (s *story) expect(ctx context.Context, b *built, state string) error {
	i, err := s.client.Image(ctx, image.Reference{Repository: b.repository, Digest: b.digest})
	if err != nil {
		return err
	}
	if i.State != state {
		return fmt.Errorf("%s:%s should be %s now and is %s", b.repository, b.tag, state, i.State)
	}
	return nil
}

// tick lets the story's clock go on at the speed of the real one.
func (s *story) tick(ctx context.Context) {
	real := clock.Real()
	for clock.Sleep(ctx, real, time.Second) == nil {
		s.fake.Advance(time.Second)
	}
}
