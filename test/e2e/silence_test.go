package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/usage"
	"cairn.dev/cairn/test/cluster"
)

// Whoever is killed or cut off, for longer than anything is kept without a use:
// nothing is deleted meanwhile, status says why and what to do, and the time
// does not count afterwards.
func TestNobodyIsDeletedInSilence(t *testing.T) {
	// A watch of a network that is cut says nothing for 45 s, unless told to
	// look more often.
	t.Setenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "2")
	t.Setenv("HTTP2_PING_TIMEOUT_SECONDS", "2")
	s := newWorld(t, cluster.Options{Nodes: 1})
	c, ctx := s.clusters[0], t.Context()
	s.image("app/run:1")
	s.image("app/run:2") // as old as what runs, and nobody's
	c.Apply(deployment("run", "app/run:1", 1))
	c.Kubectl("rollout", "status", "deployment/run", "--timeout=90s")
	a := s.report(0)
	s.wantUse("app/run:1", usage.Container, "prod/default/Deployment/run", true)

	var idle, late []string
	outages := []struct {
		name      string
		cut, heal func() error
		start     bool // pods can start meanwhile, from images that were there before
	}{
		{"agent", func() error { a.stop(); return nil }, func() error {
			s.agents = nil
			a = s.report(0)
			return nil
		}, true},
		{"api-server", func() error { return c.Stop(ctx, 0, "kube-apiserver") }, func() error {
			if err := c.Run(ctx, 0, "kube-apiserver"); err != nil {
				return err
			}
			return c.Ready(ctx)
		}, false},
		{"network-of-the-cluster", c.Disconnect, func() error {
			if err := c.Connect(); err != nil {
				return err
			}
			return c.Ready(ctx)
		}, false},
		{"network-of-cairn", func() error { a.link.cut.Store(true); return nil }, func() error { a.link.cut.Store(false); return nil }, true},
	}
	for _, o := range outages {
		unused, started := "app/idle-"+o.name+":1", "app/late-"+o.name+":1"
		s.image(unused)
		idle = append(idle, unused)
		if o.start {
			s.image(started)
			late = append(late, started)
		}
		if err := o.cut(); err != nil {
			t.Fatal(err)
		}
		if !a.silent {
			s.until(o.name+": the agent notices", func() error {
				if st := a.Status(); st.Silence == "" && st.Error == "" {
					return fmt.Errorf("%+v", st)
				}
				return nil
			})
			a.silent = true
		}
		if o.start { // nobody tells Cairn but the node, which pulls
			c.Apply(deployment("late-"+o.name, started, 1))
			c.Kubectl("rollout", "status", "deployment/late-"+o.name, "--timeout=90s")
		}
		s.pass(40 * day)
		s.kept("app/run:1", "app/run:2")
		s.kept(idle...)
		s.kept(late...)
		s.stopped(o.name)
		if err := o.heal(); err != nil {
			t.Fatal(err)
		}
		s.reported(a)
		s.pass(day)
		s.kept("app/run:1", "app/run:2")
		s.kept(idle...)
		s.kept(late...)
		if st := s.status(); len(st.Retention.Uncovered) > 0 || len(st.Silent) > 0 {
			t.Errorf("%s: after it is over: %+v, silent %+v", o.name, st.Retention.Uncovered, st.Silent)
		}
	}

	// Cairn itself.
	if err := s.server.Stop(); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		s.clock.Advance(day)
	}
	s.start(func(c *config.Config) { *c = s.server.Config })
	s.reported(a)
	s.kept("app/run:1", "app/run:2")
	l, err := s.admin.Intervals(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(l.Intervals, func(iv usage.Interval) bool {
		return strings.HasPrefix(iv.Why, "Cairn was not running") && iv.To.Sub(iv.From) > 39*day
	}) {
		t.Errorf("no interval for the time that Cairn was not running: %+v", l.Intervals)
	}

	// Time that is covered counts.
	s.pass(31 * day)
	s.kept("app/run:1")
	s.kept(late...)
	s.gone("app/run:2")
	s.gone(idle...)

	// The cluster goes away for good. Until somebody says so, it may come back.
	s.image("app/last:1")
	a.stop()
	s.pass(40 * day)
	s.kept("app/run:1", "app/last:1")
	s.stopped("the end")
	if err := s.admin.Forget(ctx, "cluster/prod"); err != nil {
		t.Fatal(err)
	}
	if st := s.status(); len(st.Retention.Uncovered) > 0 || st.Reporters > 0 || st.Retention.Cure != "" {
		t.Errorf("after it was forgotten: %+v", st.Retention)
	}
	s.pass(29 * day)
	s.kept("app/run:1", "app/last:1")
	s.pass(2 * day)
	s.gone("app/run:1", "app/last:1")
	s.gone(late...)
}

// stopped expects status to say that deletion stopped, by whom, and the cure.
func (s *world) stopped(when string) {
	s.t.Helper()
	st := s.status()
	if len(st.Silent) != 1 || st.Silent[0].Name != "cluster/prod" || len(st.Retention.Uncovered) != 1 {
		s.t.Fatalf("%s: silent %+v, uncovered %+v", when, st.Silent, st.Retention.Uncovered)
	}
	iv := st.Retention.Uncovered[0]
	if iv.Reporter != "cluster/prod" || !strings.Contains(iv.Why, "reporter cluster/prod has been silent since") || s.clock.Now().Sub(iv.From) < 39*day {
		s.t.Errorf("%s: %+v", when, iv)
	}
	if !strings.Contains(st.Retention.Cure, "cairn cluster forget cluster/prod") {
		s.t.Errorf("%s: the cure is %q", when, st.Retention.Cure)
	}
	e := s.why("app/run:2")
	if s.clock.Now().Sub(s.begin) < 60*day && (e.Code != "doubt" || len(e.Stops) == 0) {
		s.t.Errorf("%s: why does not say who stops it (%s):\n%s", when, e.Code, e.Text())
	}
	s.t.Logf("%s: %s; cure: %s", when, iv.Why, st.Retention.Cure)
}

// Two clusters run the same image: the last one to stop decides.
func TestTheLastClusterDecides(t *testing.T) {
	s := newWorld(t, cluster.Options{Nodes: 1}, cluster.Options{Nodes: 1})
	for _, ref := range []string{"app/both:1", "app/both:2", "app/one:1", "app/one:2"} {
		s.image(ref)
	}
	for i, c := range s.clusters {
		c.Apply(deployment("both", "app/both:1", 1))
		if i == 0 {
			c.Apply(deployment("one", "app/one:1", 1))
			c.Kubectl("rollout", "status", "deployment/one", "--timeout=90s")
		}
		c.Kubectl("rollout", "status", "deployment/both", "--timeout=90s")
		s.report(i)
	}
	for i := range s.clusters {
		s.wantUse("app/both:1", usage.Container, clusterName(i)+"/default/Deployment/both", true)
	}
	s.pass(5 * day)
	s.clusters[0].Kubectl("delete", "deployment", "both", "one")
	s.wantUse("app/both:1", usage.Container, "prod/default/Deployment/both", false)
	s.wantUse("app/one:1", usage.Container, "prod/default/Deployment/one", false)

	s.pass(31 * day)
	s.kept("app/both:1")
	s.gone("app/both:2", "app/one:1", "app/one:2")
	if u, ok := s.used("app/both:1", usage.Container, "prod2/default/Deployment/both"); !ok || !u.Now {
		t.Errorf("why does not name the cluster that is left:\n%s", s.why("app/both:1").Text())
	}
	t.Log(s.why("app/both:1").Text())

	s.clusters[1].Kubectl("delete", "deployment", "both")
	s.wantUse("app/both:1", usage.Container, "prod2/default/Deployment/both", false)
	s.pass(29 * day)
	s.kept("app/both:1")
	s.pass(2 * day)
	s.gone("app/both:1")

	// One that is silent stops deletion for both.
	s.image("app/both:3")
	s.agents[0].stop()
	s.pass(40 * day)
	s.kept("app/both:3")
	st := s.status()
	if len(st.Silent) != 1 || st.Silent[0].Name != "cluster/prod" {
		t.Errorf("silent are %+v", st.Silent)
	}
}
