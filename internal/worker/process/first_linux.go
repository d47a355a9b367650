package process

import (
	"context"
	"fmt"
	"sync/atomic"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
)

// first ends a worker that does not trust its server from the beginning: trying
// again would not help. Once they have met, a certificate that is wrong is one
// of the things that pass.
type first struct {
	*worker.HTTP
	met atomic.Bool
	end context.CancelCauseFunc
}

// Ask implements [worker.Server].
func (f *first) Ask(ctx context.Context, a task.Ask) (task.Grant, error) {
	g, err := f.HTTP.Ask(ctx, a)
	switch {
	case err == nil:
		f.met.Store(true)
	case !f.met.Load() && worker.Distrusted(err):
		f.end(fmt.Errorf("%w; name the certificate of its CA: work.clusters[].ca_file in the server's configuration for workers in pods, SSL_CERT_FILE for others", err))
	}
	return g, err
}
