// Package work is the central work server: what is to be run, who runs it, and
// what became of it.
//
// It owns runs and schedules, their logs of events in the database, the queues
// of tasks that are ready, and leases. It promises that an outcome which was
// taken is durable before it is answered; that of each task one outcome
// counts, the first one from who held it; that a task whose worker is gone is
// given to another (so a program may run more than once, and is told by which
// attempt); that a start goes on where the log ends; and that what is queued
// is shared out in turn: by priority, then among namespaces, then among runs.
// What a run does next is decided by machine, a pure function of its events.
// It does not start programs (worker), read documents (workflow), or know who
// may ask for what (api, door).
package work

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// Config of a [Server]. Zero values take the defaults that are named.
type Config struct {
	// Secret makes the tokens of leases; it has to be the same after a
	// restart, or all leases are lost. At least 16 bytes; nil makes a random one.
	Secret []byte
	// Term is how long a lease holds without a beat; 30 s.
	Term time.Duration
	// MaxActive, MaxPerNamespace and MaxPerRun bound the tasks that are held at
	// a time; 0: no bound.
	MaxActive, MaxPerNamespace, MaxPerRun int
	// MaxRuns bounds the runs that have not ended; 100,000.
	MaxRuns int
	// Keep is how long ended runs stay, unless they say so themselves; 30 days.
	Keep time.Duration
	// MaxText bounds the text of all outputs of a task; 1 MiB. Larger things
	// are artifacts.
	MaxText int
}

// Blobs keeps what is too large for rows: lists of items, gathered outputs.
// What is put stays as long as runs name it.
type Blobs interface {
	// Put stores what r gives, for the run, and returns its digest and size.
	Put(ctx context.Context, run string, r io.Reader) (digest string, size int64, err error)
	// Open reads it.
	Open(ctx context.Context, digest string) (io.ReadSeekCloser, error)
	// Keep has it stay for another run as well; false: it is gone.
	Keep(ctx context.Context, run, digest string) (bool, error)
}

// Sources lists what is elsewhere.
type Sources interface {
	// List returns the files of a folder (a path or a *workflow.File) or of an
	// s3:// prefix that match the glob, as *workflow.File each or maps with
	// one, in order. At most limit of them.
	List(ctx context.Context, run string, files, s3 workflow.Value, match string, limit int) ([]workflow.Value, error)
}

// Deps of a [Server].
type Deps struct {
	DB    *db.DB // opened with [Schema] and db.Full
	Clock clock.Clock
	Log   *slog.Logger
	// Blobs may be nil: then what is large is refused.
	Blobs Blobs
	// Sources may be nil: then they are refused.
	Sources Sources
	// Compile reads documents that were compiled before ([workflow.Graph.Documents]).
	Compile func(documents []byte) (*workflow.Graph, error)
	// CompileSchedule likewise; nil if there are no schedules.
	CompileSchedule func(documents []byte) (*workflow.Schedule, error)
	// Names are the repositories of our registry that a reference may mean;
	// for [Server.InUse]. It is pure. nil: nothing is ours.
	Names func(reference string) []string
	// Digest is what a reference names in such a repository; the error is
	// [ErrNotFound] when there is no such image.
	Digest func(ctx context.Context, repository, reference string) (image.Digest, error)
	// Ended is told of runs that have ended, after that is durable; may be nil.
	Ended func(run string)
	// Changed is told of runs to which something happened, after that is durable.
	// The server waits for it: it notes the run and returns. May be nil.
	Changed func(run string)
	// Forgotten is told of runs that are deleted, for what is kept of them
	// elsewhere; may be nil.
	Forgotten func(run string)
}

// Errors that callers tell apart.
var (
	// ErrNotFound means that there is no such run, node or schedule.
	ErrNotFound = errors.New("not found")
	// ErrConflict means that it is in another state than the call needs.
	ErrConflict = errors.New("conflict")
	// ErrInvalid means that the call makes no sense, whatever the state.
	ErrInvalid = errors.New("invalid")
	// ErrBusy means that there are too many runs.
	ErrBusy = errors.New("too many runs")
	// ErrNoSpace means that the disk is full: nothing was changed.
	ErrNoSpace = db.ErrFull
	// ErrClosed means that the server ends or has ended.
	ErrClosed = errors.New("the work server has ended")
)

// Server is safe for concurrent use. Run has to be called for anything to go on.
type Server struct {
	cfg Config
	d   Deps
	log *slog.Logger

	inbox inbox
	ended chan struct{} // closed when the loop has ended

	// mu guards what follows. The loop alone changes it; who only looks takes
	// it for reading.
	mu sync.RWMutex
	// base and mono tie the time of events to the monotonic clock, so that a
	// jump of the wall clock does not end or prolong anything that waits.
	base      time.Time
	mono      time.Duration
	runs      map[string]*run
	order     []*run        // by num
	last      int64         // the newest run's num
	expiry    time.Duration // when leases are looked at again
	due       time.Time     // when a run wants the next turn; zero: never
	alarm     time.Time     // when a schedule comes next, by the wall clock as people read it; zero: never
	spaces    map[string]int
	active    int
	pools     []*pool // by name
	first     int     // the pool that is served first
	asking    int     // questions of runs that have no answer yet
	workers   map[string]*worker
	locks     locks
	draining  bool
	schedules map[string]*schedule
	images    images
	lists     *lists
	tokens    tokens
	counts    counts
}

// New brings the runs of the database back. It answers when all of them stand
// where they stood.
func New(ctx context.Context, cfg Config, d Deps) (*Server, error) {
	if cfg.Term == 0 {
		cfg.Term = 30 * time.Second
	}
	if cfg.MaxRuns == 0 {
		cfg.MaxRuns = 100_000
	}
	if cfg.Keep == 0 {
		cfg.Keep = 30 * 24 * time.Hour
	}
	if cfg.MaxText == 0 {
		cfg.MaxText = 1 << 20
	}
	if cfg.Secret == nil {
		cfg.Secret = make([]byte, 32)
		_, _ = rand.Read(cfg.Secret) // it never fails
	}
	if len(cfg.Secret) < 16 {
		return nil, fmt.Errorf("open the work server: the secret has %d bytes, it needs 16", len(cfg.Secret))
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, d: d, log: d.Log, base: d.Clock.Now(), mono: d.Clock.Mono(), ended: make(chan struct{}),
		runs: map[string]*run{}, spaces: map[string]int{}, workers: map[string]*worker{}, locks: locks{}, schedules: map[string]*schedule{}, images: newImages(d.Names),
		lists: newLists(d.Blobs), tokens: newTokens(cfg.Secret),
		counts: counts{ended: map[machine.Phase]int64{}, outcomes: map[machine.Phase]int64{}}}
	s.inbox.wake = make(chan struct{}, 1)
	if err := s.restore(ctx); err != nil {
		return nil, fmt.Errorf("bring back runs: %w", err)
	}
	return s, nil
}

// now is the time of events; under the lock.
func (s *Server) now() time.Time {
	return s.base.Add(s.d.Clock.Mono() - s.mono).Truncate(time.Millisecond)
}
