package scan

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/terraform"
)

// FuzzTerraform reads a tree of two files and wants another tag of each of its
// images. Whatever the files say, nothing panics, and a change is either
// refused or makes the image what was wanted by writing a tag and no more.
func FuzzTerraform(f *testing.F) {
	files, err := filepath.Glob("testdata/corpus/*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatalf("no corpus: %v", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		_, list := sections(string(data))
		var main, vars string
		for _, s := range list {
			switch {
			case strings.HasSuffix(s.name, ".tfvars"):
				vars = s.body
			case strings.HasSuffix(s.name, ".tf"):
				main += s.body
			}
		}
		f.Add(main, vars, "1.10")
	}
	f.Add("locals {\n  # cairn: image=acme/web\n  web =3var", "", "1..1")
	f.Add("resource \"helm_release\" \"a\" {\n  chart  = \"./chart\"\n  values = [[[[age", "", "1.10")
	f.Add("resource \"aws_ecs_task_definition\" \"api\" {\n  container_definitions = jsonencode([\n   ", "", "1.10")
	f.Add("resource \"azurerm_app_service\" \"old\" {\n  site_config {\n    linux_fx_version = \"DOCKER|", "", "1")
	f.Fuzz(func(t *testing.T, main, vars, tag string) {
		if len(main)+len(vars) > 1<<14 || !valid(tag) {
			return
		}
		tree, err := code.NewTree([]code.File{{Path: "main.tf", Data: []byte(main)}, {Path: "terraform.tfvars", Data: []byte(vars)}})
		if err != nil {
			t.Fatal(err)
		}
		reader := &terraform.Reader{}
		read := func(t2 *code.Tree) (*code.Result, error) { return reader.Read(t.Context(), t2, code.Options{}) }
		before, err := read(tree)
		if err != nil {
			t.Fatal(err)
		}
		for i, img := range before.Images {
			if i > 0 && img.ID == before.Images[i-1].ID {
				t.Fatalf("two images are called %s", img.ID)
			}
			checkImage(t, tree, img)
			ref, err := code.ParseReference(img.Value)
			if err != nil || i >= 5 { // five are enough to find what is wrong, and fast
				continue
			}
			ref.Tag = tag
			got, err := Change(t.Context(), read, tree, before, []code.Want{{Image: img.ID, To: ref.String()}})
			var no *code.RefusedError
			if errors.As(err, &no) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			checkChange(t, tree, read, img.ID, ref, got)
		}
	})
}

func valid(tag string) bool {
	_, err := code.ParseReference("x:" + tag)
	return err == nil
}

// checkImage holds an image to what code.Image says of its fields.
func checkImage(t *testing.T, tree *code.Tree, img code.Image) {
	t.Helper()
	if img.Value == "" && img.Fixed == "" {
		t.Errorf("%s is not known, and nothing says why", img.ID)
	}
	if len(img.Chain) == 0 || img.Place.File == "" {
		t.Errorf("%s stands nowhere: %+v", img.ID, img)
	}
	for _, r := range img.Sources {
		f, err := tree.Read(r.File)
		if err != nil || r.Start < 0 || r.End < r.Start || r.End > len(f.Data) {
			t.Errorf("%s comes from %+v, which is not there", img.ID, r)
		}
	}
}

// checkChange holds a change to what it promises.
func checkChange(t *testing.T, tree *code.Tree, read func(*code.Tree) (*code.Result, error), id string, want code.Reference, got code.Change) {
	t.Helper()
	for _, s := range got.Splices {
		if text := strings.Trim(s.New, `"`); !strings.Contains(want.String(), text) {
			t.Errorf("%s: %q was written, which is no part of %s", id, s.New, want)
		}
		if f, err := tree.Read(s.File); err != nil || strings.ContainsAny(string(f.Data[s.Start:s.End]), " \t\r\n\"") {
			t.Errorf("%s: more than a word was replaced: %q (%v)", id, f.Data[s.Start:s.End], err)
		}
	}
	changed, err := tree.With(got.Splices)
	if err != nil {
		t.Fatal(err)
	}
	after, err := read(changed)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range after.Images {
		if i.ID == id {
			if i.Value != want.String() {
				t.Errorf("%s became %s, want %s", id, i.Value, want)
			}
			return
		}
	}
	t.Errorf("%s is gone", id)
}
