package registry_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
)

// These tests go over a real connection, where a recorder would not do.

// post starts an upload and returns its address.
func post(t *testing.T, addr string) string {
	t.Helper()
	resp, err := http.Post("http://"+addr+"/v2/app/blobs/uploads/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 202 {
		t.Fatalf("POST: %s", resp.Status)
	}
	return resp.Header.Get("Location")
}

// say writes a request that need not be whole, and returns the connection.
func say(t *testing.T, addr, format string, args ...any) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute)) // rather than hang
	if _, err := fmt.Fprintf(c, strings.ReplaceAll(format, "\n", "\r\n"), args...); err != nil {
		t.Fatal(err)
	}
	return c
}

func do(t *testing.T, method, addr, path string, header http.Header, body io.Reader) (*http.Response, []byte) {
	t.Helper()
	q, err := http.NewRequest(method, "http://"+addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		q.Header[k] = v
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, b
}

// eventually asks again until f is content; other goroutines have to get to
// their end first, and nothing tells when.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// finish goes on with the layer from where the upload says it is, as a client
// does that lost its connection; kept is how far it must have come.
func finish(t *testing.T, addr, loc string, kept int) {
	t.Helper()
	d := registrytest.Digest(layer)
	eventually(t, func() error {
		resp, _ := do(t, "GET", addr, loc, nil, nil)
		if got, want := resp.Header.Get("Range"), fmt.Sprint("0-", kept-1); resp.StatusCode != 204 || got != want {
			return fmt.Errorf("the upload is at %d, Range %q; want 204 and %q", resp.StatusCode, got, want)
		}
		span := http.Header{"Content-Range": {fmt.Sprintf("%d-%d", kept, len(layer)-1)}}
		resp, b := do(t, "PUT", addr, loc+"?digest="+string(d), span, bytes.NewReader(layer[kept:]))
		if resp.StatusCode != 201 {
			return fmt.Errorf("PUT: %s %s", resp.Status, b)
		}
		return nil
	})
	resp, b := do(t, "GET", addr, "/v2/app/blobs/"+string(d), nil, nil)
	if resp.StatusCode != 200 || !bytes.Equal(b, layer) {
		t.Errorf("GET: %s, %d bytes", resp.Status, len(b))
	}
}

// TestTruncatedUpload breaks the connection in the middle of a chunk: the
// upload is not held by it, knows how far it came, and goes on from there.
func TestTruncatedUpload(t *testing.T) {
	addr := registrytest.Serve(t, newHandler(t))
	for name, head := range map[string]string{
		"stream": "PATCH %s HTTP/1.1\nHost: x\nContent-Length: 3000\n\nlayer layer",
		"chunk":  "PATCH %s HTTP/1.1\nHost: x\nContent-Length: 3000\nContent-Range: 0-2999\n\nlayer layer",
		"put":    "PUT %s?digest=" + string(registrytest.Digest(layer)) + " HTTP/1.1\nHost: x\nContent-Length: 3000\n\nlayer layer",
	} {
		t.Run(name, func(t *testing.T) {
			loc := post(t, addr)
			say(t, addr, head, loc).Close()
			finish(t, addr, loc, len("layer layer"))
		})
	}
}

// TestStalledUpload keeps the connection and sends nothing more.
func TestStalledUpload(t *testing.T) {
	addr := registrytest.Serve(t, newHandler(t, func(c *registry.Config) { c.Patience = 50 * time.Millisecond }))
	loc := post(t, addr)
	c := say(t, addr, "PATCH %s HTTP/1.1\nHost: x\nContent-Length: 3000\n\nlayer", loc)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 400 || !bytes.Contains(b, []byte("nothing came for too long (50ms)")) {
		t.Errorf("answered %s %s", resp.Status, b)
	}
	finish(t, addr, loc, len("layer"))

	for head, code := range map[string]string{
		"PUT /v2/app/manifests/v1":                 "MANIFEST_INVALID",
		"PATCH /v2/app/blobs/uploads/none":         "BLOB_UPLOAD_UNKNOWN", // the body is not looked at
		"POST /v2/app/blobs/uploads/?digest=wrong": "DIGEST_INVALID",
		"GET /v2/App/manifests/v1":                 "NAME_INVALID",
	} {
		c := say(t, addr, "%s HTTP/1.1\nHost: x\nContent-Length: 3000\n\n{", head)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode < 400 || !bytes.Contains(b, []byte(code)) {
			t.Errorf("%s: answered %s %s", head, resp.Status, b)
		}
	}
}

// TestPatienceEnds proves that the deadline of one request is not that of the
// next on its connection.
func TestPatienceEnds(t *testing.T) {
	const patience = 30 * time.Millisecond
	addr := registrytest.Serve(t, newHandler(t, func(c *registry.Config) { c.Patience = patience }))
	c := say(t, addr, "")
	in := bufio.NewReader(c)
	d := registrytest.Digest(layer)
	for _, q := range []string{
		"POST /v2/app/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n" + string(layer),
		"GET /v2/app/blobs/%s HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v2/app/blobs/%s HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		if _, err := fmt.Fprintf(c, q, d); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("%.10s: %v", q, err)
		}
		if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode >= 300 {
			t.Fatalf("%.10s: %s %v", q, resp.Status, err)
		}
		time.Sleep(3 * patience) // the deadline of before passes on the idle connection
	}
}

// TestTwoWriters writes an upload from two connections at once.
func TestTwoWriters(t *testing.T) {
	addr := registrytest.Serve(t, newHandler(t))
	loc := post(t, addr)
	body, w := io.Pipe()
	first := make(chan string, 1)
	go func() {
		q, _ := http.NewRequest("PATCH", "http://"+addr+loc, body)
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			first <- err.Error()
			return
		}
		resp.Body.Close()
		first <- fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Range"))
	}()
	if _, err := w.Write(layer[:1000]); err != nil {
		t.Fatal(err)
	}
	// The first holds the upload once its bytes are being read.
	eventually(t, func() error {
		resp, b := do(t, "PATCH", addr, loc, http.Header{"Content-Range": {"1-10"}}, strings.NewReader("0123456789"))
		if resp.StatusCode != 409 {
			return fmt.Errorf("second writer: %s %s", resp.Status, b)
		}
		if !bytes.Contains(b, []byte("BLOB_UPLOAD_INVALID")) || resp.Header.Get("Location") != loc || resp.Header.Get("Range") == "" {
			t.Errorf("second writer: %v %s", resp.Header, b)
		}
		return nil
	})
	d := registrytest.Digest(layer)
	if resp, b := do(t, "PUT", addr, loc+"?digest="+string(d), nil, strings.NewReader("")); resp.StatusCode != 409 {
		t.Errorf("PUT meanwhile: %s %s", resp.Status, b)
	}
	w.Write(layer[1000:])
	w.Close()
	if got := <-first; got != "202 0-2999" {
		t.Errorf("first writer: %s", got)
	}
	if resp, b := do(t, "PUT", addr, loc+"?digest="+string(d), nil, nil); resp.StatusCode != 201 {
		t.Errorf("PUT: %s %s", resp.Status, b)
	}
}

// TestTooLargeManifestIsAnswered: a client that sends all of 5 MiB before it
// looks must still get the answer, and not a broken connection.
func TestTooLargeManifestIsAnswered(t *testing.T) {
	addr := registrytest.Serve(t, newHandler(t))
	c := say(t, addr, "PUT /v2/app/manifests/v1 HTTP/1.1\nHost: x\nContent-Length: %d\n\n", 5<<20)
	if _, err := c.Write(make([]byte, 5<<20)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 413 {
		t.Errorf("%s %s", resp.Status, b)
	}
}

// TestStuckReader asks for a blob that fits into no buffer and reads none of it.
func TestStuckReader(t *testing.T) {
	h := newHandler(t, func(c *registry.Config) { c.Patience = 50 * time.Millisecond })
	left := make(chan struct{}, 1)
	addr := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		if r.Method == "GET" {
			left <- struct{}{}
		}
	}))
	large := make([]byte, 64<<20)
	d := registrytest.Digest(large)
	if resp, b := do(t, "POST", addr, "/v2/app/blobs/uploads/?digest="+string(d), nil, bytes.NewReader(large)); resp.StatusCode != 201 {
		t.Fatalf("%s %s", resp.Status, b)
	}
	say(t, addr, "GET /v2/app/blobs/%s HTTP/1.1\nHost: x\n\n", d)
	select {
	case <-left:
	case <-time.After(time.Minute):
		t.Fatal("the handler still waits for a client that does not read")
	}
}

// A spy is a listener whose connections note what they are told to copy.
type spy struct {
	net.Listener
	mu   sync.Mutex
	from []io.Reader
}

func (s *spy) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &spyConn{c.(*net.TCPConn), s}, nil
}

type spyConn struct {
	*net.TCPConn
	s *spy
}

func (c *spyConn) ReadFrom(r io.Reader) (int64, error) {
	c.s.mu.Lock()
	c.s.from = append(c.s.from, r)
	c.s.mu.Unlock()
	return c.TCPConn.ReadFrom(r)
}

// TestSendfile proves that a blob reaches the connection as something the
// kernel can copy from.
func TestSendfile(t *testing.T) {
	h := newHandler(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &spy{Listener: l}
	srv := &http.Server{Handler: h}
	go srv.Serve(s) // ends with Close
	t.Cleanup(func() { srv.Close() })
	addr := l.Addr().String()

	large := make([]byte, 9<<20) // several steps
	rand.Read(large)
	d := registrytest.Digest(large)
	if resp, b := do(t, "POST", addr, "/v2/app/blobs/uploads/?digest="+string(d), nil, bytes.NewReader(large)); resp.StatusCode != 201 {
		t.Fatalf("%s %s", resp.Status, b)
	}
	for _, c := range []struct {
		span  string
		want  []byte
		steps int
	}{{"", large, 3}, {"bytes=1000-5999999", large[1000:6000000], 2}, {"bytes=-10", large[len(large)-10:], 0}} {
		s.mu.Lock()
		s.from = nil
		s.mu.Unlock()
		head := http.Header{}
		if c.span != "" {
			head.Set("Range", c.span)
		}
		resp, b := do(t, "GET", addr, "/v2/app/blobs/"+string(d), head, nil)
		if resp.StatusCode >= 300 || !bytes.Equal(b, c.want) {
			t.Fatalf("%q: %s, %d bytes", c.span, resp.Status, len(b))
		}
		s.mu.Lock()
		n := 0
		for _, r := range s.from {
			if lr, ok := r.(*io.LimitedReader); ok {
				if _, ok := lr.R.(syscall.Conn); ok { // what net asks for before it calls sendfile
					n++
				}
			}
		}
		s.mu.Unlock()
		if c.steps > 0 && n != c.steps {
			t.Errorf("%q: %d copies the kernel can do, want %d", c.span, n, c.steps)
		}
	}
}

// TestDamagedBlob: once a scrub found it, damage is never served as good, and
// a push repairs it.
func TestDamagedBlob(t *testing.T) {
	dir := t.TempDir()
	store := registrytest.Store(t, registrytest.DiskIn(t, dir))
	h := newHandler(t, func(c *registry.Config) { c.Content = store })
	run(t, h, pushed("app", "v1"))
	d := registrytest.Digest(layer)
	file := filepath.Join(dir, "blobs", "sha256", d.Hex()[:2], d.Hex())
	bad := bytes.Clone(layer)
	bad[1000] ^= 1
	if err := os.WriteFile(file, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Scrub(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	run(t, h, []row{
		{call: "GET /v2/app/blobs/" + string(d), status: 500, code: "CONTENT_CORRUPT", says: "push it again", want: "Docker-Content-Digest: \nETag: "},
		{name: "a push is not told that it is there", call: "HEAD /v2/app/blobs/" + string(d), status: 404},
		blobRow("app", layer),
		{call: "GET /v2/app/blobs/" + string(d), status: 200, bytes: layer},
	})
}

// A fullDisk fails every write once it is full.
type fullDisk struct {
	blob.Store
	mu   sync.Mutex
	fail error
}

func (f *fullDisk) Stage(ctx context.Context, upload string) (blob.Staged, error) {
	s, err := f.Store.Stage(ctx, upload)
	if err != nil {
		return nil, err
	}
	return fullStaged{s, f}, nil
}

type fullStaged struct {
	blob.Staged
	f *fullDisk
}

func (s fullStaged) Write(p []byte) (int, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if s.f.fail != nil {
		return 0, s.f.fail
	}
	return s.Staged.Write(p)
}

// TestFullDisk: in the middle of a push the disk is full, and later not.
func TestFullDisk(t *testing.T) {
	disk := &fullDisk{Store: registrytest.Disk(t)}
	h := newHandler(t, func(c *registry.Config) { c.Content = registrytest.Store(t, disk) })
	d := string(registrytest.Digest(layer))
	run(t, h, pushed("app", "v1")[:1])
	run(t, h, []row{
		{call: "POST /v2/app/blobs/uploads/", status: 202},
		{call: "PATCH $loc", header: "Content-Range: 0-999", body: layer[:1000], status: 202},
	})
	for _, c := range []struct {
		err    error
		status int
		code   string
		says   string
	}{
		{blob.ErrNoSpace, 507, "DISK_FULL", "disk is full"},
		{blob.ErrReadOnly, 503, "UNAVAILABLE", "cannot write its data folder"},
	} {
		disk.mu.Lock()
		disk.fail = c.err
		disk.mu.Unlock()
		run(t, h, []row{
			{call: "POST /v2/app/blobs/uploads/?digest=" + d, body: layer, status: c.status, code: c.code, says: c.says},
			{call: "HEAD /v2/app/blobs/" + d, status: 404},
			{call: "POST /v2/app/blobs/uploads/", status: 202},
			{call: "PATCH $loc", body: layer, status: c.status, code: c.code, says: c.says},
			{call: "GET $loc", status: 204, want: "Range: 0--1"},
			{name: "reads go on", call: "GET /v2/app/blobs/" + string(registrytest.Digest(config)), status: 200, bytes: config},
		})
		disk.mu.Lock()
		disk.fail = nil
		disk.mu.Unlock()
		run(t, h, []row{
			{call: "POST /v2/app/blobs/uploads/", status: 202},
			{call: "PATCH $loc", body: layer, status: 202},
		})
	}
	run(t, h, pushed("app", "v1"))
	run(t, h, []row{{call: "GET /v2/app/manifests/v1", status: 200, bytes: manifest, want: "Content-Type: " + image.MediaTypeManifest}})
}
