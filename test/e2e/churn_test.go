package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/agent/kube"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/usage"
	"cairn.dev/cairn/test/cluster"
)

const (
	// churnPods is how many pods run in all, and churnFor how long they may
	// take to be made: a slow computer makes fewer, and at least churnLeast.
	churnPods  = 10_000
	churnFor   = 150 * time.Second
	churnLeast = 2_000
	// A round makes this many.
	deployments, replicas, jobPods = 5, 160, 100
)

// A big cluster in which much changes: every digest that ran is in the ledger,
// with one watch of each kind, and few bytes.
func TestChurn(t *testing.T) {
	dir := t.TempDir()
	audit, rules := filepath.Join(dir, "audit.log"), filepath.Join(dir, "audit.yaml")
	// What the agent asks of the API server, and nobody else.
	err := os.WriteFile(rules, []byte(`apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: ["system:serviceaccount:cairn-agent:cairn-agent"]}
- {level: None}
`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	s := newWorld(t, cluster.Options{FakeNodes: 500,
		APIServer:         []string{"--audit-policy-file=" + rules, "--audit-log-path=" + audit},
		ControllerManager: []string{"--concurrent-deployment-syncs=20", "--concurrent-replicaset-syncs=20", "--concurrent-job-syncs=20"}})
	s.follow()
	c := s.clusters[0]
	a := s.report(0)

	const repository = "churn/app"
	names := map[image.Digest]string{}
	ref := func(name string) string {
		d := s.server.Push(t, repository, name, name)
		names[d] = name
		return "registry.test/" + repository + "@" + string(d)
	}
	deployment := func(name, ref string) string {
		return fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: %[1]s}, spec: {replicas: %[2]d, selector: {matchLabels: {app: %[1]s}}, template: {metadata: {labels: {app: %[1]s}}, spec: {containers: [{name: c, image: %[3]q}]}}}}`, name, replicas, ref)
	}
	begin, pods, standing := time.Now(), 0, 0
	for round := 0; pods < churnPods && time.Since(begin) < churnFor; round++ {
		var docs []string
		for i := range deployments {
			name := fmt.Sprintf("web-%d-%d", round, i)
			docs = append(docs, deployment(name, ref(name)))
			pods, standing = pods+replicas, standing+replicas
		}
		job := fmt.Sprintf("job-%d", round)
		docs = append(docs, fmt.Sprintf(`{apiVersion: batch/v1, kind: Job, metadata: {name: %s}, spec: {completions: %[2]d, parallelism: %[2]d, template: {metadata: {annotations: {cairn.dev/runs-for: 1s}}, spec: {restartPolicy: Never, containers: [{name: c, image: %[3]q}]}}}}`, job, jobPods, ref(job)))
		pods += jobPods
		if round > 0 { // one of the round before gets another image
			name := fmt.Sprintf("web-%d-0", round-1)
			docs = append(docs, deployment(name, ref(name+"-new")))
			pods += replicas
		}
		apply(c, docs...)
		s.until("the pods of a round", func() error {
			out := c.Kubectl("get", "deployments", "-o", `jsonpath={range .items[*]}{.status.updatedReplicas}/{.status.availableReplicas}/{.status.replicas} {end}`)
			want := fmt.Sprintf("%d/%d/%d", replicas, replicas, replicas)
			for f := range strings.FieldsSeq(out) {
				if f != want {
					return fmt.Errorf("%s", out)
				}
			}
			return nil
		})
		c.Kubectl("wait", "--for=condition=complete", "job/"+job, "--timeout=60s")
		c.Kubectl("delete", "job", job, "--wait=false")
	}
	took := time.Since(begin)
	t.Logf("%d pods ran on 500 nodes, %d of them at the end, of %d images, within %s", pods, standing, len(names), took.Round(time.Second))
	if pods < churnPods {
		t.Logf("NOT %d: this computer makes %.0f in a second", churnPods, float64(pods)/took.Seconds())
	}
	if pods < churnLeast {
		t.Errorf("only %d pods ran", pods)
	}

	// Whatever ran is in the ledger, by a container and not only by a template.
	s.until("every digest that ran", func() error {
		var lost []string
		for d, name := range names {
			e, err := s.admin.Why(t.Context(), image.Reference{Repository: repository, Digest: d})
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(e.Uses, func(u retention.Used) bool { return u.Source == usage.Container }) {
				lost = append(lost, name)
			}
		}
		if len(lost) > 0 {
			return fmt.Errorf("%d of %d are missing: %q", len(lost), len(names), lost)
		}
		return nil
	})
	sent := a.traffic.minutes()
	t.Logf("bytes sent by minute: %v; %+v", sent, a.Status())
	if most := slices.Max(sent); most > 1<<20 || most == 0 {
		t.Errorf("%d bytes in a minute, want at most 1 MiB", most)
	}
	if st := a.Status(); st.Dropped > 0 || st.Failures > 0 || st.Uses > 4*len(names) {
		t.Errorf("%+v", st)
	}

	got := requests(t, audit)
	t.Logf("requests to the API server: %+v", got)
	for _, kinds := range kube.Kinds() {
		for _, k := range kinds {
			// An API server ends watches when it has much to do (ten events
			// wait), and all of them after some minutes. Never are two open.
			if got[k].open != 1 {
				t.Errorf("%d watches of %s were open at once, want one: %+v", got[k].open, k, got[k])
			}
			if got[k].lists > 5 {
				t.Errorf("%s were read %d times in full", k, got[k].lists)
			}
			delete(got, k)
		}
	}
	if len(got) > 0 {
		t.Errorf("other requests: %+v", got)
	}
}

// asked is what was asked of one resource.
type asked struct {
	watches int // one after the other
	open    int // at most at once
	lists   int // all objects of it, by a watch or otherwise
}

// requests reads an audit log: of watches and lists by resource, of all else by
// what they are.
func requests(t *testing.T, file string) map[string]asked {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, open := map[string]asked{}, map[string]map[string]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			AuditID, Stage, Verb, RequestURI string
			ObjectRef                        struct{ Resource, Namespace string }
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		what := e.ObjectRef.Resource
		if e.Verb != "watch" && e.Verb != "list" || e.ObjectRef.Namespace != "" {
			what = e.Verb + " " + e.RequestURI
		}
		a := all[what]
		if open[what] == nil {
			open[what] = map[string]bool{}
		}
		switch {
		case e.Verb != "watch":
			a.lists++
		case e.Stage == "ResponseStarted":
			a.watches++
			open[what][e.AuditID] = true
			a.open = max(a.open, len(open[what]))
			if strings.Contains(e.RequestURI, "sendInitialEvents=true") {
				a.lists++
			}
		default:
			delete(open[what], e.AuditID)
		}
		all[what] = a
	}
	return all
}
