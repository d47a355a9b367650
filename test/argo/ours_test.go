package argo

import (
	"context"
	"encoding/json"
	"os"
	"testing"

	"cairn.dev/cairn/internal/api/wire"
)

// TestOurs runs the examples in the documents of Cairn's own and looks at what
// comes out of their last task.
func TestOurs(t *testing.T) {
	w := start(t)
	for _, c := range []struct{ name, task, want string }{
		{"examples/folder", "sum", "210"},
		{"test/argo/testdata/items", "report", `[["a.txt 2 a","b c.txt 3 bb"],["[1,2]","{\"a\":{\"b\":[3]}}","a \"quote\"\nand {{more}}","4.5","true"]]`},
		{"examples/thousand", "sum", "332833500"},
		{"examples/nested", "report", `[["north/a","north/b","north/c"],["south/d"],[]]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile("../../" + c.name + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			ctx, end := context.WithTimeout(t.Context(), patience)
			defer end()
			s, err := w.Submit(ctx, wire.Submission{Document: wire.Document{Name: c.name, Text: string(text)}})
			if err != nil {
				t.Fatal(err)
			}
			r, err := w.wait(ctx, s.ID, nil)
			if err != nil || r.Phase != "succeeded" {
				t.Fatalf("%s (%s), %v\n%s", r.Phase, r.Message, err, w.tree(s.ID))
			}
			n, err := w.named(ctx, s.ID, "", c.task)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(n.Outputs["result"])
			if err != nil || string(got) != c.want {
				t.Errorf("%s left %s, want %s", c.task, got, c.want)
			}
			t.Logf("%d tasks, %d of them again, in %v", r.Tasks.Total, r.Tasks.Retries, r.Ended.Sub(r.Created))
		})
	}
}
