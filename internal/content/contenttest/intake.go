package contenttest

import (
	"errors"
	"io"
	"strings"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// Blobs that Cairn takes in by itself, and that are read meanwhile.
func intake(h *H) {
	data := strings.Repeat("0123456789", 1000)
	if _, err := h.Intake(h.ctx, "docker.io/app", "nonsense"); err == nil {
		h.Fatal("an intake of no digest")
	}
	if _, err := h.Intake(h.ctx, "No/Name", Dig(nil)); err == nil {
		h.Fatal("an intake into no repository")
	}
	for _, digest := range []image.Digest{Dig([]byte(data)), dig512([]byte(data))} {
		in, err := h.Intake(h.ctx, "docker.io/app", digest)
		h.ok(err)
		f, err := in.Follow()
		h.ok(err)
		_, err = io.WriteString(in, data[:4000])
		h.ok(err)
		eq(h, "size", in.Size(), 4000)
		b := make([]byte, 5000)
		n, err := f.ReadAt(b, 10)
		if string(b[:n]) != data[10:4000] || !errors.Is(err, io.EOF) {
			h.Fatalf("read %d bytes in the middle, %v", n, err)
		}
		h.is(in.Verify(), content.ErrDigestMismatch)
		_, err = h.StatBlob(h.ctx, "docker.io/app", digest)
		h.is(err, content.ErrBlobUnknown)
		// Neither the expiry of uploads nor a collection disturbs it.
		h.Clock.Advance(2 * Grace)
		_, err = h.Collect(h.ctx)
		h.ok(err)
		_, err = io.WriteString(in, data[4000:])
		h.ok(err)
		h.ok(in.Verify())
		got, err := in.Commit(h.ctx)
		h.ok(err)
		eq(h, "blob", got, content.Blob{Digest: digest, Size: int64(len(data))})
		h.ok(in.Close())
		eq(h, "blob", h.read("docker.io/app", digest), data)
		n, err = f.ReadAt(b, 0)
		if string(b[:n]) != data[:5000] || err != nil {
			h.Fatalf("read %d bytes after the end, %v", n, err)
		}
		h.ok(f.Close())
		// Again: the blob is there.
		in, err = h.Intake(h.ctx, "docker.io/other", digest)
		h.ok(err)
		_, err = io.WriteString(in, data)
		h.ok(err)
		_, err = in.Commit(h.ctx)
		h.ok(err)
		eq(h, "blob", h.read("docker.io/other", digest), data)
	}
	_, uploads := h.files()
	eq(h, "uploads", uploads, 0)

	// Ends that are none.
	before, _ := h.files()
	for name, end := range map[string]func(*content.Intake) error{
		"closed": func(in *content.Intake) error { return errors.Join(content.ErrDigestMismatch, in.Close()) },
		"other bytes": func(in *content.Intake) error {
			_, err := in.Commit(h.ctx)
			return err
		},
	} {
		in, err := h.Intake(h.ctx, "docker.io/app", Dig([]byte("right")))
		h.ok(err)
		_, err = io.WriteString(in, "wrong")
		h.ok(err)
		h.is(end(in), content.ErrDigestMismatch)
		h.ok(in.Close())
		_, err = h.StatBlob(h.ctx, "docker.io/app", Dig([]byte("right")))
		h.is(err, content.ErrBlobUnknown)
		blobs, uploads := h.files()
		eq(h, "blobs after it was "+name, blobs, before)
		eq(h, "uploads after it was "+name, uploads, 0)
	}
	f := &full{Store: h.Blobs}
	h.use(f)
	big := strings.Repeat(data, 300)
	for _, set := range []full{{writes: true}, {commits: true}, {syncs: true}} {
		f.writes, f.commits, f.syncs = set.writes, set.commits, set.syncs
		in, err := h.Intake(h.ctx, "docker.io/app", Dig([]byte(big)))
		h.ok(err)
		_, err = io.WriteString(in, big)
		if err == nil {
			_, err = in.Commit(h.ctx)
		}
		if !errors.Is(err, content.ErrNoSpace) && !errors.Is(err, content.ErrReadOnly) {
			h.Fatalf("%+v: %v", set, err)
		}
		h.ok(in.Close())
		blobs, uploads := h.files()
		eq(h, "blobs", blobs, before)
		eq(h, "uploads", uploads, 0)
	}
	// What was taken in when the process ended is as if it had not been.
	f.writes, f.commits, f.syncs = false, false, false
	in, err := h.Intake(h.ctx, "docker.io/app", Dig([]byte(data+"more")))
	h.ok(err)
	_, err = io.WriteString(in, data)
	h.ok(err)
	h.restart()
	_, err = h.StatBlob(h.ctx, "docker.io/app", Dig([]byte(data+"more")))
	h.is(err, content.ErrBlobUnknown)
}
