package plain

import (
	"context"
	"errors"
	"fmt"

	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/git"
)

// push moves a branch from one commit to another; "" is none.
func push(ctx context.Context, w *git.Repository, branch, from, to string) error {
	ref := "refs/heads/" + branch
	_, err := w.Run(ctx, nil, "push", "--porcelain", "--no-verify", "--force-with-lease="+ref+":"+from, "origin", to+":"+ref)
	if err == nil || ctx.Err() != nil {
		return err
	}
	// Why it was refused is best seen where it should have gone.
	at, herr := headOf(ctx, w, branch)
	if herr != nil && !errors.Is(herr, forge.ErrNotFound) {
		return err
	}
	if at != from && (to == "" || at != to) {
		if to == "" && at == "" {
			return nil
		}
		return fmt.Errorf("%w: %s is at %q, not at %q: %w", err, branch, at, from, forge.ErrMoved)
	}
	if at == to && to != "" {
		return nil // it was moved, and only the answer was lost
	}
	return err
}
