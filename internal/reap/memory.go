package reap

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// Schema of reap.db.
var Schema = []string{`
CREATE TABLE seen ( -- when an image, or a tag on it, was first seen
	place      TEXT NOT NULL, -- host/repository
	digest     TEXT NOT NULL,
	tag        TEXT NOT NULL, -- '' for the image itself
	first      INTEGER NOT NULL, -- ms
	PRIMARY KEY (place, digest, tag)
) STRICT, WITHOUT ROWID;

CREATE TABLE gone ( -- what was deleted, so that it can be pushed again
	id         INTEGER PRIMARY KEY,
	registry   TEXT NOT NULL, -- URL
	host       TEXT NOT NULL,
	repository TEXT NOT NULL,
	digest     TEXT NOT NULL,
	media_type TEXT NOT NULL,
	manifest   BLOB NOT NULL,
	tags       TEXT NOT NULL, -- JSON
	reason     TEXT NOT NULL,
	at         INTEGER NOT NULL, -- ms
	state      INTEGER NOT NULL -- 0: it may have been deleted, 1: it was, 2: it was not
) STRICT;
CREATE INDEX gone_by_time ON gone (host, at);
`}

// States of a row of gone.
const (
	perhaps = 0
	gone    = 1
	stayed  = 2
)

// remembered is how long what was deleted can be listed.
const remembered = 90 * 24 * time.Hour

// memory is what survives a restart.
type memory struct{ db *db.DB }

// sight is one thing seen: an image (no tag), or a tag on it.
type sight struct {
	digest image.Digest
	tag    string
}

// see notes what is in a repository now, all of it, and returns when each was
// first seen. What is no longer there is forgotten: should it come back, its
// time starts anew.
func (m *memory) see(ctx context.Context, place string, now time.Time, sights []sight) (map[sight]time.Time, error) {
	first, err := m.first(ctx, place)
	if err != nil {
		return nil, err
	}
	var added []sight
	out := make(map[sight]time.Time, len(sights))
	for _, s := range sights {
		at, known := first[s]
		if !known {
			at = now
			if _, twice := out[s]; !twice {
				added = append(added, s)
			}
		}
		out[s] = at
	}
	var lost []sight
	for s := range first {
		if _, ok := out[s]; !ok {
			lost = append(lost, s)
		}
	}
	for len(added)+len(lost) > 0 {
		a, l := min(len(added), 200), min(len(lost), 200)
		err := m.db.Write(ctx, func(tx *db.Tx) error {
			for _, s := range added[:a] {
				if _, err := tx.Exec(`INSERT INTO seen (place, digest, tag, first) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`, place, string(s.digest), s.tag, now.UnixMilli()); err != nil {
					return err
				}
			}
			for _, s := range lost[:l] {
				if _, err := tx.Exec(`DELETE FROM seen WHERE place = ? AND digest = ? AND tag = ?`, place, string(s.digest), s.tag); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("remember what was seen in %s: %w", place, err)
		}
		added, lost = added[a:], lost[l:]
	}
	return out, nil
}

// first is when everything in a repository was first seen.
func (m *memory) first(ctx context.Context, place string) (map[sight]time.Time, error) {
	first := map[sight]time.Time{}
	err := m.db.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, `SELECT digest, tag, first FROM seen WHERE place = ?`, place)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var d, tag string
			var at int64
			if err := rows.Scan(&d, &tag, &at); err != nil {
				return err
			}
			first[sight{image.Digest(d), tag}] = time.UnixMilli(at).UTC()
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read what was seen in %s: %w", place, err)
	}
	return first, nil
}

// about keeps a record of what is about to be deleted, and returns its number.
func (m *memory) about(ctx context.Context, host string, r Record) (id int64, err error) {
	tags, err := json.Marshal(r.Tags)
	if err != nil {
		return 0, err
	}
	err = m.db.Write(ctx, func(tx *db.Tx) error {
		id, err = tx.Insert(`INSERT INTO gone (registry, host, repository, digest, media_type, manifest, tags, reason, at, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.Registry, host, r.Repository, string(r.Digest), r.MediaType, r.Manifest, string(tags), r.Reason, r.At.UnixMilli(), perhaps)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("keep the manifest %s: %w", r.Digest, err)
	}
	return id, nil
}

// settle notes what became of it. An image that went is forgotten: pushed
// again, its time starts anew.
func (m *memory) settle(ctx context.Context, id int64, state int, place string, d image.Digest) error {
	// The registry has acted: that the client left is no reason to forget it.
	return m.db.Write(context.WithoutCancel(ctx), func(tx *db.Tx) error {
		if _, err := tx.Exec(`UPDATE gone SET state = ? WHERE id = ?`, state, id); err != nil {
			return err
		}
		if state != gone {
			return nil
		}
		_, err := tx.Exec(`DELETE FROM seen WHERE place = ? AND digest = ?`, place, string(d))
		return err
	})
}

// since is how many images were deleted from a registry after t, those that
// may have been included, and when the oldest of them was.
func (m *memory) since(ctx context.Context, host string, t time.Time) (n int, oldest time.Time, err error) {
	var first int64
	err = m.db.ReadOne(ctx, func(q db.Query) error {
		_, err := q.Row(ctx, `SELECT count(*), coalesce(min(at), 0) FROM gone WHERE host = ? AND at > ? AND state != ?`, []any{host, t.UnixMilli(), stayed}, &n, &first)
		return err
	})
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("count deletions: %w", err)
	}
	return n, time.UnixMilli(first).UTC(), nil
}

// prune forgets what was deleted long ago.
func (m *memory) prune(ctx context.Context, now time.Time) error {
	for {
		n := int64(0)
		err := m.db.Write(ctx, func(tx *db.Tx) (err error) {
			n, err = tx.Exec(`DELETE FROM gone WHERE id IN (SELECT id FROM gone WHERE at < ? LIMIT 100)`, now.Add(-remembered).UnixMilli())
			return err
		})
		if err != nil || n < 100 {
			return err
		}
	}
}

// gone calls f with what was deleted, or may have been, from a registry (all
// when empty), newest first.
func (m *memory) gone(ctx context.Context, host string, f func(Record) error) error {
	for before := int64(math.MaxInt64); ; {
		var rec Record
		found := false
		// One at a time: the caller may take its time, and a manifest is large.
		err := m.db.ReadOne(ctx, func(q db.Query) (err error) {
			var d, tags string
			var at int64
			found, err = q.Row(ctx, `SELECT id, registry, repository, digest, media_type, manifest, tags, reason, at FROM gone
				WHERE id < ? AND state != ? AND (? = '' OR host = ?) ORDER BY id DESC LIMIT 1`, []any{before, stayed, host, host},
				&before, &rec.Registry, &rec.Repository, &d, &rec.MediaType, &rec.Manifest, &tags, &rec.Reason, &at)
			rec.Digest, rec.At = image.Digest(d), time.UnixMilli(at).UTC()
			if err == nil && found {
				err = json.Unmarshal([]byte(tags), &rec.Tags)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("read what was deleted: %w", err)
		}
		if !found {
			return nil
		}
		if err := f(rec); err != nil {
			return err
		}
	}
}
