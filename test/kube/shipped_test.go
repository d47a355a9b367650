package kube_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"cairn.dev/cairn/internal/kube/install"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/images"
)

// door is an address that pods reach and that leads where it is told to: there
// is no cluster DNS here that would know the server's Service.
type door struct {
	mu sync.Mutex
	to string
}

// openDoor makes one, at an address of this computer.
func openDoor(t *testing.T) (d *door, address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	d = &door{}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go d.serve(in)
		}
	}()
	return d, l.Addr().String()
}

func (d *door) lead(to string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.to = to
}

func (d *door) target() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.to
}

func (d *door) serve(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", d.target())
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		_, _ = io.Copy(out, in)
		_ = out.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(in, out)
}

// What is shipped, as it is shipped: the manifests of cairn install on a real
// node, a workflow by kubectl apply, its tasks in pods; and cairn uninstall
// leaves nothing of all that.
func TestShipped(t *testing.T) {
	t.Parallel()
	store := registrytest.Serve(t, registry.New(registry.Config{Content: registrytest.Store(t, registrytest.Disk(t))}))
	images.Push(t, store, "library/alpine:3.23")
	for file, ref := range map[string]string{built.path(t, "cairn"): "cairn/cairn:1", buildWorker(t): "cairn/worker:1"} {
		if err := images.Program(t, file, ref).Push(t.Context(), store); err != nil {
			t.Fatal(err)
		}
	}
	c := cluster.Start(t, cluster.Options{Nodes: 1, Registry: store})
	before := everything(t, c)
	d, near := openDoor(t)
	address, err := c.Expose(near)
	if err != nil {
		t.Fatal(err)
	}
	o := install.Default()
	o.Cluster, o.StorageClass, o.Storage = "prod", "here", "1Gi"
	o.Image, o.Worker = cluster.NodeRegistry+"/cairn/cairn:1", cluster.NodeRegistry+"/cairn/worker:1"
	made, err := install.Manifest(o)
	if err != nil {
		t.Fatal(err)
	}
	removed, err := install.Removal(o)
	if err != nil {
		t.Fatal(err)
	}
	// A disk, which a cluster would have.
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	for dir := disk; len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	c.Apply("apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: here}\nspec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], storageClassName: here, persistentVolumeReclaimPolicy: Retain, hostPath: {path: " + disk + "}}\n")
	service := "http://cairn.cairn.svc:5080"
	if !strings.Contains(string(made), service) {
		t.Fatal("workers are not told of the Service")
	}
	c.Apply(strings.Replace(string(made), service, "http://"+address, 1))
	c.Kubectl("wait", "--for=create", "--timeout=60s", "--namespace=cairn", "pod/cairn-0")
	if out, err := c.RunKubectl(t.Context(), "", "wait", "--for=condition=Ready", "--timeout=90s", "--namespace=cairn", "pod/cairn-0"); err != nil {
		logs, _ := c.RunKubectl(t.Context(), "", "logs", "--namespace=cairn", "cairn-0")
		t.Fatalf("%v: %s\n%s\n%s", err, out, c.Kubectl("describe", "pod", "--namespace=cairn", "cairn-0"), logs)
	}
	d.lead(c.Kubectl("get", "pod", "cairn-0", "--namespace=cairn", "-o", "jsonpath={.status.podIP}") + ":5080")

	// A namespace that takes only what the restricted profile allows.
	c.Kubectl("create", "namespace", "shop")
	c.Kubectl("label", "namespace", "shop", "pod-security.kubernetes.io/enforce=restricted")
	c.Apply("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: first, namespace: shop}\nspec: {tasks: [{name: a, image: alpine:3.23, command: [echo, hello], forEach: {count: 10}}]}\n")
	if _, err := c.RunKubectl(t.Context(), "", "wait", "--for=condition=Succeeded", "--timeout=90s", "--namespace=shop", "wf/first"); err != nil {
		logs, _ := c.RunKubectl(t.Context(), "", "logs", "--namespace=cairn", "cairn-0", "--tail=50")
		t.Fatalf("%v\n%s\n%s\n%s", err, c.Kubectl("get", "wf", "first", "-n", "shop", "-o", "yaml"), c.Kubectl("describe", "job,pod", "-n", "shop"), logs)
	}
	if got := c.Kubectl("get", "wf", "first", "-n", "shop", "-o", "jsonpath={.status.progress}"); got != "10/10" {
		t.Errorf("progress %s", got)
	}
	// What runs when Cairn goes does not stay either.
	c.Apply("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: long}\nspec: {tasks: [{name: a, image: alpine:3.23, command: [sleep, 1000]}]}\n")
	c.Kubectl("wait", "--for=condition=Running", "--timeout=60s", "wf/long")
	await(t, "its pod runs", func() (string, bool) {
		out := c.Kubectl("get", "pods", "-o", "jsonpath={.items[*].status.phase}")
		return out, out == "Running"
	})
	if out, err := c.RunKubectl(t.Context(), string(removed), "delete", "--timeout=90s", "-f", "-"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.Kubectl("delete", "namespace", "shop", "--timeout=60s")
	await(t, "nothing is left behind", func() (string, bool) {
		left := slices.DeleteFunc(everything(t, c), func(x string) bool { return slices.Contains(before, x) || x == "PersistentVolume//here" })
		return strings.Join(left, " "), len(left) == 0
	})
}
