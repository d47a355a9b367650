package kube_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/kube/install"
	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/images"
	"cairn.dev/cairn/test/program"
)

// served is cairn serve as a process outside of its cluster, which knows it by
// a kubeconfig with the rights of cairn install. It is the registry of the
// nodes, too. It may be killed and begun again: its address stays.
type served struct {
	t       *testing.T
	cluster *cluster.Cluster
	door    *door
	bin     string
	dir     string // configuration and data
	secret  string
	client  *client.Client

	process *program.Process // the present life
}

// newServed starts both. work is added to the key work of the configuration,
// and pods to that of its cluster.
func newServed(t *testing.T, o cluster.Options, work, pods string) *served {
	t.Helper()
	s := &served{t: t, dir: t.TempDir(), bin: built.path(t, "cairn")}
	var at string
	s.door, at = openDoor(t)
	o.Registry = at
	s.cluster = cluster.Start(t, o)
	outside, err := s.cluster.Expose(at)
	if err != nil {
		t.Fatal(err)
	}
	s.admit()
	s.write("cairn.yaml", fmt.Sprintf(`
listen: 127.0.0.1:0
data: data
access: {anonymous_pull: ["**"]}
log: {format: json}
work:
  pool: "off"
%s  clusters:
  - {name: prod, kubeconfig: kubeconfig, server: "http://%s", worker: %s/%s%s}
`, work, outside, cluster.NodeRegistry, workerImage, pods))
	s.start()
	if s.client, err = client.New(client.Config{Server: "http://" + at, Token: s.secret}); err != nil {
		t.Fatal(err)
	}
	if err := images.Program(t, buildWorker(t), workerImage).Push(t.Context(), s.pushes()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *served) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// admit gives the cluster what cairn install prints, but for the pod: that is
// this process.
func (s *served) admit() {
	s.t.Helper()
	o := install.Default()
	o.Argo = true
	made, err := install.Manifest(o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.cluster.Apply(strings.ReplaceAll(string(made), "replicas: 1", "replicas: 0"))
	for _, kind := range []string{"workflows.cairn.dev", "workflows.argoproj.io", "cronworkflows.argoproj.io", "workflowtemplates.argoproj.io", "clusterworkflowtemplates.argoproj.io"} {
		s.cluster.Kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/"+kind)
	}
	token := strings.TrimSpace(s.cluster.Kubectl("create", "token", "cairn", "--namespace=cairn", "--duration=2h"))
	b, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []any{map[string]any{"name": "c", "cluster": map[string]any{"server": s.cluster.Server, "certificate-authority": s.cluster.CA}}},
		"users":    []any{map[string]any{"name": "u", "user": map[string]any{"token": token}}},
		"contexts": []any{map[string]any{"name": "c", "context": map[string]any{"cluster": "c", "user": "u"}}}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("kubeconfig", string(b))
}

var adminSecret = regexp.MustCompile(`cairn_admin_\S+`)

// start begins a life, and waits until it serves.
func (s *served) start() {
	s.t.Helper()
	cmd := exec.Command(s.bin, "serve", "--config", filepath.Join(s.dir, "cairn.yaml"))
	said, err := os.Create(filepath.Join(s.dir, "said"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer said.Close()
	cmd.Stdout = said
	s.process = program.Start(s.t, cmd, nil)
	address, err := s.process.Address()
	if err != nil {
		s.t.Fatal(err)
	}
	s.door.lead(address)
	if s.secret == "" { // it was shown before it serves, this once
		b, err := os.ReadFile(said.Name())
		if err != nil {
			s.t.Fatal(err)
		}
		s.secret = adminSecret.FindString(string(b))
	}
}

// kill ends it as the kernel does when there is no memory left.
func (s *served) kill() { s.process.Kill() }

// pushes is an address that takes pushes to its registry without a password.
func (s *served) pushes() string {
	target := &url.URL{Scheme: "http", Host: s.door.target()}
	h := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Header.Set("Authorization", "Bearer "+s.secret)
	}})
	s.t.Cleanup(h.Close)
	return strings.TrimPrefix(h.URL, "http://")
}

// ran waits until a run has ended.
func (s *served) ran(id string, within time.Duration) wire.Run {
	s.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		r, err := s.client.Run(s.t.Context(), id)
		if err == nil && r.Done() {
			return r
		}
		if time.Now().After(end) {
			s.t.Fatalf("run %s has not ended after %v: %+v, %v\n%s\n%s", id, within, r, err, s.cluster.Kubectl("get", "jobs,pods", "-A", "-o", "wide"), s.process.Output())
		}
	}
}
