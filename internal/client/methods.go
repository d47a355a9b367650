package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/image"
)

// Version says what the server runs.
func (c *Client) Version(ctx context.Context) (v wire.Version, err error) {
	return v, c.call(ctx, http.MethodGet, "/api/v1/version", nil, nil, &v)
}

// ImageQuery selects images.
type ImageQuery struct {
	Repository string // glob; "" is all
	State      string // live, expired, deleted or all; "" is live
	Parts      bool   // also what belongs to another image: children of an index, referrers
	After      string // ImageList.Next of the page before
	Limit      int    // 0: the server's choice
}

// Images is one page of images, ordered by repository and then newest first.
func (c *Client) Images(ctx context.Context, q ImageQuery) (l wire.ImageList, err error) {
	v := values("repository", q.Repository, "state", q.State, "after", q.After)
	if q.Parts {
		v.Set("parts", "true")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return l, c.call(ctx, http.MethodGet, "/api/v1/images", v, nil, &l)
}

// Image is one image in any state.
func (c *Client) Image(ctx context.Context, ref image.Reference) (i wire.Image, err error) {
	return i, c.call(ctx, http.MethodGet, "/api/v1/image", values("ref", ref.String()), nil, &i)
}

// DeleteImage hides an image with all its tags, restorable until it is swept.
func (c *Client) DeleteImage(ctx context.Context, ref image.Reference, reason string) (i wire.Image, err error) {
	return i, c.call(ctx, http.MethodDelete, "/api/v1/image", values("ref", ref.String(), "reason", reason), nil, &i)
}

// Restore brings an expired or deleted image back.
func (c *Client) Restore(ctx context.Context, ref image.Reference) (r wire.Restored, err error) {
	return r, c.call(ctx, http.MethodPost, "/api/v1/image/restore", nil, wire.RefRequest{Ref: ref.String()}, &r)
}

// SetTag gives the image one more tag, or moves the tag to it.
func (c *Client) SetTag(ctx context.Context, ref image.Reference, tag string) (i wire.Image, err error) {
	return i, c.call(ctx, http.MethodPost, "/api/v1/tags", nil, wire.TagRequest{Ref: ref.String(), Tag: tag}, &i)
}

// DeleteTag removes one tag and leaves the image.
func (c *Client) DeleteTag(ctx context.Context, ref image.Reference) error {
	return c.call(ctx, http.MethodDelete, "/api/v1/tags", values("ref", ref.String()), nil, nil)
}

// Pins are all pins, or those of one repository.
func (c *Client) Pins(ctx context.Context, repository string) (l wire.PinList, err error) {
	return l, c.call(ctx, http.MethodGet, "/api/v1/pins", values("repository", repository), nil, &l)
}

// Pin keeps an image for some time, or for ever when d is zero.
func (c *Client) Pin(ctx context.Context, ref image.Reference, reason string, d wire.Duration) (i wire.Image, err error) {
	return i, c.call(ctx, http.MethodPost, "/api/v1/pins", nil, wire.PinRequest{Ref: ref.String(), Reason: reason, For: d}, &i)
}

// Unpin ends a pin.
func (c *Client) Unpin(ctx context.Context, ref image.Reference) error {
	return c.call(ctx, http.MethodDelete, "/api/v1/pins", values("ref", ref.String()), nil, nil)
}

// Reporters are those who state uses.
func (c *Client) Reporters(ctx context.Context) (l wire.ReporterList, err error) {
	return l, c.call(ctx, http.MethodGet, "/api/v1/reporters", nil, nil, &l)
}

// Reporter is one of them and what it states to be in use now, at most limit of
// it; 0 is the server's choice.
func (c *Client) Reporter(ctx context.Context, name string, limit int) (r wire.ReporterUses, err error) {
	v := values("name", name)
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	return r, c.call(ctx, http.MethodGet, "/api/v1/reporter", v, nil, &r)
}

// Forget drops a reporter: its statement no longer counts, and its silence no
// longer is doubt. The time it was silent stays uncovered.
func (c *Client) Forget(ctx context.Context, reporter string) error {
	return c.call(ctx, http.MethodDelete, "/api/v1/reporters", values("name", reporter), nil, nil)
}

// Intervals is the time covered by doubt.
func (c *Client) Intervals(ctx context.Context) (l wire.IntervalList, err error) {
	return l, c.call(ctx, http.MethodGet, "/api/v1/intervals", nil, nil, &l)
}

// TrustClock makes the server take its clock for right although it has seen
// later times.
func (c *Client) TrustClock(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/api/v1/clock/trust", nil, struct{}{}, nil)
}

// Report states uses; statement is the JSON of usage.Statement. It goes
// compressed.
func (c *Client) Report(ctx context.Context, statement any) (r wire.Receipt, err error) {
	b, err := json.Marshal(statement)
	if err != nil {
		return r, err
	}
	return r, c.call(ctx, http.MethodPost, "/api/v1/uses", nil, compressed(b), &r)
}

// Resolve says which images the references of workloads name at the server. It
// is no use of them.
func (c *Client) Resolve(ctx context.Context, references []string) (r wire.Resolved, err error) {
	return r, c.call(ctx, http.MethodPost, "/api/v1/resolve", nil, wire.ResolveRequest{References: references}, &r)
}

// Audit is one page of what was deleted and brought back, newest first.
func (c *Client) Audit(ctx context.Context, repository string, before int64, limit int) (l wire.AuditList, err error) {
	v := values("repository", repository)
	if before > 0 {
		v.Set("before", strconv.FormatInt(before, 10))
	}
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	return l, c.call(ctx, http.MethodGet, "/api/v1/audit", v, nil, &l)
}

// Why says who uses an image, when it was last used, which policy holds for
// it and when it will go.
func (c *Client) Why(ctx context.Context, ref image.Reference) (e wire.Explanation, err error) {
	return e, c.call(ctx, http.MethodGet, "/api/v1/why", values("ref", ref.String()), nil, &e)
}

// Status says whether retention works and what holds it up.
func (c *Client) Status(ctx context.Context) (s wire.Status, err error) {
	return s, c.call(ctx, http.MethodGet, "/api/v1/status", nil, nil, &s)
}

// Plan previews what retention would do at a time, now when zero, calling f
// for each image it decides on.
func (c *Client) Plan(ctx context.Context, at time.Time, all bool, f func(wire.Decision) error) (s wire.Summary, err error) {
	v := url.Values{}
	if !at.IsZero() {
		v.Set("at", at.UTC().Format(time.RFC3339))
	}
	if all {
		v.Set("all", "true")
	}
	return s, c.lines(ctx, http.MethodGet, "/api/v1/retention/plan", v, nil, func(b []byte) error {
		var l struct {
			Item wire.Decision `json:"item"`
		}
		if err := json.Unmarshal(b, &l); err != nil {
			return err
		}
		return f(l.Item)
	}, &s)
}

// Retention runs retention once, now.
func (c *Client) Retention(ctx context.Context, yes bool) (r wire.RunReport, err error) {
	return r, c.call(ctx, http.MethodPost, "/api/v1/retention/run", nil, wire.RunRequest{Yes: yes}, &r)
}

// Tokens are the accounts.
func (c *Client) Tokens(ctx context.Context) (l wire.TokenList, err error) {
	return l, c.call(ctx, http.MethodGet, "/api/v1/tokens", nil, nil, &l)
}

// CreateToken makes an account; its secret is in the answer and nowhere else.
func (c *Client) CreateToken(ctx context.Context, t wire.NewToken) (r wire.CreatedToken, err error) {
	return r, c.call(ctx, http.MethodPost, "/api/v1/tokens", nil, t, &r)
}

// ResetToken gives an account a new secret.
func (c *Client) ResetToken(ctx context.Context, name string) (r wire.CreatedToken, err error) {
	return r, c.call(ctx, http.MethodPost, "/api/v1/tokens/"+url.PathEscape(name)+"/reset", nil, struct{}{}, &r)
}

// RevokeToken ends an account.
func (c *Client) RevokeToken(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/api/v1/tokens/"+url.PathEscape(name), nil, nil, nil)
}

// Scrub makes the server read everything it stores and compare it with its
// digest, telling progress as it goes.
func (c *Client) Scrub(ctx context.Context, progress func(wire.Progress)) (r wire.ScrubReport, err error) {
	return r, c.lines(ctx, http.MethodPost, "/api/v1/scrub", nil, struct{}{}, tell(progress), &r)
}

// MirrorPull makes the server fetch an image of a mirrored registry, telling
// progress as it goes.
func (c *Client) MirrorPull(ctx context.Context, p wire.MirrorPull, progress func(wire.Progress)) (r wire.MirrorPulled, err error) {
	return r, c.lines(ctx, http.MethodPost, "/api/v1/mirror/pull", nil, p, tell(progress), &r)
}

// tell reads the lines that say how far something is.
func tell(progress func(wire.Progress)) func(line []byte) error {
	return func(line []byte) error {
		var l struct {
			Progress wire.Progress `json:"progress"`
		}
		if err := json.Unmarshal(line, &l); err != nil {
			return err
		}
		progress(l.Progress)
		return nil
	}
}

// ReapEvents are told what happens at another registry, in order. An error ends
// the run.
type ReapEvents struct {
	Decided func(wire.ReapDecision) error
	Skipped func(wire.ReapSkipped) error
	Deleted func(wire.ReapRecord) error
}

// Reap says what retention would do at another registry, or does it.
func (c *Client) Reap(ctx context.Context, q wire.ReapRequest, e ReapEvents) (s wire.ReapSummary, err error) {
	return s, c.lines(ctx, http.MethodPost, "/api/v1/reap", nil, q, func(b []byte) error {
		var l struct {
			Item    *wire.ReapDecision `json:"item"`
			Skipped *wire.ReapSkipped  `json:"skipped"`
			Deleted *wire.ReapRecord   `json:"deleted"`
		}
		if err := json.Unmarshal(b, &l); err != nil {
			return err
		}
		switch {
		case l.Item != nil:
			return e.Decided(*l.Item)
		case l.Skipped != nil:
			return e.Skipped(*l.Skipped)
		case l.Deleted != nil:
			return e.Deleted(*l.Deleted)
		}
		return nil
	}, &s)
}

// ReapDeleted calls f with what was deleted from a registry, or from all when
// it is empty, newest first.
func (c *Client) ReapDeleted(ctx context.Context, registry string, f func(wire.ReapRecord) error) error {
	return c.lines(ctx, http.MethodGet, "/api/v1/reap/deleted", values("registry", registry), nil, func(b []byte) error {
		var l struct {
			Deleted wire.ReapRecord `json:"deleted"`
		}
		if err := json.Unmarshal(b, &l); err != nil {
			return err
		}
		return f(l.Deleted)
	}, nil)
}

// ReapUndo pushes an image again that was deleted from another registry.
func (c *Client) ReapUndo(ctx context.Context, u wire.ReapUndo) (r wire.ReapUndone, err error) {
	return r, c.call(ctx, http.MethodPost, "/api/v1/reap/undo", nil, u, &r)
}

// BumpStatus calls f with each repository of code that is watched, or with the
// one that is named, and why there is a pull request or none for its images.
func (c *Client) BumpStatus(ctx context.Context, repository string, f func(wire.BumpRepository) error) error {
	return c.lines(ctx, http.MethodGet, "/api/v1/bump/status", values("repository", repository), nil, bumpItem(f), nil)
}

// BumpCheck makes the server look at a repository of code now, or at all when
// it is empty, and calls f with what it found once it is done.
func (c *Client) BumpCheck(ctx context.Context, repository string, f func(wire.BumpRepository) error) error {
	return c.lines(ctx, http.MethodPost, "/api/v1/bump/check", nil, wire.BumpCheck{Repository: repository}, bumpItem(f), nil)
}

func bumpItem(f func(wire.BumpRepository) error) func([]byte) error {
	return func(b []byte) error {
		var l struct {
			Item wire.BumpRepository `json:"item"`
		}
		if err := json.Unmarshal(b, &l); err != nil {
			return err
		}
		return f(l.Item)
	}
}

// values is a query of the pairs that have a value.
func values(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v
}
