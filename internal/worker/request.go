package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"cairn.dev/cairn/internal/task"
)

// Requests is a [Runner] that has the server make the requests which are tasks,
// because only the server may: it knows where none go, and how their answers
// are judged. Another Runner runs all other tasks.
type Requests struct {
	Runner
	Server Requester
}

// A Requester makes the request that a task is.
type Requester interface {
	Request(ctx context.Context, holder task.Ref) (task.Outcome, error)
}

// Run implements [Runner].
func (r Requests) Run(ctx context.Context, slot int, j Job) task.Outcome {
	if j.Task.HTTP == nil {
		return r.Runner.Run(ctx, slot, j)
	}
	o, err := r.Server.Request(ctx, j.Lease.Ref)
	if err != nil {
		var refused *Refusal
		o = task.Outcome{Phase: task.Errored, Exit: -1, Message: err.Error(), Infrastructure: !errors.As(err, &refused) || refused.Status/100 != 4}
	}
	if ctx.Err() != nil {
		return Ended(ctx, o)
	}
	return o
}

// Request implements [Requester]. It waits as long as the task may take.
func (h *HTTP) Request(ctx context.Context, holder task.Ref) (o task.Outcome, err error) {
	b, err := json.Marshal(holder)
	if err != nil {
		return o, err
	}
	return o, h.answer(ctx, http.MethodPost, task.PathRequest, http.Header{"Content-Type": {"application/json"}}, bytes.NewReader(b), &o)
}

var _ Requester = (*HTTP)(nil)
