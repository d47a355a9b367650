package content_test

import (
	"testing"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/content/contenttest"
	"cairn.dev/cairn/internal/db"
	"path/filepath"
)

// open is the embedded default: SQLite and a local disk.
func open(t testing.TB, dir string) (*db.DB, blob.Store, func()) {
	t.Helper()
	d, err := db.Open(t.Context(), db.Config{Path: filepath.Join(dir, "registry.db"), Schema: content.Schema})
	if err != nil {
		t.Fatal(err)
	}
	disk, err := blob.OpenDisk(dir, blob.DiskConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return d, disk, func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSuite(t *testing.T) { contenttest.Run(t, open) }
