// Package agent_test runs the agent on a real cluster, with the rights and the
// identity that the shipped manifests give it, against a real server.
package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"cairn.dev/cairn/internal/agent"
	"cairn.dev/cairn/internal/agent/cri"
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

// place is a server and a cluster that pulls from it.
type place struct {
	t       *testing.T
	cluster *cluster.Cluster
	server  *servetest.Server
	admin   *client.Client
	push    string // address that takes pushes without a password
}

// newPlace starts both. The cluster has the shipped manifests, but for the pods:
// the tests are the agents, with the tokens of the ServiceAccounts.
func newPlace(t *testing.T, o cluster.Options, change ...func(*config.Config)) *place {
	t.Helper()
	s := &place{t: t}
	// Nodes ask for what is not there yet, but whoever serves it must be known.
	later := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(later.Close)
	o.Registry = strings.TrimPrefix(later.URL, "http://")
	s.cluster = cluster.Start(t, o)
	site.Admit(t, s.cluster)
	trusted := site.Trust(t, s.cluster, "prod")
	s.server = servetest.Start(t, clock.NewFake(time.Now()), func(c *config.Config) {
		c.Open = false
		c.Access.AnonymousPull = []string{"**"}
		c.Clusters = []config.Cluster{trusted}
		for _, f := range change {
			f(c)
		}
	})
	s.cluster.SetRegistry(s.server.Addr().String())
	var err error
	if s.admin, err = client.New(client.Config{Server: s.server.URL, Token: s.server.Secret}); err != nil {
		t.Fatal(err)
	}
	s.push = site.Door(t, s.server)
	return s
}

// variant pushes an image of its own and returns its digest.
func (s *place) variant(ref string) image.Digest {
	s.t.Helper()
	return site.Push(s.t, s.push, ref)
}

// token is one that the cluster gives to a ServiceAccount.
func (s *place) token(account string, args ...string) string {
	s.t.Helper()
	return strings.TrimSpace(s.cluster.Kubectl(append([]string{"create", "token", account, "-n", "cairn-agent"}, args...)...))
}

// watch runs the agent of the cluster as the manifest would.
func (s *place) watch() *agent.Agent {
	s.t.Helper()
	src, err := kube.New(kube.Config{Name: "prod", REST: &rest.Config{Host: s.cluster.Server, BearerToken: s.token("cairn-agent"), TLSClientConfig: rest.TLSClientConfig{CAFile: s.cluster.CA}}}, kube.Deps{Clock: clock.Real()})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.run(agent.Config{Reporter: "prod", Period: usage.MinPeriod}, src, "cairn-agent")
}

// follow runs the agent of the first node.
func (s *place) follow() *agent.Agent {
	s.t.Helper()
	src, err := cri.New(cri.Config{Socket: "unix://" + s.cluster.CRI(0), Place: "prod", Node: "node1", Kind: "Pod"}, cri.Deps{Clock: clock.Real()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { src.Close() })
	return s.run(agent.Config{Reporter: "prod:node1", Period: usage.MinPeriod, Dated: true}, src, "cairn-node")
}

func (s *place) run(cfg agent.Config, src agent.Source, account string) *agent.Agent {
	s.t.Helper()
	cl, err := client.New(client.Config{Server: s.server.URL, Token: s.token(account, "--audience", "cairn")})
	if err != nil {
		s.t.Fatal(err)
	}
	a, err := agent.New(cfg, agent.Deps{Source: src, Sink: agent.Server{Client: cl}, Clock: clock.Real()})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("%s: %v", cfg.Reporter, err)
		}
	})
	return a
}

// until waits for ok, which says what is missing.
func (s *place) until(what string, ok func() error) {
	s.t.Helper()
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	s.t.Fatalf("never came: %s: %v", what, err)
}

// uses are what the ledger has of an image: "container prod/…", with "now" behind
// those that go on.
func (s *place) uses(repository string, d image.Digest) []string {
	s.t.Helper()
	e, err := s.admin.Why(s.t.Context(), image.Reference{Repository: repository, Digest: d})
	if err != nil {
		s.t.Fatal(err)
	}
	var all []string
	for _, u := range e.Uses {
		if u.Source != usage.Container && u.Source != usage.Workload {
			continue
		}
		l := u.Source.String() + " " + u.Subject
		if u.Now {
			l += " now"
		}
		all = append(all, l)
	}
	slices.Sort(all)
	// The same container may be known by several digests, by one of them now.
	var out []string
	for _, l := range slices.Compact(all) {
		if !slices.Contains(all, l+" now") {
			out = append(out, l)
		}
	}
	return out
}

// perhaps begins a use that is there only where the machine was slow.
const perhaps = "perhaps "

func (s *place) wantUses(repository string, d image.Digest, want ...string) {
	s.t.Helper()
	slices.Sort(want)
	s.until("uses of "+repository, func() error {
		got, want := s.uses(repository, d), slices.Clone(want)
		want = slices.DeleteFunc(want, func(l string) bool {
			l, optional := strings.CutPrefix(l, perhaps)
			if i := slices.Index(got, l); optional && i >= 0 {
				got = slices.Delete(got, i, i+1)
			}
			return optional
		})
		if !slices.Equal(got, want) {
			return fmt.Errorf("%q, want %q", got, want)
		}
		return nil
	})
}

func (s *place) reporter() wire.Reporter {
	s.t.Helper()
	l, err := s.admin.Reporters(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range l.Reporters {
		if r.Name == "cluster/prod" {
			return r
		}
	}
	return wire.Reporter{}
}

// Everything that a real cluster runs or would run is in the ledger, by the
// rights of the shipped role and nothing more.
func TestCluster(t *testing.T) {
	t.Parallel()
	s := newPlace(t, cluster.Options{Nodes: 1})
	d := map[string]image.Digest{}
	for _, name := range []string{"web", "old", "zero", "cron", "job", "volume", "static", "set", "never", "idle"} {
		d[name] = s.variant("app/" + name + ":1")
	}
	a := s.watch()
	s.follow()
	s.until("the first report", func() error {
		if a.Status().Reports == 0 {
			return fmt.Errorf("%+v", a.Status())
		}
		return nil
	})
	ref := func(name string) string { return cluster.NodeRegistry + "/app/" + name + ":1" }
	pod := func(name, more string) string {
		return fmt.Sprintf(`{terminationGracePeriodSeconds: 0, containers: [{name: c, image: %q, command: [sh, -c, "sleep 1000"]%s}]}`, ref(name), more)
	}
	deployment := func(name, of string, replicas int) string {
		return fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: %[1]s}, spec: {replicas: %[3]d, selector: {matchLabels: {app: %[1]s}}, template: {metadata: {labels: {app: %[1]s}}, spec: %[2]s}}}`, name, pod(of, ""), replicas)
	}
	if err := os.WriteFile(filepath.Join(s.cluster.StaticPods(0), "static.json"), []byte(fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"static"},"spec":{"containers":[{"name":"c","image":%q,"command":["sleep","1000"]}]}}`, ref("static"))), 0o644); err != nil {
		t.Fatal(err)
	}
	s.cluster.Apply(strings.Join([]string{
		deployment("web", "old", 1),
		deployment("zero", "zero", 0),
		fmt.Sprintf(`{apiVersion: batch/v1, kind: CronJob, metadata: {name: monthly}, spec: {suspend: true, schedule: "0 0 1 * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: %q}]}}}}}}`, ref("cron")),
		fmt.Sprintf(`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: set}, spec: {selector: {matchLabels: {app: set}}, template: {metadata: {labels: {app: set}}, spec: %s}}}`, pod("set", "")),
		fmt.Sprintf(`{apiVersion: batch/v1, kind: Job, metadata: {name: second}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: %q, command: [sleep, "12"]}]}}}}`, ref("job")), // longer than a period: templates are told in statements
		fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: mounts}, spec: {terminationGracePeriodSeconds: 0, volumes: [{name: v, image: {reference: %q}}], containers: [{name: c, image: %q, command: [sh, -c, "sleep 1000"], volumeMounts: [{name: v, mountPath: /v}]}]}}`, ref("volume"), ref("web")),
		fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: never}, spec: {nodeSelector: {no: where}, containers: [{name: c, image: %q}]}}`, ref("never")),
	}, "\n---\n"))
	s.cluster.Kubectl("rollout", "status", "deployment/web", "--timeout=90s")
	s.cluster.Kubectl("wait", "--for=condition=ready", "pod/mounts", "--timeout=90s")
	s.cluster.Kubectl("wait", "--for=condition=complete", "job/second", "--timeout=90s")
	s.cluster.Kubectl("delete", "job/second") // with its pod: all that is left is in the ledger
	s.cluster.Kubectl("set", "image", "deployment/web", "c="+ref("web"))
	s.cluster.Kubectl("rollout", "status", "deployment/web", "--timeout=90s")

	web := "prod/default/Deployment/web"
	// A pod that took longer than a period to start was stated meanwhile.
	s.wantUses("app/web", d["web"], "container "+web+" now", "container prod/default/Pod/web", "workload "+web+" now", "container prod/default/Pod/mounts now", perhaps+"workload prod/default/Pod/mounts")
	s.wantUses("app/old", d["old"], "container "+web, "container prod/default/Pod/web", "workload "+web+" now") // kept for a rollback
	s.wantUses("app/zero", d["zero"], "workload prod/default/Deployment/zero now")
	s.wantUses("app/cron", d["cron"], "workload prod/default/CronJob/monthly now")
	s.wantUses("app/job", d["job"], "container prod/default/Job/second", "container prod/default/Pod/second", "workload prod/default/Job/second")
	s.wantUses("app/set", d["set"], "container prod/default/DaemonSet/set now", "container prod/default/Pod/set", "workload prod/default/DaemonSet/set now")
	// The kubelet does not tell by which digest it mounted the volume, unless it
	// is asked to; the runtime does, and the template names it.
	s.wantUses("app/volume", d["volume"], "container prod/default/Pod/mounts", "workload prod/default/Pod/mounts now")
	s.wantUses("app/static", d["static"], "container prod/default/Pod/static now")
	s.wantUses("app/never", d["never"], "workload prod/default/Pod/never now")
	s.wantUses("app/idle", d["idle"])
	if r := s.reporter(); r.Silent || len(r.Platforms) != 1 || r.Platforms[0].OS != "linux" || r.Platforms[0].Count != 1 {
		t.Errorf("reporter %+v", r)
	}
	s.outage(a)
}

// outage stops the API server: the agent states nothing until it is back.
func (s *place) outage(a *agent.Agent) {
	ctx := s.t.Context()
	if err := s.cluster.Stop(ctx, 0, "kube-apiserver"); err != nil {
		s.t.Fatal(err)
	}
	s.until("silence", func() error {
		if why := a.Status().Silence; !strings.Contains(why, "no watch of") {
			return fmt.Errorf("%+v", a.Status())
		}
		return nil
	})
	reports := a.Status().Reports
	time.Sleep(2 * usage.MinPeriod)
	if now := a.Status().Reports; now != reports {
		s.t.Errorf("%d reports without an API server", now-reports)
	}
	if err := s.cluster.Run(ctx, 0, "kube-apiserver"); err != nil {
		s.t.Fatal(err)
	}
	s.until("reports again", func() error {
		if st := a.Status(); st.Reports == reports {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
}

// A thousand pods on pretended nodes, and a Job of 300: each digest that ran is
// in the ledger, and the statement grows by workloads, not by pods.
func TestManyPods(t *testing.T) {
	t.Parallel()
	s := newPlace(t, cluster.Options{FakeNodes: 100})
	const deployments, replicas = 20, 50
	var docs []string
	for i := range deployments {
		docs = append(docs, fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: web%[1]d}, spec: {replicas: %[2]d, selector: {matchLabels: {app: web%[1]d}}, template: {metadata: {labels: {app: web%[1]d}}, spec: {containers: [{name: c, image: "web%[1]d:1"}]}}}}`, i, replicas))
	}
	docs = append(docs, `{apiVersion: batch/v1, kind: Job, metadata: {name: work}, spec: {completions: 300, parallelism: 100, template: {metadata: {annotations: {cairn.dev/runs-for: 1s}}, spec: {restartPolicy: Never, containers: [{name: work, image: "work:1"}]}}}}`)
	a := s.watch()
	s.cluster.Apply(strings.Join(docs, "\n---\n"))
	s.until("all pods", func() error {
		got := strings.TrimSpace(s.cluster.Kubectl("get", "deployments", "-o", `jsonpath={range .items[*]}{.status.readyReplicas}{"\n"}{end}`))
		if strings.Count(got+"\n", fmt.Sprintf("%d\n", replicas)) != deployments {
			return fmt.Errorf("ready: %q", got)
		}
		return nil
	})
	s.cluster.Kubectl("wait", "--for=condition=complete", "job/work", "--timeout=120s")
	want := map[string]bool{}
	var pods struct {
		Items []struct {
			Status struct {
				ContainerStatuses []struct{ ImageID string }
			}
		}
	}
	if err := json.Unmarshal([]byte(s.cluster.Kubectl("get", "pods", "-o", "json")), &pods); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		for _, c := range p.Status.ContainerStatuses {
			if d, ok := agent.ParseImageID(c.ImageID); ok {
				want[string(d)] = true
			}
		}
	}
	if len(pods.Items) < deployments*replicas || len(want) < deployments+1 {
		t.Fatalf("%d pods of %d images", len(pods.Items), len(want))
	}
	s.until("the report", func() error {
		r, err := s.admin.Reporter(t.Context(), "cluster/prod", 0)
		if err != nil {
			return err
		}
		got := map[string]bool{}
		for _, u := range r.Uses {
			got[string(u.Digest)] = true
		}
		missing := 0
		for d := range want {
			if !got[d] {
				missing++
			}
		}
		if missing > 1 { // that of the job has ended; it is not in use now
			return fmt.Errorf("%d of %d digests are missing: %+v", missing, len(want), a.Status())
		}
		return nil
	})
	if st := a.Status(); st.Uses > deployments*2+2 {
		t.Errorf("%d uses in the statement of %d workloads: pods are no subjects", st.Uses, deployments)
	}
	t.Logf("%d pods, %d images, %d uses in the statement", len(pods.Items), len(want), a.Status().Uses)
}
