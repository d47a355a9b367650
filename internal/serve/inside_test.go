package serve

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestInside(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Path", r.URL.Path)
		w.WriteHeader(http.StatusAccepted)
		w.Header().Set("X-Late", "1") // not seen any more
		_, _ = io.Copy(w, r.Body)
	})
	mux.HandleFunc("GET /broken", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "begin")
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("GET /nothing", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("GET /waits", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c := &http.Client{Transport: inside{mux}}

	long := strings.Repeat("0123456789", 100_000)
	resp, err := c.Post("http://inside/echo", "text/plain", strings.NewReader(long))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || string(b) != long || resp.StatusCode != http.StatusAccepted || resp.Header.Get("X-Path") != "/echo" || resp.Header.Get("X-Late") != "" {
		t.Errorf("%d bytes, %v, %d %v", len(b), err, resp.StatusCode, resp.Header)
	}
	if resp, err := c.Get("http://inside/elsewhere"); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("%v, %v", resp, err)
	}
	// What broke off does not look whole.
	resp, err = c.Get("http://inside/broken")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "begin" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := c.Get("http://inside/nothing"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://inside/waits", nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := c.Do(r); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	// A reader that leaves ends the writer.
	resp, err = c.Post("http://inside/echo", "text/plain", strings.NewReader(long))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
