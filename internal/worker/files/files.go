// Package files brings files into a task's root and takes them out again.
//
// It owns the promise that nothing in there leads out: a path is looked up as
// the task's program would see it, with the task's root as the end of every
// "..", and of every symbolic link; what lies at the end of a path is not
// followed at all. What comes out of an archive stays below the folder that it
// is unpacked into, and is bounded. It does not know tasks, blobs or servers.
//
// A root is written before its program starts and read after nothing of it is
// left; who shares a root with others races with them.
package files

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart.
var (
	// ErrNotThere: nothing lies at the path.
	ErrNotThere = errors.New("it is not there")
	// ErrUnsafe: what lies there must not be read, or would lead out.
	ErrUnsafe = errors.New("it must not be followed")
	// ErrTooLarge: it is larger than the limit.
	ErrTooLarge = errors.New("it is too large")
)

// maxDepth bounds the folders of a path.
const maxDepth = 256

// Owner is who gets what is written; nil leaves it to the one who writes.
type Owner struct{ UID, GID int }

// Limits of an archive that is unpacked.
type Limits struct {
	Bytes   int64 // of all files together
	Entries int
}

// failed says what was tried with which path.
func failed(what, path string, err error) error { return fmt.Errorf("%s %s: %w", what, path, err) }
