package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"cairn.dev/cairn/internal/outbound"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/upstream"
)

const (
	maxRedirects = 5
	maxHeaders   = 64
	maxHeader    = 32 << 10 // bytes of all headers of a source
	maxURL       = 8 << 10
)

// checkRedirect follows a few, never from https to http, and hands headers that
// a user wrote to the host that he wrote only: they may hold his secrets.
func checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("it redirects more than %d times: %w", maxRedirects, ErrRefused)
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("it redirects from https to %s: %w", req.URL.Redacted(), ErrRefused)
	case req.Method != http.MethodGet && req.Method != http.MethodHead:
		return fmt.Errorf("it redirects what is stored to %s: %w", req.URL.Redacted(), ErrRefused)
	}
	req.Header.Del("Referer") // an address may hold a secret, too
	if req.URL.Host != via[0].URL.Host {
		for k := range req.Header {
			if k != "User-Agent" {
				req.Header.Del(k)
			}
		}
	}
	return nil
}

func checkURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || len(text) > maxURL || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("%.200q is no address: write https://host/path: %w", text, ErrInvalid)
	}
	return u, nil
}

// newRequest makes a request to a source.
func (s *Store) newRequest(ctx context.Context, method string, src *task.Source, body io.Reader) (*http.Request, error) {
	u, err := checkURL(src.URL)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	size := 0
	for k, v := range src.Headers {
		size += len(k) + len(v)
		switch http.CanonicalHeaderKey(k) {
		case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Trailer", "Te", "Range":
			return nil, fmt.Errorf("the header %.80q is not a source's to set: %w", k, ErrInvalid)
		}
		req.Header.Set(k, v)
	}
	if len(src.Headers) > maxHeaders || size > maxHeader {
		return nil, fmt.Errorf("%d headers of %d bytes, at most %d of %d: %w", len(src.Headers), size, maxHeaders, maxHeader, ErrInvalid)
	}
	req.Header.Set("User-Agent", "cairn")
	if src.Secret != "" {
		user, password, err := s.accountFor(src.Secret, u.Host)
		if err != nil {
			return nil, err
		}
		if user == "" {
			req.Header.Set("Authorization", "Bearer "+password)
		} else {
			req.SetBasicAuth(user, password)
		}
	}
	return req, nil
}

// get fetches by http.
func (s *Store) get(ctx context.Context, src *task.Source) (File, error) {
	return s.stream(ctx, func(ctx context.Context) (*http.Request, error) {
		return s.newRequest(ctx, http.MethodGet, src, nil)
	})
}

// stream asks and hands on the body, bounded in size, in time, and in how long
// nothing comes.
func (s *Store) stream(ctx context.Context, ask func(context.Context) (*http.Request, error)) (File, error) {
	ctx, end := context.WithTimeout(ctx, s.cfg.MaxTime)
	ctx, patient, cancel := upstream.Patient(ctx, s.cfg.Stall)
	stop := func() { cancel(); end() }
	req, err := ask(ctx)
	if err != nil {
		stop()
		return File{}, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		stop()
		return File{}, unreachable(err)
	}
	body := closing{patient(resp.Body), stop}
	if err := s.answered(resp); err != nil {
		_ = body.Close()
		return File{}, err
	}
	return File{ReadCloser: &bound{body, s.cfg.MaxSize}, Size: resp.ContentLength}, nil
}

// unreachable makes sense of a request that was not answered. What follows the
// address may be a signature, so it is not repeated.
func unreachable(err error) error {
	if e := (*url.Error)(nil); errors.As(err, &e) {
		u, perr := url.Parse(e.URL)
		if perr == nil {
			u.RawQuery, u.User = "", nil
			err = fmt.Errorf("%s %s: %w", strings.ToUpper(e.Op), u, e.Err)
		} else {
			err = e.Err
		}
	}
	switch {
	case errors.Is(err, outbound.ErrRefused):
		err = fmt.Errorf("%w: %w", err, ErrRefused)
	case outbound.Never(err):
		err = fmt.Errorf("%w: %w", err, ErrNotFound)
	}
	return err
}

// answered judges an answer to GET.
func (s *Store) answered(resp *http.Response) error {
	code := resp.StatusCode
	if code == http.StatusOK {
		if resp.ContentLength > s.cfg.MaxSize {
			return fmt.Errorf("the source has %d bytes, at most %d are fetched: %w", resp.ContentLength, s.cfg.MaxSize, ErrTooLarge)
		}
		return nil
	}
	u := *resp.Request.URL
	u.RawQuery, u.User = "", nil
	err := fmt.Errorf("%s %s: it answers %s%s", resp.Request.Method, &u, resp.Status, explain(resp))
	switch {
	case code == http.StatusNotFound, code == http.StatusGone:
		return fmt.Errorf("%w: %w", err, ErrNotFound)
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
		return err // it may go better later
	}
	return fmt.Errorf("%w: %w", err, ErrRefused)
}
