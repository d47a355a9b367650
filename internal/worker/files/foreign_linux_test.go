package files

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"testing"
)

func TestCopy(t *testing.T) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := Copy(w, "in/tree", tarOf(t, "dir a", "file a/x 1", "link l a/x", "hard h a/x"), generous); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Layer(&out, generous, true); err != nil {
		t.Fatal(err)
	}
	if got, want := tree(t, dir), "in/ in/tree/ in/tree/a/ in/tree/a/x=1 in/tree/h=1 in/tree/l->a/x"; got != want {
		t.Errorf("there is %s, want %s", got, want)
	}
	for name, entry := range map[string]string{"dots": "file ../x 1", "a device": "char d", "a link out": "hard h ../../etc/passwd", "absolute": "file /x 1"} {
		if err := Copy(tar.NewWriter(io.Discard), "in", tarOf(t, entry), generous); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Copy(tar.NewWriter(io.Discard), "in", tarOf(t, "file x 12345"), Limits{Bytes: 4, Entries: 9}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

func TestFromTar(t *testing.T) {
	ends := ""
	end := func(whole bool) error { ends += map[bool]string{true: "whole ", false: "part "}[whole]; return nil }
	f, err := FromTar(tarOf(t, "file x hello"), end)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := f.Text(10); err != nil || text != "hello" || f.Folder || f.Size != 5 {
		t.Errorf("%q, %v, %+v", text, err, f)
	}
	_ = f.Close()
	f, err = FromTar(tarOf(t, "dir d", "dir d/e", "file d/e/x 1", "link d/l e/x", "char d/c", "file other 2"), end)
	if err != nil || !f.Folder {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var packed bytes.Buffer
	if _, err := f.WriteTo(&packed); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if err := r.Unpack("/out", nil, &packed, generous); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, filepath.Join(dir, "out")); got != "e/ e/x=1 l->e/x" {
		t.Errorf("there is %s", got)
	}
	if f, err = FromTar(tarOf(t, "dir d", "file d/x 1"), end); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if ends != "whole whole part " {
		t.Errorf("ended %s", ends)
	}
	for _, entry := range []string{"link l /etc/passwd", "char c", "fifo p"} {
		if _, err := FromTar(tarOf(t, entry), end); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s: %v", entry, err)
		}
	}
	broken := errors.New("broken")
	if f, err = FromTar(tarOf(t, "file x hello"), func(bool) error { return broken }); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Text(10); !errors.Is(err, broken) {
		t.Errorf("what its source says at the end: %v", err)
	}
}
