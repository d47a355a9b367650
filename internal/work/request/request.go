// Package request makes the HTTP requests of workflows: tasks that need no
// container.
//
// It owns what such a task may do and what its outcome is. It promises that a
// request goes only where [outbound.Check] allows, whatever a name resolves to
// and wherever an answer redirects; that headers a user wrote, which may hold
// his secrets, go to the host he wrote and no other; and that the answer is
// bounded, in bytes and in time. It repeats nothing: retries are the run's.
// It does not know the language of conditions, which a front end judges.
package request

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"cairn.dev/cairn/internal/outbound"
	"cairn.dev/cairn/internal/task"
)

// Config of a [Client]. Zero values take the defaults that are named.
type Config struct {
	// Open lets requests go anywhere, to the server's own machine as well.
	Open bool
	// Timeout is for tasks without one of their own; 30 s, which is Argo's.
	Timeout time.Duration
	// MaxBody is how many bytes of an answer become a result; 1 MiB. A longer
	// answer is an error: it is to be fetched as an artifact.
	MaxBody int64
}

// A Judge decides by a condition whether an answer is a success. "" is no
// condition.
type Judge func(condition string, status int, body string, headers map[string]string) (bool, error)

// Client makes requests. It is safe for concurrent use.
type Client struct {
	cfg   Config
	judge Judge
	http  *http.Client
}

const maxRedirects = 10

// New makes a client; a nil judge takes 2xx for a success, and no conditions.
func New(cfg Config, judge Judge) *Client {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = 1 << 20
	}
	if judge == nil {
		judge = good
	}
	return &Client{cfg: cfg, judge: judge, http: &http.Client{Transport: outbound.Transport(cfg.Open), CheckRedirect: redirect}}
}

func good(condition string, status int, _ string, _ map[string]string) (bool, error) {
	if condition != "" {
		return false, fmt.Errorf("nobody here can judge %.80q", condition)
	}
	return status/100 == 2, nil
}

// redirect leaves behind what a user wrote for another host.
func redirect(r *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("it was redirected %d times", maxRedirects)
	}
	if first := via[0].URL; r.URL.Host != first.Host || r.URL.Scheme != first.Scheme && r.URL.Scheme != "https" {
		r.Header = http.Header{}
		r.URL.User = nil
	}
	return nil
}

// Do makes a request and waits for its answer, at most for the timeout (0: the
// client's). An answer that is no success is Failed; no answer, or one that
// cannot be a result, is Errored. The task of a context that has ended is
// Canceled. The result is the answer's body.
func (c *Client) Do(ctx context.Context, h *task.HTTP, timeout time.Duration) task.Outcome {
	if timeout <= 0 {
		timeout = c.cfg.Timeout
	}
	asking, end := context.WithTimeout(ctx, timeout)
	defer end()
	status, body, headers, err := c.ask(asking, h)
	switch {
	case ctx.Err() != nil:
		return task.Outcome{Phase: task.Canceled, Exit: -1, Message: context.Cause(ctx).Error()}
	case asking.Err() != nil:
		return task.Outcome{Phase: task.Failed, Exit: -1, Message: fmt.Sprintf("no whole answer within %v", timeout)}
	case err != nil:
		return task.Outcome{Phase: task.Errored, Exit: -1, Message: err.Error()}
	}
	o := task.Outcome{Phase: task.Succeeded, Exit: -1, Outputs: map[string]task.Produced{task.Result: {Text: &body}}}
	ok, err := c.judge(h.Success, status, body, headers)
	said := fmt.Sprintf("the answer is %d %s", status, http.StatusText(status))
	switch {
	case err != nil:
		o.Phase, o.Message = task.Errored, fmt.Sprintf("%s: %v", said, err)
	case !ok && h.Success != "":
		o.Phase, o.Message = task.Failed, fmt.Sprintf("%s, and its successCondition is false: %s", said, h.Success)
	case !ok:
		o.Phase, o.Message = task.Failed, said
	}
	return o
}

func (c *Client) ask(ctx context.Context, h *task.HTTP) (status int, body string, headers map[string]string, err error) {
	r, err := request(ctx, h)
	if err != nil {
		return 0, "", nil, err
	}
	a, err := c.http.Do(r)
	if err != nil {
		return 0, "", nil, err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(io.LimitReader(a.Body, c.cfg.MaxBody+1))
	switch {
	case err != nil:
		return 0, "", nil, fmt.Errorf("read the answer of %s: %w", r.URL.Redacted(), err)
	case int64(len(b)) > c.cfg.MaxBody:
		return 0, "", nil, fmt.Errorf("the answer of %s has more than %d bytes: fetch it as an artifact of the kind http", r.URL.Redacted(), c.cfg.MaxBody)
	case !utf8.Valid(b):
		return 0, "", nil, fmt.Errorf("the answer of %s is not text: fetch it as an artifact of the kind http", r.URL.Redacted())
	}
	headers = make(map[string]string, len(a.Header))
	for k, v := range a.Header {
		headers[k] = strings.Join(v, ", ")
	}
	return a.StatusCode, string(b), headers, nil
}

// request checks what a user wrote, because it may hold values that the
// program of a task made.
func request(ctx context.Context, h *task.HTTP) (*http.Request, error) {
	u, err := url.Parse(h.URL)
	if err != nil {
		return nil, err // it names the text
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("%.200q: say http://HOST/… or https://HOST/…", u.Redacted())
	}
	method := strings.ToUpper(h.Method)
	if method == http.MethodConnect {
		return nil, errors.New("CONNECT opens a tunnel, which nobody would use")
	}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), strings.NewReader(h.Body))
	if err != nil {
		return nil, err
	}
	for k, v := range h.Headers {
		if strings.EqualFold(k, "Host") {
			r.Host = v
			continue
		}
		r.Header.Set(k, v)
	}
	return r, nil
}
