package artifacts

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"cairn.dev/cairn/internal/task"
)

// NewUpload names an upload: files that wait for their run. Whoever knows its
// name may add to it, and hand it to a run.
func NewUpload() string { return strings.ToLower(rand.Text()) }

// checkUpload keeps what NewUpload has not made from naming another owner.
func checkUpload(upload string) error {
	if len(upload) != len(NewUpload()) || checkRun(upload) != nil {
		return fmt.Errorf("%.40q is no upload: %w", upload, ErrInvalid)
	}
	return nil
}

// Upload keeps what r gives, for [Config.UploadTerm] after the upload's first
// file.
func (s *Store) Upload(ctx context.Context, upload string, r io.Reader) (task.Produced, error) {
	if err := checkUpload(upload); err != nil {
		return task.Produced{}, err
	}
	b, err := s.d.Content.Hold(ctx, ownerUpload+upload, r)
	if err != nil {
		return task.Produced{}, fmt.Errorf("store an upload: %w", err)
	}
	return task.Produced{Digest: string(b.Digest), Size: b.Size}, nil
}

// Adopt has the run hold all files of an upload; ErrNotFound when its time is
// up. The upload itself stays for that time, and may be handed to other runs.
func (s *Store) Adopt(ctx context.Context, run, upload string) error {
	if err := errors.Join(checkRun(run), checkUpload(upload)); err != nil {
		return err
	}
	if err := s.d.Content.HoldAll(ctx, ownerRun+run, ownerUpload+upload); err != nil {
		return fmt.Errorf("hand an upload to run %s: %w", run, notHeld(err))
	}
	return nil
}
