// Package artifacts is the files of runs: what goes in, what comes out, and
// where it comes from.
//
// It owns which run holds which blob (through content, where files of runs are
// the same blobs as layers of images), uploads before there is a run, and how
// sources are read: raw text, http, s3, git, folders of this machine and
// folders in the store. It promises that a run reads what it holds and nothing
// else, that what was stored is durable, that bytes are streamed and bounded in
// size and time, that credentials of the server go to the hosts they are meant
// for and never to a task, that a worker gets from elsewhere what its task names
// and nothing else, and that what a run held is released when the run
// is gone, also after a crash between the two. It starts nothing, and does not
// know who may ask for what (api) or which lease is held (work).
package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/outbound"
	"cairn.dev/cairn/internal/task"
)

// Config of a [Store]. Zero values take the defaults that are named.
type Config struct {
	// AllowPrivate lets workflows have the server fetch from its own loopback
	// and link-local addresses.
	AllowPrivate bool
	// FileRoots are the folders of this machine that workflows may list and
	// read; none by default.
	FileRoots []string
	// Secrets are accounts that sources name.
	Secrets []Secret
	// MaxSize bounds what one source gives, in bytes; 64 GiB.
	MaxSize int64
	// MaxTime bounds how long one source takes; an hour. Stall is how long it
	// may send nothing; a minute.
	MaxTime, Stall time.Duration
	// UploadTerm is how long an upload waits for the run that names it; an hour.
	UploadTerm time.Duration
	// Dir is where temporary folders are made; the system's when empty.
	Dir string
}

// Content is where blobs are held; *[content.Store] is one.
type Content interface {
	Hold(ctx context.Context, owner string, r io.Reader) (content.Blob, error)
	HoldDigest(ctx context.Context, owner, from string, d image.Digest) (content.Blob, error)
	HoldAll(ctx context.Context, owner, from string) error
	OpenHeld(ctx context.Context, owner string, d image.Digest) (blob.Reader, error)
	Release(ctx context.Context, owner string) error
	Owners(ctx context.Context, prefix, after string, n int) ([]content.Owner, error)
}

// Deps of a [Store].
type Deps struct {
	Content Content
	Clock   clock.Clock
	Log     *slog.Logger
	// Exists says whether there is such a run, ended or not. Without it what
	// a crash left is not released.
	Exists func(ctx context.Context, run string) (bool, error)
	// Task is the task that a lease is for. With it a worker gets the sources
	// that its task names and no others, and puts its outputs where that says.
	// Without it workers are believed.
	Task func(ctx context.Context, holder task.Ref) (*task.Task, error)
}

// Errors that callers tell apart. Anything else may pass by itself.
var (
	// ErrNotFound means that the source or the blob is not there, or is not
	// this run's.
	ErrNotFound = errors.New("not found")
	// ErrRefused means that the server must not read or write it, or that who
	// has it does not let us.
	ErrRefused = errors.New("refused")
	// ErrInvalid means that what is asked for makes no sense.
	ErrInvalid = errors.New("invalid")
	// ErrTooLarge means that there is more than the limit.
	ErrTooLarge = errors.New("too large")
)

// A Store keeps files of runs. It is safe for concurrent use.
type Store struct {
	cfg     Config
	d       Deps
	http    *http.Client // for what is fetched
	writer  *http.Client // for what is put: its answer may take as long as the bytes do
	secrets map[string]Secret
	gone    gone
}

// New returns a store. It contacts nobody.
func New(cfg Config, d Deps) (*Store, error) {
	if d.Content == nil || d.Clock == nil {
		return nil, errors.New("open the store of artifacts: it needs a content store and a clock")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxSize == 0 {
		cfg.MaxSize = 64 << 30
	}
	if cfg.MaxTime == 0 {
		cfg.MaxTime = time.Hour
	}
	if cfg.Stall == 0 {
		cfg.Stall = time.Minute
	}
	if cfg.UploadTerm == 0 {
		cfg.UploadTerm = time.Hour
	}
	secrets, err := checkSecrets(cfg.Secrets)
	if err != nil {
		return nil, fmt.Errorf("open the store of artifacts: %w", err)
	}
	if err := checkRoots(cfg.FileRoots); err != nil {
		return nil, fmt.Errorf("open the store of artifacts: %w", err)
	}
	t := outbound.Transport(cfg.AllowPrivate)
	t.DisableCompression = true // a file is its bytes as they are
	t.ResponseHeaderTimeout = cfg.Stall
	w := outbound.Transport(cfg.AllowPrivate)
	w.DisableCompression = true
	return &Store{cfg: cfg, d: d, secrets: secrets, gone: gone{wake: make(chan struct{}, 1)},
		http: &http.Client{Transport: t, CheckRedirect: checkRedirect}, writer: &http.Client{Transport: w, CheckRedirect: checkRedirect}}, nil
}

// The owners in whose names blobs are held.
const (
	ownerRun    = "run/"
	ownerLogs   = "logs/" // of a run
	ownerUpload = "upload/"
)

// notHeld gives errors of content the names of this room.
func notHeld(err error) error {
	if errors.Is(err, content.ErrBlobUnknown) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}
