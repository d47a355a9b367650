package cluster

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
	"cairn.dev/cairn/test/images"
)

// cairn is a registry with these images, on the loopback address.
func cairn(t *testing.T, refs ...string) (address string, digests map[string]string) {
	t.Helper()
	address = registrytest.Serve(t, registry.New(registry.Config{Content: registrytest.Store(t, registrytest.Disk(t))}))
	return address, images.Push(t, address, refs...)
}

// timed is Start, and tells how long it took.
func timed(t *testing.T, o Options) *Cluster {
	t.Helper()
	if _, err := find(t.Context(), o); err != nil { // so that no build counts
		t.Logf("build: %v", err)
	}
	begin := time.Now()
	c := Start(t, o)
	t.Logf("%d nodes and %d fake ones ready after %s", o.Nodes, o.FakeNodes, time.Since(begin).Round(100*time.Millisecond))
	return c
}

func TestControlPlane(t *testing.T) {
	c := timed(t, Options{})
	c.Apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: v}}`)
	if got := c.Kubectl("get", "configmap", "a", "-o", "jsonpath={.data.k}"); got != "v" {
		t.Errorf("the value is %q", got)
	}
	if _, err := c.RunKubectl(t.Context(), "", "get", "configmap", "b"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("a missing thing: %v", err)
	}
	config := c.Config()
	if config.Host != c.Server || config.BearerToken == "" {
		t.Errorf("config %+v", config)
	}
	// Tokens name their cluster.
	token := strings.TrimSpace(c.Kubectl("create", "token", "default"))
	if got := claims(t, token)["iss"]; got != c.Server {
		t.Errorf("tokens are issued by %v, want %s", got, c.Server)
	}
}

func TestStopAndStart(t *testing.T) {
	c := timed(t, Options{})
	if err := c.Stop(t.Context(), 0, "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	if err := c.call(t.Context(), "GET", "/readyz", nil, nil); err == nil {
		t.Error("the API server still answers")
	}
	if err := c.Run(t.Context(), 0, "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Disconnect(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.call(ctx, "GET", "/readyz", nil, nil); err == nil {
		t.Error("the API server answers over a network that is cut")
	}
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestFakeNodes(t *testing.T) {
	c := timed(t, Options{FakeNodes: 100})
	c.Apply(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 20
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers:
      - {name: setup, image: "registry.test:5000/setup:1"}
      containers:
      - {name: web, image: "web:1"}
      - {name: side, image: "side@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}
---
apiVersion: batch/v1
kind: Job
metadata: {name: work}
spec:
  completions: 10
  parallelism: 10
  template:
    metadata: {annotations: {cairn.dev/runs-for: 1s}}
    spec:
      restartPolicy: Never
      containers: [{name: work, image: "work:1"}]
`)
	c.Kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	c.Kubectl("wait", "--for=condition=complete", "job/work", "--timeout=60s")
	var pods podList
	if err := c.call(t.Context(), "GET", "/api/v1/namespaces/default/pods", nil, &pods); err != nil {
		t.Fatal(err)
	}
	nodes, ids := map[string]bool{}, map[string]bool{}
	for _, p := range pods.Items {
		nodes[p.Spec.NodeName] = true
		for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if !strings.HasPrefix(s.ContainerID, "containerd://") || ids[s.ContainerID] {
				t.Errorf("%s/%s: container id %q", p.Metadata.Name, s.Name, s.ContainerID)
			}
			ids[s.ContainerID] = true
			repository, digest, ok := strings.Cut(s.ImageID, "@sha256:")
			if want := map[string]string{"setup": "registry.test:5000/setup", "web": "web", "side": "side", "work": "work"}[s.Name]; !ok || repository != want || len(digest) != 64 {
				t.Errorf("%s/%s: image id %q, want one of %s", p.Metadata.Name, s.Name, s.ImageID, want)
			}
		}
	}
	if len(ids) != 20*3+10 || len(nodes) < 10 {
		t.Errorf("%d containers on %d nodes; want 70 on many", len(ids), len(nodes))
	}
}

type podList struct {
	Items []struct {
		Metadata struct{ Name string }
		Spec     struct{ NodeName string }
		Status   struct {
			Phase                                    string
			PodIP                                    string
			InitContainerStatuses, ContainerStatuses []struct{ Name, Image, ImageID, ContainerID string }
		}
	}
}

func TestRealNode(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(map[bool]string{false: "containerd2", true: "containerd1.6"}[old], func(t *testing.T) {
			address, digests := cairn(t, "library/busybox:latest", "library/nginx:1.13", "library/python:alpine3.23")
			c := timed(t, Options{Nodes: 1, Registry: address, OldRuntime: old})
			c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: shell, image: busybox, command: [sh, -c, "echo hello from $HOSTNAME; sleep 1000"]}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: web, image: "nginx:1.13", readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: count}
spec:
  completions: 3
  parallelism: 3
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: count, image: "python:alpine3.23", command: [python, -c, "import socket; socket.create_connection(('` + kubernetesService + `', 443), 5); print(6 * 7)"]}
`)
			begin := time.Now()
			c.Kubectl("wait", "--for=condition=ready", "pod/shell", "pod/web", "--timeout=90s")
			c.Kubectl("wait", "--for=condition=complete", "job/count", "--timeout=90s")
			t.Logf("two pods and a job of three after %s", time.Since(begin).Round(100*time.Millisecond))

			if got := c.Kubectl("logs", "shell"); got != "hello from shell\n" {
				t.Errorf("log %q", got)
			}
			if got := c.Kubectl("exec", "shell", "--", "sh", "-c", "echo $((6 * 7))"); got != "42\n" {
				t.Errorf("exec said %q", got)
			}
			if got := c.Kubectl("logs", "-l", "job-name=count"); got != "42\n42\n42\n" {
				t.Errorf("the job said %q", got)
			}
			var pods podList
			if err := c.call(t.Context(), "GET", "/api/v1/namespaces/default/pods", nil, &pods); err != nil {
				t.Fatal(err)
			}
			for _, p := range pods.Items {
				switch p.Metadata.Name {
				case "shell":
					if got, want := p.Status.ContainerStatuses[0].ImageID, "docker.io/library/busybox@"+digests["library/busybox:latest"]; got != want {
						t.Errorf("the image is %s, want %s", got, want)
					}
				case "web": // pods are reached from here
					resp, err := http.Get("http://" + p.Status.PodIP)
					if err != nil {
						t.Error(err)
						continue
					}
					body, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					if !strings.Contains(string(body), "nginx") {
						t.Errorf("the page is %q", body)
					}
				}
			}
			// Pods reach this computer (and the API: the job would fail).
			if got := c.Kubectl("exec", "shell", "--", "wget", "-q", "-O", "-", "http://"+c.Registry()+"/v2/library/busybox/tags/list"); !strings.Contains(got, "latest") {
				t.Errorf("the registry says to pods %q", got)
			}
			if !old {
				c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: volume}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: image, image: {reference: "127.0.0.1:5000/library/busybox:latest"}}]
  containers:
  - {name: c, image: busybox, command: [sleep, "1000"], volumeMounts: [{name: image, mountPath: /image}]}
`)
				c.Kubectl("wait", "--for=condition=ready", "pod/volume", "--timeout=60s")
				if got := c.Kubectl("exec", "volume", "--", "cat", "/image/etc/group"); !strings.Contains(got, "nobody") {
					t.Errorf("the image volume holds %q", got)
				}
			}
			pod := `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "static"}, "spec": {"containers": [{"name": "c", "image": "busybox", "command": ["sleep", "1000"]}]}}`
			if err := os.WriteFile(filepath.Join(c.StaticPods(0), "static.json"), []byte(pod), 0o644); err != nil {
				t.Fatal(err)
			}
			err := c.poll(t.Context(), "the static pod", func() error {
				_, err := c.RunKubectl(t.Context(), "", "wait", "--for=condition=ready", "pod/static-node1", "--timeout=30s")
				return err
			})
			if err != nil {
				t.Error(err)
			}
			if out, err := c.Command(t.Context(), 0, "ctr", "-n", "k8s.io", "containers", "ls", "-q").CombinedOutput(); err != nil || len(strings.Fields(string(out))) < 4 {
				t.Errorf("ctr on the node: %v: %s", err, out)
			}
			if conn, err := os.Stat(c.CRI(0)); err != nil || conn.Mode()&os.ModeSocket == 0 {
				t.Errorf("the runtime's socket: %v", err)
			}
		})
	}
}

func TestTwoClusters(t *testing.T) {
	address, _ := cairn(t, "library/busybox:latest")
	a, b := timed(t, Options{Nodes: 1, Registry: address}), timed(t, Options{Nodes: 1, FakeNodes: 2, Registry: address})
	for _, c := range []*Cluster{a, b} {
		c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: pod}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: busybox, command: [sh, -c, "echo ` + c.Name + `; sleep 1000"]}]
`)
	}
	for _, c := range []*Cluster{a, b} {
		c.Kubectl("wait", "--for=condition=ready", "pod/pod", "--timeout=60s")
		if got := strings.TrimSpace(c.Kubectl("logs", "pod")); got != c.Name {
			t.Errorf("the pod of %s says %q", c.Name, got)
		}
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := b.Ready(t.Context()); err != nil {
		t.Errorf("after the end of the other one: %v", err)
	}
	if a.Server == b.Server || a.Dir == b.Dir {
		t.Errorf("both are %s in %s", a.Server, a.Dir)
	}
}

func TestTwoNodes(t *testing.T) {
	address, _ := cairn(t, "library/busybox:latest")
	c := timed(t, Options{Nodes: 2, Registry: address})
	c.Apply(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each}
spec:
  selector: {matchLabels: {app: each}}
  template:
    metadata: {labels: {app: each}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: busybox, command: [sh, -c, "httpd -p 80 -h /etc; sleep 1000"]}]
`)
	c.Kubectl("rollout", "status", "daemonset/each", "--timeout=60s")
	lines := strings.Fields(c.Kubectl("get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name}{" "}{.status.podIP}{"\n"}{end}`))
	if len(lines) != 4 {
		t.Fatalf("pods are %v", lines)
	}
	if got := c.Kubectl("exec", lines[0], "--", "wget", "-q", "-O", "-", "http://"+lines[3]+"/group"); !strings.Contains(got, "nobody") {
		t.Errorf("a pod on another node says %q", got)
	}
}

// claims are what a token says.
func claims(t *testing.T, token string) map[string]any {
	t.Helper()
	part := strings.Split(token, ".")
	if len(part) != 3 {
		t.Fatalf("no token: %q", token)
	}
	b, err := base64.RawURLEncoding.DecodeString(part[1])
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// left lists what there is of a cluster: processes, mounts, devices, cgroups
// and files.
func left(t *testing.T, name, dir string) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{dir, dir + ".plan", "/sys/class/net/" + name + "*", "/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
		m, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, m...)
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range processes {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), dir+"/") {
			found = append(found, "process "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir+"/") {
			found = append(found, "mount "+line)
		}
	}
	return found
}

// sysctls are the settings of the kernel that a kubelet likes to change.
func sysctls(t *testing.T) string {
	t.Helper()
	all := ""
	for _, f := range kubeletSysctls() {
		b, err := os.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		all += f.Path + " " + string(b)
	}
	return all
}

// Nothing stays of a cluster, in whatever way its test ends. The test binary
// is started again as a victim, which tells what it has and is then killed, or
// its keeper is.
func TestNothingStays(t *testing.T) {
	if os.Getenv("CAIRN_CLUSTER_VICTIM") != "" {
		victim(t)
		return
	}
	before := sysctls(t)
	for _, who := range []string{"test", "keeper", "both", "nobody"} {
		t.Run(who, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNothingStays$", "-test.v")
			cmd.Env = append(os.Environ(), "CAIRN_CLUSTER_VICTIM=yes")
			cmd.Stderr = os.Stderr
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var about struct {
				Name, Dir string
				Keeper    int
			}
			lines := bufio.NewScanner(out)
			for about.Name == "" && lines.Scan() {
				if s, ok := strings.CutPrefix(lines.Text(), "VICTIM "); ok {
					if err := json.Unmarshal([]byte(s), &about); err != nil {
						t.Fatal(err)
					}
				}
			}
			if about.Name == "" {
				_ = cmd.Wait()
				if Unable() != "" {
					Start(t, Options{}) // says what is missing
				}
				t.Fatal("the victim did not start")
			}
			// The check can fail: there is a lot while the cluster lives.
			if found := left(t, about.Name, about.Dir); len(found) < 10 {
				t.Errorf("a living cluster shows only %v", found)
			}
			if after := sysctls(t); after != before {
				t.Errorf("settings of the kernel changed:\n%swant\n%s", after, before)
			}
			keeper, err := os.FindProcess(about.Keeper)
			if err != nil {
				t.Fatal(err)
			}
			if who == "keeper" || who == "both" {
				if err := keeper.Kill(); err != nil {
					t.Error(err)
				}
			}
			if who == "test" || who == "both" {
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
			}
			in.Close() // the victim ends, if it still lives
			_, _ = io.Copy(io.Discard, out)
			_ = cmd.Wait()
			if who == "keeper" || who == "both" {
				// Nobody is there to remove cgroups and files: the next start does.
				c, err := New(t.Context(), Options{})
				if err != nil {
					t.Fatal(err)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
			// The keeper of a killed test works in its own time.
			var found []string
			for range 100 {
				if found = left(t, about.Name, about.Dir); len(found) == 0 {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			if len(found) > 0 {
				t.Errorf("left behind: %v", found)
			}
			if after := sysctls(t); after != before {
				t.Errorf("settings of the kernel changed:\n%swant\n%s", after, before)
			}
		})
	}
}

// victim runs a cluster with a pod until its standard input ends.
func victim(t *testing.T) {
	address, _ := cairn(t, "library/busybox:latest")
	c := Start(t, Options{Nodes: 1, Registry: address})
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: pod}
spec:
  containers: [{name: c, image: busybox, command: [sleep, "1000"]}]
`)
	c.Kubectl("wait", "--for=condition=ready", "pod/pod", "--timeout=60s")
	b, err := json.Marshal(map[string]any{"Name": c.Name, "Dir": c.Dir, "Keeper": c.keeper.cmd.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("VICTIM %s\n", b)
	_, _ = io.Copy(io.Discard, os.Stdin)
}
