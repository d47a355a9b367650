package manifest

import (
	"bytes"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/code"
)

// TestScalarBytes: the range of a scalar holds its content and nothing else, in
// every way that YAML has to write one. [ and ] stand for its ends.
func TestScalarBytes(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n"
	for name, text := range map[string]string{
		"plain":               "  - image: [nginx:1]\n",
		"plain, no end":       "  - image: [nginx:1]",
		"plain and comment":   "  - image: [nginx:1]   # nginx:1\n",
		"double":              "  - image: \"[nginx:1]\"\n",
		"single":              "  - image: '[nginx:1]'\n",
		"flow":                "  - {name: x, image: [nginx:1], args: a}\n",
		"flow over lines":     "  - {name: x,\n     image:\n [nginx:1]\n    }\n",
		"next line":           "  - image:\n      [nginx:1]\n",
		"anchor":              "  - image: &a [nginx:1]\n",
		"tag":                 "  - image: !!str [nginx:1]\n",
		"both, next line":     "  - image: &a !!str\n      \"[nginx:1]\"\n",
		"wide characters":     "  - {name: \"ü€𝄞\", image: [nginx:1]}\n",
		"tabs after":          "  - image: \t[nginx:1]\t\n",
		"question mark":       "  - ? image\n    : [nginx:1]\n",
		"quoted key":          "  - \"image\": [nginx:1]\n",
		"after other breaks":  "  - name: \"a\u2028  b\u0085  c\"\n    image: [nginx:1]\n",
		"literal block":       "  - image: |-\n[      nginx:1]\n",
		"literal with indent": "  - image: |2-\n[      nginx:1]\n    name: x\n",
	} {
		for _, form := range []struct {
			name string
			of   func(string) string
		}{
			{"", func(s string) string { return s }},
			{" with CRLF", func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }},
			{" with BOM", func(s string) string { return "\ufeff" + s }},
		} {
			t.Run(name+form.name, func(t *testing.T) {
				marked := form.of(pod + text)
				start := strings.Index(marked, "[")
				end := strings.Index(marked, "]") - 1
				data := strings.NewReplacer("[", "", "]", "").Replace(marked)
				tree := treeOf(t, "pod.yaml", data)
				r := readAll(t, tree, code.Options{})
				if strings.Contains(name, "indent") && len(r.Images) == 0 {
					return // "  nginx:1" is no reference
				}
				if len(r.Images) != 1 || len(r.Problems) > 0 {
					t.Fatalf("%d images, problems %v in\n%q", len(r.Images), r.Problems, data)
				}
				i := r.Images[0]
				if i.Value != "nginx:1" || len(i.Sources) != 1 {
					t.Fatalf("%+v", i)
				}
				if s := i.Sources[0]; s.Start != start || s.End != end {
					t.Errorf("bytes %d to %d %q, want %d to %d %q", s.Start, s.End, data[s.Start:s.End], start, end, data[start:end])
				}
			})
		}
	}
}

// What cannot be told byte for byte is said to be so.
func TestScalarOverLines(t *testing.T) {
	tree := treeOf(t, "pod.yaml", "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: \"ngi\\\n      nx:1\"\n")
	r := readAll(t, tree, code.Options{})
	if len(r.Images) != 1 || r.Images[0].Value != "nginx:1" {
		t.Fatalf("%+v", r)
	}
}

func TestNumbers(t *testing.T) {
	for tag, want := range map[string]struct{ value, fixed string }{
		`17`:         {"nginx:17", ""},
		`"1.10"`:     {"nginx:1.10", ""},
		`1.10`:       {"nginx:1.1", "YAML reads 1.10 as the number 1.1; put it in quotes"},
		`017`:        {"nginx:15", "YAML reads 017 as the number 15; put it in quotes"},
		`1e3`:        {"nginx:1000", "YAML reads 1e3 as the number 1000; put it in quotes"},
		`1.25`:       {"nginx:1.25", ""},
		`1.2.3`:      {"nginx:1.2.3", ""},
		`latest`:     {"nginx:latest", ""},
		`2024-01-15`: {"nginx:2024-01-15", ""},
		`20240115`:   {"nginx:20240115", ""},
		`on`:         {"nginx:on", ""},
		`True`:       {"nginx:true", "YAML reads True as the number true; put it in quotes"},
	} {
		r := readAll(t, treeOf(t, "values.yaml", "image:\n  repository: nginx\n  tag: "+tag+"\n"), code.Options{})
		if len(r.Images) != 1 || r.Images[0].Value != want.value || r.Images[0].Fixed != want.fixed {
			t.Errorf("tag %s: %+v, want %+v", tag, r.Images, want)
		}
	}
	// A + is in no tag.
	if r := readAll(t, treeOf(t, "values.yaml", "image: {repository: nginx, tag: v1.2.3+build}\n"), code.Options{}); len(r.Images) != 0 {
		t.Errorf("%+v", r.Images)
	}
}

// FuzzRead: nothing panics, every range lies within its file, and what stands
// alone in its range can be changed there.
func FuzzRead(f *testing.F) {
	f.Add("values.yaml", []byte("image:\n  repository: nginx\n  tag: \"1\"\nx: &a {image: a/b:1}\ny: *a\n"))
	f.Add("k.yaml", []byte("apiVersion: v1\r\nkind: Pod\r\nspec:\r\n  containers: [{image: !!str &a 'nginx:1'}, {image: *a}]\r\n"))
	f.Add("kustomization.yaml", []byte("images: [{name: a, newTag: 1.10}, {newName: b, digest: x}]"))
	f.Add("Chart.yaml", []byte("dependencies: [{name: a, repository: oci://x.y/z, version: 1.0.0}]"))
	f.Add("compose.yaml", []byte("services: {a: {image: 'x/${Y:-z:${Q-1}}'}}"))
	f.Add("Pulumi.yaml", []byte("config: {t: {default: 1}}\nresources: {a: {type: kubernetes:v1:Pod, properties: {containers: [{image: 'a:${t}'}]}}}"))
	f.Add("Dockerfile", []byte("# escape=`\nARG A=1\nFROM x:${A} AS b\nRUN --mount=from=y:1 <<E\nE\nCOPY --from=z:2 a `\n b"))
	f.Add("a.yaml", []byte("a: 1 # cairn: image=nginx\n# cairn: image=x/y ~1\n- 'x/y:2'\n"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		tree, err := code.NewTree([]code.File{{Path: name, Data: data}})
		if err != nil || len(data) > 1<<16 {
			return
		}
		r := readAll(t, tree, code.Options{Marked: []string{"**"}})
		file, _ := tree.Read(name)
		ids := map[string]bool{}
		for _, i := range r.Images {
			if ids[i.ID] {
				t.Fatalf("two images are %q", i.ID)
			}
			ids[i.ID] = true
			if i.Value != "" {
				if _, err := code.ParseReference(i.Value); err != nil {
					t.Errorf("%s: %v", i.ID, err)
				}
			}
			if i.Value == "" && i.Fixed == "" {
				t.Errorf("%s has neither a value nor a reason", i.ID)
			}
			for _, s := range i.Sources {
				if s.Start < 0 || s.End < s.Start || s.End > len(file.Data) {
					t.Fatalf("%s: bytes %d to %d of %d", i.ID, s.Start, s.End, len(file.Data))
				}
			}
			if len(i.Sources) != 1 || i.Fixed != "" || !bytes.Equal(file.Data[i.Sources[0].Start:i.Sources[0].End], []byte(i.Value)) {
				continue
			}
			ref, _ := code.ParseReference(i.Value)
			ref.Tag, ref.Digest = "zz9", ""
			changed, err := tree.With([]code.Splice{{Range: i.Sources[0], New: ref.String()}})
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, again := range readAll(t, changed, code.Options{Marked: []string{"**"}}).Images {
				found = found || again.ID == i.ID && again.Value == ref.String()
			}
			if !found {
				t.Errorf("%s did not become %s in %q", i.ID, ref, data)
			}
		}
	})
}
