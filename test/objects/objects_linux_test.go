// Package objects_test has artifacts meet an object store that is not ours.
//
// It owns that one program, of which each test has one of its own, and stories
// that go through a whole server. What a store
// may answer otherwise is tested beside the code, against one that is made for
// it; here is what both have to agree on: addresses, signatures, lists.
package objects_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/artifacts"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/test/program"
)

// gateway starts a store over a folder whose folders are its buckets.
func gateway(t *testing.T, dir string) (endpoint string) {
	t.Helper()
	return "http://" + program.Objects(t, dir, "eu-1", "id", "s3cret-key")
}

// files opens artifacts over an empty store of blobs.
func files(t *testing.T) *artifacts.Store {
	t.Helper()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("s3cret-key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(dir, "wrong")
	if err := os.WriteFile(wrong, []byte("another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(t.Context(), db.Config{Path: filepath.Join(dir, "registry.db"), Schema: content.Schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	disk, err := blob.OpenDisk(dir, blob.DiskConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	c, err := content.New(t.Context(), content.Config{DB: d, Blobs: disk, Clock: clock.Real(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := artifacts.New(artifacts.Config{AllowPrivate: true, Secrets: []artifacts.Secret{{Name: "store", User: "id", File: secret}, {Name: "wrong", User: "id", File: wrong}}},
		artifacts.Deps{Content: c, Clock: clock.Real()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fetch(ctx context.Context, s *artifacts.Store, src *task.Source) (string, error) {
	f, err := s.Fetch(ctx, "run", task.Input{Name: "in", Source: src})
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

func TestObjects(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	endpoint, s := gateway(t, dir), files(t)
	at := func(key string) *task.Source {
		return &task.Source{Kind: "s3", URL: "data", Key: key, Endpoint: endpoint, Region: "eu-1", Secret: "store"}
	}
	put := func(key, text string) error {
		p, err := s.Store(t.Context(), "run", strings.NewReader(text))
		if err != nil {
			return err
		}
		return s.Deliver(t.Context(), "run", task.Output{Name: "out", Path: "/out", To: at(key)}, p)
	}
	var want []string
	// In the order of their bytes.
	for _, key := range []string{"100%", "a+b", "deep/er/file", "equals=&;:@$,", "hash#?x=1", "line\nbreak", "plain", "quotes'\"<>", "space and space", "star*(x)!~", "ü/é"} {
		if err := put("in/"+key, "text of "+key); err != nil {
			t.Errorf("put %q: %v", key, err)
		}
		if got, err := fetch(t.Context(), s, at("in/"+key)); err != nil || got != "text of "+key {
			t.Errorf("fetch %q: %q, %v", key, got, err)
		}
		want = append(want, filepath.Base(key))
	}
	if err := put("in/zero", ""); err != nil {
		t.Error(err)
	}
	want = append(want[:len(want)-1], "zero", want[len(want)-1])
	list := func(prefix, match string, limit int) ([]workflow.Value, error) {
		return s.List(t.Context(), "run", nil, "s3://data/"+prefix+"?region=eu-1&secret=store&endpoint="+endpoint, match, limit)
	}
	found, err := list("in/", "", 100)
	if err != nil || len(found) != len(want) {
		t.Fatalf("%d of %d objects, %v", len(found), len(want), err)
	}
	for i, v := range found {
		f := v.(*workflow.File)
		if f.Name != want[i] {
			t.Errorf("object %d is %q, want %q", i, f.Name, want[i])
		}
		if got, err := fetch(t.Context(), s, f.Source); err != nil || int64(len(got)) != f.Size {
			t.Errorf("%q has %d bytes, was listed with %d: %v", f.Name, len(got), f.Size, err)
		}
	}

	// More than the store lists at a time.
	many := filepath.Join(dir, "data", "many")
	if err := os.Mkdir(many, 0o755); err != nil {
		t.Fatal(err)
	}
	const n = 2345
	for i := range n {
		if err := os.WriteFile(filepath.Join(many, fmt.Sprintf("%05d.log", i)), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if found, err = list("many/", "*.log", n); err != nil || len(found) != n || found[n-1].(*workflow.File).Name != "02344.log" {
		t.Errorf("%d objects, %v", len(found), err)
	}
	if _, err = list("many", "", n-1); !errors.Is(err, artifacts.ErrTooLarge) {
		t.Errorf("more than the limit: %v", err)
	}

	wrong, nobody, nowhere := at("in/plain"), at("in/plain"), at("in/plain")
	wrong.Secret, nobody.Secret, nowhere.URL = "wrong", "", "none"
	for name, c := range map[string]struct {
		src  *task.Source
		want error
	}{"wrong key": {wrong, artifacts.ErrRefused}, "anonymous": {nobody, artifacts.ErrRefused}, "no bucket": {nowhere, artifacts.ErrNotFound}, "no object": {at("in/none"), artifacts.ErrNotFound}} {
		if _, err := fetch(t.Context(), s, c.src); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
