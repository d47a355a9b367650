package simulation

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

var reporterNames = [nRep]string{"r0", "r1"}

func reporterScopes(c *catalog) [nRep][]string { return [nRep][]string{{"**"}, {c.repos[0]}} }

// now is the time by which the ledger dates uses: model and ledger agree on it,
// or compare would have said so.
func (h *real) now() time.Time { return wall(h.modelNow) }

// compare says where the real thing differs from the model.
func (h *real) compare(ctx context.Context, w *World) error {
	if h.up != w.up {
		return fmt.Errorf("the process is up: %v, in the model: %v", h.up, w.up)
	}
	if !h.up {
		return nil
	}
	if err := h.compareContent(ctx, w); err != nil {
		return err
	}
	return h.compareUsage(w)
}

func (h *real) compareContent(ctx context.Context, w *World) error {
	c := h.lab.cat
	var got World // only what is durable of content
	for r := range got.repo {
		for t := range got.repo[r].tag {
			got.repo[r].tag[t].man = -1
		}
	}
	at := func(n int64) T {
		if n == 0 {
			return 0
		}
		return sinceEpoch(time.Unix(0, n))
	}
	repoNumber := func(name string) int {
		for i, n := range c.repos {
			if n == name {
				return i
			}
		}
		return -1
	}
	tagNumber := func(name string) int {
		for i, n := range c.tags {
			if n == name {
				return i
			}
		}
		return -1
	}
	digest := func(k []byte) image.Digest { return image.Digest(fmt.Sprintf("sha256:%x", k[1:])) }
	blobNumber := func(k []byte) int {
		d := digest(k)
		for i := range c.blobs {
			if c.blobs[i].digest == d {
				return i
			}
		}
		return -1
	}
	err := h.reg.Read(ctx, func(q db.Query) error {
		each := func(query string, f func(rows *sql.Rows) error) error {
			rows, err := q.Query(ctx, query)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				if err := f(rows); err != nil {
					return err
				}
			}
			return rows.Err()
		}
		var repo, name string
		var k []byte
		var a, b int64
		var state, pull int
		return errors.Join(
			each("SELECT r.name, m.digest, m.state, m.pushed, m.hidden_at FROM manifests m JOIN repositories r ON r.id = m.repo_id", func(rows *sql.Rows) error {
				err := rows.Scan(&repo, &k, &state, &a, &b)
				x := &got.repo[repoNumber(repo)].man[c.at[digest(k)]]
				x.there, x.state, x.pushed, x.hidden = true, content.State(state), at(a), at(b)
				return err
			}),
			each("SELECT r.name, m.digest, t.name, t.pushed FROM tags t JOIN manifests m ON m.id = t.manifest_id JOIN repositories r ON r.id = t.repo_id", func(rows *sql.Rows) error {
				err := rows.Scan(&repo, &k, &name, &a)
				got.repo[repoNumber(repo)].tag[tagNumber(name)] = tagState{int8(c.at[digest(k)]), at(a)}
				return err
			}),
			each("SELECT r.name, m.digest, t.name, t.pushed, t.pull FROM hidden_tags t JOIN manifests m ON m.id = t.manifest_id JOIN repositories r ON r.id = t.repo_id", func(rows *sql.Rows) error {
				err := rows.Scan(&repo, &k, &name, &a, &pull)
				got.repo[repoNumber(repo)].man[c.at[digest(k)]].tag[tagNumber(name)] = hiddenTag{true, pull != 0, at(a)}
				return err
			}),
			each("SELECT digest FROM blobs", func(rows *sql.Rows) error {
				err := rows.Scan(&k)
				got.row[blobNumber(k)] = true
				return err
			}),
			each("SELECT r.name, b.digest, l.due FROM links l JOIN blobs b ON b.id = l.blob_id JOIN repositories r ON r.id = l.repo_id", func(rows *sql.Rows) error {
				var due sql.NullInt64
				err := rows.Scan(&repo, &k, &due)
				got.repo[repoNumber(repo)].link[blobNumber(k)] = linkState{true, !due.Valid, at(due.Int64)}
				return err
			}),
			each("SELECT r.name, p.digest FROM pins p JOIN repositories r ON r.id = p.repo_id", func(rows *sql.Rows) error {
				err := rows.Scan(&repo, &k)
				got.repo[repoNumber(repo)].pin[c.at[digest(k)]] = true
				return err
			}),
		)
	})
	if err != nil {
		return err
	}
	for r := range w.repo {
		a, b := &got.repo[r], &w.repo[r]
		for m := range b.man {
			x, y := a.man[m], b.man[m]
			y.dirty, y.seq = false, 0
			if x != y {
				return fmt.Errorf("%s of %s is %+v, in the model %+v", c.mans[m].name, c.repos[r], x, y)
			}
			if a.pin[m] != b.pin[m] {
				return fmt.Errorf("%s of %s is pinned: %v, in the model %v", c.mans[m].name, c.repos[r], a.pin[m], b.pin[m])
			}
			if y.there && y.state == content.Live {
				got, err := h.store.Manifest(ctx, c.repos[r], string(c.mans[m].digest))
				if err != nil || !bytes.Equal(got.Body, c.mans[m].body) {
					return fmt.Errorf("read %s of %s: %w", c.mans[m].name, c.repos[r], err)
				}
			}
		}
		for t := range b.tag {
			if a.tag[t] != b.tag[t] {
				return fmt.Errorf("tag %s of %s is %+v, in the model %+v", c.tags[t], c.repos[r], a.tag[t], b.tag[t])
			}
			if m := b.tag[t].man; m >= 0 {
				got, err := h.store.Manifest(ctx, c.repos[r], c.tags[t])
				if err != nil || got.Digest != c.mans[m].digest {
					return fmt.Errorf("read tag %s of %s: %w", c.tags[t], c.repos[r], err)
				}
			}
		}
		for k := range b.link {
			x, y := a.link[k], b.link[k]
			if y.held {
				y.due = 0
			}
			if x != y {
				return fmt.Errorf("blob %s in %s is %+v, in the model %+v", c.blobs[k].name, c.repos[r], x, y)
			}
		}
	}
	for k := range w.row {
		if got.row[k] != w.row[k] {
			return fmt.Errorf("blob %s is known: %v, in the model %v", c.blobs[k].name, got.row[k], w.row[k])
		}
		f, err := h.disk.Open(ctx, c.blobs[k].digest)
		if err == nil {
			var body []byte
			body, err = io.ReadAll(f)
			err = errors.Join(err, f.Close())
			if err != nil || !bytes.Equal(body, c.blobs[k].body) {
				return fmt.Errorf("blob %s has other bytes: %w", c.blobs[k].name, err)
			}
			// A file without a row is an orphan, which the real thing may
			// avoid where the model does not.
			if !w.file[k] {
				return fmt.Errorf("blob %s is on the disk, in the model it is not", c.blobs[k].name)
			}
			continue
		}
		if !errors.Is(err, blob.ErrNotFound) {
			return err
		}
		if w.row[k] {
			return fmt.Errorf("blob %s is not on the disk", c.blobs[k].name)
		}
	}
	return nil
}

func (h *real) compareUsage(w *World) error {
	l, c := h.lab, h.lab.cat
	for d := range w.use {
		var got [nKind]useState
		for _, u := range h.ledger.Uses(c.digests[d]) {
			k := -1
			for i := range nKind {
				x := l.useOf(d, i, useState{last: 1})
				if x.Source == u.Source && x.Repository == u.Repository {
					k = i
				}
			}
			if k < 0 {
				return fmt.Errorf("unexpected use %+v", u)
			}
			got[k] = useState{last: sinceEpoch(u.At), now: u.Now}
		}
		for k := range got {
			want := w.use[d][k]
			want.stored = 0
			if got[k] != want {
				return fmt.Errorf("use %d of digest %d is %+v, in the model %+v", k, d, got[k], want)
			}
		}
	}
	if ok, why := h.ledger.ClockOK(); ok != (w.behind == 0) {
		return fmt.Errorf("the clock is trusted: %v (%s), in the model %v", ok, why, w.behind == 0)
	}
	real, model := h.ledger.Uncovered(), l.uncovered(w)
	for r := range c.repos {
		a, b := usage.NewCoverage(real, c.repos[r]), usage.NewCoverage(model, c.repos[r])
		now := wall(w.ledgerNow())
		for _, back := range []T{1, 4, 20, 60, 300} {
			since := now.Add(-span(back))
			if x, y := units(a.Age(since, now)+Unit/2), units(b.Age(since, now)+Unit/2); x != y {
				return fmt.Errorf("of the last %d units %d are covered in %s, in the model %d: %+v, in the model %+v", back, x, c.repos[r], y, real, model)
			}
		}
		if x, y := len(a.Open()) > 0, len(b.Open()) > 0; x != y {
			return fmt.Errorf("%s is in doubt now: %v, in the model %v", c.repos[r], x, y)
		}
	}
	return nil
}
