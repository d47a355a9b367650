package api

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/usage"
)

func (a *API) usageRoutes() {
	uses := op("report-uses", http.MethodPost, "/api/v1/uses", "usage", "State which digests are in use", 400, 409, 413, 507)
	uses.Description = "Without a period: a set of dated uses. With one, the sender is a reporter and must speak again within it; with complete, these and only these are in use now, of the sources it names. Large statements come in parts; an unchanged one is restated by same_as. The body may be compressed (Content-Encoding: gzip)."
	schemas := a.huma.OpenAPI().Components.Schemas
	uses.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(reflect.TypeFor[statement](), true, "Statement")}}}
	receipt := schemas.Schema(reflect.TypeFor[wire.Receipt](), true, "Receipt")
	uses.Responses = map[string]*huma.Response{"200": {Description: "What became of it", Content: map[string]*huma.MediaType{"application/json": {Schema: receipt}}}}
	a.huma.OpenAPI().AddOperation(&uses)
	// Not through huma: this is the one route that is called thousands of
	// times a second, and its reader is strict and faster.
	a.mux.HandleFunc("POST /api/v1/uses", a.reportUses)

	resolve := op("resolve-references", http.MethodPost, "/api/v1/resolve", "usage", "Say which images the references of workloads name here", 400)
	resolve.Description = "For who reports uses: a template names its image by tag. It is not a pull and not a use."
	huma.Register(a.huma, resolve, a.resolve)
	huma.Register(a.huma, op("list-reporters", http.MethodGet, "/api/v1/reporters", "usage", "List who states uses"), a.listReporters)
	huma.Register(a.huma, op("inspect-reporter", http.MethodGet, "/api/v1/reporter", "usage", "Say what one reporter states to be in use", 404), a.inspectReporter)
	huma.Register(a.huma, op("forget-reporter", http.MethodDelete, "/api/v1/reporters", "usage", "Forget a reporter that will not come back", 404), a.forgetReporter)
	huma.Register(a.huma, op("trust-clock", http.MethodPost, "/api/v1/clock/trust", "usage", "Take the clock for right although later times were seen"), a.trustClock)
	huma.Register(a.huma, op("list-intervals", http.MethodGet, "/api/v1/intervals", "usage", "List the time covered by doubt"), a.listIntervals)
}

// statement describes usage.Statement, which reads itself, to the OpenAPI
// document.
type statement struct {
	Reporter  string           `json:"reporter,omitempty" doc:"who speaks: a host, a cluster, a CI job" example:"host-a" maxLength:"255"`
	Period    string           `json:"period,omitempty" doc:"speaks again within this time, or falls silent; clamped to 5s to 1h" example:"60s"`
	Complete  bool             `json:"complete,omitempty" doc:"these and only these are in use now, of the sources named"`
	Sources   []string         `json:"sources,omitempty" enum:"pull,container,workload,code,run" doc:"what a complete statement replaces; those of its uses when left out"`
	Statement string           `json:"statement,omitempty" doc:"its name, to come in parts and to be restated" maxLength:"512"`
	Part      int              `json:"part,omitempty" minimum:"1"`
	Parts     int              `json:"parts,omitempty" minimum:"1" maximum:"1000"`
	Platforms []usage.Platform `json:"platforms,omitempty" doc:"how many nodes of each platform the reporter has" maxItems:"100"`
	SameAs    string           `json:"same_as,omitempty" doc:"restates the statement of this name without its uses; 409 asks for it in full" maxLength:"512"`
	Uses      []struct {
		Digest     string    `json:"digest" example:"sha256:…" doc:"of an index, a manifest or a config"`
		Repository string    `json:"repository,omitempty" doc:"any repository when left out"`
		Source     string    `json:"source" enum:"pull,container,workload,code,run"`
		Subject    string    `json:"subject" doc:"a workload or host, never a pod" maxLength:"512"`
		At         time.Time `json:"at,omitempty" doc:"the time of arrival when left out"`
		Nodes      int       `json:"nodes,omitempty" minimum:"0" doc:"on how many nodes it goes on, for people"`
	} `json:"uses,omitempty" maxItems:"100000"`
}

// reportUses is POST /api/v1/uses.
func (a *API) reportUses(w http.ResponseWriter, r *http.Request) {
	receipt, err := a.report(r)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(receipt)
}

// report returns errors as [wire.Problem], perhaps with headers.
func (a *API) report(r *http.Request) (*wire.Receipt, error) {
	c := callerOf(r.Context())
	scope := c.Scope(access.Report)
	if len(scope) == 0 {
		return nil, a.may(r.Context(), access.Report, "")
	}
	body := io.Reader(r.Body)
	switch enc := strings.ToLower(r.Header.Get("Content-Encoding")); enc {
	case "", "identity":
	case "gzip":
		z, err := a.gzip.open(io.LimitReader(body, usage.MaxBody))
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "send it compressed by gzip, or leave the header Content-Encoding out", "report uses: the body is not gzip: %v", err)
		}
		defer a.gzip.close(z)
		body = z
	default:
		return nil, refuse(http.StatusUnsupportedMediaType, "use gzip or nothing", "report uses: Content-Encoding %.40q is not understood", enc)
	}
	s, err := usage.ReadStatement(body, usage.MaxBody)
	if err != nil {
		return nil, a.usageProblem(err, "report uses")
	}
	id := usage.Identity{Name: c.Name, Scope: scope}
	switch {
	case a.Open:
		id.Name = "" // the reporter's own name is all there is
	case c.Cluster != "":
		if err := ofCluster(c.Cluster, &s); err != nil {
			return nil, err
		}
		id.Name = "cluster/" + c.Cluster
	}
	rec, err := a.Ledger.Report(r.Context(), id, s)
	if err != nil {
		return nil, a.usageProblem(err, "report uses")
	}
	return &wire.Receipt{Accepted: rec.Accepted, Applied: rec.Applied, Enrolled: rec.Enrolled, Period: wire.Duration(rec.Period), Warnings: rec.Warnings}, nil
}

// ofCluster holds the agents of a cluster to it: they may only speak for it,
// as a whole or, after a colon, for one of its nodes, and of its workloads.
func ofCluster(cluster string, s *usage.Statement) error {
	const hint = "an agent that signs on with the token of its cluster reports for that cluster alone"
	node, isNode := strings.CutPrefix(s.Reporter, cluster+":")
	switch {
	case s.Reporter == "" || s.Reporter == cluster:
		s.Reporter = ""
	case isNode && node != "":
		s.Reporter = node
	default:
		return refuse(http.StatusForbidden, hint, "report uses: the token is of the cluster %s and may not speak for %.80q", cluster, s.Reporter)
	}
	for i, u := range s.Uses {
		if u.Subject != "" && !strings.HasPrefix(u.Subject, cluster+"/") {
			return refuse(http.StatusForbidden, hint, "report uses: uses[%d].subject: %.80q is not of the cluster %s: subjects begin with %s/", i, u.Subject, cluster, cluster)
		}
	}
	return nil
}

func (a *API) usageProblem(err error, tried string) error {
	switch {
	case errors.Is(err, usage.ErrTooLarge):
		return refuse(http.StatusRequestEntityTooLarge, "", "%s: %v", tried, err)
	case errors.As(err, new(*usage.BadStatementError)):
		return refuse(http.StatusBadRequest, "/api/openapi.json describes a statement", "%s: %v", tried, err)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.Is(err, io.ErrUnexpectedEOF):
		return refuse(http.StatusBadRequest, "send it again, whole", "%s: %v", tried, err)
	case errors.Is(err, usage.ErrUnknownStatement):
		return refuse(http.StatusConflict, "send the statement in full, with its uses", "%s: %v", tried, err)
	case errors.Is(err, usage.ErrScope):
		return refuse(http.StatusForbidden, "use an account that may report for it (`cairn token create --actions report --repositories …`)", "%s: %v", tried, err)
	case errors.Is(err, usage.ErrLedgerFull):
		return refuse(http.StatusInsufficientStorage, "", "%s: %v", tried, err)
	case errors.Is(err, usage.ErrUnknownReporter):
		return refuse(http.StatusNotFound, "", "%v", err)
	}
	return a.problem(err, "%s", tried)
}

// gzipReaders keeps decompressors, which are large, between requests.
type gzipReaders struct{ pool sync.Pool }

func (g *gzipReaders) open(r io.Reader) (*gzip.Reader, error) {
	if z, ok := g.pool.Get().(*gzip.Reader); ok {
		if err := z.Reset(r); err != nil {
			g.pool.Put(z)
			return nil, err
		}
		return z, nil
	}
	return gzip.NewReader(r)
}

func (g *gzipReaders) close(z *gzip.Reader) { g.pool.Put(z) }

func (a *API) listReporters(ctx context.Context, _ *struct{}) (*output[wire.ReporterList], error) {
	if err := a.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	return &output[wire.ReporterList]{wire.ReporterList{Reporters: a.reporters(false)}}, nil
}

// reporters are all of them, or those who are silent.
func (a *API) reporters(silent bool) []wire.Reporter {
	out := []wire.Reporter{}
	for _, r := range a.Ledger.Reporters() {
		if silent && !r.Silent {
			continue
		}
		out = append(out, wire.Reporter{Name: r.Name, Scope: notNil(r.Scope), Period: wire.Duration(r.Period), First: r.First, Last: r.Last, Silent: r.Silent, Digests: r.Digests, Platforms: r.Platforms})
	}
	return out
}

type inspectInput struct {
	Name  string `query:"name" required:"true" doc:"as listed" maxLength:"600"`
	Limit int    `query:"limit" default:"10000" minimum:"0" maximum:"1000000" doc:"uses in the answer"`
}

func (a *API) inspectReporter(ctx context.Context, in *inspectInput) (*output[wire.ReporterUses], error) {
	if err := a.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	uses, err := a.Ledger.InForce(in.Name, in.Limit)
	if err != nil {
		return nil, a.usageProblem(err, "inspect the reporter "+in.Name)
	}
	for _, r := range a.reporters(false) {
		if r.Name == in.Name {
			return &output[wire.ReporterUses]{wire.ReporterUses{Reporter: r, Uses: uses}}, nil
		}
	}
	return nil, a.usageProblem(fmt.Errorf("reporter %s: %w", in.Name, usage.ErrUnknownReporter), "")
}

type reporterInput struct {
	Name string `query:"name" required:"true" doc:"as listed" maxLength:"600"`
}

func (a *API) forgetReporter(ctx context.Context, in *reporterInput) (*struct{}, error) {
	if err := a.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	if err := a.Ledger.Forget(ctx, in.Name); err != nil {
		return nil, a.usageProblem(err, "forget the reporter "+in.Name)
	}
	a.log.Info("reporter forgotten", "reporter", in.Name, "by", actor(ctx))
	return nil, nil
}

func (a *API) listIntervals(ctx context.Context, _ *struct{}) (*output[wire.IntervalList], error) {
	if err := a.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	return &output[wire.IntervalList]{wire.IntervalList{Intervals: notNil(a.Ledger.Uncovered())}}, nil
}

func (a *API) trustClock(ctx context.Context, _ *struct{}) (*struct{}, error) {
	if err := a.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	if err := a.Ledger.TrustClock(ctx); err != nil {
		return nil, a.usageProblem(err, "trust the clock")
	}
	a.log.Warn("the clock is trusted from now on although later times were seen", "by", actor(ctx), "now", a.Clock.Now())
	return nil, nil
}
