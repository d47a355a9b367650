package artifacts_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/artifacts"
)

func TestArchives(t *testing.T) {
	w, store, endpoint := stored(t)
	for name, c := range map[string]struct {
		bytes  []byte
		want   string
		folder bool
		err    error
	}{
		"text":              {[]byte("just text"), "just text", false, nil},
		"empty":             {nil, "", false, nil},
		"gzip of a text":    {gz([]byte("text")), string(gz([]byte("text"))), false, nil},
		"tar":               {tarOf("a=1", "b/c=2"), "a=1 b/c=2", true, nil},
		"tgz":               {gz(tarOf("a=1", "b/c=2")), "a=1 b/c=2", true, nil},
		"zip":               {zipOf("a=1", "b/c=2"), "a=1 b/c=2", true, nil},
		"tgz of a file":     {gz(tarOf("a=1")), "1", false, nil},
		"tgz of a folder":   {gz(tarOf("./", "./d/", "./d/a=1", "./d/b=2")), "a=1 b=2", true, nil},
		"zip of a file":     {zipOf("a=1"), "1", false, nil},
		"looks like a zip":  {[]byte("PK\x03\x04 no"), "", false, artifacts.ErrInvalid},
		"zip bomb":          {zipOf("a=" + strings.Repeat("0", 3<<20)), "", false, artifacts.ErrTooLarge},
		"tgz bomb":          {gz(tarOf("a=" + strings.Repeat("0", 3<<20))), "", false, artifacts.ErrTooLarge},
		"tar that ends":     {gz(tarOf("a=" + strings.Repeat("0", 2000)))[:60], "", false, io.ErrUnexpectedEOF},
		"more than a head":  {tarOf("a="+strings.Repeat("1", 100_000), "b=2"), "a=" + strings.Repeat("1", 100_000) + " b=2", true, nil},
		"text, no tar long": {[]byte(strings.Repeat("text", 50_000)), strings.Repeat("text", 50_000), false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			store.Set("open", name, string(c.bytes))
			src := &task.Source{Kind: "s3", URL: "open", Key: name, Endpoint: endpoint}
			if got, err := w.read("a", task.Input{Source: src}); err != nil || got != string(c.bytes) {
				t.Errorf("as it is: %d bytes, %v", len(got), err)
			}
			for archive, asIs := range map[string]bool{"tar": !strings.Contains(name, "tgz") && name != "tar that ends", "zip": !strings.Contains(name, "zip") || name == "gzip of a text"} {
				src.Archive = archive
				if got, err := w.read("a", task.Input{Source: src}); asIs && (err != nil || got != string(c.bytes)) {
					t.Errorf("as %s: %.100q, %v", archive, got, err)
				}
			}
			src.Archive = "auto"
			f, err := w.Fetch(t.Context(), "a", task.Input{Source: src})
			if err == nil {
				defer f.Close()
				got := ""
				if f.Folder {
					got = untar(t, f)
				} else {
					var b []byte
					b, err = io.ReadAll(f)
					got = string(b)
				}
				if c.err == nil && (got != c.want || f.Folder != c.folder) {
					t.Errorf("%.200q (folder %v), want %.200q (folder %v)", got, f.Folder, c.want, c.folder)
				}
			}
			is(t, err, c.err)
		})
	}
}

func TestDeliver(t *testing.T) {
	w, store, endpoint := stored(t)
	store.Set("data", "seed", "")
	var got, method string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, method = string(b), fmt.Sprint(r.Method, " ", r.ContentLength, " ", r.Header.Get("X-Token"))
		switch r.URL.Path {
		case "/no":
			w.WriteHeader(http.StatusForbidden)
		case "/moved":
			http.Redirect(w, r, "/else", http.StatusTemporaryRedirect)
		default:
			w.WriteHeader(http.StatusCreated)
		}
	}))
	defer s.Close()
	file, empty, folder := w.put("a", "file"), w.put("a", ""), w.put("a", string(tarOf("a=1", "b/", "b/c=2")))
	folder.Folder = true
	s3 := func(key string) *task.Source {
		return &task.Source{Kind: "s3", URL: "data", Key: key, Endpoint: endpoint, Region: "eu-1", Secret: "minio"}
	}
	deliver := func(archive string, to *task.Source, p task.Produced) error {
		return w.Deliver(t.Context(), "a", task.Output{Name: "out", Path: "/tmp/name.txt", Archive: archive, To: to}, p)
	}
	object := func(key string) string {
		t.Helper()
		b, ok := store.Object("data", key)
		if !ok {
			t.Errorf("there is no %s", key)
		}
		return b
	}
	unzip := func(b string) string {
		t.Helper()
		z, err := gzip.NewReader(strings.NewReader(b))
		if err != nil {
			t.Error(err)
			return ""
		}
		return untar(t, z)
	}
	for name, err := range map[string]error{
		"nowhere":        deliver("", nil, file),
		"file":           deliver("", s3("file"), file),
		"empty":          deliver("none", s3("empty"), empty),
		"file, packed":   deliver("tar", s3("file.tgz"), file),
		"file, zip":      deliver("zip", s3("file.zip"), file),
		"folder":         deliver("", s3("folder.tgz"), folder),
		"folder, zip":    deliver("zip", s3("folder.zip"), folder),
		"folder, plain":  deliver("none", s3("folder/"), folder),
		"by its address": deliver("", &task.Source{Kind: "s3", URL: "s3://data/address?region=eu-1&secret=minio&endpoint=" + endpoint}, file),
		"http":           deliver("", &task.Source{Kind: "http", URL: s.URL, Headers: map[string]string{"X-Token": "t"}}, file),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got != "file" || method != "PUT 4 t" {
		t.Errorf("http: %q %s", got, method)
	}
	if a, b, c := object("file"), object("empty"), object("address"); a != "file" || b != "" || c != "file" {
		t.Errorf("%q %q %q", a, b, c)
	}
	if a, b := unzip(object("file.tgz")), unzip(object("folder.tgz")); a != "name.txt=file" || b != "a=1 b/ b/c=2" {
		t.Errorf("%q %q", a, b)
	}
	if a, b := object("folder/a"), object("folder/b/c"); a != "1" || b != "2" {
		t.Errorf("%q %q", a, b)
	}
	for key, want := range map[string]string{"file.zip": "name.txt=file", "folder.zip": "a=1 b/ b/c=2"} {
		src := s3(key)
		b := object(key)
		z, err := zip.NewReader(strings.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err, src)
		}
		var out []string
		for _, f := range z.File {
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(r)
			if !strings.HasSuffix(f.Name, "/") {
				text = append([]byte("="), text...)
			}
			out = append(out, f.Name+string(text))
		}
		if got := strings.Join(out, " "); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	for name, c := range map[string]struct{ err, want error }{
		"another run's":     {w.Deliver(t.Context(), "b", task.Output{To: s3("x")}, file), artifacts.ErrNotFound},
		"no bucket":         {deliver("", &task.Source{Kind: "s3", URL: "none", Key: "x", Endpoint: endpoint, Region: "eu-1", Secret: "minio"}, file), artifacts.ErrNotFound},
		"not signed":        {deliver("", &task.Source{Kind: "s3", URL: "data", Key: "x", Endpoint: endpoint}, file), artifacts.ErrRefused},
		"folder, http":      {deliver("none", &task.Source{Kind: "http", URL: s.URL}, folder), artifacts.ErrInvalid},
		"unknown archive":   {deliver("rar", s3("x"), file), artifacts.ErrInvalid},
		"git":               {deliver("", &task.Source{Kind: "git", URL: s.URL}, file), artifacts.ErrInvalid},
		"refused by http":   {deliver("", &task.Source{Kind: "http", URL: s.URL + "/no"}, file), artifacts.ErrRefused},
		"redirected":        {deliver("", &task.Source{Kind: "http", URL: s.URL + "/moved"}, file), artifacts.ErrRefused},
		"a folder that not": {deliver("zip", s3("x"), task.Produced{Digest: file.Digest, Folder: true}), artifacts.ErrInvalid},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}

	// Over the wire, as a worker does.
	held := task.Ref{Run: "a", Task: "1", Attempt: 1, Token: "t"}
	h := w.Handler(func(r task.Ref) bool { return r == held }, nil)
	for _, c := range []struct {
		out  task.Output
		code int
	}{{task.Output{Name: "out", Path: "/x", To: s3("wire.tgz")}, 200}, {task.Output{Name: "out", To: &task.Source{Kind: "s3", URL: "none", Key: "x", Endpoint: endpoint}}, 403}} {
		b, err := json.Marshal(c.out)
		if err != nil {
			t.Fatal(err)
		}
		req := httptest.NewRequest("POST", task.PathBlob, bytes.NewReader(tarOf("over=the wire")))
		req.Header.Set(task.HeaderLease, held.Header())
		req.Header.Set(task.HeaderOutput, base64.RawURLEncoding.EncodeToString(b))
		req.Header.Set(task.HeaderFolder, "true")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		var p task.Produced
		if err := json.Unmarshal(rec.Body.Bytes(), &p); rec.Code != c.code || rec.Code == 200 && (err != nil || !p.Folder || p.Digest == "") {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
	}
	if got := unzip(object("wire.tgz")); got != "over=the wire" {
		t.Errorf("%q", got)
	}
}
