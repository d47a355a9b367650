package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"cairn.dev/cairn/test/cluster/keeper/wire"
)

// A machine has its own /run and /var/log, so that programs find things on a
// real node where they look for them. From here they are below the folder of
// the cluster.
const (
	containerdSocket = "/run/containerd/containerd.sock"
	pauseImage       = "cairn.test/pause:1"
)

// nodeDir is the folder of a node's files.
func (c *Cluster) nodeDir(i int) string { return filepath.Join(c.Dir, nodeName(i)) }

// CRI is the socket of a node's container runtime (0 is node1), for this
// process; on the node itself it is /run/containerd/containerd.sock.
func (c *Cluster) CRI(node int) string {
	return filepath.Join(c.nodeDir(node), strings.TrimPrefix(containerdSocket, "/"))
}

// StaticPods is the folder of a node (0 is node1) in which files with pods make
// its kubelet run them, whoever asks.
func (c *Cluster) StaticPods(node int) string { return filepath.Join(c.nodeDir(node), "static") }

// old says whether a node has the old runtime.
func (c *Cluster) old(i int) bool { return c.opts.OldRuntime || i >= c.opts.Nodes-c.opts.OldNodes }

// addNode makes a machine a node: its network, container runtime and kubelet.
func (c *Cluster) addNode(n network, i int, m *wire.Machine) error {
	dir := c.nodeDir(i)
	at := func(name ...string) string { return filepath.Join(append([]string{dir}, name...)...) }
	subnet, gateway := n.pods(i, c.opts.Nodes)
	m.Pods = subnet
	m.Cgroup = filepath.Join(c.Name, nodeName(i))
	m.Binds = []wire.Bind{{From: at("run"), To: "/run"}, {From: at("log"), To: "/var/log"}}
	m.Files = kubeletSysctls()

	for _, d := range []string{"bin", "cni", "hosts", "run", "log", "static"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			return err
		}
	}
	// containerd looks for its shim, and the shim for runc, in PATH; CNI wants
	// its programs in one folder.
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", "bridge", "loopback", "host-local", "portmap"} {
		file, ok := c.programs[name]
		if old, replaced := c.programs[older+name]; replaced && c.old(i) {
			file, ok = old, true
		}
		if !ok {
			return fmt.Errorf("no program %s", name)
		}
		if err := os.Symlink(file, at("bin", name)); err != nil {
			return err
		}
	}
	kubelet, err := kubeletConfig(dir, m.Cgroup, c.StaticPods(i))
	if err != nil {
		return err
	}
	files := map[string]string{
		"containerd.toml": containerdConfig(dir, c.old(i)),
		"kubelet.yaml":    kubelet,
		"cni/10-pods.conflist": fmt.Sprintf(`{"cniVersion": "0.4.0", "name": "pods", "plugins": [
{"type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
 "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": %q, "gateway": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}},
{"type": "portmap", "capabilities": {"portMappings": true}}]}`, at("ipam"), subnet, gateway),
	}
	for name, content := range files {
		if err := os.WriteFile(at(filepath.FromSlash(name)), []byte(content), 0o644); err != nil {
			return err
		}
	}
	log := func(name string) string { return filepath.Join(c.Dir, nodeName(i)+"-"+name+".log") }
	env := []string{"PATH=" + at("bin") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "TMPDIR=" + os.TempDir(), "CONTAINERD_ADDRESS=" + containerdSocket}
	args := append([]string{"--config=" + at("kubelet.yaml"), "--kubeconfig=" + filepath.Join(c.Dir, nodeName(i)+".kubeconfig"),
		"--hostname-override=" + nodeName(i), "--node-ip=" + n.machine(i), "--root-dir=" + at("kubelet"), "--cert-dir=" + at("kubelet-certs")}, c.opts.Kubelet...)
	alive := strings.Replace(alive, "127.0.0.1", n.machine(0), 1)
	m.Processes = append(m.Processes,
		&wire.Process{Name: "containerd", Path: at("bin", "containerd"), Args: []string{"--config=" + at("containerd.toml")}, Env: env, Log: log("containerd")},
		&wire.Process{Name: "kubelet", Path: filepath.Join(c.Dir, "bin", "kubelet"), Args: args, Env: env, Log: log("kubelet"), Wait: alive})
	return nil
}

// kubeletSysctls are the settings of the kernel that a kubelet would change
// for the whole computer. It finds them as it wants them, and changes nothing.
func kubeletSysctls() []wire.File {
	return []wire.File{
		{Path: "/proc/sys/vm/overcommit_memory", Content: "1\n"},
		{Path: "/proc/sys/vm/panic_on_oom", Content: "0\n"},
		{Path: "/proc/sys/kernel/panic", Content: "10\n"},
		{Path: "/proc/sys/kernel/panic_on_oops", Content: "1\n"},
		{Path: "/proc/sys/kernel/keys/root_maxkeys", Content: "1000000\n"},
		{Path: "/proc/sys/kernel/keys/root_maxbytes", Content: "25000000\n"},
	}
}

func kubeletConfig(dir, cgroup, static string) (string, error) {
	type object = map[string]any
	b, err := json.MarshalIndent(object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"address":                  "0.0.0.0",
		"authentication":           object{"anonymous": object{"enabled": true}, "webhook": object{"enabled": false}},
		"authorization":            object{"mode": "AlwaysAllow"},
		// Nodes share the computer with whatever else runs there.
		"cgroupDriver": "cgroupfs", "cgroupRoot": "/" + cgroup, "failCgroupV1": false, "enforceNodeAllocatable": []string{},
		"failSwapOn": false, "oomScoreAdj": 0, "makeIPTablesUtilChains": false,
		"evictionHard":                object{"memory.available": "10Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
		"imageGCHighThresholdPercent": 100,
		"podLogsDir":                  filepath.Join(dir, "log", "pods"),
		"resolvConf":                  "",
		"staticPodPath":               static,
		// What a test waits for.
		"syncFrequency": "10s", "nodeStatusUpdateFrequency": "4s",
		"registerNode": true, "maxPods": 200, "serializeImagePulls": false, "registryPullQPS": 0, "eventRecordQPS": 0, "kubeAPIQPS": 500, "kubeAPIBurst": 500,
	}, "", " ")
	if err != nil {
		return "", err
	}
	return string(b), nil
}

func containerdConfig(dir string, old bool) string {
	config := `version = 3
root = "DIR/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs"]
[grpc]
address = "SOCKET"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "PAUSE"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "DIR/hosts"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["DIR/bin"]
conf_dir = "DIR/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "DIR/bin/runc"
SystemdCgroup = false
`
	if old {
		config = `version = 2
root = "DIR/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "SOCKET"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "PAUSE"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "DIR/bin"
conf_dir = "DIR/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "DIR/hosts"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "DIR/bin/runc"
SystemdCgroup = false
`
	}
	return strings.NewReplacer("DIR", dir, "SOCKET", containerdSocket, "PAUSE", pauseImage).Replace(config)
}

// importPause gives a node the image of pod sandboxes: the keeper itself,
// which pauses under that name.
func (c *Cluster) importPause(ctx context.Context, i int) error {
	tar := filepath.Join(c.Dir, "pause.tar")
	if _, err := os.Stat(tar); err != nil {
		b, err := pauseTar(c.programs["keeper"])
		if err != nil {
			return err
		}
		if err := os.WriteFile(tar, b, 0o644); err != nil {
			return err
		}
	}
	return c.poll(ctx, "the container runtime of "+nodeName(i), func() error {
		conn, err := net.Dial("unix", c.CRI(i))
		if err != nil {
			return err
		}
		conn.Close()
		out, err := c.Command(ctx, i, "ctr", "-n", "k8s.io", "images", "import", tar).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ctr images import: %w: %s", err, out)
		}
		return nil
	})
}

// Command is a program to run on a machine: 0 is that of the control plane and
// of node1, the others are those of further nodes. It sees the machine's
// processes, mounts and network, and its PATH holds ctr and runc on real nodes.
func (c *Cluster) Command(ctx context.Context, machine int, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(c.keeper.pid(machine)), "--mount", "--net", "--pid", "--uts", "--ipc", "--", name}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(c.nodeDir(machine), "bin")+":"+os.Getenv("PATH"), "KUBECONFIG="+c.Kubeconfig, "CONTAINERD_ADDRESS="+containerdSocket)
	return cmd
}
