package contenttest

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
)

// Unflushed looks at the time between a commit, which others see, and its
// flush, by which it survives the loss of power.
func Unflushed(t *testing.T, open Open) {
	t.Run("manifest", func(t *testing.T) { unflushedManifest(New(t, open)) })
	t.Run("ids", func(t *testing.T) { idsOnce(New(t, open)) })
	t.Run("repair", func(t *testing.T) { unflushedRepair(New(t, open)) })
	t.Run("removal", func(t *testing.T) { unflushedRemoval(New(t, open)) })
	t.Run("failure", func(t *testing.T) { failedFlush(New(t, open)) })
	t.Run("hold", func(t *testing.T) { lostHold(New(t, open)) })
}

var errFlush = errors.New("the disk failed")

// pushHeld begins a push whose flush does not end before release, and returns
// when others see it.
func (h *H) pushHeld(repo, data string) (done chan error, release func(error)) {
	h.Helper()
	release = h.HoldFlushes()
	done = make(chan error, 1)
	go func() {
		_, err := h.PutBlob(h.ctx, repo, strings.NewReader(data), Dig([]byte(data)))
		done <- err
	}()
	for {
		_, err := h.StatBlob(h.ctx, repo, Dig([]byte(data)))
		if err == nil {
			return done, release
		}
		h.is(err, content.ErrBlobUnknown)
		runtime.Gosched()
	}
}

// asking is a clock that tells when it is asked for the time.
type asking struct {
	*clock.Fake
	asked chan struct{}
}

func (c asking) Now() time.Time {
	select {
	case c.asked <- struct{}{}:
	default:
	}
	return c.Fake.Now()
}

// A client saw a blob that is not on the disk yet and pushes a manifest that
// needs it, under a tag that another image has. Then the power goes.
func unflushedManifest(h *H) {
	a, b := img("a"), img("b")
	first := h.put("app", a, "latest")
	h.push("app", b.config)
	c := asking{h.Clock, make(chan struct{}, 1)}
	h.useClock(h.Blobs, c)

	pushed, release := h.pushHeld("app", b.layers[0])
	select {
	case <-c.asked:
	default:
	}
	put := make(chan error, 1)
	go func() {
		_, err := h.putErr("app", b, "latest")
		put <- err
	}()
	<-c.asked // in its transaction; the next write comes after it
	manifests, looked := 0, make(chan struct{})
	go func() {
		_ = h.DB.Write(h.ctx, func(tx *db.Tx) error {
			defer close(looked)
			_, err := tx.Row(h.ctx, "SELECT COUNT(*) FROM manifests", nil, &manifests)
			return err
		})
	}()
	<-looked
	eq(h, "manifests before the flush of what they need", manifests, 1)
	release(errFlush)
	h.is(<-pushed, errFlush)
	h.is(<-put, errFlush)

	h.crash(Loss{Files: 3, Log: 1000})
	eq(h, "latest", h.peek("app", "latest").Digest, first)
	_, err := h.StatBlob(h.ctx, "app", Dig([]byte(b.layers[0])))
	h.is(err, content.ErrBlobUnknown)
	eq(h, "what was acknowledged", h.read("app", Dig([]byte(b.config))), b.config)
	h.clean()

	// When the flush comes to its end, so does the manifest.
	pushed, release = h.pushHeld("app", b.layers[0])
	go func() {
		_, err := h.putErr("app", b, "latest")
		put <- err
	}()
	release(nil)
	h.ok(<-pushed)
	h.ok(<-put)
	eq(h, "latest", h.peek("app", "latest").Digest, Dig(b.body()))
}

// A blob that was collected leaves an id that is known to be settled. The next
// one is not settled by that.
func idsOnce(h *H) {
	h.push("app", "one")
	h.push("app", "two")
	h.restart()
	h.past()
	h.past()
	left, _ := h.files()
	eq(h, "files after the collection", left, 0)
	h.restart()
	h.push("app", "three")
	pushed, release := h.pushHeld("app", "four")
	release(errFlush)
	h.is(<-pushed, errFlush)
	h.crash(Loss{Files: 3, Log: 1000})
	_, err := h.StatBlob(h.ctx, "app", Dig([]byte("four")))
	h.is(err, content.ErrBlobUnknown)
	eq(h, "what was acknowledged", h.read("app", Dig([]byte("three"))), "three")
	h.clean()
}

// A push repairs a blob that an image needs. The row that says so is not on
// the disk before the bytes are.
func unflushedRepair(h *H) {
	h.put("app", img("a"), "v1")
	d := Dig([]byte("layer of a"))
	h.damage(d, "no layer")
	_, err := h.Scrub(h.ctx, nil)
	h.ok(err)
	pushed, release := h.pushHeld("app", "layer of a")
	release(errFlush)
	h.is(<-pushed, errFlush)
	h.crash(Loss{Files: 3, Log: 1000})
	eq(h, "the repaired blob", h.read("app", d), "layer of a")
	h.clean()
}

// A collection removed the row of a blob, and the flush failed. Its file stays,
// because the row may come back.
func unflushedRemoval(h *H) {
	d := h.push("app", "not needed")
	h.Clock.Advance(2 * Grace)
	h.Clock.Jump(365 * 24 * time.Hour) // so that the file is old
	release := h.HoldFlushes()
	collected := make(chan error, 1)
	go func() {
		_, err := h.Collect(h.ctx)
		collected <- err
	}()
	for n := 1; n > 0; runtime.Gosched() {
		h.ok(h.DB.ReadOne(h.ctx, func(q db.Query) error {
			_, err := q.Row(h.ctx, "SELECT COUNT(*) FROM blobs", nil, &n)
			return err
		}))
	}
	release(errFlush)
	h.is(<-collected, errFlush)
	_, err := h.Reconcile(h.ctx)
	h.is(err, db.ErrNotDurable)
	left, _ := h.files()
	eq(h, "files", left, 1)
	h.crash(Loss{Files: 0, Log: 0})
	// The engine may have written the removal by itself meanwhile.
	if _, err := h.StatBlob(h.ctx, "app", d); err == nil {
		eq(h, "the blob whose row is back", h.read("app", d), "not needed")
	}
	h.clean()
}

// After a flush that failed nothing more is acknowledged, and reading goes on.
func failedFlush(h *H) {
	d := h.put("app", img("a"), "v1")
	pushed, release := h.pushHeld("app", "lost")
	release(errFlush)
	h.is(<-pushed, db.ErrNotDurable)
	_, err := h.PutBlob(h.ctx, "app", strings.NewReader("late"), Dig([]byte("late")))
	h.is(err, db.ErrNotDurable)
	h.is(h.SetTag(h.ctx, "app", d, "v2", ""), db.ErrNotDurable)
	eq(h, "v1", h.peek("app", "v1").Digest, d)
	same(h, "tags", h.tags("app"), "v1")
	eq(h, "a blob", h.read("app", Dig([]byte("config of a"))), "config of a")

	h.crash(Loss{Files: 0, Log: 0})
	same(h, "tags", h.tags("app"), "v1")
	h.push("app", "late")
	h.clean()
}

// clean fails the test if a stored byte is not what it should be.
func (h *H) clean() {
	h.Helper()
	rep, err := h.Scrub(h.ctx, nil)
	h.ok(err)
	eq(h, "damaged", len(rep.Corrupt)+len(rep.Missing)+len(rep.CorruptManifests), 0)
}
