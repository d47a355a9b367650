package artifacts_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/artifacts"
	"cairn.dev/cairn/internal/work/artifacts/s3/s3test"
	"cairn.dev/cairn/internal/workflow"
)

// stored is a world with an object store.
func stored(t testing.TB) (w *world, store *s3test.Server, endpoint string) {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w = newWorld(t, artifacts.Config{AllowPrivate: true, MaxSize: 1 << 20, Secrets: []artifacts.Secret{{Name: "minio", User: "id", File: secret}, {Name: "nobody", File: secret}}})
	store = &s3test.Server{Region: "eu-1", Keys: map[string]string{"id": "s3cret"}, Public: map[string]bool{"open": true}, Now: w.clock.Now, Page: 3}
	s := httptest.NewServer(store)
	t.Cleanup(s.Close)
	return w, store, s.URL
}

// listed is what a listing gives: names, sizes, and what is read of each.
func (w *world) listed(list []workflow.Value) string {
	w.t.Helper()
	var out []string
	for _, v := range list {
		f, ok := v.(*workflow.File)
		if !ok {
			w.t.Fatalf("%T in a list of files", v)
		}
		text, err := w.read("a", task.Input{Name: f.Name, Source: f.Source})
		if err != nil {
			text = err.Error()
		}
		if int64(len(text)) != f.Size {
			w.t.Errorf("%s has %d bytes, it was listed with %d", f.Name, len(text), f.Size)
		}
		out = append(out, f.Name+"="+text)
	}
	return strings.Join(out, " ")
}

func TestObjects(t *testing.T) {
	w, store, endpoint := stored(t)
	for _, key := range []string{"logs/a.log", "logs/b.log", "logs/c.txt", "logs/deep/d.log", "logs/ü +?.log", "logs-old/e.log", "other"} {
		store.Set("data", key, "<"+key+">")
	}
	store.Set("data", "logs/deep/", "")
	store.Set("open", "x", "open")
	store.Set("data", "large", strings.Repeat("x", 1<<20+1))
	query := "?region=eu-1&secret=minio&endpoint=" + endpoint
	for name, c := range map[string]struct {
		address, match string
		limit          int
		want           string
		err            error
	}{
		"folder":       {"s3://data/logs/", "*.log", 9, "a.log=<logs/a.log> b.log=<logs/b.log> ü +?.log=<logs/ü +?.log>", nil},
		"no slash":     {"s3://data/logs", "*.log", 9, "a.log=<logs/a.log> b.log=<logs/b.log> ü +?.log=<logs/ü +?.log>", nil},
		"deep":         {"s3://data/logs/", "**/d.log", 9, "d.log=<logs/deep/d.log>", nil},
		"all":          {"s3://data/logs/", "", 9, "a.log=<logs/a.log> b.log=<logs/b.log> c.txt=<logs/c.txt> d.log=<logs/deep/d.log> ü +?.log=<logs/ü +?.log>", nil},
		"in a part":    {"s3://data/logs-", "logs-*/*", 9, "e.log=<logs-old/e.log>", nil},
		"a bucket":     {"s3://data", "o*", 9, "other=<other>", nil},
		"nothing":      {"s3://data/none/", "", 9, "", nil},
		"just enough":  {"s3://data/logs/", "", 5, "a.log=<logs/a.log> b.log=<logs/b.log> c.txt=<logs/c.txt> d.log=<logs/deep/d.log> ü +?.log=<logs/ü +?.log>", nil},
		"too many":     {"s3://data/logs/", "", 4, "", artifacts.ErrTooLarge},
		"no bucket":    {"s3://none/x", "", 9, "", artifacts.ErrNotFound},
		"no address":   {"data/logs", "", 9, "", artifacts.ErrInvalid},
		"bad bucket":   {"s3://d/", "", 9, "", artifacts.ErrInvalid},
		"endless glob": {"s3://data/", strings.Repeat("*", 999), 9, "", artifacts.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := w.List(t.Context(), "a", nil, c.address+query, c.match, c.limit)
			is(t, err, c.err)
			if got := w.listed(list); got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
	for name, c := range map[string]struct {
		src  task.Source
		want string
		err  error
	}{
		"by fields":     {task.Source{URL: "data", Key: "other", Endpoint: endpoint, Region: "eu-1", Secret: "minio"}, "<other>", nil},
		"by address":    {task.Source{URL: "s3://data/other" + query}, "<other>", nil},
		"anonymous":     {task.Source{URL: "open", Key: "x", Endpoint: endpoint}, "open", nil},
		"twice":         {task.Source{URL: "s3://data/other" + query, Key: "x"}, "", artifacts.ErrInvalid},
		"unknown query": {task.Source{URL: "s3://data/other?acl"}, "", artifacts.ErrInvalid},
		"not there":     {task.Source{URL: "s3://data/none" + query}, "", artifacts.ErrNotFound},
		"not allowed":   {task.Source{URL: "data", Key: "other", Endpoint: endpoint}, "", artifacts.ErrRefused},
		"wrong region":  {task.Source{URL: "data", Key: "other", Endpoint: endpoint, Secret: "minio"}, "", artifacts.ErrRefused},
		"no secret":     {task.Source{URL: "data", Key: "other", Endpoint: endpoint, Secret: "none"}, "", artifacts.ErrInvalid},
		"no ID":         {task.Source{URL: "data", Key: "other", Endpoint: endpoint, Secret: "nobody"}, "", artifacts.ErrInvalid},
		"no key":        {task.Source{URL: "data", Endpoint: endpoint}, "", artifacts.ErrInvalid},
		"too large":     {task.Source{URL: "s3://data/large" + query}, "", artifacts.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			c.src.Kind = "s3"
			got, err := w.read("a", task.Input{Source: &c.src})
			if is(t, err, c.err); got != c.want && c.err == nil {
				t.Errorf("%q, want %q", got, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Error("the secret is told")
			}
		})
	}
	_, err := w.List(t.Context(), "a", nil, 7, "", 9)
	is(t, err, artifacts.ErrInvalid)
}

func TestFolders(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"in/a.csv": "a", "in/b.csv": "bb", "in/c.txt": "c", "in/d/e.csv": "e", "secret/x.csv": "x"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("../secret", filepath.Join(dir, "in/out")), os.Symlink("a.csv", filepath.Join(dir, "in/z.csv"))); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "in")
	w := newWorld(t, artifacts.Config{FileRoots: []string{root}})
	for _, c := range []struct {
		name, match string
		limit       int
		want        string
		err         error
	}{
		{root, "*.csv", 9, "a.csv=a b.csv=bb", nil}, {root + "/", "**.csv", 9, "a.csv=a b.csv=bb e.csv=e", nil}, {root + "/d", "", 9, "e.csv=e", nil},
		{root, "", 9, "a.csv=a b.csv=bb c.txt=c e.csv=e", nil}, {root, "", 3, "", artifacts.ErrTooLarge},
		{root + "/out", "", 9, "", artifacts.ErrRefused}, {root + "/../secret", "", 9, "", artifacts.ErrRefused}, {root + "/none", "", 9, "", artifacts.ErrNotFound},
		{root + "/a.csv", "", 9, "", artifacts.ErrInvalid}, {dir, "", 9, "", artifacts.ErrRefused}, {"in", "", 9, "", artifacts.ErrRefused},
	} {
		list, err := w.List(t.Context(), "a", c.name, nil, c.match, c.limit)
		is(t, err, c.err)
		if got := w.listed(list); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.name, c.match, got, c.want)
		}
	}
	_, err := newWorld(t, artifacts.Config{}).List(t.Context(), "a", root, nil, "", 9)
	if is(t, err, artifacts.ErrRefused); err != nil && !strings.Contains(err.Error(), "work.folders") {
		t.Errorf("no cure: %v", err)
	}
}

// tarOf makes a tar of NAME=TEXT; NAME/ is a folder, NAME>TO a link, NAME>>TO a
// hard one.
func tarOf(entries ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		name, text, _ := strings.Cut(e, "=")
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		} else if at, to, ok := strings.Cut(name, ">>"); ok {
			h.Name, h.Linkname, h.Typeflag = at, to, tar.TypeLink
		} else if at, to, ok := strings.Cut(name, ">"); ok {
			h.Name, h.Linkname, h.Typeflag = at, to, tar.TypeSymlink
		}
		_ = w.WriteHeader(h)
		_, _ = io.WriteString(w, text)
	}
	_ = w.Close()
	return b.Bytes()
}

func zipOf(entries ...string) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		name, text, _ := strings.Cut(e, "=")
		f, _ := w.Create(name)
		_, _ = io.WriteString(f, text)
	}
	_ = w.Close()
	return b.Bytes()
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return out.Bytes()
}

// untar is the opposite of tarOf.
func untar(t testing.TB, r io.Reader) string {
	t.Helper()
	var out []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return strings.Join(out, " ")
		}
		if err != nil {
			return err.Error()
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			return err.Error()
		}
		e := h.Name
		switch h.Typeflag {
		case tar.TypeReg:
			e += "=" + string(b)
		case tar.TypeSymlink:
			e += ">" + h.Linkname
		case tar.TypeLink:
			e += ">>" + h.Linkname
		}
		out = append(out, e)
	}
}

func TestParts(t *testing.T) {
	w := newWorld(t, artifacts.Config{})
	plain := tarOf("a.csv=a", "d/", "d/b.csv=bb", "d/c/e.csv=e", "d/l>b.csv", "d/h>>d/b.csv", "o/h>>d/b.csv", "../up=x", "/abs=x", "a.csv=later", "l>a.csv")
	for name, bytes := range map[string][]byte{"plain": plain, "gzip": gz(plain)} {
		t.Run(name, func(t *testing.T) {
			p := w.put("a", string(bytes))
			folder := &workflow.File{Digest: p.Digest, Folder: true}
			for match, want := range map[string]string{"*.csv": "a.csv=later", "": "a.csv=later e.csv=e b.csv=bb", "d/*": "b.csv=bb"} {
				list, err := w.List(t.Context(), "a", folder, nil, match, 9)
				if err != nil {
					t.Fatal(err)
				}
				got := strings.Split(w.listed(list), " ")
				wanted := strings.Split(want, " ")
				slices.Sort(got)
				slices.Sort(wanted)
				if !slices.Equal(got, wanted) {
					t.Errorf("%s: %v, want %v", match, got, wanted)
				}
				for _, v := range list { // another run does not get there
					_, err := w.read("b", task.Input{Source: v.(*workflow.File).Source})
					is(t, err, artifacts.ErrNotFound)
				}
			}
			_, err := w.List(t.Context(), "a", folder, nil, "", 2)
			is(t, err, artifacts.ErrTooLarge)
			_, err = w.List(t.Context(), "b", folder, nil, "", 9)
			is(t, err, artifacts.ErrNotFound)
			for key, c := range map[string]struct {
				want   string
				folder bool
				err    error
			}{
				"d/b.csv": {"bb", false, nil}, "./d//b.csv": {"bb", false, nil}, "d/c": {"e.csv=e", true, nil},
				"d/l": {"", false, artifacts.ErrInvalid}, "none": {"", false, artifacts.ErrNotFound}, "d/b": {"", false, artifacts.ErrNotFound}, "../up": {"", false, artifacts.ErrInvalid},
				"/abs": {"", false, artifacts.ErrInvalid}, "": {"", false, artifacts.ErrInvalid},
			} {
				f, err := w.Fetch(t.Context(), "a", task.Input{Source: &task.Source{Kind: "part", URL: p.Digest, Key: key}})
				if is(t, err, c.err); err != nil {
					continue
				}
				got := ""
				if f.Folder {
					got = untar(t, f)
				} else if b, err := io.ReadAll(f); err == nil {
					got = string(b)
				}
				f.Close()
				if got != c.want || f.Folder != c.folder {
					t.Errorf("%s: %q (folder %v), want %q", key, got, f.Folder, c.want)
				}
			}
		})
	}
	in := task.Input{Source: &task.Source{Kind: "part", URL: w.put("a", string(plain)).Digest, Key: "d"}}
	f, err := w.Fetch(t.Context(), "a", in)
	if err != nil {
		t.Fatal(err)
	}
	if got := untar(t, f); got != "b.csv=bb c/e.csv=e l>b.csv h>>b.csv" {
		t.Errorf("%s", got)
	}
	f.Close()
	for _, revision := range []string{"99999999+1", "0+99999999", "9223372036854775807+9223372036854775807"} {
		in.Source.Revision = revision
		_, err := w.read("a", in)
		is(t, err, artifacts.ErrInvalid)
	}
	for _, v := range []*workflow.File{{Digest: w.put("a", "no tar at all").Digest, Folder: true}, {Digest: w.put("a", "file").Digest}, {Digest: w.put("a", "\x1f\x8bno gzip").Digest, Folder: true}} {
		_, err = w.List(t.Context(), "a", v, nil, "", 9)
		is(t, err, artifacts.ErrInvalid)
	}
}

// Whatever a tar says, a listing gives files that lie in it.
func FuzzParts(f *testing.F) {
	w := newWorld(f, artifacts.Config{MaxSize: 1 << 20})
	f.Add(tarOf("a=1", "d/", "d/b=2", "l>a", "h>>a"))
	f.Add(gz(tarOf("a=1")))
	f.Add([]byte("no tar"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := w.Store.Store(t.Context(), "a", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		list, err := w.List(t.Context(), "a", &workflow.File{Digest: p.Digest, Folder: true}, nil, "", 100)
		if err != nil {
			return
		}
		for _, v := range list {
			file := v.(*workflow.File)
			r, err := w.Fetch(t.Context(), "a", task.Input{Source: file.Source})
			if err != nil {
				if file.Source.Revision != "" && !artifacts.Permanent(err) {
					t.Errorf("%+v: %v", file.Source, err)
				}
				continue
			}
			_, _ = io.Copy(io.Discard, r)
			r.Close()
		}
	})
}
