package resource

import (
	"context"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"cairn.dev/cairn/internal/task"
)

// An API server to which there is no connection is asked for a minute, and the
// error says where it should be and what may be in the way. One that has answered
// before is waited for as any.
func TestUnreached(t *testing.T) {
	silent := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	nameless := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "api", IsNotFound: true}}
	}
	dir := t.TempDir()
	s := serveTLS(t, dir)
	for name, c := range map[string]struct {
		transport http.RoundTripper
		url       string
		want      []string
	}{
		"a policy drops it":   {&http.Transport{DialContext: silent}, "https://10.96.0.1:443", []string{"at 10.96.0.1:443", "i/o timeout", "NetworkPolicy"}},
		"nobody listens":      {&http.Transport{}, "https://127.0.0.1:1", []string{"at 127.0.0.1:1", "connection refused", "Service kubernetes"}},
		"no such name":        {&http.Transport{DialContext: nameless}, "https://api:443", []string{"at api:443", "no such host", "DNS"}},
		"somebody in between": {&http.Transport{}, s, []string{"certificate", "in between"}},
	} {
		t.Run(name, func(t *testing.T) {
			clk := quickly()
			begun := clk.Mono()
			j := jobOf(task.Resource{Action: "get", Manifest: configMap("x", "")})
			o := New(&Account{URL: c.url, Namespace: "mine", Client: &http.Client{Transport: c.transport}}, nil, clk).Run(t.Context(), 0, j.Job)
			if took := clk.Mono() - begun; o.Phase != task.Errored || !o.Infrastructure || took > acquaintance || took < acquaintance/4 {
				t.Errorf("%+v after %v", o, took)
			}
			for _, want := range append(c.want, "the API server cannot be reached") {
				if !strings.Contains(o.Message, want) {
					t.Errorf("%q does not say %q", o.Message, want)
				}
			}
			t.Log(o.Message)
		})
	}
	t.Run("it was there", func(t *testing.T) {
		c := serve(t)
		c.put(maps1+"there", object{"metadata": map[string]any{"name": "there"}})
		var away atomic.Bool
		a := c.account()
		a.Client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, at string) (net.Conn, error) {
			if away.Load() {
				return silent(ctx, network, at)
			}
			return (&net.Dialer{}).DialContext(ctx, network, at)
		}}
		clk := quickly()
		r := New(a, nil, clk)
		get := func() task.Outcome {
			j := jobOf(task.Resource{Action: "get", Manifest: configMap("there", "")})
			return r.Run(t.Context(), 0, j.Job)
		}
		if o := get(); o.Phase != task.Succeeded {
			t.Fatalf("%+v", o)
		}
		away.Store(true)
		begun := clk.Mono()
		if o, took := get(), clk.Mono()-begun; o.Phase != task.Errored || took < patience/2 {
			t.Errorf("%+v after %v", o, took)
		}
	})
}
