package contenttest

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing/iotest"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// hold holds data for an owner.
func (h *H) hold(owner, data string) image.Digest {
	h.Helper()
	b, err := h.Hold(h.ctx, owner, strings.NewReader(data))
	h.ok(err)
	eq(h, "what is held", b, content.Blob{Digest: Dig([]byte(data)), Size: int64(len(data))})
	return b.Digest
}

// readHeld is what an owner reads.
func (h *H) readHeld(owner string, d image.Digest) (string, error) {
	h.Helper()
	r, err := h.OpenHeld(h.ctx, owner, d)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	h.ok(errors.Join(err, r.Close()))
	return string(b), nil
}

func (h *H) owners(prefix string) (names []string) {
	h.Helper()
	for after := ""; ; {
		page, err := h.Owners(h.ctx, prefix, after, 2)
		h.ok(err)
		if len(page) == 0 {
			return names
		}
		for _, o := range page {
			eq(h, "since", o.Since.IsZero(), false)
			names = append(names, o.Name)
			after = o.Name
		}
	}
}

func holds(h *H) {
	d := h.hold("run/a", "data")
	empty := h.hold("run/a", "")
	got, err := h.readHeld("run/a", d)
	h.ok(err)
	eq(h, "read", got, "data")
	got, err = h.readHeld("", empty)
	h.ok(err)
	eq(h, "read by anybody", got, "")

	// Others do not see it, nor does a repository.
	_, err = h.readHeld("run/b", d)
	h.is(err, content.ErrBlobUnknown)
	_, err = h.StatBlob(h.ctx, "app", d)
	h.is(err, content.ErrBlobUnknown)
	ok, err := h.Mount(h.ctx, "app", d, "", nil)
	h.ok(err)
	eq(h, "mounted from nowhere", ok, false)
	// What only a repository has is nobody's to hold by its name.
	layer := h.push("app", "layer")
	_, err = h.HoldDigest(h.ctx, "run/b", "", layer)
	h.is(err, content.ErrBlobUnknown)
	_, err = h.readHeld("", layer)
	h.is(err, content.ErrBlobUnknown)

	// It outlives the grace period and a restart, and is shared.
	h.past()
	h.restart()
	b, err := h.HoldDigest(h.ctx, "run/b", "run/a", d)
	h.ok(err)
	eq(h, "shared", b.Size, 4)
	_, err = h.HoldDigest(h.ctx, "run/b", "run/c", d)
	h.is(err, content.ErrBlobUnknown)
	_, err = h.HoldDigest(h.ctx, "run/b", "", Dig([]byte("none")))
	h.is(err, content.ErrBlobUnknown)
	h.hold("upload/x", "other")
	same(h, "runs", h.owners("run/"), "run/a", "run/b")
	same(h, "all", h.owners(""), "run/a", "run/b", "upload/x")

	// Each lets go for himself, once or more often.
	h.ok(h.Release(h.ctx, "run/a"))
	h.ok(h.Release(h.ctx, "run/a"))
	same(h, "runs", h.owners("run/"), "run/b")
	_, err = h.readHeld("run/a", d)
	h.is(err, content.ErrBlobUnknown)
	h.past()
	h.past()
	got, err = h.readHeld("run/b", d)
	h.ok(err)
	eq(h, "held by the other", got, "data")
	_, err = h.StatHeld(h.ctx, "", empty)
	h.is(err, content.ErrBlobUnknown)
	n, uploads := h.files()
	eq(h, "files", n, 2) // "data" and "other"
	eq(h, "uploads", uploads, 0)

	// Within the grace period it comes back without its bytes.
	h.ok(h.Release(h.ctx, "run/b"))
	h.Clock.Advance(Grace / 2)
	h.collect()
	n, _ = h.files()
	eq(h, "files within the grace period", n, 2)
	h.hold("run/c", "data")
	h.past()
	got, err = h.readHeld("run/c", d)
	h.ok(err)
	eq(h, "held again", got, "data")

	// A layer that is held as well stays when its image goes, and the other
	// way round.
	h.hold("run/c", "layer")
	h.past()
	h.past()
	_, err = h.StatBlob(h.ctx, "app", layer)
	h.is(err, content.ErrBlobUnknown)
	got, err = h.readHeld("run/c", layer)
	h.ok(err)
	eq(h, "held layer", got, "layer")
	h.push("app", "layer")
	h.put("app", doc{config: "c", layers: []string{"layer"}}, "v1")
	h.ok(h.Release(h.ctx, "run/c"))
	h.ok(h.Release(h.ctx, "upload/x"))
	h.past()
	h.past()
	eq(h, "layer", h.read("app", layer), "layer")
	n, _ = h.files()
	eq(h, "files of the image", n, 2)

	// A link that ends while its blob is loose leaves it to the later look.
	loose := h.push("app", "loose")
	h.hold("run/e", "loose")
	h.Clock.Advance(Grace / 2)
	h.ok(h.Release(h.ctx, "run/e"))
	h.ok(h.DeleteBlob(h.ctx, "app", loose))
	h.Clock.Advance(Grace/2 + time.Second)
	h.collect()
	n, _ = h.files()
	eq(h, "files with the loose one", n, 3)
	h.past()
	n, _ = h.files()
	eq(h, "files without it", n, 2)

	// Nothing is left of what did not come whole.
	broken := errors.New("broken")
	_, err = h.Hold(h.ctx, "run/d", io.MultiReader(strings.NewReader("begin"), iotest.ErrReader(broken)))
	h.is(err, broken)
	for _, owner := range []string{"", "a b", "a\n", strings.Repeat("x", 256)} {
		if _, err := h.Hold(h.ctx, owner, strings.NewReader("x")); err == nil {
			h.Errorf("held for %q", owner)
		}
	}
	eq(h, "owners", len(h.owners("")), 0)
	n, uploads = h.files()
	eq(h, "files", n, 2)
	eq(h, "uploads", uploads, 0)
	h.clean()
}

// manyHolds ends more holds than one transaction does, while others push, hold
// and share the same blobs and the collector is at it.
func manyHolds(h *H) {
	const n = 600
	data := func(i int) string { return fmt.Sprint("number ", i%(n/2)) }
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := w; i < n; i += 4 {
				if _, err := h.Hold(h.ctx, fmt.Sprint("run/", i%2), strings.NewReader(data(i))); err != nil {
					h.Error(err)
				}
			}
		})
	}
	all.Wait()
	files, _ := h.files()
	eq(h, "files", files, n/2)
	h.Clock.Advance(2 * Grace)
	// run/0 has the even ones of both halves, run/2 takes some of them over.
	for i := 0; i < 40; i += 2 {
		_, err := h.HoldDigest(h.ctx, "run/2", "run/0", Dig([]byte(data(i))))
		h.ok(err)
	}
	h.ok(h.HoldAll(h.ctx, "run/4", "run/0"))
	h.is(h.HoldAll(h.ctx, "run/4", "run/5"), content.ErrBlobUnknown)
	h.ok(errors.Join(h.Release(h.ctx, "run/0"), h.Release(h.ctx, "run/1")))
	h.past()
	h.past()
	for i := 0; i < n; i += 2 {
		got, err := h.readHeld("run/4", Dig([]byte(data(i))))
		h.ok(err)
		eq(h, "held by who took all", got, data(i))
	}
	files, _ = h.files()
	eq(h, "files of who took all", files, n/4)
	h.ok(h.Release(h.ctx, "run/4"))
	h.Clock.Advance(2 * Grace)
	done := make(chan error, 1)
	go func() {
		_, err := h.Collect(h.ctx)
		done <- err
	}()
	for i := range 40 {
		h.hold("run/3", data(i))
	}
	h.ok(<-done)
	h.past()
	for i := range 40 {
		got, err := h.readHeld("run/3", Dig([]byte(data(i))))
		h.ok(err)
		eq(h, "held while it was collected", got, data(i))
	}
	files, _ = h.files()
	eq(h, "files", files, 40)
	h.clean()
}

// lostHold is a hold whose flush failed: of what was not acknowledged the loss
// of power may leave nothing at all.
func lostHold(h *H) {
	kept := h.hold("run/a", "kept")
	release := h.HoldFlushes()
	held := make(chan error, 1)
	go func() {
		_, err := h.Hold(h.ctx, "run/b", strings.NewReader("lost"))
		held <- err
	}()
	release(errFlush)
	h.is(<-held, errFlush)
	h.crash(Loss{Files: 3, Log: 1000})
	_, err := h.readHeld("", Dig([]byte("lost")))
	h.is(err, content.ErrBlobUnknown)
	got, err := h.readHeld("run/a", kept)
	h.ok(err)
	eq(h, "what was acknowledged", got, "kept")
	h.hold("run/b", "lost")
	h.clean()
}
