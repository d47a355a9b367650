package worker

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cairn.dev/cairn/internal/task"
)

const (
	maxAnswer   = 64 << 20 // of JSON
	callTimeout = 30 * time.Second
)

// HTTP is the [Server] that is reached by HTTP.
type HTTP struct {
	Base *url.URL
	// Secret is asked for each request; "" for none.
	Secret func() (string, error)
	Client *http.Client
}

// NewHTTP reaches the server at an address like http://127.0.0.1:5080. It follows
// no redirects: the secret goes where it was meant to go, and nowhere else.
func NewHTTP(address string, secret func() (string, error)) (*HTTP, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("work server %q: say http://HOST:PORT or https://HOST:PORT", address)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 16
	return &HTTP{Base: u, Secret: secret, Client: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// Trust has the server known by these certificates (PEM) and no others. It has
// to come before the first call.
func (h *HTTP) Trust(certificates string) error {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(certificates)) {
		return errors.New("no certificate is among what the work server is to be known by: it has to be PEM")
	}
	if t, ok := h.Client.Transport.(*http.Transport); ok {
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return nil
}

// Direct has the server asked without the proxies that the environment names:
// in somebody's image that is not ours to follow. It has to come before the
// first call.
func (h *HTTP) Direct() {
	if t, ok := h.Client.Transport.(*http.Transport); ok {
		t.Proxy = nil
	}
}

// Distrusted reports whether a call failed because the server did not show a
// certificate that is trusted for its name. Only who is told by whom to know
// it, or where it is, can change that.
func Distrusted(err error) bool {
	var wrong *tls.CertificateVerificationError
	return errors.As(err, &wrong)
}

// Ask implements [Server].
func (h *HTTP) Ask(ctx context.Context, a task.Ask) (g task.Grant, err error) {
	ctx, end := context.WithTimeout(ctx, callTimeout+a.Wait)
	defer end()
	return g, h.call(ctx, task.PathWork, a, &g)
}

// Beat implements [Server].
func (h *HTTP) Beat(ctx context.Context, b task.Beat) (r task.Beaten, err error) {
	ctx, end := context.WithTimeout(ctx, callTimeout/2+b.Wait)
	defer end()
	return r, h.call(ctx, task.PathBeat, b, &r)
}

func (h *HTTP) call(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return h.answer(ctx, http.MethodPost, path, http.Header{"Content-Type": {"application/json"}}, bytes.NewReader(body), out)
}

// Logs implements [Server].
func (h *HTTP) Logs(ctx context.Context, frames []byte) (r task.Logged, err error) {
	ctx, end := context.WithTimeout(ctx, 2*callTimeout)
	defer end()
	return r, h.answer(ctx, http.MethodPost, task.PathLogs, http.Header{"Content-Type": {"application/octet-stream"}}, bytes.NewReader(frames), &r)
}

// Store implements [Server].
func (h *HTTP) Store(ctx context.Context, holder task.Ref, out task.Output, folder bool, from io.Reader) (p task.Produced, err error) {
	header := http.Header{"Content-Type": {"application/octet-stream"}, task.HeaderLease: {holder.Header()}}
	if out.To != nil {
		b, err := json.Marshal(out)
		if err != nil {
			return p, err
		}
		header.Set(task.HeaderOutput, base64.RawURLEncoding.EncodeToString(b))
		header.Set(task.HeaderFolder, strconv.FormatBool(folder))
	}
	err = h.answer(ctx, http.MethodPost, task.PathBlob, header, from, &p)
	if err == nil && p.Digest == "" {
		err = errors.New("the server answered no digest")
	}
	return p, err
}

// Fetch implements [Server].
func (h *HTTP) Fetch(ctx context.Context, holder task.Ref, in task.Input) (body io.ReadCloser, folder bool, err error) {
	var resp *http.Response
	header := http.Header{task.HeaderLease: {holder.Header()}}
	if in.Source != nil {
		body, marshalErr := json.Marshal(in)
		if marshalErr != nil {
			return nil, false, marshalErr
		}
		header.Set("Content-Type", "application/json")
		resp, err = h.do(ctx, http.MethodPost, task.PathArtifact, header, bytes.NewReader(body))
	} else {
		resp, err = h.do(ctx, http.MethodGet, task.PathBlob+in.Digest, header, nil)
	}
	if err != nil {
		return nil, false, err
	}
	if folder, err = strconv.ParseBool(resp.Header.Get(task.HeaderFolder)); err != nil {
		folder = in.Folder // the server does not say
	}
	return resp.Body, folder, nil
}

func (h *HTTP) answer(ctx context.Context, method, path string, header http.Header, body io.Reader, out any) error {
	resp, err := h.do(ctx, method, path, header, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil && err != io.EOF {
		return fmt.Errorf("%w: %s %s: read the answer: %w", ErrAway, method, path, err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10)) // so that the connection is used again
	return nil
}

// A Refusal is an answer of the server that is not the one asked for.
type Refusal struct {
	Method, Path string
	Status       int
	Text         string // what it said, shortened
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("%s %s: the server answers %d %s %s", r.Method, r.Path, r.Status, http.StatusText(r.Status), r.Text)
}

// ErrAway means that a call may not have come to the server, or its answer not
// from there.
var ErrAway = errors.New("the work server did not answer")

// away reports whether the server may take later what it did not take now.
func away(err error) bool {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Status == http.StatusServiceUnavailable || r.Status == http.StatusInsufficientStorage
	}
	return errors.Is(err, ErrAway)
}

func (h *HTTP) do(ctx context.Context, method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, h.Base.JoinPath(path).String(), body)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(path, "/") && !strings.HasSuffix(req.URL.Path, "/") {
		req.URL.Path += "/"
	}
	req.Header = header
	if h.Secret != nil {
		secret, err := h.Secret()
		if err != nil {
			return nil, err
		}
		if secret != "" {
			req.Header.Set("Authorization", "Bearer "+secret)
		}
	}
	resp, err := h.Client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		_ = resp.Body.Close()
		if to := resp.Header.Get("Location"); resp.StatusCode/100 == 3 && to != "" {
			text = fmt.Appendf(nil, "to %.200q: say that address instead", to)
		}
		return nil, &Refusal{Method: method, Path: path, Status: resp.StatusCode, Text: strings.TrimSpace(string(text))}
	}
	return resp, nil
}

var _ Server = (*HTTP)(nil)
