package usage

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

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
