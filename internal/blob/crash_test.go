package blob_test

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/blob"
)

// dead ends the process at the nth passing of a point: from then on every
// point fails.
type dead struct {
	at   blob.Point
	n    atomic.Int64
	gone atomic.Bool
}

var errDead = errors.New("the process has ended")

func (k *dead) fault(p blob.Point) error {
	if p == k.at && k.n.Add(-1) == 0 {
		k.gone.Store(true)
	}
	if k.gone.Load() {
		return errDead
	}
	return nil
}

const whole blob.Loss = -1 // the power stays

// TestDiskCrash ends the process at every point that a push and a delete pass,
// and looks at what is left with and without the loss of power.
func TestDiskCrash(t *testing.T) {
	body := "the new blob"
	g, old := digest.FromString(body), digest.FromString("old")
	// script is what a caller does; it stops at the first error, and gives up
	// the way a caller would.
	script := func(d *blob.Disk) (acknowledged, deleted bool, err error) {
		ctx := t.Context()
		st, err := d.Stage(ctx, "up")
		if err != nil {
			return false, false, err
		}
		defer func() { // a chunk, then the rest
			if err != nil && st != nil {
				_ = st.Discard()
			}
		}()
		if _, err = io.WriteString(st, body[:3]); err != nil {
			return false, false, err
		}
		if err = st.Close(); err != nil {
			return false, false, err
		}
		if st, err = d.Stage(ctx, "up"); err != nil {
			return false, false, err
		}
		if _, err = io.WriteString(st, "garbage"); err != nil {
			return false, false, err
		}
		if err = st.Truncate(3); err != nil {
			return false, false, err
		}
		if _, err = io.WriteString(st, body[3:]); err != nil {
			return false, false, err
		}
		if err = st.Commit(g); err != nil {
			return false, false, err
		}
		if err = d.Sync(ctx, g); err != nil {
			return false, false, err
		}
		if err = d.Delete(ctx, old); err != nil {
			return true, false, err
		}
		return true, true, nil
	}
	points := []struct {
		at blob.Point
		n  int64
	}{
		{blob.PointStage, 1}, {blob.PointStage, 2}, {blob.PointWrite, 1}, {blob.PointWrite, 2}, {blob.PointWrite, 3},
		{blob.PointClose, 1}, {blob.PointTruncate, 1}, {blob.PointCommit, 1}, {blob.PointCommitted, 1},
		{blob.PointSync, 1}, {blob.PointSynced, 1}, {blob.PointDelete, 1}, {blob.PointDeleted, 1},
		{"never", 1},
	}
	for _, p := range points {
		for _, left := range []blob.Loss{whole, blob.Gone, blob.Empty, blob.Half, blob.Zeros} {
			t.Run(fmt.Sprintf("%s-%d/left=%d", p.at, p.n, left), func(t *testing.T) {
				dir := t.TempDir()
				d, err := blob.OpenDisk(dir, blob.DiskConfig{})
				must(t, err)
				must(t, stage(t, d, "old", "old").Commit(old))
				must(t, d.Sync(t.Context(), old))
				must(t, d.Close())

				k := &dead{at: p.at}
				k.n.Store(p.n)
				d, err = blob.OpenDisk(dir, blob.DiskConfig{Fault: k.fault})
				must(t, err)
				acknowledged, deleted, err := script(d)
				if (p.at == "never") != (err == nil) || err != nil && !errors.Is(err, errDead) {
					t.Fatalf("the script ended with %v", err)
				}
				if left != whole {
					must(t, d.LosePower(left))
				}
				must(t, d.Close())

				d = openDisk(t, dir, blob.DiskConfig{})
				seen := map[string]int64{}
				must(t, d.Walk(t.Context(), func(e blob.Entry) error {
					seen[string(e.Digest)+e.Upload] = e.Size
					return nil
				}))
				// Everything there is is seen, so that it can be removed.
				if n := len(files(t, dir)); n != len(seen) {
					t.Errorf("%d files, and Walk saw %v", n, seen)
				}
				size, there := seen[string(g)]
				// Without a sync, and with the power, a blob can lose bytes.
				if there && size != int64(len(body)) && (acknowledged || left == whole) {
					t.Errorf("a part of the blob is visible: %d bytes", size)
				}
				if acknowledged && !there {
					t.Errorf("acknowledged and gone")
				}
				if _, ok := seen[string(old)]; deleted && ok {
					t.Errorf("deleted and still there")
				}
				// And the push can be done again over what is left.
				if p.at == "never" {
					return
				}
				if st, err := d.Stage(t.Context(), "up"); err != nil || st.Discard() != nil {
					t.Fatal(err)
				}
				if a, del, err := script(d); !a || !del || err != nil {
					t.Fatalf("again: %v %v %v", a, del, err)
				}
				if names := files(t, dir); len(names) != 1 {
					t.Errorf("left: %v", names)
				}
			})
		}
	}
}
