package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/retention"
)

func (a *API) retentionRoutes() {
	huma.Register(a.huma, op("explain-image", http.MethodGet, "/api/v1/why", "retention", "Who uses an image, when last, under which policy, and when it will go", 400, 404), a.why)
	plan := op("plan-retention", http.MethodGet, "/api/v1/retention/plan", "retention", "What retention would do, now or at a time to come", 400)
	plan.Description = "One JSON object per line: {\"item\": decision} for each image, then {\"end\": summary}, or {\"error\": problem} where it broke off."
	huma.Register(a.huma, plan, a.plan)
	huma.Register(a.huma, op("run-retention", http.MethodPost, "/api/v1/retention/run", "retention", "Run retention once, now", 409, 428), a.run)
	huma.Register(a.huma, op("list-audit", http.MethodGet, "/api/v1/audit", "retention", "What was deleted and brought back, newest first", 400), a.audit)
}

func (a *API) why(ctx context.Context, in *refInput) (*output[wire.Explanation], error) {
	ref, err := a.ref(ctx, access.Pull, in.Ref, "explain")
	if err != nil {
		return nil, err
	}
	key := ref.Tag
	if ref.Digest != "" {
		key = string(ref.Digest)
	}
	if wire.IsShort(ref.Digest) {
		d, err := a.expand(ctx, ref)
		if err != nil {
			return nil, a.problem(err, "explain %s", ref)
		}
		key = string(d)
	}
	x, err := a.Retention.Why(ctx, ref.Repository, key)
	if err != nil {
		return nil, a.problem(err, "explain %s", ref)
	}
	return &output[wire.Explanation]{x}, nil
}

type planInput struct {
	At  time.Time `query:"at" doc:"a time to come, RFC 3339; now when left out"`
	All bool      `query:"all" doc:"also what stays as it is"`
}

func (a *API) plan(ctx context.Context, in *planInput) (*huma.StreamResponse, error) {
	if err := a.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	at := in.At
	if at.IsZero() {
		at = a.Clock.Now()
	}
	return a.stream(func(ctx context.Context, line func(any)) {
		sum, err := a.Retention.Plan(ctx, at, func(d retention.Decision) error {
			if !in.All && (d.Action == retention.Keep || d.Action == retention.Hidden) {
				return ctx.Err()
			}
			line(itemLine{decisionOf(&d)})
			return ctx.Err()
		})
		if err != nil {
			line(errorLine{asProblem(a.problem(err, "plan retention"))})
			return
		}
		line(endLine{sum})
	}), nil
}

// Lines of a streamed answer. The client tells them apart by their only key.
type (
	itemLine struct {
		Item wire.Decision `json:"item"`
	}
	progressLine struct {
		Progress wire.Progress `json:"progress"`
	}
	endLine struct {
		End any `json:"end"`
	}
	errorLine struct {
		Error *wire.Problem `json:"error"`
	}
)

// streamGap is how long lines of a streamed answer are held back.
const streamGap = 200 * time.Millisecond

// stream answers with one JSON object per line, flushed at least every second.
func (a *API) stream(body func(ctx context.Context, line func(any))) *huma.StreamResponse {
	return a.streamEvery(streamGap, body)
}

// streamEvery is [API.stream], flushed with the first line after each gap.
func (a *API) streamEvery(gap time.Duration, body func(ctx context.Context, line func(any))) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", "application/x-ndjson")
		rc := http.NewResponseController(w)
		pw := &patientWriter{w, rc}
		defer pw.done()
		buf := bufio.NewWriterSize(pw, 32<<10)
		enc := json.NewEncoder(buf)
		flushed := a.Clock.Mono()
		if gap == 0 { // it may be long until there is a line
			_ = rc.Flush()
		}
		body(hc.Context(), func(v any) {
			_ = enc.Encode(v) // a client that went away ends the context
			if now := a.Clock.Mono(); now-flushed >= gap {
				_ = buf.Flush()
				_ = rc.Flush()
				flushed = now
			}
		})
		_ = buf.Flush()
	}}
}

func asProblem(err error) *wire.Problem {
	var p *wire.Problem
	if !errors.As(err, &p) {
		p = &wire.Problem{Status: http.StatusInternalServerError, Title: http.StatusText(http.StatusInternalServerError), Detail: err.Error()}
	}
	return p
}

func decisionOf(d *retention.Decision) wire.Decision {
	w := wire.Decision{Repository: d.Image.Repository, Digest: d.Image.Digest, Tags: []string{}, Size: d.Image.Size,
		Action: d.Action.String(), Code: d.Code.String(), Reason: d.Reason(), Age: wire.Duration(d.Age.Truncate(time.Second)),
		Horizon: d.Horizon.String(), By: d.By, Policy: d.PolicyName()}
	for _, t := range d.Image.Tags {
		w.Tags = append(w.Tags, t.Name)
	}
	if !d.LastUse.At.IsZero() {
		u := d.LastUse
		w.LastUse = &u
	}
	if d.Horizon == retention.At {
		w.ExpiresAt = d.ExpiresAt
	}
	return w
}

func (a *API) run(ctx context.Context, in *input[wire.RunRequest]) (*output[wire.RunReport], error) {
	if err := a.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	r, err := a.Retention.RunOnce(ctx, retention.RunOptions{Yes: in.Body.Yes, Actor: actor(ctx)})
	if err != nil {
		if errors.As(err, new(*retention.EverythingError)) || errors.Is(err, retention.ErrPlanningOnly) {
			return nil, refuse(http.StatusPreconditionRequired, "", "%v", err)
		}
		return nil, a.problem(err, "run retention")
	}
	return &output[wire.RunReport]{r}, nil
}

type auditInput struct {
	Repository string `query:"repository" doc:"only of this repository" maxLength:"255"`
	Before     int64  `query:"before" minimum:"0" doc:"\"next\" of the page before"`
	Limit      int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

func (a *API) audit(ctx context.Context, in *auditInput) (*output[wire.AuditList], error) {
	if err := a.may(ctx, access.Admin, in.Repository); err != nil {
		return nil, err
	}
	es, err := a.Content.Audit(ctx, in.Repository, in.Before, in.Limit)
	if err != nil {
		return nil, a.problem(err, "read the audit log")
	}
	out := wire.AuditList{Entries: notNil(es)}
	if len(es) == in.Limit {
		out.Next = es[len(es)-1].ID
	}
	return &output[wire.AuditList]{out}, nil
}
