package artifacts_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/upstream"
	"cairn.dev/cairn/internal/work/artifacts"
)

func get(url string) task.Input {
	return task.Input{Name: "in", Source: &task.Source{Kind: "http", URL: url}}
}

func TestHTTP(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("pass word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var seen http.Header
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		io.WriteString(w, "elsewhere")
	}))
	defer other.Close()
	stop := make(chan struct{})
	mux := http.NewServeMux()
	s := httptest.NewServer(mux)
	defer s.Close()
	defer close(stop)
	answer := func(path string, f http.HandlerFunc) { mux.HandleFunc(path, f) }
	answer("/file", func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		io.WriteString(w, "bytes")
	})
	answer("/gz", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		io.WriteString(w, "as it is")
	})
	for path, code := range map[string]int{"/gone": 410, "/no": 403, "/sign": 401, "/busy": 429, "/down": 503, "/part": 206, "/empty": 204} {
		answer(path, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) })
	}
	answer("/large", func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 2000)) })
	answer("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 512)); err != nil {
				return
			}
		}
	})
	answer("/short", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "short")
	})
	answer("/long", func(w http.ResponseWriter, r *http.Request) {
		c, b, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		b.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlonger than it said")
		b.Flush()
	})
	answer("/stall", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "begin")
		w.(http.Flusher).Flush()
		<-stop
	})
	answer("/mute", func(w http.ResponseWriter, r *http.Request) { <-stop })
	for path, to := range map[string]string{"/to": "/file", "/loop": "/loop", "/away": other.URL, "/scheme": "ftp://x/y", "/nowhere": "http://127.0.0.1:1/"} {
		answer(path, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) })
	}
	host := strings.TrimPrefix(s.URL, "http://")
	w := newWorld(t, artifacts.Config{AllowPrivate: true, MaxSize: 1000, Stall: 200 * time.Millisecond, Secrets: []artifacts.Secret{
		{Name: "basic", User: "me", File: secret, Hosts: []string{host}},
		{Name: "bearer", File: secret, Hosts: []string{host}},
		{Name: "elsewhere", File: secret, Hosts: []string{"example.org"}},
		{Name: "none", Env: "NO_SUCH_VARIABLE", Hosts: []string{host}},
	}})
	passing := errors.New("one that may pass")
	for path, c := range map[string]struct {
		want string
		err  error
	}{
		"/file": {"bytes", nil}, "/gz": {"as it is", nil}, "/to": {"bytes", nil}, "/away": {"elsewhere", nil}, "/long": {"long", nil},
		"/missing": {"", artifacts.ErrNotFound}, "/gone": {"", artifacts.ErrNotFound},
		"/no": {"", artifacts.ErrRefused}, "/sign": {"", artifacts.ErrRefused}, "/part": {"", artifacts.ErrRefused}, "/empty": {"", artifacts.ErrRefused},
		"/busy": {"", passing}, "/down": {"", passing}, "/nowhere": {"", passing}, "/mute": {"", passing},
		"/large": {"", artifacts.ErrTooLarge}, "/endless": {"", artifacts.ErrTooLarge},
		"/short": {"", io.ErrUnexpectedEOF}, "/stall": {"", upstream.ErrStalled},
		"/loop": {"", artifacts.ErrRefused}, "/scheme": {"", passing},
	} {
		got, err := w.read("a", get(s.URL+path))
		if c.err == nil && (err != nil || got != c.want) {
			t.Errorf("%s: %q %v, want %q", path, got, err, c.want)
		}
		wanted := errors.Is(err, c.err)
		if c.err == passing {
			wanted = err != nil && !artifacts.Permanent(err)
		}
		if !wanted {
			t.Errorf("%s: %v, want %v", path, err, c.err)
		}
	}
	for _, bad := range []string{"", "ftp://x", "file:///etc/passwd", "http://", "https:opaque", "/path", "http://" + strings.Repeat("x", 9000)} {
		_, err := w.read("a", get(bad))
		is(t, err, artifacts.ErrInvalid)
	}

	// What a user writes into headers goes to the host he wrote, and the
	// server's own secrets to those they are for.
	with := func(path, secret string, headers map[string]string) (string, error) {
		in := get(s.URL + path)
		in.Source.Secret, in.Source.Headers = secret, headers
		seen = nil
		return w.read("a", in)
	}
	if _, err := with("/file", "basic", map[string]string{"X-Token": "t"}); err != nil || seen.Get("X-Token") != "t" || seen.Get("Authorization") != "Basic bWU6cGFzcyB3b3Jk" {
		t.Errorf("%v %v", seen, err)
	}
	if _, err := with("/file", "bearer", nil); err != nil || seen.Get("Authorization") != "Bearer pass word" {
		t.Errorf("%v %v", seen, err)
	}
	if _, err := with("/away", "basic", map[string]string{"X-Token": "t", "Cookie": "c"}); err != nil || seen.Get("X-Token") != "" || seen.Get("Authorization") != "" || seen.Get("Cookie") != "" {
		t.Errorf("headers of another host: %v %v", seen, err)
	}
	_, err := with("/file", "elsewhere", nil)
	is(t, err, artifacts.ErrRefused)
	_, err = with("/file", "unknown", nil)
	is(t, err, artifacts.ErrInvalid)
	if _, err = with("/file", "none", nil); err == nil {
		t.Error("an empty secret was used")
	}
	for _, h := range []string{"Host", "content-length", "Range"} {
		_, err = with("/file", "", map[string]string{h: "1"})
		is(t, err, artifacts.ErrInvalid)
	}
	if _, err = with("/file", "", map[string]string{"a b": "1"}); err == nil {
		t.Error("a header with a space was sent")
	}
}

// A server that anybody reaches fetches nothing that only it can reach.
func TestPrivateAddresses(t *testing.T) {
	var asked int
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		io.WriteString(w, "secret")
	}))
	defer inside.Close()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(inside.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, artifacts.Config{Stall: time.Second})
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254"} {
		_, err := w.read("a", get("http://"+host+":"+port+"/latest/meta-data?token=hidden"))
		is(t, err, artifacts.ErrRefused)
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("the error repeats what may be a secret: %v", err)
		}
	}
	if asked > 0 {
		t.Errorf("it was asked %d times", asked)
	}
}

// nowhere is a host that no resolver has to be asked for: no name has such a
// label (RFC 1035 section 2.3.4).
var nowhere = strings.Repeat("a", 64) + ".example"

func TestNoSuchHost(t *testing.T) {
	for _, private := range []bool{false, true} {
		w := newWorld(t, artifacts.Config{AllowPrivate: private, Stall: time.Second})
		for _, from := range []task.Source{
			{Kind: "http", URL: "http://" + nowhere + "/file?token=hidden"},
			{Kind: "s3", URL: "s3://bucket/key?endpoint=https://" + nowhere},
			{Kind: "git", URL: "https://" + nowhere + "/repo.git"},
		} {
			_, err := w.read("a", task.Input{Name: "in", Source: &from})
			is(t, err, artifacts.ErrNotFound)
			if err != nil && (!strings.Contains(err.Error(), nowhere) || strings.Contains(err.Error(), "hidden")) {
				t.Errorf("%s: it does not say which host there is not, or too much: %v", from.Kind, err)
			}
		}
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "data")
	for name, text := range map[string]string{"data/in": "in", "data/d/deep": "deep", "secret": "secret", "database": "other"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for at, to := range map[string]string{"out": "../secret", "abs": filepath.Join(dir, "secret"), "within": "d/deep"} {
		if err := os.Symlink(to, filepath.Join(root, at)); err != nil {
			t.Fatal(err)
		}
	}
	w, none := newWorld(t, artifacts.Config{FileRoots: []string{root + "/"}}), newWorld(t, artifacts.Config{})
	for name, c := range map[string]struct {
		want string
		err  error
	}{
		root + "/in": {"in", nil}, root + "/d/deep": {"deep", nil}, root + "/d/../in": {"in", nil}, root + "/within": {"deep", nil},
		root + "/none": {"", artifacts.ErrNotFound}, root + "/d": {"", artifacts.ErrInvalid}, root: {"", artifacts.ErrInvalid},
		root + "/out": {"", artifacts.ErrRefused}, root + "/abs": {"", artifacts.ErrRefused}, root + "/../secret": {"", artifacts.ErrRefused},
		dir + "/database": {"", artifacts.ErrRefused}, "data/in": {"", artifacts.ErrRefused}, "/etc/passwd": {"", artifacts.ErrRefused}, "": {"", artifacts.ErrRefused},
	} {
		in := task.Input{Source: &task.Source{Kind: "file", URL: name}}
		got, err := w.read("a", in)
		if is(t, err, c.err); c.err == nil && got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		_, err = none.read("a", in)
		is(t, err, artifacts.ErrRefused)
	}
}

func TestDoor(t *testing.T) {
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			io.WriteString(w, strings.Repeat("source ", 20_000))
		case "/short":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "short")
		case "/late":
			w.Header().Set("Content-Length", "1000000")
			w.Write(make([]byte, 100_000))
		default:
			w.WriteHeader(404)
		}
	}))
	defer files.Close()
	w := newWorld(t, artifacts.Config{AllowPrivate: true, MaxSize: 10 << 20})
	held := task.Ref{Run: "a", Task: "1", Attempt: 1, Token: "t"}
	other := held
	other.Run = "b"
	lost := held
	lost.Token = "old"
	guard := func(r *http.Request) (int, error) {
		if r.Header.Get("Authorization") != "Bearer worker" {
			return http.StatusUnauthorized, errors.New("who are you?")
		}
		return 0, nil
	}
	s := httptest.NewServer(w.Handler(func(r task.Ref) bool { return r == held || r == other }, guard))
	defer s.Close()
	do := func(method, path string, holder task.Ref, body string, headers ...string) (int, string, error) {
		req, err := http.NewRequestWithContext(context.Background(), method, s.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer worker")
		req.Header.Set(task.HeaderLease, holder.Header())
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	code, body, _ := do("POST", task.PathBlob, held, "0123456789")
	var p task.Produced
	if err := json.Unmarshal([]byte(body), &p); code != 200 || err != nil || p.Size != 10 {
		t.Fatalf("%d %s", code, body)
	}
	input := func(path string) string {
		b, err := json.Marshal(get(files.URL + path))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, c := range map[string]struct {
		method, path string
		holder       task.Ref
		body         string
		headers      []string
		code         int
		want         string
	}{
		"blob":             {"GET", task.PathBlob + p.Digest, held, "", nil, 200, "0123456789"},
		"range":            {"GET", task.PathBlob + p.Digest, held, "", []string{"Range", "bytes=3-5"}, 206, "345"},
		"bad range":        {"GET", task.PathBlob + p.Digest, held, "", []string{"Range", "bytes=30-"}, 416, ""},
		"not its own":      {"GET", task.PathBlob + p.Digest, other, "", nil, 404, ""},
		"no digest":        {"GET", task.PathBlob + "sha256:0", held, "", nil, 422, ""},
		"lost lease":       {"GET", task.PathBlob + p.Digest, lost, "", nil, 409, ""},
		"store, lost":      {"POST", task.PathBlob, lost, "x", nil, 409, ""},
		"no lease":         {"GET", task.PathBlob + p.Digest, held, "", []string{task.HeaderLease, "?"}, 400, ""},
		"guarded":          {"GET", task.PathBlob + p.Digest, held, "", []string{"Authorization", ""}, 401, ""},
		"source":           {"POST", task.PathArtifact, held, input("/ok"), nil, 200, strings.Repeat("source ", 20_000)},
		"source not there": {"POST", task.PathArtifact, held, input("/none"), nil, 404, ""},
		"source cut off":   {"POST", task.PathArtifact, held, input("/short"), nil, 502, ""},
		"source, no JSON":  {"POST", task.PathArtifact, held, "no", nil, 422, ""},
		"source, lost":     {"POST", task.PathArtifact, lost, input("/ok"), nil, 409, ""},
		"no source":        {"POST", task.PathArtifact, held, `{"source":{"kind":"tape"}}`, nil, 422, ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, body, err := do(c.method, c.path, c.holder, c.body, c.headers...)
			if err != nil || code != c.code || c.want != "" && body != c.want {
				t.Errorf("%d %.200s %v, want %d %.80s", code, body, err, c.code, c.want)
			}
		})
	}
	// What ends in the middle must not look whole.
	if code, body, err := do("POST", task.PathArtifact, held, input("/late")); code != 200 || err == nil {
		t.Errorf("%d, %d bytes, %v", code, len(body), err)
	}
	// A large one is not held in memory, and comes as it was.
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if _, body, _ = do("POST", task.PathBlob, held, string(large)); json.Unmarshal([]byte(body), &p) != nil || p.Size != int64(len(large)) {
		t.Errorf("%s", body)
	}
	if _, body, err := do("GET", task.PathBlob+p.Digest, held, ""); err != nil || body != string(large) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

// A program that got hold of its worker's lease reads nothing but what its task
// was given, and writes nowhere else.
func TestNamedPlaces(t *testing.T) {
	asked := 0
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		io.WriteString(w, "bytes")
	}))
	defer site.Close()
	at := func(path string) *task.Source {
		return &task.Source{Kind: "http", URL: site.URL + path, Headers: map[string]string{"A": "b"}}
	}
	w := newWorld(t, artifacts.Config{})
	held := task.Ref{Run: "a", Task: "1", Attempt: 1, Token: "t"}
	gone := errors.New("gone")
	s := w.open(artifacts.Config{AllowPrivate: true}, func(_ context.Context, r task.Ref) (*task.Task, error) {
		if r != held {
			return nil, gone
		}
		return &task.Task{Inputs: []task.Input{{Content: []byte("x")}, {Source: at("/in")}}, Outputs: []task.Output{{}, {To: at("/out")}}}, nil
	})
	h := s.Handler(func(task.Ref) bool { return true }, nil)
	other := held
	other.Attempt = 2
	for _, c := range []struct {
		holder task.Ref
		path   string
		at     *task.Source
		code   int
	}{
		{held, task.PathArtifact, at("/in"), 200}, {held, task.PathArtifact, at("/out"), 403}, {held, task.PathArtifact, at("/else"), 403}, {other, task.PathArtifact, at("/in"), 502},
		{held, task.PathBlob, at("/out"), 200}, {held, task.PathBlob, at("/in"), 403}, {held, task.PathBlob, at("/else"), 403}, {other, task.PathBlob, at("/out"), 502},
		{held, task.PathBlob, nil, 200}, {held, task.PathArtifact, nil, 422},
	} {
		marshal := func(v any) []byte {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		before := asked
		req := httptest.NewRequest("POST", c.path, bytes.NewReader(marshal(task.Input{Source: c.at, Digest: "sha256:0"})))
		req.Header.Set(task.HeaderLease, c.holder.Header())
		req.Header.Set(task.HeaderOutput, base64.RawURLEncoding.EncodeToString(marshal(task.Output{To: c.at})))
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		if rec.Code != c.code || (asked > before) != (c.code == 200 && c.at != nil) {
			t.Errorf("%s %v of attempt %d: %d %s, asked %d times", c.path, c.at, c.holder.Attempt, rec.Code, rec.Body, asked-before)
		}
	}
}
