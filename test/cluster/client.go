package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// RunKubectl runs kubectl as the cluster's administrator with this standard
// input, and returns its standard output.
func (c *Cluster) RunKubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Dir, "bin", "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "HOME="+c.Dir)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Kubectl runs kubectl and returns its standard output; a failure ends the
// test.
func (c *Cluster) Kubectl(args ...string) string {
	c.tb.Helper()
	out, err := c.RunKubectl(c.tb.Context(), "", args...)
	if err != nil {
		c.tb.Fatalf("%v\n%s", err, out)
	}
	return out
}

// Apply gives documents of YAML to the cluster; a failure ends the test.
func (c *Cluster) Apply(yaml string) {
	c.tb.Helper()
	if _, err := c.RunKubectl(c.tb.Context(), yaml, "apply", "-f", "-"); err != nil {
		c.tb.Fatalf("%v\n%s", err, yaml)
	}
}

// httpClient trusts the API server and nobody else.
func (c *Cluster) httpClient() *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.ca)
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
}

// call asks the API; body and into may be nil.
func (c *Cluster) call(ctx context.Context, method, path string, body, into any) error {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Server+path, r)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %.200s", method, path, resp.Status, b)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

// readyNodes counts the nodes whose condition Ready is true and that take
// pods.
func (c *Cluster) readyNodes(ctx context.Context) (int, error) {
	var list struct {
		Items []struct {
			Spec   struct{ Taints []struct{ Key string } }
			Status struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := c.call(ctx, "GET", "/api/v1/nodes?resourceVersion=0", nil, &list); err != nil {
		return 0, err
	}
	n := 0
	for _, node := range list.Items {
		ready := false
		for _, s := range node.Status.Conditions {
			ready = ready || s.Type == "Ready" && s.Status == "True"
		}
		for _, t := range node.Spec.Taints {
			ready = ready && !strings.HasPrefix(t.Key, "node.kubernetes.io/")
		}
		if ready {
			n++
		}
	}
	return n, nil
}

// each calls do for 0 to n-1, several at once, and returns the first failure.
func each(n int, do func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	turns := make(chan struct{}, 16)
	for i := range n {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			errs[i] = do(i)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
