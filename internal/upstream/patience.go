package upstream

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrStalled means that an upstream stopped sending in the middle.
var ErrStalled = errors.New("nothing came for too long")

// A patientBody is a body whose next bytes have to come in time. What it
// measures is the network's, so the time is the machine's and not a test's.
type patientBody struct {
	io.ReadCloser
	timer *time.Timer
	stall time.Duration
	ctx   context.Context
}

// Patient returns a context for the request whose body will be handed to
// body: it ends when that stalls.
func Patient(ctx context.Context, stall time.Duration) (_ context.Context, body func(io.ReadCloser) io.ReadCloser, cancel func()) {
	ctx, stop := context.WithCancelCause(ctx)
	return ctx, func(r io.ReadCloser) io.ReadCloser {
		return &patientBody{ReadCloser: r, stall: stall, ctx: ctx, timer: time.AfterFunc(stall, func() { stop(ErrStalled) })}
	}, func() { stop(context.Canceled) }
}

func (p *patientBody) Read(b []byte) (int, error) {
	p.timer.Reset(p.stall)
	n, err := p.ReadCloser.Read(b)
	p.timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(p.ctx), ErrStalled) {
		err = ErrStalled
	}
	return n, err
}

func (p *patientBody) Close() error {
	p.timer.Stop()
	return p.ReadCloser.Close()
}
