package content

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

const (
	// collectBatch bounds the blobs whose digests are locked at a time and
	// whose rows go in one transaction (about a millisecond).
	collectBatch = 16
	// reconcileEvery is how often the disk is compared with what is known.
	reconcileEvery = 24 * time.Hour
)

// Run collects, removes abandoned uploads and reconciles the disk with the
// metadata, until ctx ends, whose error it returns.
func (s *Store) Run(ctx context.Context) error {
	every := min(max(s.grace/20, time.Second), time.Minute)
	next := s.clock.Mono()
	for {
		if _, err := s.Collect(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("collection failed; it will be tried again", "error", err)
		}
		if s.clock.Mono() >= next {
			if _, err := s.Reconcile(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("comparing the disk with the metadata failed; it will be tried again", "error", err)
			}
			next = s.clock.Mono() + reconcileEvery
		}
		if err := clock.Sleep(ctx, s.clock, every); err != nil {
			return err
		}
	}
}

// candidate is a link that is due, or a loose blob, which has no repository.
type candidate struct {
	rid, bid int64
	due      int64
	repo     string
	digest   image.Digest
	size     int64
}

// Collect does one round: it removes what is due and nothing needs, and the
// uploads nobody wrote to for the grace period. Nothing is removed before one
// grace period has passed since the start, because what an earlier process
// told its clients is not known.
func (s *Store) Collect(ctx context.Context) (CollectStats, error) {
	var st CollectStats
	select {
	case <-s.collect:
		defer func() { s.collect <- struct{}{} }()
	case <-ctx.Done():
		return st, ctx.Err()
	}
	var err error
	if st.Uploads, err = s.expireUploads(ctx); err != nil {
		return st, err
	}
	s.leases.prune(s.clock.Mono())
	if s.clock.Mono() < s.start+s.grace {
		return st, nil
	}
	now := s.now()
	for _, query := range []string{dueLinks, dueLoose} {
		for last := (candidate{}); ; {
			due, err := s.due(ctx, query, now, last)
			if err != nil {
				return st, fmt.Errorf("collect: %w", mapError(err))
			}
			if len(due) == 0 {
				break
			}
			last = due[len(due)-1]
			if err := s.collectSome(ctx, due, &st); err != nil {
				return st, fmt.Errorf("collect: %w", mapError(err))
			}
			if err := s.traffic.stepAside(ctx); err != nil {
				return st, err
			}
		}
	}
	return st, nil
}

// The statements that find what is due: ?1 is now, ?2 to ?4 the candidate after
// which to go on.
const (
	dueLinks = `SELECT l.repo_id, l.blob_id, l.due, r.name, b.digest, b.size
		FROM links l JOIN repositories r ON r.id = l.repo_id JOIN blobs b ON b.id = l.blob_id
		WHERE l.due IS NOT NULL AND l.due <= ?1 AND (l.due > ?2 OR l.due = ?2 AND (l.repo_id > ?3 OR l.repo_id = ?3 AND l.blob_id > ?4))
		ORDER BY l.due, l.repo_id, l.blob_id LIMIT ?5`
	dueLoose = `SELECT 0, l.blob_id, l.due, '', b.digest, b.size
		FROM loose l JOIN blobs b ON b.id = l.blob_id
		WHERE l.due <= ?1 AND (l.due > ?2 OR l.due = ?2 AND l.blob_id > ?4)
		ORDER BY l.due, l.blob_id LIMIT ?5`
)

// due reads the next candidates, after last in order of time.
func (s *Store) due(ctx context.Context, query string, now int64, last candidate) ([]candidate, error) {
	var cs []candidate
	err := s.db.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, query, now, last.due, last.rid, last.bid, collectBatch)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c candidate
			var k []byte
			if err := rows.Scan(&c.rid, &c.bid, &c.due, &c.repo, &k, &c.size); err != nil {
				return err
			}
			c.digest = digestOf(k)
			cs = append(cs, c)
		}
		return rows.Err()
	})
	return cs, err
}

// collectSome looks at one batch and removes what nothing needs.
func (s *Store) collectSome(ctx context.Context, due []candidate, st *CollectStats) error {
	type later struct {
		candidate
		until time.Duration
	}
	var mine []candidate
	var leased []later
	held := map[image.Digest]bool{}
	var release []func()
	defer func() {
		for _, f := range release {
			f()
		}
	}()
	mono := s.clock.Mono()
	for _, c := range due {
		if !held[c.digest] {
			// Who holds a digest is pushing it: nothing to collect there now.
			unlock := s.locks.tryLock(c.digest)
			if unlock == nil {
				continue
			}
			until, ok := s.leases.condemn(c.digest, mono)
			if !ok {
				unlock()
				leased = append(leased, later{c, until})
				continue
			}
			held[c.digest] = true
			release = append(release, func() { s.leases.pardon(c.digest); unlock() })
		}
		mine = append(mine, c)
	}
	st.Leased += len(leased)

	var gone []candidate
	links := 0
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		gone, links = nil, 0
		now := s.now()
		for _, l := range leased {
			if err := l.postpone(tx, now+int64(max(l.until-mono, 1))); err != nil {
				return err
			}
		}
		for _, c := range mine {
			ended, err := c.end(tx, now)
			if err != nil {
				return err
			}
			if !ended {
				continue
			}
			if c.rid != 0 {
				links++
			}
			n, err := tx.Exec(`DELETE FROM blobs WHERE id = ? AND NOT EXISTS (SELECT 1 FROM links l WHERE l.blob_id = blobs.id)
				AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.blob_id = blobs.id) AND NOT EXISTS (SELECT 1 FROM loose o WHERE o.blob_id = blobs.id)`, c.bid)
			if err != nil {
				return err
			}
			if n > 0 {
				gone = append(gone, c)
			}
			if err := dropEmptyRepo(tx, c.rid); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range mine {
		s.unlinks.bump(c.repo)
	}
	if err != nil {
		return err
	}
	st.Links += links
	var errs []error
	for _, c := range gone {
		// Without a row the file is an orphan: if this fails the reconciler
		// removes it.
		if err := s.blobs.Delete(ctx, c.digest); err != nil {
			errs = append(errs, err)
			continue
		}
		st.Blobs++
		st.Bytes += c.size
	}
	return errors.Join(errs...)
}

// postpone has the collector look at the candidate later.
func (c candidate) postpone(tx *db.Tx, due int64) error {
	if c.rid == 0 {
		_, err := tx.Exec("UPDATE loose SET due = ? WHERE blob_id = ? AND due = ?", due, c.bid, c.due)
		return err
	}
	_, err := tx.Exec("UPDATE links SET due = ? WHERE repo_id = ? AND blob_id = ? AND due = ?", due, c.rid, c.bid, c.due)
	return err
}

// end removes the candidate's row, and reports whether that is still due.
func (c candidate) end(tx *db.Tx, now int64) (bool, error) {
	if c.rid == 0 {
		n, err := tx.Exec("DELETE FROM loose WHERE blob_id = ? AND due <= ?", c.bid, now)
		return n > 0, err
	}
	n, err := tx.Exec(`DELETE FROM links WHERE repo_id = ? AND blob_id = ? AND due IS NOT NULL AND due <= ?
		AND NOT EXISTS (SELECT 1 FROM manifest_blobs x WHERE x.blob_id = links.blob_id AND x.repo_id = links.repo_id)`, c.rid, c.bid, now)
	if n > 0 || err != nil {
		return n > 0, err
	}
	// A manifest holds it, or it was pushed again.
	_, err = tx.Exec(`UPDATE links SET due = NULL WHERE repo_id = ? AND blob_id = ? AND due <= ?`, c.rid, c.bid, now)
	return false, err
}

// dropEmptyRepo removes a repository that has lost its last blob.
func dropEmptyRepo(tx *db.Tx, rid int64) error {
	_, err := tx.Exec(`DELETE FROM repositories WHERE id = ?
		AND NOT EXISTS (SELECT 1 FROM links l WHERE l.repo_id = repositories.id)
		AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repo_id = repositories.id)
		AND NOT EXISTS (SELECT 1 FROM pins p WHERE p.repo_id = repositories.id)`, rid)
	return err
}

// ReconcileStats says what a reconciliation removed.
type ReconcileStats struct {
	Blobs, Uploads int
	Bytes          int64
}

// Reconcile removes files that the metadata does not know and that are older
// than the grace period: what a crash left between writing bytes and
// recording them.
func (s *Store) Reconcile(ctx context.Context) (ReconcileStats, error) {
	var st ReconcileStats
	batch := make([]blob.Entry, 0, 256)
	flush := func() error {
		for _, e := range batch {
			var ok bool
			var err error
			if e.Upload != "" {
				ok, err = s.removeOrphanUpload(ctx, e.Upload)
				if ok {
					st.Uploads++
				}
			} else {
				ok, err = s.removeOrphan(ctx, e.Digest)
				if ok {
					st.Blobs++
				}
			}
			if err != nil {
				return err
			}
			if ok {
				st.Bytes += e.Size
			}
		}
		batch = batch[:0]
		return s.traffic.stepAside(ctx)
	}
	old := s.clock.Now().Add(-s.grace)
	err := s.blobs.Walk(ctx, func(e blob.Entry) error {
		if e.Modified.After(old) {
			return nil
		}
		if batch = append(batch, e); len(batch) < cap(batch) {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return st, fmt.Errorf("reconcile: %w", mapError(err))
	}
	if st != (ReconcileStats{}) {
		s.log.Info("removed files nothing knew", "blobs", st.Blobs, "uploads", st.Uploads, "bytes", st.Bytes)
	}
	return st, nil
}

// known reports whether a statement finds a row. That it finds none may be
// undone by a loss of power: see [Store.removeUnknown].
func (s *Store) known(ctx context.Context, query string, arg any) (bool, error) {
	var ok bool
	err := s.db.ReadOne(ctx, func(q db.Query) (err error) {
		var one int
		ok, err = q.Row(ctx, query, []any{arg}, &one)
		return err
	})
	return ok, err
}

const blobKnown = "SELECT 1 FROM blobs WHERE digest = ?"

// removeOrphan removes a blob's file if no row knows it. A push between its
// rename and its commit holds the lock.
func (s *Store) removeOrphan(ctx context.Context, d image.Digest) (bool, error) {
	if ok, err := s.known(ctx, blobKnown, key(d)); ok || err != nil {
		return false, err
	}
	unlock := s.locks.tryLock(d)
	if unlock == nil {
		return false, nil
	}
	defer unlock()
	return s.removeUnknown(ctx, d)
}

// removeUnknown removes a blob's file if no row knows it. It looks in a write:
// when that returns, the disk knows of no row either, and none can come back
// that would be without its file. Hold the lock of d.
func (s *Store) removeUnknown(ctx context.Context, d image.Digest) (bool, error) {
	var ok bool
	err := s.db.Write(ctx, func(tx *db.Tx) (err error) {
		var one int
		ok, err = tx.Row(ctx, blobKnown, []any{key(d)}, &one)
		return err
	})
	if ok || err != nil {
		return false, err
	}
	return true, s.blobs.Delete(ctx, d)
}

// removeOrphanUpload removes the bytes of an upload that neither this process
// nor SQL knows.
func (s *Store) removeOrphanUpload(ctx context.Context, id string) (bool, error) {
	s.upload.mu.Lock()
	here := s.upload.m[id] != nil
	s.upload.mu.Unlock()
	if here {
		return false, nil
	}
	if ok, err := s.known(ctx, "SELECT 1 FROM uploads WHERE id = ?", id); ok || err != nil {
		return false, err
	}
	st, err := s.blobs.Stage(ctx, id)
	if err != nil {
		return false, err
	}
	return true, st.Discard()
}
