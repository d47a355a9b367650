package mirror_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/mirror"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
)

// noise are n bytes that do not repeat.
func noise(n int) string {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return string(b)
}

const blobPath = "/v2/docker.io/a/b/blobs/"

// Fifty clients of one blob are one download, and each has its first bytes
// while the upstream still holds back the rest.
func TestStreamedToAll(t *testing.T) {
	const clients, half = 50, 1 << 20
	r := newRig(t, nil)
	blob := noise(2 * half)
	r.push(t, "a/b", []string{"1"}, blob)
	d := string(registrytest.Digest([]byte(blob)))
	gate := make(chan struct{})
	r.set(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/blobs/") {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
		_, _ = io.WriteString(w, blob[:half])
		_ = http.NewResponseController(w).Flush()
		<-gate
		_, _ = io.WriteString(w, blob[half:])
		return true
	})
	var wait, first sync.WaitGroup
	errs := make(chan error, clients+2)
	client := func(first *sync.WaitGroup) {
		done := sync.OnceFunc(func() {
			if first != nil {
				first.Done()
			}
		})
		defer done()
		resp, err := http.Get("http://" + r.addr + blobPath + d)
		if err != nil {
			errs <- err
			return
		}
		defer resp.Body.Close()
		got := make([]byte, half)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != blob[:half] {
			errs <- fmt.Errorf("first half: %v", err)
			return
		}
		done()
		rest, err := io.ReadAll(resp.Body)
		if err != nil || string(rest) != blob[half:] || resp.ContentLength != int64(len(blob)) {
			errs <- fmt.Errorf("the rest: %d of %d bytes, announced %d, %v", len(rest), half, resp.ContentLength, err)
		}
	}
	first.Add(clients)
	for range clients {
		wait.Go(func() { client(&first) })
	}
	first.Wait() // all have half of it, and the upstream has not sent more
	var late sync.WaitGroup
	late.Add(1)
	wait.Go(func() { client(&late) })
	late.Wait()
	close(gate)
	wait.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if n := r.count("GET /v2/a/b/blobs/"); n != 1 {
		t.Errorf("%d downloads, want 1", n)
	}
	until(t, "the blob is here", func() bool {
		_, err := r.local.StatBlob(context.Background(), "docker.io/a/b", registrytest.Digest([]byte(blob)))
		return err == nil
	})
}

// What a client gets of a download that goes wrong.
func TestBadDownloads(t *testing.T) {
	blob := noise(1 << 20)
	d := string(registrytest.Digest([]byte(blob)))
	whole := func(w http.ResponseWriter, _ *http.Request, _ int) { _, _ = io.WriteString(w, blob) }
	sized := func(w http.ResponseWriter) { w.Header().Set("Content-Length", strconv.Itoa(len(blob))) }
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, q *http.Request, n int) // n from 1
		good   bool                                                // the client has it, and then it is here
		status int                                                 // of the answer; 200 when broken off; 0: that or an error, by who is faster
		says   string
		gets   int
	}{
		{"without Content-Length", func(w http.ResponseWriter, q *http.Request, n int) {
			_ = http.NewResponseController(w).Flush()
			whole(w, q, n)
		}, true, 200, "", 1},
		{"cut in the middle, then the rest", func(w http.ResponseWriter, q *http.Request, n int) {
			if n == 1 {
				sized(w)
				_, _ = io.WriteString(w, blob[:300_000])
				panic(http.ErrAbortHandler)
			}
			http.ServeContent(w, q, "", time.Time{}, strings.NewReader(blob))
		}, true, 200, "", 2},
		{"cut in the middle, by one that knows no ranges", func(w http.ResponseWriter, q *http.Request, n int) {
			sized(w)
			if n == 1 {
				_, _ = io.WriteString(w, blob[:300_000])
				panic(http.ErrAbortHandler)
			}
			whole(w, q, n)
		}, true, 200, "", 2},
		{"cut at once, always", func(w http.ResponseWriter, q *http.Request, n int) {
			if q.Header.Get("Range") == "" {
				sized(w)
				_, _ = io.WriteString(w, blob[:300_000])
			}
			panic(http.ErrAbortHandler)
		}, false, 0, "", 0},
		{"another range than asked for", func(w http.ResponseWriter, q *http.Request, n int) {
			if n == 1 {
				sized(w)
				_, _ = io.WriteString(w, blob[:300_000])
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Content-Range", "bytes 5-1048575/1048576")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, blob[5:])
		}, false, 0, "", 2},
		{"wrong bytes of the right length", func(w http.ResponseWriter, q *http.Request, n int) {
			sized(w)
			_, _ = io.WriteString(w, blob[:len(blob)-1]+"\x00")
		}, false, 0, "", 1},
		{"too short, as announced", func(w http.ResponseWriter, q *http.Request, n int) {
			_, _ = io.WriteString(w, blob[:1000])
		}, false, 0, "", 1},
		{"too long without Content-Length", func(w http.ResponseWriter, q *http.Request, n int) {
			_ = http.NewResponseController(w).Flush()
			for range 5 {
				whole(w, q, n)
			}
		}, false, 502, "more than the 4194304 bytes", 1},
		{"larger than allowed", func(w http.ResponseWriter, q *http.Request, n int) {
			w.Header().Set("Content-Length", strconv.Itoa(5<<20))
			_ = http.NewResponseController(w).Flush()
		}, false, 502, "max_blob", 1},
		{"a page", func(w http.ResponseWriter, q *http.Request, n int) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>log in")
		}, false, 0, "", 1},
		{"not there", func(w http.ResponseWriter, q *http.Request, n int) { http.NotFound(w, q) }, false, 404, "docker.io does not have a/b@" + d, 1},
		{"busy", func(w http.ResponseWriter, q *http.Request, n int) {
			w.Header().Set("Retry-After", "77")
			w.WriteHeader(http.StatusTooManyRequests)
		}, false, 429, "left alone for 1m17s", 1},
		{"broken", func(w http.ResponseWriter, q *http.Request, n int) { w.WriteHeader(http.StatusInternalServerError) }, false, 502, "docker.io answers 500", 3},
		{"broken once", func(w http.ResponseWriter, q *http.Request, n int) {
			if n == 1 {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			whole(w, q, n)
		}, true, 200, "", 2},
		{"no such thing", func(w http.ResponseWriter, q *http.Request, n int) { w.WriteHeader(http.StatusTeapot) }, false, 502, "418", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(cfg *mirror.Config) { cfg.Upstreams[0].MaxBlob = 4 << 20 })
			r.run(t)
			var n atomic.Int32
			r.set(func(w http.ResponseWriter, q *http.Request) bool {
				c.answer(w, q, int(n.Add(1)))
				return true
			})
			a := r.get(t, blobPath+d)
			if a.status != c.status && c.status != 0 || !strings.Contains(string(a.body), c.says) {
				t.Errorf("%d %.300q, want %d and %q", a.status, a.body, c.status, c.says)
			}
			got := a.err == nil && a.status == 200
			switch {
			case got != c.good:
				t.Errorf("the client believes it has it: %v (%d bytes, %v), want %v", got, len(a.body), a.err, c.good)
			case c.good && string(a.body) != blob:
				t.Error("the client has other bytes")
			case !c.good && a.status == 200 && len(a.body) >= len(blob):
				t.Error("the client was given the end of something bad")
			}
			if c.gets > 0 && int(n.Load()) != c.gets {
				t.Errorf("%d requests to the upstream, want %d", n.Load(), c.gets)
			}
			if c.status == 429 && a.header.Get("Retry-After") != "77" {
				t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
			}
			kept := func() bool {
				_, err := r.local.StatBlob(context.Background(), "docker.io/a/b", registrytest.Digest([]byte(blob)))
				return err == nil
			}
			if c.good {
				until(t, "the blob is here", kept)
			} else if r.mirror.Close(); kept() {
				t.Error("it is here")
			}
		})
	}
}

// run moves the clock whenever the mirror waits to try again.
func (r *rig) run(t testing.TB) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				if r.clock.Waiting() > 0 {
					r.clock.Advance(10 * time.Second)
				}
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

// A part of a blob that is not here waits until the whole is known to be good.
func TestRanges(t *testing.T) {
	r := newRig(t, nil)
	blob := noise(100_000)
	r.push(t, "a/b", []string{"1"}, blob)
	d := registrytest.Digest([]byte(blob))
	a := r.get(t, blobPath+string(d), "Range", "bytes=10-19")
	if a.status != http.StatusPartialContent || string(a.body) != blob[10:20] || a.header.Get("Content-Range") != "bytes 10-19/100000" {
		t.Fatalf("%d %q %s", a.status, a.body, a.header.Get("Content-Range"))
	}
	if _, err := r.local.StatBlob(t.Context(), "docker.io/a/b", d); err != nil {
		t.Errorf("the whole is not here: %v", err)
	}
	if n := r.count("GET "); n != 1 {
		t.Errorf("%d downloads", n)
	}
	if a := r.get(t, blobPath+string(d), "Range", "bytes=100000-"); a.status != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("range past the end: %d", a.status)
	}

	bad := noise(50)
	r.set(func(w http.ResponseWriter, q *http.Request) bool {
		_, _ = io.WriteString(w, bad[:49]+"?")
		return true
	})
	if a := r.get(t, blobPath+string(registrytest.Digest([]byte(bad))), "Range", "bytes=0-9"); a.status != http.StatusBadGateway {
		t.Errorf("part of a bad blob: %d %q", a.status, a.body)
	}
}

// A blob of another size than its manifest says is refused before a byte of it.
func TestAnnouncedSize(t *testing.T) {
	r := newRig(t, nil)
	blob := noise(10_000)
	r.push(t, "a/b", []string{"1"}, blob)
	r.set(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/blobs/") {
			return false
		}
		_, _ = io.WriteString(w, "<html>"+strings.Repeat(" ", 1000))
		return true
	})
	r.get(t, "/v2/docker.io/a/b/manifests/1")
	a := r.get(t, blobPath+string(registrytest.Digest([]byte(blob))))
	if a.status != http.StatusBadGateway || !strings.Contains(string(a.body), "not the size that was announced") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// What came since somebody looked is not fetched.
func TestHereMeanwhile(t *testing.T) {
	r := newRig(t, nil)
	d := registrytest.Digest([]byte("blob"))
	if _, err := r.local.PutBlob(t.Context(), "docker.io/a/b", strings.NewReader("blob"), d); err != nil {
		t.Fatal(err)
	}
	for _, whole := range []bool{false, true} {
		b, err := r.mirror.Blob(t.Context(), "docker.io/a/b", d, whole)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(b)
		if string(got) != "blob" || err != nil || b.Size() != 4 {
			t.Errorf("%q, %v", got, err)
		}
		b.Close()
	}
	if n := len(r.all()); n > 0 {
		t.Errorf("%d requests to the upstream", n)
	}
}

func TestSmallBlobs(t *testing.T) {
	r := newRig(t, nil)
	r.push(t, "a/b", []string{"1"}, "", "x", "{}")
	for _, s := range []string{"", "x", "{}"} {
		p := blobPath + string(registrytest.Digest([]byte(s)))
		if a := r.do(t, http.MethodHead, p); a.status != 200 || a.header.Get("Content-Length") != strconv.Itoa(len(s)) {
			t.Errorf("HEAD of %q: %d, %s bytes", s, a.status, a.header.Get("Content-Length"))
		}
		if a := r.get(t, p, "If-None-Match", `"`+string(registrytest.Digest([]byte(s)))+`"`); a.status != http.StatusNotModified {
			t.Errorf("conditional GET of %q: %d", s, a.status)
		}
		r.get(t, p).wantBytes(t, []byte(s))
	}
	if a := r.get(t, blobPath+"sha256:nonsense"); a.status != http.StatusBadRequest {
		t.Errorf("nonsense: %d", a.status)
	}
}

// Clients that leave do not end a download that others wait for.
func TestClientsLeave(t *testing.T) {
	r := newRig(t, nil)
	blob := noise(1 << 20)
	r.push(t, "a/b", []string{"1"}, blob)
	d := string(registrytest.Digest([]byte(blob)))
	gate, begun := make(chan struct{}), make(chan struct{})
	r.set(func(w http.ResponseWriter, q *http.Request) bool {
		w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
		_, _ = io.WriteString(w, blob[:1000])
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-gate
		_, _ = io.WriteString(w, blob[1000:])
		return true
	})
	ctx, leave := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.addr+blobPath+d, nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	leave()
	resp.Body.Close()
	close(gate)
	r.get(t, blobPath+d).wantBytes(t, []byte(blob))
	if n := r.count("GET "); n != 1 {
		t.Errorf("%d downloads", n)
	}
}

// A bad end is one in HTTP/2 as well.
func TestBrokenInHTTP2(t *testing.T) {
	r := newRig(t, nil)
	blob := noise(1 << 20)
	gate := make(chan struct{})
	r.set(func(w http.ResponseWriter, q *http.Request) bool {
		w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
		_, _ = io.WriteString(w, blob[:1<<19])
		_ = http.NewResponseController(w).Flush()
		<-gate
		_, _ = io.WriteString(w, blob[1<<19:len(blob)-1]+"?")
		return true
	})
	srv := httptest.NewUnstartedServer(registry.New(registry.Config{Content: r.local, Mirror: r.mirror, Log: quiet()}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL + blobPath + string(registrytest.Digest([]byte(blob))))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	close(gate)
	b, err := io.ReadAll(resp.Body)
	if resp.ProtoMajor != 2 || err == nil || len(b) == len(blob) {
		t.Errorf("%s: %d of %d bytes, %v", resp.Proto, len(b), len(blob), err)
	}
}

// A large blob takes no more memory than a small one.
func TestMemory(t *testing.T) {
	const size = 64 << 20
	r := newRig(t, nil)
	piece := []byte(noise(1 << 16))
	h := sha256.New()
	for range size / len(piece) {
		h.Write(piece)
	}
	r.set(func(w http.ResponseWriter, q *http.Request) bool {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		for range size / len(piece) {
			_, _ = w.Write(piece)
		}
		return true
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	resp, err := http.Get("http://" + r.addr + blobPath + fmt.Sprintf("sha256:%x", h.Sum(nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if n != size || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 8<<20 {
		t.Errorf("%d bytes were allocated for a blob of %d", got, size)
	}
}

// A stop in the middle leaves nothing, and after it all is as before.
func TestRestart(t *testing.T) {
	r := newRig(t, nil)
	blob := noise(1 << 20)
	d := r.push(t, "a/b", []string{"1"}, blob)
	half := make(chan struct{})
	r.set(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/blobs/") {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
		_, _ = io.WriteString(w, blob[:1<<19])
		_ = http.NewResponseController(w).Flush()
		close(half)
		<-q.Context().Done()
		return true
	})
	r.get(t, "/v2/docker.io/a/b/manifests/1")
	<-half
	if err := r.mirror.Close(); err != nil {
		t.Fatal(err)
	}
	if r.here("docker.io/a/b", "1") {
		t.Fatal("half an image is here")
	}
	r.set(nil)
	r.start(t, nil)
	m := r.get(t, "/v2/docker.io/a/b/manifests/1")
	if m.header.Get("Docker-Content-Digest") != string(d) {
		t.Fatalf("manifest: %d %s", m.status, m.body)
	}
	r.get(t, blobPath+string(registrytest.Digest([]byte(blob)))).wantBytes(t, []byte(blob))
	until(t, "the image is here", func() bool { return r.here("docker.io/a/b", "1") })
	if !bytes.Contains(m.body, []byte("schemaVersion")) {
		t.Error("no manifest")
	}
}
