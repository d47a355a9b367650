// Package contenttest is the suite that content.Store passes over every
// database and blob store it may stand on.
//
// It owns the examples of every rule that content promises, and the soak that
// looks for races between collection and pushes. It promises to use nothing
// but the interfaces of db and blob, so that a new database or place for blobs
// only has to be opened here. It does not measure, and it does not look at what
// only one of them has, such as the files of a disk.
package contenttest

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// A Place is a database with content.Schema and a blob store below a folder
// (or a name that is derived from it).
type Place struct {
	DB      *db.DB
	Blobs   blob.Store
	Flushed bool // as content.Config.Flushed
	// Close closes both. Opened again after that, everything is still there.
	Close func()
	// LosePower closes both as the loss of power would, after a fault or a
	// flush that failed. Nil if a place has no such thing.
	LosePower func(Loss)
	// HoldFlushes has flushes wait until release, which waits for one and lets
	// it go on, or fail with its error. For Flushed only.
	HoldFlushes func() (release func(error))
}

// An Open opens a place.
type Open func(t testing.TB, dir string) Place

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for name, f := range map[string]func(*H){
		"uploads":     uploads,
		"chunks":      chunks,
		"bad uploads": badUploads,
		"busy":        busyUpload,
		"restart":     restart,
		"torn":        torn,
		"intake":      intake,
		"no space":    noSpace,
		"blobs":       blobs,
		"mount":       mount,
		"manifests":   manifests,
		"missing":     missing,
		"retag":       retag,
		"versions":    versions,
		"taggings":    taggings,
		"lists":       lists,
		"referrers":   referrers,
		"expire":      expire,
		"not expired": notExpired,
		"revive":      revive,
		"closure":     closure,
		"deleted":     deleted,
		"old tags":    oldTags,
		"restore":     restore,
		"sweep":       sweep,
		"collect":     collect,
		"leases":      leases,
		"idle":        idle,
		"reconcile":   reconcile,
		"pins":        pins,
		"audit":       audit,
		"scan":        scan,
		"scrub":       scrub,
		"same digest": sameDigest,
		"stats":       stats,
		"holds":       holds,
		"many holds":  manyHolds,
	} {
		t.Run(name, func(t *testing.T) { f(New(t, open)) })
	}
}

// Grace is the grace period of the stores under test.
const Grace = time.Hour

// H is a store under test and the means to drive it.
type H struct {
	testing.TB
	*content.Store
	Clock *clock.Fake
	Place

	ctx  context.Context
	open Open
	dir  string

	mu      sync.Mutex
	revived []string // what the hooks were told
	tagged  []string
}

// New opens an empty store that closes with the test.
func New(t testing.TB, open Open) *H {
	h := &H{TB: t, open: open, dir: t.TempDir(), ctx: t.Context(), Clock: clock.NewFake(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))}
	h.start()
	t.Cleanup(func() { h.Place.Close() })
	return h
}

func (h *H) start() {
	h.Helper()
	h.Place = h.open(h.TB, h.dir)
	h.use(h.Blobs)
}

// use makes a store over the given place for blobs.
func (h *H) use(b blob.Store) {
	h.Helper()
	h.useClock(b, h.Clock)
}

func (h *H) useClock(b blob.Store, c clock.Clock) {
	h.Helper()
	s, err := content.New(h.ctx, content.Config{
		DB: h.DB, Blobs: b, Flushed: h.Flushed && b == h.Blobs, Clock: c, Grace: Grace, Log: slog.New(slog.DiscardHandler),
		OnRevive: func(im content.Image, why string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.revived = append(h.revived, im.Repository+" "+im.State.String()+" "+why)
		},
		OnTag: func(repo, tag string, d image.Digest) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.tagged = append(h.tagged, repo+":"+tag+"@"+string(d))
		},
	})
	h.ok(err)
	h.Store = s
}

// restart closes everything and opens it again, as a new process would.
func (h *H) restart() {
	h.Helper()
	h.ok(h.Store.Close())
	h.Place.Close()
	h.start()
}

func (h *H) ok(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// is fails the test unless err is, or wraps, want.
func (h *H) is(err, want error) {
	h.Helper()
	if !errors.Is(err, want) {
		h.Fatalf("got error %v, want %v", err, want)
	}
}

func eq[T comparable](h *H, what string, got, want T) {
	h.Helper()
	if got != want {
		h.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func same[T comparable](h *H, what string, got []T, want ...T) {
	h.Helper()
	if !slices.Equal(got, want) {
		h.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// Dig is the SHA-256 digest of b.
func Dig(b []byte) image.Digest {
	s := sha256.Sum256(b)
	return image.Digest("sha256:" + hex.EncodeToString(s[:]))
}

func dig512(b []byte) image.Digest {
	s := sha512.Sum512(b)
	return image.Digest("sha512:" + hex.EncodeToString(s[:]))
}

// push uploads bytes with POST and PUT.
func (h *H) push(repo, data string) image.Digest {
	h.Helper()
	d := Dig([]byte(data))
	id, err := h.StartUpload(h.ctx, repo)
	h.ok(err)
	b, err := h.FinishUpload(h.ctx, repo, id, -1, strings.NewReader(data), d)
	h.ok(err)
	eq(h, "blob", b, content.Blob{Digest: d, Size: int64(len(data))})
	return d
}

// read returns a blob's bytes.
func (h *H) read(repo string, d image.Digest) string {
	h.Helper()
	r, err := h.OpenBlob(h.ctx, repo, d)
	h.ok(err)
	defer r.Close()
	b, err := io.ReadAll(r)
	h.ok(err)
	eq(h, "size", r.Size(), int64(len(b)))
	return string(b)
}

// A doc is a manifest to be.
type doc struct {
	config   string // data; "" for an index
	layers   []string
	children []image.Digest
	subject  image.Digest
	artifact string
	notes    map[string]string
}

// Body is the JSON of a manifest.
func (d doc) body() []byte {
	m := map[string]any{"schemaVersion": 2}
	desc := func(mt string, b string) map[string]any {
		return map[string]any{"mediaType": mt, "digest": Dig([]byte(b)), "size": len(b)}
	}
	if d.config != "" {
		m["mediaType"] = image.MediaTypeManifest
		m["config"] = desc("application/vnd.oci.image.config.v1+json", d.config)
		ls := []any{}
		for _, l := range d.layers {
			ls = append(ls, desc("application/vnd.oci.image.layer.v1.tar+gzip", l))
		}
		m["layers"] = ls
	} else {
		m["mediaType"] = image.MediaTypeIndex
		cs := []any{}
		for _, c := range d.children {
			cs = append(cs, map[string]any{"mediaType": image.MediaTypeManifest, "digest": c, "size": 7})
		}
		m["manifests"] = cs
	}
	if d.subject != "" {
		m["subject"] = map[string]any{"mediaType": image.MediaTypeManifest, "digest": d.subject, "size": 7}
	}
	if d.artifact != "" {
		m["artifactType"] = d.artifact
	}
	if d.notes != nil {
		m["annotations"] = d.notes
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // maps of strings
	}
	return b
}

// putErr pushes a manifest, without its blobs.
func (h *H) putErr(repo string, d doc, tags ...string) (image.Digest, error) {
	h.Helper()
	body := d.body()
	m, err := image.ParseManifest("", body)
	h.ok(err)
	return Dig(body), h.PutManifest(h.ctx, content.Push{Repository: repo, Digest: Dig(body), Tags: tags, MediaType: m.MediaType, Body: body, Manifest: m, Actor: "alice"})
}

// put pushes a manifest with its blobs.
func (h *H) put(repo string, d doc, tags ...string) image.Digest {
	h.Helper()
	if d.config != "" {
		h.push(repo, d.config)
		for _, l := range d.layers {
			h.push(repo, l)
		}
	}
	g, err := h.putErr(repo, d, tags...)
	h.ok(err)
	return g
}

// img is a plain image of its own.
func img(name string) doc {
	return doc{config: "config of " + name, layers: []string{"layer of " + name}}
}

func (h *H) peek(repo string, ref string) content.Image {
	h.Helper()
	im, err := h.Peek(h.ctx, repo, ref)
	h.ok(err)
	return im
}

// hide expires an image as retention does.
func (h *H) hide(repo string, d image.Digest) {
	h.Helper()
	im := h.peek(repo, string(d))
	errs, err := h.Expire(h.ctx, []content.Expiry{{Repository: repo, Digest: d, Version: im.Version, Reason: "unused"}})
	h.ok(err)
	h.ok(errs[0])
}

func (h *H) sweep(repo string, d image.Digest) {
	h.Helper()
	im := h.peek(repo, string(d))
	errs, err := h.Sweep(h.ctx, []content.Expiry{{Repository: repo, Digest: d, Version: im.Version, Reason: "time is over"}})
	h.ok(err)
	h.ok(errs[0])
}

func (h *H) tags(repo string) []string {
	h.Helper()
	names, more, err := h.Tags(h.ctx, repo, "", -1)
	h.ok(err)
	eq(h, "more", more, false)
	return names
}

func tagNames(im content.Image) []string {
	var ns []string
	for _, t := range im.Tags {
		ns = append(ns, t.Name)
	}
	return ns
}

func (h *H) collect() content.CollectStats {
	h.Helper()
	st, err := h.Collect(h.ctx)
	h.ok(err)
	return st
}

// files counts what the blob store holds.
func (h *H) files() (blobs, uploads int) {
	h.Helper()
	h.ok(h.Blobs.Walk(h.ctx, func(e blob.Entry) error {
		if e.Upload != "" {
			uploads++
		} else {
			blobs++
		}
		return nil
	}))
	return blobs, uploads
}

// damage replaces the bytes of a blob behind the store's back.
func (h *H) damage(d image.Digest, data string) {
	h.Helper()
	st, err := h.Blobs.Stage(h.ctx, "damage")
	h.ok(err)
	_, err = st.Write([]byte(data))
	h.ok(err)
	h.ok(st.Commit(d))
	h.ok(h.Blobs.Sync(h.ctx, d))
}

// cut is a reader that fails after some bytes.
func cut(data string) io.Reader {
	return io.MultiReader(strings.NewReader(data), failing{})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
