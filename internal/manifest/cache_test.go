package manifest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/code"
)

// One changed file costs one file: what is remembered of the others is given
// back as it is.
func TestOneChangedFileCostsOne(t *testing.T) {
	var files []string
	for i := range 50 {
		files = append(files, fmt.Sprintf("%d/values.yaml", i), "image: team/app:1\n")
	}
	before := treeOf(t, files...)
	r := New()
	if _, err := r.Read(context.Background(), before, code.Options{}); err != nil {
		t.Fatal(err)
	}
	after, err := before.With([]code.Splice{{Range: code.Range{File: "7/values.yaml", Start: 16, End: 17}, New: "2"}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Read(context.Background(), after, code.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.young) != 51 {
		t.Errorf("%d results are remembered after 50 files and one change", len(r.young))
	}
	if list := valuesOf(got); list[49] != "team/app:2" || list[48] != "team/app:1" {
		t.Errorf("%v", list)
	}
}

// A result goes with the neighbour it depends on, also with one that comes.
func TestNeighbourChanges(t *testing.T) {
	const compose = "services: {web: {image: 'nginx:${TAG:-1}'}}\n"
	r := New()
	for _, step := range []struct {
		env  []string
		want string
	}{
		{nil, "nginx:1"},
		{[]string{".env", "TAG=2\n"}, "nginx:2"},
		{[]string{".env", "TAG=3\n"}, "nginx:3"},
		{nil, "nginx:1"},
	} {
		got, err := r.Read(context.Background(), treeOf(t, append([]string{"compose.yaml", compose}, step.env...)...), code.Options{})
		if err != nil || len(got.Images) != 1 || got.Images[0].Value != step.want {
			t.Errorf("with %q: %+v %v, want %s", step.env, got, err, step.want)
		}
	}
}

func TestForgets(t *testing.T) {
	r := New()
	for i := range 3 {
		for k := range maxRemembered {
			r.remember(key{path: fmt.Sprint(i, "/", k)}, &found{})
		}
	}
	if n := len(r.young) + len(r.old); n > 2*maxRemembered {
		t.Errorf("%d results are remembered", n)
	}
}

// Files that are made to hurt cost little, and say what they cost.
func TestHostileFiles(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("apiVersion: x/v1\nkind: X\na0: &a0 {image: 'a/b:1'}\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	for name, data := range map[string]string{
		"aliases":        bomb.String(),
		"pulumi aliases": strings.Replace(bomb.String(), "apiVersion: x/v1\nkind: X\n", "resources: {r: {type: x, properties: {a: *a39}}}\n", 1),
		"deep flow":      "apiVersion: v1\nkind: Pod\nspec: " + strings.Repeat("[", 9000) + "image" + strings.Repeat("]", 9000),
		"deeper flow":    "image: " + strings.Repeat("{a: ", 100_000),
		"deep blocks":    "image:\n" + deepBlocks(9000),
		"many documents": strings.Repeat("---\nimage: 1\n", 100_000),
		"merges":         "image: &a\n  <<: *a\n",
		"binary":         "image: \x00\xff",
		"not UTF-8":      "image: nginx:\xff\n",
		"variables":      "services: {a: {image: '" + strings.Repeat("${X:-", 5000) + strings.Repeat("}", 5000) + "'}}",
	} {
		t.Run(name, func(t *testing.T) {
			for _, file := range []string{"values.yaml", "Pulumi.yaml", "compose.yaml", "kustomization.yaml", "Chart.yaml", "x.yaml", "Dockerfile"} {
				if r := readAll(t, treeOf(t, file, data), code.Options{}); len(r.Images) > 300_000 {
					t.Errorf("%s: %d images", file, len(r.Images))
				}
			}
		})
	}
	r := readAll(t, treeOf(t, "values.yaml", "image: a/b:1\n"+strings.Repeat("# filler\n", 50<<20/9)), code.Options{})
	if len(r.Images) != 0 || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Text, "4 MiB") {
		t.Errorf("50 MiB: %d images, %v", len(r.Images), r.Problems)
	}
}

func deepBlocks(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", min(i, 300)) + "a:\n")
	}
	return b.String()
}

// Links are read where they lead, if that is in the tree, and once.
func TestLinks(t *testing.T) {
	tree, err := code.NewTree([]code.File{
		{Path: "values.yaml", Data: []byte("image: a/b:1\n")},
		{Path: "x/values.yaml", Link: "../values.yaml"},
		{Path: "y/values.yaml", Link: "../../../etc/values.yaml"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := readAll(t, tree, code.Options{}); len(r.Images) != 1 || len(r.Problems) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestIgnoredAndCancelled(t *testing.T) {
	tree := treeOf(t, "a/values.yaml", "image: a/b:1\n", "b/values.yaml", "image: a/b:2\n")
	if r := readAll(t, tree, code.Options{Ignore: []string{"a/**"}}); len(r.Images) != 1 || r.Images[0].Dir != "b" {
		t.Errorf("%+v", r.Images)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := New().Read(ctx, tree, code.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
