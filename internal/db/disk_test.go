package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/test/parts"
)

func TestFullDisk(t *testing.T) {
	dir := parts.SmallDisk(t, "4m")
	path := filepath.Join(dir, "x.db")
	d, err := Open(t.Context(), Config{Path: path, Schema: testSchema})
	must(t, err)
	defer d.Close()
	must(t, insert(d, "before"))
	var kept []string
	full := false
	for i := range 1000 {
		v := fmt.Sprintf("%04d%s", i, strings.Repeat("x", 16<<10))
		err := insert(d, v)
		if err == nil {
			kept = append(kept, v[:4])
			continue
		}
		if !errors.Is(err, ErrFull) {
			t.Fatalf("got %v, want ErrFull", err)
		}
		full = true
		break
	}
	if !full {
		t.Fatal("the disk did not get full")
	}
	// Several at once share the failure, and none is half there.
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := insert(d, fmt.Sprintf("b%03d%s", i, strings.Repeat("y", 256<<10))); !errors.Is(err, ErrFull) {
				t.Errorf("got %v, want ErrFull", err)
			}
		})
	}
	wg.Wait()
	check := func(d *DB) {
		t.Helper()
		var got []string
		for _, v := range strings.Fields(values(t, d)) {
			got = append(got, v[:min(len(v), 4)])
		}
		if want := append([]string{"befo"}, kept...); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the table holds %d rows %v, want %d", len(got), got, len(want))
		}
	}
	check(d)
	must(t, d.Close())
	// On a larger disk it goes on.
	if out, err := exec.Command("mount", "-o", "remount,size=32m", dir).CombinedOutput(); err != nil {
		t.Fatalf("remount: %s", out)
	}
	d, err = Open(t.Context(), Config{Path: path, Schema: testSchema})
	must(t, err)
	defer d.Close()
	check(d)
	must(t, insert(d, "afte"))
	kept = append(kept, "afte")
	check(d)
}

// TestFullDiskRecovers: room that comes back is used without a restart.
func TestFullDiskRecovers(t *testing.T) {
	dir := parts.SmallDisk(t, "4m")
	d, err := Open(t.Context(), Config{Path: filepath.Join(dir, "x.db"), Schema: testSchema})
	must(t, err)
	defer d.Close()
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	must(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	f.Close()
	for i := 0; ; i++ {
		if err := insert(d, fmt.Sprint(i, strings.Repeat("x", 4096))); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			break
		}
	}
	must(t, os.Remove(ballast))
	must(t, insert(d, "again"))
}

func TestReadOnlyDisk(t *testing.T) {
	dir := parts.SmallDisk(t, "4m")
	path := filepath.Join(dir, "x.db")
	d, err := Open(t.Context(), Config{Path: path, Schema: testSchema})
	must(t, err)
	must(t, insert(d, "one"))
	must(t, d.Close())
	if out, err := exec.Command("mount", "-o", "remount,ro", dir).CombinedOutput(); err != nil {
		t.Fatalf("remount: %s", out)
	}
	if d, err := Open(t.Context(), Config{Path: path, Schema: testSchema}); !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), path) {
		if err == nil {
			d.Close()
		}
		t.Errorf("open: %v, want ErrReadOnly naming the file", err)
	}
	if d, err := Open(t.Context(), Config{Path: filepath.Join(dir, "new", "x.db"), Schema: testSchema}); !errors.Is(err, ErrReadOnly) {
		if err == nil {
			d.Close()
		}
		t.Errorf("open in a new folder: %v, want ErrReadOnly", err)
	}
}

func walSize(t testing.TB, d *DB) int64 {
	t.Helper()
	st, err := os.Stat(d.cfg.Path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// fill writes n rows of 8 KiB from several goroutines.
func fill(t testing.TB, d *DB, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				if err := d.Write(context.Background(), func(tx *Tx) error {
					_, err := tx.Exec("INSERT INTO child VALUES (NULL)")
					if err == nil {
						_, err = tx.Exec("REPLACE INTO big VALUES (?, ?)", i%1000, strings.Repeat("x", 8000))
					}
					return err
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestLogStaysBounded: readers that overlap without a gap, each of them short,
// do not make the write-ahead log grow for ever: about 150 MiB are written, and
// from 16 MiB on the writer waits for its readers.
func TestLogStaysBounded(t *testing.T) {
	if testing.Short() {
		return // nothing here is about races
	}
	d := open(t, Config{Sync: Normal})
	d.longLog, d.tooLongLog = 1024, 4096 // before the first write
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := d.Read(context.Background(), func(q Query) error {
					var n int
					_, err := q.Row(context.Background(), "SELECT count(*), sum(length(v)) FROM (SELECT v FROM big LIMIT 100)", nil, &n, new(any))
					return err
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var most int64
	for range 10 {
		fill(t, d, 800)
		most = max(most, walSize(t, d))
	}
	close(stop)
	wg.Wait()
	t.Logf("the log grew to %d MiB", most>>20)
	if most > 80<<20 { // what 100 ms can write comes on top
		t.Errorf("the log grew to %d MiB under short reads", most>>20)
	}
}

// TestLogShrinks: after a long read, which does make the log grow, it becomes
// small again.
func TestLogShrinks(t *testing.T) {
	if testing.Short() {
		return // nothing here is about races
	}
	d := open(t, Config{Sync: Normal})
	fill(t, d, 1000)
	must(t, d.Read(t.Context(), func(q Query) error {
		var n int
		if _, err := q.Row(t.Context(), "SELECT count(*) FROM big", nil, &n); err != nil {
			return err
		}
		fill(t, d, 12000)
		return nil
	}))
	grown := walSize(t, d)
	start := time.Now()
	fill(t, d, 2000)
	t.Logf("the log grew to %d MiB, and is %d MiB after; the writes took %v", grown>>20, walSize(t, d)>>20, time.Since(start))
	if n := walSize(t, d); n > 64<<20 || grown < n {
		t.Errorf("the log still has %d MiB after the long read", n>>20)
	}
}
