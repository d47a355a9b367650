package resource

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"cairn.dev/cairn/internal/clock"
)

const (
	callTimeout = 30 * time.Second
	maxAnswer   = 16 << 20 // of one request
	maxStatus   = 64 << 10 // of one that was refused
	minWait     = 500 * time.Millisecond
	maxWait     = 15 * time.Second
	maxAfter    = time.Minute // of a wait that the API server asks for
	// patience is how long an API server is asked that does not answer; brief is
	// it where something answers in its place that it cannot do it.
	patience = 10 * time.Minute
	brief    = 30 * time.Second
)

// errAway means that the API server did not answer for so long that another
// worker may try.
var errAway = errors.New("the API server cannot be reached")

// object is one of Kubernetes, as JSON has it.
type object = map[string]any

// api asks the API server. It is safe for concurrent use.
type api struct {
	account *Account
	clock   clock.Clock

	known atomic.Bool // the API server has answered

	mu    sync.Mutex
	kinds map[string]found // what was found out about kinds
}

// call is one request.
type call struct {
	method, path string
	query        url.Values
	form         string // of the body
	body         []byte
}

// A refusal is an answer that is not the one asked for, in the API server's own
// words.
type refusal struct {
	code    int
	reason  string
	message string
	after   time.Duration // that it asks to wait
}

func (r *refusal) Error() string {
	if r.message == "" {
		return fmt.Sprintf("the API server answers %d %s", r.code, http.StatusText(r.code))
	}
	return fmt.Sprintf("%s (%d)", r.message, r.code)
}

// refused reports whether the API server answered with this code.
func refused(err error, code int) bool {
	var r *refusal
	return errors.As(err, &r) && r.code == code
}

// trial is how long a request is made again that was answered like this; 0: it
// is not.
func (r *refusal) trial() time.Duration {
	switch r.code {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return patience
	case http.StatusInternalServerError, http.StatusRequestTimeout:
		return brief
	}
	return 0
}

// do makes a request until it is answered, and reads the answer into out.
func (a *api) do(ctx context.Context, c call, out any, say func(string, ...any)) error {
	begun := a.clock.Mono()
	for wait := minWait; ; wait = min(2*wait, maxWait) {
		err := a.once(ctx, c, out)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		limit, d := patience, jitter(wait)
		if r, ok := errors.AsType[*refusal](err); ok {
			if limit = r.trial(); limit == 0 {
				return err
			}
			d = max(d, min(r.after, maxAfter))
		} else if _, is := errors.AsType[*unreached](err); is && !a.known.Load() {
			limit = acquaintance
		}
		if a.clock.Mono()-begun+d > limit {
			return fmt.Errorf("%w: %s %s: %w", errAway, c.method, c.path, err)
		}
		say("%s %s: %v; again in %v", c.method, c.path, err, d.Round(100*time.Millisecond))
		if clock.Sleep(ctx, a.clock, d) != nil {
			return context.Cause(ctx)
		}
	}
}

// jitter spreads those that lost the server at the same moment.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// once makes a request.
func (a *api) once(ctx context.Context, c call, out any) error {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	resp, err := a.send(ctx, c)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if len(b) > maxAnswer {
		return &refusal{code: resp.StatusCode, message: fmt.Sprintf("the answer has more than %d bytes", maxAnswer)}
	}
	return decode(b, out)
}

// send makes a request and returns an answer that is none of refusal.
func (a *api) send(ctx context.Context, c call) (*http.Response, error) {
	at := a.account.URL + c.path
	if len(c.query) > 0 {
		at += "?" + c.query.Encode()
	}
	var body io.Reader
	if c.body != nil {
		body = bytes.NewReader(c.body)
	}
	req, err := http.NewRequestWithContext(ctx, c.method, at, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "cairn-worker")
	if c.form != "" {
		req.Header.Set("Content-Type", c.form)
	}
	if a.account.Token != nil {
		token, err := a.account.Token()
		if err != nil {
			return nil, err
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
	}
	resp, err := dial(a.account.Client, req)
	if err != nil {
		return nil, err
	}
	a.known.Store(true)
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	r := &refusal{code: resp.StatusCode}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		r.after = time.Duration(min(s, 3600)) * time.Second
	}
	var status struct{ Reason, Message string }
	if b, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus)); err == nil && json.Unmarshal(b, &status) == nil {
		r.reason, r.message = status.Reason, status.Message
	}
	return nil, r
}

// decode reads JSON whose numbers stay as they are written.
func decode(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}
