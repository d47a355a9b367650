package content

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// maxEmptyUploads bounds the uploads that were started and have no bytes: they
// live in memory only. Beyond it the oldest is forgotten.
const maxEmptyUploads = 100_000

// uploads are the sessions this process has seen.
type uploads struct {
	max     int // of empty
	mu      sync.Mutex
	m       map[string]*upload
	empty   int       // sessions without bytes
	started []*upload // in order of start; many have bytes or are gone by now
}

func newUploads() *uploads { return &uploads{m: map[string]*upload{}, max: maxEmptyUploads} }

// An upload is one session. mu is held by the one request that writes to it;
// others are refused, never kept waiting.
type upload struct {
	id, repo string
	ready    chan struct{} // closed once the session was read from SQL
	mu       sync.Mutex
	size     atomic.Int64 // bytes that were answered to a client
	touched  atomic.Int64 // monotonic
	ended    atomic.Bool
	empty    bool   // counted in uploads.empty, whose lock guards it
	owner    string // who will hold it, in place of a repository

	// Guarded by mu.
	row  bool      // a row says that it exists
	sha  hash.Hash // SHA-256 of the first size bytes; nil: read them again
	from bool      // came from SQL: look at the file before trusting size
}

func (s *Store) touch(u *upload) { u.touched.Store(int64(s.clock.Mono())) }

// newUpload registers a session. Its row is written with its first bytes.
func (s *Store) newUpload(repo string) *upload {
	u := &upload{id: strings.ToLower(rand.Text()), repo: repo, ready: make(chan struct{}), sha: sha256.New()}
	close(u.ready)
	s.touch(u)
	us := s.upload
	us.mu.Lock()
	defer us.mu.Unlock()
	us.m[u.id] = u
	u.empty = true
	us.empty++
	us.started = append(us.started, u)
	if len(us.started) > 2*us.max {
		us.compact()
	}
	// Forget the oldest that nobody writes to.
	for us.empty > us.max && len(us.started) > 0 {
		old := us.started[0]
		us.started[0] = nil
		us.started = us.started[1:]
		if old.empty && old.mu.TryLock() {
			if old.size.Load() == 0 {
				old.ended.Store(true)
				us.remove(old)
			}
			old.mu.Unlock()
		}
	}
	return u
}

// compact drops from the queue what is no longer empty. Hold us.mu.
func (us *uploads) compact() {
	us.started = slices.DeleteFunc(us.started, func(u *upload) bool { return !u.empty })
}

// filled notes that the session has bytes.
func (us *uploads) filled(u *upload) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if u.empty {
		u.empty = false
		us.empty--
	}
}

// remove forgets the session. Hold us.mu.
func (us *uploads) remove(u *upload) {
	if us.m[u.id] == u {
		delete(us.m, u.id)
	}
	if u.empty {
		u.empty = false
		us.empty--
	}
}

func (us *uploads) forget(u *upload) {
	us.mu.Lock()
	defer us.mu.Unlock()
	us.remove(u)
}

// getUpload finds a session here or in SQL.
func (s *Store) getUpload(ctx context.Context, repo, id string) (*upload, error) {
	us := s.upload
	us.mu.Lock()
	u := us.m[id]
	load := u == nil
	if load {
		u = &upload{id: id, ready: make(chan struct{}), row: true, from: true}
		us.m[id] = u
	}
	us.mu.Unlock()
	if load {
		var size int64
		var ok bool
		err := s.db.ReadOne(ctx, func(q db.Query) (err error) {
			ok, err = q.Row(ctx, "SELECT repository, size FROM uploads WHERE id = ?", []any{id}, &u.repo, &size)
			return err
		})
		if err != nil || !ok {
			u.ended.Store(true)
			us.forget(u)
			close(u.ready)
			if err != nil {
				return nil, mapError(err)
			}
			return nil, ErrUploadUnknown
		}
		u.size.Store(size)
		s.touch(u)
		close(u.ready)
	}
	select {
	case <-u.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if u.ended.Load() || u.repo != repo {
		return nil, ErrUploadUnknown
	}
	s.touch(u)
	return u, nil
}

// end marks the session as over and forgets it. Hold u.mu.
func (s *Store) end(u *upload) {
	u.ended.Store(true)
	s.upload.forget(u)
}

// take is getUpload for the one request that writes to the session.
func (s *Store) take(ctx context.Context, repo, id string) (*upload, error) {
	u, err := s.getUpload(ctx, repo, id)
	if err != nil {
		return nil, err
	}
	if !u.mu.TryLock() {
		return nil, ErrUploadBusy
	}
	if u.ended.Load() {
		u.mu.Unlock()
		return nil, ErrUploadUnknown
	}
	return u, nil
}

// StartUpload begins an upload. Until it has bytes it does not survive a
// restart: the client is then told ErrUploadUnknown and starts again.
func (s *Store) StartUpload(ctx context.Context, repo string) (string, error) {
	if err := image.CheckRepository(repo); err != nil {
		return "", err
	}
	return s.newUpload(repo).id, nil
}

// UploadSize is the number of bytes the upload has.
func (s *Store) UploadSize(ctx context.Context, repo, id string) (int64, error) {
	u, err := s.getUpload(ctx, repo, id)
	if err != nil {
		return 0, err
	}
	if u.mu.TryLock() { // the file may have less after a loss of power
		defer u.mu.Unlock()
		if u.from && !u.ended.Load() {
			st, err := s.stage(ctx, u)
			if err != nil {
				return 0, err
			}
			if err := st.Close(); err != nil {
				return 0, mapError(err)
			}
		}
	}
	return u.size.Load(), nil
}

// stage opens the bytes of the session and makes the file and what was
// answered agree. Hold u.mu.
func (s *Store) stage(ctx context.Context, u *upload) (blob.Staged, error) {
	st, err := s.blobs.Stage(ctx, u.id)
	if err != nil {
		return nil, mapError(err)
	}
	size := u.size.Load()
	switch {
	case st.Size() > size: // bytes that were never answered
		err = st.Truncate(size)
	case st.Size() < size: // lost with the power
		u.size.Store(st.Size())
		u.sha = nil
	}
	u.from = false
	if err == nil && u.sha == nil {
		// A failure leaves nil, so that the next request tries again.
		var h hash.Hash
		if h, err = s.rehash(st, sha256.New()); err == nil {
			u.sha = h
		}
	}
	if err != nil {
		return nil, mapError(errors.Join(err, st.Close()))
	}
	return st, nil
}

func (s *Store) rehash(st blob.Staged, h hash.Hash) (hash.Hash, error) {
	if st.Size() == 0 {
		return h, nil
	}
	r, err := st.Reader()
	if err != nil {
		return nil, err
	}
	_, err = copyBuffered(h, r)
	return h, errors.Join(err, r.Close())
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// A writeError is an error of the side that is written to, to tell it from the
// client's.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// copyBuffered copies until r ends, never hiding which side failed.
func copyBuffered(w io.Writer, r io.Reader) (n int64, err error) {
	if r == nil {
		return 0, nil
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		// Few large writes cost less than many, as the network brings them.
		var k int
		var rerr error
		for k < len(*buf) && rerr == nil {
			var m int
			m, rerr = r.Read((*buf)[k:])
			k += m
		}
		if k > 0 {
			if _, err := w.Write((*buf)[:k]); err != nil {
				return n, writeError{err}
			}
			n += int64(k)
		}
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}

// tee writes to the file first: only what is there counts as hashed.
type tee struct {
	st blob.Staged
	h  hash.Hash
}

func (t tee) Write(p []byte) (int, error) {
	n, err := t.st.Write(p)
	t.h.Write(p[:n])
	return n, err
}

// AppendUpload adds the bytes of r to the upload and returns how many it has
// then. offset is where the client says they begin, -1 if it did not say; if
// that is not where the upload ends, nothing is read and the error is a
// *RangeError. When r fails in the middle, what came is kept, and UploadSize
// tells the client where to go on.
func (s *Store) AppendUpload(ctx context.Context, repo, id string, offset int64, r io.Reader) (int64, error) {
	u, err := s.take(ctx, repo, id)
	if err != nil {
		return 0, err
	}
	defer u.mu.Unlock()
	st, err := s.stage(ctx, u)
	if err != nil {
		return u.size.Load(), fmt.Errorf("append to upload: %w", err)
	}
	defer st.Close()
	before := u.size.Load()
	if offset >= 0 && offset != before {
		return before, &RangeError{Offset: offset, Want: before}
	}
	_, err = copyBuffered(tee{st, u.sha}, r)
	if werr := (writeError{}); errors.As(err, &werr) {
		return before, s.undo(u, st, werr.error)
	}
	if e := s.record(ctx, u, st); e != nil {
		return before, s.undo(u, nil, e)
	}
	s.touch(u)
	if err != nil {
		return u.size.Load(), fmt.Errorf("append to upload: the body ended early: %w", err)
	}
	return u.size.Load(), nil
}

// record closes the staged file, which keeps its bytes, and makes its size the
// one that is answered.
func (s *Store) record(ctx context.Context, u *upload, st blob.Staged) error {
	size := st.Size()
	if err := st.Close(); err != nil {
		return err
	}
	if size == u.size.Load() {
		return nil
	}
	// The bytes are on record even when the client has gone away.
	err := s.db.Write(context.WithoutCancel(ctx), func(tx *db.Tx) error {
		_, err := tx.Exec(`INSERT INTO uploads (id, repository, size, updated) VALUES (?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET size = excluded.size, updated = excluded.updated`, u.id, u.repo, size, s.now())
		return err
	})
	if err != nil {
		return err
	}
	u.row = true
	u.size.Store(size)
	s.upload.filled(u)
	return nil
}

// undo brings the file back to what was answered and gives the space back. st
// is nil once it was closed.
func (s *Store) undo(u *upload, st blob.Staged, cause error) error {
	u.sha = nil // it has seen bytes that are gone
	err := func() (err error) {
		if st == nil {
			if st, err = s.blobs.Stage(context.Background(), u.id); err != nil {
				return err
			}
		}
		size := u.size.Load()
		if size == 0 || size > st.Size() {
			return st.Discard()
		}
		return errors.Join(st.Truncate(size), st.Close())
	}()
	if err != nil {
		s.log.Warn("cannot take back what an upload wrote; it will be removed after the grace period", "upload", u.id, "error", err)
	}
	return fmt.Errorf("write upload: %w", mapError(cause))
}

// FinishUpload adds the bytes of r, which may be nil, to the upload, compares
// the whole with d and makes it a blob of the repository. It is durable when
// this returns nil. A mismatch (ErrDigestMismatch) ends the upload; a *RangeError
// or a body that ended early does not.
func (s *Store) FinishUpload(ctx context.Context, repo, id string, offset int64, r io.Reader, d image.Digest) (Blob, error) {
	if err := checkDigest(d); err != nil {
		return Blob{}, err
	}
	u, err := s.take(ctx, repo, id)
	if err != nil {
		return Blob{}, err
	}
	defer u.mu.Unlock()
	return s.finish(ctx, u, offset, r, d)
}

// PutBlob is an upload in one request. Nothing remains of it when it fails.
func (s *Store) PutBlob(ctx context.Context, repo string, r io.Reader, d image.Digest) (Blob, error) {
	if err := image.CheckRepository(repo); err != nil {
		return Blob{}, err
	}
	if err := checkDigest(d); err != nil {
		return Blob{}, err
	}
	u := s.newUpload(repo)
	u.mu.Lock()
	defer u.mu.Unlock()
	b, err := s.finish(ctx, u, -1, r, d)
	if err != nil && !u.ended.Load() {
		s.discard(context.WithoutCancel(ctx), u)
	}
	return b, err
}

// discard ends a session and removes what it had. Hold u.mu.
func (s *Store) discard(ctx context.Context, u *upload) {
	err := s.removeUpload(ctx, u)
	if err != nil {
		s.log.Warn("cannot remove an upload; it will be removed after the grace period", "upload", u.id, "error", err)
	}
	s.end(u)
}

func (s *Store) removeUpload(ctx context.Context, u *upload) error {
	st, err := s.blobs.Stage(ctx, u.id)
	if err == nil {
		err = st.Discard()
	}
	if err == nil && u.row {
		err = s.db.Write(ctx, func(tx *db.Tx) error {
			_, err := tx.Exec("DELETE FROM uploads WHERE id = ?", u.id)
			return err
		})
	}
	return mapError(err)
}

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

// CancelUpload ends the upload and removes its bytes.
func (s *Store) CancelUpload(ctx context.Context, repo, id string) error {
	u, err := s.take(ctx, repo, id)
	if err != nil {
		return err
	}
	defer u.mu.Unlock()
	if err := s.removeUpload(ctx, u); err != nil {
		return fmt.Errorf("cancel upload: %w", err)
	}
	s.end(u)
	return nil
}

// expireUploads removes those nobody wrote to for the grace period.
func (s *Store) expireUploads(ctx context.Context) (int, error) {
	now := s.clock.Mono()
	var idle []*upload
	s.upload.mu.Lock()
	for _, u := range s.upload.m {
		if time.Duration(u.touched.Load())+s.grace <= now {
			idle = append(idle, u)
		}
	}
	s.upload.compact()
	s.upload.mu.Unlock()
	// Those of an earlier process that nobody asked for since the start.
	if s.start+s.grace <= now {
		err := s.db.ReadOne(ctx, func(q db.Query) error {
			rows, err := q.Query(ctx, "SELECT id, repository, size FROM uploads ORDER BY updated LIMIT 1000")
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				u := &upload{ready: make(chan struct{}), row: true, from: true}
				var size int64
				if err := rows.Scan(&u.id, &u.repo, &size); err != nil {
					return err
				}
				u.size.Store(size)
				close(u.ready)
				s.upload.mu.Lock()
				if s.upload.m[u.id] == nil {
					s.upload.m[u.id] = u
					idle = append(idle, u)
				}
				s.upload.mu.Unlock()
			}
			return rows.Err()
		})
		if err != nil {
			return 0, mapError(err)
		}
	}
	n := 0
	for _, u := range idle {
		if !u.mu.TryLock() {
			continue
		}
		var err error
		if !u.ended.Load() && time.Duration(u.touched.Load())+s.grace <= now {
			if err = s.removeUpload(ctx, u); err == nil {
				s.end(u)
				n++
			}
		}
		u.mu.Unlock()
		if err != nil {
			return n, fmt.Errorf("remove idle upload %s: %w", u.id, err)
		}
	}
	return n, nil
}
