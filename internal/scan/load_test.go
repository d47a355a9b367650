package scan

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/code"
)

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

// put writes "path", "content" pairs below dir.
func put(t testing.TB, dir string, files ...string) {
	t.Helper()
	for i := 0; i < len(files); i += 2 {
		name := filepath.Join(dir, filepath.FromSlash(files[i]))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func load(t testing.TB, dir string, ignore ...string) *Loaded {
	t.Helper()
	f, err := OpenFolder(dir, ignore, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := f.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "main.tf", "a", "x/values.yaml", "b", "x/deep/Dockerfile", "c", "x/api.Dockerfile", "", "x/.env", "", "VERSION", "1",
		"tpl/pod.tftpl", "d", "go.mod", "no", "photo.png", "no", ".git/config.yaml", "no", "x/node_modules/y.yaml", "no",
		"x/.terraform/modules/m/main.tf", "no", "vendor/v.tf", "no", "vendored.tf", "e", "package-lock.json", "no")
	l := load(t, dir, "vendor/**")
	want := []string{"VERSION", "main.tf", "tpl/pod.tftpl", "vendored.tf", "x/.env", "x/api.Dockerfile", "x/deep/Dockerfile", "x/values.yaml"}
	if got := l.Tree.Paths(); !slices.Equal(got, want) || len(l.Problems) > 0 {
		t.Errorf("loaded %v, problems %v, want %v", got, l.Problems, want)
	}
	if f, err := l.Tree.Read("x/values.yaml"); err != nil || string(f.Data) != "b" {
		t.Errorf("%q %v", f.Data, err)
	}
}

// Nothing outside of the folder is read, whatever is in it.
func TestFolderLinks(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	put(t, outside, "secret.tf", "secret", "sub/secret.tf", "secret")
	put(t, dir, "main.tf", "inside")
	for name, to := range map[string]string{
		"out.tf": filepath.Join(outside, "secret.tf"), "rel.tf": "../" + filepath.Base(outside) + "/secret.tf",
		"folder": outside, "folder.tf": filepath.Join(outside, "sub"), "in.tf": "main.tf", "loop.tf": "loop.tf", "up": "..",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	tree := load(t, dir).Tree
	for _, p := range tree.Paths() {
		if f, err := tree.Read(p); err == nil && strings.Contains(string(f.Data), "secret") {
			t.Errorf("%s was read", p)
		}
	}
	if f, err := tree.Read("in.tf"); err != nil || f.Path != "main.tf" {
		t.Errorf("a link within: %v %v", f.Path, err)
	}
	for _, p := range []string{"out.tf", "rel.tf", "folder/secret.tf", "folder.tf/secret.tf"} {
		if _, err := tree.Read(p); !errors.Is(err, code.ErrOutside) {
			t.Errorf("%s: %v, want ErrOutside", p, err)
		}
	}
}

func TestFolderLeavesLargeFilesOut(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "small.tf", "a", "data.json", strings.Repeat(" ", MaxFile+1))
	for name, size := range map[string]int64{"large.tf": 50 << 20, "most.tf": MaxFile} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	l := load(t, dir)
	if got := l.Tree.Paths(); !slices.Equal(got, []string{"most.tf", "small.tf"}) {
		t.Errorf("loaded %v", got)
	}
	if len(l.Problems) != 1 || l.Problems[0].Place.File != "large.tf" || !strings.Contains(l.Problems[0].Text, "50.0 MiB") {
		t.Errorf("%v", l.Problems)
	}
}

func TestOpenFolderRefuses(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "main.tf", "a")
	if _, err := OpenFolder(filepath.Join(dir, "none"), nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := OpenFolder(filepath.Join(dir, "main.tf"), nil, nil); err == nil || !strings.Contains(err.Error(), "not a folder") {
		t.Errorf("%v", err)
	}
}

// Loading again reads what changed and nothing else.
func TestFolderAgain(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.tf", "a", "b.tf", "b", "c.tf", "c")
	f, err := OpenFolder(dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, err := f.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "b.tf", "longer", "d.tf", "d")
	if err := os.Remove(filepath.Join(dir, "c.tf")); err != nil {
		t.Fatal(err)
	}
	second, err := f.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got := second.Tree.Paths(); !slices.Equal(got, []string{"a.tf", "b.tf", "d.tf"}) {
		t.Errorf("loaded %v", got)
	}
	same := func(name string) bool {
		x, _ := first.Tree.Read(name)
		y, _ := second.Tree.Read(name)
		return &x.Data[0] == &y.Data[0]
	}
	if !same("a.tf") || same("b.tf") {
		t.Error("a.tf was read again, or b.tf was not")
	}
	if b, _ := second.Tree.Read("b.tf"); string(b.Data) != "longer" {
		t.Errorf("%q", b.Data)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.tf", "one", "x/b.tf", "two")
	if err := os.Chmod(filepath.Join(dir, "a.tf"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFolder(dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := f.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	splice := func(file, text string) code.Splice {
		return code.Splice{Range: code.Range{File: file, Start: 0, End: 1}, New: text}
	}
	if err := f.Write(l.Tree, []code.Splice{splice("a.tf", "L"), splice("x/b.tf", "T")}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a.tf": "Lne", "x/b.tf": "Two"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q %v, want %q", name, b, err, want)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "a.tf"))
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	// It is not as it was loaded any more.
	if err := f.Write(l.Tree, []code.Splice{splice("a.tf", "X")}); err == nil || !strings.Contains(err.Error(), "changed since") {
		t.Errorf("%v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

// member is an entry of an archive.
type member struct {
	name, data, link string
	kind             byte
}

func archiveOf(t testing.TB, zip bool, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if m.kind == 0 {
			m.kind = tar.TypeReg
		}
		h := &tar.Header{Name: m.name, Typeflag: m.kind, Linkname: m.link, Size: int64(len(m.data)), Mode: 0o644}
		if m.kind == tar.TypeXGlobalHeader {
			h = &tar.Header{Typeflag: m.kind, Name: m.name, PAXRecords: map[string]string{"comment": "abc"}}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !zip {
		return b.Bytes()
	}
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	if _, err := g.Write(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	return z.Bytes()
}

func TestTar(t *testing.T) {
	forge := []member{
		{name: "pax_global_header", kind: tar.TypeXGlobalHeader},
		{name: "repo-abc/", kind: tar.TypeDir},
		{name: "repo-abc/main.tf", data: "a"},
		{name: "repo-abc/x/values.yaml", data: "b"},
		{name: "repo-abc/x/link.tf", kind: tar.TypeSymlink, link: "../main.tf"},
		{name: "repo-abc/folder", kind: tar.TypeSymlink, link: "x"},
		{name: "repo-abc/photo.png", data: "no"},
		{name: "repo-abc/vendor/v.tf", data: "no"},
		{name: "repo-abc/.terraform/v.tf", data: "no"},
		{name: "repo-abc/pipe.tf", kind: tar.TypeFifo},
		{name: "repo-abc/large.tf", data: strings.Repeat("x", MaxFile+1)},
	}
	flat := []member{{name: "./", kind: tar.TypeDir}, {name: "./main.tf", data: "a"}, {name: "x/values.yaml", data: "b"}, {name: "x/link.tf", kind: tar.TypeSymlink, link: "../main.tf"}, {name: "folder", kind: tar.TypeSymlink, link: "x"}, {name: "large.tf", data: strings.Repeat("x", MaxFile+1)}}
	for name, members := range map[string][]member{"one folder": forge, "none": flat} {
		for _, zip := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", gzip ", zip), func(t *testing.T) {
				l, err := Tar(context.Background(), bytes.NewReader(archiveOf(t, zip, members...)), []string{"vendor/**"}, nil)
				if err != nil {
					t.Fatal(err)
				}
				if got := l.Tree.Paths(); !slices.Equal(got, []string{"folder", "main.tf", "x/link.tf", "x/values.yaml"}) {
					t.Errorf("loaded %v", got)
				}
				if len(l.Problems) != 1 || l.Problems[0].Place.File != "large.tf" {
					t.Errorf("%v", l.Problems)
				}
				if f, err := l.Tree.Read("x/link.tf"); err != nil || string(f.Data) != "a" {
					t.Errorf("%q %v", f.Data, err)
				}
			})
		}
	}
}

func TestTarRefuses(t *testing.T) {
	whole := archiveOf(t, true, member{name: "r/a.tf", data: strings.Repeat("x", 5000)})
	for name, data := range map[string][]byte{
		"up":        archiveOf(t, false, member{name: "r/../../a.tf", data: "x"}),
		"up inside": archiveOf(t, false, member{name: "r/x/../a.tf", data: "x"}),
		"absolute":  archiveOf(t, false, member{name: "/etc/a.tf", data: "x"}),
		"backslash": archiveOf(t, false, member{name: `r\..\a.tf`, data: "x"}),
		"twice":     archiveOf(t, false, member{name: "r/a.tf", data: "x"}, member{name: "r/a.tf", data: "y"}),
		"cut":       whole[:len(whole)/2],
		"html":      []byte("<!DOCTYPE html><html><body>sign on first</body></html>" + strings.Repeat(" ", 600)),
	} {
		if l, err := Tar(context.Background(), bytes.NewReader(data), nil, nil); !errors.Is(err, ErrArchive) {
			t.Errorf("%s: %v, %v, want ErrArchive", name, l, err)
		}
	}
}

func TestTooManyFiles(t *testing.T) {
	l := &loading{}
	for i := range MaxFiles {
		if err := l.add(code.File{Path: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.add(code.File{Path: "one more"}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
	l = &loading{bytes: MaxTree}
	if err := l.add(code.File{Path: "a", Data: []byte("x")}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
}

func FuzzTar(f *testing.F) {
	f.Add(archiveOf(f, false, member{name: "r/a.tf", data: "x"}, member{name: "r/b.tf", kind: tar.TypeSymlink, link: "a.tf"}))
	f.Add(archiveOf(f, true, member{name: "a.tf", data: "x"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Tar(context.Background(), bytes.NewReader(data), nil, nil)
		if err != nil {
			return
		}
		for _, p := range l.Tree.Paths() {
			if strings.HasPrefix(p, "..") || strings.HasPrefix(p, "/") {
				t.Errorf("%q", p)
			}
		}
	})
}

// What is opened is what was listed: a folder that became a link in between
// leads to another file.
func TestReadListed(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.tf", "a", "b.tf", "b")
	info, err := os.Lstat(filepath.Join(dir, "a.tf"))
	if err != nil {
		t.Fatal(err)
	}
	if data, err := readListed(filepath.Join(dir, "a.tf"), info); err != nil || string(data) != "a" {
		t.Errorf("%q %v", data, err)
	}
	if data, err := readListed(filepath.Join(dir, "b.tf"), info); err == nil {
		t.Errorf("%q was read in place of a.tf", data)
	}
}
