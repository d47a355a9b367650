package argo_test

import (
	"fmt"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/goldentest"
	"cairn.dev/cairn/internal/workflow/argo"
	"cairn.dev/cairn/test/argo/published"
)

// TestTable compiles Argo's own examples, where ARGO_EXAMPLES names a folder
// that holds them, and compares with what testdata/table.txt says of each.
func TestTable(t *testing.T) {
	examples := published.Read(t)
	if examples == nil {
		return
	}
	var b strings.Builder
	runs := 0
	for _, name := range examples.Names {
		g, ps := argo.Compile(name, examples.Docs[name], argo.Options(examples.Options))
		if g != nil {
			runs++
			fmt.Fprintf(&b, "%s: runs\n", name)
			continue
		}
		p := ps[0]
		fmt.Fprintf(&b, "%s: refused: %s: %s\n", name, p.Path, p.Text)
	}
	fmt.Fprintf(&b, "%d of %d run\n", runs, len(examples.Names))
	t.Logf("%d of %d run", runs, len(examples.Names))
	goldentest.Check(t, "testdata/table.txt", b.String())
}
