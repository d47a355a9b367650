package content

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// Holds keep blobs for owners outside of repositories: files of runs, uploads.
// They are the same blobs as those of images, each stored once, and no
// repository shows them.
//
// A hold is a row and needs no lease: who takes it over in a transaction finds
// the blob's row or not, and the collector removes that row in one that looks
// for holds. What an owner let go of is loose: the collector looks at it after
// the grace period, and until then it counts as needed.

// Bounds of holds.
const (
	maxOwner = 255
	// holdStep bounds the holds that begin or end in one transaction (about a
	// millisecond).
	holdStep = 256
)

// An Owner is who holds blobs.
type Owner struct {
	Name  string
	Since time.Time // when its first hold began
}

func checkOwner(owner string) error {
	if owner == "" || len(owner) > maxOwner || strings.ContainsFunc(owner, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return fmt.Errorf("%.40q is no owner of blobs: it has 1 to %d bytes without white space", owner, maxOwner)
	}
	return nil
}

// Hold stores what r gives and keeps it until the owner's Release. It is
// durable when this returns nil; an error of r is returned as it is, and
// nothing is kept then. ErrNoSpace, ErrReadOnly.
func (s *Store) Hold(ctx context.Context, owner string, r io.Reader) (Blob, error) {
	if err := checkOwner(owner); err != nil {
		return Blob{}, err
	}
	u := s.newUpload("") // no client can name it
	u.owner = owner
	u.mu.Lock()
	defer u.mu.Unlock()
	defer s.end(u)
	st, err := s.stage(ctx, u)
	if err != nil {
		return Blob{}, fmt.Errorf("hold a blob for %s: %w", owner, err)
	}
	b, err := s.hold(ctx, u, st, r)
	if err != nil {
		if e := st.Discard(); e != nil {
			s.log.Warn("cannot remove what was not held; the reconciler will", "upload", u.id, "error", e)
		}
		return Blob{}, err
	}
	return b, nil
}

func (s *Store) hold(ctx context.Context, u *upload, st blob.Staged, r io.Reader) (Blob, error) {
	_, err := copyBuffered(tee{st, u.sha}, r)
	if werr := (writeError{}); errors.As(err, &werr) {
		return Blob{}, fmt.Errorf("hold a blob for %s: %w", u.owner, mapError(werr.error))
	}
	if err != nil {
		return Blob{}, err
	}
	d, err := image.ParseDigest("sha256:" + hex.EncodeToString(u.sha.Sum(nil)))
	if err != nil {
		return Blob{}, err
	}
	b := Blob{Digest: d, Size: st.Size()}
	if err := s.commit(ctx, u, st, b); err != nil {
		return Blob{}, fmt.Errorf("hold blob %s for %s: %w", d, u.owner, mapError(err))
	}
	return b, nil
}

// HoldDigest has the owner hold a blob that another one holds: from, or anybody
// when that is "". ErrBlobUnknown if it does not; that a repository has the
// blob does not count, because who knows a digest may not have the bytes.
func (s *Store) HoldDigest(ctx context.Context, owner, from string, d image.Digest) (Blob, error) {
	if err := errors.Join(checkOwner(owner), checkDigest(d)); err != nil {
		return Blob{}, err
	}
	b := Blob{Digest: d}
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		id, err := held(ctx, tx, from, &b)
		if err != nil {
			return err
		}
		return s.addHold(tx, owner, id)
	})
	if err != nil {
		return Blob{}, fmt.Errorf("hold blob %s for %s: %w", d, owner, mapError(err))
	}
	return b, nil
}

// HoldAll has the owner hold all that another one holds: ErrBlobUnknown if that
// has nothing. It takes several transactions when it is much; what it did
// stays when it fails.
func (s *Store) HoldAll(ctx context.Context, owner, from string) error {
	if err := checkOwner(owner); err != nil {
		return err
	}
	for last := int64(-1); ; {
		var ids []int64
		err := s.db.Write(ctx, func(tx *db.Tx) (err error) {
			if ids, err = heldAfter(ctx, tx, from, last); err != nil {
				return err
			}
			for _, id := range ids {
				if err := s.addHold(tx, owner, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil && last < 0 && len(ids) == 0 {
			err = fmt.Errorf("%w: %s holds nothing", ErrBlobUnknown, from)
		}
		if err != nil {
			return fmt.Errorf("hold for %s what %s holds: %w", owner, from, mapError(err))
		}
		if len(ids) < holdStep {
			return nil
		}
		last = ids[len(ids)-1]
	}
}

// heldAfter are the next blobs of an owner, after last in order of ids.
func heldAfter(ctx context.Context, q db.Query, owner string, last int64) (ids []int64, err error) {
	rows, err := q.Query(ctx, "SELECT blob_id FROM holds WHERE owner_id = (SELECT id FROM owners WHERE name = ?) AND blob_id > ? ORDER BY blob_id LIMIT ?", owner, last, holdStep)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// The statements that see a blob through its holds.
const (
	heldBy = `SELECT b.id, b.size, b.corrupt FROM blobs b WHERE b.digest = ?
		AND EXISTS (SELECT 1 FROM holds h WHERE h.blob_id = b.id AND h.owner_id = (SELECT id FROM owners WHERE name = ?))`
	heldAtAll = `SELECT b.id, b.size, b.corrupt FROM blobs b WHERE b.digest = ? AND EXISTS (SELECT 1 FROM holds h WHERE h.blob_id = b.id)`
)

// held finds the blob b.Digest, as its owner (or any, "") has it.
func held(ctx context.Context, q db.Query, owner string, b *Blob) (id int64, err error) {
	query, args := heldAtAll, []any{key(b.Digest)}
	if owner != "" {
		query, args = heldBy, append(args, owner)
	}
	var corrupt int
	ok, err := q.Row(ctx, query, args, &id, &b.Size, &corrupt)
	switch {
	case err != nil:
		return 0, err
	case !ok && owner != "":
		return 0, fmt.Errorf("%w: %s does not hold it", ErrBlobUnknown, owner)
	case !ok:
		return 0, fmt.Errorf("%w: nobody holds it", ErrBlobUnknown)
	case corrupt != 0:
		return 0, ErrCorrupt
	}
	return id, nil
}

// StatHeld finds a blob that the owner holds, or anybody when that is "":
// ErrBlobUnknown, ErrCorrupt.
func (s *Store) StatHeld(ctx context.Context, owner string, d image.Digest) (Blob, error) {
	if err := checkDigest(d); err != nil {
		return Blob{}, err
	}
	b := Blob{Digest: d}
	err := s.db.ReadOne(ctx, func(q db.Query) error {
		_, err := held(ctx, q, owner, &b)
		return err
	})
	if err != nil {
		return Blob{}, fmt.Errorf("look up blob %s: %w", d, mapError(err))
	}
	return b, nil
}

// OpenHeld opens a blob that the owner holds, or anybody when that is "":
// ErrBlobUnknown, ErrCorrupt. The caller closes the reader, which goes on
// reading when the owner lets go.
func (s *Store) OpenHeld(ctx context.Context, owner string, d image.Digest) (blob.Reader, error) {
	b, err := s.StatHeld(ctx, owner, d)
	if err != nil {
		return nil, err
	}
	return s.open(ctx, b)
}

// Release ends all holds of the owner; having none is no error. It takes
// several transactions when they are many, and may be called again after a
// crash between two. What is held meanwhile may be released as well.
func (s *Store) Release(ctx context.Context, owner string) error {
	for more := true; more; {
		err := s.db.Write(ctx, func(tx *db.Tx) error {
			more = false
			var id int64
			ok, err := tx.Row(ctx, "SELECT id FROM owners WHERE name = ?", []any{owner}, &id)
			if err != nil || !ok {
				return err
			}
			_, err = tx.Exec(`INSERT INTO loose (blob_id, due) SELECT blob_id, ? FROM holds WHERE owner_id = ? ORDER BY blob_id LIMIT ?
				ON CONFLICT (blob_id) DO UPDATE SET due = excluded.due`, s.now()+int64(s.grace), id, holdStep)
			if err != nil {
				return err
			}
			n, err := tx.Exec("DELETE FROM holds WHERE owner_id = ?1 AND blob_id IN (SELECT blob_id FROM holds WHERE owner_id = ?1 ORDER BY blob_id LIMIT ?2)", id, holdStep)
			if err != nil {
				return err
			}
			if more = n == holdStep; more {
				return nil
			}
			_, err = tx.Exec("DELETE FROM owners WHERE id = ?", id)
			return err
		})
		if err != nil {
			return fmt.Errorf("release the blobs of %s: %w", owner, mapError(err))
		}
	}
	return nil
}

// Owners lists up to n owners whose names begin with prefix and come after a
// name, in ASCII order.
func (s *Store) Owners(ctx context.Context, prefix, after string, n int) (owners []Owner, err error) {
	err = s.db.ReadOne(ctx, func(q db.Query) error {
		// No name has a byte above 0xf4.
		rows, err := q.Query(ctx, "SELECT name, since FROM owners WHERE name > ? AND name >= ? AND name < ? ORDER BY name LIMIT ?", after, prefix, prefix+"\xff", n)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var o Owner
			var since int64
			if err := rows.Scan(&o.Name, &since); err != nil {
				return err
			}
			o.Since = timeOf(since)
			owners = append(owners, o)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list owners of blobs: %w", mapError(err))
	}
	return owners, nil
}

// addHold has the owner hold a blob, in the transaction.
func (s *Store) addHold(tx *db.Tx, owner string, blobID int64) error {
	const hold = `INSERT INTO holds (owner_id, blob_id) SELECT id, ? FROM owners WHERE name = ? ON CONFLICT (owner_id, blob_id) DO NOTHING`
	// One statement where the owner has others, as nearly always.
	n, err := tx.Exec(hold, blobID, owner)
	if n > 0 || err != nil {
		return err
	}
	if _, err := tx.Exec("INSERT INTO owners (name, since) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", owner, s.now()); err != nil {
		return err
	}
	_, err = tx.Exec(hold, blobID, owner)
	return err
}
