package mirror

import (
	"context"
	"errors"
	"io"
	"time"
)

// errStalled means that an upstream stopped sending in the middle.
var errStalled = errors.New("nothing came for too long")

// A patientBody is a body whose next bytes have to come in time. What it
// measures is the network's, so the time is the machine's and not a test's.
type patientBody struct {
	io.ReadCloser
	timer *time.Timer
	stall time.Duration
	ctx   context.Context
}

// patient returns a context for the request whose body will be handed to
// body: it ends when that stalls.
func patient(ctx context.Context, stall time.Duration) (_ context.Context, body func(io.ReadCloser) io.ReadCloser, cancel func()) {
	ctx, stop := context.WithCancelCause(ctx)
	return ctx, func(r io.ReadCloser) io.ReadCloser {
		return &patientBody{ReadCloser: r, stall: stall, ctx: ctx, timer: time.AfterFunc(stall, func() { stop(errStalled) })}
	}, func() { stop(context.Canceled) }
}

func (p *patientBody) Read(b []byte) (int, error) {
	p.timer.Reset(p.stall)
	n, err := p.ReadCloser.Read(b)
	p.timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(p.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

func (p *patientBody) Close() error {
	p.timer.Stop()
	return p.ReadCloser.Close()
}
