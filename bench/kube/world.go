package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/kube/install"
	"cairn.dev/cairn/test/cluster"
)

// Namespaces: of runs, of runs under the restricted profile, and one that has
// nothing to do with Cairn.
const (
	plain  = "default"
	strict = "strict"
	others = "others"
)

// Images, as nodes call them.
const (
	image       = cluster.NodeRegistry + "/library/busybox:1"
	workerImage = cluster.NodeRegistry + "/cairn/worker:1"
)

// world is a cluster with Cairn's rights in it, and a server for it.
type world struct {
	*cluster.Cluster
	admin, other *api // the other may see one namespace, and is nobody special
	dir          string
	kubeconfig   string // of the server
	n            int    // servers so far

	config  serverConfig
	server  *exec.Cmd
	address string
	stdin   io.Closer
}

// free is an address that is free, and most likely still in a moment.
func free() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func answers(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// until polls, so often that what is measured is not by much too long.
func until(ctx context.Context, what string, within time.Duration, ok func() (bool, error)) error {
	return untilEach(ctx, 50*time.Millisecond, what, within, ok)
}

func untilEach(ctx context.Context, pause time.Duration, what string, within time.Duration, ok func() (bool, error)) error {
	for end := time.Now().Add(within); ; time.Sleep(pause) {
		yes, err := ok()
		switch {
		case yes && err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return errors.Join(fmt.Errorf("after %s it is still not so that %s", within, what), err)
		}
	}
}

// pause lets time pass, which is what is measured then.
func pause(ctx context.Context, d time.Duration) error { return clock.Sleep(ctx, clock.Real(), d) }

// newWorld starts a cluster in which Cairn is installed, but for the server.
func newWorld(ctx context.Context, dir string, o cluster.Options) (*world, error) {
	c, err := cluster.New(ctx, o)
	if err != nil {
		return nil, err
	}
	w := &world{Cluster: c, dir: dir}
	if err := w.furnish(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return w, nil
}

func (w *world) furnish(ctx context.Context) (err error) {
	made, err := install.Manifest(install.Default())
	if err != nil {
		return err
	}
	kubectl := func(stdin string, args ...string) (out string) {
		if err == nil {
			out, err = w.RunKubectl(ctx, stdin, args...)
		}
		return strings.TrimSpace(out)
	}
	kubectl(strings.ReplaceAll(string(made), "replicas: 1", "replicas: 0"), "apply", "-f", "-")
	kubectl("", "wait", "--for=condition=Established", "--timeout=30s", "crd/workflows.cairn.dev")
	kubectl(fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Namespace
metadata: {name: %[2]s}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: other, namespace: %[2]s}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: other, namespace: %[2]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: other, namespace: %[2]s}]
`, strict, others), "apply", "-f", "-")
	ours := kubectl("", "create", "token", "cairn", "--namespace=cairn", "--duration=2h")
	theirs := kubectl("", "create", "token", "other", "--namespace="+others, "--duration=2h")
	if err != nil {
		return err
	}
	if w.admin, err = newAPI(w.Server, w.CA, w.Token); err != nil {
		return err
	}
	if w.other, err = newAPI(w.Server, w.CA, theirs); err != nil {
		return err
	}
	w.kubeconfig = filepath.Join(w.dir, w.Name+".kubeconfig")
	b, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []any{map[string]any{"name": "c", "cluster": map[string]any{"server": w.Server, "certificate-authority": w.CA}}},
		"users":    []any{map[string]any{"name": "u", "user": map[string]any{"token": ours}}},
		"contexts": []any{map[string]any{"name": "c", "context": map[string]any{"cluster": "c", "user": "u"}}}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.kubeconfig, b, 0o600); err != nil {
		return err
	}
	for i := range 100 { // what somebody else looks at
		pod := map[string]any{"metadata": map[string]any{"name": fmt.Sprint("pod-", i)},
			"spec": map[string]any{"schedulerName": "nobody", "containers": []any{map[string]any{"name": "main", "image": image}}}}
		if err := until(ctx, "pods can be made", time.Minute, func() (bool, error) {
			_, err := w.admin.do(ctx, http.MethodPost, "/api/v1/namespaces/"+others+"/pods", pod)
			return err == nil, err
		}); err != nil {
			return err
		}
	}
	return nil
}

// stored is how many bytes of etcd's database are in use, all versions of
// objects since the last compaction included.
func (w *world) stored(ctx context.Context) (int64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	out, err := w.Command(ctx, 0, self, "-fetch", "http://127.0.0.1:2379/metrics").Output()
	if err != nil {
		return 0, fmt.Errorf("ask etcd: %w", err)
	}
	n, err := metric(string(out), "etcd_mvcc_db_total_size_in_use_in_bytes")
	return int64(n), err
}
