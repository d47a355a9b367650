// Package catalogtest is the suite that every catalog has to pass, and what
// signs images as cosign does.
//
// It owns nothing that lives longer than a test. It is for tests only.
package catalogtest

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// Start is when the clocks of rigs stand at first.
var Start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// A Rig is a catalog under test, and the registry that it is about.
type Rig struct {
	testing.TB
	catalog.Catalog
	Clock *clock.Fake
	// Store is what the registry holds.
	Store *content.Store
	// Host is what the registry is called.
	Host string
	// Settle makes the catalog look at the registry again; nil where it always
	// does.
	Settle func()
}

// An Open makes a rig over an empty registry.
type Open func(t testing.TB, keys []catalog.Key) *Rig

// NewStore is an empty registry at [Start].
func NewStore(t testing.TB, onTag func(string, string, image.Digest)) (*content.Store, *clock.Fake) {
	t.Helper()
	ctx := context.Background()
	dir := t.TempDir()
	disk, err := blob.OpenDisk(dir, blob.DiskConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	d, err := db.Open(ctx, db.Config{Path: filepath.Join(dir, "registry.db"), Schema: content.Schema, Sync: db.Normal})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	c := clock.NewFake(Start)
	s, err := content.New(ctx, content.Config{DB: d, Blobs: disk, Clock: c, OnTag: onTag})
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

// repo is the repository of the suite.
const repo = "team/app"

// name is what code calls a repository of the rig.
func (r *Rig) name(repo string) string { return r.Host + "/" + repo }

func (r *Rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func eq[T comparable](r *Rig, what string, got, want T) {
	r.Helper()
	if got != want {
		r.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// A Doc is a manifest to be.
type Doc struct {
	Type        string // of the config; an image's when empty
	Config      []byte // nil for an index
	Layers      []Layer
	Children    []image.Descriptor
	Subject     image.Digest
	Artifact    string
	Annotations map[string]string
}

// A Layer of a [Doc].
type Layer struct {
	Type        string
	Data        []byte
	Annotations map[string]string
}

// Dig is the digest of data.
func Dig(data []byte) image.Digest { return digest.FromBytes(data) }

// Body is the manifest as JSON.
func (d Doc) Body() []byte {
	m := map[string]any{"schemaVersion": 2, "mediaType": image.MediaTypeIndex}
	if d.Config != nil {
		if d.Type == "" {
			d.Type = "application/vnd.oci.image.config.v1+json"
		}
		m["mediaType"] = image.MediaTypeManifest
		m["config"] = image.Descriptor{MediaType: d.Type, Digest: Dig(d.Config), Size: int64(len(d.Config))}
		layers := []image.Descriptor{}
		for _, l := range d.Layers {
			layers = append(layers, image.Descriptor{MediaType: l.Type, Digest: Dig(l.Data), Size: int64(len(l.Data)), Annotations: l.Annotations})
		}
		m["layers"] = layers
	} else {
		m["manifests"] = append([]image.Descriptor{}, d.Children...)
	}
	if d.Subject != "" {
		m["subject"] = image.Descriptor{MediaType: image.MediaTypeManifest, Digest: d.Subject, Size: 7}
	}
	if d.Artifact != "" {
		m["artifactType"] = d.Artifact
	}
	if d.Annotations != nil {
		m["annotations"] = d.Annotations
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers
	}
	return b
}

// Put pushes a manifest with its blobs to a store.
func Put(t testing.TB, s *content.Store, repo string, d Doc, tags ...string) image.Digest {
	t.Helper()
	blobs := [][]byte{d.Config}
	for _, l := range d.Layers {
		blobs = append(blobs, l.Data)
	}
	for _, b := range blobs {
		if b == nil {
			continue
		}
		if _, err := s.PutBlob(t.Context(), repo, strings.NewReader(string(b)), Dig(b)); err != nil {
			t.Fatal(err)
		}
	}
	body := d.Body()
	m, err := image.ParseManifest("", body)
	if err != nil {
		t.Fatal(err)
	}
	err = s.PutManifest(t.Context(), content.Push{Repository: repo, Digest: Dig(body), Tags: tags, MediaType: m.MediaType, Body: body, Manifest: m, Actor: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return Dig(body)
}

// put pushes to the rig's registry and lets the catalog hear of it.
func (r *Rig) put(d Doc, tags ...string) image.Digest {
	r.Helper()
	g := Put(r.TB, r.Store, repo, d, tags...)
	r.settle()
	return g
}

func (r *Rig) settle() {
	if r.Settle != nil {
		r.Settle()
	}
}

// Linux is a small image for an architecture.
func Linux(architecture string, labels map[string]string, layers ...string) Doc {
	c, err := json.Marshal(map[string]any{"os": "linux", "architecture": architecture, "created": "2026-10-01T00:00:00Z",
		"config": map[string]any{"Labels": labels}, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{}}})
	if err != nil {
		panic(err) // strings
	}
	d := Doc{Config: c}
	for _, l := range layers {
		d.Layers = append(d.Layers, Layer{Type: "application/vnd.oci.image.layer.v1.tar", Data: []byte(l)})
	}
	return d
}

// child is how an index names what has been put.
func child(d Doc, p *image.Platform) image.Descriptor {
	b := d.Body()
	media := image.MediaTypeManifest
	if d.Config == nil {
		media = image.MediaTypeIndex
	}
	return image.Descriptor{MediaType: media, Digest: Dig(b), Size: int64(len(b)), Platform: p}
}
