package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
	"cairn.dev/cairn/internal/forge/rest"
)

const secret = "s3cret-of-ours"

var began = time.Unix(1_790_000_000, 0)

func client(t *testing.T, h http.HandlerFunc) (*rest.Client, *clock.Fake, *httptest.Server) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	fake := clock.NewFake(began)
	c, err := rest.New(rest.Config{URL: s.URL, Host: "forge", Clock: forgetest.Eager{Fake: fake}, Timeout: 10 * time.Second,
		Sign: func(_ context.Context, _ string, h http.Header) error {
			h.Set("Authorization", "Bearer "+secret)
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	return c, fake, s
}

func TestStatuses(t *testing.T) {
	for status, want := range map[int]error{
		400: forge.ErrInvalid, 401: forge.ErrUnauthorized, 403: forge.ErrForbidden, 404: forge.ErrNotFound, 405: forge.ErrInvalid, 409: forge.ErrMoved,
		410: forge.ErrNotFound, 412: forge.ErrMoved, 422: forge.ErrInvalid, 423: forge.ErrArchived, 451: forge.ErrArchived,
		408: nil, 429: nil, 500: nil, 502: nil, 503: nil, 504: nil,
	} {
		for _, method := range []string{"GET", "POST", "PATCH", "PUT", "DELETE"} {
			var asked atomic.Int32
			c, _, _ := client(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				fmt.Fprintf(w, `{"message": "no: %s", "errors": [{"message": "because"}, "or\nso"]}`, r.Header.Get("Authorization"))
			})
			err := c.JSON(t.Context(), rest.Request{Method: method, Path: "/x", Body: 1}, nil)
			var later *forge.LaterError
			if want != nil && !errors.Is(err, want) || errors.As(err, &later) != (want == nil) || rest.Status(err) != status || !rest.Says(err, "because") {
				t.Errorf("%s %d: %v", method, status, err)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error tells too much: %q", err)
			}
			again := int32(1)
			if method == "GET" && want == nil && status != 429 {
				again = 3
			}
			if asked.Load() != again {
				t.Errorf("%s %d was asked %d times, want %d", method, status, asked.Load(), again)
			}
		}
	}
}

func TestLeftAlone(t *testing.T) {
	for _, c := range []struct {
		status int
		header map[string]string
		want   time.Duration
	}{
		{429, map[string]string{"Retry-After": "30"}, 30 * time.Second},
		{429, map[string]string{"Retry-After": began.Add(90 * time.Second).UTC().Format(http.TimeFormat)}, 90 * time.Second},
		{429, map[string]string{"Retry-After": "-1"}, time.Minute},
		{429, nil, time.Minute},
		{429, map[string]string{"Retry-After": "99999999"}, 2 * time.Hour},
		{403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": fmt.Sprint(began.Add(time.Hour).Unix())}, time.Hour},
		{429, map[string]string{"RateLimit-Remaining": "0", "RateLimit-Reset": fmt.Sprint(began.Add(20 * time.Second).Unix())}, 20 * time.Second},
		{403, map[string]string{"Retry-After": "60"}, time.Minute},
		{403, map[string]string{"X-Test": "You have exceeded a secondary rate limit."}, time.Minute},
		{403, map[string]string{"X-RateLimit-Remaining": "10", "X-RateLimit-Reset": fmt.Sprint(began.Add(time.Hour).Unix())}, 0},
	} {
		var asked atomic.Int32
		busy := true
		client, fake, _ := client(t, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			if !busy {
				fmt.Fprint(w, "ok")
				return
			}
			for k, v := range c.header {
				w.Header().Set(k, v)
			}
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.header["X-Test"])
		})
		_, _, err := client.Bytes(t.Context(), rest.Request{Path: "/x"})
		var later *forge.LaterError
		if c.want == 0 {
			if !errors.Is(err, forge.ErrForbidden) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if !errors.As(err, &later) || later.After != c.want {
			t.Errorf("%+v: %v (%+v)", c, err, later)
			continue
		}
		busy = false
		fake.Advance(c.want - time.Second)
		if _, _, err := client.Bytes(t.Context(), rest.Request{Path: "/x"}); !errors.As(err, &later) || later.After != time.Second || asked.Load() != 1 {
			t.Errorf("%+v: too early: %v, asked %d times", c, err, asked.Load())
		}
		fake.Advance(time.Second)
		if _, _, err := client.Bytes(t.Context(), rest.Request{Path: "/x"}); err != nil {
			t.Errorf("%+v: in time: %v", c, err)
		}
	}
}

// What did not change is not sent again.
func TestConditional(t *testing.T) {
	tag, sent := "1", 0
	c, _, _ := client(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"`+tag+`"`)
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("If-None-Match") == `"`+tag+`"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		sent++
		fmt.Fprintf(w, `{"tag": %q}`, tag+r.URL.RawQuery)
	})
	ask := func(want string, query map[string][]string) {
		t.Helper()
		var v struct{ Tag string }
		if err := c.JSON(t.Context(), rest.Request{Path: "/x", Query: query}, &v); err != nil || v.Tag != want {
			t.Errorf("%+v, %v; want %s", v, err, want)
		}
	}
	ask("1", nil)
	ask("1", nil)
	ask("1q=2", map[string][]string{"q": {"2"}})
	tag = "2"
	ask("2", nil)
	ask("2", nil)
	if sent != 3 {
		t.Errorf("%d were sent", sent)
	}
}

func TestAnswersOfOthers(t *testing.T) {
	html := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html>"+secret)
	}
	for what, answer := range map[string]func(http.ResponseWriter){
		"HTML":          html,
		"no JSON":       func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/json"); fmt.Fprint(w, "{") },
		"another shape": func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/json"); fmt.Fprint(w, "[1]") },
		"a break": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "99")
			fmt.Fprint(w, "{")
			panic(http.ErrAbortHandler)
		},
		"no answer":      func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"HTML and a 502": func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/html"); w.WriteHeader(502); html(w) },
	} {
		c, _, _ := client(t, func(w http.ResponseWriter, _ *http.Request) { answer(w) })
		var v struct{ A int }
		err := c.JSON(t.Context(), rest.Request{Path: "/x?token=" + secret}, &v)
		var later *forge.LaterError
		if !errors.As(err, &later) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", what, err)
		}
	}
	c, _, _ := client(t, func(w http.ResponseWriter, _ *http.Request) { html(w) })
	if _, err := c.Stream(t.Context(), rest.Request{Path: "/x"}); err == nil {
		t.Error("HTML is taken for an archive")
	}
	c, _, _ = client(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.Copy(w, bytes.NewReader(make([]byte, 2<<20)))
	})
	if err := c.JSON(t.Context(), rest.Request{Path: "/x", Limit: 1 << 20}, nil); !errors.Is(err, forge.ErrInvalid) {
		t.Errorf("an answer that is too long: %v", err)
	}
}

func TestRedirects(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "[%s]", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	c, _, _ := client(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/there":
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/renamed":
			http.Redirect(w, r, "/new", http.StatusPermanentRedirect)
		default:
			fmt.Fprintf(w, "%s [%s]", r.Method, r.Header.Get("Authorization"))
		}
	})
	if b, _, err := c.Bytes(t.Context(), rest.Request{Path: "/there"}); err != nil || string(b) != "[]" {
		t.Errorf("elsewhere we sign on with %s, %v", b, err)
	}
	if b, _, err := c.Bytes(t.Context(), rest.Request{Path: "/renamed"}); err != nil || string(b) != "GET [Bearer "+secret+"]" {
		t.Errorf("a renamed repository: %s, %v", b, err)
	}
	if _, _, err := c.Bytes(t.Context(), rest.Request{Method: "POST", Path: "/renamed"}); !errors.Is(err, forge.ErrNotFound) {
		t.Errorf("a change of a renamed repository: %v", err)
	}
	if _, _, err := c.Bytes(t.Context(), rest.Request{Path: "/loop"}); err == nil {
		t.Error("a loop comes to an end")
	}
}

func TestPages(t *testing.T) {
	c, _, _ := client(t, func(w http.ResponseWriter, r *http.Request) {
		n := r.URL.Query().Get("page")
		next := map[string]string{"": "2", "2": "3"}[n]
		if next != "" {
			// Only the query counts: the host could be anybody's.
			w.Header().Set("Link", fmt.Sprintf(`<https://elsewhere.test/y?page=%s&k=v>; rel="next", <x>; rel="last"`, next))
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, "[%q]", n+r.URL.Query().Get("k"))
	})
	read := func(max int, stop string) (all []string, whole bool) {
		whole, err := c.Pages(t.Context(), rest.Request{Path: "/x"}, max, func(page json.RawMessage) (bool, error) {
			var some []string
			err := json.Unmarshal(page, &some)
			all = append(all, some...)
			return some[0] != stop, err
		})
		if err != nil {
			t.Error(err)
		}
		return all, whole
	}
	if all, whole := read(10, "-"); fmt.Sprint(all) != "[ 2v 3v]" || !whole {
		t.Errorf("%q, %v", all, whole)
	}
	if all, whole := read(2, "-"); len(all) != 2 || whole {
		t.Errorf("two pages: %q, %v", all, whole)
	}
	if all, whole := read(10, "2v"); len(all) != 2 || !whole {
		t.Errorf("as much as is wanted: %q, %v", all, whole)
	}
}

// Somebody who does not answer is not waited for without end, nor is somebody
// who is gone waited with.
func TestDeaf(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer s.Close()
	defer close(release)
	c, err := rest.New(rest.Config{URL: s.URL, Clock: forgetest.Eager{Fake: clock.NewFake(began)}, Timeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var later *forge.LaterError
	if err := c.JSON(t.Context(), rest.Request{Path: "/x"}, nil); !errors.As(err, &later) {
		t.Errorf("no answer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.JSON(ctx, rest.Request{Path: "/x"}, nil); !errors.Is(err, context.Canceled) || errors.As(err, &later) {
		t.Errorf("nobody waits: %v", err)
	}
}

func TestConfig(t *testing.T) {
	for _, bad := range []string{"", "git.example.org", "ftp://x", "https://user:" + secret + "@x", "https://x?y", "https://x#y", "https://"} {
		_, err := rest.New(rest.Config{URL: bad, Clock: clock.Real()})
		if err == nil {
			t.Errorf("%q is taken for a URL", bad)
		}
	}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	defer s.Close()
	s.Config.ErrorLog = nil
	for trusted, cas := range map[bool][]byte{true: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), false: nil} {
		c, err := rest.New(rest.Config{URL: s.URL, CAs: cas, Clock: forgetest.Eager{Fake: clock.NewFake(began)}})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Bytes(t.Context(), rest.Request{Path: "/x"}); (err == nil) != trusted {
			t.Errorf("trusted %v: %v", trusted, err)
		}
	}
	if _, err := rest.New(rest.Config{URL: s.URL, CAs: []byte("no PEM"), Clock: clock.Real()}); err == nil {
		t.Error("certificates that are none")
	}
}

func TestSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	s := rest.Secret{File: file}
	if _, err := s.Read(); err == nil {
		t.Error("a file that is not there")
	}
	for _, token := range []string{"one", "two"} {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Read(); err != nil || got != token {
			t.Errorf("Read = %q, %v; want %q", got, err, token)
		}
	}
	if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(); err == nil {
		t.Error("an empty file is no secret")
	}
	v := struct{ Token rest.Secret }{rest.Secret{Value: secret}}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if out := fmt.Sprintf("%v %+v %#v %s %s", v, v, v, v.Token, b); strings.Contains(out, secret) {
		t.Errorf("printed: %s", out)
	}
}
