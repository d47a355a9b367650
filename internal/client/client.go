// Package client talks to a running Cairn over its JSON API.
//
// It owns finding the server and the secret ([FromEnvironment]) and one method
// per route of /api/v1. It promises that every failure is an error a person
// can act on: a [wire.Problem] as the server stated it, or an [Unreachable]
// that says which address was tried. It keeps no state, is safe for concurrent
// use, and does not speak the registry protocol.
package client

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/image"
)

// DefaultServer is where `cairn serve` listens unless told otherwise.
const DefaultServer = "http://127.0.0.1:5080"

// Environment variables that name the server and the secret.
const (
	ServerVariable = "CAIRN_SERVER"
	TokenVariable  = "CAIRN_TOKEN"
)

// Config of a client.
type Config struct {
	Server string // URL, scheme and host; http:// is put before a bare host:port
	Token  string // secret of an account; "" when the server is open
	// Secret, if given, is asked for each request in place of Token: for
	// secrets that change while the process lives.
	Secret func() (string, error)
	HTTP   *http.Client
}

// FromEnvironment completes cfg from CAIRN_SERVER and CAIRN_TOKEN, else from
// the file cairn/token in the user's configuration folder.
func FromEnvironment(cfg Config, getenv func(string) string) Config {
	if cfg.Server == "" {
		cfg.Server = getenv(ServerVariable)
	}
	if cfg.Token == "" {
		cfg.Token = getenv(TokenVariable)
	}
	if cfg.Token == "" {
		if path, err := TokenFile(); err == nil {
			if b, err := os.ReadFile(path); err == nil {
				cfg.Token = strings.TrimSpace(string(b))
			}
		}
	}
	return cfg
}

// TokenFile is where the user's secret is looked for.
func TokenFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "cairn", "token"), nil
}

// A Client talks to one server.
type Client struct {
	base  *url.URL
	token string
	fresh func() (string, error)
	http  *http.Client
}

// New returns a client. It does not contact the server.
func New(cfg Config) (*Client, error) {
	server := cfg.Server
	if server == "" {
		server = DefaultServer
	}
	if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("server %q is not a URL: write it like %s", cfg.Server, DefaultServer)
	}
	u.Path, u.RawQuery, u.Fragment = strings.TrimSuffix(u.Path, "/"), "", ""
	h := cfg.HTTP
	if h == nil {
		h = http.DefaultClient
	}
	return &Client{base: u, token: cfg.Token, fresh: cfg.Secret, http: h}, nil
}

// Server is the address of the server.
func (c *Client) Server() string { return c.base.String() }

// Ref reads a reference as a person types it: with or without the server's
// own host in front.
func (c *Client) Ref(s string) (image.Reference, error) {
	return wire.ParseRef(strings.TrimPrefix(s, c.base.Host+"/"))
}

// Unreachable means that no server answered.
type Unreachable struct {
	Server string
	Err    error
}

func (e *Unreachable) Error() string {
	err := e.Err
	// The URL error repeats method and address, which are said already.
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return fmt.Sprintf("cannot reach a Cairn server at %s: %v", e.Server, err)
}

func (e *Unreachable) Unwrap() error { return e.Err }

// Hint is what to do about it.
func (e *Unreachable) Hint() string {
	switch {
	case errors.As(e.Err, new(x509.HostnameError)):
		return "call it by a name that its certificate is for, with --server or " + ServerVariable
	case errors.As(e.Err, new(*tls.CertificateVerificationError)):
		return "if the certificate is your own, have this machine trust who issued it, or name a file with the issuer's certificate in SSL_CERT_FILE"
	case errors.Is(e.Err, http.ErrSchemeMismatch):
		return "it speaks http there: name it by http:// in --server or " + ServerVariable
	}
	return "is `cairn serve` running there? Start it, or name another server with --server or " + ServerVariable
}

// call sends in as JSON, unless it is nil, and reads the answer into out,
// unless that is nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	body, err := c.send(ctx, method, path, query, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("%s %s: the answer is not what this cairn understands (a different version?): %w", method, c.base.JoinPath(path), err)
	}
	return nil
}

// lines is [Client.call] for answers of one JSON object per line. A line
// {"error": problem} ends it with that error, {"end": …} is the last of a
// complete answer and goes into end.
func (c *Client) lines(ctx context.Context, method, path string, query url.Values, in any, line func([]byte) error, end any) error {
	body, err := c.send(ctx, method, path, query, in)
	if err != nil {
		return err
	}
	defer body.Close()
	sc := bufio.NewScanner(body)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var last struct {
			Error *wire.Problem   `json:"error"`
			End   json.RawMessage `json:"end"`
		}
		b := sc.Bytes()
		// Only the first key of a line says what it is, so items of a long
		// list are not decoded twice.
		if bytes.HasPrefix(b, []byte(`{"error"`)) || bytes.HasPrefix(b, []byte(`{"end"`)) {
			if err := json.Unmarshal(b, &last); err != nil {
				return fmt.Errorf("%s %s: %w", method, c.base.JoinPath(path), err)
			}
			if last.Error != nil {
				return last.Error
			}
			if end == nil {
				return nil
			}
			return json.Unmarshal(last.End, end)
		}
		if err := line(b); err != nil {
			return err
		}
	}
	err = sc.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%s %s: the answer broke off: %w", method, c.base.JoinPath(path), err)
}

// compressed is JSON that goes out as gzip.
type compressed []byte

func (z compressed) body() io.Reader {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(z) // a buffer takes everything
	_ = w.Close()
	return &b
}

// content is bytes that go out as they are.
type content struct{ io.Reader }

func (c *Client) send(ctx context.Context, method, path string, query url.Values, in any) (io.ReadCloser, error) {
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	var body io.Reader
	z, zip := in.(compressed)
	kind := "application/json"
	if zip {
		body = z.body()
	} else if b, ok := in.(content); ok {
		body, kind = b, "application/octet-stream"
	} else if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, u, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, u, err)
	}
	// Always: a server without sign-on takes changes only from callers that a
	// foreign web page cannot imitate.
	req.Header.Set("Content-Type", kind)
	if zip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	req.Header.Set("Accept", "application/json, application/x-ndjson, application/problem+json")
	token := c.token
	if c.fresh != nil {
		if token, err = c.fresh(); err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, u, err)
		}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &Unreachable{Server: c.base.String(), Err: err}
	}
	if resp.StatusCode < 300 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	return nil, c.problem(method, u, resp)
}

// problem reads the error of an answer.
func (c *Client) problem(method string, u *url.URL, resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	p := &wire.Problem{}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") && json.Unmarshal(b, p) == nil {
		if p.Status == 0 {
			p.Status = resp.StatusCode
		}
	} else {
		p = &wire.Problem{Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode)}
		p.Detail = fmt.Sprintf("%s %s answered %s", method, u, resp.Status)
		if resp.Header.Get("Docker-Distribution-Api-Version") == "" && resp.StatusCode == http.StatusNotFound {
			p.Hint = "is this the address of a Cairn server? Name another with --server or " + ServerVariable
		}
		// What net/http says to whoever speaks http where https is served.
		if u.Scheme == "http" && resp.StatusCode == http.StatusBadRequest && bytes.Contains(b, []byte("to an HTTPS server")) {
			p.Hint = "it speaks https there: name it by https:// in --server or " + ServerVariable
		}
	}
	if p.Hint == "" {
		switch p.Status {
		case http.StatusUnauthorized:
			p.Hint = "give the secret of an account in " + TokenVariable + " or in the file cairn/token of your configuration folder"
			if c.token != "" {
				p.Hint = "the secret in use is not known to this server, was revoked or has expired; ask for a new one (`cairn token create`)"
			}
		case http.StatusForbidden:
			p.Hint = "use an account that may do this (`cairn token ls` lists what each may do)"
		}
	}
	return p
}
