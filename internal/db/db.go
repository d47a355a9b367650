// Package db opens SQL databases and shares their write commits.
//
// It owns connections, pragmas, migrations and the one writer: all writes of a
// database go through one goroutine which puts those that wait at the same
// time into one transaction, so that a hundred concurrent writers pay for one
// sync of the disk. It promises that a [DB.Write] which returned nil is
// durable (as far as [Config.Sync] says), that each write is whole or absent,
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
	"net/url"
	"os"
	"path/filepath"
	"sync"
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
	// kept open while more are added. 512 and 10 ms when zero.
	MaxBatch int
	MaxHold  time.Duration
}

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
)

// Query reads. Its statements are prepared once for each connection.
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

	queue  chan *op
	stop   chan struct{}
	done   chan struct{}
	closed sync.Once
}

type op struct {
	ctx  context.Context
	f    func(*Tx) error
	err  error
	done chan struct{}
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
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return nil, fmt.Errorf("open database %s: %w", cfg.Path, err)
	}
	d := &DB{cfg: cfg, queue: make(chan *op, cfg.MaxBatch), stop: make(chan struct{}), done: make(chan struct{}), readers: make(chan *conn, cfg.Readers)}
	var err error
	if d.write, err = sql.Open("sqlite", dsn(cfg, false)); err != nil {
		return nil, fmt.Errorf("open database %s: %w", cfg.Path, err)
	}
	if d.writer, err = newConn(ctx, d.write); err == nil {
		err = d.migrate(ctx)
	}
	if err != nil {
		d.write.Close()
		return nil, fmt.Errorf("open database %s: %w", cfg.Path, mapError(err))
	}
	if d.read, err = sql.Open("sqlite", dsn(cfg, true)); err != nil {
		d.write.Close()
		return nil, fmt.Errorf("open database %s: %w", cfg.Path, err)
	}
	for range cfg.Readers {
		c, err := newConn(ctx, d.read)
		if err != nil {
			d.read.Close()
			d.write.Close()
			return nil, fmt.Errorf("open database %s for reading: %w", cfg.Path, mapError(err))
		}
		d.readers <- c
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
		if cfg.Sync == Full {
			pragma("synchronous(full)")
		} else {
			pragma("synchronous(normal)")
		}
	}
	return (&url.URL{Scheme: "file", Path: cfg.Path, RawQuery: q.Encode()}).String()
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

// Read calls f with a consistent view of the database. f must not keep q. Keep
// it shorter than a second: an open view keeps the write-ahead log from being
// truncated.
func (d *DB) Read(ctx context.Context, f func(q Query) error) error {
	var c *conn
	select {
	case c = <-d.readers:
	case <-d.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { d.readers <- c }()
	if err := c.exec(ctx, "BEGIN"); err != nil {
		return mapError(err)
	}
	err := f(c)
	// The view must end whatever became of ctx.
	if e := c.exec(context.WithoutCancel(ctx), "COMMIT"); err == nil {
		err = e
	}
	return mapError(err)
}

// ReadOne is [DB.Read] for a function that runs one statement only, which is
// a consistent view by itself and saves two round trips to the engine.
func (d *DB) ReadOne(ctx context.Context, f func(q Query) error) error {
	select {
	case c := <-d.readers:
		err := f(c)
		d.readers <- c
		return mapError(err)
	case <-d.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Write calls f inside a transaction which it may share with other writes, and
// returns when that is committed. If f returns an error nothing of f is kept
// and the error is returned. f runs on the writer's goroutine: it must be
// short, must not call Write, and must not wait for anything. Once f runs, the
// end of ctx no longer stops it; an error then says whether it was kept.
func (d *DB) Write(ctx context.Context, f func(tx *Tx) error) error {
	o := &op{ctx: ctx, f: f, done: make(chan struct{})}
	select {
	case d.queue <- o:
	case <-d.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-o.done:
		return o.err
	case <-d.done:
		select {
		case <-o.done:
			return o.err
		default:
			return ErrClosed
		}
	}
}

// Close finishes the writes that were accepted and closes the file.
func (d *DB) Close() error {
	d.closed.Do(func() { close(d.stop) })
	<-d.done
	for range d.cfg.Readers {
		<-d.readers
	}
	return errors.Join(d.read.Close(), d.write.Close())
}

func (d *DB) run() {
	defer close(d.done)
	batch := make([]*op, 0, d.cfg.MaxBatch)
	for {
		select {
		case o := <-d.queue:
			batch = d.commit(append(batch[:0], o))
		case <-d.stop:
			for {
				select {
				case o := <-d.queue:
					batch = d.commit(append(batch[:0], o))
				default:
					return
				}
			}
		}
	}
}

// commit runs the ops of batch and those that wait in one transaction.
func (d *DB) commit(batch []*op) []*op {
	ctx := context.Background()
	start := time.Now()
	err := d.writer.exec(ctx, "BEGIN IMMEDIATE")
	tx := &Tx{c: d.writer}
	for i := 0; err == nil; i++ {
		if i == len(batch) {
			if len(batch) == d.cfg.MaxBatch || time.Since(start) > d.cfg.MaxHold {
				break
			}
			select {
			case o := <-d.queue:
				batch = append(batch, o)
			default:
			}
			if i == len(batch) {
				break
			}
		}
		err = tx.run(ctx, batch[i])
	}
	if err == nil {
		err = d.writer.exec(ctx, "COMMIT")
	}
	if err != nil {
		_ = d.writer.exec(ctx, "ROLLBACK")
	}
	for _, o := range batch {
		if err != nil && o.err == nil {
			o.err = mapError(err)
		}
		close(o.done)
	}
	return batch
}

// Tx is a write transaction in progress.
type Tx struct{ c *conn }

// run executes one op so that its failure undoes only itself. It returns an
// error only when the transaction as a whole is lost.
func (tx *Tx) run(ctx context.Context, o *op) error {
	if o.ctx.Err() != nil { // nobody waits for it any more
		o.err = o.ctx.Err()
		return nil
	}
	if err := tx.c.exec(ctx, "SAVEPOINT op"); err != nil {
		return err
	}
	o.err = mapError(o.f(tx))
	if o.err != nil {
		if err := tx.c.exec(ctx, "ROLLBACK TO op"); err != nil {
			return err
		}
	}
	return tx.c.exec(ctx, "RELEASE op")
}

// Exec runs a statement and returns the number of rows it changed.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	s, err := tx.c.prepare(context.Background(), query)
	if err != nil {
		return 0, err
	}
	r, err := s.Exec(args...)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", head(query), err)
	}
	return r.RowsAffected()
}

// Insert runs an INSERT and returns the id of the new row.
func (tx *Tx) Insert(query string, args ...any) (int64, error) {
	s, err := tx.c.prepare(context.Background(), query)
	if err != nil {
		return 0, err
	}
	r, err := s.Exec(args...)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", head(query), err)
	}
	return r.LastInsertId()
}

// Query implements [Query].
func (tx *Tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return tx.c.Query(context.WithoutCancel(ctx), query, args...)
}

// Row implements [Query].
func (tx *Tx) Row(ctx context.Context, query string, args []any, dest ...any) (bool, error) {
	return tx.c.Row(context.WithoutCancel(ctx), query, args, dest...)
}

// conn is one connection with its prepared statements; one goroutine at a time.
type conn struct {
	c     *sql.Conn
	stmts map[string]*sql.Stmt
}

func newConn(ctx context.Context, d *sql.DB) (*conn, error) {
	c, err := d.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{c: c, stmts: map[string]*sql.Stmt{}}, nil
}

func (c *conn) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := c.stmts[query]; ok {
		return s, nil
	}
	s, err := c.c.PrepareContext(context.WithoutCancel(ctx), query)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", head(query), err)
	}
	c.stmts[query] = s
	return s, nil
}

func (c *conn) exec(ctx context.Context, query string) error {
	s, err := c.prepare(ctx, query)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(ctx)
	return err
}

func (c *conn) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := c.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", head(query), err)
	}
	return rows, nil
}

func (c *conn) Row(ctx context.Context, query string, args []any, dest ...any) (bool, error) {
	s, err := c.prepare(ctx, query)
	if err != nil {
		return false, err
	}
	err = s.QueryRowContext(ctx, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", head(query), err)
	}
	return true, nil
}

// head is the start of a statement, for error messages.
func head(query string) string {
	if len(query) > 60 {
		return query[:60] + "…"
	}
	return query
}

// mapError gives errors of the engine the names that callers know.
func mapError(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
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
