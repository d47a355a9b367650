package bump

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"cairn.dev/cairn/internal/db"
)

// Schema of bump.db.
var Schema = []string{`
CREATE TABLE repositories (
	id      INTEGER PRIMARY KEY,
	forge   TEXT NOT NULL,
	name    TEXT NOT NULL,
	head    TEXT NOT NULL, -- the commit whose images are in status and uses; '' for none
	checked INTEGER NOT NULL, -- ms; when that was last known to be the head; 0: never
	since   INTEGER NOT NULL, -- ms; when it was first seen
	missing INTEGER NOT NULL, -- ms; since when the forge does not know it; 0: it does
	listed  INTEGER NOT NULL, -- ms; when pull requests were last listed
	issue   INTEGER NOT NULL, -- 1: we may have an issue open about .cairn.yaml
	status  BLOB NOT NULL, -- JSON
	uses    BLOB NOT NULL, -- JSON
	UNIQUE (forge, name)
) STRICT;

CREATE TABLE branches ( -- ours, as we know them
	repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
	name       TEXT NOT NULL,
	head       TEXT NOT NULL, -- our commit; '' while the first one is being made
	edit       TEXT NOT NULL, -- what it holds
	parent     TEXT NOT NULL, -- of the commit that is being made; '' for none
	making     TEXT NOT NULL, -- the edit that it will hold
	pull       INTEGER NOT NULL, -- 0: none yet
	block      TEXT NOT NULL, -- JSON
	done       INTEGER NOT NULL, -- 1: merged or closed by us: the branch is to go
	PRIMARY KEY (repository, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE declined (
	repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
	branch     TEXT NOT NULL,
	target     TEXT NOT NULL,
	at         INTEGER NOT NULL, -- ms
	PRIMARY KEY (repository, branch, target)
) STRICT, WITHOUT ROWID;

CREATE TABLE opened ( -- pull requests of the last hour
	repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
	at         INTEGER NOT NULL -- ms
) STRICT;
CREATE INDEX opened_by_time ON opened (repository, at);
`}

// A record is what is remembered of a repository.
type record struct {
	id      int64
	forge   string
	name    string
	head    string
	checked time.Time
	since   time.Time
	missing time.Time
	listed  time.Time
	issue   bool
	status  RepositoryStatus
	uses    []codeUse
}

// A branchRecord is what is remembered of a branch of ours.
type branchRecord struct {
	name   string
	head   string
	edit   string
	parent string // with making: a commit that may have been made
	making string
	pull   int64
	block  *Block
	done   bool
}

// store is bump.db.
type store struct{ db *db.DB }

func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// repositories are all records, those of forges that are no longer configured
// included.
func (s store) repositories(ctx context.Context) ([]*record, error) {
	var out []*record
	for after := int64(0); ; {
		n := 0
		// In pages: the statuses are large.
		err := s.db.ReadOne(ctx, func(q db.Query) error {
			rows, err := q.Query(ctx, `SELECT id, forge, name, head, checked, since, missing, listed, issue, status, uses FROM repositories WHERE id > ? ORDER BY id LIMIT 50`, after)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				n++
				var r record
				var checked, since, missing, listed int64
				var status, uses []byte
				if err := rows.Scan(&r.id, &r.forge, &r.name, &r.head, &checked, &since, &missing, &listed, &r.issue, &status, &uses); err != nil {
					return err
				}
				after = r.id
				r.checked, r.since, r.missing, r.listed = timeOf(checked), timeOf(since), timeOf(missing), timeOf(listed)
				if json.Unmarshal(status, &r.status) != nil || json.Unmarshal(uses, &r.uses) != nil {
					// Another version wrote it: read the code again, and doubt until then.
					r.head, r.checked, r.status, r.uses = "", time.Time{}, RepositoryStatus{}, nil
				}
				out = append(out, &r)
			}
			return rows.Err()
		})
		if err != nil {
			return nil, fmt.Errorf("read what is remembered of repositories of code: %w", err)
		}
		if n < 50 {
			return out, nil
		}
	}
}

// add remembers a repository that was not known.
func (s store) add(ctx context.Context, r *record) error {
	err := s.db.Write(ctx, func(tx *db.Tx) (err error) {
		r.id, err = tx.Insert(`INSERT INTO repositories (forge, name, head, checked, since, missing, listed, issue, status, uses) VALUES (?, ?, '', 0, ?, 0, 0, 0, x'7b7d', x'5b5d')`,
			r.forge, r.name, ms(r.since))
		return err
	})
	if err != nil {
		return fmt.Errorf("remember the repository %s/%s: %w", r.forge, r.name, err)
	}
	return nil
}

// save writes what a pass found. It is written although the caller is leaving:
// what was found is true.
func (s store) save(ctx context.Context, r *record) error {
	status, err := json.Marshal(r.status)
	if err != nil {
		return err
	}
	uses, err := json.Marshal(r.uses)
	if err != nil {
		return err
	}
	issue := 0
	if r.issue {
		issue = 1
	}
	err = s.db.Write(context.WithoutCancel(ctx), func(tx *db.Tx) error {
		_, err := tx.Exec(`UPDATE repositories SET head = ?, checked = ?, missing = ?, listed = ?, issue = ?, status = ?, uses = ? WHERE id = ?`,
			r.head, ms(r.checked), ms(r.missing), ms(r.listed), issue, status, uses, r.id)
		return err
	})
	if err != nil {
		return fmt.Errorf("remember what is in %s/%s: %w", r.forge, r.name, err)
	}
	return nil
}

// remove forgets a repository and everything about it.
func (s store) remove(ctx context.Context, id int64) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(`DELETE FROM repositories WHERE id = ?`, id)
		return err
	})
}

// branches are those we know of a repository, by name.
func (s store) branches(ctx context.Context, id int64) (map[string]*branchRecord, error) {
	out := map[string]*branchRecord{}
	err := s.db.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, `SELECT name, head, edit, parent, making, pull, block, done FROM branches WHERE repository = ?`, id)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var b branchRecord
			var block string
			if err := rows.Scan(&b.name, &b.head, &b.edit, &b.parent, &b.making, &b.pull, &block, &b.done); err != nil {
				return err
			}
			if block != "" {
				b.block = &Block{}
				if json.Unmarshal([]byte(block), b.block) != nil || b.block.check() != nil {
					b.block = nil
				}
			}
			out[b.name] = &b
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read what is remembered of branches: %w", err)
	}
	return out, nil
}

// saveBranch writes a branch, also while the caller is leaving: it says what
// was done or is about to be.
func (s store) saveBranch(ctx context.Context, id int64, b *branchRecord) error {
	block := ""
	if b.block != nil {
		j, err := json.Marshal(b.block)
		if err != nil {
			return err
		}
		block = string(j)
	}
	done := 0
	if b.done {
		done = 1
	}
	err := s.db.Write(context.WithoutCancel(ctx), func(tx *db.Tx) error {
		_, err := tx.Exec(`INSERT INTO branches (repository, name, head, edit, parent, making, pull, block, done) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET head = excluded.head, edit = excluded.edit, parent = excluded.parent, making = excluded.making, pull = excluded.pull, block = excluded.block, done = excluded.done`,
			id, b.name, b.head, b.edit, b.parent, b.making, b.pull, block, done)
		return err
	})
	if err != nil {
		return fmt.Errorf("remember the branch %s: %w", b.name, err)
	}
	return nil
}

func (s store) removeBranch(ctx context.Context, id int64, name string) error {
	err := s.db.Write(context.WithoutCancel(ctx), func(tx *db.Tx) error {
		_, err := tx.Exec(`DELETE FROM branches WHERE repository = ? AND name = ?`, id, name)
		return err
	})
	if err != nil {
		return fmt.Errorf("forget the branch %s: %w", name, err)
	}
	return nil
}

// declined are the targets that people declined, by branch.
func (s store) declined(ctx context.Context, id int64) (map[string]map[string]bool, error) {
	out := map[string]map[string]bool{}
	err := s.db.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, `SELECT branch, target FROM declined WHERE repository = ?`, id)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var branch, target string
			if err := rows.Scan(&branch, &target); err != nil {
				return err
			}
			if out[branch] == nil {
				out[branch] = map[string]bool{}
			}
			out[branch][target] = true
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read what was declined: %w", err)
	}
	return out, nil
}

// decline remembers, or with yes false forgets, that people do not want targets.
func (s store) decline(ctx context.Context, id int64, branch string, targets []Target, now time.Time, yes bool) error {
	err := s.db.Write(context.WithoutCancel(ctx), func(tx *db.Tx) error {
		for _, t := range targets {
			query, args := `DELETE FROM declined WHERE repository = ? AND branch = ? AND target = ?`, []any{id, branch, t.key()}
			if yes {
				query, args = `INSERT INTO declined (repository, branch, target, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`, append(args, ms(now))
			}
			if _, err := tx.Exec(query, args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remember what was declined on %s: %w", branch, err)
	}
	return nil
}

// openedSince counts the pull requests opened after t, and forgets older ones.
func (s store) openedSince(ctx context.Context, id int64, t time.Time) (n int, err error) {
	err = s.db.ReadOne(ctx, func(q db.Query) error {
		_, err := q.Row(ctx, `SELECT count(*) FROM opened WHERE repository = ? AND at > ?`, []any{id, ms(t)}, &n)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count opened pull requests: %w", err)
	}
	return n, nil
}

// countOpened counts one more, before it is opened: a crash then costs one of
// the hour and does not open one too many.
func (s store) countOpened(ctx context.Context, id int64, now time.Time) error {
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		if _, err := tx.Exec(`DELETE FROM opened WHERE repository = ? AND at <= ?`, id, ms(now.Add(-time.Hour))); err != nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO opened (repository, at) VALUES (?, ?)`, id, ms(now))
		return err
	})
	if err != nil {
		return fmt.Errorf("count opened pull requests: %w", err)
	}
	return nil
}
