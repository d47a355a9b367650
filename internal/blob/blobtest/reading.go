package blobtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/image"
)

// Who follows an upload reads what is there so far, whatever becomes of it.
func testFollow(t *testing.T, s blob.Store) {
	for _, end := range []struct {
		name string
		do   func(st blob.Staged) error
	}{
		{"commit", func(st blob.Staged) error { return st.Commit(digest.FromString("one two three")) }},
		{"discard", func(st blob.Staged) error { return st.Discard() }},
	} {
		st := stage(t, s, "follow-"+end.name, "one ")
		f, err := st.Follow()
		must(t, err)
		read := func(off int64, want string) {
			t.Helper()
			b := make([]byte, 20)
			n, err := f.ReadAt(b, off)
			if string(b[:n]) != want || !errors.Is(err, io.EOF) {
				t.Fatalf("before %s, at %d: %q, %v; want %q and io.EOF", end.name, off, b[:n], err, want)
			}
		}
		read(0, "one ")
		read(4, "")
		_, err = io.WriteString(st, "two three")
		must(t, err)
		read(4, "two three")
		must(t, end.do(st))
		read(0, "one two three")
		must(t, f.Close())
		if _, err := st.Follow(); err == nil {
			t.Errorf("an upload that ended by %s can be followed", end.name)
		}
	}
	want(t, s, digest.FromString("one two three"), "one two three")
}

func testReader(t *testing.T, s blob.Store) {
	st := stage(t, s, "a", "one ", "two ")
	r, err := st.Reader()
	must(t, err)
	_, err = io.WriteString(st, "three")
	must(t, err)
	b, err := io.ReadAll(r)
	must(t, err)
	must(t, r.Close())
	if string(b) != "one two " {
		t.Fatalf("read %q, want what was there when asked", b)
	}
	// Reading must not move where the next bytes go.
	_, err = io.WriteString(st, " four")
	must(t, err)
	g := digest.FromString("one two three four")
	must(t, st.Commit(g))
	want(t, s, g, "one two three four")

	f, err := s.Open(t.Context(), g)
	must(t, err)
	defer f.Close()
	if _, err := f.Seek(-4, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f); string(b) != "four" || err != nil {
		t.Fatalf("the last 4 bytes are %q, %v", b, err)
	}
	if n, err := f.Seek(4, io.SeekStart); n != 4 || err != nil {
		t.Fatalf("seek: %d, %v", n, err)
	}
	if b := make([]byte, 3); true {
		if _, err := io.ReadFull(f, b); string(b) != "two" || err != nil {
			t.Fatalf("bytes 4 to 6 are %q, %v", b, err)
		}
	}
}

func testReplace(t *testing.T, s blob.Store) {
	// The bytes differ so that the test sees which it reads; a caller would
	// have verified them.
	g := digest.FromString("name")
	must(t, stage(t, s, "a", "first").Commit(g))
	old, err := s.Open(t.Context(), g)
	must(t, err)
	defer old.Close()
	must(t, stage(t, s, "b", "second!").Commit(g))
	want(t, s, g, "second!")
	if b, err := io.ReadAll(old); string(b) != "first" || err != nil {
		t.Fatalf("the open reader got %q, %v", b, err)
	}
	must(t, s.Sync(t.Context(), g))
	wantEntries(t, s, map[string]int64{string(g): 7})
}

func testNames(t *testing.T, s blob.Store) {
	for _, id := range []string{"", ".", "..", "a/b", "../x", "a b", "é", "a.b", strings.Repeat("a", 65), "a\x00b"} {
		if st, err := s.Stage(t.Context(), id); err == nil {
			st.Discard()
			t.Errorf("upload id %q was allowed", id)
		}
	}
	for _, id := range []string{"a", "-", "Z9-", strings.Repeat("a", 64)} {
		st, err := s.Stage(t.Context(), id)
		must(t, err)
		must(t, st.Discard())
	}
	st := stage(t, s, "a", "x")
	for _, g := range []image.Digest{"", "x", "sha256:", "sha256:..", "md5:" + image.Digest(strings.Repeat("a", 32)), "sha256:" + image.Digest(strings.Repeat("A", 64)), "sha256:../../../" + image.Digest(strings.Repeat("a", 55))} {
		if err := st.Commit(g); err == nil {
			t.Errorf("digest %q was allowed", g)
		}
		if r, err := s.Open(t.Context(), g); err == nil {
			r.Close()
			t.Errorf("digest %q was opened", g)
		}
	}
	must(t, st.Discard())
	wantEntries(t, s, map[string]int64{})
}

func testWalk(t *testing.T, s blob.Store) {
	wantEntries(t, s, map[string]int64{})
	m := map[string]int64{}
	for i := range 700 { // more than any page
		body := strings.Repeat("x", i)
		g := digest.FromString(body)
		must(t, stage(t, s, "a", body).Commit(g))
		m[string(g)] = int64(i)
	}
	must(t, stage(t, s, "left", "1234").Close())
	m["left"] = 4
	st := stage(t, s, "open", "12")
	defer st.Discard()
	got := entries(t, s)
	delete(got, "open") // its size need not be known before Close
	if fmt.Sprint(got) != fmt.Sprint(m) {
		t.Fatalf("walk saw %d entries, want %d", len(got), len(m))
	}
	stop := errors.New("stop")
	n := 0
	if err := s.Walk(t.Context(), func(blob.Entry) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Fatalf("walk went on: %d entries, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Walk(ctx, func(blob.Entry) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatalf("walk with a cancelled context: %v", err)
	}
	// Deleting what is seen, while walking: what a reconciler does.
	must(t, s.Walk(t.Context(), func(e blob.Entry) error {
		if e.Digest != "" {
			return s.Delete(t.Context(), e.Digest)
		}
		return nil
	}))
	for k := range entries(t, s) {
		if strings.Contains(k, ":") {
			t.Fatalf("blob %s is left", k)
		}
	}
}
