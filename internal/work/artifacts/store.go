package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/task"
)

// Put stores what r gives, for the run. It is durable when this returns nil,
// and stays as long as the run.
func (s *Store) Put(ctx context.Context, run string, r io.Reader) (digest string, size int64, err error) {
	if err := checkRun(run); err != nil {
		return "", 0, err
	}
	b, err := s.d.Content.Hold(ctx, ownerRun+run, r)
	if err != nil {
		return "", 0, fmt.Errorf("store a file of run %s: %w", run, err)
	}
	return string(b.Digest), b.Size, nil
}

// Store is [Store.Put] for an output.
func (s *Store) Store(ctx context.Context, run string, r io.Reader) (task.Produced, error) {
	digest, size, err := s.Put(ctx, run, r)
	return task.Produced{Digest: digest, Size: size}, err
}

// Open reads a blob that any run has. It is for the work server itself, which
// opens what its own state names; whoever reads for a task or a person uses
// [Store.OpenOf].
func (s *Store) Open(ctx context.Context, digest string) (io.ReadSeekCloser, error) {
	return s.open(ctx, "", digest)
}

// OpenOf reads a blob that the run has; ErrNotFound otherwise, even if others
// have it.
func (s *Store) OpenOf(ctx context.Context, run, digest string) (blob.Reader, error) {
	if err := checkRun(run); err != nil {
		return nil, err
	}
	return s.open(ctx, ownerRun+run, digest)
}

func (s *Store) open(ctx context.Context, owner, digest string) (blob.Reader, error) {
	d, err := image.ParseDigest(digest)
	if err != nil {
		return nil, fmt.Errorf("open a file: %w: %w", ErrInvalid, err)
	}
	f, err := s.d.Content.OpenHeld(ctx, owner, d)
	if err != nil {
		return nil, fmt.Errorf("open a file: %w", notHeld(err))
	}
	return f, nil
}

// Keep has the run hold what another one has, such as what was remembered of
// it; false when nobody has it any more. Like [Store.Open] it is for the work
// server itself: whoever names a digest gets what is under it.
func (s *Store) Keep(ctx context.Context, run, digest string) (bool, error) {
	if err := checkRun(run); err != nil {
		return false, err
	}
	d, err := image.ParseDigest(digest)
	if err != nil {
		return false, fmt.Errorf("keep a file: %w: %w", ErrInvalid, err)
	}
	_, err = s.d.Content.HoldDigest(ctx, ownerRun+run, "", d)
	if errors.Is(err, content.ErrBlobUnknown) || errors.Is(err, content.ErrCorrupt) {
		return false, nil
	}
	return err == nil, err
}

// checkRun keeps what is no run from naming another owner.
func checkRun(run string) error {
	if run == "" || len(run) > 200 {
		return fmt.Errorf("%.40q is no run: %w", run, ErrInvalid)
	}
	for _, c := range []byte(run) {
		if c <= ' ' || c >= 0x7f || c == '/' {
			return fmt.Errorf("%.40q is no run: %w", run, ErrInvalid)
		}
	}
	return nil
}
