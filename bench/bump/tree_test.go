package main

import (
	"context"
	"testing"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/scan"
)

// The tree has the images that it says it has, so that what is measured is
// whole.
func TestTreeIsRead(t *testing.T) {
	dir := t.TempDir()
	tree, err := generate(dir, 20)
	if err != nil {
		t.Fatal(err)
	}
	if tree.files != 20*filesPerService+2 || len(tree.images) != 80 || tree.literal != 40 {
		t.Errorf("%d files, %d images, %d literal", tree.files, len(tree.images), tree.literal)
	}
	folder, err := scan.OpenFolder(dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := folder.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	r, err := scan.New().Scan(context.Background(), l.Tree, code.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if found, others := tree.count(values(r.Images)); found != 80 || others != 0 || len(r.Problems) > 0 {
		t.Errorf("%d found, %d others, problems %v", found, others, r.Problems)
	}
}
