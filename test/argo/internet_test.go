package argo

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/test/parts"
)

// elsewhere stands in for what examples name that is not here.
type elsewhere struct {
	url     string // a web server
	store   string // HOST:PORT of an object store; "" for none
	buckets string // the folder that is that store
}

// internet is a web server that answers whatever examples ask.
func internet(t *testing.T) elsewhere {
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
	return elsewhere{url: s.URL}
}

// The account and the place of the object store.
const (
	storeUser   = "id"
	storeSecret = "s3cret-key"
	storeRegion = "us-west-2"
)

// objects starts an object store with the objects that examples read.
func (e *elsewhere) objects(t *testing.T) {
	t.Helper()
	e.buckets = t.TempDir()
	for name, text := range map[string]string{"my-bucket-name/path/in/bucket": "hello\n", "your-bucket-name/input-file/upload.zip": "hello\n", "my-bucket/.keep": ""} {
		file := filepath.Join(e.buckets, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	program := parts.Path(t, "versitygw")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.store = l.Addr().String()
	l.Close()
	var said bytes.Buffer
	cmd := exec.Command(program, "--region", storeRegion, "--port", e.store, "posix", "--nometa", e.buckets)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+storeUser, "ROOT_SECRET_KEY="+storeSecret)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", e.store); err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the object store does not answer")
		}
	}
}

// secrets are the server's accounts at the object store, by the names that
// examples give them.
func secrets(t *testing.T) (all []config.WorkSecret) {
	t.Setenv("CAIRN_TEST_STORE_SECRET", storeSecret)
	for _, name := range []string{"my-s3-credentials", "s3-creds"} {
		all = append(all, config.WorkSecret{Name: name, Username: storeUser, Env: "CAIRN_TEST_STORE_SECRET"})
	}
	return all
}

var amazon = regexp.MustCompile(`(?m)^( *)endpoint: s3\.amazonaws\.com *\n`)

// replace writes the stand-ins where a document names others.
func (e elsewhere) replace(doc []byte) []byte {
	doc = amazon.ReplaceAll(doc, []byte("${1}endpoint: "+e.store+"\n${1}insecure: true\n"))
	return []byte(strings.NewReplacer("http://127.0.0.1:1/", e.url+"/", "https://raw.githubusercontent.com", e.url, "https://storage.googleapis.com", e.url,
		"YOUR_WEBHOOK_URL_HERE", e.url, "region: us-east-1", "region: "+storeRegion).Replace(string(doc)))
}
