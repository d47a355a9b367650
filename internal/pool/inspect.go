package pool

import (
	"context"

	"cairn.dev/cairn/internal/image"
)

// Inspection is what an image says of how it is run.
type Inspection struct {
	Digest              image.Digest // of the manifest for the platform
	Entrypoint, Command []string
	User                string
}

// Inspect reads what an image says of how it is run on a platform. Its error is
// [ErrNoImage] when the image is not for it, or nothing that runs.
func Inspect(ctx context.Context, f Found, p image.Platform) (Inspection, error) {
	d, err := describe(ctx, f, p)
	return Inspection{Digest: d.digest, Entrypoint: d.entrypoint, Command: d.command, User: d.user}, err
}
