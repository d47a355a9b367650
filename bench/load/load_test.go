package load

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestConn(t *testing.T) {
	big := bytes.Repeat([]byte("x"), 1<<20)
	mux := http.NewServeMux()
	mux.HandleFunc("/small", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(big)))
		w.Write(big)
	})
	mux.HandleFunc("/chunked", func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			w.Write(big[:100_000])
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/close", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "bye")
	})
	mux.HandleFunc("/none", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	srv := httptest.NewServer(mux)
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	c := NewConn(addr)
	defer c.Close()
	// Twice, in an order that shows whether a body was left behind.
	for range 2 {
		for _, x := range []struct {
			path   string
			status int
			body   int64
		}{{"/small", 200, 5}, {"/chunked", 200, 300_000}, {"/big", 200, 1 << 20}, {"/none", 204, 0}, {"/close", 200, 3}, {"/missing", 404, 19}} {
			a, err := c.Do([]byte("GET " + x.path + " HTTP/1.1\r\nHost: x\r\n\r\n"))
			if err != nil || a.Status != x.status || a.Body != x.body {
				t.Errorf("%s: %+v, %v; want %d and %d bytes", x.path, a, err, x.status, x.body)
			}
		}
	}
	if err := Get("x", "/small", "", 6)(c, 0, 0); err == nil {
		t.Error("a body of the wrong size was taken")
	}
	if err := Get("x", "/missing", "", -1)(c, 0, 0); err == nil {
		t.Error("a 404 was taken")
	}
}

func TestRunCountsAndFails(t *testing.T) {
	var mu sync.Mutex
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		n++
		mu.Unlock()
	}))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	r, err := Run(t.Context(), Plan{Addr: addr, Conns: 3, Measure: 50 * time.Millisecond}, Get(addr, "/", "", 0))
	if err != nil || r.N == 0 || r.N > n || r.Quantile(1) < r.Quantile(0.5) || r.Quantile(0.5) <= 0 {
		t.Errorf("%d of %d answers, p50 %s, %v", r.N, n, r.Quantile(0.5), err)
	}
	if _, err := Run(t.Context(), Plan{Addr: addr, Conns: 3, Measure: time.Minute}, Get(addr, "/", "", 7)); err == nil {
		t.Error("a wrong answer did not end the run")
	}
}

func TestPusher(t *testing.T) {
	for _, location := range []string{"/v2/r/blobs/uploads/1", "/v2/r/blobs/uploads/1?_state=x", "http://HOST/v2/r/blobs/uploads/1"} {
		seen := map[string]bool{}
		var srv *httptest.Server
		srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				w.Header().Set("Location", strings.Replace(location, "HOST", srv.Listener.Addr().String(), 1))
				w.WriteHeader(202)
				return
			}
			b, _ := io.ReadAll(r.Body)
			if got := fmt.Sprintf("sha256:%x", sha256.Sum256(b)); len(b) != 1000 || got != r.URL.Query().Get("digest") || seen[got] {
				http.Error(w, "wrong", 400)
				return
			}
			seen[r.URL.Query().Get("digest")] = true
			w.WriteHeader(201)
		}))
		addr := srv.Listener.Addr().String()
		p, c := NewPusher(addr, "r", 1000, 7), NewConn(addr)
		for range 3 {
			if d, err := p.Push(c); err != nil || !seen[d] {
				t.Errorf("%s: pushed %q: %v", location, d, err)
			}
		}
		c.Close()
		srv.Close()
	}
}
