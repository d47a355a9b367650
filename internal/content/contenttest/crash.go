package contenttest

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"cairn.dev/cairn/internal/content"
)

// An OpenFaulty is an Open whose database and blob store ask fault before and
// after each step that changes something, and play dead once it returns an
// error.
type OpenFaulty func(t testing.TB, dir string, fault func() error) Place

// A Loss is what a loss of power does to what was not yet on the disk.
type Loss struct {
	Files int // what is left of a blob: 0 to 3, from nothing to all its size and none of its bytes
	// Log is how many thousandths of what was written to the log of the
	// database since its last flush are left.
	Log int
}

// noLoss is an end of the process alone.
var noLoss = Loss{Files: -1}

// losses are tried in turn.
var losses = []Loss{{0, 1000}, {3, 500}, {2, 1000}, {1, 0}, {3, 1000}, {0, 300}, {1, 1000}, {2, 800}}

// Crash ends the process at every point of a history of pushes, deletions and
// collections, with and without the power, and looks what is there after a new
// start: the state before the step that was under way, or the one after it,
// and nothing that was acknowledged missing. When the grace period is over no
// space is lost.
func Crash(t *testing.T, open OpenFaulty) {
	// How it goes when nothing happens.
	var want []string
	h := New(t, func(t testing.TB, dir string) Place {
		return open(t, dir, func() error { return nil })
	})
	c := &crash{H: h}
	want = append(want, c.state())
	for _, step := range c.history() {
		h.ok(step())
		want = append(want, c.state())
	}
	for at := 1; ; at++ {
		if crashAt(t, open, want, at, noLoss) {
			if at < 50 {
				t.Errorf("the history has only %d points: are the faults connected?", at-1)
			}
			t.Logf("ended the process at %d points", at-1)
			return
		}
		more := 0
		switch {
		case h.LosePower != nil && h.Flushed:
			more = 3
		case h.LosePower != nil: // the log of the database loses nothing
			more = 1
		}
		for i := range more {
			crashAt(t, open, want, at, losses[(3*at+i)%len(losses)])
		}
	}
}

// crashAt ends the process at one point. It reports whether the history ended
// before.
func crashAt(t *testing.T, open OpenFaulty, want []string, at int, loss Loss) (ended bool) {
	var points atomic.Int64
	died := errors.New("the process ended here")
	h := New(t, func(t testing.TB, dir string) Place {
		return open(t, dir, func() error {
			if points.Add(1) >= int64(at) {
				return died
			}
			return nil
		})
	})
	c := &crash{H: h}
	k := 0
	for _, step := range c.history() {
		if err := step(); err != nil {
			break
		}
		k++
	}
	if k == len(want)-1 {
		return true
	}
	points.Store(-1 << 40) // the new process lives
	h.crash(loss)
	got := c.state()
	// A finish that was interrupted may have taken the bytes with it: then
	// the client is told to begin anew.
	if begun := strings.Replace(want[k], "upload 6", "upload 0", 1); got != want[k] && got != want[k+1] && got != begun {
		t.Fatalf("crash at point %d, in step %d, %+v: the state is\n%s\nwant\n%s\nor\n%s", at, k+1, loss, got, want[k], want[k+1])
	}
	h.past()
	h.past()
	h.Clock.Jump(365 * 24 * 60 * 60 * 1e9) // so that the files are old
	_, err := h.Reconcile(h.ctx)
	h.ok(err)
	rep, err := h.Scrub(h.ctx, nil)
	h.ok(err)
	_, uploads := h.files()
	if len(rep.Corrupt)+len(rep.Missing)+len(rep.CorruptManifests)+len(rep.Orphans)+uploads > 0 {
		t.Fatalf("crash at point %d, in step %d, %+v: %+v, %d uploads left", at, k+1, loss, rep, uploads)
	}
	h.Place.Close()
	h.Place.Close = func() {}
	return false
}

// crash is a new start after the end of the process at a fault.
func (h *H) crash(loss Loss) {
	h.Helper()
	if loss == noLoss {
		h.Place.Close()
	} else {
		h.LosePower(loss)
	}
	h.start()
}

type crash struct {
	*H
	upload string
}

// history is one of everything.
func (c *crash) history() []func() error {
	a, b := img("a"), img("b")
	da, db := Dig(a.body()), Dig(b.body())
	blob := func(data string) func() error {
		return func() error {
			_, err := c.PutBlob(c.ctx, "app", strings.NewReader(data), Dig([]byte(data)))
			return err
		}
	}
	hold := func(data string) func() error {
		return func() error { _, err := c.Hold(c.ctx, "run/a", strings.NewReader(data)); return err }
	}
	put := func(d doc, tags ...string) func() error {
		return func() error { _, err := c.putErr("app", d, tags...); return err }
	}
	expiry := func(d doc) []content.Expiry {
		im, err := c.Peek(c.ctx, "app", string(Dig(d.body())))
		if err != nil {
			return nil // dead: the call will say so
		}
		return []content.Expiry{{Repository: "app", Digest: im.Digest, Version: im.Version}}
	}
	first := func(errs []error, err error) error {
		if err == nil && len(errs) == 0 {
			err = errors.New("dead already")
		}
		return errors.Join(append(errs, err)...)
	}
	return []func() error{
		blob(a.config),
		blob(a.layers[0]),
		put(a, "v1", "latest"),
		func() (err error) { c.upload, err = c.StartUpload(c.ctx, "app"); return err },
		func() error {
			_, err := c.AppendUpload(c.ctx, "app", c.upload, 0, strings.NewReader("lay"))
			return err
		},
		func() error {
			_, err := c.AppendUpload(c.ctx, "app", c.upload, 3, strings.NewReader("er "))
			return err
		},
		func() error {
			_, err := c.FinishUpload(c.ctx, "app", c.upload, 6, strings.NewReader("of b"), Dig([]byte(b.layers[0])))
			return err
		},
		blob(b.config),
		func() error {
			_, err := c.Mount(c.ctx, "web", Dig([]byte(a.config)), "app", nil)
			return err
		},
		put(b, "latest", "v2"),
		func() error { return c.SetTag(c.ctx, "app", da, "latest", "") },
		func() error { return c.DeleteTag(c.ctx, "app", "v2", "") },
		func() error { return first(c.Expire(c.ctx, expiry(b))) },
		func() error { return c.Revive(c.ctx, "app", db, "used") },
		func() error { return c.DeleteManifest(c.ctx, "app", db, "", "") },
		func() error { _, err := c.Restore(c.ctx, "app", db, ""); return err },
		func() error { return c.DeleteManifest(c.ctx, "app", db, "", "") },
		func() error { return first(c.Sweep(c.ctx, expiry(b))) },
		func() error {
			c.Clock.Advance(2 * Grace)
			_, err := c.Collect(c.ctx)
			return err
		},
		blob(b.config),
		func() error { return c.DeleteBlob(c.ctx, "app", Dig([]byte(b.config))) },
		hold("file"),
		hold("config of a"), // of an image as well
		func() error { _, err := c.HoldDigest(c.ctx, "run/b", "run/a", Dig([]byte("file"))); return err },
		func() error { return c.Release(c.ctx, "run/a") },
		func() error { return c.Release(c.ctx, "run/b") },
		func() error {
			c.Clock.Advance(2 * Grace)
			_, err := c.Collect(c.ctx)
			return err
		},
		hold("file"),
	}
}

// state is what can be seen from outside, without changing anything.
func (c *crash) state() string {
	c.Helper()
	var s strings.Builder
	images, err := c.ImagesOf(c.ctx, "app")
	if err != nil && !errors.Is(err, content.ErrRepositoryUnknown) {
		c.Fatal(err)
	}
	for _, im := range images {
		fmt.Fprintln(&s, im.Digest, im.State, tagNames(im), im.Size)
	}
	for _, data := range []string{"config of a", "layer of a", "config of b", "layer of b"} {
		for _, repo := range []string{"app", "web"} {
			r, err := c.OpenBlob(c.ctx, repo, Dig([]byte(data)))
			if err == nil {
				b, rerr := io.ReadAll(r)
				c.ok(errors.Join(rerr, r.Close()))
				eq(c.H, "what is served", string(b), data)
			} else if !errors.Is(err, content.ErrBlobUnknown) {
				c.Fatal(err)
			}
			fmt.Fprintln(&s, repo, data, err == nil)
		}
	}
	for _, data := range []string{"file", "config of a"} {
		for _, owner := range []string{"run/a", "run/b"} {
			got, err := c.readHeld(owner, Dig([]byte(data)))
			if err == nil {
				eq(c.H, "what is held", got, data)
			} else if !errors.Is(err, content.ErrBlobUnknown) {
				c.Fatal(err)
			}
			fmt.Fprintln(&s, owner, data, err == nil)
		}
	}
	// One without bytes may be forgotten.
	n, err := c.UploadSize(c.ctx, "app", c.upload)
	if err != nil && !errors.Is(err, content.ErrUploadUnknown) {
		c.Fatal(err)
	}
	fmt.Fprintln(&s, "upload", n)
	return s.String()
}
