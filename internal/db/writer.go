package db

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// run is the writer.
func (d *DB) run() {
	defer close(d.done)
	defer d.flush.end()
	// Should a function of a write end this goroutine (runtime.Goexit, as
	// testing's FailNow calls it), nothing may be accepted any more.
	defer d.stopOnce.Do(func() { close(d.stop) })
	batch := make([]*op, 0, d.cfg.MaxBatch)
	for {
		select {
		case o := <-d.queue:
			batch = d.commit(append(batch[:0], o))
		case <-d.stop:
			for d.dead.Load() == nil {
				select {
				case o := <-d.queue:
					batch = d.commit(append(batch[:0], o))
				default:
					return
				}
			}
			return
		}
	}
}

// commit runs the ops of batch and those that wait in one transaction.
func (d *DB) commit(batch []*op) []*op {
	start := time.Now()
	err := d.broken()
	if err == nil {
		err = d.writer.exec("BEGIN IMMEDIATE")
	}
	tx := &Tx{c: d.writer, log: d.cfg.Log}
	for i := 0; err == nil; i++ {
		if i == len(batch) {
			if len(batch) == d.cfg.MaxBatch || time.Since(start) > d.cfg.MaxHold {
				break
			}
			o := d.more(start)
			if o == nil {
				break
			}
			batch = append(batch, o)
		}
		err = tx.run(batch[i])
	}
	err = d.end(err)
	d.writer.trim()
	kept := batch[:0]
	for _, o := range batch {
		if err != nil && (o.err == nil || d.dead.Load() != nil) {
			o.err = mapError(err)
		}
		if o.err == nil && d.flush != nil {
			kept = append(kept, o)
		} else {
			close(o.done)
		}
	}
	if len(kept) > 0 {
		d.flush.add(kept)
	}
	clear(batch) // what the functions hold can go
	if err == nil && start.After(d.tendNext) {
		d.tendNext = start.Add(d.tendLog())
	}
	return batch
}

// more is the next op for the transaction that began at start, or nil when it
// should be committed: nobody waits any more, and the disk is free.
func (d *DB) more(start time.Time) *op {
	select {
	case o := <-d.queue:
		return o
	default:
	}
	if d.flush == nil {
		return nil
	}
	// A commit now would be flushed no earlier than one when the flush that
	// runs has ended, and its pages would be written once more by the next.
	var hold <-chan time.Time
	for d.flush.busy() {
		if hold == nil {
			hold = time.After(d.cfg.MaxHold - time.Since(start))
		}
		select {
		case o := <-d.queue:
			return o
		case <-d.flush.ended:
		case <-hold:
			return nil
		}
	}
	return nil
}

// The engine moves the log into the file by itself, but within a commit, for
// which everybody waits; so it is done here, after one, before the log is as
// long as that. And it begins the log anew only when at that moment no reader
// is looking at it. Readers that overlap without a gap would let it grow for
// ever. So from longLog frames of 4 KiB on, the writer waits a little for
// them, and from tooLongLog on it lets no new one begin for as long as any
// read may take. A reader that stays even longer must not stop the others
// again and again.
const (
	longLog    = 4096
	tooLongLog = 32768
	tendEvery  = 100 * time.Millisecond
	longRead   = time.Second
)

// tendLog keeps the write-ahead log from growing, and returns when to do it
// again. It is upkeep: should it fail, the next commit says why.
func (d *DB) tendLog() time.Duration {
	ctx := context.Background()
	var busy, frames, moved int
	if ok, err := d.writer.Row(ctx, "PRAGMA wal_checkpoint(PASSIVE)", nil, &busy, &frames, &moved); !ok || err != nil || frames < d.longLog {
		return tendEvery
	}
	if frames >= d.tooLongLog {
		held, all := d.holdReads(longRead)
		defer func() {
			for _, c := range held {
				d.readers <- c
			}
		}()
		if !all {
			return time.Minute
		}
	}
	if err := d.writer.exec("PRAGMA busy_timeout = 10"); err == nil {
		_, _ = d.writer.Row(ctx, "PRAGMA wal_checkpoint(RESTART)", nil, &busy, &frames, &moved)
	}
	_ = d.writer.exec("PRAGMA busy_timeout = 5000")
	return tendEvery
}

// holdReads takes the connections that read, so that no read begins, and
// waits at most so long for those in progress. The caller gives them back.
func (d *DB) holdReads(most time.Duration) (held []*conn, all bool) {
	late := time.NewTimer(most)
	defer late.Stop()
	for range d.cfg.Readers {
		select {
		case c := <-d.readers:
			held = append(held, c)
		case <-late.C:
			return held, false
		}
	}
	return held, true
}

// end commits the transaction, or undoes it when err says that it is lost.
func (d *DB) end(err error) error {
	if err == nil {
		err = d.broken()
	}
	if err == nil {
		err = d.fault(BeforeCommit)
	}
	if err == nil {
		err = d.writer.exec("COMMIT")
	}
	if err != nil {
		_ = d.writer.exec("ROLLBACK")
		return err
	}
	return d.fault(AfterCommit)
}

// fault asks a test whether the process ends here.
func (d *DB) fault(point string) error {
	if d.cfg.Fault == nil {
		return nil
	}
	if err := d.cfg.Fault(point); err != nil {
		return d.die(err)
	}
	return nil
}

// Tx is a write transaction in progress.
type Tx struct {
	c   *conn
	log *slog.Logger
}

// run executes one op so that its failure undoes only itself. It returns an
// error only when the transaction as a whole is lost.
func (tx *Tx) run(o *op) error {
	if !o.taken.CompareAndSwap(false, true) { // nobody waits for it any more
		return nil
	}
	if o.err = o.ctx.Err(); o.err != nil {
		return nil
	}
	if err := tx.c.exec("SAVEPOINT op"); err != nil {
		return err
	}
	o.err = mapError(tx.call(o.f))
	tx.c.closeRows() // an open statement would be in the way of the commit
	if o.err != nil {
		// The engine may have undone the whole transaction by itself (full
		// disk, I/O error). Then there is nothing to go back to, and the
		// neighbours are lost for the same reason.
		if err := tx.c.exec("ROLLBACK TO op"); err != nil {
			return fmt.Errorf("%w (and then: %w)", o.err, err)
		}
	}
	return tx.c.exec("RELEASE op")
}

// call turns a panic into an error.
func (tx *Tx) call(f func(*Tx) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			p := &PanicError{Value: v, Stack: debug.Stack()}
			if tx.log != nil {
				tx.log.Error(p.Error(), "stack", string(p.Stack))
			}
			err = p
		}
	}()
	return f(tx)
}

// Exec runs a statement and returns the number of rows it changed.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	r, err := tx.c.run(query, args)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Insert runs an INSERT and returns the id of the new row.
func (tx *Tx) Insert(query string, args ...any) (int64, error) {
	r, err := tx.c.run(query, args)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// Query implements [Query], but for the end of ctx, which is ignored.
func (tx *Tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return tx.c.Query(context.WithoutCancel(ctx), query, args...)
}

// Row implements [Query], but for the end of ctx, which is ignored.
func (tx *Tx) Row(ctx context.Context, query string, args []any, dest ...any) (bool, error) {
	return tx.c.Row(context.WithoutCancel(ctx), query, args, dest...)
}
