package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/mirror"
)

// A Mirror brings images of other registries here. *mirror.Mirror is one.
type Mirror interface {
	Pull(ctx context.Context, reference string, platforms []string, told func(done, total int64)) (mirror.Pulled, error)
}

func (a *API) mirrorRoutes() {
	pull := op("mirror-pull", http.MethodPost, "/api/v1/mirror/pull", "upkeep", "Fetch an image of a mirrored registry before anybody needs it")
	pull.Description = "One JSON object per line: {\"progress\": {\"done\", \"total\"}} in bytes as it goes, then {\"end\": what came}, or {\"error\": problem}."
	huma.Register(a.huma, pull, a.mirrorPull)
}

func (a *API) mirrorPull(ctx context.Context, in *input[wire.MirrorPull]) (*huma.StreamResponse, error) {
	if err := a.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	if a.Mirror == nil {
		return nil, refuse(http.StatusNotFound, "name the registry under mirrors in cairn.yaml", "nothing is mirrored here")
	}
	return a.stream(func(ctx context.Context, line func(any)) {
		got, err := a.Mirror.Pull(ctx, in.Body.Ref, in.Body.Platforms, func(done, total int64) { line(progressLine{wire.Progress{Done: done, Total: total}}) })
		if err != nil {
			line(errorLine{asProblem(a.mirrorProblem(err, in.Body.Ref))})
			return
		}
		line(endLine{wire.MirrorPulled{Repository: got.Repository, Tag: got.Tag, Digest: got.Digest, Images: got.Images, Bytes: got.Bytes, Warning: got.Warning}})
	}), nil
}

func (a *API) mirrorProblem(err error, ref string) error {
	e, ok := errors.AsType[*mirror.Error](err)
	if !ok {
		return a.problem(err, "fetch %s", ref)
	}
	status, hint := http.StatusBadGateway, "try again; the server's log says more"
	switch e.Kind {
	case mirror.UnknownHost, mirror.NotFound:
		status, hint = http.StatusNotFound, ""
	case mirror.NotAllowed:
		status, hint = http.StatusForbidden, ""
	case mirror.Busy:
		status, hint = http.StatusTooManyRequests, "wait for as long as it asks"
	}
	return refuse(status, hint, "fetch %s: %v", ref, e)
}
