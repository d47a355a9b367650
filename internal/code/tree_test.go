package code

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func tree(t *testing.T, files ...File) *Tree {
	t.Helper()
	tr, err := NewTree(files)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestNewTreeRefuses(t *testing.T) {
	for _, p := range []string{"", ".", "..", "../a", "/etc/passwd", "a/../b", "a//b", "./a"} {
		if _, err := NewTree([]File{{Path: p}}); err == nil {
			t.Errorf("%q was taken", p)
		}
	}
	if _, err := NewTree([]File{{Path: "a"}, {Path: "a"}}); err == nil {
		t.Error("the same path twice was taken")
	}
}

func TestReadFollowsLinksWithin(t *testing.T) {
	tr := tree(t,
		File{Path: "common.tf", Data: []byte("x")},
		File{Path: "a/common.tf", Link: "../common.tf"},
		File{Path: "b/common.tf", Link: "../a/common.tf"},
		File{Path: "c/out.tf", Link: "../../out.tf"},
		File{Path: "c/abs.tf", Link: "/etc/passwd"},
		File{Path: "d/x", Link: "y"}, File{Path: "d/y", Link: "x"},
		File{Path: "modules", Link: "a/../shared"}, File{Path: "shared/m/main.tf", Data: []byte("m")}, File{Path: "e/up", Link: ".."})
	if f, err := tr.Read("modules/m/main.tf"); err != nil || f.Path != "shared/m/main.tf" {
		t.Errorf("through a folder: %v, %v", f.Path, err)
	}
	if p, err := tr.Follow("e/up/modules/m"); err != nil || p != "shared/m" {
		t.Errorf("folders: %v, %v", p, err)
	}
	if p, err := tr.Follow("no/where"); err != nil || p != "no/where" {
		t.Errorf("nothing there: %v, %v", p, err)
	}
	f, err := tr.Read("b/common.tf")
	if err != nil || f.Path != "common.tf" {
		t.Errorf("through two links: %v, %v", f.Path, err)
	}
	for _, p := range []string{"c/out.tf", "c/abs.tf"} {
		if _, err := tr.Read(p); !errors.Is(err, ErrOutside) {
			t.Errorf("%s: %v, want ErrOutside", p, err)
		}
	}
	if _, err := tr.Read("d/x"); err == nil {
		t.Error("a cycle of links was read")
	}
	if _, err := tr.Read("none"); !errors.Is(err, ErrNoFile) {
		t.Errorf("%v, want ErrNoFile", err)
	}
}

func TestWith(t *testing.T) {
	tr := tree(t, File{Path: "a", Data: []byte("0123456789")}, File{Path: "b", Data: []byte("b")})
	got, err := tr.With([]Splice{{Range{"a", 8, 9}, "EIGHT"}, {Range{"a", 0, 2}, ""}, {Range{"a", 2, 2}, "+"}})
	if err != nil {
		t.Fatal(err)
	}
	f, _ := got.Read("a")
	if string(f.Data) != "+234567EIGHT9" {
		t.Errorf("got %q", f.Data)
	}
	if old, _ := tr.Read("a"); string(old.Data) != "0123456789" || old.Sum == f.Sum {
		t.Error("the old tree changed, or the sum did not")
	}
	for _, bad := range [][]Splice{{{Range{"a", 0, 3}, ""}, {Range{"a", 2, 4}, ""}}, {{Range{"a", 9, 11}, ""}}, {{Range{"a", 3, 2}, ""}}, {{Range{"a", -1, 2}, ""}}, {{Range{"c", 0, 0}, ""}}} {
		if _, err := tr.With(bad); err == nil {
			t.Errorf("%v was applied", bad)
		}
	}
}

func FuzzWith(f *testing.F) {
	f.Add([]byte("hello"), 1, 3, "x", 4, 5, "y")
	f.Fuzz(func(t *testing.T, data []byte, s1, e1 int, n1 string, s2, e2 int, n2 string) {
		tr := tree(t, File{Path: "a", Data: data})
		got, err := tr.With([]Splice{{Range{"a", s1, e1}, n1}, {Range{"a", s2, e2}, n2}})
		if err != nil {
			return
		}
		if s1 > s2 || s1 == s2 && e1 > e2 {
			s1, e1, n1, s2, e2, n2 = s2, e2, n2, s1, e1, n1
		}
		file, _ := got.Read("a")
		if s1 == s2 && s1 == e1 && s2 == e2 {
			return // two insertions at one point: any order
		}
		want := string(data[:s1]) + n1 + string(data[e1:s2]) + n2 + string(data[e2:])
		if !bytes.Equal(file.Data, []byte(want)) {
			t.Errorf("got %q, want %q", file.Data, want)
		}
	})
}

func TestPlaceOf(t *testing.T) {
	f := File{Path: "x", Data: []byte("ab\ncd\n")}
	for offset, want := range map[int]string{0: "x:1", 3: "x:2", 6: "x:3", 99: "x:3"} {
		if got := PlaceOf(f, offset).String(); got != want {
			t.Errorf("%d: %s, want %s", offset, got, want)
		}
	}
	if p := PlaceOf(f, 4); p.Column != 2 || !strings.HasSuffix(p.String(), ":2") {
		t.Errorf("%+v", p)
	}
}
