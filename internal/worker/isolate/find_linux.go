package isolate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Found is what this machine allows.
type Found struct {
	Levels Levels
	// Survey and Namespaces are for Overlay; nil where it cannot be had.
	Survey     *Survey
	Namespaces *Namespaces
	place      Place
}

// Find says what isolation can be had at a place, by trying: try makes a
// process in namespaces enter a root and says how that went.
func Find(p Place, slots int, try func(*Namespaces, *Root) error) *Found {
	f := &Found{place: p, Levels: Levels{Shared: nil}}
	f.Levels[Overlay] = errors.New("tasks of this container ask for less")
	if !p.Bare {
		f.Levels[Overlay] = f.overlay(try)
	}
	f.Levels[Readonly] = p.readonly(slots)
	if !p.Single {
		f.Levels[Pod] = errors.New("this worker runs more than one task in its container")
	} else {
		f.Levels[Pod] = nil
	}
	return f
}

func (f *Found) overlay(try func(*Namespaces, *Root) error) error {
	ns, err := NewNamespaces()
	if err != nil {
		return err
	}
	survey, err := NewSurvey(f.place)
	if err != nil {
		return err
	}
	root, err := survey.Root(filepath.Join(f.place.Scratch, "try"), nil)
	if err != nil {
		return err
	}
	if err := try(ns, root); err != nil {
		return err
	}
	f.Survey, f.Namespaces = survey, ns
	return nil
}

// readonly says why tasks could see what others left in files.
func (p Place) readonly(slots int) error {
	if slots != 1 {
		return fmt.Errorf("it runs one task at a time, and this worker runs %d", slots)
	}
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	if w := slices.DeleteFunc(p.writable(mounts), harmless); len(w) > 0 {
		return fmt.Errorf("tasks could write %s (set readOnlyRootFilesystem, and name volumes that are new for each task)", strings.Join(w, ", "))
	}
	return nil
}

// harmless says whether nothing can be left behind at what is mounted somewhere,
// although the mount itself could be written: devices that hide files of /proc
// keep nothing, and others belong to somebody else. Of folders that is said of
// the kernel's own alone, because elsewhere some below may be ours.
func harmless(path string) bool {
	info, err := os.Lstat(path)
	if err != nil {
		return false
	}
	kernels := strings.HasPrefix(path, "/proc/") || strings.HasPrefix(path, "/sys/")
	if info.Mode()&fs.ModeDevice != 0 {
		return true
	}
	if !info.Mode().IsRegular() && !(info.IsDir() && kernels) {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) != os.Geteuid() && unix.Access(path, unix.W_OK) != nil
}

// Fresh reports whether a path lies where tasks may write with Readonly.
func (f *Found) Fresh(path string) bool {
	path = filepath.Clean(path)
	return slices.ContainsFunc(f.place.Fresh, func(dir string) bool {
		return path == dir || strings.HasPrefix(path, filepath.Clean(dir)+"/")
	})
}

// Wipe empties what is new for each task.
func (f *Found) Wipe() error { return f.place.Wipe() }
