package clients_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/mirror"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
	"cairn.dev/cairn/test/parts"
	"cairn.dev/cairn/test/program"
)

// distribution runs the registry most people run, until stop.
func distribution(t *testing.T) (addr string, stop func()) {
	t.Helper()
	addr = program.FreeAddress(t)
	return addr, program.Distribution(t, addr, "").Kill
}

// containerd asks its mirror by ?ns=, with and without the upstream.
func TestMirrorForContainerd(t *testing.T) {
	upstream, kill := distribution(t)
	parts.Apt(t, "skopeo")
	skopeo := newClient(t, "skopeo", "--insecure-policy")
	dir, _ := onDisk(t, newIndex(t))
	for _, tag := range []string{"1", "2"} {
		skopeo.do("copy", "--all", "--dest-tls-verify=false", "oci:"+dir+":v1", "docker://"+upstream+"/library/busybox:"+tag)
	}
	addr, store := mirrorOf(t, upstream)

	home := t.TempDir()
	socket := filepath.Join(home, "c.sock")
	config := filepath.Join(home, "config.toml")
	hosts := filepath.Join(home, "certs.d", "docker.io")
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(config, fmt.Sprintf("version = 3\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \"io.containerd.grpc.v1.cri\", \"io.containerd.nri.v1.nri\"]\n[grpc]\n  address = %q\n",
		filepath.Join(home, "root"), filepath.Join(home, "state"), socket))
	// Only the mirror: the real docker.io is not asked even where it can be.
	write(filepath.Join(hosts, "hosts.toml"), fmt.Sprintf("server = \"http://127.0.0.1:1\"\n[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", addr))
	ctr := newClient(t, parts.Path(t, "ctr"), "--address", socket, "--connect-timeout", "30s")
	program.Serve(t, exec.Command(parts.Path(t, "containerd"), "--config", config), func() error {
		_, all, err := ctr.try("version")
		if err != nil {
			return fmt.Errorf("%w\n%s", err, all)
		}
		return nil
	})
	fetch := func(tag string) {
		t.Helper()
		ctr.do("content", "fetch", "--hosts-dir", filepath.Dir(hosts), "--platform", "linux/amd64", "docker.io/library/busybox:"+tag)
	}
	fetch("1")
	waitFor(t, "the image is here", func() bool {
		i, err := store.Peek(t.Context(), "docker.io/library/busybox", "1")
		return err == nil && i.State == content.Live
	})
	kill()
	ctr.do("images", "rm", "--sync", "docker.io/library/busybox:1")
	fetch("1")
	if _, all, err := ctr.try("content", "fetch", "--hosts-dir", filepath.Dir(hosts), "docker.io/library/busybox:2"); err == nil {
		t.Errorf("a tag that is not here and whose upstream is gone was pulled:\n%s", all)
	}
}

// mirrorOf runs a registry that mirrors upstream as docker.io.
func mirrorOf(t *testing.T, upstream string) (addr string, store *content.Store) {
	t.Helper()
	store = registrytest.Store(t, registrytest.Disk(t))
	m, err := mirror.New(mirror.Config{Content: store, Clock: clock.Real(), Upstreams: []mirror.Upstream{{Host: "docker.io", URL: "http://" + upstream, TTL: time.Millisecond}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return registrytest.Serve(t, registry.New(registry.Config{Content: store, Mirror: m})), store
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so", what)
		}
	}
}

// Clients pull what another registry has, and go on when that is gone.
func TestMirrorOfDistribution(t *testing.T) {
	upstream, kill := distribution(t)
	crane := newClient(t, parts.Path(t, "crane"))
	parts.Apt(t, "skopeo")
	skopeo := newClient(t, "skopeo", "--insecure-policy")
	layout, _ := onDisk(t, newIndex(t))
	skopeo.do("copy", "--all", "--dest-tls-verify=false", "oci:"+layout+":v1", "docker://"+upstream+"/library/busybox:1")
	want := crane.do("digest", upstream+"/library/busybox:1")

	addr, store := mirrorOf(t, upstream)
	ref := addr + "/docker.io/library/busybox:1"
	pulls := func() {
		t.Helper()
		if got := crane.do("digest", ref); got != want {
			t.Fatalf("crane sees %s, want %s", got, want)
		}
		crane.do("validate", "--remote", ref)
		to := filepath.Join(t.TempDir(), "oci")
		skopeo.do("copy", "--all", "--src-tls-verify=false", "docker://"+ref, "oci:"+to+":1")
		if got := crane.do("digest", addr+"/docker.io/busybox:1"); got != want {
			t.Errorf("by the short name crane sees %s, want %s", got, want)
		}
	}
	pulls()
	waitFor(t, "the image is here", func() bool {
		i, err := store.Peek(t.Context(), "docker.io/library/busybox", "1")
		return err == nil && i.State == content.Live
	})
	if _, all, err := crane.try("copy", ref, addr+"/docker.io/library/other:1"); err == nil || !strings.Contains(all, "is not pushed to") {
		t.Errorf("a push to a mirrored name: %v\n%s", err, all)
	}
	kill()
	pulls()
	resp, err := http.Get("http://" + addr + "/v2/library/busybox/manifests/1?ns=docker.io")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if w := resp.Header.Get("Warning"); resp.StatusCode != 200 || !strings.Contains(w, "docker.io does not answer") || resp.Header.Get("OCI-Namespace") != "docker.io" {
		t.Errorf("without the upstream: %d, Warning %q, OCI-Namespace %q", resp.StatusCode, w, resp.Header.Get("OCI-Namespace"))
	}
	crane.do("copy", ref, addr+"/our/busybox:1")
}
