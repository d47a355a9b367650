package resource

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	// connectTimeout is how long one attempt at a connection takes at most: where
	// a policy drops what is sent there is no answer.
	connectTimeout = 5 * time.Second
	// acquaintance is how long an API server is asked that never answered this
	// worker. One that did has patience: it may be restarted.
	acquaintance = time.Minute
)

// unreached means that there was no connection for a request.
type unreached struct {
	host string // HOST:PORT
	err  error
}

func (u *unreached) Error() string {
	cure := "is it there? Pods find it as the Service kubernetes of namespace default"
	var name *net.DNSError
	var trust *tls.CertificateVerificationError
	var late net.Error
	switch {
	case errors.As(u.err, &name):
		cure = "this pod does not know the name: do its dnsPolicy and the network policies of its namespace let it ask the cluster's DNS?"
	case errors.As(u.err, &trust):
		cure = "what answers there is not what the pod's service account trusts: is something in between?"
	case errors.As(u.err, &late) && late.Timeout():
		cure = "nothing answers: a NetworkPolicy of the namespace has to allow egress there for pods with the label cairn.dev/run"
	}
	return fmt.Sprintf("this pod has no connection to the API server at %s: %v; %s", u.host, u.err, cure)
}

func (u *unreached) Unwrap() error { return u.err }

// dial sends a request. An error is unreached if there was no connection for it.
func dial(client *http.Client, req *http.Request) (*http.Response, error) {
	var connected atomic.Bool
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	resp, err := client.Do(req.WithContext(ctx))
	if err != nil && !connected.Load() && !errors.Is(err, context.Canceled) {
		if of, is := errors.AsType[*url.Error](err); is {
			err = of.Err // who asked what is said already
		}
		return nil, &unreached{req.URL.Host, err}
	}
	return resp, err
}
