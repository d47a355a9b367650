package content

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

func (s *Store) finish(ctx context.Context, u *upload, offset int64, r io.Reader, d image.Digest) (Blob, error) {
	st, err := s.stage(ctx, u)
	if err != nil {
		return Blob{}, fmt.Errorf("finish upload: %w", err)
	}
	defer st.Close()
	before := u.size.Load()
	if offset >= 0 && offset != before {
		return Blob{}, &RangeError{Offset: offset, Want: before}
	}
	h := u.sha
	if d.Algorithm() == "sha512" {
		if h, err = s.rehash(st, sha512.New()); err != nil {
			return Blob{}, fmt.Errorf("finish upload: %w", mapError(err))
		}
		u.sha = nil
	}
	_, err = copyBuffered(tee{st, h}, r)
	if werr := (writeError{}); errors.As(err, &werr) {
		return Blob{}, s.undo(u, st, werr.error)
	}
	if err != nil {
		if e := s.record(ctx, u, st); e != nil {
			err = errors.Join(err, s.undo(u, nil, e))
		}
		return Blob{}, fmt.Errorf("finish upload: the body ended early: %w", err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != d.Encoded() {
		err := fmt.Errorf("%w: it is %s:%s, the request says %s", ErrDigestMismatch, d.Algorithm(), got, d)
		if e := st.Discard(); e != nil {
			s.log.Warn("cannot remove a refused upload", "upload", u.id, "error", e)
		}
		s.discard(context.WithoutCancel(ctx), u)
		return Blob{}, err
	}
	b := Blob{Digest: d, Size: st.Size()}
	if err := s.commit(ctx, u, st, b); err != nil {
		if e := st.Discard(); e != nil {
			s.log.Warn("cannot remove an upload that failed", "upload", u.id, "error", e)
		}
		s.discard(context.WithoutCancel(ctx), u)
		return Blob{}, fmt.Errorf("store blob %s: %w", d, mapError(err))
	}
	s.end(u)
	return b, nil
}

// errGone: the blob a link was to be made to is not there after all.
var errGone = errors.New("blob is gone")

// commit makes the verified bytes a blob and links it.
func (s *Store) commit(ctx context.Context, u *upload, st blob.Staged, b Blob) error {
	defer s.traffic.enter()()
	d := b.Digest
	unlock := s.locks.tryLock(d)
	if unlock == nil {
		// Somebody pushes the same. If it is there already it only needs a
		// link, for which nobody has to wait for the other: the lease keeps
		// the collector away.
		if s.leases.renew(d, s.clock.Mono()+s.grace, false) {
			there, err := s.intact(ctx, b)
			if err != nil {
				return err
			}
			if there {
				if err := s.linkUpload(ctx, u, b, stored); err == nil {
					return s.drop(st, u)
				} else if !errors.Is(err, errGone) {
					return err
				}
			}
		}
		unlock = s.locks.lock(d)
	}
	defer unlock()
	s.leases.renew(d, s.clock.Mono()+s.grace, true)
	there, err := s.intact(ctx, b)
	if err != nil {
		return err
	}
	if there {
		if err := s.linkUpload(ctx, u, b, stored); err != nil {
			return err
		}
		return s.drop(st, u)
	}
	err = st.Commit(d)
	if err == nil && !s.cfg.Flushed {
		err = s.blobs.Sync(ctx, d)
	}
	if err == nil {
		err = s.linkUpload(ctx, u, b, fresh)
	}
	if errors.Is(err, errKnown) {
		// These bytes repair a blob that manifests may refer to, so they must
		// be on the disk before anything says that it is good.
		if err = s.blobs.Sync(ctx, d); err == nil {
			err = s.linkUpload(ctx, u, b, repaired)
		}
	}
	if err != nil {
		s.takeBack(ctx, d)
	}
	return err
}

// drop removes staged bytes that were not needed. That they stay is no reason
// to fail a push: the reconciler will find them.
func (s *Store) drop(st blob.Staged, u *upload) error {
	if err := st.Discard(); err != nil {
		s.log.Warn("cannot remove an upload that was not needed", "upload", u.id, "error", err)
	}
	return nil
}

// intact reports whether the blob is stored with the right size and not known
// to be corrupt. For a new blob that costs one look at the disk.
func (s *Store) intact(ctx context.Context, b Blob) (bool, error) {
	r, err := s.blobs.Open(ctx, b.Digest)
	if errors.Is(err, blob.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	size := r.Size()
	if err := r.Close(); err != nil {
		return false, err
	}
	if size != b.Size {
		return false, nil
	}
	var corrupt int
	var ok bool
	err = s.db.ReadOne(ctx, func(q db.Query) (err error) {
		ok, err = q.Row(ctx, "SELECT corrupt FROM blobs WHERE digest = ?", []any{key(b.Digest)}, &corrupt)
		return err
	})
	return ok && corrupt == 0, err
}

// errKnown: the new bytes are of a blob that has a row already.
var errKnown = errors.New("blob is known")

// bytesAre is where a push found the bytes of its blob.
type bytesAre int

const (
	stored   bytesAre = iota // they are there, or errGone
	fresh                    // just written, to a blob without a row, or errKnown
	repaired                 // just written and synced
)

// linkUpload is the metadata commit of a push.
func (s *Store) linkUpload(ctx context.Context, u *upload, b Blob, are bytesAre) error {
	var made int64
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		made = 0
		if are != stored {
			var err error
			if made, err = s.insertBlob(tx, b); err != nil {
				return err
			}
		}
		id := made
		if id == 0 {
			var err error
			if id, err = s.knownBlob(ctx, tx, b, are); err != nil {
				return err
			}
		}
		if u.row {
			if _, err := tx.Exec("DELETE FROM uploads WHERE id = ?", u.id); err != nil {
				return err
			}
		}
		if u.owner != "" {
			return s.addHold(tx, u.owner, id)
		}
		return s.link(tx, u.repo, id)
	})
	if err == nil {
		s.settled.raise(made)
	}
	return err
}

// knownBlob is the id of a blob that has a row.
func (s *Store) knownBlob(ctx context.Context, tx *db.Tx, b Blob, are bytesAre) (int64, error) {
	if are == fresh {
		return 0, errKnown
	}
	var id, size int64
	var corrupt int
	ok, err := tx.Row(ctx, "SELECT id, size, corrupt FROM blobs WHERE digest = ?", []any{key(b.Digest)}, &id, &size, &corrupt)
	switch {
	case err != nil:
		return 0, err
	case !ok, are == stored && corrupt != 0:
		return 0, errGone
	case are == repaired && (corrupt != 0 || size != b.Size):
		_, err = tx.Exec("UPDATE blobs SET corrupt = 0, size = ? WHERE id = ?", b.Size, id)
	}
	return id, err
}

// takeBack removes the file of a push that failed, unless somebody else's
// blob stands on it. Hold the lock of d.
func (s *Store) takeBack(ctx context.Context, d image.Digest) {
	if _, err := s.removeUnknown(context.WithoutCancel(ctx), d); err != nil {
		s.log.Warn("cannot remove a blob that was not acknowledged; the reconciler will", "digest", d, "error", err)
	}
}
