package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/bump"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/test/gitea"
)

// Wanted of the time from a push to a pull request. Ours is all that is neither
// the forge's nor the quiet that is waited for, so that tags pushed together make
// one pull request.
const (
	perRepository = 10 // pushes that concern one repository of code
	wantLatency   = 2 * time.Second
	wantOurs      = 300 * time.Millisecond
)

// latency measures the time from a push to our registry to the pull request on
// an idle Gitea, push by push.
func (s settings) latency(b *strings.Builder, cairn string) error {
	var total, ours []time.Duration
	var err error
	// A Gitea is started by tests; a benchmark is one.
	testing.Benchmark(func(bench *testing.B) {
		if total != nil || err != nil {
			return
		}
		tb := &speaking{TB: bench, err: &err}
		total, ours, err = s.pushes(tb, gitea.Start(tb), cairn)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(b, `
## From a push to a pull request

%d pushes of a new tag, one after the other, each to another image, ten for each repository of code: from before the manifest is sent until Gitea has answered that the pull request is there. Ours is what
is neither within a request to Gitea nor the quiet of %s in which further tags are waited for.

| | median | p99 | wanted at p99 |
|---|---|---|---|
| push to pull request | %s | %s | ≤ %s: %s |
| of which ours | %s | %s | ≤ %s: %s |
`, len(total), bump.DefaultQuiet, rounded(percentile(total, 50)), rounded(percentile(total, 99)), wantLatency, verdict(percentile(total, 99) <= wantLatency),
		rounded(percentile(ours, 50)), rounded(percentile(ours, 99)), wantOurs, verdict(percentile(ours, 99) <= wantOurs))
	return nil
}

// percentile is of a list, the worst of it where there are too few.
func percentile(list []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

// speaking tells why a benchmark failed, which is lost otherwise.
type speaking struct {
	testing.TB
	err *error
}

func (s *speaking) Fatal(args ...any) {
	*s.err = errors.New(fmt.Sprint(args...))
	s.TB.FailNow()
}

func (s *speaking) Fatalf(format string, args ...any) {
	*s.err = fmt.Errorf(format, args...)
	s.TB.FailNow()
}

func (s settings) pushes(tb testing.TB, g *gitea.Server, cairn string) (total, ours []time.Duration, err error) {
	way, err := newWay(g.URL)
	if err != nil {
		return nil, nil, err
	}
	defer way.server.Close()
	dir := tb.TempDir()
	address := freeAddress()
	bot, people := g.Account(tb, "cairn-bot"), g.Account(tb, "people")
	repos := make([]map[string]string, (s.pushed+perRepository-1)/perRepository)
	for i := range s.pushed {
		if repos[i/perRepository] == nil {
			repos[i/perRepository] = map[string]string{}
		}
		repos[i/perRepository][fmt.Sprintf("svc-%d/main.tf", i)] = fmt.Sprintf("locals {\n  tag = \"1.0.0\"\n}\n\nresource \"kubernetes_pod\" \"a\" {\n  spec {\n    container {\n      image = \"%s/svc/s%d:${local.tag}\"\n    }\n  }\n}\n", address, i)
	}
	for i, files := range repos {
		name := fmt.Sprintf("infra-%d", i)
		g.Repository(tb, people, name, files)
		g.Collaborator(tb, people, name, bot)
	}
	config := fmt.Sprintf("listen: %s\nopen: true\ndata: %s\nbump:\n  forges:\n  - {name: gitea, kind: gitea, url: %q, token_file: token, repositories: people/*}\n", address, filepath.Join(dir, "data"), way.URL)
	for name, text := range map[string]string{"cairn.yaml": config, "token": bot.Token} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, nil, err
		}
	}
	var log bytes.Buffer
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	program := exec.CommandContext(ctx, cairn, "serve", "--config", filepath.Join(dir, "cairn.yaml"))
	program.Cancel = func() error { return program.Process.Signal(os.Interrupt) }
	program.Stdout, program.Stderr = &log, &log
	if err := program.Start(); err != nil {
		return nil, nil, err
	}
	defer func() {
		stop()
		_ = program.Wait()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, tail(log.Bytes()))
		}
	}()
	base := "http://" + address
	if err := wait(time.Minute, func() bool { return ready(base) }); err != nil {
		return nil, nil, fmt.Errorf("cairn serve: %w", err)
	}
	for i := range s.pushed {
		if err := pushTag(base, fmt.Sprintf("svc/s%d", i), "1.0.0"); err != nil {
			return nil, nil, err
		}
	}
	// All is read and known, and nothing is on its way.
	current := func() bool { return strings.Count(get(base+"/api/v1/bump/status"), `"state":"current"`) == s.pushed }
	if err := wait(5*time.Minute, current); err != nil {
		return nil, nil, fmt.Errorf("the first look: %w: %.2000s", err, get(base+"/api/v1/bump/status"))
	}
	for i := range s.pushed {
		if err := wait(time.Minute, way.idle); err != nil {
			return nil, nil, err
		}
		way.reset()
		start := time.Now()
		if err := pushTag(base, fmt.Sprintf("svc/s%d", i), "1.1.0"); err != nil {
			return nil, nil, err
		}
		if err := wait(time.Minute, func() bool { return !way.openedAt().IsZero() }); err != nil {
			return nil, nil, fmt.Errorf("push %d: no pull request: %w", i, err)
		}
		took := way.openedAt().Sub(start)
		total, ours = append(total, took), append(ours, took-way.theirs()-bump.DefaultQuiet)
	}
	return total, ours, nil
}

// A way leads to a forge and tells how long the forge took.
type way struct {
	URL    string
	server *http.Server

	mu     sync.Mutex
	flying int
	since  time.Time     // when the first of those on their way began
	last   time.Time     // when the last one ended
	busy   time.Duration // with at least one on its way, up to the opening
	opened time.Time
}

func newWay(to string) (*way, error) {
	u, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &way{URL: "http://" + l.Addr().String(), last: time.Now()}
	p := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) }}
	w.server = &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.begin()
		p.ServeHTTP(rw, r)
		w.end(r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/pulls"))
	})}
	go func() { _ = w.server.Serve(l) }()
	return w, nil
}

func (w *way) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.flying++; w.flying == 1 {
		w.since = time.Now()
	}
}

func (w *way) end(opens bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.flying--; w.flying == 0 && w.opened.IsZero() {
		w.busy += now.Sub(w.since)
	}
	w.last = now
	if opens && w.opened.IsZero() {
		w.opened = now
	}
}

func (w *way) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy, w.opened = 0, time.Time{}
}

func (w *way) openedAt() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened
}

func (w *way) theirs() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.busy
}

// idle: nobody has asked the forge for a while.
func (w *way) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flying == 0 && time.Since(w.last) > 500*time.Millisecond
}

func wait(most time.Duration, ok func() bool) error {
	for end := time.Now().Add(most); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("it did not come within %s", most)
		}
	}
	return nil
}

func ready(base string) bool {
	resp, err := http.Get(base + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func get(address string) string {
	resp, err := http.Get(address)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return string(text)
}

func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:5080"
	}
	defer l.Close()
	return l.Addr().String()
}

// pushTag pushes a small image.
func pushTag(base, repo, tag string) error {
	config := fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","tag":%q}`, tag)
	send := func(method, path, kind string, body []byte) error {
		req, err := http.NewRequest(method, base+path, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", kind)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			text, _ := io.ReadAll(resp.Body)
			return fmt.Errorf("push %s:%s: %s: %s", repo, tag, resp.Status, text)
		}
		return nil
	}
	d := digest.FromBytes(config)
	if err := send(http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), "application/octet-stream", config); err != nil {
		return err
	}
	m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`, image.MediaTypeManifest, d, len(config))
	return send(http.MethodPut, "/v2/"+repo+"/manifests/"+tag, image.MediaTypeManifest, m)
}
