package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/reap"
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/upstream"
)

// A Reaper applies retention to other registries. *reap.Reaper is one.
type Reaper interface {
	Run(ctx context.Context, q reap.Request, sink reap.Sink) (reap.Summary, error)
	Deleted(ctx context.Context, registry string, f func(reap.Record) error) error
	Undo(ctx context.Context, a reap.Account, r reap.Record) (reap.Undone, error)
}

func (a *API) reapRoutes() {
	run := op("reap", http.MethodPost, "/api/v1/reap", "retention", "What retention would do at another registry, or do it", 400, 409)
	run.Description = "One JSON object per line: {\"item\": decision} for each image, {\"skipped\": …} for what stays for a reason, {\"deleted\": record} for what went, then {\"end\": summary}, or {\"error\": problem} where it broke off."
	huma.Register(a.huma, run, a.reap)
	deleted := op("list-reaped", http.MethodGet, "/api/v1/reap/deleted", "retention", "What was deleted from other registries within 90 days, newest first", 400)
	deleted.Description = "One JSON object per line: {\"deleted\": record}, then {\"end\": {}}, or {\"error\": problem}."
	huma.Register(a.huma, deleted, a.reapDeleted)
	undo := op("reap-undo", http.MethodPost, "/api/v1/reap/undo", "retention", "Push an image again that was deleted from another registry", 400, 409, 502)
	undo.MaxBodyBytes = 8 << 20 // a manifest in base64
	huma.Register(a.huma, undo, a.reapUndo)
}

func (a *API) reap(ctx context.Context, in *input[wire.ReapRequest]) (*huma.StreamResponse, error) {
	if err := a.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	if a.Reaper == nil {
		return nil, refuse(http.StatusNotFound, "", "this server does not reap")
	}
	q := in.Body
	return a.stream(func(ctx context.Context, line func(any)) {
		sum, err := a.Reaper.Run(ctx, reap.Request{Account: accountOf(q.ReapAccount), Repositories: q.Repositories, Delete: q.Yes && !q.DryRun, PerHour: q.PerHour},
			&reapLines{ctx: ctx, all: q.All, line: line})
		if err != nil {
			line(errorLine{asProblem(a.reapProblem(err, "reap "+q.Registry))})
			return
		}
		line(endLine{sum})
	}), nil
}

func accountOf(a wire.ReapAccount) reap.Account {
	return reap.Account{Registry: a.Registry, Username: a.Username, Password: a.Password}
}

// reapLines writes what happens.
type reapLines struct {
	ctx  context.Context
	all  bool
	line func(any)
}

type (
	reapItemLine struct {
		Item wire.ReapDecision `json:"item"`
	}
	reapSkippedLine struct {
		Skipped reap.Skipped `json:"skipped"`
	}
	reapDeletedLine struct {
		Deleted reap.Record `json:"deleted"`
	}
)

func (l *reapLines) Decided(d *reap.Decision) error {
	if l.all || d.Action != retention.Keep {
		w := wire.ReapDecision{Decision: decisionOf(&d.Decision), FirstSeen: d.FirstSeen}
		w.Reason = d.Reason()
		l.line(reapItemLine{w})
	}
	return l.ctx.Err()
}

func (l *reapLines) Skipped(s reap.Skipped) error {
	l.line(reapSkippedLine{s})
	return l.ctx.Err()
}

func (l *reapLines) Deleted(r reap.Record) error {
	l.line(reapDeletedLine{r})
	return l.ctx.Err()
}

type reapDeletedInput struct {
	Registry string `query:"registry" doc:"URL of the registry; all when left out"`
}

func (a *API) reapDeleted(ctx context.Context, in *reapDeletedInput) (*huma.StreamResponse, error) {
	if err := a.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	if a.Reaper == nil {
		return nil, refuse(http.StatusNotFound, "", "this server does not reap")
	}
	return a.stream(func(ctx context.Context, line func(any)) {
		err := a.Reaper.Deleted(ctx, in.Registry, func(r reap.Record) error {
			line(reapDeletedLine{r})
			return ctx.Err()
		})
		if err != nil {
			line(errorLine{asProblem(a.reapProblem(err, "list what was deleted"))})
			return
		}
		line(endLine{struct{}{}})
	}), nil
}

func (a *API) reapUndo(ctx context.Context, in *input[wire.ReapUndo]) (*output[wire.ReapUndone], error) {
	if err := a.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	if a.Reaper == nil {
		return nil, refuse(http.StatusNotFound, "", "this server does not reap")
	}
	u, err := a.Reaper.Undo(ctx, accountOf(in.Body.ReapAccount), in.Body.Record)
	if err != nil {
		return nil, a.reapProblem(err, "undo")
	}
	return &output[wire.ReapUndone]{u}, nil
}

func (a *API) reapProblem(err error, tried string) error {
	switch {
	case errors.Is(err, reap.ErrRequest):
		return refuse(http.StatusBadRequest, "", "%s: %v", tried, err)
	case errors.Is(err, reap.ErrRunning), errors.Is(err, reap.ErrBlobs):
		return refuse(http.StatusConflict, "", "%s: %v", tried, err)
	}
	if _, ok := errors.AsType[*upstream.Error](err); ok {
		return refuse(http.StatusBadGateway, "", "%s: %v", tried, err)
	}
	return a.problem(err, "%s", tried)
}
