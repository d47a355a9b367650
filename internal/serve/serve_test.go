package serve_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/serve"
	"cairn.dev/cairn/internal/serve/servetest"
)

// hint is what an error says to do.
func hint(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

func TestRefusesToStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tc := range []struct {
		name  string
		edit  func(t *testing.T, c *config.Config)
		wants []string // in the error or its hint
	}{
		{"open to other machines", func(_ *testing.T, c *config.Config) { c.Listen = "0.0.0.0:0" }, []string{"open", "0.0.0.0:0", "127.0.0.1"}},
		{"open to other machines by all", func(_ *testing.T, c *config.Config) { c.Listen = ":0" }, []string{"open", "127.0.0.1"}},
		{"address in use", func(_ *testing.T, c *config.Config) { c.Listen = taken.Addr().String() }, []string{taken.Addr().String(), "in use", "--listen"}},
		{"data is a file", func(t *testing.T, c *config.Config) {
			c.Data = filepath.Join(c.Data, "file")
			write(t, c.Data, "x")
		}, []string{"file", "cannot be made", "--data"}},
		{"newer data", func(t *testing.T, c *config.Config) { write(t, filepath.Join(c.Data, "version"), "99\n") }, []string{"newer version of Cairn", "layout 99", "run the newer Cairn"}},
		{"not a version", func(t *testing.T, c *config.Config) { write(t, filepath.Join(c.Data, "version"), "two\n") }, []string{`"two"`, "no version", "backup"}},
		{"TLS without key", func(_ *testing.T, c *config.Config) { c.TLS.Cert = "cert.pem" }, []string{"tls", "key"}},
		{"TLS file missing", func(_ *testing.T, c *config.Config) { c.TLS = config.TLS{Cert: "no.pem", Key: "no.key"} }, []string{"certificate no.pem", "no such file"}},
		{"policy that makes no sense", func(_ *testing.T, c *config.Config) {
			c.Retention.Policies = []config.Policy{{Repositories: []string{"**"}, KeepLast: -1}}
		}, []string{"keep_last", "-1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := servetest.Config(t)
			tc.edit(t, &c)
			s, err := serve.New(t.Context(), serve.Config{Config: c}, serve.Deps{Clock: clock.NewFake(servetest.Epoch)})
			if err == nil {
				s.Close()
				t.Fatal("it started")
			}
			text := err.Error() + " " + hint(err)
			for _, w := range tc.wants {
				if !strings.Contains(text, w) {
					t.Errorf("error %q does not mention %q", text, w)
				}
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSecondProcess(t *testing.T) {
	first := servetest.Start(t, nil, nil)
	c := servetest.Config(t)
	c.Data = first.Config.Data
	_, err := serve.New(t.Context(), serve.Config{Config: c}, serve.Deps{Clock: clock.NewFake(servetest.Epoch)})
	if err == nil {
		t.Fatal("a second server took the same folder")
	}
	for _, w := range []string{c.Data, "in use by process"} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not mention %q", err, w)
		}
	}
	if _, err := serve.Scrub(t.Context(), c.Data, nil, nil); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("scrub of a folder in use: %v", err)
	}
	// The first one is not disturbed, and the folder is free after its end.
	if r := first.Do(t, http.MethodGet, "/readyz", "", nil); r.Status != http.StatusOK {
		t.Errorf("the first server answers %d", r.Status)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	servetest.Start(t, first.Clock, func(d *config.Config) { d.Data = c.Data })
}

func TestReadOnlyFolder(t *testing.T) {
	c := servetest.Config(t)
	// A folder in /proc cannot be written by anybody, root included.
	c.Data = "/proc/self/cairn"
	_, err := serve.New(t.Context(), serve.Config{Config: c}, serve.Deps{Clock: clock.NewFake(servetest.Epoch)})
	if err == nil {
		t.Fatal("it started")
	}
	var d *serve.DataError
	if !errors.As(err, &d) || d.Dir != c.Data || d.Cure == "" {
		t.Errorf("error %q is not a DataError with a cure", err)
	}
}

func TestFolderIsPrivate(t *testing.T) {
	s := servetest.Start(t, nil, func(c *config.Config) { c.Data = filepath.Join(c.Data, "deep", "data") })
	i, err := os.Stat(s.Config.Data)
	if err != nil {
		t.Fatal(err)
	}
	if i.Mode().Perm() != 0o700 {
		t.Errorf("the data folder has the mode %v, want 0700", i.Mode().Perm())
	}
}

func TestRoutes(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	for _, tc := range []struct {
		method, path string
		status       int
		wants        string
	}{
		{"GET", "/", 200, "docker push"},
		{"GET", "/healthz", 200, "ok"},
		{"GET", "/readyz", 200, "ready"},
		{"GET", "/v2/", 200, ""},
		{"GET", "/v2", 200, ""},
		{"GET", "/api/v1/version", 200, `"version":"test"`},
		{"GET", "/api/openapi.json", 200, `"openapi":"3.1.0"`},
		{"GET", "/metrics", 200, "cairn_images{state=\"live\"} 0"},
		{"GET", "/auth/token", 200, "access_token"},
		{"GET", "/api/v1/nothing", 404, "application/problem"},
		{"GET", "/nothing", 404, "/v2/"},
	} {
		r := s.Do(t, tc.method, tc.path, "application/json", nil)
		if r.Status != tc.status || tc.wants != "" && !strings.Contains(r.Body+r.Header.Get("Content-Type"), tc.wants) {
			t.Errorf("%s %s: %d %s; want %d with %q", tc.method, tc.path, r.Status, r.Body, tc.status, tc.wants)
		}
	}
}

func TestOpenGuardsEveryPath(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	for name, h := range map[string]http.Header{
		"foreign host":   {"Host": {"evil.example"}},
		"foreign origin": {"Origin": {"https://evil.example"}},
		"foreign site":   {"Sec-Fetch-Site": {"cross-site"}},
	} {
		for _, path := range []string{"/", "/v2/", "/api/v1/status", "/metrics"} {
			if r := s.Send(t, http.MethodGet, path, h, nil); r.Status != http.StatusForbidden {
				t.Errorf("%s: GET %s answers %d, want 403", name, path, r.Status)
			}
		}
	}
	if r := s.Send(t, http.MethodPost, "/api/v1/uses", http.Header{"Content-Type": {"text/plain"}}, []byte("{}")); r.Status != http.StatusUnsupportedMediaType {
		t.Errorf("POST of text/plain answers %d, want 415", r.Status)
	}
}

func TestFirstSecretIsShownOnce(t *testing.T) {
	s := servetest.Start(t, nil, func(c *config.Config) { c.Open = false })
	if s.Secret == "" || !strings.Contains(s.Stdout.String(), `account "admin"`) {
		t.Fatalf("the first start shows no secret: %q", s.Stdout)
	}
	if strings.Contains(s.Log.String(), s.Secret) {
		t.Error("the secret is in the log")
	}
	if r := s.Do(t, http.MethodGet, "/api/v1/status", "", nil); r.Status != http.StatusOK {
		t.Errorf("the secret does not work: %d %s", r.Status, r.Body)
	}
	if r := s.Send(t, http.MethodGet, "/api/v1/status", nil, nil); r.Status != http.StatusUnauthorized {
		t.Errorf("without a secret: %d", r.Status)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	again := servetest.Start(t, s.Clock, func(c *config.Config) { c.Open, c.Data = false, s.Config.Data })
	if out := again.Stdout.String(); out != "" {
		t.Errorf("the second start prints %q", out)
	}
	again.Secret = s.Secret
	if r := again.Do(t, http.MethodGet, "/api/v1/status", "", nil); r.Status != http.StatusOK {
		t.Errorf("the secret does not work after a restart: %d %s", r.Status, r.Body)
	}
}

// What memory knows is written down by a stop, and what was acknowledged is
// there after a start.
func TestStopAndStart(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	d := s.Push(t, "app/web", "1.0", "hello")
	s.Clock.Advance(10 * time.Minute)
	if r := s.Do(t, http.MethodGet, "/v2/app/web/manifests/1.0", "", nil); r.Status != http.StatusOK {
		t.Fatalf("pull: %d %s", r.Status, r.Body)
	}
	pulled := s.Clock.Now()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s.Clock.Advance(time.Minute)
	again := servetest.Start(t, s.Clock, func(c *config.Config) { c.Data = s.Config.Data })
	r := again.Do(t, http.MethodGet, "/api/v1/why?ref=app/web@"+string(d), "", nil)
	if want := `"source":"pull","subject":"open","at":"` + pulled.Format(time.RFC3339); !strings.Contains(r.Body, want) {
		t.Errorf("the pull is forgotten: %s\nwant %s", r.Body, want)
	}
}

// A stop lets a request end that is under way, and turns new ones away.
func TestStopDrains(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	pr, pw := io.Pipe()
	reading := make(chan struct{}) // the handler asks for the body
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(reading) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/api/v1/uses", pr)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Expect", "100-continue")
	type answer struct {
		status int
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			answered <- answer{err: err}
			return
		}
		resp.Body.Close()
		answered <- answer{status: resp.StatusCode}
	}()
	<-reading
	if _, err := io.WriteString(pw, `{"uses": [`); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop() }()
	for strings.Count(s.Log.String(), "msg=stopping") == 0 {
		select {
		case err := <-stopped:
			t.Fatalf("it stopped under a running request: %v", err)
		default:
		}
	}
	if _, err := io.WriteString(pw, `]}`); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	if a := <-answered; a.err != nil || a.status != http.StatusOK {
		t.Errorf("the request under way ended with %d, %v", a.status, a.err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestRunEndsWhenItNeverServed(t *testing.T) {
	c := servetest.Config(t)
	s, err := serve.New(t.Context(), serve.Config{Config: c}, serve.Deps{Clock: clock.NewFake(servetest.Epoch)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("run with an ended context: %v", err)
	}
}

// The writer that counts answers must not keep the kernel from copying files.
func TestResponsesKeepSendfile(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	s.Push(t, "app/web", "1.0", "hello")
	if !strings.Contains(s.Log.String(), "method=PUT") {
		t.Fatal("the access log at level debug is empty; this test needs both wrappers")
	}
	serve.CheckReaderFrom(t)
}

func TestMetrics(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	s.Push(t, "app/web", "1.0", "hello")
	s.Do(t, http.MethodGet, "/v2/app/web/manifests/nope", "", nil)
	r := s.Do(t, http.MethodGet, "/metrics", "", nil)
	for _, w := range []string{
		`cairn_images{state="live"} 1`,
		`cairn_http_requests_total{part="registry",status="2xx"} 3`,
		`cairn_http_requests_total{part="registry",status="4xx"} 1`,
		`cairn_retention_planning_only 0`,
		`cairn_clock_ok 1`,
		`go_goroutines`,
	} {
		if !strings.Contains(r.Body, w) {
			t.Errorf("/metrics lacks %q", w)
		}
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	pool := selfSigned(t, cert, key)
	c := servetest.Config(t)
	c.TLS = config.TLS{Cert: cert, Key: key}
	fake := clock.NewFake(servetest.Epoch)
	s, err := serve.New(t.Context(), serve.Config{Config: c}, serve.Deps{Clock: fake})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	resp, err := client.Get(s.URL() + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 || !strings.HasPrefix(s.URL(), "https://") {
		t.Errorf("%s answers %d by %s", s.URL(), resp.StatusCode, resp.Proto)
	}
	client.CloseIdleConnections()

	// It is renewed: first its key is there, then the certificate.
	renewed := selfSigned(t, cert+".new", key+".new")
	for _, step := range []struct {
		file string
		by   *x509.CertPool
	}{{key, pool}, {cert, renewed}} {
		if err := os.Rename(step.file+".new", step.file); err != nil {
			t.Fatal(err)
		}
		fake.Advance(time.Minute)
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: step.by}}}
		resp, err := client.Get(s.URL() + "/v2/")
		if err != nil {
			t.Fatalf("after %s: %v", step.file, err)
		}
		resp.Body.Close()
		client.CloseIdleConnections()
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// selfSigned writes a certificate for 127.0.0.1 and returns who trusts it.
func selfSigned(t *testing.T, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, certFile, string(public))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(public)
	return pool
}

// A part that fails ends the process instead of leaving half of it.
func TestProfilesOnLoopbackOnly(t *testing.T) {
	c := servetest.Config(t)
	s, err := serve.New(t.Context(), serve.Config{Config: c, Pprof: "0.0.0.0:0"}, serve.Deps{Clock: clock.NewFake(servetest.Epoch)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("run ended with %v, want a refusal", err)
	}
}

// Waiting for the clock to come right, nothing is deleted.
func TestClockSetBack(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	s.Push(t, "app/web", "1.0", "one")
	s.Push(t, "app/web", "2.0", "two")
	s.Pass(t, 29*24*time.Hour)
	s.Do(t, http.MethodGet, "/v2/app/web/manifests/2.0", "", nil)
	s.Clock.Jump(-365 * 24 * time.Hour)
	s.Pass(t, 2*24*time.Hour) // 1.0 would go now
	r := s.Do(t, http.MethodGet, "/metrics", "", nil)
	for _, w := range []string{"cairn_clock_ok 0", `cairn_images{state="live"} 2`} {
		if !strings.Contains(r.Body, w) {
			t.Errorf("/metrics lacks %q", w)
		}
	}
	// Back at the right time, the two days are doubt and no age.
	s.Clock.Jump(365 * 24 * time.Hour)
	s.Pass(t, time.Hour)
	r = s.Do(t, http.MethodGet, "/api/v1/status", "", nil)
	if !strings.Contains(r.Body, `"live":2`) {
		t.Errorf("an image went: %s", r.Body)
	}
	s.Pass(t, 2*24*time.Hour)
	r = s.Do(t, http.MethodGet, "/api/v1/status", "", nil)
	if !strings.Contains(r.Body, `"live":1`) {
		t.Errorf("what nobody used for the whole covered time did not go: %s", r.Body)
	}
}
