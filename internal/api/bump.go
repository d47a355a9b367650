package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/bump"
)

// A Bumper moves code to newer images. *bump.Engine is one.
type Bumper interface {
	Repository(name string) (bump.RepositoryStatus, error)
	Status(f func(bump.RepositoryStatus) error) error
	Check(ctx context.Context, name string) error
}

func (a *API) bumpRoutes() {
	status := op("bump-status", http.MethodGet, "/api/v1/bump/status", "bump", "Why there is a pull request, or none, for every image of every repository of code", 404)
	status.Description = "One JSON object per line: {\"item\": repository} for each repository of code, then {\"end\": {}}, or {\"error\": problem}."
	huma.Register(a.huma, status, a.bumpStatus)
	check := op("bump-check", http.MethodPost, "/api/v1/bump/check", "bump", "Look at a repository of code now, or at all, and do what is to be done", 404)
	check.Description = "Answers when it is done, as the status does. A repository that could not be looked at says so in its error."
	huma.Register(a.huma, check, a.bumpCheck)
}

type bumpStatusInput struct {
	Repository string `query:"repository" maxLength:"600" doc:"forge/owner/name, or owner/name where only one forge has it; all when left out"`
}

type bumpItemLine struct {
	Item wire.BumpRepository `json:"item"`
}

func (a *API) bumpStatus(ctx context.Context, in *bumpStatusInput) (*huma.StreamResponse, error) {
	// What code names may be anybody's image.
	if err := a.mayBump(ctx, access.Pull); err != nil {
		return nil, err
	}
	return a.bumpLines(in.Repository)
}

func (a *API) bumpCheck(ctx context.Context, in *input[wire.BumpCheck]) (*huma.StreamResponse, error) {
	if err := a.mayBump(ctx, access.Push); err != nil {
		return nil, err
	}
	// How a pass ended stands in the status; that none was made does not.
	if err := a.Bump.Check(ctx, in.Body.Repository); errors.Is(err, bump.ErrUnknown) || ctx.Err() != nil {
		return nil, a.bumpProblem(err, "check")
	}
	return a.bumpLines(in.Body.Repository)
}

func (a *API) mayBump(ctx context.Context, action access.Action) error {
	if err := a.may(ctx, action, ""); err != nil {
		return err
	}
	if a.Bump == nil {
		return refuse(http.StatusNotFound, "name a forge under bump.forges in the server's configuration", "this server looks at no code")
	}
	return nil
}

func (a *API) bumpLines(name string) (*huma.StreamResponse, error) {
	if name != "" {
		s, err := a.Bump.Repository(name)
		if err != nil {
			return nil, a.bumpProblem(err, "look")
		}
		return a.stream(func(_ context.Context, line func(any)) {
			line(bumpItemLine{s})
			line(endLine{struct{}{}})
		}), nil
	}
	return a.stream(func(ctx context.Context, line func(any)) {
		err := a.Bump.Status(func(s bump.RepositoryStatus) error {
			line(bumpItemLine{s})
			return ctx.Err()
		})
		if err != nil {
			line(errorLine{asProblem(a.bumpProblem(err, "list repositories of code"))})
			return
		}
		line(endLine{struct{}{}})
	}), nil
}

func (a *API) bumpProblem(err error, tried string) error {
	if errors.Is(err, bump.ErrUnknown) {
		return refuse(http.StatusNotFound, "", "%s: %v", tried, err)
	}
	return a.problem(err, "%s", tried)
}
