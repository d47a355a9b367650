package parts

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTableIsPinned(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Table() {
		if seen[p.Name] {
			t.Errorf("%s is there twice", p.Name)
		}
		seen[p.Name] = true
		kinds := 0
		for _, is := range []bool{p.Package != "", p.Dir != "", len(p.Npm) > 0} {
			if is {
				kinds++
			}
		}
		if !strings.HasPrefix(p.Version, "v") || kinds != 1 || p.Cold == 0 || p.Purpose == "" {
			t.Errorf("%+v is not complete", p)
		}
	}
	if _, err := Build(t.Context(), "no-such", io.Discard); err == nil || !strings.Contains(err.Error(), "crane") {
		t.Errorf("an unknown part: %v; want an error that lists the known ones", err)
	}
}

func TestBuildUsesCache(t *testing.T) {
	t.Setenv("CAIRN_PARTS", t.TempDir())
	t.Setenv("PATH", "") // so that building would fail
	p, _ := find("crane")
	cache, err := Cache()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), "crane", io.Discard); err == nil {
		t.Fatal("built without a Go command")
	}
	file := p.file(cache)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), "crane", io.Discard); err == nil {
		t.Fatal("took a file that cannot be executed for a program")
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("whole"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := Build(t.Context(), "crane", io.Discard); err != nil || got != file {
		t.Errorf("Build = %q, %v; want the cached %q", got, err, file)
	}
}

func TestLockExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	inside, most := 0, 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			unlock, err := lock(context.Background(), path)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			inside++
			most = max(most, inside)
			mu.Unlock()
			for range 1000 {
				_, _ = os.Stat(path)
			}
			mu.Lock()
			inside--
			mu.Unlock()
			unlock()
		})
	}
	wg.Wait()
	if most != 1 {
		t.Errorf("%d held the lock at once", most)
	}
	unlock, err := lock(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path); err == nil {
		t.Error("took a lock that is held")
	}
}

// recorder is a testing.TB that notes how it was ended.
type recorder struct {
	testing.TB
	ended string
}

func (r *recorder) Helper()               {}
func (r *recorder) Fatalf(string, ...any) { r.ended = "fatal" }
func (r *recorder) Skipf(string, ...any)  { r.ended = "skip" }

func TestMissing(t *testing.T) {
	for _, c := range []struct{ env, want string }{{"", "skip"}, {"no", "skip"}, {"required", "fatal"}} {
		t.Setenv("CAIRN_E2E", c.env)
		r := &recorder{}
		Missing(r, "a thing")
		if r.ended != c.want {
			t.Errorf("CAIRN_E2E=%q: %s, want %s", c.env, r.ended, c.want)
		}
	}
}
