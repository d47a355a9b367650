package contenttest

import (
	"fmt"
	"os"
	"strings"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// past lets the grace period end and collects.
func (h *H) past() content.CollectStats {
	h.Helper()
	h.Clock.Advance(Grace + time.Second)
	return h.collect()
}

func sweep(h *H) {
	a := h.put("app", doc{config: "ca", layers: []string{"shared", "only a"}}, "v1")
	h.put("app", doc{config: "cb", layers: []string{"shared"}}, "b")
	h.put("web", doc{config: "ca"}, "v1")
	im := h.peek("app", string(a))
	errs, err := h.Sweep(h.ctx, []content.Expiry{{Repository: "app", Digest: a, Version: im.Version}})
	h.ok(err)
	h.is(errs[0], content.ErrChanged) // it is live
	h.hide("app", a)
	errs, err = h.Sweep(h.ctx, []content.Expiry{{Repository: "app", Digest: a, Version: im.Version}})
	h.ok(err)
	h.is(errs[0], content.ErrChanged) // the version of before
	h.sweep("app", a)
	_, err = h.Peek(h.ctx, "app", string(a))
	h.is(err, content.ErrManifestUnknown)
	_, err = h.Restore(h.ctx, "app", a, "")
	h.is(err, content.ErrManifestUnknown)
	st := h.past()
	eq(h, "blobs removed", st.Blobs, 1)
	eq(h, "bytes removed", st.Bytes, int64(len("only a")))
	eq(h, "links removed", st.Links, 2) // "only a", and "ca" from app
	_, err = h.StatBlob(h.ctx, "app", Dig([]byte("only a")))
	h.is(err, content.ErrBlobUnknown)
	_, err = h.StatBlob(h.ctx, "app", Dig([]byte("ca")))
	h.is(err, content.ErrBlobUnknown)
	eq(h, "shared", h.read("app", Dig([]byte("shared"))), "shared")
	eq(h, "in web", h.read("web", Dig([]byte("ca"))), "ca")
	n, _ := h.files()
	eq(h, "files", n, 3)

	// The last image of all.
	for _, x := range [][2]string{{"app", "b"}, {"web", "v1"}} {
		d := h.peek(x[0], x[1]).Digest
		h.ok(h.DeleteManifest(h.ctx, x[0], d, "", ""))
		h.sweep(x[0], d)
	}
	h.past()
	n, _ = h.files()
	eq(h, "files", n, 0)
	s, err := h.Stats(h.ctx)
	h.ok(err)
	eq(h, "nothing is left", s, content.Stats{})
	_, err = h.ImagesOf(h.ctx, "app")
	h.is(err, content.ErrRepositoryUnknown)
}

func collect(h *H) {
	// Pushed and never used.
	d := h.push("app", "orphan")
	h.Clock.Advance(Grace - time.Second)
	h.collect()
	eq(h, "within the grace period", h.read("app", d), "orphan")
	st := h.past()
	eq(h, "removed", st.Blobs, 1)
	_, err := h.StatBlob(h.ctx, "app", d)
	h.is(err, content.ErrBlobUnknown)
	eq(h, "pushed again", h.read("app", h.push("app", "orphan")), "orphan")
	// Deleted by a client.
	h.ok(h.DeleteBlob(h.ctx, "app", d))
	h.past()
	n, _ := h.files()
	eq(h, "files", n, 0)
	// One of two repositories lets go.
	h.push("app", "two")
	two := h.push("web", "two")
	h.ok(h.DeleteBlob(h.ctx, "app", two))
	h.Clock.Advance(Grace / 2)
	_, err = h.StatBlob(h.ctx, "web", two)
	h.ok(err)
	h.Clock.Advance(Grace/2 + time.Second)
	h.collect()
	eq(h, "in web", h.read("web", two), "two")
	// Many at once.
	for i := range 100 {
		h.push("app", fmt.Sprint("many ", i))
	}
	h.Clock.Advance(Grace + time.Second)
	eq(h, "many", h.collect().Blobs >= 100, true)
	// A wall clock that jumps ahead proves nothing.
	d = h.push("app", "jump")
	h.Clock.Jump(365 * 24 * time.Hour)
	h.collect()
	eq(h, "after a jump", h.read("app", d), "jump")
	h.Clock.Jump(-2 * 365 * 24 * time.Hour)
	d = h.push("app", "back")
	h.put("app", img("x"), "x")
	h.collect()
	eq(h, "after a jump back", h.read("app", d), "back")
}

// leases are what protects a blob that a client was told of.
func leases(h *H) {
	for name, tell := range map[string]func(d image.Digest){
		"HEAD": func(d image.Digest) { _, err := h.StatBlob(h.ctx, "app", d); h.ok(err) },
		"GET":  func(d image.Digest) { h.read("app", d) },
		"mount into the same": func(d image.Digest) {
			ok, err := h.Mount(h.ctx, "app", d, "", nil)
			h.ok(err)
			eq(h, "mounted", ok, true)
		},
		"mount into another": func(d image.Digest) {
			ok, err := h.Mount(h.ctx, "web", d, "app", nil)
			h.ok(err)
			eq(h, "mounted", ok, true)
		},
		"push":             func(d image.Digest) { h.push("app", "data") },
		"push for another": func(d image.Digest) { h.push("web", "data") },
	} {
		d := h.push("app", "data")
		h.push("app", "config")
		h.Clock.Advance(Grace - time.Minute)
		tell(d)
		_, err := h.StatBlob(h.ctx, "app", Dig([]byte("config")))
		h.ok(err)
		h.Clock.Advance(Grace - time.Minute)
		h.collect()
		if _, err := h.putErr("app", doc{config: "config", layers: []string{"data"}}); err != nil {
			h.Fatalf("%s did not protect the blob: %v", name, err)
		}
		m := h.peek("app", string(Dig(doc{config: "config", layers: []string{"data"}}.body())))
		h.ok(h.DeleteManifest(h.ctx, "app", m.Digest, "", ""))
		h.sweep("app", m.Digest)
		h.past()
		h.past()
		if n, _ := h.files(); n != 0 {
			h.Fatalf("%s: %d files are left for ever", name, n)
		}
	}
	// Asking for what is not there protects nothing and breaks nothing.
	_, err := h.StatBlob(h.ctx, "app", Dig([]byte("nothing")))
	h.is(err, content.ErrBlobUnknown)

	// What an earlier process told its clients holds after a restart.
	d := h.push("app", "data")
	h.Clock.Advance(Grace - time.Minute)
	_, err = h.StatBlob(h.ctx, "app", d)
	h.ok(err)
	h.restart()
	h.Clock.Advance(Grace - time.Minute)
	eq(h, "soon after a start", h.collect().Blobs, 0)
	eq(h, "data", h.read("app", d), "data")
	h.past()
	_, err = h.StatBlob(h.ctx, "app", d)
	h.is(err, content.ErrBlobUnknown)
}

func reconcile(h *H) {
	keep := h.put("app", img("a"), "v1")
	id, err := h.StartUpload(h.ctx, "app")
	h.ok(err)
	_, err = h.AppendUpload(h.ctx, "app", id, 0, strings.NewReader("abc"))
	h.ok(err)
	// What a crash leaves between the rename and the commit, and before.
	h.damage(Dig([]byte("left")), "left")
	st, err := h.Blobs.Stage(h.ctx, "left")
	h.ok(err)
	_, err = st.Write([]byte("left"))
	h.ok(err)
	h.ok(st.Close())
	nb, nu := h.files()
	eq(h, "blobs", nb, 3)
	eq(h, "uploads", nu, 2)
	// The files have the machine's times: bring the clock there.
	h.Clock.Jump(time.Until(h.Clock.Now()) * -1)
	rs, err := h.Reconcile(h.ctx)
	h.ok(err)
	eq(h, "young ones stay", rs, content.ReconcileStats{})
	h.Clock.Jump(Grace + time.Minute)
	rs, err = h.Reconcile(h.ctx)
	h.ok(err)
	eq(h, "removed", rs, content.ReconcileStats{Blobs: 1, Uploads: 1, Bytes: 8})
	m, err := h.Manifest(h.ctx, "app", "v1")
	h.ok(err)
	eq(h, "digest", m.Digest, keep)
	eq(h, "layer", h.read("app", Dig([]byte("layer of a"))), "layer of a")
	_, err = h.FinishUpload(h.ctx, "app", id, 3, nil, Dig([]byte("abc")))
	h.ok(err)
	// A push over what was left makes it whole.
	h.damage(Dig([]byte("over")), "ove")
	eq(h, "pushed over", h.read("app", h.push("app", "over")), "over")
}

func scrub(h *H) {
	h.put("app", img("a"), "v1")
	h.put("app", img("b"), "v2")
	ok512 := dig512([]byte("long"))
	_, err := h.PutBlob(h.ctx, "app", strings.NewReader("long"), ok512)
	h.ok(err)
	var last, total int64
	rep, err := h.Scrub(h.ctx, func(d, t int64) { last, total = d, t })
	h.ok(err)
	eq(h, "report", fmt.Sprint(rep), fmt.Sprint(content.ScrubReport{Blobs: 5, Bytes: 46, Manifests: 2}))
	eq(h, "progress", last == total && total == 46, true)

	bad, lost, orphan := Dig([]byte("layer of a")), Dig([]byte("layer of b")), Dig([]byte("orphan"))
	eq(h, "before", h.read("app", bad), "layer of a")
	h.damage(bad, "layer of A") // the size is right
	h.ok(h.Blobs.Delete(h.ctx, lost))
	h.damage(orphan, "orphan")
	_, err = h.OpenBlob(h.ctx, "app", lost)
	h.is(err, content.ErrCorrupt) // noticed at once
	rep, err = h.Scrub(h.ctx, nil)
	h.ok(err)
	same(h, "corrupt", rep.Corrupt, bad)
	same(h, "missing", rep.Missing, lost)
	same(h, "orphans", rep.Orphans, orphan)
	for _, d := range []image.Digest{bad, lost} {
		_, err = h.OpenBlob(h.ctx, "app", d)
		h.is(err, content.ErrCorrupt)
		_, err = h.StatBlob(h.ctx, "app", d)
		h.is(err, content.ErrBlobUnknown) // so that clients push it
		ok, err := h.Mount(h.ctx, "web", d, "app", nil)
		h.ok(err)
		eq(h, "mounted", ok, false)
	}
	_, err = h.putErr("app", img("a"), "v3")
	if err == nil {
		h.Fatal("a manifest was accepted over a corrupt blob")
	}
	st, err := h.Stats(h.ctx)
	h.ok(err)
	eq(h, "corrupt", st.Corrupt, 2)
	h.push("web", "layer of a") // from anywhere
	h.push("app", "layer of b")
	eq(h, "repaired", h.read("app", bad), "layer of a")
	eq(h, "repaired", h.read("app", lost), "layer of b")
	rep, err = h.Scrub(h.ctx, nil)
	h.ok(err)
	eq(h, "after the repair", len(rep.Corrupt)+len(rep.Missing), 0)
	h.damage(bad, "short")
	_, err = h.OpenBlob(h.ctx, "app", bad)
	h.is(err, content.ErrCorrupt)
	h.push("app", "layer of a")
	eq(h, "repaired without a scrub", h.read("app", bad), "layer of a")

	// A manifest's body.
	d := h.peek("app", "v1").Digest
	h.ok(h.DB.Write(h.ctx, func(tx *db.Tx) error {
		_, err := tx.Exec("UPDATE manifest_bodies SET body = ? WHERE body = ?", []byte("{}"), img("a").body())
		return err
	}))
	h.restart() // the cache held the good one
	_, err = h.Manifest(h.ctx, "app", "v1")
	h.is(err, content.ErrCorrupt)
	rep, err = h.Scrub(h.ctx, nil)
	h.ok(err)
	same(h, "corrupt manifests", rep.CorruptManifests, content.CorruptManifest{Repository: "app", Digest: d})
	_, err = h.putErr("app", img("a"))
	h.ok(err)
	_, err = h.Manifest(h.ctx, "app", "v1")
	h.ok(err)
}

func stats(h *H) {
	a := h.put("app", img("a"), "v1", "v2")
	b := h.put("app", img("b"), "v3")
	c := h.put("web", img("c"))
	h.hide("app", a)
	h.ok(h.DeleteManifest(h.ctx, "web", c, "", ""))
	id, err := h.StartUpload(h.ctx, "app")
	h.ok(err)
	_, err = h.AppendUpload(h.ctx, "app", id, -1, strings.NewReader("x"))
	h.ok(err)
	st, err := h.Stats(h.ctx)
	h.ok(err)
	eq(h, "stats", st, content.Stats{Repositories: 1, Live: 1, Expired: 1, Deleted: 1, Tags: 1, Blobs: 6, BlobBytes: 63, Uploads: 1})
	_ = b
}

// Long reports whether the long loops were asked for.
func Long() bool { return os.Getenv("CAIRN_SOAK") != "" }
