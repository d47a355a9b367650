package content

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// What only the inside can arrange: the rest is in contenttest.

func testStore(t testing.TB) (*Store, *clock.Fake) {
	t.Helper()
	dir := t.TempDir()
	d, err := db.Open(t.Context(), db.Config{Path: filepath.Join(dir, "registry.db"), Schema: Schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	disk, err := blob.OpenDisk(dir, blob.DiskConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	fc := clock.NewFake(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	s, err := New(t.Context(), Config{DB: d, Blobs: disk, Clock: fc, Grace: time.Hour, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s, fc
}

func put(t testing.TB, s *Store, repo, data string) image.Digest {
	t.Helper()
	h := sha256.Sum256([]byte(data))
	d := image.Digest("sha256:" + hex.EncodeToString(h[:]))
	if _, err := s.PutBlob(context.Background(), repo, strings.NewReader(data), d); err != nil {
		t.Fatal(err)
	}
	return d
}

// Who asks for a blob that the collector is at waits for it and gets the truth.
func TestAskWhileCollected(t *testing.T) {
	for name, ask := range map[string]func(s *Store, d image.Digest) error{
		"HEAD": func(s *Store, d image.Digest) error { _, err := s.StatBlob(context.Background(), "app", d); return err },
		"mount": func(s *Store, d image.Digest) error {
			ok, err := s.Mount(context.Background(), "app", d, "", nil)
			if err == nil && !ok {
				err = ErrBlobUnknown
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, fc := testStore(t)
			d := put(t, s, "app", "data")
			if _, err := s.StatBlob(t.Context(), "app", d); err != nil { // into the cache
				t.Fatal(err)
			}
			fc.Advance(2 * time.Hour)
			// Keep the writer busy, so that the collection stops half-way.
			busy, release := make(chan struct{}), make(chan struct{})
			go s.db.Write(context.Background(), func(*db.Tx) error { close(busy); <-release; return nil })
			<-busy
			collected := make(chan error, 1)
			go func() {
				_, err := s.Collect(context.Background())
				collected <- err
			}()
			for !isCondemned(s, d) {
				runtime.Gosched()
			}
			asked := make(chan error, 1)
			go func() { asked <- ask(s, d) }()
			var err error
			for done := false; !done && waiters(s, d) < 2; {
				select {
				case err = <-asked:
					done = true
					if err == nil {
						t.Error("told that it exists while it was being removed")
					}
					asked <- err
				default:
					runtime.Gosched()
				}
			}
			close(release)
			if err := <-collected; err != nil {
				t.Fatal(err)
			}
			if err = <-asked; !errors.Is(err, ErrBlobUnknown) {
				t.Errorf("got %v, want ErrBlobUnknown", err)
			}
			if isCondemned(s, d) {
				t.Error("still condemned")
			}
			put(t, s, "app", "data")
			if _, err := s.StatBlob(t.Context(), "app", d); err != nil {
				t.Error(err)
			}
		})
	}
}

func isCondemned(s *Store, d image.Digest) bool {
	for i := range s.leases.shards {
		sh := &s.leases.shards[i]
		sh.mu.Lock()
		for _, v := range sh.m {
			if v == condemned {
				sh.mu.Unlock()
				return true
			}
		}
		sh.mu.Unlock()
	}
	return false
}

func waiters(s *Store, d image.Digest) int {
	for i := range s.locks.shards {
		sh := &s.locks.shards[i]
		sh.mu.Lock()
		k := sh.m[d]
		n := 0
		if k != nil {
			n = k.refs
		}
		sh.mu.Unlock()
		if n > 0 {
			return n
		}
	}
	return 0
}

// The references are looked at in the deleting transaction, whatever the
// queue says.
func TestCollectRechecks(t *testing.T) {
	s, fc := testStore(t)
	cfg, layer := put(t, s, "app", "c"), put(t, s, "app", "l")
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x/y","digest":%q,"size":1},"layers":[{"mediaType":"l","digest":%q,"size":1}]}`, image.MediaTypeManifest, cfg, layer)
	m, err := image.ParseManifest("", body)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.Sum256(body)
	if err := s.PutManifest(t.Context(), Push{Repository: "app", Digest: image.Digest("sha256:" + hex.EncodeToString(h[:])), MediaType: m.MediaType, Body: body, Manifest: m}); err != nil {
		t.Fatal(err)
	}
	err = s.db.Write(t.Context(), func(tx *db.Tx) error { _, err := tx.Exec("UPDATE links SET due = 1"); return err })
	if err != nil {
		t.Fatal(err)
	}
	fc.Advance(2 * time.Hour)
	if st, err := s.Collect(t.Context()); err != nil || st.Links+st.Blobs != 0 {
		t.Errorf("collected %+v, %v", st, err)
	}
	var due int
	err = s.db.ReadOne(t.Context(), func(q db.Query) error {
		_, err := q.Row(t.Context(), "SELECT COUNT(*) FROM links WHERE due IS NOT NULL", nil, &due)
		return err
	})
	if err != nil || due != 0 {
		t.Errorf("%d links are still due, %v", due, err)
	}
}

// A scan gives the same whatever the size of its pages.
func TestScanPages(t *testing.T) {
	s, _ := testStore(t)
	fill(t, s, 500, 23)
	type seen struct {
		repo   string
		images []Image
	}
	scan := func(repos, images int) (all []seen) {
		s.scanRepos, s.scanImages = repos, images
		if err := s.Scan(t.Context(), "", func(repo string, ims []Image) error {
			all = append(all, seen{repo, ims})
			if !slices.IsSortedFunc(ims, func(a, b Image) int { return strings.Compare(string(a.Digest), string(b.Digest)) }) {
				t.Errorf("images of %s are not in order", repo)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return all
	}
	want := scan(1000, 10_000)
	n := 0
	for _, r := range want {
		n += len(r.images)
	}
	if n != 500 || len(want) != 23 {
		t.Fatalf("%d images in %d repositories", n, len(want))
	}
	for _, pages := range [][2]int{{1, 1}, {1, 7}, {2, 22}, {23, 22}, {22, 500}, {23, 500}, {24, 500}, {7, 60}, {100, 21}} {
		if got := scan(pages[0], pages[1]); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("pages of %d repositories and %d images give something else", pages[0], pages[1])
		}
	}
}

// Nothing that was read before a change is served after it.
func TestCacheGenerations(t *testing.T) {
	g := newGenerations()
	c := newCache[string](g, 1<<20)
	gen := g.of("app").Load()
	c.put("app", "v1", gen, "old", 3)
	if v, ok := c.get("app", "v1"); !ok || v != "old" {
		t.Fatalf("got %q %v", v, ok)
	}
	g.bump("app")
	if v, ok := c.get("app", "v1"); ok {
		t.Fatalf("got %q after a change", v)
	}
	c.put("app", "v1", gen, "old", 3) // read before, put after
	if v, ok := c.get("app", "v1"); ok {
		t.Fatalf("got %q, which was read before the change", v)
	}
	g.bumpAll()
	c.put("app", "v1", g.of("app").Load(), "new", 3)
	if v, ok := c.get("app", "v1"); !ok || v != "new" {
		t.Fatalf("got %q %v", v, ok)
	}
	for i := range 100_000 {
		c.put("app", fmt.Sprint(i), g.of("app").Load(), "x", 100)
	}
	var bytes, entries int64
	for i := range c.shards {
		bytes += c.shards[i].bytes
		var sum int64
		for _, e := range c.shards[i].m {
			sum += e.cost
			entries++
		}
		if sum != c.shards[i].bytes {
			t.Errorf("shard %d counts %d bytes and has %d", i, c.shards[i].bytes, sum)
		}
	}
	if bytes > 1<<20 || entries < 1000 {
		t.Errorf("%d bytes in %d entries, the limit is %d", bytes, entries, 1<<20)
	}
}

func TestKeys(t *testing.T) {
	a := image.Digest("sha256:" + strings.Repeat("0a", 32))
	b := image.Digest("sha512:" + strings.Repeat("f1", 64))
	for _, d := range []image.Digest{a, b} {
		if got := digestOf(key(d)); got != d {
			t.Errorf("%s reads back as %s", d, got)
		}
	}
	if got := digestsOf(slices.Concat(key(a), key(b), key(a))); !slices.Equal(got, []image.Digest{a, b, a}) {
		t.Errorf("list reads back as %v", got)
	}
	for _, d := range []image.Digest{"", "sha256:", "sha256:" + image.Digest(strings.Repeat("0A", 32)), "md5:" + image.Digest(strings.Repeat("0", 64)), "sha256:" + image.Digest(strings.Repeat("g", 64)), a + "0"} {
		if key(d) != nil {
			t.Errorf("%q has a key", d)
		}
	}
	for _, k := range [][]byte{nil, {}, {9}, {1, 2}, key(a)[:32], append(key(a), 1)} {
		if d := digestOf(k); d != "" {
			t.Errorf("% x reads as %s", k, d)
		}
		digestsOf(k)
	}
}

// The number of images is small where the read is, so a plan that goes through
// a whole table would show only in production.
func TestNoFullScans(t *testing.T) {
	s, _ := testStore(t)
	fill(t, s, 10, 2)
	for _, q := range []string{
		findBlob,
		manifestColumns + `FROM tags t JOIN manifests m ON m.id = t.manifest_id JOIN manifest_bodies b ON b.manifest_id = m.id
			WHERE t.repo_id = (SELECT id FROM repositories WHERE name = ?) AND t.name = ?`,
		`SELECT b.id, b.size FROM blobs b JOIN links l ON l.blob_id = b.id WHERE b.digest = ? AND b.corrupt = 0 AND l.repo_id = ? AND l.hidden = 0`,
		"SELECT " + imageColumns + " FROM repositories r JOIN manifests m ON m.repo_id = r.id  WHERE r.name > ? AND r.name <= ? ORDER BY r.name, m.digest LIMIT ?",
		dueLinks, dueLoose, heldBy, heldAtAll,
		`UPDATE links SET due = ? WHERE repo_id = ? AND blob_id IN (SELECT blob_id FROM manifest_blobs WHERE manifest_id = ?)
			AND NOT EXISTS (SELECT 1 FROM manifest_blobs o WHERE o.blob_id = links.blob_id AND o.repo_id = links.repo_id AND o.manifest_id <> ?)`,
		`UPDATE links SET hidden = 0 WHERE repo_id = ? AND hidden = 1
		AND blob_id IN (SELECT blob_id FROM manifest_blobs WHERE manifest_id = ?)`,
		`SELECT m.digest, b.digest, b.size FROM
				(SELECT id, digest FROM manifests WHERE repo_id = ? AND digest >= ? ORDER BY digest LIMIT ?) m
				LEFT JOIN manifest_blobs x ON x.manifest_id = m.id LEFT JOIN blobs b ON b.id = x.blob_id ORDER BY m.digest`,
		"SELECT id, at, action, repository, digest, tags, actor, reason, uses FROM audit WHERE repository = ? AND id < ? ORDER BY id DESC LIMIT ?",
		"SELECT id, digest FROM manifests WHERE repo_id = ? AND subject = ? AND state = ?",
	} {
		err := s.db.ReadOne(t.Context(), func(r db.Query) error {
			args := make([]any, strings.Count(q, "?"))
			rows, err := r.Query(t.Context(), "EXPLAIN QUERY PLAN "+q, args...)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var id, parent, zero int
				var what string
				if err := rows.Scan(&id, &parent, &zero, &what); err != nil {
					return err
				}
				if strings.HasPrefix(what, "SCAN") && what != "SCAN m" /* the page itself */ || strings.Contains(what, "TEMP B-TREE") {
					t.Errorf("%s\n%s", what, q)
				}
			}
			return rows.Err()
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// Uploads that were begun and never got a byte live in memory: there is a
// limit, and it forgets nothing that somebody writes to.
func TestEmptyUploads(t *testing.T) {
	s, _ := testStore(t)
	s.upload.max = 10
	ctx := t.Context()
	filled, err := s.StartUpload(ctx, "app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AppendUpload(ctx, "app", filled, 0, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	for i := range 100 { // ended ones do not count
		put(t, s, "app", fmt.Sprint(i))
	}
	var ids []string
	for range 15 {
		id, err := s.StartUpload(ctx, "app")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for i, id := range ids {
		_, err := s.UploadSize(ctx, "app", id)
		if gone := errors.Is(err, ErrUploadUnknown); gone != (i < 5) {
			t.Errorf("upload %d: %v", i, err)
		}
	}
	if n, err := s.UploadSize(ctx, "app", filled); err != nil || n != 1 {
		t.Errorf("the one with a byte has %d, %v", n, err)
	}
	if _, err := s.FinishUpload(ctx, "app", ids[14], -1, strings.NewReader("0"), put(t, s, "app", "0")); err != nil {
		t.Error(err)
	}
	// While the last was pushed there were 11: one more was forgotten.
	if len(s.upload.m) != 9 || s.upload.empty != 8 || len(s.upload.started) > 20 {
		t.Errorf("%d sessions, %d empty, %d in the queue", len(s.upload.m), s.upload.empty, len(s.upload.started))
	}
}

// A full database refuses writes whole, and reads go on.
func TestDatabaseFull(t *testing.T) {
	s, _ := testStore(t)
	ctx := t.Context()
	d := put(t, s, "app", "before")
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		var pages int
		if _, err := tx.Row(ctx, "PRAGMA page_count", nil, &pages); err != nil {
			return err
		}
		_, err := tx.Row(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages+2), nil, &pages)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	full := 0
	for i := range 500 {
		data := fmt.Sprintf("%d %s", i, strings.Repeat("x", 100))
		h := sha256.Sum256([]byte(data))
		d := image.Digest("sha256:" + hex.EncodeToString(h[:]))
		_, err := s.PutBlob(ctx, fmt.Sprintf("app-%d-%s", i, strings.Repeat("y", 100)), strings.NewReader(data), d)
		if err == nil {
			continue
		}
		full++
		if !errors.Is(err, ErrNoSpace) {
			t.Fatalf("got %v, want ErrNoSpace", err)
		}
		if r, err := s.blobs.Open(ctx, d); !errors.Is(err, blob.ErrNotFound) {
			r.Close()
			t.Fatalf("the blob of a push that failed is still there: %v", err)
		}
	}
	if full == 0 {
		t.Fatal("the database did not become full")
	}
	if _, err := s.StatBlob(ctx, "app", d); err != nil {
		t.Error(err)
	}
}
