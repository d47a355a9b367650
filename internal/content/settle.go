package content

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"cairn.dev/cairn/internal/db"
)

// A push is one commit and one flush, which covers its bytes and its row (see
// [Config.Flushed]). Until the flush has ended the row can be seen by others,
// and a loss of power may leave the row without the bytes. What keeps that
// harmless:
//
//   - Nobody was told that the push is done: that waits for the flush.
//   - A client who saw the blob and mounts it, or pushes it again, waits for a
//     flush of its own, which began later and so covers the bytes, too.
//   - A manifest is put only on blobs that are settled: bytes and row on the
//     disk. Otherwise its tag may have been moved from another image, and
//     taking the manifest back could not bring that back. Who was answered
//     for each blob never waits for this.
//   - So what a loss of power can leave is a row and links that nobody was
//     told of and nothing refers to. They belong to the newest rows, those
//     after the last that the database says is settled; a start reads the
//     bytes of those again and removes the rows that have none.
//
// Blobs are settled in the order of their ids, since ids are given in the
// order of commits, a file is in place before its row, and a flush covers what
// came before it.
type settled struct {
	last  int64        // id given last; the writer's
	upto  atomic.Int64 // blobs up to this one are on the disk
	noted int64        // as the database says; the writer's
	next  time.Duration
}

// errUnsettled: the manifest names a blob that is not settled.
var errUnsettled = errors.New("blob is not settled")

// noteEvery is how often a push writes down what is settled, and so how much
// time's pushes a start may have to read again.
const noteEvery = time.Second

// raise notes that the blobs up to id are settled.
func (l *settled) raise(id int64) {
	for {
		old := l.upto.Load()
		if id <= old || l.upto.CompareAndSwap(old, id) {
			return
		}
	}
}

// insertBlob makes the row of a new blob and returns its id; 0 if there is a
// row. The id is above all that were ever given: that of a row which is gone
// may be one that is taken for settled.
func (s *Store) insertBlob(tx *db.Tx, b Blob) (int64, error) {
	l := &s.settled
	n, err := tx.Exec("INSERT INTO blobs (id, digest, size, corrupt) VALUES (?, ?, ?, 0) ON CONFLICT (digest) DO NOTHING", l.last+1, key(b.Digest), b.Size)
	if n == 0 || err != nil {
		return 0, err
	}
	l.last++
	if now := s.clock.Mono(); now >= l.next {
		l.next = now + noteEvery
		return l.last, s.noteSettled(tx)
	}
	return l.last, nil
}

// noteSettled writes down what is settled.
func (s *Store) noteSettled(tx *db.Tx) error {
	upto := s.settled.upto.Load()
	if upto == s.settled.noted {
		return nil
	}
	// If the transaction is lost the database says less than is true.
	s.settled.noted = upto
	_, err := tx.Exec("UPDATE settled SET upto = ?", upto)
	return err
}

// settle returns when the blobs that have rows now are settled.
func (s *Store) settle(ctx context.Context) error {
	var last int64
	err := s.db.Write(ctx, func(*db.Tx) error {
		last = s.settled.last
		return nil
	})
	if err == nil {
		s.settled.raise(last)
	}
	return err
}

// reread looks at the blobs that may not have been settled when an earlier
// process ended, before anybody is told of them. After an orderly stop there
// are none.
func (s *Store) reread(ctx context.Context) error {
	var upto, last int64
	err := s.db.ReadOne(ctx, func(q db.Query) error {
		_, err := q.Row(ctx, "SELECT upto, (SELECT COALESCE(MAX(id), 0) FROM blobs) FROM settled", nil, &upto, &last)
		return err
	})
	if err != nil {
		return err
	}
	s.settled.last = max(upto, last)
	s.settled.noted = upto
	s.settled.upto.Store(upto)
	if last <= upto {
		return nil
	}
	start := s.clock.Mono()
	// What the kernel still has to write it writes now; what it gave up
	// writing the disk will not have.
	if err := s.settle(ctx); err != nil {
		return err
	}
	var looked, lost int
	var bad []scrubBlob
	err = s.eachBlob(ctx, upto, func(page []scrubBlob) error {
		looked += len(page)
		for _, b := range page {
			good, _, err := s.hashBlob(ctx, b)
			if err != nil {
				return err
			}
			if !good {
				bad = append(bad, b)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	lost = len(bad)
	for len(bad) > 0 {
		some := bad[:min(len(bad), collectBatch)]
		bad = bad[len(some):]
		err := s.db.Write(ctx, func(tx *db.Tx) error {
			for _, b := range some {
				if err := s.disown(ctx, tx, b); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := s.db.Write(ctx, s.noteSettled); err != nil {
		return err
	}
	s.log.Info("looked again at what was pushed just before the last stop", "blobs", looked, "removed", lost, "took", s.clock.Mono()-start)
	return nil
}

// disown removes the row of a blob whose push was not acknowledged, its links
// and its holds. The file, if there is one, is left to the next push or the reconciler.
func (s *Store) disown(ctx context.Context, tx *db.Tx, b scrubBlob) error {
	var one int
	needed, err := tx.Row(ctx, "SELECT 1 FROM manifest_blobs WHERE blob_id = ? LIMIT 1", []any{b.id}, &one)
	if err != nil {
		return err
	}
	if needed { // then it was whole once, and is damaged
		s.log.Error("blob is damaged: push it again", "digest", b.digest)
		_, err := tx.Exec("UPDATE blobs SET corrupt = 1 WHERE id = ?", b.id)
		return err
	}
	var repos []int64
	rows, err := tx.Query(ctx, "SELECT repo_id FROM links WHERE blob_id = ?", b.id)
	if err != nil {
		return err
	}
	for rows.Next() {
		var rid int64
		if err := rows.Scan(&rid); err != nil {
			return errors.Join(err, rows.Close())
		}
		repos = append(repos, rid)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	if _, err := tx.Exec("DELETE FROM links WHERE blob_id = ?", b.id); err != nil {
		return err
	}
	// Nor was anybody told that it is held for him.
	for _, q := range []string{"DELETE FROM holds WHERE blob_id = ?", "DELETE FROM loose WHERE blob_id = ?", "DELETE FROM blobs WHERE id = ?"} {
		if _, err := tx.Exec(q, b.id); err != nil {
			return err
		}
	}
	for _, rid := range repos {
		if err := dropEmptyRepo(tx, rid); err != nil {
			return err
		}
	}
	s.log.Warn("the push of a blob did not come to its end before the power went; it was not acknowledged", "digest", b.digest)
	return nil
}
