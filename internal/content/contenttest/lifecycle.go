package contenttest

import (
	"errors"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

func expire(h *H) {
	a := h.put("app", img("a"), "v1", "v2")
	h.Clock.Advance(time.Hour)
	im := h.peek("app", "v1")
	errs, err := h.Expire(h.ctx, []content.Expiry{{Repository: "app", Digest: a, Version: im.Version, Reason: "unused for 30d", StillUnused: func() bool { return true }}})
	h.ok(err)
	h.ok(errs[0])
	eq(h, "tags", len(h.tags("app")), 0)
	repos, _, err := h.Repositories(h.ctx, "", -1)
	h.ok(err)
	eq(h, "repositories", len(repos), 0)
	for _, ref := range []string{"v1", "v2", string(a)} {
		im := h.peek("app", ref)
		eq(h, "state", im.State, content.Expired)
		eq(h, "reason", im.Reason, "unused for 30d")
		eq(h, "hidden at", im.HiddenAt.Equal(h.Clock.Now()), true)
		same(h, "tags it had", tagNames(im), "v1", "v2")
	}
	// Its blobs are there for whoever asks.
	layer := Dig([]byte("layer of a"))
	_, err = h.StatBlob(h.ctx, "app", layer)
	h.ok(err)
	eq(h, "layer", h.read("app", layer), "layer of a")
	ok, err := h.Mount(h.ctx, "other", layer, "app", nil)
	h.ok(err)
	eq(h, "mounted", ok, true)
	h.push("app", "layer of a")
	h.Clock.Advance(3 * Grace)
	h.collect()
	eq(h, "layer", h.read("app", layer), "layer of a")
	eq(h, "still expired: nothing of this revives", h.peek("app", string(a)).State, content.Expired)
	// A push needs no blobs again.
	_, err = h.putErr("app", img("a"), "v3")
	h.ok(err)
	same(h, "tags of the push only", h.tags("app"), "v3")
	same(h, "hook", h.revived, "app live pushed")
}

func notExpired(h *H) {
	for name, change := range map[string]func(d image.Digest, it *content.Expiry){
		"push":         func(image.Digest, *content.Expiry) { h.put("app", img("a"), "v1") },
		"tag":          func(d image.Digest, _ *content.Expiry) { h.ok(h.SetTag(h.ctx, "app", d, "x", "")) },
		"pin":          func(d image.Digest, _ *content.Expiry) { h.ok(h.Pin(h.ctx, content.Pin{Repository: "app", Digest: d})) },
		"use":          func(_ image.Digest, it *content.Expiry) { it.StillUnused = func() bool { return false } },
		"index":        func(d image.Digest, _ *content.Expiry) { h.put("app", doc{children: []image.Digest{d}}) },
		"unknown":      func(_ image.Digest, it *content.Expiry) { it.Digest = Dig([]byte("x")) },
		"unknown repo": func(_ image.Digest, it *content.Expiry) { it.Repository = "nowhere" },
		"deleted":      func(d image.Digest, _ *content.Expiry) { h.ok(h.DeleteManifest(h.ctx, "app", d, "", "")) },
		"pinned before": func(d image.Digest, it *content.Expiry) {
			h.ok(h.Pin(h.ctx, content.Pin{Repository: "app", Digest: d, Expires: h.Clock.Now().Add(time.Hour)}))
			it.Version = h.peek("app", string(d)).Version
		},
	} {
		a, b := h.put("app", img("a"), "v1"), h.put("app", img("b"), "b")
		it := content.Expiry{Repository: "app", Digest: a, Version: h.peek("app", string(a)).Version}
		change(a, &it)
		before := h.peek("app", string(a))
		errs, err := h.Expire(h.ctx, []content.Expiry{it, {Repository: "app", Digest: b, Version: h.peek("app", string(b)).Version}})
		h.ok(err)
		if !errors.Is(errs[0], content.ErrChanged) {
			h.Fatalf("%s: got %v, want ErrChanged", name, errs[0])
		}
		h.ok(errs[1])
		after := h.peek("app", string(a))
		eq(h, name+": version", after.Version, before.Version)
		eq(h, name+": state", after.State, before.State)
		eq(h, "the neighbour", h.peek("app", string(b)).State, content.Expired)
		h.ok(h.Unpin(h.ctx, "app", a))
		_, err = h.Restore(h.ctx, "app", a, "")
		h.ok(err)
	}
	// A pin that ran out protects no more.
	a := h.put("app", img("a"), "v1")
	h.ok(h.Pin(h.ctx, content.Pin{Repository: "app", Digest: a, Expires: h.Clock.Now().Add(time.Hour)}))
	h.Clock.Advance(time.Hour)
	h.hide("app", a)
}

func revive(h *H) {
	a := h.put("app", img("a"), "v1", "v2")
	for i, ref := range []string{"v1", string(a), "v2"} {
		_, err := h.Manifest(h.ctx, "app", ref) // into the cache
		h.ok(err)
		h.hide("app", a)
		m, err := h.Manifest(h.ctx, "app", ref)
		h.ok(err)
		eq(h, "digest", m.Digest, a)
		im := h.peek("app", string(a))
		eq(h, "state", im.State, content.Live)
		eq(h, "hidden at", im.HiddenAt.IsZero() && im.Reason == "", true)
		same(h, "tags", h.tags("app"), "v1", "v2")
		eq(h, "hook", len(h.revived), i+1)
	}
	same(h, "hook", h.revived, "app live pulled by tag v1", "app live pulled by digest", "app live pulled by tag v2")
	h.ok(h.Revive(h.ctx, "app", a, "used"))
	eq(h, "no-op on a live one", len(h.revived), 3)
	h.hide("app", a)
	h.ok(h.Revive(h.ctx, "app", a, "used by host-a"))
	eq(h, "hook", h.revived[3], "app live used by host-a")
	h.is(h.Revive(h.ctx, "app", Dig([]byte("x")), ""), content.ErrManifestUnknown)
	h.is(h.Revive(h.ctx, "nowhere", a, ""), content.ErrRepositoryUnknown)

	// A tag that somebody else has by now is not touched.
	h.hide("app", a)
	b := h.put("app", img("b"), "v1")
	m, err := h.Manifest(h.ctx, "app", "v1")
	h.ok(err)
	eq(h, "v1", m.Digest, b)
	eq(h, "a", h.peek("app", string(a)).State, content.Expired)
	_, err = h.Manifest(h.ctx, "app", string(a))
	h.ok(err)
	same(h, "tags of a", tagNames(h.peek("app", string(a))), "v2")
	same(h, "tags of b", tagNames(h.peek("app", string(b))), "v1")

	// SetTag and a pin bring it back, too.
	h.hide("app", a)
	h.ok(h.SetTag(h.ctx, "app", a, "v9", ""))
	same(h, "tags of a", tagNames(h.peek("app", string(a))), "v2", "v9")
	h.hide("app", a)
	h.ok(h.Pin(h.ctx, content.Pin{Repository: "app", Digest: a}))
	eq(h, "pinned", h.peek("app", string(a)).State, content.Live)
}

func closure(h *H) {
	amd, arm := h.put("app", img("amd")), h.put("app", img("arm"))
	index := h.put("app", doc{children: []image.Digest{amd, arm}}, "v1")
	sig := h.put("app", doc{config: "{}", artifact: "sig", subject: index})
	sigOfSig := h.put("app", doc{config: "{}", artifact: "sig", subject: sig})
	cosign := h.put("app", img("cosign"), strings.Replace(string(amd), ":", "-", 1)+".sig")
	stranger := h.put("app", img("stranger"), "x")
	all := []image.Digest{index, amd, arm, sig, sigOfSig, cosign, stranger}
	hideAll := func() {
		for _, d := range all {
			if h.peek("app", string(d)).State == content.Live {
				h.hide("app", d)
			}
		}
	}
	live := func(what string, want ...image.Digest) {
		h.Helper()
		for _, d := range all {
			s := h.peek("app", string(d)).State
			if (s == content.Live) != slices.Contains(want, d) {
				h.Fatalf("%s: %d of the images is %s", what, slices.Index(all, d), s)
			}
		}
	}
	hideAll()
	live("hidden")
	_, err := h.Manifest(h.ctx, "app", "v1")
	h.ok(err)
	live("pull of the index", index, amd, arm, sig, sigOfSig, cosign)
	h.hide("app", index)
	hideAll()
	_, err = h.Manifest(h.ctx, "app", string(amd))
	h.ok(err)
	live("pull of a child", amd, cosign)
	hideAll()
	_, err = h.putErr("app", doc{children: []image.Digest{amd, arm}}, "v2")
	h.ok(err)
	live("push of the index", index, amd, arm, sig, sigOfSig, cosign)
	same(h, "tags", h.tags("app"), strings.Replace(string(amd), ":", "-", 1)+".sig", "v2")
	hideAll()
	two := h.put("app", doc{children: []image.Digest{amd}}, "two")
	live("push of a new index", amd, cosign)
	h.hide("app", two)
	hideAll()
	h.ok(h.Pin(h.ctx, content.Pin{Repository: "app", Digest: index}))
	live("pin", index, amd, arm, sig, sigOfSig, cosign)

	// A child that was deleted comes back only with a restore of its index.
	h.ok(h.Unpin(h.ctx, "app", index))
	hideAll()
	h.ok(h.DeleteManifest(h.ctx, "app", arm, "", ""))
	_, err = h.Manifest(h.ctx, "app", "v2")
	h.ok(err)
	live("pull without the deleted", index, amd, sig, sigOfSig, cosign)
	hideAll()
	_, err = h.Restore(h.ctx, "app", index, "")
	h.ok(err)
	live("restore", index, amd, arm, sig, sigOfSig, cosign)
}

func deleted(h *H) {
	a := h.put("app", img("a"), "v1", "v2")
	_, err := h.Manifest(h.ctx, "app", "v1")
	h.ok(err)
	h.ok(h.DeleteManifest(h.ctx, "app", a, "bob", "no longer needed"))
	for _, ref := range []string{"v1", "v2", string(a)} {
		_, err = h.Manifest(h.ctx, "app", ref)
		h.is(err, content.ErrManifestUnknown)
	}
	h.is(h.DeleteManifest(h.ctx, "app", a, "", ""), content.ErrManifestUnknown)
	h.is(h.DeleteManifest(h.ctx, "app", Dig([]byte("x")), "", ""), content.ErrManifestUnknown)
	h.is(h.DeleteManifest(h.ctx, "nowhere", a, "", ""), content.ErrRepositoryUnknown)
	h.is(h.Revive(h.ctx, "app", a, "used"), content.ErrManifestUnknown)
	h.is(h.SetTag(h.ctx, "app", a, "x", ""), content.ErrManifestUnknown)
	h.is(h.Pin(h.ctx, content.Pin{Repository: "app", Digest: a}), content.ErrManifestUnknown)
	im := h.peek("app", "v1")
	eq(h, "state", im.State, content.Deleted)
	eq(h, "reason", im.Reason, "no longer needed")
	eq(h, "nobody told the hook", len(h.revived), 0)
	// A push is a push.
	_, err = h.putErr("app", img("a"), "v3")
	h.ok(err)
	same(h, "tags", h.tags("app"), "v3")
	eq(h, "nor of this", len(h.revived), 0)

	// An expired one can be deleted: then a pull no longer helps.
	h.hide("app", a)
	h.ok(h.DeleteManifest(h.ctx, "app", a, "bob", ""))
	_, err = h.Manifest(h.ctx, "app", "v3")
	h.is(err, content.ErrManifestUnknown)
	r, err := h.Restore(h.ctx, "app", a, "bob")
	h.ok(err)
	same(h, "restored tags", r.Tags, "v3")

	// A blob deleted while only a hidden image has it comes back with it.
	h.hide("app", a)
	layer := Dig([]byte("layer of a"))
	h.ok(h.DeleteBlob(h.ctx, "app", layer))
	_, err = h.StatBlob(h.ctx, "app", layer)
	h.is(err, content.ErrBlobUnknown)
	h.Clock.Advance(3 * Grace)
	h.collect()
	_, err = h.Manifest(h.ctx, "app", "v3")
	h.ok(err)
	eq(h, "layer", h.read("app", layer), "layer of a")
}

func oldTags(h *H) {
	// Two hidden images had the tag: the last one answers.
	a := h.put("app", img("a"), "v1")
	h.hide("app", a)
	h.Clock.Advance(time.Minute)
	b := h.put("app", img("b"), "v1")
	h.hide("app", b)
	m, err := h.Manifest(h.ctx, "app", "v1")
	h.ok(err)
	eq(h, "v1", m.Digest, b)
	// Deleted with its tag, the older one must not answer in its place.
	h.ok(h.DeleteManifest(h.ctx, "app", b, "", ""))
	_, err = h.Manifest(h.ctx, "app", "v1")
	h.is(err, content.ErrManifestUnknown)
	h.sweep("app", b)
	_, err = h.Manifest(h.ctx, "app", "v1")
	h.is(err, content.ErrManifestUnknown)
	_, err = h.Manifest(h.ctx, "app", string(a)) // by digest it may
	h.ok(err)
	eq(h, "without the deleted tag", len(h.tags("app")), 0)

	// A tag deleted by a client, live or hidden.
	c := h.put("app", img("c"), "v2", "v3")
	h.hide("app", c)
	h.put("app", img("d"), "v2")
	h.ok(h.DeleteTag(h.ctx, "app", "v2", ""))
	_, err = h.Manifest(h.ctx, "app", "v2")
	h.is(err, content.ErrManifestUnknown)
	h.ok(h.DeleteTag(h.ctx, "app", "v3", ""))
	_, err = h.Manifest(h.ctx, "app", "v3")
	h.is(err, content.ErrManifestUnknown)
	h.is(h.DeleteTag(h.ctx, "app", "v3", ""), content.ErrManifestUnknown)
	r, err := h.Restore(h.ctx, "app", c, "") // a person may have all back
	h.ok(err)
	same(h, "tags", r.Tags, "v2", "v3")
}

func restore(h *H) {
	a := h.put("app", img("a"), "v1", "v2", "v3")
	h.ok(h.DeleteManifest(h.ctx, "app", a, "bob", ""))
	b := h.put("app", img("b"), "v2")
	h.Clock.Advance(time.Minute)
	r, err := h.Restore(h.ctx, "app", a, "bob")
	h.ok(err)
	same(h, "tags", r.Tags, "v1", "v3")
	same(h, "taken", r.Taken, "v2")
	m, err := h.Manifest(h.ctx, "app", "v2")
	h.ok(err)
	eq(h, "v2", m.Digest, b)
	im := h.peek("app", string(a))
	eq(h, "state", im.State, content.Live)
	eq(h, "its time begins anew", im.Pushed.Equal(h.Clock.Now()), true)
	r, err = h.Restore(h.ctx, "app", a, "bob")
	h.ok(err)
	eq(h, "restore of a live one", len(r.Tags)+len(r.Taken), 0)
	_, err = h.Restore(h.ctx, "app", Dig([]byte("x")), "")
	h.is(err, content.ErrManifestUnknown)
	_, err = h.Restore(h.ctx, "nowhere", a, "")
	h.is(err, content.ErrRepositoryUnknown)
	h.hide("app", a)
	_, err = h.Restore(h.ctx, "app", a, "bob")
	h.ok(err)
	eq(h, "nobody told the hook", len(h.revived), 0)
}

func pins(h *H) {
	a, b := h.put("app", img("a"), "v1"), h.put("web", img("b"))
	until := h.Clock.Now().Add(time.Hour)
	h.ok(h.Pin(h.ctx, content.Pin{Repository: "app", Digest: a, Reason: "audit", By: "bob", Expires: until}))
	h.ok(h.Pin(h.ctx, content.Pin{Repository: "web", Digest: b}))
	ps, err := h.Pins(h.ctx, "")
	h.ok(err)
	same(h, "pins", ps,
		content.Pin{Repository: "app", Digest: a, Reason: "audit", By: "bob", Created: h.Clock.Now(), Expires: until},
		content.Pin{Repository: "web", Digest: b, Created: h.Clock.Now()})
	h.ok(h.Pin(h.ctx, content.Pin{Repository: "app", Digest: a, By: "eve"}))
	ps, err = h.Pins(h.ctx, "app")
	h.ok(err)
	eq(h, "replaced", len(ps) == 1 && ps[0].By == "eve" && ps[0].Expires.IsZero(), true)
	h.ok(h.Unpin(h.ctx, "app", a))
	h.is(h.Unpin(h.ctx, "app", Dig([]byte("x"))), content.ErrManifestUnknown)
	h.is(h.Pin(h.ctx, content.Pin{Repository: "app", Digest: Dig([]byte("x"))}), content.ErrManifestUnknown)
	h.is(h.Pin(h.ctx, content.Pin{Repository: "nowhere", Digest: a}), content.ErrRepositoryUnknown)
	ps, err = h.Pins(h.ctx, "app")
	h.ok(err)
	eq(h, "unpinned", len(ps), 0)
	h.ok(h.Pin(h.ctx, content.Pin{Repository: "app", Digest: a, Expires: until}))
	h.Clock.Advance(2 * time.Hour)
	ps, err = h.Pins(h.ctx, "app")
	h.ok(err)
	eq(h, "run out", len(ps), 0)
}
