package manifest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/code"
)

var update = flag.Bool("update", false, "write what the tests see into testdata")

// treeOf makes a tree of "path", "content" pairs.
func treeOf(t testing.TB, files ...string) *code.Tree {
	t.Helper()
	var list []code.File
	for i := 0; i < len(files); i += 2 {
		list = append(list, code.File{Path: files[i], Data: []byte(files[i+1])})
	}
	tree, err := code.NewTree(list)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func readAll(t testing.TB, tree *code.Tree, o code.Options) *code.Result {
	t.Helper()
	r, err := New().Read(context.Background(), tree, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// show is a result as the tests compare it: the bytes of the sources stand for
// their ranges.
func show(tree *code.Tree, r *code.Result) string {
	var b strings.Builder
	for _, i := range r.Images {
		fmt.Fprintf(&b, "%s %s\n", i.Format, i.ID)
		if i.Value != "" {
			fmt.Fprintf(&b, "  %s", i.Value)
			if i.Chart {
				b.WriteString(" (chart)")
			}
			if i.Policy != "" {
				fmt.Fprintf(&b, " policy %q", i.Policy)
			}
			b.WriteByte('\n')
		}
		if i.Fixed != "" {
			fmt.Fprintf(&b, "  fixed: %s\n", i.Fixed)
		}
		for k, s := range i.Chain {
			name := s.Name
			if k == 0 {
				name = "at"
			}
			fmt.Fprintf(&b, "  %s %s\n", name, s.Place)
		}
		for _, s := range i.Sources {
			f, _ := tree.Read(s.File)
			fmt.Fprintf(&b, "  <- %q\n", f.Data[s.Start:s.End])
		}
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "problem %s: %s\n", p.Place, p.Text)
	}
	return b.String()
}

// TestTrees reads the trees of testdata: files, and what is found in them.
func TestTrees(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) < 8 {
		t.Fatalf("%d trees: %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files, want := split(t, string(data))
			tree := treeOf(t, files...)
			got := show(tree, readAll(t, tree, code.Options{Marked: []string{"**/*.sh", "*.sh"}}))
			if *update {
				text := string(data[:strings.LastIndex(string(data), "-- found --\n")]) + "-- found --\n" + got
				if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("found\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// split takes a file of testdata apart: files begin with -- NAME --, and the
// last one is what is to be found.
func split(t *testing.T, text string) (files []string, found string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "-- "); ok && strings.HasSuffix(name, " --") {
			files = append(files, strings.TrimSuffix(name, " --"), "")
			continue
		}
		if len(files) > 0 {
			files[len(files)-1] += line
		}
	}
	if n := len(files); n < 2 || files[n-2] != "found" {
		t.Fatal("the last part is not -- found --")
	}
	return files[:len(files)-2], files[len(files)-1]
}

func valuesOf(r *code.Result) []string {
	var list []string
	for _, i := range r.Images {
		list = append(list, i.Value)
	}
	slices.Sort(list)
	return list
}
