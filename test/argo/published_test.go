package argo

import (
	"os"
	"path/filepath"
	"testing"

	"cairn.dev/cairn/internal/workflow/front"
	"cairn.dev/cairn/test/argo/published"
)

// TestPublished runs Argo's own examples and compares with the table.
func TestPublished(t *testing.T) {
	table := published.Table(t, "testdata/published.txt")
	p := published.Read(t)
	if p == nil {
		return
	}
	for name := range table {
		if p.Docs[name] == nil {
			t.Errorf("the table has %s, which is not there", name)
		}
	}
	web := published.Internet(t)
	web.Objects(t)
	var docs []document
	for _, name := range p.Names {
		x, known := table[name]
		if !known {
			t.Errorf("the table does not have %s", name)
			continue
		}
		g, _ := front.Compile(name, web.Replace(p.Docs[name]), p.Options)
		if (g == nil) != x.Is("refused") {
			t.Errorf("%s: the table says %s, and the compiler something else", name, x.Phases[0])
		}
		if g != nil && !x.Is("not run") {
			docs = append(docs, document{name, g.Documents, x})
		}
	}
	good := start(t).all(t, docs)
	t.Logf("%d of %d came to their outcome", good, len(p.Names))
	if b, err := os.ReadFile(filepath.Join(web.Buckets, "my-bucket", "path", "in", "bucket", "hello_world.txt.tgz")); err != nil || len(b) == 0 {
		t.Errorf("what an example stores elsewhere is not there: %d bytes, %v", len(b), err)
	}
}
