package argo

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

// published are Argo's own examples, where ARGO_EXAMPLES names them.
type published struct {
	docs    map[string][]byte // by path, with slashes
	names   []string          // sorted
	options front.Options     // what is applied to a cluster beforehand
}

func readPublished(t *testing.T) *published {
	t.Helper()
	root := os.Getenv("ARGO_EXAMPLES")
	if root == "" {
		return nil
	}
	if _, err := os.Stat(root); err != nil {
		parts.Missing(t, fmt.Sprintf("ARGO_EXAMPLES names %s, which is not there", root))
	}
	p := &published{docs: map[string][]byte{}}
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
		p.docs[filepath.ToSlash(name)] = b
		p.names = append(p.names, filepath.ToSlash(name))
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
	if err != nil || len(p.docs) < 100 {
		t.Fatalf("%d files, %v", len(p.docs), err)
	}
	slices.Sort(p.names)
	p.options = front.Options{
		Templates: func(kind, _, name string) []byte { return templates[kind+"/"+name] },
		ConfigMap: func(_, name, key string) (string, bool) { v, ok := configs[name+"/"+key]; return v, ok },
	}
	return p
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

// TestPublished runs Argo's own examples and compares with the table.
func TestPublished(t *testing.T) {
	table := readOutcomes(t)
	p := readPublished(t)
	if p == nil {
		t.Log("ARGO_EXAMPLES names no folder")
		return
	}
	for name := range table {
		if p.docs[name] == nil {
			t.Errorf("the table has %s, which is not there", name)
		}
	}
	web := internet(t)
	web.objects(t)
	var docs []document
	for _, name := range p.names {
		x, known := table[name]
		if !known {
			t.Errorf("the table does not have %s", name)
			continue
		}
		g, _ := front.Compile(name, web.replace(p.docs[name]), p.options)
		if (g == nil) != (x.phases[0] == "refused") {
			t.Errorf("%s: the table says %s, and the compiler something else", name, x.phases[0])
		}
		if g != nil && x.phases[0] != "not run" {
			docs = append(docs, document{name, g.Documents, x})
		}
	}
	good := start(t).all(t, docs)
	t.Logf("%d of %d came to their outcome", good, len(p.names))
	if b, err := os.ReadFile(filepath.Join(web.buckets, "my-bucket", "path", "in", "bucket", "hello_world.txt.tgz")); err != nil || len(b) == 0 {
		t.Errorf("what an example stores elsewhere is not there: %d bytes, %v", len(b), err)
	}
}
