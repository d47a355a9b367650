package reap_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/reap"
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/usage"
	"cairn.dev/cairn/test/parts"
)

const (
	hour  = time.Hour
	after = 24 * hour
)

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// A foreign registry: the one most people run, behind a hand that spoils
// answers.
type foreign struct {
	testing.TB
	url   string
	proxy http.Handler // what is behind the hand
	// spoil, if set, may answer in place of the registry.
	spoil atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	// seen is called with every request first.
	seen atomic.Pointer[func(*http.Request)]
}

func newForeign(t testing.TB) *foreign {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(parts.Path(t, "registry"), "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none", "REGISTRY_STORAGE_DELETE_ENABLED=true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if resp, err := http.Get("http://" + addr + "/v2/"); err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the registry does not start")
		}
	}
	f := &foreign{TB: t}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := f.seen.Load(); h != nil {
			(*h)(r)
		}
		if h := f.spoil.Load(); h != nil && (*h)(w, r) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	f.url, f.proxy = s.URL, proxy
	return f
}

func (f *foreign) do(method, path, contentType string, body []byte) (int, http.Header, []byte) {
	f.Helper()
	u := path
	if !strings.Contains(path, "://") {
		u = f.url + path
	}
	req, err := http.NewRequest(method, u, bytes.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Accept", strings.Join([]string{image.MediaTypeIndex, image.MediaTypeManifest}, ", "))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Fatal(err)
	}
	return resp.StatusCode, resp.Header, b
}

func (f *foreign) blob(repo string, b []byte) map[string]any {
	f.Helper()
	code, h, body := f.do("POST", "/v2/"+repo+"/blobs/uploads/", "", nil)
	if code != http.StatusAccepted {
		f.Fatalf("begin an upload: %d %s", code, body)
	}
	to := h.Get("Location")
	sep := "?"
	if strings.Contains(to, "?") {
		sep = "&"
	}
	if code, _, body = f.do("PUT", to+sep+"digest="+digest.FromBytes(b).String(), "application/octet-stream", b); code != http.StatusCreated {
		f.Fatalf("upload: %d %s", code, body)
	}
	return map[string]any{"mediaType": "application/octet-stream", "digest": digest.FromBytes(b), "size": len(b)}
}

// push pushes an image made of text, under tags and its digest.
func (f *foreign) push(repo, text string, tags ...string) image.Digest {
	f.Helper()
	config := f.blob(repo, fmt.Appendf(nil, `{"os":"linux","text":%q}`, text))
	config["mediaType"] = "application/vnd.oci.image.config.v1+json"
	return f.put(repo, image.MediaTypeManifest, map[string]any{"schemaVersion": 2, "mediaType": image.MediaTypeManifest,
		"config": config, "layers": []any{f.blob(repo, []byte("layer of "+text))}}, tags...)
}

func configOf(text string) image.Digest {
	return digest.FromBytes(fmt.Appendf(nil, `{"os":"linux","text":%q}`, text))
}

// index pushes an index of children.
func (f *foreign) index(repo string, children []image.Digest, tags ...string) image.Digest {
	f.Helper()
	var list []any
	for _, c := range children {
		_, _, b := f.do("GET", "/v2/"+repo+"/manifests/"+string(c), "", nil)
		list = append(list, map[string]any{"mediaType": image.MediaTypeManifest, "digest": c, "size": len(b)})
	}
	return f.put(repo, image.MediaTypeIndex, map[string]any{"schemaVersion": 2, "mediaType": image.MediaTypeIndex, "manifests": list}, tags...)
}

func (f *foreign) put(repo, mediaType string, m any, tags ...string) image.Digest {
	f.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	for _, ref := range append([]string{digest.FromBytes(b).String()}, tags...) {
		if code, _, body := f.do("PUT", "/v2/"+repo+"/manifests/"+ref, mediaType, b); code != http.StatusCreated {
			f.Fatalf("push %s %s: %d %s", repo, ref, code, body)
		}
	}
	return digest.FromBytes(b)
}

// has reports whether the registry serves it.
func (f *foreign) has(repo, ref string) bool {
	f.Helper()
	code, _, _ := f.do("GET", "/v2/"+repo+"/manifests/"+ref, "", nil)
	return code == http.StatusOK
}

// A house is a Cairn with a reaper and a reporter.
type house struct {
	testing.TB
	ctx    context.Context
	clock  *clock.Fake
	db     *db.DB
	ledger *usage.Ledger
	pins   pins
	reaper *reap.Reaper
	cfg    reap.Config
	uses   []usage.Use // stated by the reporter
	mute   bool        // the reporter is silent
}

type pins []content.Pin

func (p *pins) Pins(context.Context, string) ([]content.Pin, error) { return *p, nil }

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{TB: t, ctx: context.Background(), clock: clock.NewFake(epoch),
		cfg: reap.Config{Policies: []retention.Policy{{Repositories: []string{"**"}, After: after}}}}
	open := func(name string, schema []string) *db.DB {
		d, err := db.Open(h.ctx, db.Config{Path: filepath.Join(t.TempDir(), name), Schema: schema})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	h.db = open("reap.db", reap.Schema)
	var err error
	if h.ledger, err = usage.Open(h.ctx, usage.Config{DB: open("usage.db", usage.Schema), Clock: h.clock, Granularity: time.Minute, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.ledger.Close() })
	h.restart()
	h.report()
	return h
}

// restart makes a reaper that remembers only what is on disk.
func (h *house) restart() {
	h.Helper()
	var err error
	if h.reaper, err = reap.New(h.cfg, reap.Deps{DB: h.db, Ledger: h.ledger, Pins: &h.pins, Clock: h.clock, Log: slog.New(slog.DiscardHandler)}); err != nil {
		h.Fatal(err)
	}
}

func (h *house) report() {
	h.Helper()
	if h.mute {
		return
	}
	if _, err := h.ledger.Report(h.ctx, usage.Identity{}, usage.Statement{Reporter: "prod", Period: hour, Complete: true,
		Sources: []usage.Source{usage.Container}, Uses: slices.Clone(h.uses)}); err != nil {
		h.Fatal(err)
	}
}

// pass lets time pass, with a report every hour.
func (h *house) pass(d time.Duration) {
	h.Helper()
	for ; d > 0; d -= hour {
		h.clock.Advance(min(d, hour))
		h.report()
	}
}

func (h *house) use(d image.Digest, repository string) {
	h.Helper()
	if _, err := h.ledger.Report(h.ctx, usage.Identity{}, usage.Statement{Reporter: "ci",
		Uses: []usage.Use{{Digest: d, Repository: repository, Source: usage.Container, Subject: "job", At: h.clock.Now()}}}); err != nil {
		h.Fatal(err)
	}
}

// seen is what a run told.
type seen struct {
	sum     reap.Summary
	action  map[image.Digest]string // and why, for programs
	reason  map[image.Digest]string
	skipped []reap.Skipped
	deleted []reap.Record
}

func (s *seen) Decided(d *reap.Decision) error {
	s.action[d.Image.Digest] = d.Action.String() + " " + d.Code.String()
	s.reason[d.Image.Digest] = d.Reason()
	return nil
}
func (s *seen) Skipped(k reap.Skipped) error { s.skipped = append(s.skipped, k); return nil }
func (s *seen) Deleted(r reap.Record) error  { s.deleted = append(s.deleted, r); return nil }

func (h *house) try(f *foreign, edit func(*reap.Request)) (*seen, error) {
	h.Helper()
	q := reap.Request{Account: reap.Account{Registry: f.url}, Delete: true}
	if edit != nil {
		edit(&q)
	}
	s := &seen{action: map[image.Digest]string{}, reason: map[image.Digest]string{}}
	var err error
	s.sum, err = h.reaper.Run(h.ctx, q, s)
	return s, err
}

// reap deletes what is to be deleted.
func (h *house) reap(f *foreign) *seen {
	h.Helper()
	s, err := h.try(f, nil)
	if err != nil {
		h.Fatal(err)
	}
	return s
}

// plan only looks.
func (h *house) plan(f *foreign) *seen {
	h.Helper()
	s, err := h.try(f, func(q *reap.Request) { q.Delete = false })
	if err != nil {
		h.Fatal(err)
	}
	if len(s.deleted) > 0 || s.sum.Deleted > 0 {
		h.Fatal("a dry run deleted something")
	}
	return s
}

// pump lets time pass for whoever waits, until the test ends.
func (h *house) pump() {
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				if h.clock.Waiting() > 0 {
					h.clock.Advance(time.Second)
				}
			}
		}
	}()
	h.Cleanup(func() { close(done); <-stopped })
}
