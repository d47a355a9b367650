package content

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
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
