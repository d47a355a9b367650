// Package registrytest makes what tests of the registry need: a real store in
// a temporary folder, a server on a loopback port, and images to push.
//
// It owns nothing that lives longer than a test. It is for tests only.
package registrytest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// Start is the time at which the clocks of tests stand at first.
var Start = time.Date(2026, 11, 22, 22, 0, 0, 0, time.UTC)

// Disk opens a blob store in a temporary folder.
func Disk(t testing.TB) blob.Store {
	t.Helper()
	return DiskIn(t, t.TempDir())
}

// DiskIn opens a blob store in dir.
func DiskIn(t testing.TB, dir string) blob.Store {
	t.Helper()
	d, err := blob.OpenDisk(dir, blob.DiskConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// Store opens an empty store over blobs.
func Store(t testing.TB, blobs blob.Store) *content.Store {
	t.Helper()
	ctx := context.Background()
	d, err := db.Open(ctx, db.Config{Path: filepath.Join(t.TempDir(), "registry.db"), Schema: content.Schema, Sync: db.Full})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	s, err := content.New(ctx, content.Config{DB: d, Blobs: blobs, Clock: clock.NewFake(Start)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Guard makes a guard with accounts, and returns their secrets by their names.
// Everybody may pull from public/**.
func Guard(t testing.TB, c clock.Clock, accounts ...access.NewAccount) (*access.Guard, map[string]string) {
	t.Helper()
	ctx := context.Background()
	d, err := db.Open(ctx, db.Config{Path: filepath.Join(t.TempDir(), "access.db"), Schema: access.Schema, Sync: db.Full})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	g, err := access.New(ctx, access.Config{DB: d, AnonymousPull: []string{"public/**"}, Secret: make([]byte, 32), Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{}
	for _, a := range accounts {
		if _, secrets[a.Name], err = g.Create(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	return g, secrets
}

// WithTokens is h with the token endpoint of g beside it.
func WithTokens(g *access.Guard, h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(access.TokenPath, g.Token())
	mux.Handle("/v2/", h)
	return mux
}

// Serve runs h on a free port of the loopback interface until the test ends,
// and returns host:port.
func Serve(t testing.TB, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(l) // ends with Close
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return l.Addr().String()
}

// Digest is the sha256 of b.
func Digest(b []byte) image.Digest { return digest.SHA256.FromBytes(b) }

// Manifest is an image manifest over a config and layers.
func Manifest(config []byte, layers ...[]byte) []byte {
	s := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[`,
		image.MediaTypeManifest, Digest(config), len(config))
	for i, l := range layers {
		if i > 0 {
			s += ","
		}
		s += fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}`, Digest(l), len(l))
	}
	return []byte(s + "]}")
}

// Artifact is a manifest without layers that refers to a subject.
func Artifact(artifactType string, subject image.Digest, note string) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":1},"annotations":{"note":%q}}`,
		image.MediaTypeManifest, artifactType, image.MediaTypeEmpty, image.EmptyDigest, image.MediaTypeManifest, subject, note)
}
