package content

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// auditUses is how many uses an entry keeps: the newest.
const auditUses = 10

// audit writes an entry in the transaction of what it records.
func (s *Store) audit(tx *db.Tx, e AuditEntry) error {
	uses := e.Uses
	if len(uses) > auditUses {
		uses = slices.Clone(uses)
		slices.SortFunc(uses, func(a, b usage.Use) int { return b.At.Compare(a.At) })
		uses = uses[:auditUses]
	}
	text := func(v any, n int) (string, error) {
		if n == 0 {
			return "", nil
		}
		b, err := json.Marshal(v)
		return string(b), err
	}
	tags, err := text(e.Tags, len(e.Tags))
	if err != nil {
		return err
	}
	used, err := text(uses, len(uses))
	if err != nil {
		return err
	}
	_, err = tx.Exec("INSERT INTO audit (at, action, repository, digest, tags, actor, reason, uses) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		s.now(), e.Action, e.Repository, key(e.Digest), tags, e.Actor, e.Reason, used)
	return err
}

// Audit lists up to n entries, newest first, of one repository or of all (""),
// that are older than the entry before; 0 begins with the newest.
func (s *Store) Audit(ctx context.Context, repo string, before int64, n int) ([]AuditEntry, error) {
	if before <= 0 {
		before = math.MaxInt64
	}
	where, args := "id < ?", []any{before}
	if repo != "" {
		where, args = "repository = ? AND id < ?", []any{repo, before}
	}
	var es []AuditEntry
	err := s.db.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, "SELECT id, at, action, repository, digest, tags, actor, reason, uses FROM audit WHERE "+where+" ORDER BY id DESC LIMIT ?", append(args, n)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e AuditEntry
			var at int64
			var d []byte
			var tags, uses string
			if err := rows.Scan(&e.ID, &at, &e.Action, &e.Repository, &d, &tags, &e.Actor, &e.Reason, &uses); err != nil {
				return err
			}
			e.At, e.Digest = timeOf(at), digestOf(d)
			if tags != "" {
				if err := json.Unmarshal([]byte(tags), &e.Tags); err != nil {
					return err
				}
			}
			if uses != "" {
				if err := json.Unmarshal([]byte(uses), &e.Uses); err != nil {
					return err
				}
			}
			es = append(es, e)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", mapError(err))
	}
	return es, nil
}

// Pin keeps an image until it is unpinned or the pin runs out. An expired
// image comes back; one that is not there or was deleted cannot be pinned
// (ErrManifestUnknown). A second pin of the same image replaces the first.
func (s *Store) Pin(ctx context.Context, p Pin) error {
	if err := checkDigest(p.Digest); err != nil {
		return err
	}
	if p.Created.IsZero() {
		p.Created = s.clock.Now()
	}
	var rev revival
	err := s.write(ctx, p.Repository, func(tx *db.Tx) error {
		rev = revival{s: s, tx: tx, repo: p.Repository, actor: p.By, why: "pinned", at: s.now()}
		id, err := rev.live(ctx, p.Digest)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO pins (repo_id, digest, reason, actor, created, expires) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (repo_id, digest) DO UPDATE SET reason = excluded.reason, actor = excluded.actor, created = excluded.created, expires = excluded.expires`,
			rev.rid, key(p.Digest), p.Reason, p.By, stamp(p.Created), stamp(p.Expires))
		if err != nil {
			return err
		}
		_, err = tx.Exec("UPDATE manifests SET version = version + 1 WHERE id = ?", id)
		return err
	})
	if err != nil {
		return fmt.Errorf("pin %s of %s: %w", p.Digest, p.Repository, err)
	}
	rev.announce(ctx)
	return nil
}

// Unpin removes a pin; that there is none is no error.
func (s *Store) Unpin(ctx context.Context, repo string, d image.Digest) error {
	if err := checkDigest(d); err != nil {
		return err
	}
	err := s.write(ctx, repo, func(tx *db.Tx) error {
		m, err := findManifest(ctx, tx, repo, d)
		if err != nil {
			return err
		}
		n, err := tx.Exec("DELETE FROM pins WHERE repo_id = ? AND digest = ?", m.rid, key(d))
		if err != nil || n == 0 {
			return err
		}
		_, err = tx.Exec("UPDATE manifests SET version = version + 1 WHERE id = ?", m.id)
		return err
	})
	if err != nil {
		return fmt.Errorf("unpin %s of %s: %w", d, repo, err)
	}
	return nil
}

// Pins lists the pins of a repository, or of all (""), by repository and
// digest. Those that ran out are not listed.
func (s *Store) Pins(ctx context.Context, repo string) ([]Pin, error) {
	where, args := "", []any{s.now()}
	if repo != "" {
		where, args = " AND r.name = ?", append(args, repo)
	}
	var ps []Pin
	err := s.db.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, `SELECT r.name, p.digest, p.reason, p.actor, p.created, p.expires FROM pins p JOIN repositories r ON r.id = p.repo_id
			WHERE (p.expires = 0 OR p.expires > ?)`+where+" ORDER BY r.name, p.digest", args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var p Pin
			var d []byte
			var created, expires int64
			if err := rows.Scan(&p.Repository, &d, &p.Reason, &p.By, &created, &expires); err != nil {
				return err
			}
			p.Digest, p.Created, p.Expires = digestOf(d), timeOf(created), timeOf(expires)
			ps = append(ps, p)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", mapError(err))
	}
	return ps, nil
}

// stringsOf reads the one column of rows.
func stringsOf(rows *sql.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ss []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		ss = append(ss, s)
	}
	return ss, rows.Err()
}
