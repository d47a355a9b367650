package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// Schema of catalog.db. Losing the newest rows with the power makes things
// look newer than they are, so that db.Normal is enough. Times are
// milliseconds since 1970.
var Schema = []string{`
CREATE TABLE repositories (
	id   INTEGER PRIMARY KEY,
	name TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE tags ( -- since when they are in the list
	repo_id INTEGER NOT NULL REFERENCES repositories(id),
	name    TEXT NOT NULL,
	first   INTEGER NOT NULL,
	PRIMARY KEY (repo_id, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE digests ( -- since when they are known, and what they are
	repo_id INTEGER NOT NULL REFERENCES repositories(id),
	digest  TEXT NOT NULL,
	first   INTEGER NOT NULL,
	facts   BLOB, -- JSON of Image
	PRIMARY KEY (repo_id, digest)
) STRICT, WITHOUT ROWID;
`}

// A Store is a [Memory] in a database. It is safe for concurrent use.
type Store struct{ db *db.DB }

// NewStore returns a memory in a database with [Schema], which stays the
// caller's.
func NewStore(d *db.DB) (*Store, error) {
	if d == nil {
		return nil, errors.New("catalog: no database given")
	}
	return &Store{d}, nil
}

// rowsAtOnce is how many rows one transaction changes: it is short.
const rowsAtOnce = 500

// Tags implements [Memory].
func (s *Store) Tags(ctx context.Context, repository string, names []string, now time.Time) (map[string]time.Time, error) {
	out, err := s.tags(ctx, repository, names, now)
	if err != nil {
		return nil, fmt.Errorf("remember the tags of %s: %w", repository, err)
	}
	return out, nil
}

func (s *Store) tags(ctx context.Context, repository string, names []string, now time.Time) (map[string]time.Time, error) {
	rid, err := s.repository(ctx, repository)
	if err != nil {
		return nil, err
	}
	before, err := s.knownTags(ctx, rid)
	if err != nil {
		return nil, err
	}
	after := make(map[string]time.Time, len(names))
	var added, lost []string
	for _, n := range names {
		at, ok := before[n]
		if !ok {
			at = timeOf(now.UnixMilli())
			if _, twice := after[n]; !twice {
				added = append(added, n)
			}
		}
		after[n] = at
	}
	for n := range before {
		if _, ok := after[n]; !ok {
			lost = append(lost, n)
		}
	}
	for len(added)+len(lost) > 0 {
		a := min(len(added), rowsAtOnce)
		l := min(len(lost), rowsAtOnce)
		err := s.db.Write(ctx, func(tx *db.Tx) error {
			for _, n := range added[:a] {
				if _, err := tx.Exec("INSERT INTO tags (repo_id, name, first) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rid, n, now.UnixMilli()); err != nil {
					return err
				}
			}
			for _, n := range lost[:l] {
				if _, err := tx.Exec("DELETE FROM tags WHERE repo_id = ? AND name = ?", rid, n); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		added, lost = added[a:], lost[l:]
	}
	return after, nil
}

func (s *Store) knownTags(ctx context.Context, rid int64) (map[string]time.Time, error) {
	known := map[string]time.Time{}
	err := s.db.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, "SELECT name, first FROM tags WHERE repo_id = ?", rid)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			var first int64
			if err := rows.Scan(&name, &first); err != nil {
				return err
			}
			known[name] = timeOf(first)
		}
		return rows.Err()
	})
	return known, err
}

// Digest implements [Memory].
func (s *Store) Digest(ctx context.Context, repository string, d image.Digest, now time.Time) (time.Time, error) {
	var first int64
	known := false
	err := s.db.ReadOne(ctx, func(q db.Query) (err error) {
		known, err = q.Row(ctx, "SELECT d.first FROM digests d JOIN repositories r ON r.id = d.repo_id WHERE r.name = ? AND d.digest = ?", []any{repository, string(d)}, &first)
		return err
	})
	if err == nil && !known {
		first, err = s.see(ctx, repository, d, now)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("remember %s of %s: %w", d, repository, err)
	}
	return timeOf(first), nil
}

// digestsEach is how many digests of one repository are remembered, the
// newest. An older one that is asked for again is new: who waits waits longer.
const digestsEach = 2000

// see notes a digest.
func (s *Store) see(ctx context.Context, repository string, d image.Digest, now time.Time) (int64, error) {
	rid, err := s.repository(ctx, repository)
	if err != nil {
		return 0, err
	}
	var first int64
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		if _, err := tx.Exec("INSERT INTO digests (repo_id, digest, first) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rid, string(d), now.UnixMilli()); err != nil {
			return err
		}
		if _, err := tx.Row(ctx, "SELECT first FROM digests WHERE repo_id = ? AND digest = ?", []any{rid, string(d)}, &first); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM digests WHERE repo_id = ? AND digest IN
			(SELECT digest FROM digests WHERE repo_id = ? ORDER BY first DESC, digest = ? DESC LIMIT -1 OFFSET ?)`, rid, rid, string(d), digestsEach)
		return err
	})
	return first, err
}

// Facts implements [Memory].
func (s *Store) Facts(ctx context.Context, repository string, d image.Digest) (Image, bool, error) {
	var text []byte
	err := s.db.ReadOne(ctx, func(q db.Query) error {
		_, err := q.Row(ctx, "SELECT d.facts FROM digests d JOIN repositories r ON r.id = d.repo_id WHERE r.name = ? AND d.digest = ?", []any{repository, string(d)}, &text)
		return err
	})
	if err != nil {
		return Image{}, false, fmt.Errorf("recall %s of %s: %w", d, repository, err)
	}
	var im Image
	// What cannot be read, or is about something else, is as good as nothing:
	// it is asked again.
	if len(text) == 0 || json.Unmarshal(text, &im) != nil || im.Digest != d {
		return Image{}, false, nil
	}
	return im, true, nil
}

// Keep implements [Memory].
func (s *Store) Keep(ctx context.Context, repository string, im Image) error {
	text, err := json.Marshal(im)
	if err == nil {
		err = s.db.Write(ctx, func(tx *db.Tx) error {
			_, err := tx.Exec("UPDATE digests SET facts = ? WHERE repo_id = (SELECT id FROM repositories WHERE name = ?) AND digest = ?", text, repository, string(im.Digest))
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("keep what %s of %s is: %w", im.Digest, repository, err)
	}
	return nil
}

// repository finds the row of one, or makes it.
func (s *Store) repository(ctx context.Context, name string) (int64, error) {
	var id int64
	known := false
	err := s.db.ReadOne(ctx, func(q db.Query) (err error) {
		known, err = q.Row(ctx, "SELECT id FROM repositories WHERE name = ?", []any{name}, &id)
		return err
	})
	if err != nil || known {
		return id, err
	}
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		if _, err := tx.Exec("INSERT INTO repositories (name) VALUES (?) ON CONFLICT DO NOTHING", name); err != nil {
			return err
		}
		_, err := tx.Row(ctx, "SELECT id FROM repositories WHERE name = ?", []any{name}, &id)
		return err
	})
	return id, err
}

func timeOf(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
