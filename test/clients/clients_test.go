// Package clients_test lets the clients people use push, pull, list, copy and
// delete images on the registry, over a real store and a real connection.
//
// It owns what a client must be able to do. The images are built here; the
// clients come from Debian (skopeo, podman, buildah) or are built from source
// (crane, regctl). What was stored is checked with plain HTTP and not with the
// client that stored it.
package clients_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
	"cairn.dev/cairn/test/parts"
)

// serve runs an open registry and returns its address.
func serve(t *testing.T) string {
	t.Helper()
	return registrytest.Serve(t, registry.New(registry.Config{Content: registrytest.Store(t, registrytest.Disk(t))}))
}

// A client is a program with a home folder of its own.
type client struct {
	t     *testing.T
	path  string
	home  string
	first []string // arguments of every call
}

func newClient(t *testing.T, path string, first ...string) *client {
	t.Helper()
	c := &client{t, path, t.TempDir(), first}
	if err := os.WriteFile(c.auth(), []byte("{}"), 0o600); err != nil { // some insist that it is there
		t.Fatal(err)
	}
	return c
}

func (c *client) auth() string { return filepath.Join(c.home, "auth.json") }

// do runs the client and returns what it printed; it must succeed.
func (c *client) do(args ...string) string {
	c.t.Helper()
	out, all, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("%s %s: %v\n%s", filepath.Base(c.path), strings.Join(args, " "), err, all)
	}
	return out
}

// try runs the client, and returns its output without and with its messages.
func (c *client) try(args ...string) (out, all string, err error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.path, append(slices.Clone(c.first), args...)...)
	cmd.Dir = c.home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.home, "TMPDIR=" + c.home, "XDG_RUNTIME_DIR=" + c.home,
		"REGISTRY_AUTH_FILE=" + c.auth()}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return strings.TrimSpace(stdout.String()), stdout.String() + stderr.String(), err
}

// newImage is an image for one platform with two layers, in OCI media types.
func newImage(t *testing.T, arch string) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for range 2 {
		l, err := random.Layer(20_000, types.OCILayer)
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", arch
	cfg.Config.Cmd = []string{"/nothing"}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return img
}

// newIndex is an image for two platforms.
func newIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range []string{"amd64", "arm64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: newImage(t, arch),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	return index
}

// onDisk writes an image or index as an OCI layout with the tag v1.
func onDisk(t *testing.T, what any) (dir string, d string) {
	t.Helper()
	dir = t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	name := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "v1"})
	var h v1.Hash
	switch w := what.(type) {
	case v1.Image:
		err = p.AppendImage(w, name)
		h, _ = w.Digest()
	case v1.ImageIndex:
		err = p.AppendIndex(w, name)
		h, _ = w.Digest()
	default:
		err = fmt.Errorf("no image: %T", what)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir, h.String()
}

// stored gets a manifest as any client would, checks its bytes, and all that
// it names.
func stored(t *testing.T, addr, repo, ref string) (mediaType, d string) {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/v2/" + repo + "/manifests/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s:%s: %s %s", repo, ref, resp.Status, body)
	}
	d = resp.Header.Get("Docker-Content-Digest")
	if got := digest.FromBytes(body).String(); got != d {
		t.Fatalf("%s:%s has the digest %s, its header says %s", repo, ref, got, d)
	}
	m, err := image.ParseManifest(resp.Header.Get("Content-Type"), body)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range m.Children {
		stored(t, addr, repo, string(c.Digest))
	}
	for _, b := range m.Blobs() {
		resp, err := http.Get("http://" + addr + "/v2/" + repo + "/blobs/" + string(b.Digest))
		if err != nil {
			t.Fatal(err)
		}
		v := b.Digest.Verifier()
		n, err := io.Copy(v, resp.Body)
		resp.Body.Close()
		if err != nil || n != b.Size || !v.Verified() {
			t.Fatalf("blob %s: %s, %d bytes of %d, %v", b.Digest, resp.Status, n, b.Size, err)
		}
	}
	return m.MediaType, d
}

// absent checks that a manifest is not there.
func absent(t *testing.T, addr, repo, ref string) {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/v2/" + repo + "/manifests/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 404 {
		t.Errorf("%s:%s: %s, want 404", repo, ref, resp.Status)
	}
}

func TestSkopeo(t *testing.T) {
	parts.Apt(t, "skopeo")
	addr := serve(t)
	c := newClient(t, "skopeo", "--insecure-policy")
	dir, d := onDisk(t, newImage(t, "amd64"))
	src, dst := "oci:"+dir+":v1", "docker://"+addr+"/team/app:v1"

	c.do("copy", "--dest-tls-verify=false", src, dst)
	if _, got := stored(t, addr, "team/app", "v1"); got != d {
		t.Errorf("stored %s, pushed %s", got, d)
	}
	c.do("copy", "--dest-tls-verify=false", src, dst) // all of it is there already
	if got := c.do("inspect", "--tls-verify=false", "--format", "{{.Digest}}", dst); got != d {
		t.Errorf("inspect says %s, want %s", got, d)
	}

	// Docker's schema 2.
	c.do("copy", "--dest-tls-verify=false", "--format", "v2s2", src, "docker://"+addr+"/team/app:docker")
	if mt, _ := stored(t, addr, "team/app", "docker"); mt != image.MediaTypeDockerManifest {
		t.Errorf("--format v2s2 stored a %s", mt)
	}

	// An index with all that it lists, and Docker's list.
	idir, _ := onDisk(t, newIndex(t))
	c.do("copy", "--all", "--dest-tls-verify=false", "oci:"+idir+":v1", "docker://"+addr+"/team/multi:v1")
	mt, id := stored(t, addr, "team/multi", "v1") // skopeo writes an index of its own
	if mt != image.MediaTypeIndex {
		t.Errorf("index: stored a %s", mt)
	}
	c.do("copy", "--all", "--dest-tls-verify=false", "--format", "v2s2", "oci:"+idir+":v1", "docker://"+addr+"/team/multi:docker")
	if mt, _ := stored(t, addr, "team/multi", "docker"); mt != image.MediaTypeDockerList {
		t.Errorf("index: --format v2s2 stored a %s", mt)
	}

	// From repository to repository, which mounts; and back to disk.
	c.do("copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+addr+"/team/multi:v1", "docker://"+addr+"/other/multi:v2")
	if _, got := stored(t, addr, "other/multi", "v2"); got != id {
		t.Errorf("copy: stored %s, want %s", got, id)
	}
	c.do("copy", "--src-tls-verify=false", dst, "dir:"+filepath.Join(c.home, "back"))
	b, err := os.ReadFile(filepath.Join(c.home, "back", "manifest.json"))
	if err != nil || digest.FromBytes(b).String() != d {
		t.Errorf("came back as %s, %v", digest.FromBytes(b), err)
	}

	var list struct{ Tags []string }
	if err := json.Unmarshal([]byte(c.do("list-tags", "--tls-verify=false", "docker://"+addr+"/team/app")), &list); err != nil || !slices.Equal(list.Tags, []string{"docker", "v1"}) {
		t.Errorf("tags %v, %v", list.Tags, err)
	}
	c.do("delete", "--tls-verify=false", dst)
	absent(t, addr, "team/app", "v1")
	stored(t, addr, "team/app", "docker")

	// What a person sees who asks for what is not there.
	if _, all, err := c.try("inspect", "--tls-verify=false", dst); err == nil || !strings.Contains(all, "cairn why team/app:v1") {
		t.Errorf("inspect of a deleted image: %v %s", err, all)
	}
}

func TestCrane(t *testing.T) {
	addr := serve(t)
	c := newClient(t, parts.Path(t, "crane"))
	dir, d := onDisk(t, newIndex(t))
	ref := addr + "/team/app:v1"

	c.do("push", "--index", dir, ref) // the layout's own index, which lists ours
	_, outer := stored(t, addr, "team/app", "v1")
	if got := c.do("digest", ref); got != outer {
		t.Errorf("digest says %s, stored %s", got, outer)
	}
	stored(t, addr, "team/app", d)
	c.do("tag", addr+"/team/app@"+d, "v2")
	if got := c.do("ls", addr+"/team/app"); got != "v1\nv2" {
		t.Errorf("ls: %q", got)
	}
	c.do("validate", "--remote", addr+"/team/app:v2")
	c.do("copy", addr+"/team/app:v2", addr+"/team/copy:v2")
	if _, got := stored(t, addr, "team/copy", "v2"); got != d {
		t.Errorf("copy: stored %s, want %s", got, d)
	}
	if got := c.do("catalog", addr); got != "team/app\nteam/copy" {
		t.Errorf("catalog: %q", got)
	}
	tar := filepath.Join(c.home, "image.tar")
	c.do("pull", "--platform", "linux/arm64", addr+"/team/app:v2", tar)
	c.do("push", tar, addr+"/team/arm:v1")
	stored(t, addr, "team/arm", "v1")
	layer := filepath.Join(c.home, "layer.tar")
	if err := os.WriteFile(layer, make([]byte, 10240), 0o600); err != nil { // an empty tar
		t.Fatal(err)
	}
	c.do("append", "--base", addr+"/team/arm:v1", "--new_layer", layer, "--new_tag", addr+"/team/arm:v2")
	stored(t, addr, "team/arm", "v2")
	c.do("delete", addr+"/team/copy@"+d)
	absent(t, addr, "team/copy", d)
	absent(t, addr, "team/copy", "v2")
	stored(t, addr, "team/app", "v2")
}

// TestReferrers puts a signature on an image in both ways that are in use:
// a referrer, and cosign's tag made of the image's digest.
func TestReferrers(t *testing.T) {
	addr := serve(t)
	c := newClient(t, parts.Path(t, "regctl"))
	c.do("registry", "set", addr, "--tls", "disabled")
	dir, d := onDisk(t, newImage(t, "amd64"))
	ref := addr + "/team/app:v1"
	c.do("image", "copy", "ocidir://"+dir+":v1", ref)
	if _, got := stored(t, addr, "team/app", "v1"); got != d {
		t.Errorf("stored %s, want %s", got, d)
	}

	payload := filepath.Join(c.home, "payload")
	if err := os.WriteFile(payload, []byte(`{"critical":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c.do("artifact", "put", "--subject", ref, "--artifact-type", "application/vnd.dev.cosign.artifact.sig.v1+json",
		"--annotation", "by=test", "-f", payload, "-m", "application/vnd.dev.cosign.simplesigning.v1+json")
	c.do("artifact", "put", "--subject", ref, "--artifact-type", "application/spdx+json", "-f", payload, "-m", "application/spdx+json")
	list := func(args ...string) (ds []image.Descriptor) {
		t.Helper()
		out := c.do(append([]string{"artifact", "list", ref, "--format", "{{ json .Descriptors }}"}, args...)...)
		if err := json.Unmarshal([]byte(out), &ds); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return ds
	}
	if ds := list(); len(ds) != 2 {
		t.Errorf("referrers: %+v", ds)
	}
	ds := list("--filter-artifact-type", "application/vnd.dev.cosign.artifact.sig.v1+json")
	if len(ds) != 1 || ds[0].Annotations["by"] != "test" {
		t.Fatalf("signatures: %+v", ds)
	}
	if got := c.do("artifact", "get", addr+"/team/app@"+string(ds[0].Digest)); got != `{"critical":{}}` {
		t.Errorf("signature: %q", got)
	}
	// A client that sees referrers makes no fallback tag.
	if tags := c.do("tag", "ls", addr+"/team/app"); tags != "v1" {
		t.Errorf("tags %q", tags)
	}

	sig := strings.Replace(d, ":", "-", 1) + ".sig"
	c.do("artifact", "put", "--artifact-type", "application/vnd.dev.cosign.artifact.sig.v1+json", "-f", payload, "-m", "application/vnd.dev.cosign.simplesigning.v1+json", addr+"/team/app:"+sig)
	stored(t, addr, "team/app", sig)
	if tags := c.do("tag", "ls", addr+"/team/app"); tags != sig+"\nv1" {
		t.Errorf("tags %q", tags)
	}

	// The image moves with its referrers and its signature's tag.
	c.do("image", "copy", "--referrers", "--digest-tags", ref, addr+"/team/prod:v1")
	stored(t, addr, "team/prod", sig)
	resp, err := http.Get("http://" + addr + "/v2/team/prod/referrers/" + d)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var index struct{ Manifests []image.Descriptor }
	if err := json.NewDecoder(resp.Body).Decode(&index); err != nil || len(index.Manifests) != 2 {
		t.Errorf("referrers of the copy: %+v, %v", index.Manifests, err)
	}

	// In chunks, small ones: regctl resumes by the Range it is told.
	big := filepath.Join(c.home, "big")
	data := make([]byte, 3<<20+17)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	if err := os.WriteFile(big, data, 0o600); err != nil {
		t.Fatal(err)
	}
	c.do("registry", "set", addr, "--blob-chunk", "100000", "--blob-max", "1")
	c.do("artifact", "put", "--artifact-type", "application/vnd.test", "-f", big, "-m", "application/octet-stream", addr+"/team/big:v1")
	stored(t, addr, "team/big", "v1")
	c.do("tag", "rm", addr+"/team/big:v1")
	absent(t, addr, "team/big", "v1")
}

func TestPodmanAndBuildah(t *testing.T) {
	parts.Apt(t, "podman", "buildah")
	addr := serve(t)
	store := t.TempDir()
	storage := []string{"--storage-driver", "vfs", "--root", filepath.Join(store, "root"), "--runroot", filepath.Join(store, "run")}
	policy := filepath.Join(store, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}

	b := newClient(t, "buildah", storage...)
	file := filepath.Join(b.home, "hello")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	container := b.do("from", "scratch")
	b.do("copy", container, file, "/hello")
	b.do("config", "--cmd", "/hello", container)
	b.do("commit", "--signature-policy", policy, container, "localhost/built:v1")
	b.do("push", "--signature-policy", policy, "--tls-verify=false", "localhost/built:v1", "docker://"+addr+"/team/built:v1")
	_, d := stored(t, addr, "team/built", "v1")
	b.do("push", "--signature-policy", policy, "--tls-verify=false", "--format", "v2s2", "localhost/built:v1", "docker://"+addr+"/team/built:docker")
	if mt, _ := stored(t, addr, "team/built", "docker"); mt != image.MediaTypeDockerManifest {
		t.Errorf("--format v2s2 stored a %s", mt)
	}
	b.do("rm", container)
	b.do("rmi", "--all", "--force")

	p := newClient(t, "podman", append(storage, "--cgroup-manager", "cgroupfs", "--events-backend", "file")...)
	p.do("pull", "--signature-policy", policy, "--tls-verify=false", addr+"/team/built:v1")
	if got := p.do("image", "inspect", "--format", "{{.Digest}}", addr+"/team/built:v1"); got != d {
		t.Errorf("podman pulled %s, want %s", got, d)
	}
	p.do("pull", "--signature-policy", policy, "--tls-verify=false", addr+"/team/built@"+d)
	p.do("tag", addr+"/team/built:v1", addr+"/team/again:v2")
	p.do("push", "--signature-policy", policy, "--tls-verify=false", addr+"/team/again:v2")
	stored(t, addr, "team/again", "v2")

	// A list of images for two platforms, made and pushed by podman.
	dir, _ := onDisk(t, newIndex(t))
	p.do("manifest", "create", "multi", "--all", "oci:"+dir+":v1")
	p.do("manifest", "push", "--all", "--tls-verify=false", "multi", "docker://"+addr+"/team/multi:v1")
	stored(t, addr, "team/multi", "v1")
	p.do("rmi", "--all", "--force")
}
