package contenttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

func uploads(h *H) {
	for _, data := range []string{"hello", "", strings.Repeat("x", 1<<20)} {
		d := h.push("app", data)
		eq(h, "read back", h.read("app", d), data)
	}
	d := Dig([]byte("one request"))
	_, err := h.PutBlob(h.ctx, "app", strings.NewReader("one request"), d)
	h.ok(err)
	eq(h, "read back", h.read("app", d), "one request")
	long := dig512([]byte("long"))
	_, err = h.PutBlob(h.ctx, "app", strings.NewReader("long"), long)
	h.ok(err)
	eq(h, "read back", h.read("app", long), "long")
	_, n := h.files()
	eq(h, "uploads left", n, 0)

	id, err := h.StartUpload(h.ctx, "app")
	h.ok(err)
	h.ok(h.CancelUpload(h.ctx, "app", id))
	h.is(h.CancelUpload(h.ctx, "app", id), content.ErrUploadUnknown)
	_, err = h.StartUpload(h.ctx, "App")
	if ne := (*image.NameError)(nil); !errors.As(err, &ne) {
		h.Fatalf("upload to App: %v", err)
	}
}

func chunks(h *H) {
	for _, d := range []image.Digest{Dig([]byte("abcdef")), dig512([]byte("abcdef"))} {
		id, err := h.StartUpload(h.ctx, "app")
		h.ok(err)
		n, err := h.AppendUpload(h.ctx, "app", id, 0, strings.NewReader("ab"))
		h.ok(err)
		eq(h, "size", n, 2)
		for _, wrong := range []int64{0, 1, 3} {
			_, err = h.AppendUpload(h.ctx, "app", id, wrong, strings.NewReader("xx"))
			if re := (*content.RangeError)(nil); !errors.As(err, &re) || re.Want != 2 {
				h.Fatalf("chunk at %d: %v", wrong, err)
			}
		}
		n, err = h.AppendUpload(h.ctx, "app", id, -1, strings.NewReader("cd"))
		h.ok(err)
		eq(h, "size", n, 4)
		n, err = h.UploadSize(h.ctx, "app", id)
		h.ok(err)
		eq(h, "size", n, 4)
		_, err = h.UploadSize(h.ctx, "other", id)
		h.is(err, content.ErrUploadUnknown)
		_, err = h.FinishUpload(h.ctx, "app", id, 3, strings.NewReader("ef"), d)
		if re := (*content.RangeError)(nil); !errors.As(err, &re) || re.Want != 4 {
			h.Fatalf("last chunk: %v", err)
		}
		_, err = h.FinishUpload(h.ctx, "app", id, 4, strings.NewReader("ef"), d)
		h.ok(err)
		eq(h, "blob", h.read("app", d), "abcdef")
		_, err = h.AppendUpload(h.ctx, "app", id, 6, strings.NewReader("g"))
		h.is(err, content.ErrUploadUnknown)
		_, err = h.FinishUpload(h.ctx, "app", id, -1, nil, d)
		h.is(err, content.ErrUploadUnknown)
		_, err = h.UploadSize(h.ctx, "app", id)
		h.is(err, content.ErrUploadUnknown)
	}
	// All bytes first, nothing with the PUT.
	id, err := h.StartUpload(h.ctx, "app")
	h.ok(err)
	_, err = h.AppendUpload(h.ctx, "app", id, -1, strings.NewReader("whole"))
	h.ok(err)
	_, err = h.FinishUpload(h.ctx, "app", id, -1, nil, Dig([]byte("whole")))
	h.ok(err)
	eq(h, "blob", h.read("app", Dig([]byte("whole"))), "whole")
	st, err := h.Stats(h.ctx)
	h.ok(err)
	eq(h, "rows of uploads", st.Uploads, 0)
}

func badUploads(h *H) {
	good, bad := "good", Dig([]byte("bad"))
	// A digest that does not match ends the upload and leaves nothing.
	for _, before := range []string{"", "go"} {
		id, err := h.StartUpload(h.ctx, "app")
		h.ok(err)
		if before != "" {
			_, err = h.AppendUpload(h.ctx, "app", id, -1, strings.NewReader(before))
			h.ok(err)
		}
		_, err = h.FinishUpload(h.ctx, "app", id, -1, strings.NewReader(good[len(before):]), bad)
		h.is(err, content.ErrDigestMismatch)
		_, err = h.UploadSize(h.ctx, "app", id)
		h.is(err, content.ErrUploadUnknown)
	}
	_, err := h.PutBlob(h.ctx, "app", strings.NewReader(good), bad)
	h.is(err, content.ErrDigestMismatch)
	_, err = h.PutBlob(h.ctx, "app", cut(good), Dig([]byte(good)))
	h.is(err, io.ErrUnexpectedEOF)
	for _, d := range []image.Digest{bad, Dig([]byte(good))} {
		_, err = h.StatBlob(h.ctx, "app", d)
		h.is(err, content.ErrBlobUnknown)
	}
	_, err = h.PutBlob(h.ctx, "app", strings.NewReader(good), "sha256:../../etc/passwd")
	if ne := (*image.NameError)(nil); !errors.As(err, &ne) {
		h.Fatalf("nonsense as digest: %v", err)
	}
	nb, nu := h.files()
	eq(h, "blobs left", nb, 0)
	eq(h, "uploads left", nu, 0)
	st, err := h.Stats(h.ctx)
	h.ok(err)
	eq(h, "rows of uploads", st.Uploads, 0)

	// A body that ends early is kept as far as it came, and never linked.
	id, err := h.StartUpload(h.ctx, "app")
	h.ok(err)
	_, err = h.AppendUpload(h.ctx, "app", id, 0, cut("go"))
	h.is(err, io.ErrUnexpectedEOF)
	n, err := h.UploadSize(h.ctx, "app", id)
	h.ok(err)
	eq(h, "size", n, 2)
	_, err = h.FinishUpload(h.ctx, "app", id, 2, cut("o"), Dig([]byte(good)))
	h.is(err, io.ErrUnexpectedEOF)
	_, err = h.StatBlob(h.ctx, "app", Dig([]byte(good)))
	h.is(err, content.ErrBlobUnknown)
	n, err = h.UploadSize(h.ctx, "app", id)
	h.ok(err)
	eq(h, "size", n, 3)
	_, err = h.FinishUpload(h.ctx, "app", id, 3, strings.NewReader("d"), Dig([]byte(good)))
	h.ok(err)
	eq(h, "blob", h.read("app", Dig([]byte(good))), good)
}

func busyUpload(h *H) {
	id, err := h.StartUpload(h.ctx, "app")
	h.ok(err)
	r, w := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := h.AppendUpload(h.ctx, "app", id, 0, r)
		done <- err
	}()
	_, err = w.Write([]byte("ab")) // returns when the other has begun to read
	h.ok(err)
	_, err = h.AppendUpload(h.ctx, "app", id, 0, strings.NewReader("xy"))
	h.is(err, content.ErrUploadBusy)
	_, err = h.FinishUpload(h.ctx, "app", id, -1, nil, Dig(nil))
	h.is(err, content.ErrUploadBusy)
	h.is(h.CancelUpload(h.ctx, "app", id), content.ErrUploadBusy)
	n, err := h.UploadSize(h.ctx, "app", id)
	h.ok(err)
	eq(h, "size while written", n, 0)
	h.ok(w.Close())
	h.ok(<-done)
	_, err = h.FinishUpload(h.ctx, "app", id, 2, nil, Dig([]byte("ab")))
	h.ok(err)
}

func restart(h *H) {
	d := h.put("app", img("a"), "v1")
	empty, err := h.StartUpload(h.ctx, "app")
	h.ok(err)
	id, err := h.StartUpload(h.ctx, "app")
	h.ok(err)
	_, err = h.AppendUpload(h.ctx, "app", id, 0, strings.NewReader("abc"))
	h.ok(err)
	h.restart()
	m, err := h.Manifest(h.ctx, "app", "v1")
	h.ok(err)
	eq(h, "digest", m.Digest, d)
	eq(h, "layer", h.read("app", Dig([]byte("layer of a"))), "layer of a")
	_, err = h.UploadSize(h.ctx, "app", empty)
	h.is(err, content.ErrUploadUnknown)
	_, err = h.UploadSize(h.ctx, "other", id)
	h.is(err, content.ErrUploadUnknown)
	n, err := h.UploadSize(h.ctx, "app", id)
	h.ok(err)
	eq(h, "size", n, 3)
	_, err = h.AppendUpload(h.ctx, "app", id, 3, strings.NewReader("de"))
	h.ok(err)
	h.restart()
	_, err = h.FinishUpload(h.ctx, "app", id, 5, strings.NewReader("f"), Dig([]byte("abcdef")))
	h.ok(err)
	eq(h, "blob", h.read("app", Dig([]byte("abcdef"))), "abcdef")
}

// torn is a loss of power that took bytes, or left bytes nobody was told of.
func torn(h *H) {
	begin := func(data string) string {
		id, err := h.StartUpload(h.ctx, "app")
		h.ok(err)
		_, err = h.AppendUpload(h.ctx, "app", id, 0, strings.NewReader(data))
		h.ok(err)
		return id
	}
	stage := func(id string, f func(blob.Staged) error) {
		st, err := h.Blobs.Stage(h.ctx, id)
		h.ok(err)
		h.ok(f(st))
		h.ok(st.Close())
	}
	short, long, wrong := begin("abcdef"), begin("abc"), begin("abc")
	stage(short, func(st blob.Staged) error { return st.Truncate(2) })
	stage(long, func(st blob.Staged) error { _, err := st.Write([]byte("zz")); return err })
	stage(wrong, func(st blob.Staged) error {
		if err := st.Truncate(0); err != nil {
			return err
		}
		_, err := st.Write([]byte{0, 0, 0})
		return err
	})
	h.restart()
	for _, u := range []struct {
		id   string
		have int64
	}{{short, 2}, {long, 3}} {
		n, err := h.UploadSize(h.ctx, "app", u.id)
		h.ok(err)
		eq(h, "size", n, u.have)
		d := Dig([]byte("abcdef"))
		_, err = h.FinishUpload(h.ctx, "app", u.id, n, strings.NewReader("abcdef"[n:]), d)
		h.ok(err)
		eq(h, "blob", h.read("app", d), "abcdef")
	}
	_, err := h.FinishUpload(h.ctx, "app", wrong, 3, nil, Dig([]byte("abc")))
	h.is(err, content.ErrDigestMismatch)
	_, err = h.StatBlob(h.ctx, "app", Dig([]byte("abc")))
	h.is(err, content.ErrBlobUnknown)
}

// full is a blob store whose disk is full from some point on.
type full struct {
	blob.Store
	writes, commits, syncs bool
}

type fullStaged struct {
	blob.Staged
	f *full
}

func (f *full) Stage(ctx context.Context, id string) (blob.Staged, error) {
	st, err := f.Store.Stage(ctx, id)
	return &fullStaged{st, f}, err
}

func (f *full) Sync(ctx context.Context, ds ...image.Digest) error {
	if f.syncs {
		return fmt.Errorf("sync: %w", blob.ErrNoSpace)
	}
	return f.Store.Sync(ctx, ds...)
}

func (s *fullStaged) Write(p []byte) (int, error) {
	if s.f.writes && s.Size()+int64(len(p)) > 1<<20 {
		return 0, fmt.Errorf("write: %w", blob.ErrNoSpace)
	}
	return s.Staged.Write(p)
}

func (s *fullStaged) Commit(d image.Digest) error {
	if s.f.commits {
		return fmt.Errorf("rename: %w", blob.ErrReadOnly)
	}
	return s.Staged.Commit(d)
}

func noSpace(h *H) {
	f := &full{Store: h.Blobs}
	h.use(f)
	d := h.put("app", img("a"), "v1")
	before, _ := h.files()
	data := strings.Repeat("0123456789abcdef", 1<<17) // 2 MiB
	for _, c := range []struct {
		name string
		set  full
		want error
	}{
		{"write", full{writes: true}, content.ErrNoSpace},
		{"commit", full{commits: true}, content.ErrReadOnly},
		{"sync", full{syncs: true}, content.ErrNoSpace},
	} {
		f.writes, f.commits, f.syncs = c.set.writes, c.set.commits, c.set.syncs
		id, err := h.StartUpload(h.ctx, "app")
		h.ok(err)
		_, err = h.FinishUpload(h.ctx, "app", id, -1, strings.NewReader(data), Dig([]byte(data)))
		if h.is(err, c.want); h.Failed() {
			h.Fatal(c.name)
		}
		_, err = h.PutBlob(h.ctx, "app", strings.NewReader(data), Dig([]byte(data)))
		h.is(err, c.want)
		_, err = h.Hold(h.ctx, "run/a", strings.NewReader(data))
		h.is(err, c.want)
		_, err = h.StatHeld(h.ctx, "", Dig([]byte(data)))
		h.is(err, content.ErrBlobUnknown)
		_, err = h.StatBlob(h.ctx, "app", Dig([]byte(data)))
		h.is(err, content.ErrBlobUnknown)
		nb, nu := h.files()
		eq(h, "blobs after "+c.name, nb, before)
		eq(h, "uploads after "+c.name, nu, 0)
		m, err := h.Manifest(h.ctx, "app", "v1")
		h.ok(err)
		eq(h, "reads go on", m.Digest, d)
	}
	// A chunk that does not fit leaves those before it.
	*f = full{Store: h.Blobs, writes: true}
	id, err := h.StartUpload(h.ctx, "app")
	h.ok(err)
	_, err = h.AppendUpload(h.ctx, "app", id, 0, strings.NewReader("ab"))
	h.ok(err)
	_, err = h.AppendUpload(h.ctx, "app", id, 2, strings.NewReader(data))
	h.is(err, content.ErrNoSpace)
	n, err := h.UploadSize(h.ctx, "app", id)
	h.ok(err)
	eq(h, "size", n, 2)
	f.writes = false
	_, err = h.FinishUpload(h.ctx, "app", id, 2, strings.NewReader("c"), Dig([]byte("abc")))
	h.ok(err)
	eq(h, "blob", h.read("app", Dig([]byte("abc"))), "abc")
}

func blobs(h *H) {
	d := h.push("app", "data")
	_, err := h.StatBlob(h.ctx, "other", d)
	h.is(err, content.ErrBlobUnknown)
	_, err = h.OpenBlob(h.ctx, "other", d)
	h.is(err, content.ErrBlobUnknown)
	b, err := h.StatBlob(h.ctx, "app", d)
	h.ok(err)
	eq(h, "blob", b, content.Blob{Digest: d, Size: 4})
	h.ok(h.DeleteBlob(h.ctx, "app", d))
	_, err = h.StatBlob(h.ctx, "app", d)
	h.is(err, content.ErrBlobUnknown)
	_, err = h.OpenBlob(h.ctx, "app", d)
	h.is(err, content.ErrBlobUnknown)
	h.is(h.DeleteBlob(h.ctx, "app", d), content.ErrBlobUnknown)
	h.is(h.DeleteBlob(h.ctx, "nowhere", d), content.ErrBlobUnknown)
	h.push("app", "data")
	eq(h, "pushed again", h.read("app", d), "data")

	h.put("app", img("a"), "v1")
	layer := Dig([]byte("layer of a"))
	h.is(h.DeleteBlob(h.ctx, "app", layer), content.ErrBlobInUse)
	eq(h, "layer", h.read("app", layer), "layer of a")
	_, err = h.StatBlob(h.ctx, "app", "md5:abc")
	if ne := (*image.NameError)(nil); !errors.As(err, &ne) {
		h.Fatalf("unknown algorithm: %v", err)
	}
}

func mount(h *H) {
	d := h.push("secret", "data")
	all := func(string) bool { return true }
	not := func(name string) func(string) bool { return func(r string) bool { return r != name } }
	for _, c := range []struct {
		repo, from string
		d          image.Digest
		may        func(string) bool
		want       bool
	}{
		{"a", "secret", d, all, true},
		{"b", "", d, nil, true},
		{"c", "", d, func(string) bool { return false }, false},
		{"d", "secret", d, not("secret"), false},
		{"e", "nowhere", d, all, false},
		{"f", "secret", Dig([]byte("no such")), all, false},
		{"g", "", Dig([]byte("no such")), all, false},
		{"h", "secret", "nonsense", all, false},
		{"secret", "", d, all, true},
		{"a", "a", d, all, true},
	} {
		got, err := h.Mount(h.ctx, c.repo, c.d, c.from, c.may)
		h.ok(err)
		if got != c.want {
			h.Fatalf("mount into %s from %q: got %v, want %v", c.repo, c.from, got, c.want)
		}
		_, err = h.StatBlob(h.ctx, c.repo, c.d)
		if (err == nil) != c.want {
			h.Fatalf("after mount into %s: %v", c.repo, err)
		}
	}
	h.ok(h.DeleteBlob(h.ctx, "secret", d))
	ok, err := h.Mount(h.ctx, "z", d, "secret", all)
	h.ok(err)
	eq(h, "mount from where it was deleted", ok, false)
	eq(h, "the mounted one stays", h.read("a", d), "data")
}

func sameDigest(h *H) {
	d := Dig([]byte("same"))
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			repo := fmt.Sprintf("r%d", i%4)
			if _, err := h.PutBlob(h.ctx, repo, strings.NewReader("same"), d); err != nil {
				h.Error(err)
			}
			if _, err := h.StatBlob(h.ctx, repo, d); err != nil {
				h.Error(err)
			}
		})
	}
	wg.Wait()
	nb, nu := h.files()
	eq(h, "blobs", nb, 1)
	eq(h, "uploads", nu, 0)
}

func idle(h *H) {
	old, err := h.StartUpload(h.ctx, "app")
	h.ok(err)
	_, err = h.AppendUpload(h.ctx, "app", old, 0, strings.NewReader("old"))
	h.ok(err)
	h.Clock.Advance(Grace / 2)
	id, err := h.StartUpload(h.ctx, "app")
	h.ok(err)
	_, err = h.AppendUpload(h.ctx, "app", id, 0, strings.NewReader("abc"))
	h.ok(err)
	h.Clock.Advance(Grace/2 + time.Second)
	eq(h, "uploads removed", h.collect().Uploads, 1)
	_, err = h.UploadSize(h.ctx, "app", old)
	h.is(err, content.ErrUploadUnknown)
	n, err := h.UploadSize(h.ctx, "app", id) // renews
	h.ok(err)
	eq(h, "size", n, 3)
	h.Clock.Advance(Grace - time.Second)
	eq(h, "uploads removed", h.collect().Uploads, 0)
	h.restart()
	h.Clock.Advance(Grace - time.Second)
	eq(h, "uploads removed soon after a start", h.collect().Uploads, 0)
	h.Clock.Advance(2 * time.Second)
	eq(h, "uploads removed", h.collect().Uploads, 1)
	_, nu := h.files()
	eq(h, "files of uploads", nu, 0)
}
