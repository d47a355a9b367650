package contenttest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// Soak lets clients push, mount, tag, delete and sweep images that share
// layers while collections and reconciliations run without a pause, and a
// clock that takes a step with every collection brings everything to its end
// quickly. What must hold: a client that was told of every blob of an image
// within the grace period can push its manifest; a manifest that was accepted
// is readable with all its blobs until somebody deletes it; and in the end,
// when all are swept, no file is left. Others hold the same bytes for owners of
// their own, which must be able to read them until they let go.
//
// images is how many each of the clients pushes.
func Soak(t *testing.T, open Open, images int) {
	h := New(t, open)
	// Every file is older than the grace period: only the locks keep the
	// reconciler from what is being pushed.
	h.Clock.Jump(time.Until(h.Clock.Now())*-1 + 365*24*time.Hour)
	s := &soak{H: h, ops: make(chan struct{}), stop: make(chan struct{})}
	var clients, upkeep sync.WaitGroup
	upkeep.Go(s.collector)
	for c := range 8 {
		clients.Go(func() { s.client(c, images) })
	}
	for c := range 4 {
		clients.Go(func() { s.holder(c, 4*images) })
	}
	clients.Wait()
	close(s.stop)
	upkeep.Wait()
	if h.Failed() {
		return
	}
	t.Logf("%d images pushed, %d too late to count, %d collections removed %d blobs", s.pushed.Load(), s.late.Load(), s.rounds, s.removed)
	if s.removed == 0 || s.pushed.Load() <= s.late.Load() {
		t.Error("the soak does not collect, or is too slow for its grace period: it shows nothing")
	}
	for _, k := range s.kept {
		s.verify(k)
		h.ok(h.DeleteManifest(h.ctx, k.repo, k.digest, "", ""))
		h.sweep(k.repo, k.digest)
	}
	h.past()
	h.past()
	_, err := h.Reconcile(h.ctx)
	h.ok(err)
	blobs, uploads := h.files()
	eq(h, "blobs left", blobs, 0)
	eq(h, "uploads left", uploads, 0)
	st, err := h.Stats(h.ctx)
	h.ok(err)
	eq(h, "what is left", st, content.Stats{})
}

type soak struct {
	*H
	ops  chan struct{} // one for each operation of a client
	stop chan struct{}

	rounds, removed int
	pushed, late    atomic.Int64

	mu   sync.Mutex
	kept []soakImage
}

type soakImage struct {
	repo   string
	digest image.Digest
	doc    doc
}

// collector runs a collection for every few operations of the clients.
func (s *soak) collector() {
	for {
		for range 6 {
			select {
			case <-s.ops:
			case <-s.stop:
				return
			}
		}
		s.Clock.Advance(Grace / 12)
		st, err := s.Collect(s.ctx)
		if err != nil {
			s.Errorf("collect: %v", err)
		}
		s.rounds++
		s.removed += st.Blobs
		if s.rounds%10 == 0 {
			if _, err := s.Reconcile(s.ctx); err != nil {
				s.Errorf("reconcile: %v", err)
			}
		}
	}
}

func (s *soak) client(c, images int) {
	r := rand.New(rand.NewPCG(uint64(c), 1))
	for i := range images {
		if s.Failed() {
			return
		}
		im := soakImage{repo: fmt.Sprintf("repo-%d", r.IntN(3))}
		im.doc.config = fmt.Sprintf("config %d of client %d", i, c)
		for range 1 + r.IntN(3) {
			im.doc.layers = append(im.doc.layers, fmt.Sprintf("layer %d", r.IntN(12)))
		}
		im.digest = Dig(im.doc.body())
		if !s.pushImage(r, im) {
			continue
		}
		s.verify(im)
		switch r.IntN(4) {
		case 0:
			s.mu.Lock()
			s.kept = append(s.kept, im)
			s.mu.Unlock()
		case 1:
			s.op(s.SetTag(s.ctx, im.repo, im.digest, "shared", ""))
			fallthrough
		default:
			s.removeImage(r, im)
		}
	}
}

// holder holds what others push as layers, hands it on, and lets go of it.
func (s *soak) holder(c, n int) {
	r := rand.New(rand.NewPCG(uint64(c), 2))
	first, second := fmt.Sprintf("run/%d", c), fmt.Sprintf("upload/%d", c)
	for range n {
		data := fmt.Sprintf("layer %d", r.IntN(12))
		d := Dig([]byte(data))
		read := func(owner string) {
			got, err := s.readHeld(owner, d)
			if err != nil || got != data {
				s.Errorf("%s holds %q and reads %q, %v", owner, data, got, err)
			}
		}
		_, err := s.Hold(s.ctx, first, strings.NewReader(data))
		if !s.op(err) {
			return
		}
		read(first)
		if r.IntN(2) == 0 {
			_, err := s.HoldDigest(s.ctx, second, first, d)
			if !s.op(err) || !s.op(s.Release(s.ctx, first)) {
				return
			}
			read(second)
		}
		if !s.op(errors.Join(s.Release(s.ctx, first), s.Release(s.ctx, second))) {
			return
		}
	}
}

// op counts an operation and reports its error.
func (s *soak) op(err error) bool {
	select {
	case s.ops <- struct{}{}:
	case <-s.stop:
	}
	if err != nil {
		s.Errorf("unexpected: %v", err)
	}
	return err == nil
}

// pushImage does what clients do: ask for each blob, upload or mount what is
// not there, push the manifest. It reports whether that came in time.
func (s *soak) pushImage(r *rand.Rand, im soakImage) bool {
	began := s.Clock.Mono()
	for _, data := range append([]string{im.doc.config}, im.doc.layers...) {
		d := Dig([]byte(data))
		_, err := s.StatBlob(s.ctx, im.repo, d)
		if err == nil {
			s.op(nil)
			continue
		}
		if !errors.Is(err, content.ErrBlobUnknown) {
			return s.op(err)
		}
		switch r.IntN(4) {
		case 0:
			from := ""
			if r.IntN(2) == 0 {
				from = fmt.Sprintf("repo-%d", r.IntN(3))
			}
			ok, err := s.Mount(s.ctx, im.repo, d, from, nil)
			if s.op(err); ok {
				continue
			}
			_, err = s.PutBlob(s.ctx, im.repo, strings.NewReader(data), d)
			s.op(err)
		case 1:
			id, err := s.StartUpload(s.ctx, im.repo)
			s.op(err)
			_, err = s.AppendUpload(s.ctx, im.repo, id, 0, strings.NewReader(data[:3]))
			if errors.Is(err, content.ErrUploadUnknown) {
				return false // the clock ran away from this client
			}
			s.op(err)
			_, err = s.FinishUpload(s.ctx, im.repo, id, 3, strings.NewReader(data[3:]), d)
			if errors.Is(err, content.ErrUploadUnknown) {
				return false
			}
			s.op(err)
		default:
			_, err = s.PutBlob(s.ctx, im.repo, strings.NewReader(data), d)
			s.op(err)
		}
	}
	tag := fmt.Sprintf("t%d", r.IntN(5))
	_, err := s.putErr(im.repo, im.doc, tag)
	late := s.Clock.Mono()-began >= Grace
	s.pushed.Add(1)
	if late {
		s.late.Add(1)
		if me := (*content.MissingBlobsError)(nil); errors.As(err, &me) {
			s.op(nil)
			return false
		}
	}
	if !s.op(err) {
		s.Errorf("a push within the grace period was refused")
		return false
	}
	return true
}

// verify reads an image and all its blobs.
func (s *soak) verify(im soakImage) {
	m, err := s.Manifest(s.ctx, im.repo, string(im.digest))
	if err != nil || m.Digest != im.digest {
		s.Errorf("manifest that was accepted: %v", err)
		return
	}
	for _, data := range append([]string{im.doc.config}, im.doc.layers...) {
		rd, err := s.OpenBlob(s.ctx, im.repo, Dig([]byte(data)))
		if err != nil {
			s.Errorf("blob of a manifest that was accepted: %v", err)
			return
		}
		got, err := io.ReadAll(rd)
		if err != nil || string(got) != data {
			s.Errorf("blob reads %q, %v; want %q", got, err, data)
		}
		if err := rd.Close(); err != nil {
			s.Error(err)
		}
	}
}

// removeImage deletes or expires an image, sometimes brings it back, and
// sweeps it. Other clients move tags to and from it meanwhile.
func (s *soak) removeImage(r *rand.Rand, im soakImage) {
	if r.IntN(3) == 0 {
		for {
			x, err := s.Peek(s.ctx, im.repo, string(im.digest))
			if !s.op(err) {
				return
			}
			errs, err := s.Expire(s.ctx, []content.Expiry{{Repository: im.repo, Digest: im.digest, Version: x.Version}})
			if err == nil && errors.Is(errs[0], content.ErrChanged) {
				continue
			}
			s.op(errors.Join(err, errs[0]))
			break
		}
		if r.IntN(2) == 0 {
			s.verify(im) // revives
		}
	}
	err := s.DeleteManifest(s.ctx, im.repo, im.digest, "", "")
	if !s.op(err) {
		return
	}
	for {
		x, err := s.Peek(s.ctx, im.repo, string(im.digest))
		if !s.op(err) {
			return
		}
		errs, err := s.Sweep(s.ctx, []content.Expiry{{Repository: im.repo, Digest: im.digest, Version: x.Version}})
		if err == nil && errors.Is(errs[0], content.ErrChanged) {
			continue
		}
		s.op(errors.Join(err, errs[0]))
		break
	}
	if r.IntN(3) == 0 {
		if err := s.DeleteBlob(s.ctx, im.repo, Dig([]byte(im.doc.config))); !errors.Is(err, content.ErrBlobUnknown) {
			s.op(err)
		}
	}
}
