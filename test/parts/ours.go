package parts

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// locate makes the folder of a program of this repository absolute, and adds
// what its files hold to its version: whoever edits them gets the program he
// wrote and not an older one out of the cache.
func (p *Part) locate() error {
	root, err := root()
	if err != nil {
		return fmt.Errorf("find the sources of %s: %w", p, err)
	}
	p.Dir = filepath.Join(root, filepath.FromSlash(p.Dir))
	sum := sha256.New()
	err = filepath.WalkDir(p.Dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.HasSuffix(name, "_test.go") {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %d\n", strings.TrimPrefix(name, p.Dir), len(b))
		sum.Write(b)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the sources of %s: %w", p, err)
	}
	p.Version += fmt.Sprintf("-%x", sum.Sum(nil)[:6])
	return nil
}

// root is the folder of this repository. The Go command starts tests in the
// folder of their package, and people start commands anywhere in it.
func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module cairn.dev/cairn\n") {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("the working folder is not in Cairn's repository")
		}
		dir = up
	}
}

// Cairn builds the program that this repository is about and returns its file,
// which ends with the test.
func Cairn(t testing.TB) string {
	t.Helper()
	file, err := Compile(t.Context(), "cairn", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// Compile builds a program of cmd as it is shipped, into the folder, and returns
// its file. The working folder is anywhere in this repository.
func Compile(ctx context.Context, name, dir string) (string, error) {
	file := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "cairn.dev/cairn/cmd/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return file, nil
}
