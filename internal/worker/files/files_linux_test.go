package files

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// world is a root with a secret beside it.
func world(t *testing.T) (root *Root, dir, secret string) {
	t.Helper()
	base := t.TempDir()
	dir, secret = filepath.Join(base, "root"), filepath.Join(base, "secret")
	if err := os.WriteFile(secret, []byte("s3cret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"etc", "out", "run"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("inside"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root, dir, secret
}

func link(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

func TestReading(t *testing.T) {
	root, dir, secret := world(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	link(t, secret, at("out/absolute"))
	link(t, "../../secret", at("out/relative"))
	link(t, "/etc", at("out/etc"))
	link(t, "../..", at("out/up"))
	link(t, "/proc/self/root", at("out/magic"))
	link(t, "loop", at("out/loop"))
	link(t, "/run", at("var"))
	if err := os.WriteFile(at("run/x"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(at("out/pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		text string
		err  error
	}{
		"/etc/passwd":                 {"inside", nil},
		"etc/passwd":                  {"inside", nil},
		"/var/x":                      {"x", nil}, // through a link, inside
		"/out/etc/passwd":             {"inside", nil},
		"/../../../etc/passwd":        {"inside", nil},
		"/out/up/etc/passwd":          {"inside", nil}, // the root is the end of ".."
		"/out/absolute":               {"", ErrUnsafe},
		"/out/relative":               {"", ErrUnsafe},
		"/out/etc":                    {"", ErrUnsafe},
		"/out/pipe":                   {"", ErrUnsafe},
		"/out":                        {"", ErrUnsafe}, // a folder is no text
		"/out/none":                   {"", ErrNotThere},
		"/none/none":                  {"", ErrNotThere},
		"/etc/passwd/x":               {"", ErrNotThere},
		"/out/loop/x":                 {"", syscall.ELOOP},
		"/out/magic/" + secret:        {"", ErrNotThere},
		"/out/absolute/../etc/passwd": {"inside", nil}, // cleaned, as every path
	} {
		f, err := root.Open(name)
		text := ""
		if err == nil {
			text, err = f.Text(100)
			_ = f.Close()
		}
		if text != want.text || !errors.Is(err, want.err) || (err == nil) != (want.err == nil) {
			t.Errorf("%s: read %q, %v; want %q, %v", name, text, err, want.text, want.err)
		}
	}
	f, err := root.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Text(5); !errors.Is(err, ErrTooLarge) {
		t.Errorf("larger than the limit: %v", err)
	}
}

func TestWriting(t *testing.T) {
	root, dir, secret := world(t)
	link(t, filepath.Dir(secret), filepath.Join(dir, "out/away"))
	link(t, secret, filepath.Join(dir, "out/file"))
	for _, name := range []string{"/new/deep/file", "/out/file", "/../up"} {
		if err := root.Write(name, 0o640, nil, strings.NewReader("new")); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, filepath.Clean("/"+name)))
		if err != nil || string(b) != "new" {
			t.Errorf("%s: holds %q, %v", name, b, err)
		}
	}
	info, err := os.Lstat(filepath.Join(dir, "out/file"))
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("what replaced a link has mode %v, %v", info.Mode(), err)
	}
	// The link leads to a folder that is not in this root: it is made there.
	if err := root.Write("/out/away/x", 0o644, nil, strings.NewReader("new")); err == nil {
		t.Error("wrote through a link that leads nowhere")
	}
	if err := root.Write("/", 0o644, nil, strings.NewReader("")); err == nil {
		t.Error("wrote the root")
	}
	if b, _ := os.ReadFile(secret); string(b) != "s3cret" {
		t.Errorf("the secret holds %q", b)
	}
	if entries, _ := os.ReadDir(filepath.Dir(secret)); len(entries) != 2 {
		t.Errorf("something was written outside: %v", entries)
	}
	if err := root.Write("/etc/passwd/x", 0o644, nil, strings.NewReader("")); err == nil {
		t.Error("wrote below a file")
	}
}

// archive makes a tar of entries.
func archive(entries ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		text := []byte(h.Uname) // what the file holds
		h.Uname, h.Size = "", int64(len(text))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		_ = w.WriteHeader(&h)
		_, _ = w.Write(text)
	}
	_ = w.Close()
	return b.Bytes()
}

func reg(name, text string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Uname: text}
}
func sym(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
}
func hard(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}
}

func TestUnpacking(t *testing.T) {
	for name, c := range map[string]struct {
		entries []tar.Header
		err     error
		there   string // a file that must hold "x"
	}{
		"plain":                  {[]tar.Header{{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, reg("d/f", "x")}, nil, "d/f"},
		"no entries for folders": {[]tar.Header{reg("./a/b/f", "x")}, nil, "a/b/f"},
		"the later one counts":   {[]tar.Header{reg("f", "y"), reg("f", "x")}, nil, "f"},
		"hard link":              {[]tar.Header{reg("f", "x"), hard("g", "f")}, nil, "g"},
		"links stay links":       {[]tar.Header{sym("l", "/etc/passwd"), reg("f", "x")}, nil, "f"},
		"link replaced by file":  {[]tar.Header{sym("f", "../../secret"), reg("f", "x")}, nil, "f"},
		"absolute":               {[]tar.Header{reg("/f", "x")}, ErrUnsafe, ""},
		"up":                     {[]tar.Header{reg("../f", "x")}, ErrUnsafe, ""},
		"up later":               {[]tar.Header{reg("a/../../f", "x")}, ErrUnsafe, ""},
		"through a link":         {[]tar.Header{sym("l", "/"), reg("l/f", "x")}, ErrUnsafe, ""},
		"through a link, inside": {[]tar.Header{sym("l", "."), reg("l/f", "x")}, ErrUnsafe, ""},
		"folder over a link":     {[]tar.Header{sym("l", "/"), {Name: "l/", Typeflag: tar.TypeDir, Mode: 0o777}}, ErrUnsafe, ""},
		"hard link out":          {[]tar.Header{hard("g", "../../secret")}, ErrUnsafe, ""},
		"hard link to a link":    {[]tar.Header{sym("l", "/etc/passwd"), hard("g", "l")}, ErrUnsafe, ""},
		"device":                 {[]tar.Header{{Name: "d", Typeflag: tar.TypeBlock}}, ErrUnsafe, ""},
		"pipe":                   {[]tar.Header{{Name: "d", Typeflag: tar.TypeFifo}}, ErrUnsafe, ""},
		"too many":               {[]tar.Header{reg("1", ""), reg("2", ""), reg("3", ""), reg("4", ""), reg("5", "")}, ErrTooLarge, ""},
		"too large":              {[]tar.Header{reg("f", strings.Repeat("x", 200)), reg("g", strings.Repeat("x", 200))}, ErrTooLarge, ""},
		"too deep":               {[]tar.Header{reg(strings.Repeat("d/", 300)+"f", "")}, ErrTooLarge, ""},
	} {
		t.Run(name, func(t *testing.T) {
			root, dir, secret := world(t)
			err := root.Unpack("/out", nil, bytes.NewReader(archive(c.entries...)), Limits{Bytes: 300, Entries: 4})
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Errorf("%v, want %v", err, c.err)
			}
			if c.there != "" {
				if b, err := os.ReadFile(filepath.Join(dir, "out", c.there)); err != nil || string(b) != "x" {
					t.Errorf("%s holds %q, %v", c.there, b, err)
				}
			}
			if b, _ := os.ReadFile(secret); string(b) != "s3cret" {
				t.Error("the secret was written")
			}
		})
	}
}

func TestBombs(t *testing.T) {
	root, _, _ := world(t)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	_ = w.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Mode: 0o644, Size: 64 << 20})
	_, _ = io.Copy(w, io.LimitReader(zeros{}, 64<<20))
	_, _ = w.Close(), z.Close()
	if err := root.Unpack("/out", nil, &b, Limits{Bytes: 1 << 20, Entries: 10}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("zeros: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What is packed is unpacked the same, and the same files are the same bytes.
func TestPacking(t *testing.T) {
	root, dir, secret := world(t)
	out := filepath.Join(dir, "out")
	if err := os.MkdirAll(filepath.Join(out, "a/b"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "a/b/run"), []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}
	link(t, secret, filepath.Join(out, "a/link"))
	if err := syscall.Mkfifo(filepath.Join(out, "a/pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	pack := func(name string) []byte {
		f, err := root.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var b bytes.Buffer
		if n, err := f.WriteTo(&b); err != nil || n != int64(b.Len()) || !f.Folder {
			t.Fatalf("packed %d bytes, %v", n, err)
		}
		return b.Bytes()
	}
	first := pack("/out")
	if bytes.Contains(first, []byte("s3cret")) {
		t.Error("a link was followed")
	}
	if err := root.Unpack("/run/again", nil, bytes.NewReader(first), Limits{Bytes: 1 << 20, Entries: 100}); err != nil {
		t.Fatal(err)
	}
	if second := pack("/run/again"); !bytes.Equal(first, second) {
		t.Error("unpacked and packed again it is something else")
	}
	if info, err := os.Stat(filepath.Join(dir, "run/again/a/b/run")); err != nil || info.Mode() != 0o755 {
		t.Errorf("mode %v, %v", info, err)
	}
	if to, err := os.Readlink(filepath.Join(dir, "run/again/a/link")); err != nil || to != secret {
		t.Errorf("link to %q, %v", to, err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(reg("a/f", "x"), sym("l", "/"), hard("h", "a/f")))
	f.Add(archive(sym("l", ".."), reg("l/secret", "y")))
	f.Fuzz(func(t *testing.T, b []byte) {
		root, dir, secret := world(t)
		_ = root.Unpack("/out", nil, bytes.NewReader(b), Limits{Bytes: 1 << 16, Entries: 64})
		if b, _ := os.ReadFile(secret); string(b) != "s3cret" {
			t.Error("the secret was written")
		}
		var names []string
		for _, d := range []string{filepath.Dir(dir), dir} {
			entries, _ := fs.ReadDir(os.DirFS(d), ".")
			for _, e := range entries {
				names = append(names, e.Name())
			}
		}
		if want := []string{"root", "secret", "etc", "out", "run"}; !slices.Equal(names, want) {
			t.Errorf("there is now %v", names)
		}
	})
}
