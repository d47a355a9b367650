package published

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/test/program"
)

// Elsewhere stands in for what examples name that is not here. Whoever runs them
// where this computer has another address says so in URL and Store.
type Elsewhere struct {
	URL     string // of a web server
	Store   string // HOST:PORT of an object store; "" for none
	Buckets string // the folder that is that store
}

// Internet is a web server that answers whatever examples ask, until the test
// ends.
func Internet(t testing.TB) Elsewhere {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/kubectl"):
			fmt.Fprint(w, "#!/bin/sh\necho a stand-in\n")
		case strings.HasSuffix(r.URL.Path, "/slow"):
			<-r.Context().Done()
		case strings.Contains(r.URL.Path, "thisisnotahash"):
			http.NotFound(w, r)
		default:
			fmt.Fprint(w, `{"ok": true}`)
		}
	}))
	t.Cleanup(s.Close)
	return Elsewhere{URL: s.URL}
}

// The account and the place of the object store.
const (
	storeUser   = "id"
	storeSecret = "s3cret-key"
	storeRegion = "us-west-2"
)

// Objects starts an object store with the objects that examples read.
func (e *Elsewhere) Objects(t testing.TB) {
	t.Helper()
	e.Buckets = t.TempDir()
	for name, text := range map[string]string{"my-bucket-name/path/in/bucket": "hello\n", "your-bucket-name/input-file/upload.zip": "hello\n", "my-bucket/.keep": ""} {
		file := filepath.Join(e.Buckets, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e.Store = program.Objects(t, e.Buckets, storeRegion, storeUser, storeSecret)
}

// Secrets are the server's accounts at the object store, by the names that
// examples give them.
func Secrets(t testing.TB) (all []config.WorkSecret) {
	t.Setenv("CAIRN_TEST_STORE_SECRET", storeSecret)
	for _, name := range []string{"my-s3-credentials", "s3-creds"} {
		all = append(all, config.WorkSecret{Name: name, Username: storeUser, Env: "CAIRN_TEST_STORE_SECRET"})
	}
	return all
}

var amazon = regexp.MustCompile(`(?m)^( *)endpoint: s3\.amazonaws\.com *\n`)

// Replace writes the stand-ins where a document names others.
func (e Elsewhere) Replace(doc []byte) []byte {
	doc = amazon.ReplaceAll(doc, []byte("${1}endpoint: "+e.Store+"\n${1}insecure: true\n"))
	return []byte(strings.NewReplacer("http://127.0.0.1:1/", e.URL+"/", "https://raw.githubusercontent.com", e.URL, "https://storage.googleapis.com", e.URL,
		"YOUR_WEBHOOK_URL_HERE", e.URL, "region: us-east-1", "region: "+storeRegion).Replace(string(doc)))
}
