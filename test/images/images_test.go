package images

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
	"cairn.dev/cairn/test/parts"
)

func TestSameDigests(t *testing.T) {
	first, err := Build(t.Context(), os.Stderr)
	if err != nil {
		parts.Missing(t, err.Error())
	}
	second, err := Build(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for i := range first {
		a, err := first[i].Digest()
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := second[i].Digest(); a != b {
			t.Errorf("%v is %s and then %s", first[i].Refs, a, b)
		}
		if other, ok := seen[a]; ok {
			t.Errorf("%v and %s are the same image", first[i].Refs, other)
		}
		seen[a] = first[i].Refs[0]
	}
	if len(first) < 6 {
		t.Errorf("only %d images", len(first))
	}
}

// The programs work: what is in the images runs when it is unpacked here.
func TestPrograms(t *testing.T) {
	for _, c := range []struct {
		ref  string
		args []string
		want string
	}{
		{"library/busybox:latest", []string{"/bin/sh", "-c", "echo $((6 * 7))"}, "42"},
		{"library/alpine:3.23", []string{"/bin/cat", "/etc/alpine-release"}, "3.23.0"},
		{"library/python:alpine3.23", []string{"/usr/bin/python", "-c", "import json, random, sys, os, re, datetime, time, hashlib, urllib.request; random.random(); print(json.dumps(6 * 7))"}, "42"},
		{"argoproj/argosay:v2", []string{"/bin/argosay", "echo", "hello"}, "hello"},
		{"argoproj/argosay:v2", []string{"/bin/bash", "-c", "echo from a shell"}, "from a shell"},
		{"docker/whalesay:latest", []string{"/usr/bin/cowsay", "hello"}, "< hello >\n   \\\n    ~~(  o)<"},
		{"stedolan/jq:latest", []string{"/bin/sh", "-c", "echo '[1, 42]' | jq '.[1]'"}, "42"},
		{"argoproj/argosay:v2", []string{"/bin/sh", "-c", "argosay echo file /tmp/a/b && argosay cat /tmp/a/b && ! argosay exit 3"}, "file"},
	} {
		t.Run(strings.ReplaceAll(c.ref, "/", "_"), func(t *testing.T) {
			if os.Geteuid() != 0 {
				parts.Missing(t, "chroot needs root; run the tests as root")
			}
			all, err := Build(t.Context(), os.Stderr, c.ref)
			if err != nil {
				parts.Missing(t, err.Error())
			}
			root := t.TempDir()
			tar := exec.CommandContext(t.Context(), "tar", "-x", "-C", root)
			content := mutate.Extract(all[0].Image)
			defer content.Close()
			tar.Stdin = content
			if out, err := tar.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if err := os.MkdirAll(filepath.Join(root, "dev"), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "chroot", append([]string{root}, c.args...)...)
			cmd.Env = []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
			out, err := cmd.CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
				t.Errorf("%v: %q, %v; want %q", c.args, got, err, c.want)
			}
		})
	}
}

func TestPush(t *testing.T) {
	address := registrytest.Serve(t, registry.New(registry.Config{Content: registrytest.Store(t, registrytest.Disk(t))}))
	digests := Push(t, address, "library/busybox:1", "library/alpine:3.23")
	if len(digests) != 2 || digests["library/busybox:1"] == digests["library/alpine:3.23"] {
		t.Errorf("pushed %v", digests)
	}
	v := Variant(t, "a", "app/web:1")
	if err := v.Push(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	a, _ := v.Digest()
	b, _ := Variant(t, "b").Digest()
	if a == b || a == digests["library/busybox:1"] {
		t.Errorf("variants are %s and %s", a, b)
	}
	if _, err := Build(t.Context(), os.Stderr, "no/such:1"); err == nil || !strings.Contains(err.Error(), "busybox") {
		t.Errorf("an unknown image: %v; want an error that lists the known ones", err)
	}
}
