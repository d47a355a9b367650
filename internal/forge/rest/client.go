// Package rest asks a forge over HTTP.
//
// It owns what all drivers do alike: signing on, patience, bounds, pages,
// answers that did not change, and turning refusals into the errors of package
// forge. It promises that only what changes nothing is tried again, that
// nobody is asked who wants to be left alone, that an answer which is too long
// or is no JSON is an error, that a secret is sent to the forge alone and
// appears in no error, and that a [forge.LaterError] is worth another try
// later. It does not know any forge's paths.
package rest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
)

const (
	// attempts of a request that changes nothing and fails in a way that may pass.
	attempts     = 3
	maxRedirects = 5
	// DefaultLimit is how long an answer may be where nothing else is said.
	DefaultLimit = 16 << 20
)

// Config of a [Client].
type Config struct {
	// Host is what people call the forge, for messages.
	Host string
	// URL is what paths are appended to: https://api.github.com. Plain http is
	// spoken only if it says so.
	URL string
	// Sign adds what shows who we are, where as is the request's; its error ends
	// the request. What it adds does not go to other hosts.
	Sign func(ctx context.Context, as string, h http.Header) error
	// CAs are certificates to trust besides the system's, PEM; may be empty.
	CAs []byte
	// Timeout is how long an answer may take, a minute when zero; StreamTimeout
	// that of an archive, ten minutes when zero.
	Timeout, StreamTimeout time.Duration
	// Backoff before the second attempt, a quarter of a second when zero; it doubles.
	Backoff time.Duration
	Clock   clock.Clock
	Agent   string // User-Agent; "cairn" when empty
	// Classify may turn a refusal into a better error than its status says; a
	// nil answer leaves it.
	Classify func(s *StatusError) error
}

// A Client asks one forge. It is safe for concurrent use.
type Client struct {
	Config
	base  *url.URL
	http  *http.Client
	rest  quiet
	known known
}

// New returns a client. It contacts nobody.
func New(c Config) (*Client, error) {
	base, err := url.Parse(strings.TrimRight(c.URL, "/"))
	if err != nil || base.Scheme != "https" && base.Scheme != "http" || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf("%.200q is no URL of a forge: write https://git.example.org, without a name or a password in it", c.URL)
	}
	if c.Host == "" {
		c.Host = base.Host
	}
	if c.Clock == nil {
		return nil, errors.New("a client of a forge needs a clock")
	}
	orElse(&c.Timeout, time.Minute)
	orElse(&c.StreamTimeout, 10*time.Minute)
	orElse(&c.Backoff, 250*time.Millisecond)
	if c.Agent == "" {
		c.Agent = "cairn" // GitHub refuses who does not say
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(c.CAs) > 0 {
		if t.RootCAs, err = x509.SystemCertPool(); err != nil {
			t.RootCAs = x509.NewCertPool()
		}
		if !t.RootCAs.AppendCertsFromPEM(c.CAs) {
			return nil, errors.New("the certificates to trust are not in PEM")
		}
	}
	return &Client{Config: c, base: base, known: known{entries: map[string]entry{}}, http: &http.Client{
		CheckRedirect: checkRedirect,
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: c.Timeout, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:       t,
			TLSHandshakeTimeout:   c.Timeout,
			ResponseHeaderTimeout: c.Timeout,
			MaxIdleConnsPerHost:   8,
			IdleConnTimeout:       time.Minute,
			ForceAttemptHTTP2:     true,
		},
	}}, nil
}

func orElse(d *time.Duration, otherwise time.Duration) {
	if *d <= 0 {
		*d = otherwise
	}
}

// Close closes connections that nobody uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// checkRedirect follows forges to where they keep archives and repositories
// that were renamed. What shows who we are is for the forge alone: net/http
// would take it along to hosts below its own.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	if first.Method != http.MethodGet {
		return http.ErrUseLastResponse // the next would be a GET, whose success says nothing
	}
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case first.URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("redirect from https to %s://%s", req.URL.Scheme, req.URL.Host)
	}
	for _, r := range append(via, req) {
		if r.URL.Host != first.URL.Host || r.URL.Scheme != first.URL.Scheme {
			for _, h := range signs() {
				req.Header.Del(h)
			}
		}
	}
	req.Header.Del("Referer")
	return nil
}

// A Request to a forge.
type Request struct {
	Method string // GET when empty
	// Path is appended to the client's URL, escaped by the caller ([Path]); a
	// whole URL of the same host stands for itself.
	Path   string
	Query  url.Values
	Header map[string]string
	// As says for whom the request is signed, where that differs.
	As string
	// Body is sent as JSON; Raw as it is, with Type.
	Body any
	Raw  []byte
	Type string
	// Asks: a POST that changes nothing, and may be tried again.
	Asks  bool
	Limit int64 // of the answer; [DefaultLimit] when zero
}

func (r Request) method() string {
	if r.Method == "" {
		return http.MethodGet
	}
	return r.Method
}

func (r Request) reads() bool {
	return r.method() == http.MethodGet || r.Method == http.MethodHead || r.Asks
}

// Path escapes the segments and puts them together: a slash in one of them is
// escaped, too.
func Path(segments ...string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteString("/" + url.PathEscape(s))
	}
	return b.String()
}

// JSON asks, and reads the answer's JSON into v unless that is nil.
func (c *Client) JSON(ctx context.Context, r Request, v any) error {
	_, err := c.page(ctx, r, v)
	return err
}

func (c *Client) page(ctx context.Context, r Request, v any) (http.Header, error) {
	key := ""
	if r.method() == http.MethodGet && r.Header == nil {
		key = r.Path + "?" + r.Query.Encode()
	}
	old, have := c.known.get(key)
	if have {
		r.Header = map[string]string{"If-None-Match": old.etag}
	}
	a, err := c.whole(ctx, r)
	if err != nil {
		return nil, err
	}
	if a.status == http.StatusNotModified && have {
		a = old.answer
	} else if tag := a.header.Get("Etag"); key != "" && tag != "" {
		c.known.put(key, entry{tag, a})
	}
	if len(a.body) == 0 && v == nil {
		return a.header, nil
	}
	if t := a.header.Get("Content-Type"); !strings.Contains(t, "json") {
		// A portal that wants to be logged in to answers 200 to everything.
		return nil, c.nonsense(r, fmt.Sprintf("with %.60q where JSON is due: does the URL lead to the forge's API?", t))
	}
	if v == nil {
		// What it says is not wanted; that it is an answer of the forge is.
		if v = new(map[string]any); a.body[0] == '[' {
			v = new([]any)
		}
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		return nil, c.nonsense(r, "with JSON of another shape: "+err.Error())
	}
	return a.header, nil
}

// nonsense is an answer that no forge gives; something else answers for it, or
// it is another forge than we think.
func (c *Client) nonsense(r Request, what string) error {
	return &forge.LaterError{Err: fmt.Errorf("%s %s: %s answers %s", r.method(), c.name(r), c.Host, what)}
}

// Pages asks for all pages of a list, and calls each with one after the other,
// until it returns false, or max pages were read: then whole is false.
func (c *Client) Pages(ctx context.Context, r Request, max int, each func(page json.RawMessage) (more bool, err error)) (whole bool, err error) {
	for range max {
		var page json.RawMessage
		h, err := c.page(ctx, r, &page)
		if err != nil {
			return false, err
		}
		more, err := each(page)
		if err != nil {
			return false, c.nonsense(r, "with JSON of another shape: "+err.Error())
		}
		next := nextPage(h)
		if !more || next == nil {
			return true, nil
		}
		// Only the query is taken from it: the path is known.
		r.Query = next
	}
	return false, nil
}

// nextPage reads the Link header (RFC 8288).
func nextPage(h http.Header) url.Values {
	for _, v := range h.Values("Link") {
		for l := range strings.SplitSeq(v, ",") {
			target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(l), "<"), ">")
			if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
				continue
			}
			if u, err := url.Parse(target); err == nil && u.RawQuery != "" {
				return u.Query()
			}
		}
	}
	return nil
}

// Bytes asks, and returns the answer as it is, and its type.
func (c *Client) Bytes(ctx context.Context, r Request) (body []byte, contentType string, err error) {
	a, err := c.whole(ctx, r)
	if err != nil {
		return nil, "", err
	}
	return a.body, a.header.Get("Content-Type"), nil
}

// answer that was read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// whole asks and reads the whole answer.
func (c *Client) whole(ctx context.Context, r Request) (answer, error) {
	return retry(ctx, c, r, func(ctx context.Context) (answer, error) {
		ctx, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		resp, err := c.send(ctx, r)
		if err != nil {
			return answer{}, err
		}
		defer resp.Body.Close()
		limit := r.Limit
		if limit <= 0 {
			limit = DefaultLimit
		}
		var b bytes.Buffer
		n, err := b.ReadFrom(io.LimitReader(resp.Body, limit+1))
		switch {
		case n > limit:
			return answer{}, fmt.Errorf("%s %s: %s answers with more than %d bytes: %w", r.method(), c.name(r), c.Host, limit, forge.ErrInvalid)
		case err != nil:
			return answer{}, c.unanswered(r, err)
		}
		return answer{resp.StatusCode, resp.Header, b.Bytes()}, nil
	})
}

// Stream asks for something long; the caller bounds and closes it. An HTML
// page is no archive.
func (c *Client) Stream(ctx context.Context, r Request) (io.ReadCloser, error) {
	return retry(ctx, c, r, func(ctx context.Context) (io.ReadCloser, error) {
		ctx, cancel := context.WithTimeout(ctx, c.StreamTimeout)
		resp, err := c.send(ctx, r)
		if err != nil {
			cancel()
			return nil, err
		}
		if t := resp.Header.Get("Content-Type"); strings.Contains(t, "html") || strings.Contains(t, "json") {
			resp.Body.Close()
			cancel()
			return nil, c.nonsense(r, fmt.Sprintf("with %.60q where an archive is due", t))
		}
		return &stream{resp.Body, cancel}, nil
	})
}

type stream struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (s *stream) Close() error {
	defer s.cancel()
	return s.ReadCloser.Close()
}

// retry calls once, and again while that is allowed and may help.
func retry[T any](ctx context.Context, c *Client, r Request, once func(context.Context) (T, error)) (T, error) {
	for attempt := 1; ; attempt++ {
		v, err := once(ctx)
		var later *forge.LaterError
		if err == nil || !errors.As(err, &later) || later.After > 0 || attempt == attempts || !r.reads() || ctx.Err() != nil {
			return v, err
		}
		pause := c.Backoff << (attempt - 1)
		pause += time.Duration(rand.Int64N(int64(pause)/2 + 1)) // so that those who failed together do not return together
		if clock.Sleep(ctx, c.Clock, pause) != nil {
			return v, err
		}
	}
}

// send asks once. The answer's status is a good one, or 304.
func (c *Client) send(ctx context.Context, r Request) (*http.Response, error) {
	if wait := c.rest.left(c.Clock.Mono()); wait > 0 {
		return nil, &forge.LaterError{After: wait, Err: fmt.Errorf("%s %s: not asked: %s wants to be left alone for %s", r.method(), c.name(r), c.Host, wait.Round(time.Second))}
	}
	address := r.Path
	if !strings.HasPrefix(address, c.base.Scheme+"://"+c.base.Host+"/") {
		address = c.base.String() + r.Path
	}
	if len(r.Query) > 0 {
		address += "?" + r.Query.Encode()
	}
	body, contentType := r.Raw, r.Type
	if r.Body != nil {
		var err error
		if body, err = json.Marshal(r.Body); err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.method(), c.name(r), err)
		}
		contentType = "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, r.method(), address, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method(), c.name(r), forge.ErrInvalid)
	}
	req.Header.Set("User-Agent", c.Agent)
	req.Header.Set("Accept", "application/json")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.Sign != nil {
		if err := c.Sign(ctx, r.As, req.Header); err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.method(), c.name(r), err)
		}
	}
	for k, v := range r.Header {
		req.Header.Set(k, v)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unanswered(r, err)
	}
	if resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusNotModified && req.Header.Get("If-None-Match") != "" {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, c.refusal(r, resp)
}

// name is a request's path for messages: no query, which could hold anything.
func (c *Client) name(r Request) string {
	p, _, _ := strings.Cut(r.Path, "?")
	return fmt.Sprintf("%.200s", p)
}
