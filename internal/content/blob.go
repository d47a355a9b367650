package content

import (
	"context"
	"errors"
	"fmt"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// protect renews the lease of d before the caller looks whether it is there.
// It waits only while the collector is removing this very blob.
func (s *Store) protect(d image.Digest) {
	until := s.clock.Mono() + s.grace
	if s.leases.renew(d, until, false) {
		return
	}
	defer s.locks.lock(d)()
	s.leases.renew(d, until, true)
}

// findBlob is the statement that sees a blob through a repository. The
// subqueries fix the order of the look-ups: three unique indexes.
const findBlob = `SELECT b.size, b.corrupt FROM links l JOIN blobs b ON b.id = l.blob_id
	WHERE l.repo_id = (SELECT id FROM repositories WHERE name = ?)
	AND l.blob_id = (SELECT id FROM blobs WHERE digest = ?) AND l.hidden = 0`

// lookup returns the blob as the repository sees it: ErrBlobUnknown if it does
// not, ErrCorrupt as well if it does but the bytes are known to be damaged.
func (s *Store) lookup(ctx context.Context, repo string, d image.Digest) (Blob, error) {
	if b, ok := s.blobStat.get(repo, string(d)); ok {
		return b, nil
	}
	gen := s.unlinks.of(repo).Load()
	b := Blob{Digest: d}
	var corrupt int
	var ok bool
	err := s.db.ReadOne(ctx, func(q db.Query) (err error) {
		ok, err = q.Row(ctx, findBlob, []any{repo, key(d)}, &b.Size, &corrupt)
		return err
	})
	switch {
	case err != nil:
		return Blob{}, fmt.Errorf("look up blob %s in %s: %w", d, repo, mapError(err))
	case !ok:
		return Blob{}, fmt.Errorf("%w: %s in %s", ErrBlobUnknown, d, repo)
	case corrupt != 0:
		return Blob{}, fmt.Errorf("%w: %s in %s: %w; push it again", ErrBlobUnknown, d, repo, ErrCorrupt)
	}
	s.blobStat.put(repo, string(d), gen, b, int64(len(d)))
	return b, nil
}

// find is lookup for who tells a client that the blob is there. It looks
// before it takes the lease, so that asking for what does not exist leaves
// nothing behind in memory, and again after, because only that look counts.
func (s *Store) find(ctx context.Context, repo string, d image.Digest) (Blob, error) {
	if _, err := s.lookup(ctx, repo, d); err != nil {
		return Blob{}, err
	}
	s.protect(d)
	return s.lookup(ctx, repo, d)
}

// StatBlob tells whether the repository has the blob, and protects it from
// collection for the grace period. A blob known to be corrupt is answered with
// ErrBlobUnknown (and ErrCorrupt), so that clients push it again.
func (s *Store) StatBlob(ctx context.Context, repo string, d image.Digest) (Blob, error) {
	if err := checkDigest(d); err != nil {
		return Blob{}, err
	}
	return s.find(ctx, repo, d)
}

// OpenBlob opens a blob of the repository for reading and protects it as
// StatBlob does. ErrCorrupt, and not ErrBlobUnknown, says that the repository
// has it but the bytes are damaged or lost. The caller closes the reader.
func (s *Store) OpenBlob(ctx context.Context, repo string, d image.Digest) (blob.Reader, error) {
	if err := checkDigest(d); err != nil {
		return nil, err
	}
	b, err := s.find(ctx, repo, d)
	if errors.Is(err, ErrCorrupt) {
		return nil, fmt.Errorf("read blob %s: %w; push it again", d, ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	return s.open(ctx, b)
}

// open opens a blob that somebody keeps from collection.
func (s *Store) open(ctx context.Context, b Blob) (blob.Reader, error) {
	d := b.Digest
	r, err := s.blobs.Open(ctx, d)
	if errors.Is(err, blob.ErrNotFound) {
		s.log.Error("blob is missing on the disk: push it again", "digest", d)
		return nil, fmt.Errorf("read blob %s: %w: its file is missing; push it again", d, ErrCorrupt)
	}
	if err != nil {
		return nil, mapError(err)
	}
	if r.Size() != b.Size {
		s.log.Error("blob has the wrong size on the disk: push it again", "digest", d, "size", r.Size(), "want", b.Size)
		err := fmt.Errorf("read blob %s: %w: its file has %d bytes instead of %d; push it again", d, ErrCorrupt, r.Size(), b.Size)
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// DeleteBlob takes the blob out of the repository. The bytes go when no
// repository has it. ErrBlobInUse while a live manifest of the repository
// names it; while only hidden ones do it is gone for clients and kept for them.
func (s *Store) DeleteBlob(ctx context.Context, repo string, d image.Digest) error {
	if err := checkDigest(d); err != nil {
		return err
	}
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		rid, err := repoID(ctx, tx, repo)
		if errors.Is(err, ErrRepositoryUnknown) {
			return fmt.Errorf("%w: %s in %s", ErrBlobUnknown, d, repo)
		} else if err != nil {
			return err
		}
		var bid int64
		ok, err := tx.Row(ctx, "SELECT b.id FROM blobs b JOIN links l ON l.blob_id = b.id WHERE b.digest = ? AND l.repo_id = ? AND l.hidden = 0",
			[]any{key(d), rid}, &bid)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: %s in %s", ErrBlobUnknown, d, repo)
		}
		var by []byte
		ok, err = tx.Row(ctx, `SELECT m.digest FROM manifest_blobs x JOIN manifests m ON m.id = x.manifest_id
			WHERE x.blob_id = ? AND x.repo_id = ? AND m.state = 0 LIMIT 1`, []any{bid, rid}, &by)
		if err != nil {
			return err
		}
		if ok {
			return fmt.Errorf("%w: %s needs %s", ErrBlobInUse, digestOf(by), d)
		}
		// A hidden manifest keeps due as NULL: its sweep sets it.
		_, err = tx.Exec("UPDATE links SET hidden = 1, due = CASE WHEN due IS NULL THEN NULL ELSE ? END WHERE repo_id = ? AND blob_id = ?",
			s.now(), rid, bid)
		return err
	})
	s.unlinks.bump(repo)
	if err != nil {
		return fmt.Errorf("delete blob: %w", mapError(err))
	}
	return nil
}

// link makes the blob visible in the repository, and due for a look by the
// collector after the grace period unless a manifest holds it already.
func (s *Store) link(tx *db.Tx, repo string, blobID int64) error {
	// One statement where the repository is there, as nearly always.
	n, err := tx.Exec(`INSERT INTO links (repo_id, blob_id, due, hidden) SELECT id, ?, ?, 0 FROM repositories WHERE name = ?
		ON CONFLICT (repo_id, blob_id) DO UPDATE SET hidden = 0,
		due = CASE WHEN links.due IS NULL THEN NULL ELSE excluded.due END`, blobID, s.now()+int64(s.grace), repo)
	if n > 0 || err != nil {
		return err
	}
	if _, err := makeRepo(tx, repo); err != nil {
		return err
	}
	return s.link(tx, repo, blobID)
}

// maxMountSources bounds the repositories a mount without a source looks at.
const maxMountSources = 1000

// Mount makes a blob of another repository visible in repo, without copying.
// from "" means any repository that may allows. false: there is none that has
// it, or it may not be read there; the caller starts an upload. may must
// answer from memory; nil allows all.
func (s *Store) Mount(ctx context.Context, repo string, d image.Digest, from string, may func(repo string) bool) (bool, error) {
	if checkDigest(d) != nil {
		return false, nil // "mount" with nonsense falls back to an upload
	}
	defer s.traffic.enter()()
	if may == nil {
		may = func(string) bool { return true }
	}
	if from == "" || from == repo {
		if _, err := s.find(ctx, repo, d); err == nil {
			return true, nil
		}
	}
	source := from
	if from != "" {
		if !may(from) {
			return false, nil
		}
		if _, err := s.lookup(ctx, from, d); errors.Is(err, ErrBlobUnknown) {
			return false, nil
		}
	} else {
		err := s.db.ReadOne(ctx, func(q db.Query) error {
			rows, err := q.Query(ctx, `SELECT r.name FROM blobs b JOIN links l ON l.blob_id = b.id JOIN repositories r ON r.id = l.repo_id
				WHERE b.digest = ? AND b.corrupt = 0 AND l.hidden = 0 LIMIT ?`, key(d), maxMountSources)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() && source == "" {
				var name string
				if err := rows.Scan(&name); err != nil {
					return err
				}
				if may(name) {
					source = name
				}
			}
			return rows.Err()
		})
		if err != nil {
			return false, fmt.Errorf("mount blob %s: %w", d, mapError(err))
		}
		if source == "" {
			return false, nil
		}
	}
	s.protect(d)
	mounted := false
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		mounted = false
		var bid int64
		ok, err := tx.Row(ctx, `SELECT b.id FROM blobs b JOIN links l ON l.blob_id = b.id JOIN repositories r ON r.id = l.repo_id
			WHERE b.digest = ? AND b.corrupt = 0 AND r.name = ? AND l.hidden = 0`, []any{key(d), source}, &bid)
		if err != nil || !ok {
			return err
		}
		mounted = true
		return s.link(tx, repo, bid)
	})
	if err != nil {
		return false, fmt.Errorf("mount blob %s into %s: %w", d, repo, mapError(err))
	}
	return mounted, nil
}
