package serve_test

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/kube/dispatch"
	"cairn.dev/cairn/internal/serve/servetest"
	"cairn.dev/cairn/internal/task"
)

// thief is a server with a cluster, and what a pod of it may try.
type thief struct {
	*servetest.Server
	t      *testing.T
	signer dispatch.Signer
}

func newThief(t *testing.T) *thief {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig") // of a cluster that does not answer
	write(t, kubeconfig, `{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}],
clusters: [{name: a, cluster: {server: "http://127.0.0.1:1"}}], users: [{name: a, user: {token: x}}]}`)
	x := &thief{t: t}
	x.Server = servetest.Start(t, nil, func(c *config.Config) {
		c.Open, c.Work.Pool = false, "off"
		c.Work.Clusters = []config.WorkCluster{{Name: "prod", Kubeconfig: kubeconfig, Server: "http://cairn.cairn.svc:5080", Worker: "worker:1", Argo: "off"}}
	})
	secret, err := access.SigningKey(filepath.Join(x.Config.Data, "pods.secret"))
	if err != nil {
		t.Fatal(err)
	}
	x.signer = dispatch.NewSigner(secret)
	return x
}

// pod is one of a run: its token, and the lease of the run's task.
type pod struct {
	run, token string
	lease      task.Lease
}

func (x *thief) leased(namespace string) pod {
	x.t.Helper()
	doc := "apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: a}\nspec: {tasks: [{name: a, image: 'busybox:1', command: ['true']}]}\n"
	body, _ := json.Marshal(map[string]any{"text": doc, "run": map[string]any{"namespace": namespace, "pool": "cluster/prod"}})
	r := x.Send(x.t, http.MethodPost, "/api/v1/runs", http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + x.Secret}}, body)
	var made struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(r.Body), &made); err != nil || made.ID == "" {
		x.t.Fatalf("%d %s", r.Status, r.Body)
	}
	s := dispatch.ShapeOf(&task.Task{Image: "busybox:1", Command: []string{"true"}})
	p := pod{run: made.ID}
	p.token = x.signer.Sign(dispatch.Claims{Cluster: "prod", Namespace: namespace, Run: p.run, Class: s.Class(), Expires: x.Clock.Now().Add(30 * 24 * time.Hour).Unix()}) + "." + x.signer.Key("prod", namespace)
	for begin := time.Now(); time.Since(begin) < 20*time.Second; {
		if g := x.ask(p, task.Ask{Want: 1}); len(g.Leases) > 0 {
			p.lease = g.Leases[0]
			return p
		}
	}
	x.t.Fatal("it gets no task")
	return p
}

func (x *thief) as(p pod, method, path string, lease *task.Ref, body []byte) servetest.Response {
	x.t.Helper()
	h := http.Header{"Authorization": {"Bearer " + p.token}, "Content-Type": {"application/json"}}
	if lease != nil {
		h.Set(task.HeaderLease, lease.Header())
	}
	return x.Send(x.t, method, path, h, body)
}

func (x *thief) ask(p pod, a task.Ask) (g task.Grant) {
	x.t.Helper()
	a.Worker = "pod-of-" + p.run
	body, err := json.Marshal(a)
	if err != nil {
		x.t.Fatal(err)
	}
	r := x.as(p, http.MethodPost, task.PathWork, nil, body)
	if err := json.Unmarshal([]byte(r.Body), &g); err != nil || r.Status != http.StatusOK {
		x.t.Fatalf("ask: %d %s", r.Status, r.Body)
	}
	return g
}

// What a pod can do with its token, and what it cannot, at a whole server.
func TestPodsAndOthers(t *testing.T) {
	x := newThief(t)
	mine, theirs := x.leased("team-a"), x.leased("team-b")
	// They have a file.
	r := x.as(theirs, http.MethodPost, task.PathBlob, &theirs.lease.Ref, []byte("secret words"))
	var file task.Produced
	if err := json.Unmarshal([]byte(r.Body), &file); err != nil || file.Digest == "" {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	stolen := theirs.lease.Ref
	stolen.Token = mine.lease.Token
	for _, c := range []struct {
		name, method, path string
		lease              *task.Ref
		want               int
	}{
		{"their file, by its name", http.MethodGet, task.PathBlob + file.Digest, &mine.lease.Ref, http.StatusNotFound},
		{"their file, with a lease of theirs", http.MethodGet, task.PathBlob + file.Digest, &theirs.lease.Ref, http.StatusForbidden},
		{"their file, with a lease that is made up", http.MethodGet, task.PathBlob + file.Digest, &stolen, http.StatusForbidden},
		{"their file, without a lease", http.MethodGet, task.PathBlob + file.Digest, nil, http.StatusForbidden},
		{"a file into their run", http.MethodPost, task.PathBlob, &theirs.lease.Ref, http.StatusForbidden},
		{"a source of their task", http.MethodPost, task.PathArtifact, &theirs.lease.Ref, http.StatusForbidden},
		{"their logs", http.MethodGet, "/api/v1/runs/" + theirs.run + "/logs", nil, http.StatusUnauthorized},
		{"its own logs", http.MethodGet, "/api/v1/runs/" + mine.run + "/logs", nil, http.StatusUnauthorized},
		{"all runs", http.MethodGet, "/api/v1/runs", nil, http.StatusUnauthorized},
		{"images", http.MethodGet, "/v2/", nil, http.StatusUnauthorized},
	} {
		if r := x.as(mine, c.method, c.path, c.lease, nil); r.Status != c.want || strings.Contains(r.Body, "secret words") {
			t.Errorf("%s: %d, want %d: %s", c.name, r.Status, c.want, r.Body)
		}
	}
	if r := x.as(theirs, http.MethodGet, task.PathBlob+file.Digest, &theirs.lease.Ref, nil); r.Status != http.StatusOK || r.Body != "secret words" {
		t.Errorf("their own file: %d %s", r.Status, r.Body)
	}
	// An end of their task, lines of it, and work of other pools.
	g := x.ask(mine, task.Ask{Pool: "default", Want: 10, Outcomes: []task.Outcome{{Ref: theirs.lease.Ref, Phase: task.Failed}, {Ref: stolen, Phase: task.Failed}}})
	if len(g.Refused) != 2 || len(g.Leases) != 0 {
		t.Errorf("%+v", g)
	}
	frame := task.AppendFrame(nil, task.Frame{Ref: stolen, Stream: task.Stdout, At: x.Clock.Now(), Bytes: []byte("forged\n")})
	r = x.as(mine, http.MethodPost, task.PathLogs, nil, frame)
	var logged task.Logged
	if err := json.Unmarshal([]byte(r.Body), &logged); err != nil || len(logged.Refused) != 1 {
		t.Errorf("lines of their task: %d %s", r.Status, r.Body)
	}
	// At another server, and with half of a token.
	other := newThief(t)
	if r := other.as(mine, http.MethodPost, task.PathWork, nil, []byte(`{"worker":"w"}`)); r.Status != http.StatusUnauthorized {
		t.Errorf("at another server: %d %s", r.Status, r.Body)
	}
	half := mine
	half.token = mine.token[:strings.LastIndexByte(mine.token, '.')]
	if r := x.as(half, http.MethodPost, task.PathWork, nil, []byte(`{"worker":"w"}`)); r.Status != http.StatusUnauthorized {
		t.Errorf("with half of a token: %d %s", r.Status, r.Body)
	}
	// When its task has ended, and with it its run, nothing is left to it.
	x.ask(mine, task.Ask{Outcomes: []task.Outcome{{Ref: mine.lease.Ref, Phase: task.Succeeded}}})
	if r := x.as(mine, http.MethodPost, task.PathBlob, &mine.lease.Ref, []byte("late")); r.Status != http.StatusConflict {
		t.Errorf("a file after the end: %d %s", r.Status, r.Body)
	}
	if g := x.ask(mine, task.Ask{Want: 1}); len(g.Leases) > 0 || !g.Drain {
		t.Errorf("after the end of its run: %+v", g)
	}
	x.Clock.Advance(31 * 24 * time.Hour)
	if r := x.as(mine, http.MethodPost, task.PathWork, nil, []byte(`{"worker":"w"}`)); r.Status != http.StatusUnauthorized {
		t.Errorf("when it is too old: %d %s", r.Status, r.Body)
	}
}
