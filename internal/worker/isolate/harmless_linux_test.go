package isolate

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHarmless(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "hosts")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"/dev/null": true, // what hides files of /proc
		file:        false,
		dir:         false,
		"/no/such":  false,
	} {
		if got := harmless(path); got != want {
			t.Errorf("%s: harmless %v, want %v", path, got, want)
		}
	}
	p := Place{Fresh: []string{file, dir}}
	if err := p.Wipe(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the folder was not emptied")
	}
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.Fresh = []string{file}
	if err := p.Wipe(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); err != nil || len(b) != 0 {
		t.Errorf("the file holds %q, %v", b, err)
	}
}
