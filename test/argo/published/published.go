// Package published reads Argo's own examples, which are no part of this
// repository, and the tables of what becomes of them.
//
// It owns how such a table is written, and what stands in for the places that
// examples name and that are not here: a web server, an object store. It runs
// nothing: whoever does compares with the table.
package published

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/workflow/front"
	"cairn.dev/cairn/test/parts"
)

// Examples are those in the folder that ARGO_EXAMPLES names.
type Examples struct {
	Docs    map[string][]byte // files by path, with slashes
	Names   []string          // sorted
	Options front.Options     // what is applied to a cluster beforehand
}

// Read reads them; nil where ARGO_EXAMPLES is not set. It ends a test whose
// folder is not there.
func Read(t testing.TB) *Examples {
	t.Helper()
	root := os.Getenv("ARGO_EXAMPLES")
	if root == "" {
		t.Log("ARGO_EXAMPLES names no folder")
		return nil
	}
	if _, err := os.Stat(root); err != nil {
		parts.Missing(t, fmt.Sprintf("ARGO_EXAMPLES names %s, which is not there", root))
	}
	x := &Examples{Docs: map[string][]byte{}}
	templates, configs := map[string][]byte{}, map[string]string{}
	err := filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || !strings.HasSuffix(file, ".yaml") {
			return err
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		x.Docs[filepath.ToSlash(name)] = b
		x.Names = append(x.Names, filepath.ToSlash(name))
		for doc := range strings.SplitSeq(string(b), "\n---\n") {
			kind, name := field(doc, "kind: "), field(doc, "  name: ")
			switch {
			case strings.HasSuffix(kind, "WorkflowTemplate"):
				templates[kind+"/"+name] = []byte(doc)
			case kind == "ConfigMap":
				for line := range strings.Lines(doc) {
					if k, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && strings.HasPrefix(line, "  ") {
						configs[name+"/"+k] = strings.Trim(v, `"'`)
					}
				}
			}
		}
		return err
	})
	if err != nil || len(x.Docs) < 100 {
		t.Fatalf("%d files, %v", len(x.Docs), err)
	}
	slices.Sort(x.Names)
	x.Options = front.Options{
		Templates: func(kind, _, name string) []byte { return templates[kind+"/"+name] },
		ConfigMap: func(_, name, key string) (string, bool) { v, ok := configs[name+"/"+key]; return v, ok },
	}
	return x
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
