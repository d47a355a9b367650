package rest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/forge"
)

const (
	// busyPause is for forges that want to be left alone and do not say how long.
	busyPause = time.Minute
	// maxBusyPause is the longest that is believed: GitHub's window is an hour.
	maxBusyPause = 2 * time.Hour
)

// A StatusError is a refusal with its status. It unwraps to the error of
// package forge that says what to do.
type StatusError struct {
	Status  int
	Message string // the forge's, cut short
	Header  http.Header
	what    string // "POST /repos/…: git.example.org answers"
	is      error
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s %d %s", e.what, e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		s += fmt.Sprintf(" (%s)", e.Message)
	}
	return s + ": " + e.is.Error()
}

func (e *StatusError) Unwrap() error { return e.is }

// Status is the status of the refusal in err; 0 when there is none.
func Status(err error) int {
	if s := (*StatusError)(nil); errors.As(err, &s) {
		return s.Status
	}
	return 0
}

// Says reports whether the forge's message in err contains one of the phrases,
// in any case.
func Says(err error, phrases ...string) bool {
	s := (*StatusError)(nil)
	if !errors.As(err, &s) {
		return false
	}
	m := strings.ToLower(s.Message)
	for _, p := range phrases {
		if strings.Contains(m, p) {
			return true
		}
	}
	return false
}

// errLater is what a status that passes unwraps to; the LaterError around it decides.
var errLater = errors.New("try again later")

// refusal makes an error of an answer.
func (c *Client) refusal(r Request, resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	e := &StatusError{Status: resp.StatusCode, Header: resp.Header, Message: hide(resp.Request.Header, message(resp.Header.Get("Content-Type"), body)),
		what: fmt.Sprintf("%s %s: %s answers", r.method(), c.name(r), c.Host)}
	wait := c.wait(resp)
	if wait == 0 && e.Status == http.StatusForbidden && strings.Contains(strings.ToLower(e.Message), "rate limit") {
		wait = busyPause // GitHub's second kind of limit does not always say how long
	}
	switch s := resp.StatusCode; {
	case s == http.StatusTooManyRequests || s == http.StatusForbidden && wait > 0:
		if wait == 0 {
			wait = busyPause
		}
		c.rest.until(c.Clock.Mono() + wait)
		e.is = errLater
		return &forge.LaterError{After: wait, Err: e}
	case s >= 500 || s == http.StatusRequestTimeout || s == http.StatusTooEarly:
		e.is = errLater
		if c.Classify != nil {
			if is := c.Classify(e); is != nil {
				e.is = is
				return e
			}
		}
		return &forge.LaterError{After: wait, Err: e}
	}
	if c.Classify != nil {
		e.is = c.Classify(e)
	}
	if e.is == nil {
		e.is = meaning(resp.StatusCode)
	}
	return e
}

// meaning is what a status says at every forge.
func meaning(status int) error {
	switch status {
	case http.StatusUnauthorized:
		return forge.ErrUnauthorized
	case http.StatusForbidden:
		return forge.ErrForbidden
	case http.StatusNotFound, http.StatusGone:
		return forge.ErrNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return forge.ErrMoved
	case http.StatusLocked, http.StatusUnavailableForLegalReasons:
		return forge.ErrArchived
	}
	if status/100 == 3 {
		return fmt.Errorf("it was renamed, or the URL is another one: %w", forge.ErrNotFound)
	}
	return forge.ErrInvalid
}

// message is what a forge says about a refusal: of JSON its message, of other
// text the beginning, of HTML nothing.
func message(contentType string, body []byte) string {
	var said []string
	var add func(v any)
	add = func(v any) {
		switch v := v.(type) {
		case string:
			said = append(said, v)
		case []any:
			for _, v := range v {
				add(v)
			}
		case map[string]any:
			for _, k := range []string{"message", "error_description", "error", "errors", "base"} {
				add(v[k])
			}
		}
	}
	if strings.Contains(contentType, "json") {
		var v any
		if json.Unmarshal(body, &v) == nil {
			add(v)
		}
	} else if strings.HasPrefix(contentType, "text/plain") {
		said = append(said, string(body))
	}
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.Join(said, "; "))
	return fmt.Sprintf("%.300s", strings.TrimSpace(clean))
}

// hide takes out of a forge's words what we signed on with.
func hide(sent http.Header, s string) string {
	for _, h := range signs() {
		words := strings.Fields(sent.Get(h))
		if len(words) == 0 {
			continue
		}
		secret := words[len(words)-1]
		if len(secret) < 4 {
			continue
		}
		s = strings.ReplaceAll(s, secret, "***")
		if plain, err := base64.StdEncoding.DecodeString(secret); err == nil { // Basic
			if _, password, ok := strings.Cut(string(plain), ":"); ok && len(password) >= 4 {
				s = strings.ReplaceAll(s, password, "***")
			}
		}
	}
	return s
}

// signs are the headers that show who we are.
func signs() []string { return []string{"Authorization", "Private-Token"} }

// wait is how long the forge asks to be left alone: Retry-After in both of its
// forms (RFC 9110, 10.2.3), or the end of its window (X-RateLimit-Reset of
// GitHub and Gitea, RateLimit-Reset of GitLab) when nothing is left in it.
func (c *Client) wait(resp *http.Response) time.Duration {
	h := resp.Header
	wait := time.Duration(0)
	if n, err := strconv.ParseUint(h.Get("Retry-After"), 10, 31); err == nil {
		wait = max(time.Duration(n)*time.Second, time.Second)
	} else if at, err := http.ParseTime(h.Get("Retry-After")); err == nil {
		wait = max(at.Sub(c.Clock.Now()), time.Second)
	} else {
		for _, prefix := range []string{"X-RateLimit-", "RateLimit-"} {
			if reset, err := strconv.ParseInt(h.Get(prefix+"Reset"), 10, 64); err == nil && h.Get(prefix+"Remaining") == "0" {
				wait = max(time.Unix(reset, 0).Sub(c.Clock.Now()), time.Second)
			}
		}
	}
	return min(wait, maxBusyPause)
}

// unanswered is a request without an answer.
func (c *Client) unanswered(r Request, err error) error {
	if ue := (*url.Error)(nil); errors.As(err, &ue) {
		err = ue.Err // it repeats the URL, query and all
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s %s: was not waited for: %w", r.method(), c.name(r), context.Canceled)
	}
	return &forge.LaterError{Err: fmt.Errorf("%s %s: %s does not answer: %w", r.method(), c.name(r), c.Host, err)}
}

// quiet is a time in which nobody is asked.
type quiet struct {
	mu  sync.Mutex
	end time.Duration
}

func (q *quiet) until(end time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.end = max(q.end, end)
}

func (q *quiet) left(now time.Duration) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.end - now
}

const (
	maxKnown      = 500
	maxKnownBytes = 32 << 10
)

// known are answers that the forge may say are still true: GitHub does not
// count such questions.
type known struct {
	mu      sync.Mutex
	entries map[string]entry
}

type entry struct {
	etag string
	answer
}

func (k *known) get(key string) (entry, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, ok := k.entries[key]
	return e, ok && key != ""
}

func (k *known) put(key string, e entry) {
	if len(e.body) > maxKnownBytes {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.entries[key]; !ok && len(k.entries) >= maxKnown {
		for other := range k.entries { // any: it costs one question
			delete(k.entries, other)
			break
		}
	}
	k.entries[key] = e
}
