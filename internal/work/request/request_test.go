package request

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow/argo"
)

// site is what requests meet; elsewhere is another host, to which it redirects.
func site(t *testing.T) (here, elsewhere string) {
	t.Helper()
	echo := func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s token=%s %s", r.Method, r.Host, r.Header.Get("X-Token"), b)
	}
	other := httptest.NewServer(http.HandlerFunc(echo))
	t.Cleanup(other.Close)
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Kind", "a")
		fmt.Fprint(w, "all ok é")
	})
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		var code int
		fmt.Sscan(r.PathValue("code"), &code)
		w.WriteHeader(code)
	})
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 2000)) })
	mux.HandleFunc("/binary", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte{0xff, 0xfe}) })
	mux.HandleFunc("/lies", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "short")
	})
	mux.HandleFunc("/never", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/drips", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "a")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/same", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/echo", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/other", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL, strings.TrimPrefix(other.URL, "http://")
}

func TestDo(t *testing.T) {
	here, elsewhere := site(t)
	host := strings.TrimPrefix(here, "http://")
	token := map[string]string{"X-Token": "s3cret"}
	c := New(Config{Open: true, MaxBody: 1000}, argo.Success)
	for _, x := range []struct {
		name  string
		h     task.HTTP
		phase task.Phase
		part  string // of the result, or of the message
	}{
		{"get", task.HTTP{URL: here + "/ok"}, task.Succeeded, "all ok é"},
		{"post", task.HTTP{URL: here + "/echo", Method: "post", Body: "hello", Headers: token}, task.Succeeded, "POST " + host + " token=s3cret hello"},
		{"host", task.HTTP{URL: here + "/echo", Headers: map[string]string{"host": "a.example"}}, task.Succeeded, "GET a.example token="},
		{"not found", task.HTTP{URL: here + "/status/404"}, task.Failed, "404 Not Found"},
		{"created", task.HTTP{URL: here + "/status/201"}, task.Succeeded, ""},
		{"not found is wanted", task.HTTP{URL: here + "/status/404", Success: "response.statusCode == 404"}, task.Succeeded, ""},
		{"body", task.HTTP{URL: here + "/ok", Success: `response.body contains "ok" && response.headers["X-Kind"] == "a"`}, task.Succeeded, "all ok"},
		{"body without it", task.HTTP{URL: here + "/ok", Success: `response.body contains "bad"`}, task.Failed, "successCondition is false"},
		{"no condition", task.HTTP{URL: here + "/ok", Success: `response.body`}, task.Errored, "neither true nor false"},
		{"too long", task.HTTP{URL: here + "/long"}, task.Errored, "more than 1000 bytes"},
		{"binary", task.HTTP{URL: here + "/binary"}, task.Errored, "not text"},
		{"cut", task.HTTP{URL: here + "/lies"}, task.Errored, "unexpected EOF"},
		{"no answer", task.HTTP{URL: here + "/never"}, task.Failed, "no whole answer within"},
		{"half an answer", task.HTTP{URL: here + "/drips"}, task.Failed, "no whole answer within"},
		{"redirected", task.HTTP{URL: here + "/same", Method: "PUT", Body: "b", Headers: token}, task.Succeeded, "PUT " + host + " token=s3cret b"},
		{"redirected away", task.HTTP{URL: here + "/other", Headers: token}, task.Succeeded, "GET " + elsewhere + " token= "},
		{"redirected in a ring", task.HTTP{URL: here + "/round"}, task.Errored, "redirected 10 times"},
		{"redirected to a file", task.HTTP{URL: here + "/file"}, task.Errored, "unsupported protocol scheme"},
		{"nobody there", task.HTTP{URL: "http://127.0.0.1:1"}, task.Errored, "refused"},
		{"no host", task.HTTP{URL: "http:///x"}, task.Errored, "say http://HOST"},
		{"a file", task.HTTP{URL: "file:///etc/passwd"}, task.Errored, "say http://HOST"},
		{"no url", task.HTTP{URL: "http://a b"}, task.Errored, "invalid character"},
		{"no method", task.HTTP{URL: here, Method: "GET\r\nX: y"}, task.Errored, "invalid method"},
		{"tunnel", task.HTTP{URL: here, Method: "CONNECT"}, task.Errored, "tunnel"},
		{"header", task.HTTP{URL: here, Headers: map[string]string{"A": "b\r\nX: y"}}, task.Errored, "invalid header"},
	} {
		t.Run(x.name, func(t *testing.T) {
			timeout := 10 * time.Second
			if strings.Contains(x.part, "within") {
				timeout = 30 * time.Millisecond
			}
			o := c.Do(t.Context(), &x.h, timeout)
			got := o.Message
			if o.Phase == task.Succeeded {
				got = *o.Outputs[task.Result].Text
			}
			if o.Phase != x.phase || !strings.Contains(got, x.part) || strings.Contains(o.Message, "s3cret") {
				t.Errorf("%s %q, want %s with %q", o.Phase, got, x.phase, x.part)
			}
		})
	}
}

func TestCanceled(t *testing.T) {
	here, _ := site(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("nobody wants it"))
	if o := New(Config{Open: true}, nil).Do(ctx, &task.HTTP{URL: here + "/ok"}, 0); o.Phase != task.Canceled || o.Message != "nobody wants it" {
		t.Errorf("%+v", o)
	}
}

// What only the server may reach is not reached through it.
func TestGuarded(t *testing.T) {
	here, _ := site(t)
	for _, u := range []string{here + "/ok", strings.Replace(here, "127.0.0.1", "localhost", 1) + "/ok", "http://169.254.169.254/latest/"} {
		if o := New(Config{}, nil).Do(t.Context(), &task.HTTP{URL: u}, 0); o.Phase != task.Errored || !strings.Contains(o.Message, "for nobody") {
			t.Errorf("%s: %+v", u, o)
		}
	}
}
