package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
)

// Scrub reads everything in a data folder that no server uses and compares it
// with its digests. progress is told bytes.
func Scrub(ctx context.Context, data string, log *slog.Logger, progress func(done, total int64)) (rep content.ScrubReport, err error) {
	if data, err = filepath.Abs(data); err != nil {
		return rep, fmt.Errorf("data folder %s: %w", data, err)
	}
	// Not a folder of Cairn: do not make one of it.
	if _, err := os.Stat(filepath.Join(data, "registry.db")); errors.Is(err, fs.ErrNotExist) {
		return rep, &DataError{Dir: data, Why: "there is no registry in it", Cure: "name the folder that `cairn serve` was given by --data"}
	}
	dir, err := OpenDataDir(data)
	if err != nil {
		if d, ok := errors.AsType[*DataError](err); ok && d.Busy {
			d.Cure = "leave --data out, and that server does it; or stop it first"
		}
		return rep, err
	}
	defer dir.Close()
	registry, err := db.Open(ctx, db.Config{Path: dir.Path("registry.db"), Schema: content.Schema, Sync: db.Full})
	if err != nil {
		return rep, err
	}
	defer registry.Close()
	blobs, err := blob.OpenDisk(dir.Path(), blob.DiskConfig{})
	if err != nil {
		return rep, fmt.Errorf("open the blobs: %w", err)
	}
	defer blobs.Close()
	store, err := content.New(ctx, content.Config{DB: registry, Blobs: blobs, Clock: clock.Real(), Log: log})
	if err != nil {
		return rep, fmt.Errorf("open the registry: %w", err)
	}
	defer store.Close()
	return store.Scrub(ctx, progress)
}
