package blob_test

import (
	"testing"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/blob/blobtest"
)

func openDisk(t *testing.T, dir string, cfg blob.DiskConfig) *blob.Disk {
	t.Helper()
	d, err := blob.OpenDisk(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestDisk(t *testing.T) {
	for name, mode := range map[string]blob.SyncMode{"auto": blob.SyncAuto, "files": blob.SyncFiles, "filesystem": blob.SyncFileSystem} {
		t.Run(name, func(t *testing.T) {
			blobtest.Run(t, func(t *testing.T) blob.Store { return openDisk(t, t.TempDir(), blob.DiskConfig{Sync: mode}) })
		})
	}
}
