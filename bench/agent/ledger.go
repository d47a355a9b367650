package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// A ledger is a real server, and when it took which digest.
type ledger struct {
	*httptest.Server
	stop func()

	mu      sync.Mutex
	seen    map[image.Digest]time.Time // first
	dated   map[image.Digest]time.Time // when that report says it started
	bytes   int64                      // of reports, compressed
	reports int
	applied time.Time // when the last complete statement was in force
	uses    int       // in it, by its parts
}

func newLedger(ctx context.Context, cairn, data string) (*ledger, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	l.Close() // free, and most likely still in a moment
	_, stop, err := start(ctx, cairn, "serve", "--open", "--listen", address, "--data", data, "--log-level", "error")
	if err != nil {
		return nil, err
	}
	target := &url.URL{Scheme: "http", Host: address}
	led := &ledger{stop: stop, seen: map[image.Digest]time.Time{}, dated: map[image.Digest]time.Time{}}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	led.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(b))
		proxy.ServeHTTP(w, r)
		if r.URL.Path == "/api/v1/uses" {
			led.took(b, time.Now())
		}
	}))
	return led, wait("the server", func() bool {
		resp, err := http.Get(target.String() + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

func (l *ledger) close() {
	l.Close()
	l.stop()
}

// took notes what was in a report that was answered.
func (l *ledger) took(body []byte, at time.Time) {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		panic(fmt.Sprintf("a report that is not gzip: %v", err))
	}
	s, err := usage.ReadStatement(z, 0)
	if err != nil {
		panic(fmt.Sprintf("a report that cannot be read: %v", err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reports++
	l.bytes += int64(len(body))
	for _, u := range s.Uses {
		if _, ok := l.seen[u.Digest]; !ok {
			l.seen[u.Digest], l.dated[u.Digest] = at, u.At
		}
	}
	if s.Complete {
		if s.Part <= 1 {
			l.uses = 0
		}
		l.uses += len(s.Uses)
		if s.Part == s.Parts {
			l.applied = at
		}
	}
}

func (l *ledger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen, l.bytes, l.reports, l.applied, l.uses = map[image.Digest]time.Time{}, 0, 0, time.Time{}, 0
}
