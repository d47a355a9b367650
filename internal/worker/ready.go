package worker

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cairn.dev/cairn/internal/task"
)

// ready waits until the program of a daemon is ready, as its probe says, and
// reports whether it ever was. The rules are those of a readinessProbe of
// Kubernetes: what fails is asked again, for as long as the program runs.
func (x *Executor) ready(s Setting, j Job, over <-chan struct{}) bool {
	p := j.Task.Ready
	if p == nil {
		return true
	}
	ctx, end := context.WithCancel(context.Background())
	defer end()
	go func() {
		select {
		case <-over:
			end()
		case <-ctx.Done():
		}
	}()
	wait, good := p.Delay, 0
	for {
		if wait > 0 {
			select {
			case <-over:
				return false
			case <-x.Clock.After(wait):
			}
		}
		if err := probe(ctx, s, j.Address, p); err == nil {
			good++
		} else {
			good = 0
		}
		if ctx.Err() != nil {
			return false
		}
		if good >= max(p.Times, 1) {
			return true
		}
		wait = cmp.Or(p.Period, time.Second)
	}
}

// probe asks once.
func probe(ctx context.Context, s Setting, address string, p *task.Probe) error {
	ctx, end := context.WithTimeout(ctx, cmp.Or(p.Timeout, time.Second))
	defer end()
	at := net.JoinHostPort(cmp.Or(p.Host, address), strconv.Itoa(p.Port))
	switch {
	case len(p.Exec) > 0:
		if s.Exec == nil {
			return errors.New("no program can be run beside the task's here")
		}
		return s.Exec(ctx, p.Exec)
	case p.HTTP != "":
		return probeHTTP(ctx, at, p)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", at)
	if err != nil {
		return err
	}
	return c.Close()
}

// probeHTTP asks a server. Like a kubelet's, the question is whether it answers,
// and not who it is: certificates are not checked, and nothing secret is sent.
func probeHTTP(ctx context.Context, at string, p *task.Probe) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.HTTP+"://"+at+"/"+strings.TrimPrefix(p.Path, "/"), nil)
	if err != nil {
		return err
	}
	for k, v := range p.Headers {
		if http.CanonicalHeaderKey(k) == "Host" {
			r.Host = v
		}
		r.Header.Set(k, v)
	}
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // see above
	c := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := c.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 10<<10)
	if answer.StatusCode < 200 || answer.StatusCode >= 400 {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	return nil
}
