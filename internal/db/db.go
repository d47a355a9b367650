// Package db opens SQL databases and shares their write commits.
//
// It owns connections, pragmas, migrations and the one writer: all writes of a
// database go through one goroutine which puts those that wait at the same
// time into one transaction, so that a hundred concurrent writers pay for one
// sync of the disk. It promises that a [DB.Write] which returned nil is
// durable (as far as [Config.Sync] says), that after a loss of power the
// others survive in the order of their commits up to one of them, that each write is whole or absent,
// and that a failed write does not touch its neighbours in the batch. It knows
// nothing of what is stored.
//
// Statements are written with '?' placeholders. Everything above this package
// uses [Query] and [Tx] only, so that another database can stand behind them.
package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Sync says what a commit survives.
type Sync int

const (
	// Full: a commit survives the loss of power.
	Full Sync = iota
	// Normal: a commit survives the end of the process; after the loss of
	// power the newest commits may be missing, never half there.
	Normal
)

// Config of one database file.
type Config struct {
	Path    string
	Sync    Sync
	Schema  []string // migrations: Schema[i] brings version i to i+1
	Readers int      // connections for reading; 4 when zero
	CacheKB int      // page cache of the writer and each reader; 8 MiB when zero
	// MaxBatch bounds the writes in one transaction, MaxHold the time one is
	// kept open while more are added. 512 and 10 ms when zero: with the write
	// that is running when it ends, and the commit, a transaction stays below
	// the 20 ms that the house allows.
	MaxBatch int
	MaxHold  time.Duration
	// Flush makes commits durable in place of the engine, which then syncs
	// its write-ahead log only before it reuses it: one sync can so cover the
	// log and the files that the rows tell of. It gets the log, and returns
	// when what was written to it before the call is on the disk. It is
	// called from one goroutine, after the commits that it covers, and the
	// writes in them wait for it; meanwhile the next ones are gathered. When
	// it fails nothing more is written, see [ErrNotDurable]. With Sync Full
	// only. Readers see a commit before its flush: see [DB.Write].
	Flush func(log *os.File) error
	// Fault lets a test end the process at a commit: it is called with
	// [BeforeCommit], [AfterCommit] and, with Flush, [BeforeFlush] and
	// [AfterFlush], and when it returns an error the DB
	// behaves from then on as if the process had died there. Nothing more is
	// written, and every call fails with that error and [ErrClosed]. After
	// Close the file can be opened anew.
	Fault func(point string) error
	Log   *slog.Logger // told of panics in writes; nil: nobody
}

// Points of [Config.Fault].
const (
	BeforeCommit = "before-commit"
	AfterCommit  = "after-commit"
	BeforeFlush  = "before-flush"
	AfterFlush   = "after-flush"
)

// Errors that callers tell apart.
var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("database is closed")
	// ErrFull means that the disk or the quota is full.
	ErrFull = errors.New("no space left for the database")
	// ErrReadOnly means that the file or its folder cannot be written.
	ErrReadOnly = errors.New("database cannot be written")
	// ErrNewer means that a newer Cairn wrote the file.
	ErrNewer = errors.New("database was written by a newer version of Cairn")
	// ErrNotDurable is returned by the writes that waited for a flush that
	// failed, and by all later ones: what the system gave up writing looks
	// written from then on, so that no later sync can be believed. Reading
	// goes on.
	ErrNotDurable = errors.New("writes cannot be made durable")
)

// A PanicError is returned by [DB.Write] when its function panicked. Nothing
// of that write is kept; the database and the other writes of the batch go on.
type PanicError struct {
	Value any
	Stack []byte // where it happened, as it is not on the caller's stack
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic in a database write: %v", e.Value) }

// Query reads. Its statements are prepared once for each connection. The end
// of ctx keeps a statement from starting and does not interrupt one.
type Query interface {
	Query(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	// Row scans the only or first row into dest and reports whether there was one.
	Row(ctx context.Context, query string, args []any, dest ...any) (bool, error)
}

// DB is one database. It is safe for concurrent use.
type DB struct {
	cfg     Config
	write   *sql.DB
	writer  *conn
	readers chan *conn
	read    *sql.DB

	queue chan *op
	stop  chan struct{} // closed when no more is accepted
	done  chan struct{} // closed when the writer has ended
	dead  atomic.Pointer[error]
	flush *flusher // nil: the engine syncs

	tendNext time.Time // when to look at the log again; the writer's
	// How many frames are long, and too long: constants, but for tests.
	longLog, tooLongLog int

	stopOnce, closeOnce sync.Once
	closeErr            error
}

type op struct {
	ctx  context.Context
	f    func(*Tx) error
	err  error
	done chan struct{}
	// taken is set by who decides its fate first: the writer, which runs it,
	// or the caller, who has given up.
	taken atomic.Bool
}

// Open opens or creates the file and brings it to the newest schema.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Readers == 0 {
		cfg.Readers = 4
	}
	if cfg.CacheKB == 0 {
		cfg.CacheKB = 8 << 10
	}
	if cfg.MaxBatch == 0 {
		cfg.MaxBatch = 512
	}
	if cfg.MaxHold == 0 {
		cfg.MaxHold = 10 * time.Millisecond
	}
	if cfg.Flush != nil && cfg.Sync != Full {
		return nil, fmt.Errorf("open database %s: a flush was given, and a sync that promises none", cfg.Path)
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return nil, fmt.Errorf("open database %s: %w", cfg.Path, mapError(err))
	}
	d := &DB{cfg: cfg, queue: make(chan *op, cfg.MaxBatch), stop: make(chan struct{}), done: make(chan struct{}), readers: make(chan *conn, cfg.Readers),
		longLog: longLog, tooLongLog: tooLongLog}
	var err error
	if d.write, err = sql.Open("sqlite", dsn(cfg, false)); err != nil {
		return nil, fmt.Errorf("open database %s: %w", cfg.Path, err)
	}
	if d.writer, err = newConn(ctx, d.write); err == nil {
		err = d.checkMode(ctx)
	}
	if err == nil {
		err = d.migrate(ctx)
	}
	if err == nil && cfg.Flush != nil {
		d.flush, err = newFlusher(d)
	}
	if err != nil {
		d.release(0)
		return nil, fmt.Errorf("open database %s: %w", cfg.Path, mapError(err))
	}
	if d.read, err = sql.Open("sqlite", dsn(cfg, true)); err != nil {
		d.release(0)
		return nil, fmt.Errorf("open database %s: %w", cfg.Path, err)
	}
	for range cfg.Readers {
		c, err := newConn(ctx, d.read)
		if err != nil {
			d.release(len(d.readers))
			return nil, fmt.Errorf("open database %s for reading: %w", cfg.Path, mapError(err))
		}
		d.readers <- c
	}
	if d.flush != nil {
		go d.flush.run()
	}
	go d.run()
	return d, nil
}

func dsn(cfg Config, readOnly bool) string {
	q := url.Values{}
	pragma := func(s string) { q.Add("_pragma", s) }
	pragma("busy_timeout(5000)")
	pragma(fmt.Sprintf("cache_size(-%d)", cfg.CacheKB))
	pragma("temp_store(memory)")
	if readOnly {
		pragma("query_only(1)")
	} else {
		pragma("journal_mode(wal)")
		pragma("foreign_keys(1)")
		pragma("journal_size_limit(67108864)")
		pragma(fmt.Sprintf("wal_autocheckpoint(%d)", longLog)) // see tendLog
		if cfg.Sync == Full && cfg.Flush == nil {
			pragma("synchronous(full)")
		} else {
			pragma("synchronous(normal)")
		}
	}
	return (&url.URL{Scheme: "file", Path: cfg.Path, RawQuery: q.Encode()}).String()
}

// checkMode makes sure that the write-ahead log is in use: without it, readers
// and the writer would block each other.
func (d *DB) checkMode(ctx context.Context) error {
	var mode string
	if _, err := d.writer.Row(ctx, "PRAGMA journal_mode", nil, &mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("its file system has no shared memory, which the write-ahead log needs (journal mode %q); use a local disk", mode)
	}
	return nil
}

func (d *DB) migrate(ctx context.Context) error {
	var version int
	if _, err := d.writer.Row(ctx, "PRAGMA user_version", nil, &version); err != nil {
		return err
	}
	if version > len(d.cfg.Schema) {
		return fmt.Errorf("%w: it has schema %d, this Cairn knows up to %d; run the newer Cairn, or restore a backup made before the upgrade", ErrNewer, version, len(d.cfg.Schema))
	}
	for ; version < len(d.cfg.Schema); version++ {
		// DDL is transactional in SQLite, user_version included.
		step := fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA user_version = %d; COMMIT", d.cfg.Schema[version], version+1)
		if _, err := d.writer.c.ExecContext(ctx, step); err != nil {
			_, _ = d.writer.c.ExecContext(ctx, "ROLLBACK")
			return fmt.Errorf("migrate to schema %d: %w", version+1, err)
		}
	}
	return nil
}

// Read calls f with a consistent view of the database. f must not keep q; rows
// that f leaves open are closed. Keep it shorter than a second: an open view
// keeps the write-ahead log from being reused.
func (d *DB) Read(ctx context.Context, f func(q Query) error) error {
	return d.withReader(ctx, func(c *conn) (err error) {
		if err := c.exec("BEGIN"); err != nil {
			return err
		}
		// The view must end whatever became of f, or the next reader on this
		// connection would see the past.
		defer func() {
			c.closeRows()
			if e := c.exec("COMMIT"); e != nil {
				_ = c.exec("ROLLBACK")
				if err == nil {
					err = e
				}
			}
		}()
		return f(c)
	})
}

// ReadOne is [DB.Read] for a function that runs one statement only, which is
// a consistent view by itself and saves two round trips to the engine.
func (d *DB) ReadOne(ctx context.Context, f func(q Query) error) error {
	return d.withReader(ctx, func(c *conn) error { return f(c) })
}

func (d *DB) withReader(ctx context.Context, f func(*conn) error) error {
	if err := d.gone(); err != nil {
		return err
	}
	var c *conn
	select {
	case c = <-d.readers:
	case <-d.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() {
		c.closeRows()
		c.trim()
		d.readers <- c
	}()
	return mapError(f(c))
}

// gone is why nothing is accepted any more, or nil.
func (d *DB) gone() error {
	if err := d.dead.Load(); err != nil {
		return *err
	}
	select {
	case <-d.stop:
		return ErrClosed
	default:
		return nil
	}
}

// Write calls f inside a transaction which it may share with other writes, and
// returns when that is committed. If f returns an error nothing of f is kept
// and the error is returned. f runs on the writer's goroutine: it must be
// short, must not call Write, and must not wait for anything. Once f runs, the
// end of ctx no longer stops it; an error then says whether it was kept.
//
// With [Config.Flush], readers and later writes see what f wrote from its
// commit on, which is before Write returns and before a loss of power cannot
// undo it. A Write that returned nil has made durable everything that its f
// saw, too. Who acts on what a reader saw, outside of this database and in a
// way that a loss of power does not undo, has to write in between.
//
// A panic in f is caught, undone like an error, and returned as [PanicError].
func (d *DB) Write(ctx context.Context, f func(tx *Tx) error) error {
	if err := d.gone(); err != nil {
		return err
	}
	if err := d.broken(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	o := &op{ctx: ctx, f: f, done: make(chan struct{})}
	select {
	case d.queue <- o:
	case <-d.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	giveUp := ctx.Done()
	for {
		select {
		case <-o.done:
			return o.err
		case <-giveUp:
			if o.taken.CompareAndSwap(false, true) {
				return ctx.Err()
			}
			giveUp = nil // it runs, and tells how it ended
		case <-d.done:
			select {
			case <-o.done:
				return o.err
			default:
				return d.gone()
			}
		}
	}
}

// Close finishes the writes that were accepted, waits for reads, and closes
// the file. Calling it again returns the same.
func (d *DB) Close() error {
	d.closeOnce.Do(func() {
		d.stopOnce.Do(func() { close(d.stop) })
		<-d.done
		d.closeErr = d.release(d.cfg.Readers)
	})
	return d.closeErr
}

// release closes n readers, waiting for those in use, and the writer. The
// writer comes last: who closes last puts the log into the file.
func (d *DB) release(n int) error {
	var errs []error
	for range n {
		c := <-d.readers
		errs = append(errs, c.close())
	}
	if d.read != nil {
		errs = append(errs, d.read.Close())
	}
	if d.writer != nil {
		errs = append(errs, d.writer.close())
	}
	if d.flush != nil {
		errs = append(errs, d.flush.log.Close())
	}
	return errors.Join(append(errs, d.write.Close())...)
}

// die makes the DB behave as after the end of the process.
func (d *DB) die(cause error) error {
	err := fmt.Errorf("%w: %w", ErrClosed, cause)
	d.dead.Store(&err)
	d.stopOnce.Do(func() { close(d.stop) })
	return err
}

// head is the start of a statement, for error messages.
func head(query string) string {
	if len(query) > 60 {
		return query[:60] + "…"
	}
	return query
}

// mapError gives errors of the engine and of the system the names that callers
// know.
func mapError(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		switch {
		case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
			return fmt.Errorf("%w: %w", ErrFull, err)
		case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
			return fmt.Errorf("%w: %w", ErrReadOnly, err)
		}
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %w", ErrFull, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}

var (
	_ Query = (*conn)(nil)
	_ Query = (*Tx)(nil)
)
