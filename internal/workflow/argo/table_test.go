package argo_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/workflow/argo"
	"cairn.dev/cairn/test/parts"
)

// TestTable compiles Argo's own examples, where ARGO_EXAMPLES names a folder
// that holds them, and compares with what testdata/table.txt says of each.
func TestTable(t *testing.T) {
	root := os.Getenv("ARGO_EXAMPLES")
	if root == "" {
		// Nothing is missing: the examples are no part of this repository.
		t.Log("ARGO_EXAMPLES names no folder")
		return
	}
	if _, err := os.Stat(root); err != nil {
		parts.Missing(t, fmt.Sprintf("ARGO_EXAMPLES names %s, which is not there", root))
	}
	var files []string
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.HasSuffix(name, ".yaml") {
			files = append(files, name)
		}
		return err
	})
	if err != nil || len(files) < 100 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	slices.Sort(files)
	// What is applied to a cluster beforehand is what the server has here.
	docs := map[string][]byte{}
	configs := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range strings.SplitSeq(string(b), "\n---\n") {
			kind, name := field(doc, "kind: "), field(doc, "  name: ")
			switch {
			case strings.HasSuffix(kind, "WorkflowTemplate"):
				docs[kind+"/"+name] = []byte(doc)
			case kind == "ConfigMap":
				for line := range strings.Lines(doc) {
					if k, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && strings.HasPrefix(line, "  ") {
						configs[name+"/"+k] = v
					}
				}
			}
		}
	}
	opts := argo.Options{
		Templates: func(kind, _, name string) []byte { return docs[kind+"/"+name] },
		ConfigMap: func(_, name, key string) (string, bool) { v, ok := configs[name+"/"+key]; return v, ok },
	}
	var b strings.Builder
	runs := 0
	for _, f := range files {
		doc, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name, err := filepath.Rel(root, f)
		if err != nil {
			t.Fatal(err)
		}
		g, ps := argo.Compile(filepath.ToSlash(name), doc, opts)
		if g != nil {
			runs++
			fmt.Fprintf(&b, "%s: runs\n", filepath.ToSlash(name))
			continue
		}
		p := ps[0]
		fmt.Fprintf(&b, "%s: refused: %s: %s\n", filepath.ToSlash(name), p.Path, p.Text)
	}
	fmt.Fprintf(&b, "%d of %d run\n", runs, len(files))
	t.Logf("%d of %d run", runs, len(files))
	golden(t, "testdata/table.txt", b.String())
}

// field is the first value of a key as it is written.
func field(doc, key string) string {
	for line := range strings.Lines(doc) {
		if v, ok := strings.CutPrefix(line, key); ok {
			v, _, _ = strings.Cut(v, " #")
			return strings.TrimSpace(v)
		}
	}
	return ""
}
