// Package logs keeps what tasks print.
//
// It owns the journal, to which the frames of all runs are appended, the
// segments into which they are packed, and the list of those. It promises that
// frames are durable when [Store.Append] has returned, and kept once however
// often a worker sends again what it had no answer to; that the end of the
// process or of the power at any point loses nothing of that; that readers see each attempt's output in
// the order in which it was printed, also while it is being packed; and that
// memory and the journal stay bounded whatever is printed, by how many runs,
// and however slowly it is read.
// It does not know who may write (see [Store.Handler], which is told) or read,
// what the tasks are, or when a run is forgotten: who owns runs says so.
//
// There is no file for each task. A frame is appended to the journal, together
// with those of other calls that wait at the same time, under one sync. When a
// run has gathered a segment's worth, has ended, or has lain in the journal
// for long, its part is sorted by task, compressed, and put into the blob store
// as a segment. What is too small to be worth a blob is kept in the row of the
// list instead, and grows there until it is: a run of three lines is a row.
//
// The list is a database of its own, synced with every commit ([db.Full]): its
// commits are rare, a few for each segment, and a file of the journal is
// removed on the word of one. Where a run's segments end, as a position in the
// journal, is part of the commit that adds them; so a start that reads the
// journal again knows what of it is packed already.
package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
)

// Config of a [Store]. Zero values take the defaults that are named.
type Config struct {
	// Dir is a folder of its own: the journal and logs.db.
	Dir string
	// Limit is how many bytes of an attempt's output are kept; 64 MiB.
	Limit int64
	// Keep is how long the logs of an ended run are kept, by the wall clock,
	// counted from when they were packed; 0: until the run is forgotten.
	Keep time.Duration
	// PackAfter is how long frames stay in the journal at most; 5 minutes.
	PackAfter time.Duration
	// JournalBytes is how large the journal grows before runs are packed to
	// make it smaller; 128 MiB. At twice that nothing more is accepted.
	JournalBytes int64
	// SegmentBytes is how much of a run makes a segment; 4 MiB. A reader holds
	// one or two of them in memory.
	SegmentBytes int64
}

// Blobs keeps segments; [cairn.dev/cairn/internal/work.Blobs] is the same.
type Blobs interface {
	// Put stores what r gives, for the run. When it returns the blob is
	// durable, and stays until the owner of the run lets go of it.
	Put(ctx context.Context, run string, r io.Reader) (digest string, size int64, err error)
	// Open reads it.
	Open(ctx context.Context, digest string) (io.ReadSeekCloser, error)
}

// Deps of a [Store].
type Deps struct {
	Blobs Blobs
	Clock clock.Clock
	Log   *slog.Logger // nil: nobody is told
	// Live says whether a run has not ended: more may come of it. It must be
	// quick and not call the Store, and is called from Open on. nil: all have ended.
	Live func(run string) bool
	// Known says whether a run is still there, ended or not. Run asks once, for
	// each that has logs: what a crash kept from being deleted is deleted then.
	// nil: all are.
	Known func(ctx context.Context, run string) (bool, error)
	// Release lets go of the blobs of a run's logs when those are deleted; nil
	// where that happens with the run.
	Release func(ctx context.Context, run string) error
}

// Errors that callers tell apart.
var (
	// ErrInvalid means that a frame or a query makes no sense.
	ErrInvalid = errors.New("invalid")
	// ErrFull means that there is no room, on the disk or in the journal; the
	// worker sends again later.
	ErrFull = errors.New("no room for logs")
	// ErrClosed is returned by calls after Close, and by those it ends.
	ErrClosed = errors.New("the store of logs is closed")
	// ErrMore ends a [Store.Read] that has read as much as it may.
	ErrMore = errors.New("there is more than was asked for")
	// ErrDamaged means that a segment or a part of the journal is not what was
	// written.
	ErrDamaged = errors.New("damaged")
)

// Store is safe for concurrent use.
type Store struct {
	cfg   Config
	d     Deps
	log   *slog.Logger
	list  list
	zip   *zstd.Encoder
	unzip *zstd.Decoder

	calls  chan *call
	stop   chan struct{} // closed when nothing more is accepted
	done   chan struct{} // closed when the committer has ended
	kick   chan struct{} // has a token when there may be something to pack
	intake budget
	seen   seen

	// packing is held while a run's frames move to segments, and while a run
	// is deleted: neither may see the other half done.
	packing sync.Mutex

	// mu guards what follows. Nothing waits for the disk under it.
	mu      sync.Mutex
	live    map[string]*live
	files   []*file  // of the journal, oldest first; the last is written to
	journal int64    // bytes of all files
	forget  []string // runs to be deleted
	trouble error    // why packing failed last; nil when it did not

	stopOnce sync.Once
	writer   writer // the committer's
}

// Open reads the journal again and accepts frames. Nothing is packed or
// deleted until Run is called.
func Open(ctx context.Context, cfg Config, d Deps) (*Store, error) {
	if cfg.Limit == 0 {
		cfg.Limit = 64 << 20
	}
	if cfg.PackAfter == 0 {
		cfg.PackAfter = 5 * time.Minute
	}
	if cfg.JournalBytes == 0 {
		cfg.JournalBytes = 128 << 20
	}
	if cfg.SegmentBytes == 0 {
		cfg.SegmentBytes = 4 << 20
	}
	if cfg.SegmentBytes > maxText/2 {
		return nil, fmt.Errorf("open logs: segments of %d bytes; at most %d", cfg.SegmentBytes, maxText/2)
	}
	if d.Blobs == nil || d.Clock == nil {
		return nil, errors.New("open logs: they need blobs and a clock")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Live == nil {
		d.Live = func(string) bool { return false }
	}
	s := &Store{cfg: cfg, d: d, log: d.Log, calls: make(chan *call, 1024), stop: make(chan struct{}), done: make(chan struct{}),
		kick: make(chan struct{}, 1), live: map[string]*live{}, intake: budget{left: maxIntake},
		writer: writer{sync: syncData}}
	if err := s.openCodec(); err != nil {
		return nil, fmt.Errorf("open logs: %w", err)
	}
	var err error
	s.list.db, err = db.Open(ctx, db.Config{Path: filepath.Join(cfg.Dir, "logs.db"), Sync: db.Full, Schema: schema, CacheKB: 2 << 10, Log: d.Log})
	if err != nil {
		return nil, fmt.Errorf("open logs: %w", err)
	}
	if err := s.replay(ctx); err != nil {
		s.closeFiles()
		return nil, errors.Join(fmt.Errorf("open logs: %w", err), s.list.db.Close())
	}
	go s.commits()
	return s, nil
}

// Close ends followers and refuses what comes. Calls of Read may have to be
// ended by their contexts first. What is in the journal is there for the next
// Open.
func (s *Store) Close() error {
	s.packing.Lock() // Run may still be packing
	defer s.packing.Unlock()
	s.stopOnce.Do(func() { close(s.stop) })
	<-s.done
	s.closeFiles()
	s.unzip.Close()
	return s.list.db.Close()
}

// closed reports whether Close was called. Under packing the answer holds.
func (s *Store) closed() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// Ended is told that a run has ended: followers leave, and what is left of it
// is packed soon. It does not wait.
func (s *Store) Ended(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.live[run]; l != nil {
		l.ended = true
		l.wake()
	}
	s.poke()
}

// Forget is told that a run is deleted, and deletes its logs soon. It does not
// wait. What a crash keeps it from is deleted by the next start, see [Deps.Known].
func (s *Store) Forget(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget = append(s.forget, run)
	s.poke()
}

// poke has Run look for something to do.
func (s *Store) poke() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}
