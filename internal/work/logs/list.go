package logs

import (
	"context"
	"fmt"

	"cairn.dev/cairn/internal/db"
)

// schema is that of logs.db.
var schema = []string{`
CREATE TABLE segments (
	run    TEXT NOT NULL,
	seq    INTEGER NOT NULL,
	upto   INTEGER NOT NULL, -- the position in the journal behind what is in it
	last   INTEGER NOT NULL, -- time of the newest record, in milliseconds since 1970
	low    TEXT NOT NULL,    -- the first and the last task in it, as they are sorted
	high   TEXT NOT NULL,
	packed INTEGER NOT NULL, -- when, likewise
	digest TEXT NOT NULL DEFAULT '',
	data   BLOB,             -- in place of a blob: the newest one of a run, as long as it is small
	PRIMARY KEY (run, seq)
);
CREATE INDEX segments_packed ON segments(packed, run);

-- Runs that were deleted while the journal still held some of them.
CREATE TABLE forgotten (
	run TEXT PRIMARY KEY,
	pos INTEGER NOT NULL -- where the journal ended then
) WITHOUT ROWID;

CREATE TABLE journal (
	id   INTEGER PRIMARY KEY CHECK (id = 1),
	upto INTEGER NOT NULL -- the furthest position that was ever packed
);
INSERT INTO journal VALUES (1, 0);
`}

// list is the list of segments.
type list struct{ db *db.DB }

// row is a segment in the list.
type row struct {
	seq       int64
	upto      int64
	last      int64
	low, high string
	digest    string
	data      []byte
}

// position is behind everything that was ever packed.
func (l list) position(ctx context.Context) (n int64, err error) {
	err = l.db.ReadOne(ctx, func(q db.Query) error {
		_, err := q.Row(ctx, `SELECT upto FROM journal`, nil, &n)
		return err
	})
	return n, err
}

// upto is the position before which the journal has nothing of the run that
// is not packed, or deleted.
func (l list) upto(ctx context.Context, run string) (n int64, err error) {
	err = l.db.ReadOne(ctx, func(q db.Query) error {
		_, err := q.Row(ctx, `SELECT max(ifnull((SELECT pos FROM forgotten WHERE run = ?), 0), ifnull((SELECT upto FROM segments WHERE run = ? ORDER BY seq DESC LIMIT 1), 0))`,
			[]any{run, run}, &n)
		return err
	})
	return n, err
}

// newest is the last segment of a run; ok is false when there is none.
func (l list) newest(ctx context.Context, run string) (r row, ok bool, err error) {
	rows, err := l.rows(ctx, `SELECT seq, upto, last, low, high, digest, data FROM segments WHERE run = ? ORDER BY seq DESC LIMIT 1`, run)
	if err != nil || len(rows) == 0 {
		return row{}, false, err
	}
	return rows[0], true, nil
}

// newestPacked is when something of a run was packed last.
func (l list) newestPacked(ctx context.Context, run string) (n int64, ok bool, err error) {
	err = l.db.ReadOne(ctx, func(q db.Query) (err error) {
		ok, err = q.Row(ctx, `SELECT packed FROM segments WHERE run = ? ORDER BY seq DESC LIMIT 1`, []any{run}, &n)
		return err
	})
	return n, ok, err
}

// after are the next segments from seq on with something behind pos, oldest
// first. (Segments are in the order of their positions; it is seq that has an index.)
func (l list) after(ctx context.Context, run string, seq, pos int64, limit int) ([]row, error) {
	return l.rows(ctx, `SELECT seq, upto, last, low, high, digest, data FROM segments WHERE run = ? AND seq >= ? AND upto > ? ORDER BY seq LIMIT ?`, run, seq, pos, limit)
}

// before are the segments before seq, newest first.
func (l list) before(ctx context.Context, run string, seq int64, limit int) ([]row, error) {
	return l.rows(ctx, `SELECT seq, upto, last, low, high, digest, data FROM segments WHERE run = ? AND seq < ? ORDER BY seq DESC LIMIT ?`, run, seq, limit)
}

func (l list) rows(ctx context.Context, query string, args ...any) (out []row, err error) {
	err = l.db.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		for rows.Next() {
			var r row
			if err := rows.Scan(&r.seq, &r.upto, &r.last, &r.low, &r.high, &r.digest, &r.data); err != nil {
				return err
			}
			out = append(out, r)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list the segments of a run's logs: %w", err)
	}
	return out, nil
}

// add replaces the run's segments from that of rows[0] on.
func (l list) add(ctx context.Context, run string, rows []row, packed int64) error {
	return l.db.Write(ctx, func(tx *db.Tx) error {
		if _, err := tx.Exec(`DELETE FROM segments WHERE run = ? AND seq >= ?`, run, rows[0].seq); err != nil {
			return err
		}
		for _, r := range rows {
			if _, err := tx.Exec(`INSERT INTO segments (run, seq, upto, last, low, high, packed, digest, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				run, r.seq, r.upto, r.last, r.low, r.high, packed, r.digest, r.data); err != nil {
				return err
			}
		}
		_, err := tx.Exec(`UPDATE journal SET upto = max(upto, ?)`, rows[len(rows)-1].upto)
		return err
	})
}

// forget deletes up to limit segments of runs, and says whether those were
// all. What the journal holds of them before pos is not to come back.
func (l list) forget(ctx context.Context, runs []string, pos int64, limit int) (all bool, err error) {
	err = l.db.Write(ctx, func(tx *db.Tx) error {
		left := int64(limit)
		for _, run := range runs {
			if _, err := tx.Exec(`INSERT INTO forgotten (run, pos) VALUES (?, ?) ON CONFLICT (run) DO UPDATE SET pos = max(pos, excluded.pos)`, run, pos); err != nil {
				return err
			}
			n, err := tx.Exec(`DELETE FROM segments WHERE run = ? AND seq IN (SELECT seq FROM segments WHERE run = ? ORDER BY seq LIMIT ?)`, run, run, left)
			if err != nil {
				return err
			}
			if left -= n; left == 0 {
				break
			}
		}
		all = left > 0
		return nil
	})
	return all, err
}

// remembered forgets which runs were deleted before the journal's beginning.
func (l list) remembered(ctx context.Context, begin int64) error {
	var some int
	err := l.db.ReadOne(ctx, func(q db.Query) error {
		_, err := q.Row(ctx, `SELECT EXISTS (SELECT 1 FROM forgotten WHERE pos <= ?)`, []any{begin}, &some)
		return err
	})
	if err != nil || some == 0 {
		return err
	}
	return l.db.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(`DELETE FROM forgotten WHERE pos <= ?`, begin)
		return err
	})
}

// runs are those with segments, after one, in order.
func (l list) runs(ctx context.Context, after string, limit int) (out []string, err error) {
	err = l.db.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, `SELECT DISTINCT run FROM segments WHERE run > ? ORDER BY run LIMIT ?`, after, limit)
		if err != nil {
			return err
		}
		for rows.Next() {
			var run string
			if err := rows.Scan(&run); err != nil {
				return err
			}
			out = append(out, run)
		}
		return rows.Err()
	})
	return out, err
}

// old are runs with segments that were packed before a time, from a place on;
// next is where to go on, and more says whether there is anything.
func (l list) old(ctx context.Context, before int64, from cursor, limit int) (runs []string, next cursor, more bool, err error) {
	next = from
	err = l.db.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, `SELECT packed, run FROM segments WHERE packed < ? AND (packed, run) > (?, ?) ORDER BY packed, run LIMIT ?`,
			before, from.packed, from.run, limit)
		if err != nil {
			return err
		}
		n := 0
		for ; rows.Next(); n++ {
			if err := rows.Scan(&next.packed, &next.run); err != nil {
				return err
			}
			if len(runs) == 0 || runs[len(runs)-1] != next.run {
				runs = append(runs, next.run)
			}
		}
		more = n == limit
		return rows.Err()
	})
	return runs, next, more, err
}

// cursor is a place in the order of list.old.
type cursor struct {
	packed int64
	run    string
}
