package parts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Unpacked returns a folder that holds the files of a Debian package, which is
// not installed. Where it cannot be had, the test ends by [Missing].
func Unpacked(t testing.TB, name string) string {
	t.Helper()
	dir, err := Unpack(t.Context(), name, os.Stderr)
	if err != nil {
		Missing(t, err.Error())
	}
	return dir
}

// Unpack downloads a Debian package and unpacks it into the cache, unless some
// version of it is there already: a cache stays as it is until it is removed,
// so that a machine without a network keeps working and a test does not change
// beneath its reader. Nothing is installed, and no script of the package runs.
func Unpack(ctx context.Context, name string, progress io.Writer) (dir string, err error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(cache, "debian-"+name)
	there := func() bool {
		_, err := os.Stat(dir)
		return err == nil
	}
	if there() {
		return dir, nil
	}
	for _, tool := range []string{"apt-get", "dpkg"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("unpack the Debian package %s: this is not a Debian machine (no %s); run the tests in a Debian container", name, tool)
		}
	}
	err = keep(ctx, dir, progress, "downloading the Debian package "+name, there, func(work string) error {
		return unpack(ctx, filepath.Join(cache, "apt.lock"), name, work)
	})
	if err != nil {
		return "", err
	}
	return dir, nil
}

func unpack(ctx context.Context, lockFile, name, work string) error {
	unlock, err := lock(ctx, lockFile)
	if err != nil {
		return err
	}
	defer unlock()
	download := func() error {
		cmd := exec.CommandContext(ctx, "apt-get", "-q", "download", name)
		cmd.Dir = work
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get download %s: %w\n%s", name, err, tail(out, 10))
		}
		return nil
	}
	if err := download(); err != nil {
		// The package lists may be missing or stale.
		if err := apt(ctx, "update"); err != nil {
			return errors.Join(err, errors.New("type: sudo apt-get update"))
		}
		if err := download(); err != nil {
			return err
		}
	}
	files, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("apt-get download %s left the files %v; want one package", name, files)
	}
	if out, err := exec.CommandContext(ctx, "dpkg", "-x", files[0], work).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %w\n%s", filepath.Base(files[0]), err, tail(out, 10))
	}
	// The name of the emptied package file tells the version.
	return os.Truncate(files[0], 0)
}
