package content

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// DefaultGrace is how long what nothing refers to yet is kept: blobs between
// their upload and their manifest, blobs a client was told exist, uploads
// nobody writes to.
const DefaultGrace = 24 * time.Hour

// Config of a [Store]. DB and Blobs stay the caller's: close them after the
// store.
type Config struct {
	DB    *db.DB // opened with Schema: content.Schema, Sync: db.Full
	Blobs blob.Store
	// Flushed says that a write of DB which has returned made durable every
	// blob that was committed before it, as with [blob.Disk.Flush] for
	// db.Config.Flush: then a push waits for no sync of its own.
	Flushed bool
	Clock   clock.Clock
	Log     *slog.Logger  // nil: the default logger
	Grace   time.Duration // 0: DefaultGrace
	// OnRevive is told when an expired image came back, and why ("pulled by
	// digest", "pushed"). It must not wait. Optional.
	OnRevive func(image Image, why string)
	// OnTag is told of every push to a tag once it is committed, also of what
	// the tag named before. It must not wait. Optional.
	OnTag func(repository, tag string, d image.Digest)
}

// Sizes of the caches, in bytes.
const (
	manifestCacheBytes = 64 << 20
	blobCacheBytes     = 16 << 20
	tagsCacheBytes     = 16 << 20
)

// A Store is the content of one registry. It is safe for concurrent use.
type Store struct {
	cfg   Config
	db    *db.DB
	blobs blob.Store
	clock clock.Clock
	log   *slog.Logger
	grace time.Duration
	start time.Duration // monotonic: leases of an earlier process may run until start + grace

	locks  *locks
	leases *leases
	upload *uploads
	// settled is which blobs a loss of power cannot harm.
	settled settled

	changes   *generations // of manifests and tags
	unlinks   *generations // of blobs: those that left a repository
	manifests *cache[*Manifest]
	blobStat  *cache[Blob]
	tagPages  *cache[page]

	traffic traffic
	collect chan struct{} // holds one token: one collection at a time

	// Page sizes of a scan; smaller in tests.
	scanRepos, scanImages int
}

// New returns a store over what is already there.
func New(ctx context.Context, cfg Config) (*Store, error) {
	switch {
	case cfg.DB == nil:
		return nil, errors.New("content: no database given")
	case cfg.Blobs == nil:
		return nil, errors.New("content: no blob store given")
	case cfg.Clock == nil:
		return nil, errors.New("content: no clock given")
	case cfg.Grace < 0:
		return nil, fmt.Errorf("content: the grace period %s is negative; use 24h", cfg.Grace)
	}
	if cfg.Grace == 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Store{
		cfg: cfg, db: cfg.DB, blobs: cfg.Blobs, clock: cfg.Clock, log: cfg.Log, grace: cfg.Grace,
		start: cfg.Clock.Mono(),
		locks: newLocks(), leases: newLeases(), upload: newUploads(),
		changes: newGenerations(), unlinks: newGenerations(),
		collect:   make(chan struct{}, 1),
		scanRepos: scanRepos, scanImages: scanImages,
		traffic: traffic{wake: make(chan struct{}, 1)},
	}
	s.manifests = newCache[*Manifest](s.changes, manifestCacheBytes)
	s.tagPages = newCache[page](s.changes, tagsCacheBytes)
	s.blobStat = newCache[Blob](s.unlinks, blobCacheBytes)
	s.collect <- struct{}{}
	if err := s.reread(ctx); err != nil {
		return nil, fmt.Errorf("look at the last pushes before this start: %w", mapError(err))
	}
	return s, nil
}

// Close ends the store. It holds nothing open between calls: end [Store.Run]
// and the calls first. Uploads that have bytes go on after the next start,
// which without Close has to read the last pushes again.
func (s *Store) Close() error {
	return mapError(s.db.Write(context.Background(), s.noteSettled))
}

func (s *Store) now() int64 { return stamp(s.clock.Now()) }

// write runs f in a transaction that changes the manifests or tags of repo.
// Whatever came of it, what was cached of the repository is read again.
func (s *Store) write(ctx context.Context, repo string, f func(*db.Tx) error) error {
	err := s.db.Write(ctx, f)
	s.changes.bump(repo)
	return mapError(err)
}

// mapError gives errors of the rooms below the names callers of this one know.
func mapError(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrNoSpace), errors.Is(err, ErrReadOnly):
		return err
	case errors.Is(err, db.ErrFull), errors.Is(err, blob.ErrNoSpace):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case errors.Is(err, db.ErrReadOnly), errors.Is(err, blob.ErrReadOnly):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}

// repoID finds a repository, or returns ErrRepositoryUnknown.
func repoID(ctx context.Context, q db.Query, repo string) (int64, error) {
	var id int64
	ok, err := q.Row(ctx, "SELECT id FROM repositories WHERE name = ?", []any{repo}, &id)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %s", ErrRepositoryUnknown, repo)
	}
	return id, err
}

// makeRepo finds a repository or makes it.
func makeRepo(tx *db.Tx, repo string) (int64, error) {
	id, err := repoID(context.Background(), tx, repo)
	if errors.Is(err, ErrRepositoryUnknown) {
		return tx.Insert("INSERT INTO repositories (name) VALUES (?)", repo)
	}
	return id, err
}
