package clients_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
	"cairn.dev/cairn/test/parts"
)

// guarded runs a registry with one account that may pull and push below team/,
// and public/** for everybody to pull.
func guarded(t *testing.T) (addr, secret string) {
	t.Helper()
	g, secrets := registrytest.Guard(t, clock.Real(), access.NewAccount{Name: "dev", Grants: []access.Grant{
		{Repositories: []string{"team/**", "public/**"}, Actions: []access.Action{access.Pull, access.Push, access.Delete}}}})
	h := registry.New(registry.Config{Content: registrytest.Store(t, registrytest.Disk(t)), Access: g})
	return registrytest.Serve(t, registrytest.WithTokens(g, h)), secrets["dev"]
}

// refused runs a client that must fail and say why.
func (c *client) refused(says string, args ...string) {
	c.t.Helper()
	_, all, err := c.try(args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(strings.ToLower(all), says) {
		c.t.Errorf("%s %s: %v, want a refusal that says %q:\n%s", filepath.Base(c.path), strings.Join(args, " "), err, says, all)
	}
}

func TestLoginWithCrane(t *testing.T) {
	addr, secret := guarded(t)
	c := newClient(t, parts.Path(t, "crane"))
	dir, _ := onDisk(t, newImage(t, "amd64"))
	c.refused("unauthorized", "push", "--index", dir, addr+"/team/app:v1")
	c.do("auth", "login", addr, "-u", "dev", "-p", "wrong") // which only writes it down
	c.refused("unauthorized", "digest", addr+"/team/app:v1")
	c.do("auth", "login", addr, "-u", "dev", "-p", secret)
	c.do("push", "--index", dir, addr+"/team/app:v1")
	c.do("pull", addr+"/team/app:v1", "--format", "oci", filepath.Join(c.home, "out"))
	c.do("copy", addr+"/team/app:v1", addr+"/public/app:v1") // mounts with a token for both
	c.refused("403 forbidden", "push", "--index", dir, addr+"/secret/app:v1")
	c.do("delete", addr+"/team/app:v1")

	nobody := newClient(t, c.path)
	nobody.do("digest", addr+"/public/app:v1")
	nobody.refused("unauthorized", "digest", addr+"/team/app:v1")
}

func TestLoginWithSkopeo(t *testing.T) {
	parts.Apt(t, "skopeo")
	addr, secret := guarded(t)
	c := newClient(t, "skopeo", "--insecure-policy")
	dir, _ := onDisk(t, newImage(t, "amd64"))
	c.refused("unauthorized", "copy", "--dest-tls-verify=false", "oci:"+dir+":v1", "docker://"+addr+"/team/app:v1")
	c.refused("invalid username/password", "login", "--tls-verify=false", "-u", "dev", "-p", "wrong", addr)
	c.do("login", "--tls-verify=false", "-u", "dev", "-p", secret, addr)
	c.do("copy", "--dest-tls-verify=false", "oci:"+dir+":v1", "docker://"+addr+"/team/app:v1")
	c.do("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+addr+"/team/app:v1", "docker://"+addr+"/public/app:v1")
	c.refused("403 (forbidden)", "copy", "--dest-tls-verify=false", "oci:"+dir+":v1", "docker://"+addr+"/secret/app:v1")

	nobody := newClient(t, "skopeo", "--insecure-policy")
	nobody.do("inspect", "--tls-verify=false", "docker://"+addr+"/public/app:v1")
	nobody.refused("unauthorized", "inspect", "--tls-verify=false", "docker://"+addr+"/team/app:v1")
}

func TestLoginWithRegctl(t *testing.T) {
	addr, secret := guarded(t)
	c := newClient(t, parts.Path(t, "regctl"))
	dir, _ := onDisk(t, newImage(t, "amd64"))
	c.do("registry", "set", addr, "--tls", "disabled")
	c.refused("unauthorized", "image", "copy", "ocidir://"+dir+":v1", addr+"/team/app:v1")
	c.do("registry", "login", addr, "-u", "dev", "-p", secret)
	c.do("image", "copy", "ocidir://"+dir+":v1", addr+"/team/app:v1")
	c.do("image", "copy", addr+"/team/app:v1", addr+"/public/app:v1")
}

func TestLoginWithPodman(t *testing.T) {
	parts.Apt(t, "podman")
	addr, secret := guarded(t)
	store := t.TempDir()
	p := newClient(t, "podman", "--storage-driver", "vfs", "--root", filepath.Join(store, "root"), "--runroot", filepath.Join(store, "run"),
		"--cgroup-manager", "cgroupfs", "--events-backend", "file")
	p.refused("invalid username/password", "login", "--tls-verify=false", "-u", "dev", "-p", "wrong", addr)
	p.do("login", "--tls-verify=false", "-u", "dev", "-p", secret, addr)
}
