package artifacts

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"cairn.dev/cairn/internal/outbound"
)

// A tunnel is a proxy on this machine through which one git program reaches
// one place: so that it, too, is connected to nothing that is refused, whatever
// a name resolves to, and gets no more bytes than it may. It speaks CONNECT
// only (RFC 9110 section 9.3.6), and asks for a password that nobody else has.
type tunnel struct {
	listener net.Listener
	server   *http.Server
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	password string
	left     atomic.Int64 // bytes that may come yet
	refused  atomic.Bool  // it was asked to connect where it does not

	mu    sync.Mutex
	open  map[net.Conn]bool
	ended bool
}

func newTunnel(private bool, max int64) (*tunnel, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &tunnel{listener: l, dial: outbound.Transport(private).DialContext, password: rand.Text(), open: map[net.Conn]bool{}}
	t.left.Store(max)
	t.server = &http.Server{Handler: t, MaxHeaderBytes: 16 << 10}
	go func() { _ = t.server.Serve(l) }()
	return t, nil
}

// address is what is set as http.proxy.
func (t *tunnel) address() string {
	return "http://cairn:" + t.password + "@" + t.listener.Addr().String()
}

func (t *tunnel) close() {
	t.mu.Lock()
	t.ended = true
	for c := range t.open {
		_ = c.Close()
	}
	t.mu.Unlock()
	_ = t.server.Close()
}

// explain adds to an error of git what it cannot know: why a connection ended.
func (t *tunnel) explain(err error) error {
	switch {
	case t == nil:
	case t.refused.Load():
		return fmt.Errorf("%w: %w: %w", err, outbound.ErrRefused, ErrRefused)
	case t.left.Load() < 0:
		return fmt.Errorf("%w: more bytes than the limit: %w", err, ErrTooLarge)
	}
	return err
}

// keep has close close a connection, or closes it if that was before.
func (t *tunnel) keep(c net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		_ = c.Close()
		return false
	}
	t.open[c] = true
	return true
}

func (t *tunnel) drop(c net.Conn) {
	_ = c.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
}

// ServeHTTP implements [http.Handler].
func (t *tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("cairn:"+t.password))
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("Proxy-Authorization")), []byte(want)) != 1 {
		w.Header().Set("Proxy-Authenticate", "Basic")
		http.Error(w, "who are you?", http.StatusProxyAuthRequired)
		return
	}
	if r.Method != http.MethodConnect {
		http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
		return
	}
	there, err := t.dial(r.Context(), "tcp", r.Host)
	if err != nil {
		if errors.Is(err, outbound.ErrRefused) {
			t.refused.Store(true)
		}
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if !t.keep(there) {
		return
	}
	defer t.drop(there)
	here, rest, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if !t.keep(here) {
		return
	}
	defer t.drop(here)
	if _, err := io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(there, rest)
		if c, ok := there.(*net.TCPConn); ok {
			_ = c.CloseWrite()
		}
	}()
	_, _ = io.Copy(here, counted{there, &t.left})
}

// counted reads no more than is left.
type counted struct {
	r    io.Reader
	left *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.left.Add(-int64(n)) < 0 {
		return 0, ErrTooLarge
	}
	return n, err
}
