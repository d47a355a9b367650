package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
)

func (a *API) accessRoutes() {
	huma.Register(a.huma, op("list-tokens", http.MethodGet, "/api/v1/tokens", "access", "List accounts, without their secrets"), a.listTokens)
	huma.Register(a.huma, op("create-token", http.MethodPost, "/api/v1/tokens", "access", "Make an account; its secret is shown in this answer only", 400, 409), a.createToken)
	huma.Register(a.huma, op("reset-token", http.MethodPost, "/api/v1/tokens/{name}/reset", "access", "Give an account a new secret; the old one stops working at once", 404), a.resetToken)
	huma.Register(a.huma, op("revoke-token", http.MethodDelete, "/api/v1/tokens/{name}", "access", "End an account and everything signed on with it", 404, 409), a.revokeToken)
}

// mayAccounts: accounts exist only where sign-on does.
func (a *API) mayAccounts(ctx context.Context) error {
	if a.Open {
		return refuse(http.StatusConflict, "start the server without --open to have accounts", "the server runs with --open: everybody may do everything and there are no accounts")
	}
	return a.may(ctx, access.Admin, "")
}

func (a *API) listTokens(ctx context.Context, _ *struct{}) (*output[wire.TokenList], error) {
	if err := a.mayAccounts(ctx); err != nil {
		return nil, err
	}
	l, err := a.Guard.List(ctx)
	if err != nil {
		return nil, a.problem(err, "list accounts")
	}
	return &output[wire.TokenList]{wire.TokenList{Now: a.Clock.Now(), Tokens: notNil(l)}}, nil
}

func (a *API) createToken(ctx context.Context, in *input[wire.NewToken]) (*output[wire.CreatedToken], error) {
	if err := a.mayAccounts(ctx); err != nil {
		return nil, err
	}
	n := access.NewAccount{Name: in.Body.Name, Kind: access.Kind(in.Body.Kind), Grants: in.Body.Grants, Uncounted: in.Body.NoUse}
	if n.Kind == "" {
		n.Kind = access.KindRobot
	}
	if in.Body.Expires > 0 {
		n.Expires = a.Clock.Now().Add(time.Duration(in.Body.Expires))
	}
	acc, secret, err := a.Guard.Create(ctx, n)
	if err != nil {
		return nil, a.accountProblem(err, "create an account")
	}
	return &output[wire.CreatedToken]{wire.CreatedToken{Account: acc, Secret: secret}}, nil
}

type nameInput struct {
	Name string `path:"name" maxLength:"255"`
}

func (a *API) resetToken(ctx context.Context, in *nameInput) (*output[wire.CreatedToken], error) {
	if err := a.mayAccounts(ctx); err != nil {
		return nil, err
	}
	acc, secret, err := a.Guard.Reset(ctx, in.Name)
	if err != nil {
		return nil, a.accountProblem(err, "reset "+in.Name)
	}
	return &output[wire.CreatedToken]{wire.CreatedToken{Account: acc, Secret: secret}}, nil
}

func (a *API) revokeToken(ctx context.Context, in *nameInput) (*struct{}, error) {
	if err := a.mayAccounts(ctx); err != nil {
		return nil, err
	}
	if err := a.Guard.Revoke(ctx, in.Name); err != nil {
		return nil, a.accountProblem(err, "revoke "+in.Name)
	}
	return nil, nil
}

func (a *API) accountProblem(err error, tried string) error {
	switch {
	case errors.Is(err, access.ErrNoAccount):
		return refuse(http.StatusNotFound, "`cairn token ls` lists the accounts", "%v", err)
	case errors.Is(err, access.ErrExists), errors.Is(err, access.ErrLastAdmin):
		return refuse(http.StatusConflict, "", "%v", err)
	case errors.Is(err, access.ErrInvalid):
		return refuse(http.StatusBadRequest, "", "%v", err)
	}
	return a.problem(err, "%s", tried)
}
