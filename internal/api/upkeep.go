package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
)

func (a *API) upkeepRoutes() {
	huma.Register(a.huma, op("status", http.MethodGet, "/api/v1/status", "upkeep", "How the server is doing, and what holds retention up"), a.status)
	huma.Register(a.huma, op("version", http.MethodGet, "/api/v1/version", "upkeep", "What runs"), a.version)
	scrub := op("scrub", http.MethodPost, "/api/v1/scrub", "upkeep", "Read everything that is stored and compare it with its digest")
	scrub.Description = "One JSON object per line: {\"progress\": {\"done\", \"total\"}} in bytes as it goes, then {\"end\": report}, or {\"error\": problem}."
	huma.Register(a.huma, scrub, a.scrub)
}

func (a *API) version(context.Context, *struct{}) (*output[wire.Version], error) {
	return &output[wire.Version]{a.Version}, nil
}

func (a *API) status(ctx context.Context, _ *struct{}) (*output[wire.Status], error) {
	if err := a.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	st, err := a.Content.Stats(ctx)
	if err != nil {
		return nil, a.problem(err, "count images")
	}
	return &output[wire.Status]{wire.Status{Version: a.Version, Now: a.Clock.Now(), Open: a.Open, Retention: a.Retention.Status(),
		Content: st, Reporters: len(a.Ledger.Reporters()), Silent: a.reporters(true)}}, nil
}

func (a *API) scrub(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
	if err := a.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	return a.stream(func(ctx context.Context, line func(any)) {
		rep, err := a.Content.Scrub(ctx, func(done, total int64) { line(progressLine{wire.Progress{Done: done, Total: total}}) })
		if err != nil {
			line(errorLine{asProblem(a.problem(err, "scrub"))})
			return
		}
		line(endLine{rep})
	}), nil
}
