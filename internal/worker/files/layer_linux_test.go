package files

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tarOf is a layer of entries, each "kind name [text or target]".
func tarOf(t testing.TB, entries ...string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		kind, rest, _ := strings.Cut(e, " ")
		name, text, _ := strings.Cut(rest, " ")
		h := &tar.Header{Name: name, Mode: 0o644, ModTime: time.Unix(1000, 0), Typeflag: map[string]byte{"dir": tar.TypeDir, "file": tar.TypeReg, "link": tar.TypeSymlink, "hard": tar.TypeLink, "char": tar.TypeChar, "block": tar.TypeBlock, "fifo": tar.TypeFifo, "odd": 'Z'}[kind]}
		switch kind {
		case "dir":
			h.Mode = 0o755
		case "file":
			h.Size = int64(len(text))
		case "link", "hard":
			h.Linkname, text = text, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); kind == "file" && err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// tree is what lies in a folder.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		line := strings.TrimPrefix(path, dir+"/")
		switch e.Type() {
		case fs.ModeDir:
			line += "/"
		case fs.ModeSymlink:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += "->" + to
		case fs.ModeNamedPipe:
			line += "|"
		default:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += "=" + string(b)
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

var generous = Limits{Bytes: 1 << 20, Entries: 1000}

func TestLayers(t *testing.T) {
	lower := []string{"dir a", "file a/x 1", "file a/y 2", "dir a/sub", "file a/sub/z 3", "link l a", "dir usr", "dir usr/lib", "link lib usr/lib", "file top 9"}
	base := "a/ a/sub/ a/sub/z=3 a/x=1 a/y=2 l->a lib->usr/lib top=9 usr/ usr/lib/"
	for _, c := range []struct {
		name  string
		layer []string
		want  string
		err   error // or a part of it
	}{
		{"nothing", nil, base, nil},
		{"names of all kinds", []string{"file ./b 1", "file /c 2", "dir d/", "file d//e 3"}, strings.Replace(base, " l->a", " b=1 c=2 d/ d/e=3 l->a", 1), nil},
		{"folders without entries", []string{"file n/m/o 1"}, strings.Replace(base, " top", " n/ n/m/ n/m/o=1 top", 1), nil},
		{"replaced", []string{"file a/x new", "dir top", "file l plain"}, "a/ a/sub/ a/sub/z=3 a/x=new a/y=2 l=plain lib->usr/lib top/ usr/ usr/lib/", nil},
		{"a folder by a file", []string{"file a flat"}, "a=flat l->a lib->usr/lib top=9 usr/ usr/lib/", nil},
		{"a folder stays", []string{"dir a"}, base, nil},
		{"gone", []string{"file a/.wh.x ", "file .wh.usr ", "file .wh.nosuch "}, "a/ a/sub/ a/sub/z=3 a/y=2 l->a lib->usr/lib top=9", nil},
		{"gone, and new in the same layer", []string{"file a/x new", "file a/.wh.x "}, strings.Replace(base, "x=1", "x=new", 1), nil},
		{"a new folder", []string{"dir a", "file a/.wh..wh..opq ", "file a/n 1"}, "a/ a/n=1 l->a lib->usr/lib top=9 usr/ usr/lib/", nil},
		{"a new folder, said last", []string{"dir a", "file a/n 1", "dir a/sub", "file a/sub/m 1", "file a/.wh..wh..opq "}, "a/ a/n=1 a/sub/ a/sub/m=1 l->a lib->usr/lib top=9 usr/ usr/lib/", nil},
		{"through a link of a lower layer", []string{"file lib/so 1"}, "a/ a/sub/ a/sub/z=3 a/x=1 a/y=2 l->a lib->usr/lib top=9 usr/ usr/lib/ usr/lib/so=1", nil},
		{"hard links", []string{"hard h a/x", "hard a/y a/x", "hard a/x a/x"}, "a/ a/sub/ a/sub/z=3 a/x=1 a/y=1 h=1 l->a lib->usr/lib top=9 usr/ usr/lib/", nil},
		{"a hard link to nothing", []string{"hard h nosuch"}, "", unix.ENOENT},
		{"a hard link to a folder", []string{"hard h a"}, "", unix.EPERM},
		{"devices are left out", []string{"char dev/null", "block dev/sda", "fifo p"}, strings.Replace(base, " top", " p| top", 1) + "", nil},
		{"an odd kind", []string{"odd x"}, "", ErrUnsafe},
		{"out by dots", []string{"file ../evil 1"}, "", ErrUnsafe},
		{"out by dots in the middle", []string{"file a/../../evil 1"}, "", ErrUnsafe},
		{"out by an absolute link", []string{"link out /", "file out/evil 1"}, "a/ a/sub/ a/sub/z=3 a/x=1 a/y=2 evil=1 l->a lib->usr/lib out->/ top=9 usr/ usr/lib/", nil},
		{"out by a link with dots", []string{"link out ../../../..", "file out/evil 1"}, "a/ a/sub/ a/sub/z=3 a/x=1 a/y=2 evil=1 l->a lib->usr/lib out->../../../.. top=9 usr/ usr/lib/", nil},
		{"out by a hard link with dots", []string{"hard h ../../etc/passwd"}, "", ErrUnsafe},
		{"out by a hard link through a link", []string{"link out /etc", "hard h out/passwd"}, "", unix.ENOENT},
		{"out by a gone name", []string{"file .wh... "}, "", ErrUnsafe},
		{"out by an empty gone name", []string{"file .wh. "}, "", ErrUnsafe},
		{"gone through a link", []string{"link out /", "file out/.wh.top "}, "a/ a/sub/ a/sub/z=3 a/x=1 a/y=2 l->a lib->usr/lib out->/ usr/ usr/lib/", nil},
		{"out by magic", []string{"link out /proc/self/root", "file out/evil 1"}, "", unix.EEXIST},
		{"a file in the way", []string{"file top/x 1"}, "", unix.ENOTDIR},
		{"the root is a file", []string{"file . 1"}, "", ErrUnsafe},
		{"too deep", []string{"file " + strings.Repeat("d/", maxDepth+1) + "x 1"}, "", ErrTooLarge},
		{"a long name", []string{"file " + strings.Repeat("d", 300) + " 1"}, "", unix.ENAMETOOLONG},
	} {
		t.Run(c.name, func(t *testing.T) {
			outer := t.TempDir()
			dir := filepath.Join(outer, "in", "root")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			r, err := OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := r.Layer(tarOf(t, lower...), generous, true); err != nil {
				t.Fatal(err)
			}
			_, err = r.Layer(tarOf(t, c.layer...), generous, true)
			if !errors.Is(err, c.err) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			got := tree(t, dir)
			if c.name == "devices are left out" {
				got = strings.Replace(got, " dev/", "", 1)
			}
			if c.err == nil && got != c.want {
				t.Errorf("there is\n%s, want\n%s", got, c.want)
			}
			if len(namesIn(t, outer)) != 1 || len(namesIn(t, filepath.Dir(dir))) != 1 {
				t.Errorf("it reached out: %s", tree(t, outer))
			}
		})
	}
}

func namesIn(t *testing.T, dir string) []fs.DirEntry {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestLayerIsBounded(t *testing.T) {
	many := make([]string, 20)
	for i := range many {
		many[i] = fmt.Sprint("file f", i, " ", strings.Repeat("x", 100))
	}
	for name, limits := range map[string]Limits{"entries": {Bytes: 1 << 20, Entries: 19}, "bytes": {Bytes: 1999, Entries: 1000}} {
		r, err := OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Layer(tarOf(t, many...), limits, true); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		_ = r.Close()
	}
	r, err := OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if a, err := r.Layer(tarOf(t, many...), Limits{Bytes: 2000, Entries: 20}, true); err != nil || a.Entries != 20 || a.Bytes != 2000 {
		t.Errorf("%+v, %v", a, err)
	}
	endless := tarOf(t, "file a 1")
	endless.Write(make([]byte, 10<<20)) // after the end
	if _, err := r.Layer(endless, generous, true); !errors.Is(err, ErrTooLarge) {
		t.Errorf("without end: %v", err)
	}
}

// What a layer says of owners, modes and times is so, and nothing else is.
func TestLayerAttributes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("owners are for root")
		return
	}
	dir := t.TempDir()
	r, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Name: "f", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 12, Gid: 34, ModTime: time.Unix(1e9, 0), PAXRecords: map[string]string{"SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		{Name: "old", Typeflag: tar.TypeReg, Mode: 0o600, ModTime: time.Unix(-5, 0), Format: tar.FormatPAX},
		{Name: "s", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd", Mode: 0o777, Uid: 56, Gid: 78},
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o1777},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Layer(&b, generous, false); err != nil {
		t.Fatal(err)
	}
	stat := func(name string) (st unix.Stat_t) {
		t.Helper()
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	if st := stat("f"); st.Uid != 12 || st.Gid != 34 || st.Mode&0o7777 != 0o4755 || st.Mtim.Sec != 1e9 {
		t.Errorf("%+v", st)
	}
	if st := stat("s"); st.Uid != 56 || st.Gid != 78 {
		t.Errorf("%+v", st)
	}
	if st := stat("old"); st.Mtim.Sec != 0 {
		t.Errorf("%+v", st)
	}
	if st := stat("."); st.Mode&0o7777 != 0o1777 {
		t.Errorf("the root %+v", st)
	}
	if n, err := unix.Llistxattr(filepath.Join(dir, "f"), nil); err != nil || n != 0 {
		t.Errorf("%d bytes of extended attributes, %v", n, err)
	}
}

func FuzzLayer(f *testing.F) {
	f.Add(tarOf(f, "dir a", "file a/x 1", "file a/.wh.x ", "link l /", "file l/e 1", "hard h a/x", "file .wh..wh..opq ").Bytes())
	f.Add(tarOf(f, "link a ../..", "file a/evil 1", "file a/.wh.root ").Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "root")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		beside := filepath.Join(outer, "beside")
		if err := os.WriteFile(beside, []byte("untouched"), 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		_, _ = r.Layer(bytes.NewReader(b), Limits{Bytes: 1 << 20, Entries: 100}, true)
		text, err := os.ReadFile(beside)
		if err != nil || string(text) != "untouched" || len(namesIn(t, outer)) != 2 {
			t.Fatalf("it reached out: %q, %v", text, err)
		}
	})
}
