// Package servetest runs a whole server for tests of the rooms above it.
//
// It owns starting and stopping a [serve.Server] on a free port of loopback
// with a clock that the test moves, and pushing small images to it over HTTP.
// It promises that a server which does not stop in order fails the test. It
// does not replace anything but the clock.
package servetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/serve"
)

// Epoch is when a test's clock begins.
var Epoch = time.Date(2026, 1, 1, 9, 0, 0, 0, time.UTC)

// A Server runs until the test ends.
type Server struct {
	*serve.Server
	URL    string
	Config config.Config
	Clock  *clock.Fake
	Stdout *Buffer
	Log    *Buffer
	// Secret is what requests of Push use; the admin's, unless the server is open.
	Secret string

	loops  int
	stop   context.CancelFunc
	result chan error
	once   sync.Once
	err    error
}

// Config is what [Start] begins from: open, with one explicit policy of 30d.
func Config(t testing.TB) config.Config {
	c := *config.Default()
	c.Data, c.Listen, c.Open = t.TempDir(), "127.0.0.1:0", true
	c.Retention.Explicit = true
	return c
}

// Start runs a server with the configuration as edit leaves it; edit may be
// nil. fake may be that of an earlier server of the same test, or nil.
func Start(t testing.TB, fake *clock.Fake, edit func(*config.Config)) *Server {
	t.Helper()
	s := &Server{Config: Config(t), Clock: fake, Stdout: &Buffer{}, Log: &Buffer{}, result: make(chan error, 1)}
	if s.Clock == nil {
		s.Clock = clock.NewFake(Epoch)
	}
	if edit != nil {
		edit(&s.Config)
	}
	log := slog.New(slog.NewTextHandler(s.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv, err := serve.New(t.Context(), serve.Config{Config: s.Config}, serve.Deps{Clock: s.Clock, Log: log, Stdout: s.Stdout, Version: serve.Version("test")})
	if err != nil {
		t.Fatalf("start a server: %v", err)
	}
	s.Server, s.URL = srv, srv.URL()
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() { s.result <- srv.Run(ctx) }()
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("the server did not stop in order: %v\n%s", err, s.Log)
		}
	})
	// The first answer comes when it serves.
	if resp := s.Do(t, http.MethodGet, "/healthz", "", nil); resp.Status != http.StatusOK {
		t.Fatalf("/healthz answers %d: %s", resp.Status, resp.Body)
	}
	for word := range strings.FieldsSeq(s.Stdout.String()) {
		if strings.HasPrefix(word, "cairn_admin_") {
			s.Secret = word
		}
	}
	return s
}

// Stop ends the server and waits for it. It may be called more than once.
func (s *Server) Stop() error {
	s.once.Do(func() {
		s.stop()
		s.err = <-s.result
	})
	return s.err
}

// A Response is an answer, read.
type Response struct {
	Status int
	Header http.Header
	Body   string
}

// Do makes a request with the server's Secret, if there is one.
func (s *Server) Do(t testing.TB, method, path, contentType string, body []byte) Response {
	t.Helper()
	h := http.Header{}
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	if s.Secret != "" {
		h.Set("Authorization", "Bearer "+s.Secret)
	}
	return s.Send(t, method, path, h, body)
}

// Send makes a request with exactly these headers. A header Host replaces the
// host.
func (s *Server) Send(t testing.TB, method, path string, h http.Header, body []byte) Response {
	t.Helper()
	u := path
	if strings.HasPrefix(path, "/") {
		u = s.URL + path
	}
	req, err := http.NewRequestWithContext(t.Context(), method, u, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = h
	if host := h.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return Response{resp.StatusCode, resp.Header, string(b)}
}

// Push pushes an image of one layer, whose content is text, under the tag, and
// returns its digest.
func (s *Server) Push(t testing.TB, repository, tag, text string) image.Digest {
	t.Helper()
	layer, config := []byte(text), fmt.Appendf(nil, `{"os":"linux","text":%q}`, text)
	for _, b := range [][]byte{layer, config} {
		r := s.Do(t, http.MethodPost, "/v2/"+repository+"/blobs/uploads/?digest="+digest.FromBytes(b).String(), "application/octet-stream", b)
		if r.Status != http.StatusCreated {
			t.Fatalf("push a blob to %s: %d: %s", repository, r.Status, r.Body)
		}
	}
	m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		image.MediaTypeManifest, digest.FromBytes(config), len(config), digest.FromBytes(layer), len(layer))
	return s.PushManifest(t, repository, tag, image.MediaTypeManifest, m)
}

// PushManifest pushes a manifest under a tag or its digest.
func (s *Server) PushManifest(t testing.TB, repository, ref, mediaType string, m []byte) image.Digest {
	t.Helper()
	if r := s.Do(t, http.MethodPut, "/v2/"+repository+"/manifests/"+ref, mediaType, m); r.Status != http.StatusCreated {
		t.Fatalf("push %s:%s: %d: %s", repository, ref, r.Status, r.Body)
	}
	return digest.FromBytes(m)
}

// A Buffer is a bytes.Buffer for several goroutines.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Pass lets d pass and returns when every loop of the server has done what was
// due by then and waits for the clock again. How many loops there are is found
// by looking: the most that were seen to wait. A loop that something else woke
// leaves a wait behind, so that there may be fewer: then it is those who stay
// the same for a while.
func (s *Server) Pass(t testing.TB, d time.Duration) {
	t.Helper()
	s.settle(t)
	s.Clock.Advance(d)
	s.settle(t)
}

func (s *Server) settle(t testing.TB) {
	t.Helper()
	const soon, late = 5, 300
	for same, last, tries := 0, -1, 0; ; tries++ {
		time.Sleep(time.Millisecond)
		n := s.Clock.Waiting()
		if n != last {
			same = 0
		}
		same, last = same+1, n
		switch {
		case n >= s.loops && same > soon, same > late:
			s.loops = n
			return
		case tries > 5000:
			t.Fatalf("%d of %d loops wait for the clock after 5 s\n%s", n, s.loops, s.Log)
		}
	}
}
