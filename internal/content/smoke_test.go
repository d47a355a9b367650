package content

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

func dig(b []byte) image.Digest {
	h := sha256.Sum256(b)
	return image.Digest("sha256:" + hex.EncodeToString(h[:]))
}

func TestSmoke(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	d, err := db.Open(ctx, db.Config{Path: filepath.Join(dir, "registry.db"), Schema: Schema})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	disk, err := blob.OpenDisk(dir, blob.DiskConfig{})
	if err != nil {
		t.Fatal(err)
	}
	fc := clock.NewFake(time.Now())
	s, err := New(ctx, Config{DB: d, Blobs: disk, Clock: fc, Grace: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	cfg, layer := []byte("{}x"), []byte("layer")
	for _, b := range [][]byte{cfg, layer} {
		id, err := s.StartUpload(ctx, "a/b")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.FinishUpload(ctx, "a/b", id, -1, bytes.NewReader(b), dig(b)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.UploadSize(ctx, "a/b", id); !errors.Is(err, ErrUploadUnknown) {
			t.Fatal(err)
		}
		r, err := s.OpenBlob(ctx, "a/b", dig(b))
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x/y","digest":%q,"size":3},"layers":[{"mediaType":"l","digest":%q,"size":5}]}`, image.MediaTypeManifest, dig(cfg), dig(layer))
	m, err := image.ParseManifest("", body)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutManifest(ctx, Push{"a/b", dig(body), []string{"v1"}, m.MediaType, body, m, "me"}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Manifest(ctx, "a/b", "v1")
	if err != nil || !bytes.Equal(got.Body, body) {
		t.Fatal(err)
	}
	im, err := s.Peek(ctx, "a/b", "v1")
	t.Logf("%+v %v", im, err)
	errs, err := s.Expire(ctx, []Expiry{{Repository: "a/b", Digest: im.Digest, Version: im.Version, Reason: "old"}})
	if err != nil || errs[0] != nil {
		t.Fatal(errs, err)
	}
	if tags, _, err := s.Tags(ctx, "a/b", "", -1); err != nil || len(tags) != 0 {
		t.Fatal(tags, err)
	}
	if _, err := s.Manifest(ctx, "a/b", "v1"); err != nil {
		t.Fatal(err)
	}
	if tags, _, err := s.Tags(ctx, "a/b", "", -1); err != nil || len(tags) != 1 {
		t.Fatal(tags, err)
	}
	if err := s.DeleteManifest(ctx, "a/b", im.Digest, "me", "why"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Manifest(ctx, "a/b", "v1"); !errors.Is(err, ErrManifestUnknown) {
		t.Fatal(err)
	}
	n := 0
	err = s.Scan(ctx, "", func(repo string, images []Image) error {
		n += len(images)
		im = images[0]
		return nil
	})
	if n != 1 || err != nil || im.State != Deleted || len(im.Tags) != 1 || im.Reason != "why" {
		t.Fatal(n, err, im)
	}
	if errs, err := s.Sweep(ctx, []Expiry{{Repository: "a/b", Digest: im.Digest, Version: im.Version, Reason: "old"}}); err != nil || errs[0] != nil {
		t.Fatal(errs, err)
	}
	fc.Advance(2 * time.Hour)
	cs, err := s.Collect(ctx)
	if err != nil || cs.Blobs != 2 {
		t.Fatal(cs, err)
	}
	es, err := s.Audit(ctx, "", 0, 100)
	for _, e := range es {
		t.Logf("%+v", e)
	}
	st, err := s.Stats(ctx)
	t.Logf("%+v %v", st, err)
	rep, err := s.Scrub(ctx, nil)
	t.Logf("%+v %v", rep, err)
}
