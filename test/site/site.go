// Package site is what tests share that put a server beside real clusters: how
// the server knows a cluster, what the cluster is given, and how images come in.
//
// It owns no server and no cluster: tests start those as they need them.
package site

import (
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/serve/servetest"
	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/images"
)

// Audience is what tokens for the servers of tests are made for.
const Audience = "cairn"

// Trust is a cluster under a name, as the server's configuration has it: its
// issuer and the keys of that. The ServiceAccounts of the shipped manifests may
// speak for it.
func Trust(t testing.TB, c *cluster.Cluster, name string) config.Cluster {
	t.Helper()
	jwks := filepath.Join(t.TempDir(), "jwks")
	if err := os.WriteFile(jwks, []byte(c.Kubectl("get", "--raw", "/openid/v1/jwks")), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Cluster{Name: name, Issuer: c.Server, JWKS: jwks, Audience: Audience, Agent: []string{"cairn-agent/cairn-agent", "cairn-agent/cairn-node"}}
}

// Manifest is a shipped file of deploy/agent.
func Manifest(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../deploy/agent", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Admit gives the cluster the shipped manifests but for the pods: the test is
// the agent, with the tokens of its ServiceAccounts.
func Admit(t testing.TB, c *cluster.Cluster) {
	t.Helper()
	for _, file := range []string{"cluster.yaml", "node.yaml"} {
		for doc := range strings.SplitSeq(Manifest(t, file), "\n---\n") {
			if !strings.Contains(doc, "\nkind: Deployment\n") && !strings.Contains(doc, "\nkind: DaemonSet\n") {
				c.Apply(doc)
			}
		}
	}
}

// Door is an address that takes pushes to the server without a password, until
// the test ends.
func Door(t testing.TB, s *servetest.Server) string {
	t.Helper()
	target, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	authorization := "Bearer " + s.Secret
	signed := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Header.Set("Authorization", authorization)
	}})
	t.Cleanup(signed.Close)
	return strings.TrimPrefix(signed.URL, "http://")
}

// Push pushes an image that nothing else is, called repository:tag, and returns
// its digest.
func Push(t testing.TB, door, ref string) image.Digest {
	t.Helper()
	i := images.Variant(t, ref, ref)
	if err := i.Push(t.Context(), door); err != nil {
		t.Fatal(err)
	}
	d, err := i.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return image.Digest(d)
}
