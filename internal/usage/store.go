package usage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// Schema of the ledger's database; see [db.Config]. Rows are found by number
// only: everything is read once, at the start. No column that changes has an
// index, and what one reporter states lies together.
var Schema = []string{`
CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE digest(id INTEGER PRIMARY KEY, digest TEXT NOT NULL);
CREATE TABLE name(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE use(id INTEGER PRIMARY KEY, digest INTEGER NOT NULL, repository INTEGER NOT NULL,
	subject INTEGER NOT NULL, source INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE TABLE reporter(name TEXT PRIMARY KEY, scope TEXT NOT NULL, period INTEGER NOT NULL,
	first INTEGER NOT NULL, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE uncovered(id INTEGER PRIMARY KEY, scope TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER,
	why TEXT NOT NULL, reporter TEXT NOT NULL, cure TEXT NOT NULL);
`, `
ALTER TABLE reporter ADD COLUMN platforms TEXT NOT NULL DEFAULT 'null';
`}

// Keys of meta. Times and durations are in milliseconds.
const (
	metaClean       = "clean"       // 1 after Close
	metaGranularity = "granularity" // of the process that runs, or ran last
	metaUnclean     = "unclean"     // the start that followed the last unclean stop
	metaSlack       = "slack"       // the granularity before that start
	metaMark        = "mark"        // Cairn was alive then
	metaEver        = "ever"        // a reporter was enrolled once
)

const (
	loadPage   = 10_000
	writeBatch = 400 // rows in one write: a few milliseconds
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

// A dueRow is one row to write, as it was when it was picked.
type dueRow struct {
	ref  ref
	key  key
	last int64
	id   uint32 // 0: insert
}

// flush writes the rows that are due and the intervals that are not stored. It
// returns when they are committed.
func (l *Ledger) flush(ctx context.Context) error {
	l.flushMu.Lock()
	defer l.flushMu.Unlock()
	return errors.Join(l.flushIntervals(ctx), l.flushRows(ctx))
}

func (l *Ledger) flushIntervals(ctx context.Context) error {
	l.mu.Lock()
	ids := l.unsaved
	l.unsaved = nil
	var ivs []Interval
	if len(ids) > 0 {
		want := make(map[int64]bool, len(ids))
		for _, id := range ids {
			want[id] = true
		}
		for _, iv := range l.intervals {
			if want[iv.ID] {
				ivs = append(ivs, iv)
			}
		}
	}
	l.mu.Unlock()
	for batch := range slices.Chunk(ivs, writeBatch) {
		err := l.db.Write(ctx, func(tx *db.Tx) error {
			for _, iv := range batch {
				scope, err := json.Marshal(iv.Scope)
				if err != nil {
					return err
				}
				var until any
				if !iv.To.IsZero() {
					until = iv.To.Add(time.Millisecond - 1).UnixMilli()
				}
				if _, err := tx.Exec("INSERT OR REPLACE INTO uncovered(id, scope, since, until, why, reporter, cure) VALUES(?, ?, ?, ?, ?, ?, ?)",
					iv.ID, string(scope), iv.From.UnixMilli(), until, iv.Why, iv.Reporter, iv.Cure); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			l.mu.Lock()
			l.unsaved = append(l.unsaved, ids...)
			l.mu.Unlock()
			return err
		}
	}
	return nil
}

func (l *Ledger) flushRows(ctx context.Context) error {
	var due []dueRow
	for n := range l.shards {
		s := &l.shards[n]
		s.mu.Lock()
		for _, i := range s.dirty {
			if r := &s.rows[i]; r.dirty {
				r.dirty = false
				due = append(due, dueRow{ref(i<<shardBits | uint32(n)), r.key, r.last, r.id})
			}
		}
		s.dirty = s.dirty[:0]
		s.mu.Unlock()
	}
	if len(due) == 0 {
		return nil
	}
	// Rows that lie together are written together.
	slices.SortFunc(due, func(a, b dueRow) int {
		switch x, y := a.id-1, b.id-1; { // new ones last
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	// The names after the rows were picked: those rows name none that is newer.
	err := l.flushNames(ctx)
	for len(due) > 0 && err == nil {
		batch := due[:min(len(due), writeBatch)]
		if err = l.writeRows(ctx, batch); err == nil {
			due = due[len(batch):]
		}
	}
	for _, d := range due { // not written: next time
		s := &l.shards[d.ref&(1<<shardBits-1)]
		s.mu.Lock()
		if i := uint32(d.ref >> shardBits); !s.rows[i].dirty {
			s.rows[i].dirty = true
			s.dirty = append(s.dirty, i)
		}
		s.mu.Unlock()
	}
	return err
}

func (l *Ledger) flushNames(ctx context.Context) error {
	n := l.names
	n.mu.RLock()
	list := n.list[n.saved:]
	n.mu.RUnlock()
	for batch := range slices.Chunk(list, writeBatch) {
		err := l.db.Write(ctx, func(tx *db.Tx) error {
			for i, s := range batch {
				if _, err := tx.Exec("INSERT INTO name(id, name) VALUES(?, ?)", n.saved+i, s); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		n.saved += len(batch)
	}
	return nil
}

// writeRows writes a batch and then tells the rows that they are stored.
func (l *Ledger) writeRows(ctx context.Context, batch []dueRow) error {
	// Digests that are not there yet get numbers, which count once the write is
	// kept.
	type newDigest struct {
		shard, entry uint32
		id           uint32
		digest       image.Digest
	}
	var fresh []newDigest
	digests := make([]uint32, len(batch))
	nextRow, nextDig := l.nextRow, l.nextDig
	given := map[[2]uint32]uint32{}
	for j := range batch {
		d := &batch[j]
		if d.id != 0 {
			continue
		}
		n := uint32(d.ref & (1<<shardBits - 1))
		s := &l.shards[n]
		s.mu.Lock()
		e := s.entries[d.key.entry]
		s.mu.Unlock()
		if e.id == 0 {
			at := [2]uint32{n, d.key.entry}
			if given[at] == 0 {
				given[at] = nextDig
				fresh = append(fresh, newDigest{n, d.key.entry, nextDig, e.digest})
				nextDig++
			}
			e.id = given[at]
		}
		digests[j] = e.id
	}
	rowIDs := make([]uint32, len(batch))
	for j := range batch {
		if rowIDs[j] = batch[j].id; rowIDs[j] == 0 {
			rowIDs[j] = nextRow
			nextRow++
		}
	}
	err := l.db.Write(ctx, func(tx *db.Tx) error {
		for _, d := range fresh {
			if _, err := tx.Exec("INSERT INTO digest(id, digest) VALUES(?, ?)", d.id, string(d.digest)); err != nil {
				return err
			}
		}
		for j := range batch {
			d := &batch[j]
			var err error
			if d.id != 0 {
				_, err = tx.Exec("UPDATE use SET last = ? WHERE id = ?", d.last, d.id)
			} else {
				_, err = tx.Exec("INSERT INTO use(id, digest, repository, subject, source, last) VALUES(?, ?, ?, ?, ?, ?)",
					rowIDs[j], digests[j], d.key.repository, d.key.subject, d.key.source, d.last)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.nextRow, l.nextDig = nextRow, nextDig
	for _, d := range fresh {
		s := &l.shards[d.shard]
		s.mu.Lock()
		s.entries[d.entry].id = d.id
		s.mu.Unlock()
	}
	for j, d := range batch {
		s := &l.shards[d.ref&(1<<shardBits-1)]
		s.mu.Lock()
		r := &s.rows[d.ref>>shardBits]
		r.id, r.stored = rowIDs[j], d.last
		s.mu.Unlock()
	}
	return nil
}

func (l *Ledger) saveMeta(ctx context.Context, m map[string]int64) error {
	return l.db.Write(ctx, func(tx *db.Tx) error {
		for k, v := range m {
			if _, err := tx.Exec("INSERT OR REPLACE INTO meta(key, value) VALUES(?, ?)", k, v); err != nil {
				return err
			}
		}
		return nil
	})
}

// mark writes that Cairn is alive, and when reporters were heard. The uses are
// written before it, so that a mark vouches for them.
func (l *Ledger) mark(ctx context.Context, clean bool) error {
	newest := l.newest.Load()
	if err := l.saveReporters(ctx); err != nil {
		return err
	}
	m := map[string]int64{metaMark: newest}
	if clean {
		m[metaClean] = 1
	}
	if err := l.saveMeta(ctx, m); err != nil {
		return err
	}
	l.flushMu.Lock()
	l.marked = l.clock.Mono()
	l.flushMu.Unlock()
	return nil
}

// saveReporters writes the reporters that changed, and the intervals that ended
// by that.
func (l *Ledger) saveReporters(ctx context.Context) error {
	l.flushMu.Lock() // against Forget
	defer l.flushMu.Unlock()
	type saved struct {
		r *reporter
		c Reporter
	}
	var all []saved
	l.mu.Lock()
	for _, r := range l.reporters {
		if r.unsaved {
			r.unsaved = false
			all = append(all, saved{r, Reporter{Name: r.name, Scope: r.scope, Period: r.period, First: r.first, Last: r.last, Platforms: r.platforms}})
		}
	}
	l.mu.Unlock()
	// The times just read end silences: those intervals come first, or a
	// crash in between would lose the doubt for good. The same holds for the
	// mark that is written after this.
	if err := l.flushIntervals(ctx); err != nil {
		l.mu.Lock()
		for _, b := range all {
			b.r.unsaved = true
		}
		l.mu.Unlock()
		return err
	}
	for len(all) > 0 {
		batch := all[:min(len(all), writeBatch)]
		err := l.db.Write(ctx, func(tx *db.Tx) error {
			for _, b := range batch {
				scope, err := json.Marshal(b.c.Scope)
				if err != nil {
					return err
				}
				platforms, err := json.Marshal(b.c.Platforms)
				if err != nil {
					return err
				}
				if _, err := tx.Exec("INSERT OR REPLACE INTO reporter(name, scope, period, first, last, platforms) VALUES(?, ?, ?, ?, ?, ?)",
					b.c.Name, string(scope), b.c.Period.Milliseconds(), b.c.First.UnixMilli(), b.c.Last.UnixMilli(), string(platforms)); err != nil {
					return err
				}
			}
			_, err := tx.Exec("INSERT OR REPLACE INTO meta(key, value) VALUES(?, 1)", metaEver)
			return err
		})
		l.mu.Lock()
		for i, b := range all {
			if err != nil {
				b.r.unsaved = true
			} else if i < len(batch) {
				b.r.stored = true
			}
		}
		l.ever = l.ever || err == nil
		l.mu.Unlock()
		if err != nil {
			return err
		}
		all = all[len(batch):]
	}
	return nil
}

// prune forgets uses that are over for longer than Keep, by covered time, and
// the intervals that no remaining use reaches back to.
func (l *Ledger) prune(ctx context.Context) error {
	if ok, _ := l.ClockOK(); !ok {
		return nil
	}
	ivs := l.Uncovered()
	cov := NewCoverages(ivs)
	now := l.clock.Now()
	old := func(ms int64, repository string) bool {
		return cov.For(repository).Age(time.UnixMilli(l.when(ms)), now) > l.keep
	}
	l.flushMu.Lock()
	defer l.flushMu.Unlock()
	var uses, digests, gone []uint32
	cut := now.UnixMilli() - l.keep.Milliseconds() // cheaper, and never later
	for n := range l.shards {
		s := &l.shards[n]
		s.mu.Lock()
		for i := range s.rows {
			r := &s.rows[i]
			if r.source == 0 || r.now > 0 || l.when(r.last) >= cut || !old(r.last, l.names.name(r.repository)) {
				continue
			}
			if r.id != 0 {
				uses = append(uses, r.id)
			}
			e := r.entry
			s.remove(uint32(i))
			l.rowCount.Add(-1)
			if en := &s.entries[e]; en.first == 0 {
				if en.id != 0 {
					digests = append(digests, en.id)
				}
				s.removeEntry(e)
			}
		}
		s.mu.Unlock()
	}
	l.mu.Lock()
	l.intervals = slices.DeleteFunc(l.intervals, func(iv Interval) bool {
		if iv.To.IsZero() || iv.To.UnixMilli() >= cut {
			return false
		}
		// Its own scope may be covered in part elsewhere: the widest doubt decides.
		if NewCoverage(ivs, "").Age(iv.To, now) <= l.keep {
			return false
		}
		gone = append(gone, uint32(iv.ID))
		return true
	})
	l.mu.Unlock()
	l.pruned = l.clock.Mono()
	// What fails here is found and pruned after the next start.
	return errors.Join(
		l.deleteRows(ctx, "DELETE FROM use WHERE id = ?", uses),
		l.deleteRows(ctx, "DELETE FROM digest WHERE id = ?", digests),
		l.deleteRows(ctx, "DELETE FROM uncovered WHERE id = ?", gone),
	)
}

// compact merges intervals of one scope that overlap or touch, once there are
// many: an outage leaves one for every reporter. What is uncovered stays the
// same.
func (l *Ledger) compact(ctx context.Context) error {
	const many = 1000
	l.mu.Lock()
	byScope := map[string][]Interval{}
	for _, iv := range l.intervals {
		if len(l.intervals) > many && !iv.To.IsZero() {
			k := strings.Join(iv.Scope, "\x00")
			byScope[k] = append(byScope[k], iv)
		}
	}
	merged := map[int64]Interval{}
	var gone []uint32
	for _, ivs := range byScope {
		slices.SortFunc(ivs, func(a, b Interval) int { return a.From.Compare(b.From) })
		first, others := ivs[0], 0
		flush := func() {
			if others > 0 {
				first.Why = fmt.Sprintf("%s (and %d more reasons within %s to %s)", first.Why, others, at(first.From), at(first.To))
				merged[first.ID] = first
			}
		}
		for _, iv := range ivs[1:] {
			if iv.From.After(first.To) {
				flush()
				first, others = iv, 0
				continue
			}
			first.To = later(first.To, iv.To)
			others++
			gone = append(gone, uint32(iv.ID))
		}
		flush()
	}
	drop := make(map[int64]bool, len(gone))
	for _, id := range gone {
		drop[int64(id)] = true
	}
	l.intervals = slices.DeleteFunc(l.intervals, func(iv Interval) bool { return drop[iv.ID] })
	for i := range l.intervals {
		if iv, ok := merged[l.intervals[i].ID]; ok {
			l.intervals[i] = iv
			l.unsaved = append(l.unsaved, iv.ID)
		}
	}
	l.mu.Unlock()
	if len(gone) == 0 {
		return nil
	}
	// The longer ones first: a crash in between leaves too many, not too few.
	if err := l.flush(ctx); err != nil {
		return err
	}
	return l.deleteRows(ctx, "DELETE FROM uncovered WHERE id = ?", gone)
}
