package usage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
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
