package terraform

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"cairn.dev/cairn/internal/code"
)

// Whatever the files say, reading them ends, soon, with images whose sources
// are within their files.
func FuzzRead(f *testing.F) {
	for _, test := range evaluated {
		f.Add([]byte(test.tree), []byte(""))
	}
	f.Add([]byte("-- main.tf --\n"+imageOf(`"n:${var.t}"`)+"variable \"t\" {}\n"), []byte(`{"t": "1"}`))
	f.Add([]byte("-- main.tf.json --\n{\"resource\": [1, {\"docker_image\": [{\"i\": {\"name\": \"${[for x in [1]: x]}\"}}]}]}\n"), []byte(`{`))
	f.Add([]byte("-- main.tf --\n"+imageOf(`yamldecode("a: !!int \"1\"\n<<: [{b: 2}]\n")["b"]`)), []byte(`[`))
	f.Fuzz(func(t *testing.T, text, vars []byte) {
		if len(text) > 1<<16 {
			return
		}
		tree := treeOfBytes(text, vars)
		if tree == nil {
			return
		}
		begin := time.Now()
		var r Reader
		result, err := r.Read(context.Background(), tree, code.Options{Environments: map[string][]string{"prod": {"prod.tfvars"}}})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("took %v", took)
		}
		ids := map[string]bool{}
		for _, i := range result.Images {
			if ids[i.ID] {
				t.Errorf("%s comes twice", i.ID)
			}
			ids[i.ID] = true
			if i.Value == "" && i.Fixed == "" {
				t.Errorf("%s: no image, and no reason", i.ID)
			}
			for _, s := range i.Sources {
				file, err := tree.Read(s.File)
				if err != nil || s.Start < 0 || s.End < s.Start || s.End > len(file.Data) {
					t.Errorf("%s: source %v is not in its file", i.ID, s)
				}
			}
		}
		if _, err := json.Marshal(result); err != nil {
			t.Error(err)
		}
	})
}

// treeOfBytes is treeOf for what may not be a tree.
func treeOfBytes(text, vars []byte) *code.Tree {
	tree, err := code.NewTree(append(split(string(text)), code.File{Path: "prod.tfvars", Data: vars}))
	if err != nil {
		return nil
	}
	return tree
}
