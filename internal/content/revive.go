package content

import (
	"context"
	"fmt"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// A revival brings hidden images back in one transaction: an image, what it
// needs, and what hangs on it.
type revival struct {
	s     *Store
	tx    *db.Tx
	repo  string
	rid   int64
	actor string
	why   string
	at    int64
	// restore: a person asked. Deleted images that the wanted one needs come
	// back as well.
	restore bool

	tags, taken []string
	roots       []image.Digest // expired images that came back by themselves
	count       int
}

// live finds an image that must be live: an expired one comes back. A deleted
// one is unknown, unless restore is set.
func (r *revival) live(ctx context.Context, d image.Digest) (int64, error) {
	m, err := findManifest(ctx, r.tx, r.repo, d)
	if err != nil {
		return 0, err
	}
	r.rid = m.rid
	if m.state == Live {
		return m.id, nil
	}
	if m.state == Deleted && !r.restore {
		return 0, fmt.Errorf("%w: %s of %s was deleted; cairn image restore brings it back", ErrManifestUnknown, d, r.repo)
	}
	if err := r.revive(ctx, m.id, d, m.state); err != nil {
		return 0, err
	}
	var children []byte
	if _, err := r.tx.Row(ctx, "SELECT children FROM manifests WHERE id = ?", []any{m.id}, &children); err != nil {
		return 0, err
	}
	return m.id, r.follow(ctx, d, children)
}

// revive makes one hidden image live and gives it the tags nobody took.
func (r *revival) revive(ctx context.Context, id int64, d image.Digest, was State) error {
	if r.count == 0 && was == Expired && !r.restore {
		r.roots = append(r.roots, d)
	}
	r.count++
	if _, err := r.tx.Exec("UPDATE manifests SET state = 0, hidden_at = 0, reason = '', version = version + 1 WHERE id = ?", id); err != nil {
		return err
	}
	// A blob that was deleted while only hidden images needed it.
	if _, err := r.tx.Exec(`UPDATE links SET hidden = 0 WHERE repo_id = ? AND hidden = 1
		AND blob_id IN (SELECT blob_id FROM manifest_blobs WHERE manifest_id = ?)`, r.rid, id); err != nil {
		return err
	}
	names, err := stringsOf(r.tx.Query(ctx, "SELECT name FROM hidden_tags WHERE manifest_id = ? ORDER BY name", id))
	if err != nil {
		return err
	}
	var back []string
	for _, name := range names {
		n, err := r.tx.Exec(`INSERT INTO tags (repo_id, name, manifest_id, pushed)
			SELECT repo_id, name, manifest_id, pushed FROM hidden_tags WHERE manifest_id = ? AND name = ? AND (pull = 1 OR ? = 1)
			ON CONFLICT (repo_id, name) DO NOTHING`, id, name, btoi(r.restore))
		if err != nil {
			return err
		}
		if n > 0 {
			back = append(back, name)
		} else {
			r.taken = append(r.taken, name)
		}
	}
	r.tags = append(r.tags, back...)
	if _, err := r.tx.Exec("DELETE FROM hidden_tags WHERE manifest_id = ?", id); err != nil {
		return err
	}
	action := "revive"
	if r.restore {
		action = "restore"
	}
	return r.s.audit(r.tx, AuditEntry{Action: action, Repository: r.repo, Digest: d, Tags: back, Actor: r.actor, Reason: r.why})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// follow brings back what an image that is live now needs, and the referrers
// that share its fate.
func (r *revival) follow(ctx context.Context, d image.Digest, children []byte) error {
	if err := r.children(ctx, children); err != nil {
		return err
	}
	var ids []int64
	var ds []image.Digest
	collect := func(query string, args ...any) error {
		rows, err := r.tx.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			var k []byte
			if err := rows.Scan(&id, &k); err != nil {
				return err
			}
			ids, ds = append(ids, id), append(ds, digestOf(k))
		}
		return rows.Err()
	}
	// By the subject field, and by a fallback tag (image.FallbackSubject):
	// "sha256-<hex>" alone, or with something after a dot ('/' is next to it).
	if err := collect("SELECT id, digest FROM manifests WHERE repo_id = ? AND subject = ? AND state = ?", r.rid, key(d), int(Expired)); err != nil {
		return err
	}
	tag := string(d.Algorithm()) + "-" + d.Encoded()
	if err := collect(`SELECT DISTINCT m.id, m.digest FROM hidden_tags t JOIN manifests m ON m.id = t.manifest_id
		WHERE t.repo_id = ? AND (t.name = ? OR t.name > ? AND t.name < ?) AND m.subject IS NULL AND m.state = ?`, r.rid, tag, tag+".", tag+"/", int(Expired)); err != nil {
		return err
	}
	for i := range ids {
		if err := r.again(ctx, ids[i], ds[i], false); err != nil {
			return err
		}
	}
	return nil
}

// children brings back the hidden ones of an index. A live one changes its
// version, so that it does not go by a decision taken while the index was
// hidden.
func (r *revival) children(ctx context.Context, keys []byte) error {
	for _, d := range digestsOf(keys) {
		var id int64
		ok, err := r.tx.Row(ctx, "SELECT id FROM manifests WHERE repo_id = ? AND digest = ? AND state <> 0", []any{r.rid, key(d)}, &id)
		if err != nil {
			return err
		}
		if ok {
			if err := r.again(ctx, id, d, r.restore); err != nil {
				return err
			}
			continue
		}
		if _, err := r.tx.Exec("UPDATE manifests SET version = version + 1 WHERE repo_id = ? AND digest = ? AND state = 0", r.rid, key(d)); err != nil {
			return err
		}
	}
	return nil
}

// again revives one that was found on the way, and what follows from it. A
// deleted one stays deleted unless asked otherwise.
func (r *revival) again(ctx context.Context, id int64, d image.Digest, deletedToo bool) error {
	var state State
	var children []byte
	if _, err := r.tx.Row(ctx, "SELECT state, children FROM manifests WHERE id = ?", []any{id}, &state, &children); err != nil {
		return err
	}
	if state == Live || state == Deleted && !deletedToo {
		return nil // live: a cycle of referrers ends here
	}
	if err := r.revive(ctx, id, d, state); err != nil {
		return err
	}
	return r.follow(ctx, d, children)
}

// announce tells the log and the hook, after the commit.
func (r *revival) announce(ctx context.Context) {
	for _, d := range r.roots {
		r.s.log.Warn("an expired image came back", "repository", r.repo, "digest", d, "why", r.why, "images", r.count, "tags", r.tags)
		if r.s.cfg.OnRevive == nil {
			continue
		}
		im, err := r.s.Peek(context.WithoutCancel(ctx), r.repo, string(d))
		if err != nil {
			im = Image{Repository: r.repo, Digest: d}
		}
		r.s.cfg.OnRevive(im, r.why)
	}
}

// Revive brings an expired image back, with what it needs, its referrers and
// the tags nobody took since. It does nothing to a live one. A deleted one is
// ErrManifestUnknown.
func (s *Store) Revive(ctx context.Context, repo string, d image.Digest, why string) error {
	if err := checkDigest(d); err != nil {
		return err
	}
	var rev revival
	err := s.write(ctx, repo, func(tx *db.Tx) error {
		rev = revival{s: s, tx: tx, repo: repo, actor: "cairn", why: why, at: s.now()}
		_, err := rev.live(ctx, d)
		return err
	})
	if err != nil {
		return fmt.Errorf("revive %s of %s: %w", d, repo, err)
	}
	rev.announce(ctx)
	return nil
}

// Restore brings a hidden image back at a person's wish, whoever hid it, with
// what it needs, its referrers and its tags. A tag that was pushed since is
// left alone and named in the answer. Its time begins anew.
func (s *Store) Restore(ctx context.Context, repo string, d image.Digest, actor string) (Restored, error) {
	if err := checkDigest(d); err != nil {
		return Restored{}, err
	}
	var rev revival
	err := s.write(ctx, repo, func(tx *db.Tx) error {
		rev = revival{s: s, tx: tx, repo: repo, actor: actor, why: "restored", at: s.now(), restore: true}
		m, err := findManifest(ctx, tx, repo, d)
		if err != nil || m.state == Live {
			return err
		}
		id, err := rev.live(ctx, d)
		if err != nil {
			return err
		}
		return touchManifest(tx, id, rev.at)
	})
	if err != nil {
		return Restored{}, fmt.Errorf("restore %s of %s: %w", d, repo, err)
	}
	return Restored{Tags: rev.tags, Taken: rev.taken}, nil
}
