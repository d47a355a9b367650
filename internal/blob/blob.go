// Package blob keeps bytes under their digests.
//
// It owns the bytes of blobs and of uploads in progress, on disk (see [Disk]);
// other places come as further implementations of [Store], which all pass the
// suite in blobtest. It promises that a blob is whole or absent whenever the
// process ends, and that what was committed before a [Store.Sync] returned
// stays so when the power goes; of what was committed later a loss of power may
// leave anything. It does not know repositories, references or why a blob is
// kept: that is content's.
package blob

import (
	"context"
	"errors"
	"io"
	"time"

	"cairn.dev/cairn/internal/image"
)

// Errors that callers tell apart.
var (
	ErrNotFound = errors.New("blob is not there")
	// ErrNoSpace means the disk or quota is full: nothing was kept.
	ErrNoSpace = errors.New("no space left for blobs")
	// ErrReadOnly means the place cannot be written.
	ErrReadOnly = errors.New("blobs cannot be written")
)

// A Store keeps blobs. All methods are safe for concurrent use; two calls that
// write the same digest or the same upload at once must be kept apart by the
// caller, except that committing a digest that is already there is harmless.
type Store interface {
	// Open returns the blob for reading, or ErrNotFound. The caller closes it.
	// Deleting the blob meanwhile does not disturb the reader.
	Open(ctx context.Context, d image.Digest) (Reader, error)
	// Stage opens the bytes of an upload for appending, creating them if need
	// be. The id is 1 to 64 letters, digits and dashes.
	Stage(ctx context.Context, upload string) (Staged, error)
	// Sync returns when every Commit that returned before it began is
	// durable. Callers that wait at the same time share one sync. It fails
	// if that sync failed, or if the last Commit of one of ds was part of a
	// sync that failed on behalf of somebody else: name what you committed.
	// After a failure commit the bytes again, or Delete the blob.
	Sync(ctx context.Context, ds ...image.Digest) error
	// Delete removes the blob; removing what is not there is no error.
	Delete(ctx context.Context, d image.Digest) error
	// Walk calls f for each blob and upload in the store, in no order that
	// means anything, until f returns an error. What is written meanwhile may
	// or may not be seen.
	Walk(ctx context.Context, f func(Entry) error) error
}

// A Reader is an open blob. Hand it to http.ServeContent as it is, not
// wrapped: that of [Disk] has the methods of an *os.File, and the copying to a
// plain TCP connection is then done by the kernel (sendfile).
type Reader interface {
	io.ReadSeekCloser
	Size() int64
}

// A Staged is the bytes of an upload so far. One goroutine at a time.
type Staged interface {
	// Write appends. When the disk is full it keeps nothing of p and returns
	// ErrNoSpace; what was written before stays until Discard.
	io.Writer
	// Size is the number of bytes so far.
	Size() int64
	// Truncate forgets what comes after the first size bytes.
	Truncate(size int64) error
	// Reader reads the bytes so far from the start.
	Reader() (io.ReadCloser, error)
	// Follow reads the bytes at any offset while more are appended, by other
	// goroutines than the writer's as well. What was not written yet reads as
	// io.EOF. It goes on working after the Staged ended, however it ended, and
	// is closed by the caller.
	Follow() (Following, error)
	// Commit makes the bytes the blob d, which the caller has verified, and
	// ends the Staged. It is visible at once and durable after a Sync. A blob
	// that is already there is replaced, without disturbing its readers; who
	// knows it to be there and good had better Discard. When it fails nothing
	// became visible and the Staged still waits for its Close or Discard.
	Commit(d image.Digest) error
	// Close ends the Staged and keeps the bytes for a later Stage. They
	// survive the end of the process, not the loss of power. After Commit or
	// Discard it does nothing, so that it can be deferred.
	Close() error
	// Discard ends the Staged and removes the bytes. After Commit it does
	// nothing.
	Discard() error
}

// A Following reads the bytes of a [Staged] that is still being written.
type Following interface {
	io.ReaderAt
	io.Closer
}

// An Entry is one thing that [Store.Walk] found: a blob or an upload.
type Entry struct {
	Digest   image.Digest // of a blob
	Upload   string       // id of an upload
	Size     int64
	Modified time.Time
}
