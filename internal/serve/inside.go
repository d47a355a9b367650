package serve

import (
	"fmt"
	"io"
	"net/http"
	"sync"
)

// inside is a transport to a handler of this process: our own worker comes in
// by the same doors as others do, without a network between.
type inside struct{ handler http.Handler }

// RoundTrip implements [http.RoundTripper]. Bodies are streamed both ways.
func (t inside) RoundTrip(r *http.Request) (*http.Response, error) {
	body, w := io.Pipe()
	a := &answer{header: http.Header{}, body: w, begun: make(chan struct{})}
	in := r.Clone(r.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	in.RequestURI, in.RemoteAddr = in.URL.RequestURI(), "inside"
	go func() {
		var err error
		defer func() {
			if p := recover(); p != nil { // how handlers say that a body is not whole
				err = fmt.Errorf("%v", p)
			}
			_ = in.Body.Close()
			a.end(err)
		}()
		t.handler.ServeHTTP(a, in)
	}()
	select {
	case <-a.begun:
	case <-r.Context().Done():
		_ = body.CloseWithError(r.Context().Err())
		return nil, r.Context().Err()
	}
	if a.failed != nil {
		return nil, a.failed
	}
	return &http.Response{Status: http.StatusText(a.status), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.sent, Body: body, ContentLength: -1, Request: r}, nil
}

// answer is the response of a handler, as its client reads it.
type answer struct {
	header http.Header
	body   *io.PipeWriter
	once   sync.Once
	begun  chan struct{} // closed when the next fields do not change any more
	status int
	sent   http.Header
	failed error
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	a.once.Do(func() {
		a.status, a.sent = status, a.header.Clone()
		close(a.begun)
	})
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

// end is called when the handler has returned, err saying that it broke off.
func (a *answer) end(err error) {
	if err == nil {
		a.WriteHeader(http.StatusOK)
		_ = a.body.Close()
		return
	}
	err = fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
	a.once.Do(func() { a.failed = err; close(a.begun) })
	_ = a.body.CloseWithError(err)
}
