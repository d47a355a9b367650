package contenttest

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
)

// An OpenFaulty is an Open whose database and blob store ask fault before and
// after each step that changes something, and play dead once it returns an
// error.
type OpenFaulty func(t testing.TB, dir string, fault func() error) (*db.DB, blob.Store, func())

// Crash ends the process at every point of a history of pushes, deletions and
// collections, once each, and looks what is there after a new start: the state
// before the step that was under way, or the one after it, and nothing that
// was acknowledged missing. When the grace period is over no space is lost.
func Crash(t *testing.T, open OpenFaulty) {
	// How it goes when nothing happens.
	var want []string
	h := New(t, func(t testing.TB, dir string) (*db.DB, blob.Store, func()) {
		return open(t, dir, func() error { return nil })
	})
	c := &crash{H: h}
	want = append(want, c.state())
	for _, step := range c.history() {
		h.ok(step())
		want = append(want, c.state())
	}

	for at := int64(1); ; at++ {
		var points atomic.Int64
		died := errors.New("the process ended here")
		h := New(t, func(t testing.TB, dir string) (*db.DB, blob.Store, func()) {
			return open(t, dir, func() error {
				if points.Add(1) >= at {
					return died
				}
				return nil
			})
		})
		c := &crash{H: h}
		k, ended := 0, true
		for _, step := range c.history() {
			if err := step(); err != nil {
				ended = false
				break
			}
			k++
		}
		if ended {
			if at < 50 {
				t.Errorf("the history has only %d points: are the faults connected?", at-1)
			}
			t.Logf("ended the process at %d points", at-1)
			return
		}
		points.Store(-1 << 40) // the new process lives
		h.restart()
		got := c.state()
		// A finish that was interrupted may have taken the bytes with it: then
		// the client is told to begin anew.
		if begun := strings.Replace(want[k], "upload 6", "upload 0", 1); got != want[k] && got != want[k+1] && got != begun {
			t.Fatalf("crash at point %d, in step %d: the state is\n%s\nwant\n%s\nor\n%s", at, k+1, got, want[k], want[k+1])
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
			t.Fatalf("crash at point %d, in step %d: %+v, %d uploads left", at, k+1, rep, uploads)
		}
		h.close()
		h.close = func() {}
	}
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
				c.ok(r.Close())
			} else if !errors.Is(err, content.ErrBlobUnknown) {
				c.Fatal(err)
			}
			fmt.Fprintln(&s, repo, data, err == nil)
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
