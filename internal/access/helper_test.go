package access

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
)

var (
	start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	key   = []byte("0123456789abcdef0123456789abcdef")
)

type fixture struct {
	*Guard
	t     testing.TB
	clock *clock.Fake
	path  string
	cfg   Config
}

// newFixture is a guard on a database of its own; change edits its Config.
func newFixture(t testing.TB, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, clock: clock.NewFake(start), path: filepath.Join(t.TempDir(), "access.db")}
	f.cfg = Config{Clock: f.clock, Secret: key}
	if change != nil {
		change(&f.cfg)
	}
	f.open()
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	// Normal, because these tests pull no plug and syncs are slow.
	d, err := db.Open(context.Background(), db.Config{Path: f.path, Sync: db.Normal, Schema: Schema, Readers: 1})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { d.Close() })
	f.cfg.DB = d
	if f.Guard, err = New(context.Background(), f.cfg); err != nil {
		f.t.Fatal(err)
	}
}

// restart is what a new process finds.
func (f *fixture) restart() {
	f.t.Helper()
	if err := f.flush(context.Background()); err != nil {
		f.t.Fatal(err)
	}
	f.cfg.DB.Close()
	f.open()
}

func (f *fixture) create(n NewAccount) (secret string) {
	f.t.Helper()
	_, secret, err := f.Create(context.Background(), n)
	if err != nil {
		f.t.Fatal(err)
	}
	return secret
}

func grant(repository string, actions ...Action) []Grant {
	return []Grant{{Repositories: []string{repository}, Actions: actions}}
}

// request with an Authorization header, when auth is not empty.
func request(method, target, auth string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	if auth != "" {
		r.Header.Set("Authorization", auth)
	}
	return r
}

func basic(name, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+secret))
}

// who authenticates with the header and fails the test if that is refused.
func (f *fixture) who(auth string) *Principal {
	f.t.Helper()
	p, err := f.Authenticate(request("GET", "/v2/", auth))
	if err != nil {
		f.t.Fatalf("Authenticate(%.30q…): %v", auth, err)
	}
	return p
}

// status of the error that the header is refused with; 0 when it is not.
func (f *fixture) status(auth string) int {
	f.t.Helper()
	p, err := f.Authenticate(request("GET", "/v2/", auth))
	if err == nil {
		return 0
	}
	if p != nil {
		f.t.Fatalf("Authenticate returned both a principal and %v", err)
	}
	var e *Error
	if !errors.As(err, &e) {
		f.t.Fatalf("error %v is no *Error", err)
	}
	return e.Status
}
