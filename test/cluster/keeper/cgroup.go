//go:build linux

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// hierarchies lists the mounted trees of cgroups, of both versions.
func hierarchies() ([]string, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var dirs []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") && !slices.Contains(dirs, f[1]) {
			dirs = append(dirs, f[1])
		}
	}
	return dirs, nil
}

// makeCgroups makes a group of this name in each hierarchy, ready to hold
// others.
func makeCgroups(name string) error {
	dirs, err := hierarchies()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		group := dir
		for part := range strings.SplitSeq(name, "/") {
			// In version 2 each level hands its controllers down; those that
			// it cannot, nobody below gets.
			b, _ := os.ReadFile(filepath.Join(group, "cgroup.controllers"))
			for c := range strings.FieldsSeq(string(b)) {
				_ = os.WriteFile(filepath.Join(group, "cgroup.subtree_control"), []byte("+"+c), 0o644)
			}
			parent := group
			group = filepath.Join(group, part)
			if err := os.Mkdir(group, 0o755); err != nil {
				if errors.Is(err, fs.ErrExist) {
					continue
				}
				return err
			}
			// In version 1 a new cpuset has no processors and takes no process.
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				b, err := os.ReadFile(filepath.Join(parent, file))
				if err != nil {
					continue
				}
				if _, err := os.Stat(filepath.Join(group, "cgroup.controllers")); err == nil {
					continue // version 2, where an empty cpuset is the parent's
				}
				if err := os.WriteFile(filepath.Join(group, file), b, 0o644); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// removeCgroups removes the groups of this name and all below them. The
// kernel needs a moment to forget processes that ended.
func removeCgroups(name string) error {
	dirs, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, removeGroup(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

func removeGroup(dir string) error {
	var groups []string
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			groups = append(groups, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Reverse(groups) // what is below goes first
	for _, g := range groups {
		for try := 0; ; try++ {
			err := syscall.Rmdir(g)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			if !errors.Is(err, syscall.EBUSY) || try == 100 {
				return &fs.PathError{Op: "rmdir", Path: g, Err: err}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}
