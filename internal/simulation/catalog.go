// Package simulation explores the life of an image store.
//
// It owns a model of what the rooms content, usage and retention do together
// (pushes, uses, silence, crashes, clocks, expiry, restoring, collection), an
// oracle that states anew, naively, what must hold, and the ways to go through
// histories: every one up to a bound, random ones beyond, each shortened when
// it fails, and the same ones on the real store. The model decides by the very
// functions that production decides by ([retention.Decide], [usage.Graph],
// [usage.Coverage]); the oracle uses none of them. It promises that a failure is
// reproducible by the history it prints. It is for tests only: nothing imports
// it, and it finds only what its small universe can show.
package simulation

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"cairn.dev/cairn/internal/image"
)

// The universe: few things, and every edge between them that exists. A child
// is shared by two indexes, a layer by two images and, by mounting, two
// repositories; one referrer has a subject field and one a fallback tag.
const (
	nRepo = 2
	nMan  = 7
	nBlob = 6
	nTag  = 3
	nRep  = 2
	nDig  = nMan + 3 // manifests and configs
)

// Manifests by number.
const (
	mA   = iota // image, child of I and J
	mB          // image, child of I; shares a layer with A
	mI          // index of A and B
	mJ          // index of A
	mC          // image
	mSig        // refers to I
	mFal        // refers to C once it has C's fallback tag
)

// Tags by number. The last is the fallback tag of C.
const (
	tag1 = iota
	tag2
	tagFallback
)

// Unit is the grain of time. Times are counted in it.
const Unit = 20 * time.Minute

// T is a time in units; 0 is none.
type T = int32

// epoch is time 0, and begin when histories begin: long after the files of the
// real store were made, so that its reconciler takes them all for old.
var epoch = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

const begin T = 1000

func wall(t T) time.Time { return epoch.Add(time.Duration(t) * Unit) }

func span(d T) time.Duration { return time.Duration(d) * Unit }

// manifestOf is a manifest of the catalog.
type manifestOf struct {
	name     string
	digest   image.Digest
	body     []byte
	parsed   *image.Manifest
	blobs    []int
	children []int
	config   int // of nDig; -1: none that counts
	subject  int // -1: none
}

// blobOf is a blob of the catalog.
type blobOf struct {
	name   string
	digest image.Digest
	body   []byte
}

// catalog is what can be pushed.
type catalog struct {
	mans    [nMan]manifestOf
	blobs   [nBlob]blobOf
	digests [nDig]image.Digest
	repos   [nRepo]string
	tags    [nTag]string
	order   []int // manifests by digest, as the store lists them
	at      map[image.Digest]int
}

func sum(b []byte) image.Digest {
	h := sha256.Sum256(b)
	return image.Digest("sha256:" + hex.EncodeToString(h[:]))
}

func newCatalog() *catalog {
	c := &catalog{repos: [nRepo]string{"app/web", "lib"}, at: map[image.Digest]int{}}
	for i, b := range []string{`{"a":1}`, `{"b":1}`, `{"c":1}`, "{}", "base layer", "other layer"} {
		c.blobs[i] = blobOf{[]string{"cfgA", "cfgB", "cfgC", "empty", "base", "other"}[i], sum([]byte(b)), []byte(b)}
	}
	desc := func(mt string, i int) map[string]any {
		return map[string]any{"mediaType": mt, "digest": c.blobs[i].digest, "size": len(c.blobs[i].body)}
	}
	const config, empty, layer = "application/vnd.oci.image.config.v1+json", image.MediaTypeEmpty, "application/vnd.oci.image.layer.v1.tar"
	put := func(i int, name string, m map[string]any, blobs, children []int, cfg, subject int) {
		m["schemaVersion"] = 2
		body, err := json.Marshal(m)
		if err == nil {
			c.mans[i].parsed, err = image.ParseManifest("", body)
		}
		if err != nil { // the catalog is a constant: a mistake shows in every test
			panic(err)
		}
		x := &c.mans[i]
		x.name, x.body, x.digest, x.blobs, x.children, x.config, x.subject = name, body, sum(body), blobs, children, cfg, subject
		c.digests[i] = x.digest
		c.at[x.digest] = i
	}
	img := func(cfg, lay int) map[string]any {
		return map[string]any{"mediaType": image.MediaTypeManifest, "config": desc(config, cfg), "layers": []any{desc(layer, lay)}}
	}
	index := func(of ...int) map[string]any {
		var ms []any
		for _, i := range of {
			ms = append(ms, map[string]any{"mediaType": image.MediaTypeManifest, "digest": c.mans[i].digest, "size": len(c.mans[i].body)})
		}
		return map[string]any{"mediaType": image.MediaTypeIndex, "manifests": ms}
	}
	artifact := func(kind string) map[string]any {
		return map[string]any{"mediaType": image.MediaTypeManifest, "artifactType": kind, "config": desc(empty, 3), "layers": []any{desc(layer, 5)}}
	}
	put(mA, "A", img(0, 4), []int{0, 4}, nil, nMan, -1)
	put(mB, "B", img(1, 4), []int{1, 4}, nil, nMan+1, -1)
	put(mI, "I", index(mA, mB), nil, []int{mA, mB}, -1, -1)
	put(mJ, "J", index(mA), nil, []int{mA}, -1, -1)
	put(mC, "C", img(2, 5), []int{2, 5}, nil, nMan+2, -1)
	sig := artifact("x/signature")
	sig["subject"] = map[string]any{"mediaType": image.MediaTypeIndex, "digest": c.mans[mI].digest, "size": len(c.mans[mI].body)}
	put(mSig, "Sig", sig, []int{3, 5}, nil, -1, mI)
	put(mFal, "Fal", artifact("x/sbom"), []int{3, 5}, nil, -1, -1)
	for i := range 3 {
		c.digests[nMan+i] = c.blobs[i].digest
	}
	c.tags = [nTag]string{"v1", "v2", "sha256-" + c.mans[mC].digest.Encoded() + ".sig"}
	for i := range nMan {
		c.order = append(c.order, i)
	}
	slices.SortFunc(c.order, func(a, b int) int {
		if c.mans[a].digest < c.mans[b].digest {
			return -1
		}
		return 1
	})
	return c
}
