package content

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/image"
)

// An Intake is a blob that Cairn itself brings in, and that others read while
// it comes (see [Intake.Follow]). Nobody but its owner knows of it: it ends
// with the process, and leaves nothing behind then. One goroutine at a time.
type Intake struct {
	s    *Store
	u    *upload
	st   blob.Staged
	hash hash.Hash
	want image.Digest
}

// Intake begins to take in the blob d for a repository. End it with Commit or
// Close.
func (s *Store) Intake(ctx context.Context, repo string, d image.Digest) (*Intake, error) {
	if err := image.CheckRepository(repo); err != nil {
		return nil, err
	}
	if err := checkDigest(d); err != nil {
		return nil, err
	}
	u := s.newUpload(repo)
	u.mu.Lock() // until its end: nothing else may take it, nor expire it
	st, err := s.stage(ctx, u)
	if err != nil {
		s.end(u)
		u.mu.Unlock()
		return nil, fmt.Errorf("take in blob %s: %w", d, err)
	}
	in := &Intake{s: s, u: u, st: st, want: d, hash: sha256.New()}
	if d.Algorithm() == "sha512" {
		in.hash = sha512.New()
	}
	return in, nil
}

// Write appends. ErrNoSpace, ErrReadOnly.
func (in *Intake) Write(p []byte) (int, error) {
	n, err := in.st.Write(p)
	in.hash.Write(p[:n])
	if err != nil {
		err = fmt.Errorf("take in blob %s: %w", in.want, mapError(err))
	}
	return n, err
}

// Size is the number of bytes so far.
func (in *Intake) Size() int64 { return in.st.Size() }

// Follow reads what was written, from any goroutine, also after the end. It is
// closed by the caller.
func (in *Intake) Follow() (blob.Following, error) {
	f, err := in.st.Follow()
	if err != nil {
		return nil, fmt.Errorf("take in blob %s: %w", in.want, mapError(err))
	}
	return f, nil
}

// Verify compares the bytes so far with the digest: ErrDigestMismatch.
func (in *Intake) Verify() error {
	if got := hex.EncodeToString(in.hash.Sum(nil)); got != in.want.Encoded() {
		return fmt.Errorf("%w: it is %s:%s, not %s", ErrDigestMismatch, in.want.Algorithm(), got, in.want)
	}
	return nil
}

// Commit verifies and makes the bytes a blob of the repository, durable when
// it returns nil. Either way the intake has ended.
func (in *Intake) Commit(ctx context.Context) (Blob, error) {
	defer in.Close()
	if err := in.Verify(); err != nil {
		return Blob{}, err
	}
	b := Blob{Digest: in.want, Size: in.st.Size()}
	if err := in.s.commit(ctx, in.u, in.st, b); err != nil {
		return Blob{}, fmt.Errorf("store blob %s: %w", in.want, mapError(err))
	}
	return b, nil
}

// Close ends the intake and removes its bytes, unless they became a blob. It
// may be called more than once.
func (in *Intake) Close() error {
	if in.u.ended.Load() {
		return nil
	}
	err := in.st.Discard()
	in.s.end(in.u)
	in.u.mu.Unlock()
	return mapError(err)
}
