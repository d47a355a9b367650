package registry_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
)

// A row is one call and what it must answer. In paths and wanted headers, $loc
// is the last Location that was answered.
type row struct {
	name   string
	call   string // method and path
	header string // "Name: value" lines
	body   []byte

	status int
	code   string // of the error
	want   string // "Name: value" lines; an empty value: not there
	bytes  []byte // the body, when not nil
	says   string // a part of the error's message
}

func newHandler(t testing.TB, change ...func(*registry.Config)) http.Handler {
	t.Helper()
	cfg := registry.Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	for _, f := range change {
		f(&cfg)
	}
	if cfg.Content == nil {
		cfg.Content = registrytest.Store(t, registrytest.Disk(t))
	}
	return registry.New(cfg)
}

func headerLines(s string) [][2]string {
	var out [][2]string
	for line := range strings.Lines(s) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			out = append(out, [2]string{name, strings.TrimSpace(value)})
		}
	}
	return out
}

type errorBody struct {
	Errors []struct {
		Code    string
		Message string
		Detail  json.RawMessage
	}
}

// request is the row's call. loc stands for $loc.
func (r row) request(loc string) *http.Request {
	method, path, _ := strings.Cut(r.call, " ")
	q := httptest.NewRequest(method, strings.ReplaceAll(path, "$loc", loc), bytes.NewReader(r.body))
	for _, l := range headerLines(r.header) {
		q.Header.Add(l[0], l[1])
	}
	return q
}

// run makes the calls one after the other.
func run(t *testing.T, h http.Handler, rows []row) {
	t.Helper()
	loc := ""
	for _, r := range rows {
		name := r.name
		if name == "" {
			name = r.call
		}
		q := r.request(loc)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, q)
		body := rec.Body.Bytes()
		if rec.Code != r.status {
			t.Fatalf("%s: status %d, want %d; body %s", name, rec.Code, r.status, body)
		}
		if r.code != "" || rec.Code >= 400 && q.Method != "HEAD" {
			var e errorBody
			if err := json.Unmarshal(body, &e); err != nil || len(e.Errors) != 1 {
				t.Fatalf("%s: the body is no error of the protocol (%v): %s", name, err, body)
			}
			if e.Errors[0].Code != r.code {
				t.Errorf("%s: code %s, want %s", name, e.Errors[0].Code, r.code)
			}
			if m := e.Errors[0].Message; m == "" || !strings.Contains(m, r.says) {
				t.Errorf("%s: message %q does not say %q", name, m, r.says)
			}
			if got := rec.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("%s: an error of type %q", name, got)
			}
		}
		for _, l := range headerLines(r.want) {
			want := strings.ReplaceAll(l[1], "$loc", loc)
			if got := rec.Header().Get(l[0]); got != want {
				t.Errorf("%s: header %s is %q, want %q", name, l[0], got, want)
			}
		}
		if r.bytes != nil && !bytes.Equal(body, r.bytes) {
			t.Errorf("%s: body %.200q, want %.200q", name, body, r.bytes)
		}
		if l := rec.Header().Get("Location"); l != "" {
			loc = l
		}
	}
}

var (
	config   = []byte(`{"architecture":"amd64","os":"linux"}`)
	layer    = bytes.Repeat([]byte("layer "), 500)
	manifest = registrytest.Manifest(config, layer)
	empty    = []byte("{}")
)

func blobRow(repo string, b []byte) row {
	d := registrytest.Digest(b)
	return row{call: "POST /v2/" + repo + "/blobs/uploads/?digest=" + string(d), body: b, status: 201,
		want: "Location: /v2/" + repo + "/blobs/" + string(d) + "\nDocker-Content-Digest: " + string(d)}
}

// pushed is an image with its tag.
func pushed(repo, tag string) []row {
	return []row{
		blobRow(repo, config),
		blobRow(repo, layer),
		{call: "PUT /v2/" + repo + "/manifests/" + tag, header: "Content-Type: " + image.MediaTypeManifest, body: manifest, status: 201},
	}
}
