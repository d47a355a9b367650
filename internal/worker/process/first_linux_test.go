package process

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
	"cairn.dev/cairn/internal/worker/keep"
)

func TestMain(m *testing.M) {
	keep.Main()
	os.Exit(m.Run())
}

// A server with a certificate of a CA of somebody's own is known by that, and by
// nothing else; who does not know it says at once what is missing.
func TestCertificates(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_ = json.NewEncoder(w).Encode(task.Grant{Term: time.Second, Drain: true})
	}))
	defer s.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	for name, c := range map[string]struct {
		server, ca, err string
	}{
		"unknown":        {server: s.URL, err: "work.clusters[].ca_file"},
		"known":          {server: s.URL, ca: ca},
		"another's name": {server: strings.Replace(s.URL, "127.0.0.1", "localhost", 1), ca: ca, err: "work.clusters[].ca_file"},
		"no certificate": {server: s.URL, ca: "hello", err: "it has to be PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			asked.Store(0)
			ctx, end := context.WithTimeout(t.Context(), 20*time.Second)
			defer end()
			err := Run(ctx, Config{Server: c.server, CA: c.ca, Direct: true, Scratch: t.TempDir()})
			if c.err == "" && (err != nil || asked.Load() == 0) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || asked.Load() > 0) {
				t.Errorf("%v after %d questions", err, asked.Load())
			}
		})
	}
}

// The proxies of an image get no secrets, and neither does whoever a server
// points to.
func TestGoesNowhereElse(t *testing.T) {
	var secrets atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			secrets.Add(1)
		}
	}))
	defer other.Close()
	c := Config{Server: "http://cairn.invalid:5080", Token: "secret", Direct: true}
	t.Setenv("HTTP_PROXY", other.URL)
	api, err := c.api()
	if err != nil {
		t.Fatal(err)
	}
	if proxy := api.Client.Transport.(*http.Transport).Proxy; proxy != nil {
		t.Error("it follows the proxies of its environment")
	}
	s := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	c.Server = s.URL
	if api, err = c.api(); err != nil {
		t.Fatal(err)
	}
	_, err = api.Ask(t.Context(), task.Ask{Worker: "w"})
	if err == nil || !strings.Contains(err.Error(), "say that address instead") || secrets.Load() > 0 {
		t.Errorf("%v; %d secrets told", err, secrets.Load())
	}
	if worker.Distrusted(err) {
		t.Error("a redirect is no certificate")
	}
}
