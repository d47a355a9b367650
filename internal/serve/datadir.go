package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// layout is the version of the data folder as a whole: which files are in it
// and what they mean. The databases have versions of their own. It goes up
// only when an older Cairn must not touch the folder.
const layout = 1

// A DataError says why a data folder cannot be used.
type DataError struct {
	Dir  string
	Why  string
	Cure string
	Err  error
	Busy bool // another process uses it
}

func (e *DataError) Error() string {
	s := fmt.Sprintf("data folder %s: %s", e.Dir, e.Why)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *DataError) Unwrap() error { return e.Err }

// Hint is what to do about it.
func (e *DataError) Hint() string { return e.Cure }

// A DataDir is a data folder that this process holds alone.
type DataDir struct {
	path string
	lock *os.File
}

// OpenDataDir makes the folder if it is not there, and takes it: a second
// process, a folder of a newer Cairn and one that cannot be written are
// refused with a [DataError].
func OpenDataDir(path string) (*DataDir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data folder %s: %w", path, err)
	}
	path = abs
	fail := func(why, cure string, err error) error {
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err // the path is said already
		}
		return &DataError{Dir: path, Why: why, Cure: cure, Err: err}
	}
	const writable = "make it a folder that this user can write, or name another with --data"
	// What is inside is for this user alone: tokens' hashes, the signing key.
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fail("it cannot be made", writable, err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fail("it cannot be written", writable, err)
	}
	d := &DataDir{path: path, lock: lock}
	// flock and not the file's existence: it goes with the process, however
	// that ends.
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		who := "another process"
		if b, err := os.ReadFile(lock.Name()); err == nil && len(b) > 0 {
			who = "process " + strings.TrimSpace(string(b))
		}
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &DataError{Dir: path, Why: "it is in use by " + who, Cure: "stop that process first, or give this one a folder of its own with --data", Busy: true}
		}
		return nil, fail("it cannot be locked", "use a file system that supports flock", err)
	}
	if err := d.claim(); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

// claim writes who holds the folder and checks its version.
func (d *DataDir) claim() error {
	const writable = "make it a folder that this user can write, or name another with --data"
	err := d.lock.Truncate(0)
	if err == nil {
		_, err = d.lock.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	}
	if err != nil {
		return &DataError{Dir: d.path, Why: "it cannot be written", Cure: writable, Err: err}
	}
	file := filepath.Join(d.path, "version")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if err := writeFile(file, fmt.Appendln(nil, layout)); err != nil {
			return &DataError{Dir: d.path, Why: "it cannot be written", Cure: writable, Err: err}
		}
		return nil
	}
	if err != nil {
		return &DataError{Dir: d.path, Why: "its version cannot be read", Cure: writable, Err: err}
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err != nil || v < 1:
		return &DataError{Dir: d.path, Why: fmt.Sprintf("its version file says %q, which is no version", strings.TrimSpace(string(b))), Cure: "is this a data folder of Cairn? If it is, restore the file from a backup"}
	case v > layout:
		return &DataError{Dir: d.path, Why: fmt.Sprintf("it was written by a newer version of Cairn (layout %d, this one knows up to %d)", v, layout), Cure: "run the newer Cairn, or restore a backup made before the upgrade"}
	}
	return nil
}

// Path is the folder's absolute path, or that of a file in it.
func (d *DataDir) Path(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

// Close lets go of the folder. Closing the file is not enough: a process that
// was started a moment ago has it, too, until it runs its own program.
func (d *DataDir) Close() error {
	return errors.Join(syscall.Flock(int(d.lock.Fd()), syscall.LOCK_UN), d.lock.Close())
}

// writeFile writes a small file so that a crash leaves it whole or absent.
func writeFile(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
