package crd_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/goldentest"
	"cairn.dev/cairn/internal/kube/crd"
)

func all(t *testing.T) []crd.Definition {
	t.Helper()
	ours, err := crd.Ours()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(ours, crd.Argo())
}

// What is checked in is what is made. With -update it is written.
func TestDeployed(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "deploy", "crd")
	var want []string
	for _, d := range all(t) {
		b, err := crd.YAML(d)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > crd.MaxBytes {
			t.Errorf("%s has %d bytes", d.Name, len(b))
		}
		file := filepath.Join(dir, d.File)
		want = append(want, d.File)
		goldentest.Check(t, file, b)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != len(want) {
		t.Errorf("deploy/crd holds %v, want %v: %v", files, want, err)
	}
}

// No two of our definitions claim the same short name, or kubectl takes
// whichever it finds first.
func TestShortNames(t *testing.T) {
	seen := map[string]string{}
	for _, d := range all(t) {
		b, err := crd.YAML(d)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "shortNames:\n")
		for line := range strings.Lines(rest) {
			name, ok := strings.CutPrefix(strings.TrimSpace(line), "- ")
			if !ok {
				break
			}
			if seen[name] != "" {
				t.Errorf("%s is short for %s and for %s", name, seen[name], d.Name)
			}
			seen[name] = d.Name
		}
	}
	if seen["wf"] != "workflows."+crd.Group {
		t.Errorf("wf is short for %q", seen["wf"])
	}
}
