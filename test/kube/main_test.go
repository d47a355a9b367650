package kube_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/parts"
)

// single are clusters of a single real node, which most tests share. The registry
// of one is that of the farm that has it.
var single = &cluster.Shared{Options: cluster.Options{Nodes: 1, Registry: "127.0.0.1:1"}}

func TestMain(m *testing.M) {
	code := m.Run()
	if err := single.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "end the clusters that were shared:", err)
		code = max(code, 1)
	}
	built.remove()
	os.Exit(code)
}

// borrow gives a farm a cluster: one that is shared, unless it wants more of it
// than one node.
func (f *farm) borrow(o cluster.Options) {
	f.t.Helper()
	if o.Nodes != 1 || o.EtcdDoor || len(o.APIServer)+len(o.ControllerManager)+len(o.Kubelet) > 0 || o.OldRuntime || o.OldNodes > 0 || o.FakeNodes > 0 || o.Mirrored != nil {
		o.Registry = f.registry
		f.cluster = cluster.Start(f.t, o)
		return
	}
	f.cluster = single.Lend(f.t)
	f.cluster.SetRegistry(f.registry)
	f.t.Cleanup(f.leave)
}

// leave takes away what a test made in the cluster that it shares.
func (f *farm) leave() {
	// The test's own context has ended when it is cleaned up after.
	ctx, end := context.WithTimeout(context.Background(), 2*time.Minute)
	defer end()
	const ours = "--field-selector=metadata.name!=kubernetes,metadata.name!=kube-root-ca.crt,metadata.name!=default"
	for _, args := range [][]string{
		{"jobs,deployments,statefulsets", "--all", "-A"},
		{"pods", "--all", "-A", "--grace-period=1"},
		{"services,configmaps,secrets,persistentvolumeclaims,resourcequotas,serviceaccounts,roles.rbac.authorization.k8s.io,rolebindings.rbac.authorization.k8s.io,networkpolicies.networking.k8s.io", ours, "--namespace=default"},
		{"persistentvolumes", "--all"},
		{"namespaces", "--field-selector=metadata.name!=default,metadata.name!=kube-system,metadata.name!=kube-public,metadata.name!=kube-node-lease"},
	} {
		if out, err := f.cluster.RunKubectl(ctx, "", append([]string{"delete"}, args...)...); err != nil {
			f.t.Errorf("clean up: %v\n%s", err, out)
		}
	}
}

// programs are those that tests put into images, built once.
type programs struct {
	mu   sync.Mutex
	dir  string
	made map[string]string
}

var built programs

// path is the file of a program of cmd, as it is shipped.
func (p *programs) path(t *testing.T, name string) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made[name] != "" {
		return p.made[name]
	}
	if p.dir == "" {
		dir, err := os.MkdirTemp("", "cairn-test-kube-")
		if err != nil {
			t.Fatal(err)
		}
		p.dir, p.made = dir, map[string]string{}
	}
	out, err := parts.Compile(t.Context(), name, p.dir)
	if err != nil {
		t.Fatal(err)
	}
	p.made[name] = out
	return out
}

func (p *programs) remove() {
	if p.dir != "" {
		_ = os.RemoveAll(p.dir)
	}
}
