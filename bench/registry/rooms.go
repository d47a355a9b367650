package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/usage"
)

// rooms are Cairn's rooms put together by hand, for measurements that need one
// of them left out, or time moved.
type rooms struct {
	clock   *clock.Fake
	content *content.Store
	ledger  *usage.Ledger
	close   []func() error
}

func openRooms(ctx context.Context, dir string, c *clock.Fake) (r *rooms, err error) {
	r = &rooms{clock: c}
	defer func() {
		if err != nil {
			_ = r.Close()
		}
	}()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	open := func(name string, schema []string, sync db.Sync) (*db.DB, error) {
		d, err := db.Open(ctx, db.Config{Path: filepath.Join(dir, name), Schema: schema, Sync: sync})
		if err == nil {
			r.close = append(r.close, d.Close)
		}
		return d, err
	}
	usageDB, err := open("usage.db", usage.Schema, db.Normal)
	if err != nil {
		return nil, err
	}
	if r.ledger, err = usage.Open(ctx, usage.Config{DB: usageDB, Clock: c, Log: log}); err != nil {
		return nil, err
	}
	r.close = append(r.close, r.ledger.Close)
	// As serve has it.
	blobs, err := blob.OpenDisk(dir, blob.DiskConfig{})
	if err != nil {
		return nil, err
	}
	r.close = append(r.close, blobs.Close)
	cfg := db.Config{Path: filepath.Join(dir, "registry.db"), Schema: content.Schema, Sync: db.Full}
	if blobs.Flushes() {
		cfg.Flush = blobs.Flush
	}
	registryDB, err := db.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	r.close = append(r.close, registryDB.Close)
	if r.content, err = content.New(ctx, content.Config{DB: registryDB, Blobs: blobs, Flushed: blobs.Flushes(), Clock: c, Log: log}); err != nil {
		return nil, err
	}
	r.close = append(r.close, r.content.Close)
	return r, nil
}

// Close closes what was opened, last first.
func (r *rooms) Close() error {
	var errs []error
	for i := len(r.close) - 1; i >= 0; i-- {
		errs = append(errs, r.close[i]())
	}
	return errors.Join(errs...)
}

// handler is the registry, with or without the ledger.
func (r *rooms) handler(ledger bool) http.Handler {
	cfg := registry.Config{Content: r.content}
	if ledger {
		cfg.Pulls = r.ledger
	}
	return registry.New(cfg)
}

// startChild runs this program again as a server of rooms.
func startChild(ctx context.Context, o options, name, what string, args ...string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(o.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return start(ctx, o.dir, name, addr, "/v2/", nil, append([]string{self, what, addr, dir}, args...)...)
}
