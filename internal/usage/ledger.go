package usage

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// Config of a ledger.
type Config struct {
	DB    *db.DB // with [Schema]; the ledger does not close it
	Clock clock.Clock
	Log   *slog.Logger // slog.Default when nil
	// Granularity is how far the stored time of a use may lag behind; an hour
	// when zero. Make it at most a tenth of the shortest time images are kept
	// without a use.
	Granularity time.Duration
	// Keep is how long a use that is over is remembered; 400 days when zero.
	// It must exceed the longest time images are kept without a use.
	Keep time.Duration
	// MaxRows bounds the uses in memory, at about 250 bytes each; 4 million
	// when zero.
	MaxRows int
}

// How often things are done while running.
const (
	tickEvery  = 2 * time.Second // what a crash may lose of first-time uses that nobody waited for
	markEvery  = time.Minute     // alive mark, times of reporters
	pruneEvery = 24 * time.Hour
)

// A Ledger records uses and answers from memory. All methods are safe for
// concurrent use.
type Ledger struct {
	db          *db.DB
	clock       clock.Clock
	log         *slog.Logger
	granularity time.Duration
	keep        time.Duration
	maxRows     int64

	shards   [1 << shardBits]shard
	names    *names
	rowCount atomic.Int64
	// Uses stored before unclean (ms) may have been slack later; 0: none.
	unclean atomic.Int64
	slack   int64

	feed feed

	// newest (ms) is the latest time the ledger ever took for true; uses are
	// never dated before it.
	newest atomic.Int64

	mu        sync.Mutex // a leaf: guards all below, and the plain fields of reporters
	watched   time.Duration
	behind    time.Time // since when, in the ledger's time, the clock is behind; zero: it is not
	intervals []Interval
	nextID    int64
	unsaved   []int64 // ids of intervals to be written
	reporters map[string]*reporter
	ever      bool
	pendings  int // refs in unfinished statements
	failing   bool

	flushMu sync.Mutex // one flush at a time; guards the ids given out
	nextRow uint32
	nextDig uint32
	marked  time.Duration
	pruned  time.Duration
	closed  bool
}

// Open reads the ledger from cfg.DB into memory.
func Open(ctx context.Context, cfg Config) (*Ledger, error) {
	if cfg.DB == nil || cfg.Clock == nil {
		return nil, errors.New("open ledger: a database and a clock are needed")
	}
	if cfg.Granularity <= 0 {
		cfg.Granularity = time.Hour
	}
	if cfg.Keep <= 0 {
		cfg.Keep = 400 * 24 * time.Hour
	}
	if cfg.MaxRows <= 0 {
		cfg.MaxRows = 4_000_000
	}
	if cfg.MaxRows > 1<<(32-shardBits) {
		return nil, fmt.Errorf("open ledger: %d uses are more than the %d it can hold", cfg.MaxRows, 1<<(32-shardBits))
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	l := &Ledger{
		db: cfg.DB, clock: cfg.Clock, log: cfg.Log, granularity: cfg.Granularity, keep: cfg.Keep, maxRows: int64(cfg.MaxRows),
		names: newNames(maphash.MakeSeed()), reporters: map[string]*reporter{}, nextID: 1, nextRow: 1, nextDig: 1,
	}
	for i := range l.shards {
		l.shards[i].seed, l.shards[i].mix = l.names.seed, maphash.Bytes(l.names.seed, []byte{byte(i)})
	}
	if err := l.load(ctx); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	return l, nil
}

// Run keeps the ledger going until ctx ends: it writes what is due, watches
// the clock and the reporters, and forgets uses that are older than Keep. What
// fails is logged and tried again; Run itself returns nil.
func (l *Ledger) Run(ctx context.Context) error {
	for {
		if err := clock.Sleep(ctx, l.clock, tickEvery); err != nil {
			return nil
		}
		l.tick(ctx)
	}
}

// tick does what is due.
func (l *Ledger) tick(ctx context.Context) {
	l.watch()
	l.notice()
	err := l.flush(ctx)
	mono := l.clock.Mono()
	l.flushMu.Lock()
	mark, prune := mono-l.marked >= markEvery, mono-l.pruned >= pruneEvery
	l.flushMu.Unlock()
	if err == nil && mark {
		err = l.mark(ctx, false)
	}
	if err == nil && prune {
		if err = l.prune(ctx); err == nil {
			err = l.compact(ctx)
		}
	}
	l.health(err)
}

// health logs when writing begins to fail, and when it works again.
func (l *Ledger) health(err error) {
	l.mu.Lock()
	was := l.failing
	l.failing = err != nil
	l.mu.Unlock()
	switch {
	case err != nil && !was && !errors.Is(err, context.Canceled):
		l.log.Error("the usage ledger cannot be written; uses are kept in memory and written when it can", "error", err)
	case err == nil && was:
		l.log.Info("the usage ledger is written again")
	}
}

// Close writes everything. Call it when nothing else uses the ledger any more.
func (l *Ledger) Close() error {
	l.flushMu.Lock()
	was := l.closed
	l.closed = true
	l.flushMu.Unlock()
	if was {
		return nil
	}
	ctx := context.Background()
	l.watch()
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for j := range s.rows {
			if r := &s.rows[j]; r.source != 0 && r.last != r.stored && !r.dirty {
				r.dirty = true
				s.dirty = append(s.dirty, uint32(j))
			}
		}
		s.mu.Unlock()
	}
	err := l.flush(ctx)
	if err == nil {
		err = l.mark(ctx, true)
	}
	if err != nil {
		return fmt.Errorf("close ledger: %w; uses since the last write count as an hour newer than stored from now on", err)
	}
	return nil
}

// now is the time uses are dated with: that of the clock, but never before
// what was already seen, so that a clock that was set back does not make a use
// look old.
func (l *Ledger) now() int64 { return max(l.clock.Now().UnixMilli(), l.newest.Load()) }

// Pull records that subject pulled the digest from the repository. It is for
// the hot path: it takes some memory accesses, does not wait for I/O and cannot
// fail. The repository and digest must exist and the subject be authenticated,
// so that nobody can fill the memory with names; beyond Config.MaxRows pulls
// are recorded without their subject.
func (l *Ledger) Pull(repository string, d image.Digest, subject string) {
	if d == "" {
		return
	}
	repo, at := l.names.id(repository), l.now()
	if _, ok := l.touch(d, repo, l.names.id(subject), Pull, at); !ok {
		// It must not be lost, and there are only as many as there are images.
		l.touchBounded(d, repo, 0, Pull, at, false)
	}
}

// feed remembers which digests were newly used, for [Ledger.Changed].
type feed struct {
	mu   sync.Mutex
	ring []image.Digest
	next uint64 // of the next entry; entry n is at ring[n % len]
}

const feedSize = 1 << 14

func (l *Ledger) changed(d image.Digest) {
	f := &l.feed
	f.mu.Lock()
	if len(f.ring) < feedSize {
		f.ring = append(f.ring, d)
	} else {
		f.ring[f.next%feedSize] = d
	}
	f.next++
	f.mu.Unlock()
}

// Changed are the digests that came into use since an earlier call, whose
// second result is since (0 at first): by a new use, by one that is newer than
// the one before by half the granularity, or by a statement that names them
// for the first time. A digest may be listed twice. When there were too many
// to remember all is true and digests empty: look at all of them.
func (l *Ledger) Changed(since uint64) (digests []image.Digest, next uint64, all bool) {
	f := &l.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if since > f.next || f.next-since > uint64(len(f.ring)) {
		return nil, f.next, true
	}
	for n := since; n < f.next; n++ {
		digests = append(digests, f.ring[n%feedSize])
	}
	return digests, f.next, false
}

// Stats are figures for metrics.
type Stats struct {
	Uses      int // in memory
	Digests   int
	Reporters int
	Failing   bool // the last write failed
}

// Stats counts.
func (l *Ledger) Stats() Stats {
	st := Stats{Uses: int(l.rowCount.Load())}
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		st.Digests += s.digests.used
		s.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	st.Reporters, st.Failing = len(l.reporters), l.failing
	return st
}

func sortUses(us []Use) { slices.SortFunc(us, compare) }
