package content

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

const scrubPage = 500

// Scrub reads and hashes every blob and every manifest. A blob that does not
// match, or is not there, is marked: from then on it is answered as unknown
// (and reading it as corrupt), until a push of the same digest repairs it.
// progress, which may be nil, is told the bytes done and to do.
func (s *Store) Scrub(ctx context.Context, progress func(done, total int64)) (ScrubReport, error) {
	var rep ScrubReport
	if progress == nil {
		progress = func(int64, int64) {}
	}
	if err := s.scrubBlobs(ctx, &rep, progress); err != nil {
		return rep, fmt.Errorf("scrub blobs: %w", mapError(err))
	}
	if err := s.scrubManifests(ctx, &rep); err != nil {
		return rep, fmt.Errorf("scrub manifests: %w", mapError(err))
	}
	err := s.blobs.Walk(ctx, func(e blob.Entry) error {
		if e.Digest == "" {
			return nil
		}
		ok, err := s.known(ctx, blobKnown, key(e.Digest))
		if err == nil && !ok {
			rep.Orphans = append(rep.Orphans, e.Digest)
		}
		return err
	})
	if err != nil {
		return rep, fmt.Errorf("scrub: %w", mapError(err))
	}
	return rep, nil
}

type scrubBlob struct {
	id      int64
	digest  image.Digest
	size    int64
	corrupt int
}

func (s *Store) scrubBlobs(ctx context.Context, rep *ScrubReport, progress func(done, total int64)) error {
	stats, err := s.Stats(ctx)
	if err != nil {
		return err
	}
	total := stats.BlobBytes
	progress(0, total)
	return s.eachBlob(ctx, 0, func(page []scrubBlob) error {
		for _, b := range page {
			if err := s.scrubOne(ctx, b, rep); err != nil {
				return err
			}
		}
		if len(page) < scrubPage {
			progress(total, total)
		} else {
			progress(min(rep.Bytes, total), total)
		}
		return nil
	})
}

// eachBlob calls f for the blobs with ids above after, in order, in pages of
// which the last is not full and may be empty.
func (s *Store) eachBlob(ctx context.Context, after int64, f func(page []scrubBlob) error) error {
	for {
		var page []scrubBlob
		err := s.db.ReadOne(ctx, func(q db.Query) error {
			rows, err := q.Query(ctx, "SELECT id, digest, size, corrupt FROM blobs WHERE id > ? ORDER BY id LIMIT ?", after, scrubPage)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var b scrubBlob
				var k []byte
				if err := rows.Scan(&b.id, &k, &b.size, &b.corrupt); err != nil {
					return err
				}
				b.digest = digestOf(k)
				page = append(page, b)
			}
			return rows.Err()
		})
		if err == nil {
			err = f(page)
		}
		if err != nil || len(page) < scrubPage {
			return err
		}
		after = page[len(page)-1].id
	}
}

func (s *Store) scrubOne(ctx context.Context, b scrubBlob, rep *ScrubReport) error {
	good, missing, err := s.hashBlob(ctx, b)
	if err != nil {
		return err
	}
	if !good {
		// Look again with the blob held: it may have been collected or
		// repaired under our eyes.
		unlock := s.locks.lock(b.digest)
		defer unlock()
		if good, missing, err = s.hashBlob(ctx, b); err != nil {
			return err
		}
	}
	if good {
		rep.Blobs++
		rep.Bytes += b.size
		if b.corrupt == 0 {
			return nil
		}
	}
	mark, found := 1, int64(0)
	if good {
		mark = 0 // whatever was wrong (a disk that was away) is right again
	}
	err = s.db.Write(ctx, func(tx *db.Tx) (err error) {
		found, err = tx.Exec("UPDATE blobs SET corrupt = ? WHERE digest = ?", mark, key(b.digest))
		return err
	})
	s.unlinks.bumpAll()
	if err != nil || found == 0 || good {
		return err
	}
	if missing {
		rep.Missing = append(rep.Missing, b.digest)
	} else {
		rep.Blobs++
		rep.Bytes += b.size
		rep.Corrupt = append(rep.Corrupt, b.digest)
	}
	s.log.Error("blob is damaged: push it again", "digest", b.digest, "missing", missing)
	return nil
}

// hashBlob reads a blob and compares. An error of reading counts as damage:
// a disk that cannot give the bytes does not have them.
func (s *Store) hashBlob(ctx context.Context, b scrubBlob) (good, missing bool, err error) {
	r, err := s.blobs.Open(ctx, b.digest)
	if errors.Is(err, blob.ErrNotFound) {
		return false, true, nil
	}
	if err != nil {
		return false, false, err
	}
	defer r.Close()
	// What counts is what the disk has, if the place for blobs tells them
	// apart.
	if d, ok := r.(interface{ Reread() }); ok {
		d.Reread()
	}
	var h hash.Hash
	if b.digest.Algorithm() == "sha512" {
		h = sha512.New()
	} else {
		h = sha256.New()
	}
	n, err := copyBuffered(h, reader{ctx, r})
	if err := ctx.Err(); err != nil {
		return false, false, err
	}
	if err != nil {
		s.log.Error("blob cannot be read", "digest", b.digest, "error", err)
		return false, false, nil
	}
	return n == b.size && hex.EncodeToString(h.Sum(nil)) == b.digest.Encoded(), false, nil
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   blob.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (s *Store) scrubManifests(ctx context.Context, rep *ScrubReport) error {
	for after := int64(0); ; {
		n := 0
		err := s.db.ReadOne(ctx, func(q db.Query) error {
			rows, err := q.Query(ctx, `SELECT m.id, r.name, m.digest, b.body FROM manifests m
				JOIN repositories r ON r.id = m.repo_id LEFT JOIN manifest_bodies b ON b.manifest_id = m.id
				WHERE m.id > ? ORDER BY m.id LIMIT ?`, after, scrubPage)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var repo string
				var k, body []byte
				if err := rows.Scan(&after, &repo, &k, &body); err != nil {
					return err
				}
				n++
				rep.Manifests++
				if d := digestOf(k); !matches(body, d) {
					rep.CorruptManifests = append(rep.CorruptManifests, CorruptManifest{repo, d})
				}
			}
			return rows.Err()
		})
		if err != nil || n < scrubPage {
			return err
		}
	}
}

// Stats counts what is stored. It reads several short views: under load the
// numbers need not fit each other exactly.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	var st Stats
	var all int64
	for _, x := range []struct {
		query string
		dest  []any
	}{
		{"SELECT COUNT(*) FROM repositories r WHERE EXISTS (SELECT 1 FROM manifests m WHERE m.repo_id = r.id AND m.state = 0)", []any{&st.Repositories}},
		{"SELECT COUNT(*) FROM manifests", []any{&all}},
		{"SELECT COUNT(*) FROM manifests WHERE state <> 0 AND state = 1", []any{&st.Expired}},
		{"SELECT COUNT(*) FROM manifests WHERE state <> 0 AND state = 2", []any{&st.Deleted}},
		{"SELECT COUNT(*) FROM tags", []any{&st.Tags}},
		{"SELECT COUNT(*), COALESCE(SUM(size), 0), COALESCE(SUM(corrupt), 0) FROM blobs", []any{&st.Blobs, &st.BlobBytes, &st.Corrupt}},
		{"SELECT COUNT(*) FROM uploads", []any{&st.Uploads}},
	} {
		err := s.db.ReadOne(ctx, func(q db.Query) error {
			_, err := q.Row(ctx, x.query, nil, x.dest...)
			return err
		})
		if err != nil {
			return st, fmt.Errorf("count what is stored: %w", mapError(err))
		}
	}
	st.Live = all - st.Expired - st.Deleted
	return st, nil
}
