package mirror

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
)

const (
	dockerHub    = "docker.io"
	dockerHubURL = "https://registry-1.docker.io"

	// attempts of a request that fails in a way that may pass.
	attempts = 3
	// backoff before the second attempt; it doubles.
	backoff      = 250 * time.Millisecond
	maxRedirects = 5
)

// DefaultURL is where the registry is that clients call host.
func DefaultURL(host string) string {
	if host == dockerHub {
		return dockerHubURL
	}
	return "https://" + host
}

// An upstream is the client of one registry.
type upstream struct {
	Upstream
	prefix  string   // first part of its names here
	base    *url.URL // scheme and host
	path    string   // before repository names there: "" or "a/b/"
	http    *http.Client
	sign    sign
	gate    gate
	clock   clock.Clock
	agent   string
	timeout time.Duration
	stall   time.Duration

	counters counters
}

func newUpstream(cfg Config, c Upstream) (*upstream, error) {
	c.Host = strings.ToLower(c.Host)
	if c.Host == "" || image.CheckRepository(Prefix(c.Host)) != nil || strings.Contains(c.Host, "/") {
		return nil, fmt.Errorf("%.80q is no host: write docker.io, ghcr.io or registry.example.org:5000", c.Host)
	}
	if c.URL == "" {
		c.URL = DefaultURL(c.Host)
	}
	base, err := url.Parse(c.URL)
	if err != nil || base.Scheme != "https" && base.Scheme != "http" || base.Host == "" || base.User != nil || base.RawQuery != "" {
		return nil, fmt.Errorf("%.200q is no URL of a registry: write https://registry.example.org", c.URL)
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if len(c.Allow) == 0 {
		c.Allow = []string{"**"}
	}
	if c.MaxBlob == 0 {
		c.MaxBlob = DefaultMaxBlob
	}
	u := &upstream{Upstream: c, prefix: Prefix(c.Host), base: &url.URL{Scheme: base.Scheme, Host: base.Host},
		clock: cfg.Clock, agent: cfg.Agent, timeout: cfg.Timeout, stall: cfg.Stall}
	if u.agent == "" {
		u.agent = "cairn"
	}
	if p := strings.Trim(base.Path, "/"); p != "" {
		u.path = p + "/"
	}
	u.sign.username, u.sign.tokens = c.Username, map[string]bearer{}
	if u.sign.password, err = passwordOf(c, cfg.Getenv); err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		if t.RootCAs, err = x509.SystemCertPool(); err != nil {
			t.RootCAs = x509.NewCertPool()
		}
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s holds no certificate in PEM", c.CAFile)
		}
	}
	u.http = &http.Client{
		CheckRedirect: checkRedirect,
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: cfg.Timeout, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:       t,
			TLSHandshakeTimeout:   cfg.Timeout,
			ResponseHeaderTimeout: cfg.Timeout,
			MaxIdleConnsPerHost:   16,
			IdleConnTimeout:       time.Minute,
			ForceAttemptHTTP2:     true,
			// Layers are compressed already, and a Content-Length is wanted.
			DisableCompression: true,
		},
	}
	return u, nil
}

// checkRedirect follows registries to where they keep blobs. The password and
// the token are for the registry alone: net/http would take them along to
// hosts below its own.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case first.URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("redirect from https to %s://%s", req.URL.Scheme, req.URL.Host)
	}
	for _, r := range append(via, req) {
		if r.URL.Host != first.URL.Host || r.URL.Scheme != first.URL.Scheme {
			req.Header.Del("Authorization")
		}
	}
	req.Header.Del("Referer")
	return nil
}

// manifestTypes is what a manifest may be; it is sent as one header, because
// some registries read only the first.
var manifestTypes = strings.Join([]string{image.MediaTypeIndex, image.MediaTypeManifest, image.MediaTypeDockerList, image.MediaTypeDockerManifest}, ", ")

// A question is one request to an upstream: what of which repository.
type question struct {
	method     string
	repository string // as the upstream calls it
	what       string // "manifests/latest"
	offset     int64  // of a blob: where to go on
}

// ask puts a question. The answer's status is 200 or 206, and its body has to
// be closed; anything else is an [*Error]. It signs on, tries again what may
// pass, and asks nothing while the upstream wants to be left alone.
func (u *upstream) ask(ctx context.Context, q question) (*http.Response, *Error) {
	for attempt := 1; ; attempt++ {
		if e := u.gate.enter(u.clock.Mono()); e != nil {
			return nil, e
		}
		resp, err, again := u.once(ctx, q)
		u.counters.requests.Add(1)
		if err != nil && err.Kind != NotFound && ctx.Err() == nil {
			u.counters.failed.Add(1)
		}
		if ctx.Err() != nil {
			u.gate.cancel()
			if resp != nil {
				resp.Body.Close()
			}
			return nil, unreachable(u.Host, "was not waited for: %v", context.Cause(ctx))
		}
		last := attempt == attempts || !again
		if err == nil || last || err.Kind == Busy {
			u.gate.leave(u.clock.Mono(), err, err != nil && resp == nil)
			if err != nil && resp != nil {
				resp.Body.Close()
			}
			return resp, err
		}
		u.gate.cancel()
		if resp != nil {
			resp.Body.Close()
		}
		pause := backoff << (attempt - 1)
		pause += time.Duration(rand.Int64N(int64(pause)/2 + 1)) // so that those who failed together do not return together
		if clock.Sleep(ctx, u.clock, pause) != nil {
			return nil, unreachable(u.Host, "was not waited for")
		}
	}
}

// once is one attempt, with signing on. With an error, a response says that
// the upstream did answer.
func (u *upstream) once(ctx context.Context, q question) (resp *http.Response, err *Error, again bool) {
	for signed := false; ; signed = true {
		req, e := http.NewRequestWithContext(ctx, q.method, u.base.String()+"/v2/"+u.path+q.repository+"/"+q.what, nil)
		if e != nil {
			return nil, unreachable(u.Host, "cannot be asked for that: %v", e), false
		}
		req.Header.Set("User-Agent", u.agent)
		switch kind, _, _ := strings.Cut(q.what, "/"); kind {
		case "manifests":
			req.Header.Set("Accept", manifestTypes)
		case "referrers":
			req.Header.Set("Accept", image.MediaTypeIndex)
		}
		if q.offset > 0 {
			req.Header.Set("Range", "bytes="+strconv.FormatInt(q.offset, 10)+"-")
		}
		sent, e := u.sign.add(req, u.path+q.repository, u.clock.Mono())
		if e != nil {
			return nil, unreachable(u.Host, "cannot be signed on to: %v", e), false
		}
		resp, e := u.http.Do(req)
		if e != nil {
			if ue := (*url.Error)(nil); errors.As(e, &ue) {
				e = ue.Err // what it repeats is said already
			}
			// Who had all the time there is does not get it again: somebody
			// waits.
			ne, _ := errors.AsType[net.Error](e)
			return nil, unreachable(u.Host, "does not answer: %v", e), ne == nil || !ne.Timeout()
		}
		switch s := resp.StatusCode; {
		case s == http.StatusOK, s == http.StatusPartialContent && q.offset > 0:
			return resp, nil, false
		case s == http.StatusUnauthorized && !signed:
			drain(resp.Body)
			if sent {
				u.sign.forget(u.path + q.repository)
			}
			worth, e := u.sign.answer(ctx, u, u.path+q.repository, resp.Header)
			if r := (*refusal)(nil); errors.As(e, &r) {
				return resp, u.missing(q, r.Error()), false
			}
			if e != nil {
				t := (*temporary)(nil)
				return resp, unreachable(u.Host, "does not let us sign on: %v", e), errors.As(e, &t)
			}
			if worth {
				continue
			}
			return resp, u.missing(q, "it answers "+resp.Status), false
		case s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusNotFound, s == http.StatusGone:
			return resp, u.missing(q, "it answers "+resp.Status), false
		case s == http.StatusTooManyRequests:
			wait := u.retryAfter(resp.Header)
			return resp, &Error{Kind: Busy, Host: u.Host, RetryAfter: wait,
				Why: fmt.Sprintf("%s asks to be left alone for %s (429 Too Many Requests); with an account its limit may be higher", u.Host, wait)}, false
		default:
			return resp, unreachable(u.Host, "answers %s", resp.Status), transient(s)
		}
	}
}

// missing is the error of what the upstream does not have, or does not show
// to us: registries do not tell these apart to strangers.
func (u *upstream) missing(q question, why string) *Error {
	kind, ref, _ := strings.Cut(q.what, "/")
	sep := ":"
	if kind == "blobs" || strings.Contains(ref, ":") {
		sep = "@"
	}
	hint := "check the name"
	if u.Username == "" {
		hint = "check the name; if it is private, its mirror needs an account"
	}
	return &Error{Kind: NotFound, Host: u.Host, Why: fmt.Sprintf("%s does not have %s%s%s, or not for us (%s): %s", u.Host, q.repository, sep, ref, why, hint)}
}

// transient are the statuses that may pass by themselves.
func transient(status int) bool {
	switch status {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return true
	}
	return false
}

// retryAfter reads the header in both of its forms (RFC 9110, 10.2.3).
func (u *upstream) retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	wait := busyPause
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		wait = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(v); err == nil {
		wait = at.Sub(u.clock.Now())
	}
	return min(max(wait, time.Second), maxBusyPause)
}

// drain reads what little is left, so that the connection can be used again.
func drain(body io.ReadCloser) {
	_, _ = io.Copy(io.Discard, io.LimitReader(body, 64<<10))
	body.Close()
}
