package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
)

// offline takes a data folder that no server uses, for work without one.
func offline(data string) (*DataDir, error) {
	data, err := filepath.Abs(data)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	// Not a folder of Cairn: do not make one of it.
	if _, err := os.Stat(filepath.Join(data, "version")); errors.Is(err, fs.ErrNotExist) {
		return nil, &DataError{Dir: data, Why: "there is no registry in it", Cure: "name the folder that `cairn serve` was given by --data"}
	}
	dir, err := OpenDataDir(data)
	if d, ok := errors.AsType[*DataError](err); ok && d.Busy {
		d.Cure = "leave --data out, and that server does it; or stop it first"
	}
	return dir, err
}

// Scrub reads everything in a data folder that no server uses and compares it
// with its digests. progress is told bytes.
func Scrub(ctx context.Context, data string, log *slog.Logger, progress func(done, total int64)) (rep content.ScrubReport, err error) {
	dir, err := offline(data)
	if err != nil {
		return rep, err
	}
	defer dir.Close()
	store, closeStore, err := openContent(ctx, dir, content.Config{Clock: clock.Real(), Log: log})
	if err != nil {
		return rep, err
	}
	defer func() {
		if e := closeStore(); err == nil {
			err = e
		}
	}()
	return store.Scrub(ctx, progress)
}

// ResetToken gives an account in a data folder that no server uses a new
// secret; "admin" is made when it is not there. It is the way back in for who
// can open the folder and has lost every secret.
func ResetToken(ctx context.Context, data, name string) (secret string, err error) {
	dir, err := offline(data)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	accounts, err := db.Open(ctx, db.Config{Path: dir.Path("access.db"), Schema: access.Schema, Sync: db.Full})
	if err != nil {
		return "", err
	}
	defer accounts.Close()
	key, err := access.SigningKey(dir.Path("secret"))
	if err != nil {
		return "", err
	}
	guard, err := access.New(ctx, access.Config{DB: accounts, Secret: key, Clock: clock.Real()})
	if err != nil {
		return "", err
	}
	_, secret, err = guard.Reset(ctx, name)
	return secret, err
}
