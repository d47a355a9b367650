// Package conformance_test runs the official suite of the OCI distribution
// specification against the registry, over a real store and a real connection.
//
// It owns what counts as passing: no failure, no error, no test skipped that
// the suite could run, and not fewer tests than there are today, so that a
// suite that stopped looking cannot look like a pass.
package conformance_test

import (
	"bytes"
	"encoding/xml"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
	"cairn.dev/cairn/test/parts"
)

// A report is what of the suite's junit.xml counts.
type report struct {
	Suite struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Errors   int `xml:"errors,attr"`
		Skipped  int `xml:"skipped,attr"`
		Disabled int `xml:"disabled,attr"`
		Cases    []struct {
			Name   string `xml:"name,attr"`
			Status string `xml:"status,attr"`
			Out    string `xml:"system-out"` // the errors
			Log    string `xml:"system-err"` // requests and responses
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

func TestConformance(t *testing.T) {
	suite := parts.Path(t, "conformance")
	const mount, anonymous = " blobs/mount/blob-mount", " blobs/mount anonymous/blob-mount-anonymous"
	const cancel = "/post cancel/blob-post-cancel"
	for _, c := range []struct {
		version string
		env     []string
		passes  int
		// disabled are ends of the names of tests that this version of the
		// specification does not have.
		disabled []string
		// skips are ends of the names of tests that end as skipped.
		skips   []string
		guarded bool // with accounts and tokens
	}{
		{"stable", nil, 860, []string{"sha256 blobs" + cancel, "sha512 blobs" + cancel}, nil, false},
		{"dev", nil, 986, nil, nil, false},
		// All that the suite can test, whether on by default or not. Sparse
		// manifests are left out: the suite takes a registry for sparse that
		// stores images whose blobs are missing, which this one refuses.
		{"stable", []string{"OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_TAG_PARAM=true"}, 986, nil, nil, false},
		// The suite mounts with a token for one repository, which real clients
		// do not: it is answered as the specification says, with an upload.
		{"dev", nil, 974, nil, []string{"sha256" + mount, "sha512" + mount, "sha256" + anonymous, "sha512" + anonymous}, true},
	} {
		name := c.version
		if c.env != nil {
			name += " and all options"
		}
		if c.guarded {
			name += " with accounts"
		}
		t.Run(name, func(t *testing.T) {
			cfg := registry.Config{Content: registrytest.Store(t, registrytest.Disk(t))}
			var h http.Handler
			if c.guarded {
				guard, secrets := registrytest.Guard(t, clock.Real(), access.NewAccount{Name: "suite", Kind: access.KindAdmin})
				cfg.Access = guard
				h = registrytest.WithTokens(guard, registry.New(cfg))
				c.env = []string{"OCI_USERNAME=suite", "OCI_PASSWORD=" + secrets["suite"]}
			} else {
				h = registry.New(cfg)
			}
			addr := registrytest.Serve(t, h)
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), suite)
			cmd.Dir = dir // it would read a configuration from where it stands
			cmd.Env = append(withoutOCI(os.Environ()), "OCI_REGISTRY="+addr, "OCI_TLS=disabled", "OCI_VERSION="+c.version,
				"OCI_REPO1=conformance/one", "OCI_REPO2=conformance/two/deep", "OCI_RESULTS_DIR="+dir)
			cmd.Env = append(cmd.Env, c.env...)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			runErr := cmd.Run()

			b, err := os.ReadFile(filepath.Join(dir, "junit.xml"))
			if err != nil {
				t.Fatalf("no report (%v); the suite said: %v\n%s", err, runErr, out.Bytes())
			}
			var r report
			if err := xml.Unmarshal(b, &r); err != nil {
				t.Fatalf("read the report: %v", err)
			}
			s := r.Suite
			passed := s.Tests - s.Failures - s.Errors - s.Skipped - s.Disabled
			t.Logf("%d pass, %d fail, %d errors, %d skipped, %d disabled", passed, s.Failures, s.Errors, s.Skipped, s.Disabled)
			if runErr != nil || s.Failures != 0 || s.Errors != 0 || s.Skipped != len(c.skips) || s.Disabled != len(c.disabled) {
				t.Errorf("the suite ended with %v; want no failure, no error, %d skipped and %d disabled", runErr, len(c.skips), len(c.disabled))
			}
			if passed < c.passes {
				t.Errorf("%d tests passed, there were %d: does the suite still look at everything?", passed, c.passes)
			}
			shown := 0
			for _, k := range s.Cases {
				switch {
				case k.Status == "passed":
				case k.Status == "skipped": // also of what is disabled
					if !slices.ContainsFunc(slices.Concat(c.disabled, c.skips), func(s string) bool { return strings.HasSuffix(k.Name, s) }) {
						t.Errorf("skipped or disabled: %s: %s", k.Name, k.Out)
					}
				case shown < 10:
					shown++
					t.Errorf("%s: %s: %s\n%s", k.Status, k.Name, k.Out, k.Log)
				}
			}
		})
	}
}

// withoutOCI keeps a developer's own settings of the suite out.
func withoutOCI(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(s string) bool { return strings.HasPrefix(s, "OCI_") })
}
