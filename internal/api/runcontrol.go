package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/workflow"
)

// RunControl is what is done to runs.
type RunControl interface {
	Cancel(ctx context.Context, id, by string, now bool) error
	Suspend(ctx context.Context, id string) error
	Resume(ctx context.Context, id, node string, outputs map[string]workflow.Value, fail bool, message string) error
	Retry(ctx context.Context, id string) error
	Resubmit(ctx context.Context, id, by string) (string, error)
	Delete(ctx context.Context, id string) error
}

func (a *API) controlRoutes() {
	route := func(verb, summary string) huma.Operation {
		return op(verb+"-run", http.MethodPost, "/api/v1/runs/{id}/"+verb, "runs", summary, 400, 404, 409)
	}
	huma.Register(a.huma, route("cancel", "End a run: its tasks are told to end, then its exit handlers run"), a.cancelRun)
	huma.Register(a.huma, route("retry", "Begin what failed of an ended run again; what went well stays"), a.retryRun)
	huma.Register(a.huma, route("suspend", "Begin no more tasks of a run"), a.suspendRun)
	huma.Register(a.huma, route("resume", "Go on with a run, or with a node that waits for somebody"), a.resumeRun)
	huma.Register(a.huma, route("resubmit", "Start a new run of the same documents and arguments"), a.resubmitRun)
	huma.Register(a.huma, op("delete-run", http.MethodDelete, "/api/v1/runs/{id}", "runs", "Forget an ended run, its logs and its files", 404, 409), a.deleteRun)
}

// controlled does something to a run and answers with how it is then.
func (a *API) controlled(ctx context.Context, id, verb string, f func() error) (*output[wire.Run], error) {
	i, err := a.seen(ctx, id, verb+" run")
	if err != nil {
		return nil, err
	}
	if err := f(); err != nil {
		if errors.Is(err, work.ErrNotFound) && !i.Ended.IsZero() { // it is none of those that can be controlled
			return nil, refuse(http.StatusConflict, "", "%s run %s: it has ended: %s", verb, id, i.Phase)
		}
		return nil, a.runProblem(err, verb+" run "+id)
	}
	i, err = a.Work.Get(ctx, id)
	if err != nil {
		return nil, a.runProblem(err, "look at run "+id)
	}
	return &output[wire.Run]{runOf(i)}, nil
}

type cancelInput struct {
	ID   string `path:"id" maxLength:"64"`
	Body *wire.CancelRequest
}

func (a *API) cancelRun(ctx context.Context, in *cancelInput) (*output[wire.Run], error) {
	now := in.Body != nil && in.Body.Now
	return a.controlled(ctx, in.ID, "cancel", func() error { return a.Work.Cancel(ctx, in.ID, actor(ctx), now) })
}

func (a *API) retryRun(ctx context.Context, in *runInput) (*output[wire.Run], error) {
	return a.controlled(ctx, in.ID, "retry", func() error { return a.Work.Retry(ctx, in.ID) })
}

func (a *API) suspendRun(ctx context.Context, in *runInput) (*output[wire.Run], error) {
	return a.controlled(ctx, in.ID, "suspend", func() error { return a.Work.Suspend(ctx, in.ID) })
}

type resumeInput struct {
	ID   string `path:"id" maxLength:"64"`
	Body *wire.ResumeRequest
}

func (a *API) resumeRun(ctx context.Context, in *resumeInput) (*output[wire.Run], error) {
	r := wire.ResumeRequest{}
	if in.Body != nil {
		r = *in.Body
	}
	if r.Node == "" && (len(r.Outputs) > 0 || r.Fail) {
		return nil, refuse(http.StatusBadRequest, "name the node that waits (`cairn runs get "+in.ID+"` shows it)", "resume run %s: values and failing are of a node", in.ID)
	}
	outputs := map[string]workflow.Value{}
	for k, v := range r.Outputs {
		outputs[k] = v
	}
	return a.controlled(ctx, in.ID, "resume", func() error {
		return a.Work.Resume(ctx, in.ID, r.Node, outputs, r.Fail, r.Message)
	})
}

func (a *API) resubmitRun(ctx context.Context, in *runInput) (*output[wire.Submitted], error) {
	if _, err := a.seen(ctx, in.ID, "resubmit run"); err != nil {
		return nil, err
	}
	id, err := a.Work.Resubmit(ctx, in.ID, actor(ctx))
	if err != nil {
		return nil, a.runProblem(err, "resubmit run "+in.ID)
	}
	i, err := a.Work.Get(ctx, id)
	if err != nil {
		return nil, a.runProblem(err, "look at run "+id)
	}
	return &output[wire.Submitted]{wire.Submitted{ID: id, Name: i.Name, Namespace: i.Namespace}}, nil
}

func (a *API) deleteRun(ctx context.Context, in *runInput) (*struct{}, error) {
	if _, err := a.seen(ctx, in.ID, "delete run"); err != nil {
		return nil, err
	}
	if err := a.Work.Delete(ctx, in.ID); err != nil {
		return nil, a.runProblem(err, "delete run "+in.ID)
	}
	return nil, nil
}
