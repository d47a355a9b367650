package usage

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// load reads everything and finds out how the last process ended.
func (l *Ledger) load(ctx context.Context) error {
	meta := map[string]int64{}
	err := l.db.Read(ctx, func(q db.Query) error {
		return each(ctx, q, "SELECT key, value FROM meta", nil, func(rows *sql.Rows) error {
			var k string
			var v int64
			err := rows.Scan(&k, &v)
			meta[k] = v
			return err
		})
	})
	if err != nil {
		return err
	}
	if err := l.loadUses(ctx); err != nil {
		return err
	}
	if err := l.loadReporters(ctx); err != nil {
		return err
	}

	wall := l.clock.Now()
	l.watched = l.clock.Mono()
	l.marked, l.pruned = l.watched, l.watched
	mark, known := meta[metaMark]
	l.newest.Store(wall.UnixMilli())
	if known {
		l.newest.Store(max(mark, wall.UnixMilli()))
		from := time.UnixMilli(mark).UTC()
		switch gone := wall.Sub(from); {
		case gone > maxDown:
			l.addInterval(Interval{Scope: everything, From: from, To: wall, Why: fmt.Sprintf("Cairn was not running from %s to %s", at(from), at(wall))})
		case gone < -maxBehind:
			l.behind = from
			l.log.Error("the clock is behind the time already seen; nothing is deleted until it has caught up", "now", wall, "seen", from)
		}
	}
	l.ever = meta[metaEver] != 0
	l.unclean.Store(meta[metaUnclean])
	l.slack = meta[metaSlack]
	if known && meta[metaClean] == 0 {
		l.unclean.Store(l.newest.Load())
		l.slack = max(l.slack, meta[metaGranularity])
		l.log.Warn("the last process did not end cleanly; stored uses count as newer by the time they may lag behind", "by", time.Duration(l.slack)*time.Millisecond)
	}
	if err := l.flush(ctx); err != nil {
		return err
	}
	return l.saveMeta(ctx, map[string]int64{
		metaClean: 0, metaGranularity: l.granularity.Milliseconds(), metaUnclean: l.unclean.Load(), metaSlack: l.slack, metaMark: l.newest.Load(),
	})
}

// each calls f for every row of a query.
func each(ctx context.Context, q db.Query, query string, args []any, f func(*sql.Rows) error) error {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// pages calls f for every row of a table in the order of its numbers, which are
// the first column, in views that are short.
func (l *Ledger) pages(ctx context.Context, query string, f func(*sql.Rows) (int64, error)) error {
	for last := int64(0); ; {
		n := 0
		err := l.db.Read(ctx, func(q db.Query) error {
			return each(ctx, q, query, []any{last, loadPage}, func(rows *sql.Rows) (err error) {
				n++
				last, err = f(rows)
				return err
			})
		})
		if err != nil || n < loadPage {
			return err
		}
	}
}

func (l *Ledger) loadUses(ctx context.Context) error {
	digests := map[uint32]image.Digest{}
	err := l.pages(ctx, "SELECT id, digest FROM digest WHERE id > ? ORDER BY id LIMIT ?", func(rows *sql.Rows) (int64, error) {
		var id int64
		var d string
		if err := rows.Scan(&id, &d); err != nil {
			return 0, err
		}
		digests[uint32(id)] = image.Digest(d)
		l.nextDig = max(l.nextDig, uint32(id)+1)
		return id, nil
	})
	if err != nil {
		return err
	}
	n := l.names
	err = l.pages(ctx, "SELECT id, name FROM name WHERE id > ? ORDER BY id LIMIT ?", func(rows *sql.Rows) (int64, error) {
		var id int64
		var s string
		if err := rows.Scan(&id, &s); err != nil {
			return 0, err
		}
		for int64(len(n.list)) < id { // removed by dropNames
			n.list = append(n.list, "")
		}
		n.list = append(n.list, s)
		n.ids.put(hashOf(n.seed, s), uint32(id))
		return id, nil
	})
	if err != nil {
		return err
	}
	n.saved = len(n.list)
	used := make([]bool, len(n.list))
	err = l.pages(ctx, "SELECT id, digest, repository, subject, source, last FROM use WHERE id > ? ORDER BY id LIMIT ?", func(rows *sql.Rows) (int64, error) {
		var id, digest, repository, subject, source, last int64
		if err := rows.Scan(&id, &digest, &repository, &subject, &source, &last); err != nil {
			return 0, err
		}
		l.nextRow = max(l.nextRow, uint32(id)+1)
		d, ok := digests[uint32(digest)]
		if !ok || repository >= int64(len(n.list)) || subject >= int64(len(n.list)) || source < 1 || source > int64(Push) {
			return 0, fmt.Errorf("the database is damaged: use %d names what is not there; restore a backup", id)
		}
		used[repository], used[subject] = true, true
		s := &l.shards[shardOf(d)]
		e, ok := s.entry(d)
		if !ok {
			e = s.addEntry(entry{digest: d, id: uint32(digest)})
		}
		k := key{e, uint32(repository), uint32(subject), Source(source)}
		i, ok := s.find(k)
		if !ok {
			i = s.add(k)
			l.rowCount.Add(1)
		}
		r := &s.rows[i]
		r.id, r.stored, r.last = uint32(id), last, max(last, r.last)
		return id, nil
	})
	if err != nil {
		return err
	}
	return l.dropNames(ctx, used)
}

// dropNames removes the names that no use has any more. Only at the start:
// later, somebody may be about to use one.
func (l *Ledger) dropNames(ctx context.Context, used []bool) error {
	n := l.names
	var ids []uint32
	for i, s := range n.list {
		if s != "" && !used[i] {
			ids = append(ids, uint32(i))
			n.ids.drop(hashOf(n.seed, s), uint32(i))
			n.list[i] = ""
		}
	}
	return l.deleteRows(ctx, "DELETE FROM name WHERE id = ?", ids)
}

// deleteRows runs a statement for every id.
func (l *Ledger) deleteRows(ctx context.Context, query string, ids []uint32) error {
	for batch := range slices.Chunk(ids, writeBatch) {
		err := l.db.Write(ctx, func(tx *db.Tx) error {
			for _, id := range batch {
				if _, err := tx.Exec(query, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) loadReporters(ctx context.Context) error {
	return l.db.Read(ctx, func(q db.Query) error {
		err := each(ctx, q, "SELECT name, scope, period, first, last, platforms FROM reporter", nil, func(rows *sql.Rows) error {
			r := &reporter{stored: true, stated: map[Source]stated{}}
			var scope, platforms string
			var period, first, last int64
			if err := rows.Scan(&r.name, &scope, &period, &first, &last, &platforms); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(platforms), &r.platforms); err != nil {
				return fmt.Errorf("the database is damaged: platforms of reporter %s: %w", r.name, err)
			}
			if err := json.Unmarshal([]byte(scope), &r.scope); err != nil {
				return fmt.Errorf("the database is damaged: scope of reporter %s: %w", r.name, err)
			}
			r.period = time.Duration(period) * time.Millisecond
			r.first, r.last = time.UnixMilli(first).UTC(), time.UnixMilli(last).UTC()
			l.reporters[r.name] = r
			return nil
		})
		if err != nil {
			return err
		}
		return each(ctx, q, "SELECT id, scope, since, until, why, reporter, cure FROM uncovered ORDER BY id", nil, func(rows *sql.Rows) error {
			var iv Interval
			var scope string
			var since int64
			var until sql.NullInt64
			if err := rows.Scan(&iv.ID, &scope, &since, &until, &iv.Why, &iv.Reporter, &iv.Cure); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(scope), &iv.Scope); err != nil {
				return fmt.Errorf("the database is damaged: scope of uncovered interval %d: %w", iv.ID, err)
			}
			iv.From = time.UnixMilli(since).UTC()
			if until.Valid {
				iv.To = time.UnixMilli(until.Int64).UTC()
			}
			l.intervals = append(l.intervals, iv)
			l.nextID = max(l.nextID, iv.ID+1)
			return nil
		})
	})
}
