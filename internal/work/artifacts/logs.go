package artifacts

import (
	"context"
	"fmt"
	"io"
)

// Logs keeps what runs print, as blobs that the runs do not hold themselves:
// they may go earlier than the files of the run, and no task can read them.
type Logs struct{ s *Store }

// Logs is the part of the store for logs.
func (s *Store) Logs() Logs { return Logs{s} }

// Put stores a part of the run's logs. It is durable when this returns nil, and
// stays until Release.
func (l Logs) Put(ctx context.Context, run string, r io.Reader) (digest string, size int64, err error) {
	if err := checkRun(run); err != nil {
		return "", 0, err
	}
	b, err := l.s.d.Content.Hold(ctx, ownerLogs+run, r)
	if err != nil {
		return "", 0, fmt.Errorf("store logs of run %s: %w", run, err)
	}
	return string(b.Digest), b.Size, nil
}

// Open reads a part.
func (l Logs) Open(ctx context.Context, digest string) (io.ReadSeekCloser, error) {
	return l.s.open(ctx, "", digest)
}

// Release lets go of the run's logs.
func (l Logs) Release(ctx context.Context, run string) error {
	return l.s.d.Content.Release(ctx, ownerLogs+run)
}
