// Package upstream asks another registry.
//
// It owns the client's side of the distribution protocol: sign-on (basic, and
// tokens), redirects, patience, and being left alone when that is asked for.
// It promises that a password reaches nobody but the registry and the token
// server it names, that what may pass is tried again and a change never is,
// and that no answer is taken for a manifest which has not its digest and
// shape. It does not decide what to ask, and keeps nothing.
package upstream

import (
	"bytes"
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
	"sync/atomic"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/outbound"
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

// Config of a [Client].
type Config struct {
	// Host is what people call the registry, for messages.
	Host string
	// URL is where it is; [DefaultURL] of the host when empty. A path in it
	// goes before the repository names there. Plain http is spoken only if the
	// URL says so.
	URL string
	// Username and where its password is: one of the three. The file and the
	// environment are read again whenever the password is needed, because some
	// passwords (ECR's) change.
	Username     string
	PasswordFile string
	PasswordEnv  string
	Password     string
	// Account looks the account up whenever it is needed, instead of these: for
	// keychains, whose passwords change. It may be nobody.
	Account func(context.Context) (Account, error)
	CAFile  string // certificates to trust besides the system's, PEM
	Getenv  func(string) string
	Clock   clock.Clock
	Agent   string // User-Agent; "cairn" when empty
	// Timeout is how long the registry may take to begin an answer.
	Timeout time.Duration
}

// A Client asks one registry. It is safe for concurrent use.
type Client struct {
	host  string
	base  *url.URL // scheme and host
	path  string   // before repository names there: "" or "a/b/"
	http  *http.Client
	sign  sign
	gate  gate
	clock clock.Clock
	agent string

	requests, failed atomic.Int64
}

// New returns a client. It contacts nobody.
func New(c Config) (*Client, error) {
	if c.URL == "" {
		c.URL = DefaultURL(c.Host)
	}
	base, err := url.Parse(c.URL)
	if err != nil || base.Scheme != "https" && base.Scheme != "http" || base.Host == "" || base.User != nil || base.RawQuery != "" {
		return nil, fmt.Errorf("%.200q is no URL of a registry: write https://registry.example.org", c.URL)
	}
	u := &Client{host: c.Host, base: &url.URL{Scheme: base.Scheme, Host: base.Host}, clock: c.Clock, agent: c.Agent}
	if u.agent == "" {
		u.agent = "cairn"
	}
	if p := strings.Trim(base.Path, "/"); p != "" {
		u.path = p + "/"
	}
	u.sign.tokens = map[string]bearer{}
	if u.sign.account, err = accountOf(c); err != nil {
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
			DialContext:           (&net.Dialer{Timeout: c.Timeout, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:       t,
			TLSHandshakeTimeout:   c.Timeout,
			ResponseHeaderTimeout: c.Timeout,
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
	if first.Method != http.MethodGet && first.Method != http.MethodHead {
		// The next request could be a GET, whose success says nothing.
		return http.ErrUseLastResponse
	}
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

// A Question is one request to a registry: what of which repository.
type Question struct {
	Method     string
	Repository string // as the registry calls it; "" for what is of none, such as "_catalog"
	What       string // "manifests/latest"
	Offset     int64  // of a blob: where to go on
	// IfNoneMatch is the ETag of what is here already: the answer may be 304.
	IfNoneMatch string
	// Body and its type, of a PUT.
	Body        []byte
	ContentType string
}

// changes: it is no mere question. It is asked once, because the first may
// have worked although its answer was lost.
func (q Question) changes() bool { return q.Method != http.MethodGet && q.Method != http.MethodHead }

// granted names what a token is for.
func (u *Client) granted(q Question) string {
	k := u.path + q.Repository
	if q.changes() {
		k += " " + q.Method
	}
	return k
}

// Ask puts a question. The answer's status is 200 or 206, 304 if that was
// asked for, or one that says that a change was made, and its body has to be closed; anything else is an
// [*Error]. It signs on, tries again what may pass, and asks nothing while the
// registry wants to be left alone.
func (u *Client) Ask(ctx context.Context, q Question) (*http.Response, *Error) {
	for attempt := 1; ; attempt++ {
		if e := u.gate.enter(u.clock.Mono()); e != nil {
			return nil, e
		}
		resp, err, again := u.once(ctx, q)
		u.requests.Add(1)
		if err != nil && err.Kind != NotFound && ctx.Err() == nil {
			u.failed.Add(1)
		}
		if ctx.Err() != nil {
			u.gate.cancel()
			if resp != nil {
				resp.Body.Close()
			}
			return nil, Unreachablef(u.host, "was not waited for: %v", context.Cause(ctx))
		}
		last := attempt == attempts || !again || q.changes()
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
			return nil, Unreachablef(u.host, "was not waited for")
		}
	}
}

// address is where the question goes.
func (u *Client) address(q Question) string {
	if q.Repository == "" {
		return u.base.String() + "/v2/" + q.What
	}
	return u.base.String() + "/v2/" + u.path + q.Repository + "/" + q.What
}

// once is one attempt, with signing on. With an error, a response says that
// the upstream did answer.
func (u *Client) once(ctx context.Context, q Question) (resp *http.Response, err *Error, again bool) {
	for signed := false; ; signed = true {
		var body io.Reader
		if q.Body != nil {
			body = bytes.NewReader(q.Body)
		}
		req, e := http.NewRequestWithContext(ctx, q.Method, u.address(q), body)
		if e != nil {
			return nil, Unreachablef(u.host, "cannot be asked for that: %v", e), false
		}
		req.Header.Set("User-Agent", u.agent)
		if q.ContentType != "" {
			req.Header.Set("Content-Type", q.ContentType)
		}
		switch kind, _, _ := strings.Cut(q.What, "/"); kind {
		case "manifests":
			req.Header.Set("Accept", manifestTypes)
		case "referrers":
			req.Header.Set("Accept", image.MediaTypeIndex)
		}
		if q.Offset > 0 {
			req.Header.Set("Range", "bytes="+strconv.FormatInt(q.Offset, 10)+"-")
		}
		if q.IfNoneMatch != "" {
			req.Header.Set("If-None-Match", q.IfNoneMatch)
		}
		sent, e := u.sign.add(req, q, u.granted(q), u.clock.Mono())
		if e != nil {
			return nil, Unreachablef(u.host, "cannot be signed on to: %v", e), false
		}
		resp, e := u.http.Do(req)
		if e != nil {
			if ue := (*url.Error)(nil); errors.As(e, &ue) {
				e = ue.Err // what it repeats is said already
			}
			// Who had all the time there is does not get it again: somebody
			// waits.
			ne, _ := errors.AsType[net.Error](e)
			down := Unreachablef(u.host, "does not answer: %v", e)
			down.Cause = e
			return nil, down, !outbound.Never(e) && (ne == nil || !ne.Timeout())
		}
		switch s := resp.StatusCode; {
		case s == http.StatusOK, s == http.StatusPartialContent && q.Offset > 0, s == http.StatusNotModified && q.IfNoneMatch != "":
			return resp, nil, false
		case q.changes() && (s == http.StatusCreated || s == http.StatusAccepted || s == http.StatusNoContent):
			return resp, nil, false
		case s == http.StatusUnauthorized && !signed:
			Drain(resp.Body)
			if sent {
				u.sign.forget(u.granted(q))
			}
			worth, e := u.sign.answer(ctx, u, q, resp.Header)
			if r := (*refusal)(nil); errors.As(e, &r) {
				return resp, u.missing(q, resp.StatusCode, r.Error()), false
			}
			if e != nil {
				t := (*temporary)(nil)
				return resp, Unreachablef(u.host, "does not let us sign on: %v", e), errors.As(e, &t)
			}
			if worth {
				continue
			}
			return resp, u.missing(q, resp.StatusCode, "it answers "+resp.Status), false
		case s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusNotFound, s == http.StatusGone:
			return resp, u.missing(q, resp.StatusCode, "it answers "+resp.Status), false
		case s == http.StatusTooManyRequests:
			wait := u.retryAfter(resp.Header)
			return resp, &Error{Kind: Busy, Status: s, Host: u.host, RetryAfter: wait,
				Why: fmt.Sprintf("%s asks to be left alone for %s (429 Too Many Requests); with an account its limit may be higher", u.host, wait)}, false
		default:
			e := Unreachablef(u.host, "answers %s", resp.Status)
			e.Status = s
			return resp, e, transient(s)
		}
	}
}

// missing is the error of what the upstream does not have, or does not show
// to us: registries do not tell these apart to strangers.
func (u *Client) missing(q Question, status int, why string) *Error {
	if q.Repository == "" {
		return &Error{Kind: NotFound, Status: status, Host: u.host, Why: fmt.Sprintf("%s does not answer that, or not for us (%s)", u.host, why)}
	}
	kind, ref, _ := strings.Cut(q.What, "/")
	sep := ":"
	if kind == "blobs" || strings.Contains(ref, ":") {
		sep = "@"
	}
	hint := "check the name"
	if u.sign.account == nil {
		hint = "check the name; if it is private, it needs an account"
	}
	return &Error{Kind: NotFound, Status: status, Host: u.host, Why: fmt.Sprintf("%s does not have %s%s%s, or not for us (%s): %s", u.host, q.Repository, sep, ref, why, hint)}
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
func (u *Client) retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	wait := busyPause
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		wait = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(v); err == nil {
		wait = at.Sub(u.clock.Now())
	}
	return min(max(wait, time.Second), maxBusyPause)
}

// Closed reports whether nothing is asked now, because the registry wants to be
// left alone or does not answer.
func (u *Client) Closed() bool { return u.gate.closed(u.clock.Mono()) }

// Counts are how many requests were sent, and how many of them came to nothing:
// no answer, no use, or a request to be left alone.
func (u *Client) Counts() (requests, failed int64) {
	failed = u.failed.Load() // first: it is never more than all
	return u.requests.Load(), failed
}

// Close closes connections that nobody uses.
func (u *Client) Close() { u.http.CloseIdleConnections() }

// Drain reads what little is left, so that the connection can be used again.
func Drain(body io.ReadCloser) {
	_, _ = io.Copy(io.Discard, io.LimitReader(body, 64<<10))
	body.Close()
}
