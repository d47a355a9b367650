package content

import (
	"context"
	"errors"
	"fmt"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// itemsPerWrite bounds the images in one transaction of Expire and Sweep, so
// that a push never waits long behind them.
const itemsPerWrite = 16

// hide takes an image out of sight: its tags are put aside, its row and blobs
// stay.
func (s *Store) hide(ctx context.Context, tx *db.Tx, repo string, rid, id int64, d image.Digest, to State, actor, reason string, uses []usage.Use) error {
	now := s.now()
	tags, err := stringsOf(tx.Query(ctx, "SELECT name FROM tags WHERE manifest_id = ? ORDER BY name", id))
	if err != nil {
		return err
	}
	if _, err := tx.Exec(`INSERT INTO hidden_tags (manifest_id, name, repo_id, pushed)
		SELECT manifest_id, name, repo_id, pushed FROM tags WHERE manifest_id = ?`, id); err != nil {
		return err
	}
	if _, err := tx.Exec("DELETE FROM tags WHERE manifest_id = ?", id); err != nil {
		return err
	}
	_, err = tx.Exec("UPDATE manifests SET state = ?, hidden_at = ?, reason = ?, version = version + 1 WHERE id = ?", int(to), now, reason, id)
	if err != nil {
		return err
	}
	action := "expire"
	if to == Deleted {
		action = "delete"
		// Those tags are gone for clients; an older image must not answer.
		if _, err := tx.Exec(`UPDATE hidden_tags SET pull = 0 WHERE repo_id = ? AND name IN
			(SELECT name FROM hidden_tags WHERE manifest_id = ?)`, rid, id); err != nil {
			return err
		}
	}
	return s.audit(tx, AuditEntry{Action: action, Repository: repo, Digest: d, Tags: tags, Actor: actor, Reason: reason, Uses: uses})
}

// Expire hides images that retention decided about. The answer has one error
// for each item: nil, ErrChanged when the image is not what it was when it was
// decided (or is pinned, or used since), or what went wrong with it. The
// second result is an error of the whole. Give parents before their children.
func (s *Store) Expire(ctx context.Context, items []Expiry) ([]error, error) {
	return s.each(ctx, items, func(tx *db.Tx, it Expiry) error {
		m, err := decided(ctx, tx, it, s.now())
		if err != nil {
			return err
		}
		if m.state != Live {
			return fmt.Errorf("%w: it is %s already", ErrChanged, m.state)
		}
		return s.hide(ctx, tx, it.Repository, m.rid, m.id, it.Digest, Expired, "retention", it.Reason, it.Uses)
	})
}

// each runs f for each item, a few in one transaction, and collects what f
// said. An item's failure leaves its neighbours alone.
func (s *Store) each(ctx context.Context, items []Expiry, f func(*db.Tx, Expiry) error) ([]error, error) {
	errs := make([]error, len(items))
	for from := 0; from < len(items); from += itemsPerWrite {
		to := min(from+itemsPerWrite, len(items))
		err := s.db.Write(ctx, func(tx *db.Tx) error {
			for i := from; i < to; i++ {
				errs[i] = f(tx, items[i])
				// f checks before it changes anything: after these nothing
				// was written. Any other error undoes the batch.
				if err := errs[i]; err != nil && !errors.Is(err, ErrChanged) && !errors.Is(err, ErrManifestUnknown) {
					return err
				}
			}
			return nil
		})
		for i := from; i < to; i++ {
			s.changes.bump(items[i].Repository)
			if err != nil {
				errs[i] = mapError(err)
			}
		}
		if err != nil {
			err = fmt.Errorf("after %d of %d images: %w", from, len(items), mapError(err))
			for i := to; i < len(items); i++ {
				errs[i] = err
			}
			return errs, err
		}
	}
	return errs, nil
}

// found is the row of a manifest in a transaction.
type found struct {
	rid, id int64
	state   State
	version int64
}

func findManifest(ctx context.Context, q db.Query, repo string, d image.Digest) (found, error) {
	var m found
	var err error
	if m.rid, err = repoID(ctx, q, repo); err != nil {
		return m, err
	}
	ok, err := q.Row(ctx, "SELECT id, state, version FROM manifests WHERE repo_id = ? AND digest = ?", []any{m.rid, key(d)}, &m.id, &m.state, &m.version)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %s of %s", ErrManifestUnknown, d, repo)
	}
	return m, err
}

// decided finds the image of an item and checks that the decision still holds.
func decided(ctx context.Context, tx *db.Tx, it Expiry, now int64) (found, error) {
	m, err := findManifest(ctx, tx, it.Repository, it.Digest)
	if errors.Is(err, ErrManifestUnknown) || errors.Is(err, ErrRepositoryUnknown) {
		return m, fmt.Errorf("%w: %w", ErrChanged, err)
	}
	if err != nil {
		return m, err
	}
	if m.version != it.Version {
		return m, fmt.Errorf("%w: %s of %s", ErrChanged, it.Digest, it.Repository)
	}
	var by string
	pinned, err := tx.Row(ctx, "SELECT actor FROM pins WHERE repo_id = ? AND digest = ? AND (expires = 0 OR expires > ?)", []any{m.rid, key(it.Digest), now}, &by)
	if err != nil {
		return m, err
	}
	if pinned {
		return m, fmt.Errorf("%w: %s of %s is pinned by %s", ErrChanged, it.Digest, it.Repository, by)
	}
	if it.StillUnused != nil && !it.StillUnused() {
		return m, fmt.Errorf("%w: %s of %s was used", ErrChanged, it.Digest, it.Repository)
	}
	return m, nil
}

// DeleteTag takes a tag away; the image stays and begins its time anew. A tag
// that an expired image had no longer brings it back.
func (s *Store) DeleteTag(ctx context.Context, repo, tag, actor string) error {
	err := s.write(ctx, repo, func(tx *db.Tx) error {
		rid, err := repoID(ctx, tx, repo)
		if err != nil {
			return err
		}
		hidden, err := tx.Exec("UPDATE hidden_tags SET pull = 0 WHERE repo_id = ? AND name = ? AND pull = 1", rid, tag)
		if err != nil {
			return err
		}
		var id int64
		var d []byte
		ok, err := tx.Row(ctx, "SELECT m.id, m.digest FROM tags t JOIN manifests m ON m.id = t.manifest_id WHERE t.repo_id = ? AND t.name = ?", []any{rid, tag}, &id, &d)
		if err != nil {
			return err
		}
		if !ok {
			if hidden > 0 {
				return nil
			}
			return fmt.Errorf("%w: tag %s of %s", ErrManifestUnknown, tag, repo)
		}
		if _, err := tx.Exec("DELETE FROM tags WHERE repo_id = ? AND name = ?", rid, tag); err != nil {
			return err
		}
		if err := touchManifest(tx, id, s.now()); err != nil {
			return err
		}
		return s.audit(tx, AuditEntry{Action: "untag", Repository: repo, Digest: digestOf(d), Tags: []string{tag}, Actor: actor, Reason: "tag deleted"})
	})
	if err != nil {
		return fmt.Errorf("delete tag: %w", err)
	}
	return nil
}

// DeleteManifest hides an image, live or expired, at the wish of a person or
// client, with all its tags. Only Restore brings it back.
func (s *Store) DeleteManifest(ctx context.Context, repo string, d image.Digest, actor, reason string) error {
	if err := checkDigest(d); err != nil {
		return err
	}
	err := s.write(ctx, repo, func(tx *db.Tx) error {
		m, err := findManifest(ctx, tx, repo, d)
		if err != nil {
			return err
		}
		if m.state == Deleted {
			return fmt.Errorf("%w: %s of %s", ErrManifestUnknown, d, repo)
		}
		return s.hide(ctx, tx, repo, m.rid, m.id, d, Deleted, actor, reason, nil)
	})
	if err != nil {
		return fmt.Errorf("delete manifest: %w", err)
	}
	return nil
}

// Sweep removes hidden images for good. Their blobs go with the next
// collections, unless something else needs them. Answers as Expire does.
func (s *Store) Sweep(ctx context.Context, items []Expiry) ([]error, error) {
	return s.each(ctx, items, func(tx *db.Tx, it Expiry) error {
		m, err := decided(ctx, tx, it, s.now())
		if err != nil {
			return err
		}
		if m.state == Live {
			return fmt.Errorf("%w: it is live", ErrChanged)
		}
		tags, err := stringsOf(tx.Query(ctx, "SELECT name FROM hidden_tags WHERE manifest_id = ? ORDER BY name", m.id))
		if err != nil {
			return err
		}
		// The collector looks at each link that nothing else holds.
		now := s.now()
		if _, err := tx.Exec(`UPDATE links SET due = ? WHERE repo_id = ? AND blob_id IN (SELECT blob_id FROM manifest_blobs WHERE manifest_id = ?)
			AND NOT EXISTS (SELECT 1 FROM manifest_blobs o WHERE o.blob_id = links.blob_id AND o.repo_id = links.repo_id AND o.manifest_id <> ?)`,
			now, m.rid, m.id, m.id); err != nil {
			return err
		}
		for _, q := range []string{
			"DELETE FROM manifest_blobs WHERE manifest_id = ?",
			"DELETE FROM hidden_tags WHERE manifest_id = ?",
			"DELETE FROM manifests WHERE id = ?",
			"DELETE FROM manifest_bodies WHERE manifest_id = ?",
		} {
			if _, err := tx.Exec(q, m.id); err != nil {
				return err
			}
		}
		if _, err := tx.Exec("DELETE FROM pins WHERE repo_id = ? AND digest = ?", m.rid, key(it.Digest)); err != nil {
			return err
		}
		return s.audit(tx, AuditEntry{Action: "sweep", Repository: it.Repository, Digest: it.Digest, Tags: tags, Actor: "retention", Reason: it.Reason, Uses: it.Uses})
	})
}
