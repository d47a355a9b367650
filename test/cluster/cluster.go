// Package cluster gives tests a Kubernetes cluster made of the real programs:
// etcd, API server, controller manager and scheduler; as many pretended nodes
// as wanted; and real nodes, on which containers run.
//
// It owns how these programs are set up, and the helpers that wait for them.
// It promises that a cluster is whole when [Start] returns, that any number of
// them live side by side on one computer, and that everything ends with the
// process that started it, however that ends: package keeper, which does it,
// runs as a process of its own. The programs come from package parts, which
// builds them once. It changes nothing of the computer but a bridge and cgroups
// of its own while a cluster lives.
//
// Networks. Each cluster has a network of its own; only this computer reaches
// it, and it reaches only this computer: HostIP is this computer as nodes and
// pods see it, and what listens there (and only there, or everywhere) they
// reach; [Cluster.Expose] does the same for a server on the loopback address.
// Nodes and pods are reached from here at their own addresses. There is no
// cluster DNS, and of all Services only that of the API server works, from
// pods of node1: use addresses.
//
// Where it cannot run (not Linux, not root) a test ends by parts.Missing.
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/test/cluster/keeper/wire"
	"cairn.dev/cairn/test/parts"
)

// Options say what a cluster has. The zero value is a control plane alone.
type Options struct {
	// Nodes is how many real nodes there are, at most 4: node1, node2, ... Each
	// has a containerd and a kubelet of its own.
	Nodes int
	// FakeNodes is how many nodes only pretend: fake-0, fake-1, ... Pods there
	// run at once and forever (those of Jobs succeed at once, but for
	// Cairn's workers) and report
	// digests made up from the image's name. Where there are real nodes too,
	// the fake ones have the taint kwok.x-k8s.io/node=fake:NoSchedule.
	FakeNodes int
	// Registry is the address (host:port, plain HTTP) of the registry that
	// serves the images of real nodes, as this process reaches it.
	Registry string
	// Mirrored are the registries in whose place Registry is asked; default
	// docker.io.
	Mirrored []string
	// OldRuntime takes Debian's containerd 1.6 for real nodes: no image
	// volumes, no events by CRI.
	OldRuntime bool
	// OldNodes are that many of them, the last, which have it while others do not.
	OldNodes int
	// APIServer, ControllerManager and Kubelet are further flags.
	APIServer, ControllerManager, Kubelet []string
	// EtcdDoor has the API server reach etcd by way of this process, so that
	// [Cluster.DelayEtcd] can make it slow.
	EtcdDoor bool
	// Progress is where to tell what is built; default standard error.
	Progress io.Writer
}

// Cluster is a running cluster. Its methods may be called by several
// goroutines at once.
type Cluster struct {
	Dir        string   // files of the cluster; gone at the end
	Name       string   // no other cluster of this computer has it
	Server     string   // https address of the API; also the issuer of its tokens
	Kubeconfig string   // file, for the group system:masters
	CA         string   // file with the certificate of the API server
	Token      string   // of the same user
	HostIP     string   // this computer, as nodes and pods see it
	NodeIPs    []string // of the real nodes

	opts     Options
	programs programs
	keeper   *keeper
	tb       testing.TB // nil without a test
	ca       []byte
	http     *http.Client

	slow delay // of etcd

	lock     sync.Mutex
	forwards []net.Listener
}

// readyWithin bounds the start of a cluster on a busy computer.
const readyWithin = 2 * time.Minute

// Start starts a cluster that ends with the test, and waits until its nodes
// are ready: within 15 s on a computer that is not busy, once its programs are
// built.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	if why := Unable(); why != "" {
		parts.Missing(t, why)
	}
	c, err := New(t.Context(), o)
	if err != nil {
		fail(t, err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("end the cluster: %v", err)
		}
	})
	c.attach(t)
	return c
}

// Unable says why this computer cannot run a cluster; empty when it can.
func Unable() string {
	switch {
	case runtime.GOOS != "linux":
		return "a cluster needs Linux: its machines are namespaces; run the tests in a privileged Linux container"
	case os.Geteuid() != 0:
		return "a cluster needs root, to make namespaces, bridges and cgroups; run the tests as root, in a privileged container for instance"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return "a cluster needs the program ip; type: apt-get install iproute2"
	}
	return ""
}

// New is [Start] without a test: Close ends the cluster.
func New(ctx context.Context, o Options) (*Cluster, error) {
	if why := Unable(); why != "" {
		return nil, errors.New(why)
	}
	if o.Nodes < 0 || o.Nodes > 4 || o.FakeNodes < 0 {
		return nil, fmt.Errorf("start a cluster: %d nodes and %d fake ones: there may be 0 to 4 real nodes", o.Nodes, o.FakeNodes)
	}
	if o.Mirrored == nil {
		o.Mirrored = []string{"docker.io"}
	}
	programs, err := find(ctx, o)
	if err != nil {
		return nil, missing{err}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("not ready after %s", readyWithin))
	defer cancel()
	k, slot, err := startKeeper(ctx, programs["keeper"])
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: o, programs: programs, keeper: k, Dir: slot.Folder, Name: fmt.Sprintf("cairn%d", slot.Slot), Token: "admin-token"}
	if err := c.start(ctx, slot.Slot); err != nil {
		err = fmt.Errorf("start a cluster: %w\n%s", err, c.Logs(10))
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// start runs everything and waits until it is ready.
func (c *Cluster) start(ctx context.Context, slot int) error {
	n := network(slot)
	c.HostIP = n.host()
	c.Server = "https://" + n.machine(0)
	c.Kubeconfig = filepath.Join(c.Dir, "kubeconfig")
	c.CA = filepath.Join(c.Dir, "apiserver.crt")
	if err := c.writeControlPlane(n); err != nil {
		return err
	}
	c.http = c.httpClient()
	machines := []wire.Machine{c.machine(n, 0)}
	for i := 1; i < c.opts.Nodes; i++ {
		machines = append(machines, c.machine(n, i))
	}
	machines[0].Processes = c.controlPlane(n)
	machines[0].Aliases = []string{kubernetesService + "/32"}
	if c.opts.FakeNodes > 0 {
		p, err := c.fake()
		if err != nil {
			return err
		}
		machines[0].Processes = append(machines[0].Processes, p)
	}
	for i := range c.opts.Nodes {
		c.NodeIPs = append(c.NodeIPs, n.machine(i))
		if err := c.addNode(n, i, &machines[i]); err != nil {
			return err
		}
	}
	err := c.keeper.plan(ctx, wire.Plan{Bridge: c.Name, Address: n.host() + "/24", Cgroup: c.Name, Machines: machines})
	if err != nil {
		return err
	}
	if c.opts.EtcdDoor {
		if err := c.openEtcd(n); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case err := <-c.keeper.failed:
			cancel(err)
		case <-ctx.Done():
		}
	}()
	if err := c.poll(ctx, "the API server", func() error { return c.call(ctx, "GET", "/readyz", nil, nil) }); err != nil {
		return err
	}
	if err := c.furnish(ctx); err != nil {
		return err
	}
	return c.ready(ctx)
}

// furnish makes what needs a living cluster.
func (c *Cluster) furnish(ctx context.Context) error {
	if c.opts.Registry != "" && c.opts.Nodes > 0 {
		if err := c.exposeRegistry(); err != nil {
			return err
		}
	}
	if err := c.makeFakes(ctx); err != nil {
		return err
	}
	for i := range c.opts.Nodes {
		if err := c.importPause(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// ready waits for the API, for the account that every pod needs, and for the
// nodes.
func (c *Cluster) ready(ctx context.Context) error {
	if err := c.poll(ctx, "the API server", func() error { return c.call(ctx, "GET", "/readyz", nil, nil) }); err != nil {
		return err
	}
	account := "/api/v1/namespaces/default/serviceaccounts/default"
	if err := c.poll(ctx, "the controller manager", func() error { return c.call(ctx, "GET", account, nil, nil) }); err != nil {
		return err
	}
	want := c.opts.Nodes + c.opts.FakeNodes
	return c.poll(ctx, "the nodes", func() error {
		if want == 0 {
			return nil
		}
		ready, err := c.readyNodes(ctx)
		if err == nil && ready < want {
			err = fmt.Errorf("%d of %d are ready", ready, want)
		}
		return err
	})
}

// poll calls try until it succeeds.
func (c *Cluster) poll(ctx context.Context, what string, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last: %w", what, context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Close ends the cluster and returns when nothing of it is left. A test may
// call it before its end.
func (c *Cluster) Close() error {
	c.lock.Lock()
	for _, l := range c.forwards {
		l.Close()
	}
	c.forwards = nil
	c.lock.Unlock()
	return c.keeper.close()
}

// Logs are the last lines of each program's log.
func (c *Cluster) Logs(lines int) string {
	files, _ := filepath.Glob(filepath.Join(c.Dir, "*.log"))
	slices.Sort(files)
	var out strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		all := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
		last := all[max(0, len(all)-lines):]
		fmt.Fprintf(&out, "--- %s\n%s\n", filepath.Base(f), bytes.Join(last, []byte("\n")))
	}
	return out.String()
}

// missing says that the error is a program that cannot be had.
type missing struct{ error }

func (m missing) Unwrap() error { return m.error }

// programs are the files of the programs by name.
type programs map[string]string

// older is before the names of those of Debian's containerd.
const older = "old/"

// find builds what the cluster needs, unless it is there.
func find(ctx context.Context, o Options) (programs, error) {
	if o.Progress == nil {
		o.Progress = os.Stderr
	}
	names := []string{"keeper", "kubernetes"}
	if o.FakeNodes > 0 {
		names = append(names, "kwok")
	}
	var debian []string
	if o.Nodes > 0 {
		names = append(names, "bridge", "loopback", "host-local", "portmap")
		debian = []string{"runc"}
		if o.OldRuntime || o.OldNodes > 0 {
			debian = append(debian, "containerd")
		}
		if !o.OldRuntime {
			names = append(names, "containerd", "containerd-shim-runc-v2", "ctr")
		}
	}
	found := programs{}
	for _, name := range names {
		file, err := parts.Build(ctx, name, o.Progress)
		if err != nil {
			return nil, err
		}
		found[name] = file
	}
	for _, name := range debian {
		dir, err := parts.Unpack(ctx, name, o.Progress)
		if err != nil {
			return nil, err
		}
		for _, sub := range []string{"usr/sbin", "usr/bin"} {
			files, err := os.ReadDir(filepath.Join(dir, sub))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
			for _, f := range files {
				key := f.Name()
				if name == "containerd" {
					key = older + key
				}
				found[key] = filepath.Join(dir, sub, f.Name())
			}
		}
	}
	return found, nil
}
