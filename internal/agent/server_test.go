package agent_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/agent"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/serve/servetest"
	"cairn.dev/cairn/internal/usage"
)

// A cluster gives out tokens as Kubernetes does.
type cluster struct {
	t   *testing.T
	key *ecdsa.PrivateKey
}

func newCluster(t *testing.T) *cluster {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{t, key}
}

// jwks writes the public key to a file.
func (c *cluster) jwks() string {
	b, err := c.key.PublicKey.Bytes()
	if err != nil {
		c.t.Fatal(err)
	}
	e := base64.RawURLEncoding.EncodeToString
	return write(c.t, "jwks", fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","x":%q,"y":%q}]}`, e(b[1:33]), e(b[33:])))
}

func (c *cluster) token(account string, ends time.Time) string {
	ns, name, _ := strings.Cut(account, "/")
	claims, err := json.Marshal(map[string]any{"iss": "https://k", "aud": "cairn", "exp": ends.Unix(), "sub": "system:serviceaccount:" + ns + ":" + name,
		"kubernetes.io": map[string]any{"namespace": ns, "serviceaccount": map[string]any{"name": name}}})
	if err != nil {
		c.t.Fatal(err)
	}
	e := base64.RawURLEncoding.EncodeToString
	head := e([]byte(`{"alg":"ES256"}`)) + "." + e(claims)
	sum := sha256.Sum256([]byte(head))
	r, s, err := ecdsa.Sign(rand.Reader, c.key, sum[:])
	if err != nil {
		c.t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return head + "." + e(sig)
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// runs is a source that always runs and wants the same.
type runs struct {
	mu   sync.Mutex
	snap agent.Snapshot
}

func (r *runs) Run(ctx context.Context, _ func(...usage.Use)) error {
	<-ctx.Done()
	return ctx.Err()
}

func (r *runs) Snapshot(context.Context) (agent.Snapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return agent.Snapshot{Uses: append([]usage.Use{}, r.snap.Uses...), Wanted: r.snap.Wanted}, nil
}

// An agent signs on with its cluster's token, which changes, and what it says
// is in the ledger under the name of the cluster.
func TestAgentAndServer(t *testing.T) {
	prod := newCluster(t)
	s := servetest.Start(t, nil, func(c *config.Config) {
		c.Open = false
		c.Clusters = []config.Cluster{{Name: "prod", Issuer: "https://k", JWKS: prod.jwks(), Audience: "cairn", Agent: []string{"cairn/agent"}}}
	})
	web := s.Push(t, "app/web", "1.0", "one")
	job := s.Push(t, "app/job", "1.0", "two")
	idle := s.Push(t, "app/idle", "1.0", "three")

	token := write(t, "token", prod.token("cairn/agent", s.Clock.Now().Add(time.Hour)))
	cl, err := client.New(client.Config{Server: s.URL, Secret: agent.SecretFile(token)})
	if err != nil {
		t.Fatal(err)
	}
	place := &runs{snap: agent.Snapshot{
		Uses:   []usage.Use{{Digest: web, Source: usage.Container, Subject: "prod/shop/Deployment/web"}},
		Wanted: []agent.Wanted{{Reference: "registry.example.org/app/job:1.0", Subject: "prod/shop/CronJob/nightly"}, {Reference: "elsewhere/x:1", Subject: "prod/shop/CronJob/x"}},
	}}
	ticks := clock.NewFake(s.Clock.Now()) // of the agent
	a, err := agent.New(agent.Config{Reporter: "prod"}, agent.Deps{Source: place, Sink: agent.Server{Client: cl}, Clock: ticks, Jitter: func() float64 { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	reports := func(n int64) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); a.Status().Reports < n || ticks.Waiting() == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not %d reports: %+v\n%s", n, a.Status(), s.Log)
			}
		}
	}
	reports(1)
	admin, err := client.New(client.Config{Server: s.URL, Token: s.Secret})
	if err != nil {
		t.Fatal(err)
	}
	why := func(repository string, d image.Digest) string {
		t.Helper()
		e, err := admin.Why(t.Context(), image.Reference{Repository: repository, Digest: d})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := json.Marshal(e)
		return string(b)
	}
	if got := why("app/web", web); !strings.Contains(got, "prod/shop/Deployment/web") {
		t.Errorf("why app/web: %s", got)
	}
	if got := why("app/job", job); !strings.Contains(got, "prod/shop/CronJob/nightly") || !strings.Contains(got, "workload") {
		t.Errorf("why app/job: %s", got)
	}
	if got := why("app/idle", idle); strings.Contains(got, "prod/") {
		t.Errorf("why app/idle: %s", got)
	}
	l, err := admin.Reporters(t.Context())
	if err != nil || len(l.Reporters) != 1 || l.Reporters[0].Name != "cluster/prod" || l.Reporters[0].Digests != 2 || l.Reporters[0].Silent {
		t.Errorf("reporters: %+v, %v", l, err)
	}

	// The token ends; the cluster has put a new one into the file by then.
	s.Clock.Advance(50 * time.Minute)
	if err := os.WriteFile(token, []byte(prod.token("cairn/agent", s.Clock.Now().Add(time.Hour))), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Clock.Advance(30 * time.Minute)
	ticks.Advance(time.Minute)
	reports(2)
	// And if it has not, the agent is refused, and heard again when it has.
	s.Clock.Advance(time.Hour)
	ticks.Advance(time.Minute)
	for end := time.Now().Add(20 * time.Second); a.Status().Failures == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("an expired token was accepted: %+v", a.Status())
		}
	}
	if e := a.Status().Error; !strings.Contains(e, "expired") {
		t.Errorf("why: %s", e)
	}
	if err := os.WriteFile(token, []byte(prod.token("cairn/agent", s.Clock.Now().Add(time.Hour))), 0o600); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); a.Status().Reports < 3; time.Sleep(time.Millisecond) {
		ticks.Advance(time.Second)
		if time.Now().After(end) {
			t.Fatalf("not heard again: %+v", a.Status())
		}
	}
}

// Who holds a token of one cluster speaks for that cluster and nothing else.
func TestOneClusterCannotSpeakForAnother(t *testing.T) {
	prod, forger := newCluster(t), newCluster(t)
	s := servetest.Start(t, nil, func(c *config.Config) {
		c.Open = false
		c.Clusters = []config.Cluster{{Name: "prod", Issuer: "https://k", JWKS: prod.jwks(), Audience: "cairn", Agent: []string{"cairn/agent"}, Pull: []string{"app/**"}}}
	})
	web := s.Push(t, "app/web", "1.0", "one")
	s.Push(t, "lib/x", "1.0", "two")
	ends := s.Clock.Now().Add(time.Hour)
	good, pod := prod.token("cairn/agent", ends), prod.token("shop/web", ends)
	use := func(subject string) string {
		return fmt.Sprintf(`"uses":[{"digest":%q,"source":"container","subject":%q}]`, web, subject)
	}
	for _, tt := range []struct {
		name, token, method, path, body string
		status                          int
		says                            string
	}{
		{"its own", good, "POST", "/api/v1/uses", `{"reporter":"prod","period":"60s",` + use("prod/a/b") + `}`, 200, ""},
		{"without a name", good, "POST", "/api/v1/uses", `{"period":"60s",` + use("prod/a/b") + `}`, 200, ""},
		{"one of its nodes", good, "POST", "/api/v1/uses", `{"reporter":"prod:n1",` + use("prod/a/b") + `}`, 200, ""},
		{"another cluster", good, "POST", "/api/v1/uses", `{"reporter":"dev","period":"60s",` + use("prod/a/b") + `}`, 403, "may not speak for"},
		{"a name that begins like its own", good, "POST", "/api/v1/uses", `{"reporter":"production","period":"60s",` + use("prod/a/b") + `}`, 403, "may not speak for"},
		{"a workload of another", good, "POST", "/api/v1/uses", `{"reporter":"prod",` + use("dev/a/b") + `}`, 403, "not of the cluster prod"},
		{"a workload that begins like its own", good, "POST", "/api/v1/uses", `{"reporter":"prod",` + use("production/a/b") + `}`, 403, "not of the cluster prod"},
		{"a pod that is no agent", pod, "POST", "/api/v1/uses", `{"reporter":"prod",` + use("prod/a/b") + `}`, 403, "may not report uses"},
		{"forged", forger.token("cairn/agent", ends), "POST", "/api/v1/uses", `{"reporter":"prod",` + use("prod/a/b") + `}`, 401, "was not signed"},
		{"expired", prod.token("cairn/agent", s.Clock.Now().Add(-time.Second)), "POST", "/api/v1/uses", `{"reporter":"prod",` + use("prod/a/b") + `}`, 401, "expired"},
		{"an absurd digest", good, "POST", "/api/v1/uses", `{"reporter":"prod","uses":[{"digest":"sha256:x","source":"container","subject":"prod/a"}]}`, 400, "digest"},
		{"forget a cluster", good, "DELETE", "/api/v1/reporters?name=cluster/prod", "", 403, "may not administer"},
		{"make an account", good, "POST", "/api/v1/tokens", `{"name":"x","kind":"admin"}`, 403, "may not administer"},
		{"pull", pod, "GET", "/v2/app/web/manifests/1.0", "", 200, ""},
		{"pull what is not for the cluster", pod, "GET", "/v2/lib/x/manifests/1.0", "", 403, "may not"},
		{"push", pod, "POST", "/v2/app/web/blobs/uploads/", "", 403, "may not"},
		{"log in", good, "GET", "/v2/", "", 200, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := s.Send(t, tt.method, tt.path, http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + tt.token}}, []byte(tt.body))
			if r.Status != tt.status || !strings.Contains(r.Body, tt.says) {
				t.Errorf("%d %s, want %d and %q", r.Status, r.Body, tt.status, tt.says)
			}
		})
	}
	r := s.Do(t, "GET", "/api/v1/reporters", "", nil)
	if strings.Count(r.Body, `"name"`) != 1 || !strings.Contains(r.Body, `"cluster/prod"`) {
		t.Errorf("reporters: %s", r.Body)
	}
}
