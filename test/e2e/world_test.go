// Package e2e_test tells the stories that Cairn is for, on the real parts: a
// Kubernetes cluster whose nodes run containers, the agent with the rights and
// the identity of the shipped manifests, and a whole server.
//
// It owns nothing but the stories. Everything in them is real except time and,
// where a story says so, nodes. The cluster lives in real time. The server and
// the agent live by one clock that the tests move: months pass in steps of less
// than the agent's period of an hour, and after each step a test waits until
// the agent has spoken and retention has run. So nobody sleeps, and nothing
// depends on how fast the computer is. What the agent hears from the cluster
// (when a container started) is dated by the cluster; it is moved by as much as
// the two clocks are apart.
package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"cairn.dev/cairn/internal/agent"
	"cairn.dev/cairn/internal/agent/kube"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/serve/servetest"
	"cairn.dev/cairn/internal/usage"
	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/site"
)

const (
	day    = 24 * time.Hour
	period = usage.MaxPeriod // of the agents
	// step is how much of the clock passes at once: more than the agent waits,
	// less than the three periods that make it silent.
	step = period + period/3
)

// A world is one server and the clusters that pull from it.
type world struct {
	t        *testing.T
	clock    *clock.Fake
	begin    time.Time
	server   *servetest.Server
	admin    *client.Client
	push     string // address that takes pushes without a password
	clusters []*cluster.Cluster
	agents   []*reporting
	period   time.Duration // of agents
}

// newWorld starts a server that trusts the clusters, which are called prod,
// prod2 and so on.
func newWorld(t *testing.T, options ...cluster.Options) *world {
	t.Helper()
	s := &world{t: t, period: period}
	// The nodes must be told of a registry before there is one.
	later := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(later.Close)
	var trusted []config.Cluster
	for i, o := range options {
		o.Registry = strings.TrimPrefix(later.URL, "http://")
		c := cluster.Start(t, o)
		s.clusters = append(s.clusters, c)
		site.Admit(t, c)
		trusted = append(trusted, site.Trust(t, c, clusterName(i)))
	}
	s.clock = clock.NewFake(time.Now())
	s.begin = s.clock.Now()
	s.start(func(c *config.Config) {
		c.Open = false
		c.Access.AnonymousPull = []string{"**"}
		c.Clusters = trusted
	})
	return s
}

func clusterName(i int) string {
	if i == 0 {
		return "prod"
	}
	return fmt.Sprintf("prod%d", i+1)
}

// start starts the server, again after a stop if it ran before.
func (s *world) start(edit func(*config.Config)) {
	s.t.Helper()
	secret := ""
	if s.server != nil {
		secret = s.server.Secret
	}
	s.server = servetest.Start(s.t, s.clock, edit)
	if s.server.Secret == "" {
		s.server.Secret = secret
	}
	for _, c := range s.clusters {
		c.SetRegistry(s.server.Addr().String())
	}
	var err error
	if s.admin, err = client.New(client.Config{Server: s.server.URL, Token: s.server.Secret}); err != nil {
		s.t.Fatal(err)
	}
	s.push = site.Door(s.t, s.server)
	for _, a := range s.agents {
		a.link.to(s.server.Addr().String())
	}
}

// image pushes an image that nothing else is, called repository:tag.
func (s *world) image(ref string) image.Digest {
	s.t.Helper()
	return site.Push(s.t, s.push, ref)
}

// on is how nodes call an image of the server.
func on(ref string) string { return cluster.NodeRegistry + "/" + ref }

// A reporting is the agent of a cluster, running.
type reporting struct {
	*agent.Agent
	pulse   *pulse
	link    *link
	traffic *counted
	silent  bool // on purpose of the test: nobody waits for it
	stop    func()
}

// report runs the agent of a cluster as the manifest would.
func (s *world) report(i int) *reporting {
	s.t.Helper()
	c := s.clusters[i]
	token := func(args ...string) string {
		return strings.TrimSpace(c.Kubectl(append([]string{"create", "token", "cairn-agent", "-n", "cairn-agent"}, args...)...))
	}
	r := &reporting{pulse: &pulse{Fake: s.clock}, link: newLink(s.server.Addr().String()), traffic: &counted{}}
	src, err := kube.New(kube.Config{Name: clusterName(i), REST: &rest.Config{Host: c.Server, BearerToken: token(), TLSClientConfig: rest.TLSClientConfig{CAFile: c.CA}}},
		kube.Deps{Clock: theirs{s.clock}})
	if err != nil {
		s.t.Fatal(err)
	}
	r.traffic.next = r.link
	// A kubelet would give it a new token every hour.
	cl, err := client.New(client.Config{Server: s.server.URL, Token: token("--audience", "cairn", "--duration", "8000h"), HTTP: &http.Client{Transport: r.traffic, Timeout: time.Minute}})
	if err != nil {
		s.t.Fatal(err)
	}
	r.Agent, err = agent.New(agent.Config{Reporter: clusterName(i), Period: s.period}, agent.Deps{Source: &shifted{src, s.clock}, Sink: agent.Server{Client: cl}, Clock: r.pulse})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped, r.silent = true, true
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("the agent of %s: %v", clusterName(i), err)
		}
	}
	s.t.Cleanup(r.stop)
	s.agents = append(s.agents, r)
	s.reported(r)
	return r
}

// reported waits for the next report of an agent, from which on it has to speak
// in every period.
func (s *world) reported(r *reporting) {
	s.t.Helper()
	before := r.Status().Reports
	s.until("a report", func() error {
		if st := r.Status(); st.Reports == before {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	r.silent = false
}

// pulse is the agent's clock; it counts how often the agent has spoken and set
// its clock for the next time.
type pulse struct {
	*clock.Fake
	spoke atomic.Int64
}

func (p *pulse) After(d time.Duration) <-chan time.Time {
	c := p.Fake.After(d)
	if d > period/2 {
		p.spoke.Add(1)
	}
	return c
}

// theirs is the clock of the cluster for what happens there, and that of the
// test for how long a watch is away.
type theirs struct{ *clock.Fake }

func (theirs) Now() time.Time { return time.Now().UTC() }

// shifted moves what a cluster dates by as much as its clock is behind.
type shifted struct {
	agent.Source
	clock *clock.Fake
}

func (s *shifted) Run(ctx context.Context, seen func(...usage.Use)) error {
	return s.Source.Run(ctx, func(uses ...usage.Use) {
		by := time.Until(s.clock.Now())
		for i := range uses {
			if !uses[i].At.IsZero() {
				uses[i].At = uses[i].At.Add(by)
			}
		}
		seen(uses...)
	})
}

// A link is the network between an agent and the server, which can be cut.
type link struct {
	host atomic.Pointer[string]
	cut  atomic.Bool
	http *http.Transport
}

func newLink(host string) *link {
	l := &link{http: &http.Transport{}}
	l.to(host)
	return l
}

func (l *link) to(host string) { l.host.Store(&host) }

func (l *link) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.cut.Load() {
		l.http.CloseIdleConnections()
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, errors.New("the network is cut")
	}
	r = r.Clone(r.Context())
	r.URL.Host = *l.host.Load()
	r.Host = r.URL.Host
	return l.http.RoundTrip(r)
}

// counted adds up what an agent sends in each minute.
type counted struct {
	next  http.RoundTripper
	lock  sync.Mutex
	begin time.Time
	sent  []int64 // bytes, by minute
}

func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.lock.Lock()
	if c.begin.IsZero() {
		c.begin = time.Now()
	}
	for m := int(time.Since(c.begin) / time.Minute); len(c.sent) <= m; {
		c.sent = append(c.sent, 0)
	}
	c.sent[len(c.sent)-1] += r.ContentLength
	c.lock.Unlock()
	return c.next.RoundTrip(r)
}

func (c *counted) minutes() []int64 {
	c.lock.Lock()
	defer c.lock.Unlock()
	return slices.Clone(c.sent)
}

// until waits for ok, which says what is missing. The clock moves on by a
// minute each time, so that agents speak meanwhile, and is not behind that of
// the cluster.
func (s *world) until(what string, ok func() error) {
	s.t.Helper()
	var err error
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
		if s.period == period {
			s.clock.Advance(max(time.Minute, time.Since(s.clock.Now())))
		}
	}
	s.t.Fatalf("never came: %s: %v", what, err)
}

// follow makes the clock that of the computer, for what is measured by the
// minute.
func (s *world) follow() {
	s.period = time.Minute
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			s.clock.Advance(max(0, time.Since(s.clock.Now())))
			_ = clock.Sleep(ctx, clock.Real(), 50*time.Millisecond)
		}
	})
	s.t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// pass lets time pass. Agents speak as they do, and retention runs after each
// step; while all agents are silent nobody needs small ones.
func (s *world) pass(d time.Duration) {
	s.t.Helper()
	for end := s.clock.Now().Add(d); s.clock.Now().Before(end); {
		var spoke []int64
		by := day / 2
		for _, a := range s.agents {
			spoke = append(spoke, a.pulse.spoke.Load())
			if !a.silent {
				by = step
			}
		}
		s.clock.Advance(by)
		s.settle(s.clock.Now(), spoke)
	}
}

// settle waits until agents have spoken since and retention has run since a
// time.
func (s *world) settle(since time.Time, spoke []int64) {
	s.t.Helper()
	for tries := 0; ; tries++ {
		why := ""
		for i, a := range s.agents {
			if !a.silent && a.pulse.spoke.Load() == spoke[i] {
				why = fmt.Sprintf("agent %d did not speak: %+v", i, a.Status())
				if a.Status().Silence != "" { // it looks again after that
					s.clock.Advance(5 * time.Second)
				}
			}
		}
		if why == "" {
			st := s.status()
			if st.Retention.NextRun.After(since) && !st.Retention.Running {
				return
			}
			why = fmt.Sprintf("retention did not run: %+v", st.Retention)
		}
		if tries == 10_000 {
			s.t.Fatal(why)
		}
		if tries%100 == 99 { // a loop looked at its clock before it moved
			s.clock.Advance(2 * time.Second)
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *world) status() wire.Status {
	s.t.Helper()
	st, err := s.admin.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// since is the day of the story.
func (s *world) since() time.Duration { return s.clock.Now().Sub(s.begin).Round(day) }

// kept, gone and swept say how images must be.
func (s *world) kept(refs ...string) {
	s.t.Helper()
	s.are("live", refs)
}

func (s *world) gone(refs ...string) {
	s.t.Helper()
	s.are("expired", refs)
}

func (s *world) swept(refs ...string) {
	s.t.Helper()
	s.are("swept", refs)
}

func (s *world) are(state string, refs []string) {
	s.t.Helper()
	for _, ref := range refs {
		if e := s.why(ref); e.State != state {
			s.t.Errorf("day %d: %s is %s, want %s:\n%s", s.since()/day, ref, e.State, state, e.Text())
		}
		name, tag, _ := strings.Cut(ref, ":")
		if state != "swept" { // a pull is a use: it would bring back what expired
			continue
		}
		if r := s.server.Do(s.t, http.MethodGet, "/v2/"+name+"/manifests/"+tag, "", nil); r.Status != http.StatusNotFound {
			s.t.Errorf("a pull of %s answers %d, want 404", ref, r.Status)
		}
	}
}

func (s *world) why(ref string) *wire.Explanation {
	s.t.Helper()
	name, tag, _ := strings.Cut(ref, ":")
	e, err := s.admin.Why(s.t.Context(), image.Reference{Repository: name, Tag: tag})
	if err != nil {
		s.t.Fatalf("why %s: %v", ref, err)
	}
	return &e
}

// used finds a use of an image by a workload, from a source.
func (s *world) used(ref string, from usage.Source, subject string) (usage.Use, bool) {
	s.t.Helper()
	for _, u := range s.why(ref).Uses {
		if u.Source == from && (u.Subject == subject || subject == "") {
			return u.Use, true
		}
	}
	return usage.Use{}, false
}

// wantUse waits until the ledger has a use.
func (s *world) wantUse(ref string, from usage.Source, subject string, now bool) {
	s.t.Helper()
	s.until(fmt.Sprintf("%s used by %s %s", ref, from, subject), func() error {
		if u, ok := s.used(ref, from, subject); !ok || u.Now != now {
			return errors.New(s.why(ref).Text())
		}
		return nil
	})
}
