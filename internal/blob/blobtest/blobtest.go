// Package blobtest is the conformance suite of blob.Store.
//
// It owns what every implementation must do, whatever it stores bytes in. It
// does not test what only one of them promises (faults, files): that stands
// beside that one.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/image"
)

// Run runs the suite. open returns a new, empty store each time and arranges
// for its end with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) blob.Store) {
	for _, c := range []struct {
		name string
		f    func(t *testing.T, s blob.Store)
	}{
		{"Commit", testCommit},
		{"Resume", testResume},
		{"Truncate", testTruncate},
		{"Discard", testDiscard},
		{"Ended", testEnded},
		{"Reader", testReader},
		{"Follow", testFollow},
		{"Replace", testReplace},
		{"Delete", testDelete},
		{"Names", testNames},
		{"SHA512", testSHA512},
		{"Walk", testWalk},
		{"Large", testLarge},
		{"Sync", testSync},
		{"Concurrent", testConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, open(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stage opens an upload and appends the parts.
func stage(t *testing.T, s blob.Store, id string, parts ...string) blob.Staged {
	t.Helper()
	st, err := s.Stage(t.Context(), id)
	must(t, err)
	for _, p := range parts {
		n, err := io.WriteString(st, p)
		if n != len(p) || err != nil {
			t.Fatalf("write %d bytes: %d, %v", len(p), n, err)
		}
	}
	return st
}

func put(t *testing.T, s blob.Store, id, body string) image.Digest {
	t.Helper()
	g := digest.FromString(body)
	must(t, stage(t, s, id, body).Commit(g))
	must(t, s.Sync(t.Context(), g))
	return g
}

func want(t *testing.T, s blob.Store, g image.Digest, body string) {
	t.Helper()
	r, err := s.Open(t.Context(), g)
	must(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	must(t, err)
	if string(b) != body {
		t.Fatalf("blob %s holds %d bytes %.40q, want %d bytes %.40q", g, len(b), b, len(body), body)
	}
	if r.Size() != int64(len(body)) {
		t.Fatalf("size of blob %s is %d, want %d", g, r.Size(), len(body))
	}
}

func wantAbsent(t *testing.T, s blob.Store, g image.Digest) {
	t.Helper()
	if r, err := s.Open(t.Context(), g); !errors.Is(err, blob.ErrNotFound) {
		if err == nil {
			r.Close()
		}
		t.Fatalf("open blob %s: %v, want ErrNotFound", g, err)
	}
}

// entries are what Walk sees, as digest or upload id with the size.
func entries(t *testing.T, s blob.Store) map[string]int64 {
	t.Helper()
	m := map[string]int64{}
	must(t, s.Walk(t.Context(), func(e blob.Entry) error {
		key := string(e.Digest) + e.Upload
		if (e.Digest == "") == (e.Upload == "") {
			t.Errorf("entry is both a blob and an upload, or neither: %+v", e)
		}
		if _, twice := m[key]; twice {
			t.Errorf("walk saw %s twice", key)
		}
		if d := time.Since(e.Modified); d > time.Hour || d < -time.Hour {
			t.Errorf("%s was modified at %v", key, e.Modified)
		}
		m[key] = e.Size
		return nil
	}))
	return m
}

func wantEntries(t *testing.T, s blob.Store, want map[string]int64) {
	t.Helper()
	if got := entries(t, s); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("walk saw %v, want %v", got, want)
	}
}

func testCommit(t *testing.T, s blob.Store) {
	for i, body := range []string{"", "x", "hello", strings.Repeat("0123456789", 10_000)} {
		g := digest.FromString(body)
		wantAbsent(t, s, g)
		id := fmt.Sprintf("up-%d", i)
		st := stage(t, s, id, body)
		wantAbsent(t, s, g)
		must(t, st.Commit(g))
		want(t, s, g, body) // visible before the sync
		must(t, s.Sync(t.Context(), g))
		want(t, s, g, body)
		must(t, st.Close())
		must(t, st.Discard())
		want(t, s, g, body)
		if _, ok := entries(t, s)[id]; ok {
			t.Fatalf("upload %s is still there after its commit", id)
		}
	}
}

func testResume(t *testing.T, s blob.Store) {
	st := stage(t, s, "a", "one ", "two ")
	must(t, st.Close())
	must(t, st.Close())
	wantEntries(t, s, map[string]int64{"a": 8})
	st = stage(t, s, "a")
	if st.Size() != 8 {
		t.Fatalf("size %d after reopening, want 8", st.Size())
	}
	_, err := io.WriteString(st, "three")
	must(t, err)
	if st.Size() != 13 {
		t.Fatalf("size %d, want 13", st.Size())
	}
	g := digest.FromString("one two three")
	must(t, st.Commit(g))
	want(t, s, g, "one two three")
}

func testTruncate(t *testing.T, s blob.Store) {
	st := stage(t, s, "a", "one two")
	for _, bad := range []int64{-1, 8} {
		if err := st.Truncate(bad); err == nil {
			t.Errorf("truncate to %d of 7 bytes was allowed", bad)
		}
	}
	must(t, st.Truncate(7))
	must(t, st.Truncate(4))
	if st.Size() != 4 {
		t.Fatalf("size %d, want 4", st.Size())
	}
	_, err := io.WriteString(st, "six")
	must(t, err)
	must(t, st.Close())
	st = stage(t, s, "a")
	must(t, st.Truncate(0))
	_, err = io.WriteString(st, "seven")
	must(t, err)
	g := digest.FromString("seven")
	must(t, st.Commit(g))
	want(t, s, g, "seven")
}

func testDiscard(t *testing.T, s blob.Store) {
	st := stage(t, s, "a", "one")
	must(t, st.Discard())
	must(t, st.Discard())
	must(t, st.Close())
	wantEntries(t, s, map[string]int64{})
	st = stage(t, s, "a")
	if st.Size() != 0 {
		t.Fatalf("a discarded upload came back with %d bytes", st.Size())
	}
	must(t, st.Discard())
}

func testEnded(t *testing.T, s blob.Store) {
	for name, end := range map[string]func(blob.Staged) error{
		"close":   blob.Staged.Close,
		"discard": blob.Staged.Discard,
		"commit":  func(st blob.Staged) error { return st.Commit(digest.FromString("one")) },
	} {
		st := stage(t, s, "a-"+name, "one")
		must(t, end(st))
		if _, err := st.Write([]byte("x")); err == nil {
			t.Errorf("write after %s was allowed", name)
		}
		if err := st.Truncate(0); err == nil {
			t.Errorf("truncate after %s was allowed", name)
		}
		if _, err := st.Reader(); err == nil {
			t.Errorf("reader after %s was allowed", name)
		}
		g := digest.FromString("other")
		if err := st.Commit(g); err == nil {
			t.Errorf("commit after %s was allowed", name)
		}
		wantAbsent(t, s, g)
	}
}

func testDelete(t *testing.T, s blob.Store) {
	g := put(t, s, "a", "hello")
	r, err := s.Open(t.Context(), g)
	must(t, err)
	defer r.Close()
	must(t, s.Delete(t.Context(), g))
	wantAbsent(t, s, g)
	if b, err := io.ReadAll(r); string(b) != "hello" || err != nil {
		t.Fatalf("the open reader got %q, %v", b, err)
	}
	must(t, s.Delete(t.Context(), g))
	wantEntries(t, s, map[string]int64{})
	put(t, s, "a", "hello")
	want(t, s, g, "hello")
	// Deleted between commit and sync.
	must(t, stage(t, s, "b", "bye").Commit(digest.FromString("bye")))
	must(t, s.Delete(t.Context(), digest.FromString("bye")))
	must(t, s.Sync(t.Context()))
}

func testSHA512(t *testing.T, s blob.Store) {
	g := digest.SHA512.FromString("hello")
	must(t, stage(t, s, "a", "hello").Commit(g))
	must(t, s.Sync(t.Context(), g))
	want(t, s, g, "hello")
	wantAbsent(t, s, digest.FromString("hello"))
	wantEntries(t, s, map[string]int64{string(g): 5})
	must(t, s.Delete(t.Context(), g))
	wantAbsent(t, s, g)
}

func testLarge(t *testing.T, s blob.Store) {
	const size = 80<<20 + 12345 // crosses every write-back
	rnd := rand.NewChaCha8([32]byte{1})
	h := digest.SHA256.Digester()
	st := stage(t, s, "a")
	if _, err := io.CopyN(io.MultiWriter(st, h.Hash()), rnd, size); err != nil {
		t.Fatal(err)
	}
	g := h.Digest()
	must(t, st.Commit(g))
	must(t, s.Sync(t.Context(), g))
	r, err := s.Open(t.Context(), g)
	must(t, err)
	defer r.Close()
	v := g.Verifier()
	if n, err := io.Copy(v, r); n != size || err != nil || !v.Verified() {
		t.Fatalf("read %d of %d bytes, %v, verified %v", n, size, err, v.Verified())
	}
}

func testSync(t *testing.T, s blob.Store) {
	must(t, s.Sync(t.Context())) // nothing to do
	must(t, s.Sync(t.Context(), digest.FromString("never committed")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g := digest.FromString("x")
	must(t, stage(t, s, "a", "x").Commit(g))
	if err := s.Sync(ctx, g); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	must(t, s.Sync(t.Context(), g))
}

func testConcurrent(t *testing.T, s blob.Store) {
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 7))
			for i := range 20 {
				body := bytes.Repeat([]byte{byte(w), byte(i)}, rnd.IntN(5000))
				if i%5 == 4 {
					body = []byte("the same from all")
				}
				g := digest.FromBytes(body)
				err := func() error {
					st, err := s.Stage(t.Context(), fmt.Sprintf("w%d-%d", w, i))
					if err != nil {
						return err
					}
					defer st.Close()
					if _, err := st.Write(body); err != nil {
						return err
					}
					if err := st.Commit(g); err != nil {
						return err
					}
					if err := s.Sync(t.Context(), g); err != nil {
						return err
					}
					r, err := s.Open(t.Context(), g)
					if err != nil {
						return err
					}
					defer r.Close()
					got, err := io.ReadAll(r)
					if err == nil && !bytes.Equal(got, body) {
						err = fmt.Errorf("blob %s is not what was written", g)
					}
					return err
				}()
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for k := range entries(t, s) {
		if !strings.Contains(k, ":") {
			t.Errorf("upload %s is left", k)
		}
	}
}
