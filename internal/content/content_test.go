package content_test

import (
	"path/filepath"
	"testing"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/content/contenttest"
	"cairn.dev/cairn/internal/db"
)

// open is the embedded default: SQLite and a local disk.
func open(t testing.TB, dir string) (*db.DB, blob.Store, func()) {
	t.Helper()
	return openFaulty(t, dir, func() error { return nil })
}

func openFaulty(t testing.TB, dir string, fault func() error) (*db.DB, blob.Store, func()) {
	t.Helper()
	d, err := db.Open(t.Context(), db.Config{Path: filepath.Join(dir, "registry.db"), Schema: content.Schema, Fault: func(string) error { return fault() }})
	if err != nil {
		t.Fatal(err)
	}
	disk, err := blob.OpenDisk(dir, blob.DiskConfig{Fault: func(blob.Point) error { return fault() }})
	if err != nil {
		t.Fatal(err)
	}
	return d, disk, func() {
		if err := d.Close(); err != nil && fault() == nil {
			t.Error(err)
		}
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSuite(t *testing.T) { contenttest.Run(t, open) }

// TestSoak is short; with CAIRN_SOAK in the environment it is long.
func TestSoak(t *testing.T) {
	images := 25
	if contenttest.Long() {
		images = 500
	}
	contenttest.Soak(t, open, images)
}

func TestCrash(t *testing.T) { contenttest.Crash(t, openFaulty) }
