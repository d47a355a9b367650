package isolate

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	no := errors.New("no")
	fresh := func(p string) bool { return strings.HasPrefix(p, "/fresh/") }
	for _, c := range []struct {
		name    string
		levels  Levels
		want    string
		outputs []string
		get     Level
		err     string
	}{
		{"the strongest", Levels{Overlay: nil, Readonly: nil, Pod: nil, Shared: nil}, "", nil, Overlay, ""},
		{"then read-only", Levels{Overlay: no, Readonly: nil, Pod: nil, Shared: nil}, "auto", []string{"/fresh/x"}, Readonly, ""},
		{"not with outputs elsewhere", Levels{Overlay: no, Readonly: nil, Pod: nil, Shared: nil}, "", []string{"/fresh/x", "/out"}, Pod, ""},
		{"never shared by itself", Levels{Overlay: no, Readonly: no, Pod: no, Shared: nil}, "", nil, "", "isolation: shared"},
		{"says why", Levels{Overlay: no, Readonly: nil, Pod: no, Shared: nil}, "", []string{"/out"}, "", "output /out"},
		{"shared when asked", Levels{Overlay: nil, Shared: nil}, "shared", nil, Shared, ""},
		{"never less than asked", Levels{Overlay: no, Readonly: nil, Shared: nil}, "overlay", nil, "", "overlay cannot be had here: no"},
		{"a weaker one when asked", Levels{Overlay: nil, Readonly: nil}, "readonly", nil, Readonly, ""},
	} {
		want, err := ParseLevel(c.want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.levels.Choose(want, c.outputs, fresh)
		if got != c.get || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	if _, err := ParseLevel("perfect"); err == nil {
		t.Error("there is no such level")
	}
}

const pod = `500 400 0:60 / / ro,relatime master:1 - overlay overlay rw,lowerdir=a
501 500 0:61 / /proc rw,nosuid - proc proc rw
502 500 0:62 / /dev rw,nosuid - tmpfs tmpfs rw,mode=755
503 502 0:63 / /dev/shm rw - tmpfs shm rw
504 500 254:0 /hosts /etc/hosts rw - ext4 /dev/vda rw
505 500 254:0 /empty /with\040blank rw - ext4 /dev/vda rw
506 500 254:0 /pv /data rw - ext4 /dev/vda rw
507 500 0:70 / /data rw - tmpfs covered rw
508 500 254:0 /cm /config ro - ext4 /dev/vda rw
509 500 254:0 /s /scratch rw - ext4 /dev/vda rw
`

func TestMounts(t *testing.T) {
	mounts, err := parseMounts(strings.NewReader(pod))
	if err != nil || len(mounts) != 9 {
		t.Fatalf("%+v, %v", mounts, err)
	}
	p := Place{Scratch: "/scratch", Fresh: []string{"/with blank/"}}
	if got := p.writable(mounts); !slices.Equal(got, []string{"/etc/hosts", "/data"}) {
		t.Errorf("writable: %q", got)
	}
	p.Keep, p.Fresh = []string{"/data", "/etc/hosts"}, nil
	if got := p.writable(mounts); !slices.Equal(got, []string{"/with blank"}) {
		t.Errorf("writable: %q", got)
	}
	if _, err := parseMounts(strings.NewReader("nonsense\n")); err == nil {
		t.Error("read nonsense")
	}
	if err := p.readonly(2); err == nil {
		t.Error("two tasks at a time see each other")
	}
	if err := p.readonly(1); err == nil || !strings.Contains(err.Error(), "readOnlyRootFilesystem") {
		t.Errorf("the root of this machine can be written: %v", err)
	}
}

func FuzzMounts(f *testing.F) {
	f.Add(pod)
	f.Add(`1 1 0:1 / /\777\04 rw - x`)
	f.Fuzz(func(_ *testing.T, s string) { _, _ = parseMounts(strings.NewReader(s)) })
}

func TestWipe(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	keep := filepath.Join(outside, "keep")
	for _, f := range []string{keep, filepath.Join(dir, "f")} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "a/link")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := wipe(root); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Stat(keep); err != nil {
		t.Error("a link was followed")
	}
}

// What lies beside a mount point is copied; what is large is seen through an
// overlay; what is hidden is not there.
func TestSurvey(t *testing.T) {
	p := Place{Scratch: t.TempDir(), Hide: []string{"/etc/hostname"}}
	s, err := NewSurvey(p)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(s.layers, "/usr") || slices.Contains(s.layers, "/proc") || slices.Contains(s.layers, "/tmp") {
		t.Errorf("overlays over %q", s.layers)
	}
	b, err := os.ReadFile(filepath.Join(s.base, "etc/passwd"))
	if err != nil || !strings.Contains(string(b), "root:") {
		t.Errorf("not copied: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(s.base, "etc/hostname")); err == nil && len(b) > 0 {
		t.Error("a hidden file can be read")
	}
	if info, err := os.Stat(filepath.Join(s.base, "tmp")); err != nil || info.Mode() != os.ModeDir|os.ModeSticky|0o777 {
		t.Errorf("/tmp: %v, %v", info, err)
	}
}
