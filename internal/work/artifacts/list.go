package artifacts

import (
	"context"
	"fmt"

	"cairn.dev/cairn/internal/workflow"
)

// List implements the sources of the work server: the files of a folder or of
// an s3:// prefix that match, in order of their names.
func (s *Store) List(ctx context.Context, run string, files, s3 workflow.Value, match string, limit int) ([]workflow.Value, error) {
	return nil, fmt.Errorf("nothing is listed yet: %w", ErrInvalid)
}
