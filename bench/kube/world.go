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
	"strconv"
	"strings"
	"time"

	"cairn.dev/cairn/internal/kube/install"
	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/images"
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

	server  *exec.Cmd
	address string
	stdin   io.Closer
}

// build makes a program of this repository.
func build(dir, name string) (string, error) {
	out := filepath.Join(dir, name)
	fmt.Fprintln(os.Stderr, "building", name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "cairn.dev/cairn/cmd/"+name)
	cmd.Env, cmd.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return out, nil
}

// fillRegistry starts a registry with the images of the real node, until stop.
func fillRegistry(ctx context.Context, dir string) (address string, stop func(), err error) {
	cairn, err := build(dir, "cairn")
	if err != nil {
		return "", nil, err
	}
	program, err := build(dir, "cairn-worker")
	if err != nil {
		return "", nil, err
	}
	if address, err = free(); err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, cairn, "serve", "--open", "--listen", address, "--data", filepath.Join(dir, "registry"), "--log-level", "error")
	cmd.Env, cmd.Stderr = append(os.Environ(), "CAIRN_TOKEN="), os.Stderr
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() { _, _ = cmd.Process.Signal(os.Interrupt), cmd.Wait() }
	all, err := images.Build(ctx, os.Stderr, "library/busybox:1")
	if err == nil {
		var w images.Image
		w, err = images.OfProgram(program, "cairn/worker:1")
		all = append(all, w)
	}
	if err == nil {
		err = until(ctx, "the registry answers", time.Minute, func() (bool, error) { return answers(ctx, "http://"+address+"/readyz"), nil })
	}
	for _, i := range all {
		if err == nil {
			err = i.Push(ctx, address)
		}
	}
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("a registry for the node: %w", err)
	}
	return address, stop, nil
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

// until polls.
func until(ctx context.Context, what string, within time.Duration, ok func() (bool, error)) error {
	for end := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
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

// serve starts a server of its own database, in place of the one before.
func (w *world) serve(ctx context.Context, pods int, warm time.Duration) error {
	w.end()
	w.n++
	address, err := free()
	if err != nil {
		return err
	}
	outside, err := w.Expose(address)
	if err != nil {
		return err
	}
	data := filepath.Join(w.dir, fmt.Sprintf("%s-server-%d", w.Name, w.n))
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	cfg, err := json.Marshal(serverConfig{Dir: data, Listen: address, Kubeconfig: w.kubeconfig, URL: "http://" + outside, Worker: workerImage, Pods: pods, Warm: warm})
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	w.server = exec.Command(self, "-serve", string(cfg))
	w.server.Stderr = os.Stderr
	if w.stdin, err = w.server.StdinPipe(); err != nil {
		return err
	}
	if err := w.server.Start(); err != nil {
		return err
	}
	w.address = address
	return until(ctx, "the server answers", time.Minute, func() (bool, error) { return answers(ctx, "http://"+address+"/ready"), nil })
}

// end ends the server.
func (w *world) end() {
	if w.server != nil {
		w.stdin.Close()
		_ = w.server.Wait()
		w.server = nil
	}
}

func (w *world) close() {
	w.end()
	if err := w.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "bench/kube: end the cluster:", err)
	}
}

// ended is how many runs the server has seen end.
func (w *world) ended(ctx context.Context) (n int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.address+"/ended", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = fmt.Fscan(resp.Body, &n)
	return n, err
}

// memory is the largest resident set of the server so far, in bytes.
func (w *world) memory() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.server.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("the kernel tells no VmHWM")
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
