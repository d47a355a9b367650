// Package content is what the registry holds: repositories, manifests, tags,
// the blobs they need, uploads, and what becomes of them when they are
// deleted.
//
// It owns the metadata (SQL) and, through blob.Store, the bytes; the two-step
// deletion (hidden, then swept); the online collection of blobs nothing needs;
// pins and the audit log. It promises that what a method acknowledged survives
// a crash at any instruction, that a manifest's blobs are there as long as it
// is live or hidden, that a blob somebody was told exists is not collected for
// the grace period, and that no operation waits for a collection. It does not
// decide what expires (retention), who may do what (access), or speak HTTP
// (registry).
package content

import (
	"errors"
	"time"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// Errors that callers tell apart. Those of names, digests and manifests are
// image.NameError and image.ManifestError.
var (
	ErrRepositoryUnknown = errors.New("repository is not known")
	ErrManifestUnknown   = errors.New("manifest is not known")
	ErrBlobUnknown       = errors.New("blob is not known")
	ErrUploadUnknown     = errors.New("upload is not known: it was finished, cancelled or has expired; start again with POST")
	ErrUploadBusy        = errors.New("upload is being written by another request")
	ErrDigestMismatch    = errors.New("content does not match the digest")
	ErrBlobInUse         = errors.New("blob is needed by a manifest; delete that first")
	ErrCorrupt           = errors.New("stored content does not match its digest")
	ErrNoSpace           = errors.New("no space left on the data disk")
	ErrReadOnly          = errors.New("data folder cannot be written")
	// ErrChanged: the image changed between a decision and its execution
	// (a push, a pin, a use, a new tag); decide again.
	ErrChanged = errors.New("image changed since the decision")
	// ErrTagTaken: a restore left a tag alone that was pushed since.
	ErrTagTaken = errors.New("tag was pushed since")
)

// MissingBlobsError says which blobs a manifest names that are not there
// (MANIFEST_BLOB_UNKNOWN).
type MissingBlobsError struct{ Digests []image.Digest }

func (e *MissingBlobsError) Error() string {
	s := "manifest names blobs that are not in the repository:"
	for _, d := range e.Digests {
		s += " " + string(d)
	}
	return s
}

// RangeError says that a chunk does not begin where the upload ends (416).
type RangeError struct{ Offset, Want int64 }

func (e *RangeError) Error() string { return "chunk out of order" }

// A State is where an image is in its life.
type State uint8

const (
	Live    State = iota // served
	Expired              // hidden by retention: a pull brings it back
	Deleted              // hidden by a person or client: only a restore brings it back
)

func (s State) String() string { return [...]string{"live", "expired", "deleted"}[s] }

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Manifest is one manifest in one repository. It is immutable and shared
// between callers: do not change Body.
type Manifest struct {
	Repository string
	Digest     image.Digest
	MediaType  string
	Body       []byte
	Subject    image.Digest // by its own field; "" without
	Pushed     time.Time    // newest push of it, or move of a tag to or from it
}

// A Blob is one blob as seen from a repository.
type Blob struct {
	Digest image.Digest
	Size   int64
}

// A Tag of an image.
type Tag struct {
	Name   string    `json:"name"`
	Pushed time.Time `json:"pushed"`
}

// A Tagging is a tag, and what it names.
type Tagging struct {
	Name   string
	Digest image.Digest
	// Since is when the tag began to name the digest. A push of the same again
	// does not change it.
	Since time.Time
}

// An Image is one manifest with its edges and its state, without its body:
// what retention decides over and lists show.
type Image struct {
	Repository   string
	Digest       image.Digest
	MediaType    string
	ArtifactType string
	Size         int64 // of the manifest itself and the blobs it names
	Pushed       time.Time
	Tags         []Tag // for a hidden image: those it had
	Children     []image.Digest
	Config       image.Digest // as image.Manifest.CreditConfig
	Subject      image.Digest // by its field, or by a fallback tag
	State        State
	HiddenAt     time.Time // when it expired or was deleted
	Reason       string    // why
	Version      int64     // changes with every push, tag move, pin, hide and restore
}

// A Pin keeps an image until it is removed or runs out.
type Pin struct {
	Repository string       `json:"repository"`
	Digest     image.Digest `json:"digest"`
	Reason     string       `json:"reason,omitempty"`
	By         string       `json:"by,omitempty"`
	Created    time.Time    `json:"created"`
	Expires    time.Time    `json:"expires,omitzero"` // zero: never
}

// An AuditEntry records one deletion, restoration or revival.
type AuditEntry struct {
	ID         int64        `json:"id"`
	At         time.Time    `json:"at"`
	Action     string       `json:"action"` // expire, delete, untag, restore, revive, sweep
	Repository string       `json:"repository"`
	Digest     image.Digest `json:"digest"`
	Tags       []string     `json:"tags,omitempty"`
	Actor      string       `json:"actor"`
	Reason     string       `json:"reason"`
	Uses       []usage.Use  `json:"uses,omitempty"` // the last ten
}

// A Push is one manifest as a client sent it. Manifest is Body parsed by
// image.ParseManifest, and the caller has compared Body with Digest.
type Push struct {
	Repository string
	Digest     image.Digest
	Tags       []string // set to it in the same transaction
	MediaType  string
	Body       []byte
	Manifest   *image.Manifest
	Actor      string
}

// An Expiry is one decision to hide an image ([Store.Expire]) or to remove a
// hidden one for good ([Store.Sweep]). It is carried out only if the image has
// not changed since the decision.
type Expiry struct {
	Repository string
	Digest     image.Digest
	Version    int64 // Image.Version when it was decided
	Reason     string
	Uses       []usage.Use // for the audit log
	// StillUnused is asked in the transaction that hides the image. It must
	// answer from memory, at once, and must not call the store. Nil means yes.
	StillUnused func() bool
}

// Restored says what a restore did with the tags the image had.
type Restored struct {
	Tags  []string `json:"tags,omitempty"`  // back on the image
	Taken []string `json:"taken,omitempty"` // pushed since: left alone
}

// CollectStats says what one round of collection did.
type CollectStats struct {
	Links   int   // blobs that left a repository
	Blobs   int   // blobs removed from the disk
	Bytes   int64 // what those had
	Leased  int   // left alone because a client was told they exist
	Uploads int   // abandoned uploads removed
}

// A ScrubReport says what a scrub found.
type ScrubReport struct {
	Blobs     int64          `json:"blobs"`     // read and hashed
	Bytes     int64          `json:"bytes"`     // in those
	Manifests int64          `json:"manifests"` // read and hashed
	Corrupt   []image.Digest `json:"corrupt,omitempty"`
	Missing   []image.Digest `json:"missing,omitempty"` // known, but the file is not there
	// CorruptManifests do not match their digest. Push them again.
	CorruptManifests []CorruptManifest `json:"corrupt_manifests,omitempty"`
	Orphans          []image.Digest    `json:"orphans,omitempty"` // files nothing knows; the reconciler removes them
}

// A CorruptManifest is one whose stored body does not match its digest.
type CorruptManifest struct {
	Repository string       `json:"repository"`
	Digest     image.Digest `json:"digest"`
}

// Stats counts what is stored.
type Stats struct {
	Repositories int64 `json:"repositories"` // with a live image
	Live         int64 `json:"live"`         // images
	Expired      int64 `json:"expired"`
	Deleted      int64 `json:"deleted"`
	Tags         int64 `json:"tags"`
	Blobs        int64 `json:"blobs"`
	BlobBytes    int64 `json:"blob_bytes"` // each blob once
	Corrupt      int64 `json:"corrupt"`    // blobs known to be corrupt
	Uploads      int64 `json:"uploads"`    // in progress
}
