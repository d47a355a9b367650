// Package parts provides the real programs that tests and benchmarks run
// Cairn against: clients, other registries, conformance suites.
//
// It owns the one table of their pinned versions, the cache folder they are
// built into, and the installing of Debian packages where that is possible.
// It promises that a part is in the cache whole or not at all, that several
// test binaries may ask for the same part at once, and that a part which
// cannot be had ends the test with the command that cures it: as a skip on a
// developer's machine, as a failure where CAIRN_E2E=required says that every
// part must be there. It is the only place in the repository that may skip a
// test. It does not know what the parts are used for, and builds nothing that
// nobody asked for.
//
// The programs are built from source by the Go command with whatever module
// proxy the environment names; those that are not in Go come from npm.
package parts

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A Part is one program at one version.
type Part struct {
	Name    string // of the program and of its file
	Package string // import path of its main package
	Version string // as the Go command spells it
	Cold    time.Duration
	Purpose string
	Dir     string   // instead of Package: folder of a program in this repository
	Set     []string // string variables to set at link time: "import/path.name=value"
	Replace []string // modules to be had from elsewhere, as the program's own go.mod says: "old => new version"
	Npm     []string // instead of Package: packages of npm, the program among what they bring
	Tags    string   // build tags, separated by commas
	Cgo     bool     // it needs a C compiler: Debian's gcc and libc6-dev
	// Folders of its module that it reads when it runs. A part that has some is
	// built in a copy of the module, whose replace directives then count, and
	// they stay beside the program.
	Folders []string
	Module  string // with Folders: that of the package, where it is not the package itself
	// Alone: it is only measured against, and built by the benchmark that wants
	// it, not with the others.
	Alone bool
}

// Table is every part that is built from source. To move a version, change it
// here: the cache is keyed by it.
func Table() []Part {
	part := func(name, pkg, version string, cold time.Duration, purpose string) Part {
		return Part{Name: name, Package: pkg, Version: version, Cold: cold, Purpose: purpose}
	}
	return []Part{
		part("conformance", "github.com/opencontainers/distribution-spec/conformance", "v0.0.0-20260831232431-97274622c111", 20*time.Second, "the official conformance suite of the OCI distribution protocol"),
		part("crane", "github.com/google/go-containerregistry/cmd/crane", "v0.22.1", 40*time.Second, "client"),
		part("regctl", "github.com/regclient/regclient/cmd/regctl", "v0.11.7", 20*time.Second, "client"),
		part("olareg", "github.com/olareg/olareg/cmd/olareg", "v0.2.2", 30*time.Second, "registry to measure against"),
		part("registry", "github.com/distribution/distribution/v3/cmd/registry", "v3.1.2", 8*time.Minute, "registry to measure against, and to mount and copy from"),

		{Name: "keeper", Dir: "test/cluster/keeper", Version: "v0", Cold: 20 * time.Second, Purpose: "cluster: keeps its processes, and nothing after them"},
		{Name: "kubernetes", Dir: "test/cluster/kubernetes", Version: "v1.37.2", Cold: 15 * time.Minute, Purpose: "cluster: etcd, the control plane, kubelet, kube-proxy and kubectl in one program",
			Set: []string{"k8s.io/component-base/version.gitVersion=v1.37.2"}},
		part("kwok", "sigs.k8s.io/kwok/cmd/kwok", "v0.8.0", 3*time.Minute, "cluster: nodes that only pretend"),
		part("containerd", "github.com/containerd/containerd/v2/cmd/containerd", "v2.4.2", 3*time.Minute, "cluster: container runtime of real nodes"),
		part("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "v2.4.2", time.Minute, "cluster: container runtime of real nodes"),
		part("ctr", "github.com/containerd/containerd/v2/cmd/ctr", "v2.4.2", time.Minute, "cluster: container runtime of real nodes"),
		part("bridge", "github.com/containernetworking/plugins/plugins/main/bridge", "v1.9.1", 20*time.Second, "cluster: network of pods"),
		part("loopback", "github.com/containernetworking/plugins/plugins/main/loopback", "v1.9.1", 20*time.Second, "cluster: network of pods"),
		part("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local", "v1.9.1", 20*time.Second, "cluster: network of pods"),
		part("portmap", "github.com/containernetworking/plugins/plugins/meta/portmap", "v1.9.1", 20*time.Second, "cluster: network of pods"),

		{Name: "tofu", Package: "github.com/opentofu/opentofu/cmd/tofu", Version: "v1.12.6", Cold: 17 * time.Minute, Purpose: "plans what a pull request changes",
			Replace: []string{"github.com/hashicorp/hcl/v2 v2.20.1 => github.com/opentofu/hcl/v2 v2.20.2-0.20251021132045-587d123c2828"}},
		{Name: "terraform-provider-kubernetes", Package: "github.com/hashicorp/terraform-provider-kubernetes", Version: "v1.13.4", Cold: 3 * time.Minute, Purpose: "what those plans are made with",
			Replace: []string{
				"github.com/go-openapi/spec => github.com/go-openapi/spec v0.19.5",
				"k8s.io/cli-runtime => k8s.io/cli-runtime v0.19.1",
				"k8s.io/client-go => k8s.io/client-go v0.19.1",
				"github.com/Azure/go-autorest/autorest => github.com/tombuildsstuff/go-autorest/autorest v0.10.1-0.20200416184303-d4e299a3c04a",
				"github.com/moby/term => github.com/moby/term v0.0.0-20200507123241-dbdd9cc6608d",
				"vbom.ml/util => github.com/fvbommel/util v0.0.0-20180919145318-efcd4e0f9787",
			}},
		{Name: "renovate", Npm: []string{"node@24", "renovate@44.121.2"}, Version: "v44.121.2", Cold: 4 * time.Minute, Purpose: "updater to measure against"},
		part("terraform-provider-kubectl", "github.com/gavinbunney/terraform-provider-kubectl", "v1.19.0", 4*time.Minute, "what those plans are made with"),

		part("versitygw", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0", 5*time.Minute, "object store: artifacts come from it and go to it"),
		{Name: "gitea", Package: "code.gitea.io/gitea", Version: "v1.26.4", Cold: 17 * time.Minute, Purpose: "forge: repositories, pull requests and webhooks",
			Set: []string{"main.Version=1.26.4"}, Tags: "sqlite,sqlite_unlock_notify", Cgo: true, Folders: []string{"options", "templates", "public", "assets"}},

		{Name: "workflow-controller", Package: "github.com/argoproj/argo-workflows/v3/cmd/workflow-controller", Version: "v3.7.14", Cold: 5 * time.Minute, Purpose: "Argo's controller, to measure against",
			Module: "github.com/argoproj/argo-workflows/v3", Folders: []string{"manifests"}, Alone: true},
	}
}

// find looks a part up by name.
func find(name string) (Part, error) {
	known := ""
	for _, p := range Table() {
		if p.Name == name {
			return p, nil
		}
		known += " " + p.Name
	}
	return Part{}, fmt.Errorf("no part is called %q; there are:%s", name, known)
}

// Cache is the folder that holds the parts: CAIRN_PARTS, else .cache/cairn/parts
// in the home folder.
func Cache() (string, error) {
	if dir := os.Getenv("CAIRN_PARTS"); dir != "" {
		return filepath.Abs(dir)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find a cache folder for parts: %w; set CAIRN_PARTS to a folder that can be written", err)
	}
	return filepath.Join(home, ".cache", "cairn", "parts"), nil
}

// Path returns the file of the named program, building it first where the
// cache does not hold it. If it cannot be built the test ends by [Missing].
func Path(t testing.TB, name string) string {
	t.Helper()
	file, err := Build(t.Context(), name, os.Stderr)
	if err != nil {
		Missing(t, fmt.Sprintf("%v; then: make parts", err))
	}
	return file
}

// Apt makes sure that Debian packages are installed, installing missing ones
// when the process is root. Where it cannot, the test ends by [Missing].
func Apt(t testing.TB, packages ...string) {
	t.Helper()
	if err := Install(t.Context(), os.Stderr, packages...); err != nil {
		Missing(t, err.Error())
	}
}

// Missing ends the test because something it needs is not on this machine.
// why says what, and what to type. With CAIRN_E2E=required it is a failure,
// so that a check which silently stopped running cannot look like a pass.
func Missing(t testing.TB, why string) {
	t.Helper()
	if Required() {
		t.Fatalf("CAIRN_E2E=required, and missing: %s", why)
		return
	}
	t.Skipf("missing: %s", why)
}

// Required reports whether every part must be there.
func Required() bool { return os.Getenv("CAIRN_E2E") == "required" }

// Build returns the file of the named program, building it where the cache
// does not hold it. One line is written to progress when something has to be
// built, one more each half minute, and one at the end.
func Build(ctx context.Context, name string, progress io.Writer) (string, error) {
	p, err := find(name)
	if err != nil {
		return "", err
	}
	if p.Dir != "" {
		if err := p.locate(); err != nil {
			return "", err
		}
	}
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	return p.build(ctx, cache, progress)
}
