// Package api is the JSON API of Cairn under /api/v1, for programs and for the
// commands.
//
// It owns the routes, who may call them, the OpenAPI document that describes
// them (/api/openapi.json) and how errors read (RFC 9457, with a hint that
// says what to do). The shapes are in wire. It promises that every change is
// authorised before it is tried and that long lists and long work are
// answered piece by piece, in bounded memory. It decides nothing: each route
// calls one method of a room below.
package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"path"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/usage"
)

// Deps are the rooms the API calls.
type Deps struct {
	Content   *content.Store
	Ledger    *usage.Ledger
	Retention *retention.Engine
	Guard     *access.Guard
	Mirror    Mirror    // nil: nothing is mirrored
	Reaper    Reaper    // nil: nothing is reaped
	Bump      Bumper    // nil: no code is looked at
	Work      Work      // nil: nothing is run
	Logs      Logs      // what tasks print; nil: it is not kept
	Artifacts Artifacts // files of runs; nil: they are not kept
	Clock     clock.Clock
	Log       *slog.Logger
	Version   wire.Version
	// ExternalURL is where clients reach the server, when configured.
	ExternalURL string
	Open        bool // no sign-on: anybody who reaches the server is an administrator
}

// API is the handler. It is safe for concurrent use.
type API struct {
	Deps
	log  *slog.Logger
	huma huma.API
	gzip gzipReaders
	mux  *http.ServeMux
}

// New returns the handler of everything under /api/.
func New(d Deps) *API {
	a := &API{Deps: d, log: d.Log, mux: http.NewServeMux()}
	cfg := huma.DefaultConfig("Cairn", d.Version.Version)
	cfg.Info.Description = "What Cairn knows about images and their uses, and what can be done with them. References read repository[:tag][@digest]; durations read 30d, 12h, 6s."
	cfg.OpenAPIPath = "/api/openapi"
	cfg.DocsPath, cfg.SchemasPath = "", "" // the pages for people are another room's
	cfg.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	cfg.CreateHooks = nil // no $schema fields in answers
	a.huma = humago.New(a.mux, cfg)
	a.imageRoutes()
	a.usageRoutes()
	a.retentionRoutes()
	a.accessRoutes()
	a.upkeepRoutes()
	a.mirrorRoutes()
	a.reapRoutes()
	a.bumpRoutes()
	a.runRoutes()
	a.controlRoutes()
	a.scheduleRoutes()
	a.templateRoutes()
	a.logRoutes()
	a.fileRoutes()
	a.mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, refuse(http.StatusNotFound, "/api/openapi.json lists the routes and their methods", "there is no %s %s", r.Method, r.URL.Path))
	})
	return a
}

// schemaName keeps types of the same name in different rooms apart.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	room := path.Base(t.PkgPath())
	if t.Name() == "" || room == "wire" || room == "api" || room == "." || strings.Contains(t.Name(), "[") {
		return name
	}
	return strings.ToUpper(room[:1]) + room[1:] + name
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, err := a.Guard.Authenticate(r)
	if err != nil {
		a.Guard.Challenge(w.Header(), r, "")
		writeProblem(w, refuse(http.StatusUnauthorized, "", "sign-on failed: %v", err))
		return
	}
	if r.ContentLength != 0 {
		r.Body = &patientBody{r.Body, http.NewResponseController(w)}
	}
	a.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, &caller{p, r})))
}

type callerKey struct{}

// caller is who made the request.
type caller struct {
	*access.Principal
	r *http.Request
}

func callerOf(ctx context.Context) *caller {
	c, _ := ctx.Value(callerKey{}).(*caller)
	return c
}

// actor is the caller's name for the audit log.
func actor(ctx context.Context) string {
	if c := callerOf(ctx); c != nil && c.Name != "" {
		return c.Name
	}
	return "anonymous"
}

// mayList refuses who may not pull from any repository: an empty list would
// read as an empty registry.
func (a *API) mayList(ctx context.Context) error {
	if c := callerOf(ctx); c != nil && len(c.Scope(access.Pull)) > 0 {
		return nil
	}
	return a.may(ctx, access.Pull, "")
}

// may reports whether the caller may do something with a repository; with
// none, whether it may do so everywhere.
func (a *API) may(ctx context.Context, action access.Action, repository string) error {
	c := callerOf(ctx)
	if c == nil {
		return refuse(http.StatusUnauthorized, "", "who calls is not known")
	}
	if c.Can(action, repository) {
		return nil
	}
	on := ""
	if repository != "" {
		on = " in " + repository
	}
	if c.MayRetry(action, repository) {
		h := http.Header{}
		a.Guard.Challenge(h, c.r, repository, action)
		return huma.ErrorWithHeaders(refuse(http.StatusUnauthorized, "", "to %s%s needs an account that may", deed(action), on), h)
	}
	return refuse(http.StatusForbidden, "", "account %s may not %s%s", c.Name, deed(action), on)
}

// deed is an action in a sentence.
func deed(a access.Action) string {
	switch a {
	case access.Pull:
		return "read images"
	case access.Push:
		return "push and tag images"
	case access.Delete:
		return "remove and restore images"
	case access.Report:
		return "report uses"
	case access.Run:
		return "run workflows"
	case access.Work:
		return "be a worker"
	}
	return "administer"
}

// writeProblem answers a request outside of huma.
func writeProblem(w http.ResponseWriter, err error) {
	p, ok := err.(*wire.Problem)
	if !ok {
		p = &wire.Problem{Status: http.StatusInternalServerError, Title: "Internal Server Error", Detail: err.Error()}
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

// op describes a route.
func op(id, method, path, tag, summary string, statuses ...int) huma.Operation {
	return huma.Operation{OperationID: id, Method: method, Path: path, Tags: []string{tag}, Summary: summary, Errors: append(statuses, http.StatusUnauthorized, http.StatusForbidden),
		BodyReadTimeout: -1} // see patientBody
}

// output is an answer that consists of its body.
type output[T any] struct{ Body T }

// input is a request that consists of its body.
type input[T any] struct{ Body T }
