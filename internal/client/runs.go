package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"cairn.dev/cairn/internal/api/wire"
)

// Submit starts a run.
func (c *Client) Submit(ctx context.Context, s wire.Submission) (r wire.Submitted, err error) {
	return r, c.call(ctx, http.MethodPost, "/api/v1/runs", nil, s, &r)
}

// Check says what is wrong in documents.
func (c *Client) Check(ctx context.Context, d wire.Document) (r wire.Checked, err error) {
	return r, c.call(ctx, http.MethodPost, "/api/v1/runs/check", nil, d, &r)
}

// Upload hands in a file, for a run that is submitted within the hour, under
// the id of an earlier one or, when that is "", a new one. r is read once and
// as it goes out.
func (c *Client) Upload(ctx context.Context, id string, r io.Reader) (u wire.Upload, err error) {
	return u, c.call(ctx, http.MethodPost, "/api/v1/uploads", values("upload", id), content{r}, &u)
}

// RunQuery selects runs.
type RunQuery struct {
	Namespace, Name, Schedule string
	Phase                     string // "live" for all that have not ended
	After                     string // RunList.Next of the page before
	Limit                     int    // 0: the server's choice
}

// Runs is one page of runs, newest first.
func (c *Client) Runs(ctx context.Context, q RunQuery) (l wire.RunList, err error) {
	v := values("namespace", q.Namespace, "name", q.Name, "schedule", q.Schedule, "phase", q.Phase, "after", q.After)
	limit(v, q.Limit)
	return l, c.call(ctx, http.MethodGet, "/api/v1/runs", v, nil, &l)
}

// Run is one run.
func (c *Client) Run(ctx context.Context, id string) (r wire.Run, err error) {
	return r, c.call(ctx, http.MethodGet, runPath(id), nil, nil, &r)
}

// NodeQuery selects nodes of a run.
type NodeQuery struct {
	Parent string   // right below this one; "" for the top
	Phases []string // only these
	After  string   // NodeList.Next of the page before
	Limit  int      // 0: the server's choice
}

// Nodes is one page of the nodes of a run.
func (c *Client) Nodes(ctx context.Context, id string, q NodeQuery) (l wire.NodeList, err error) {
	v := values("parent", q.Parent, "after", q.After)
	limit(v, q.Limit)
	for _, p := range q.Phases {
		v.Add("phase", p)
	}
	return l, c.call(ctx, http.MethodGet, runPath(id, "nodes"), v, nil, &l)
}

// Node is one node of a run, or item of a fan-out.
func (c *Client) Node(ctx context.Context, id, node string) (n wire.RunNode, err error) {
	return n, c.call(ctx, http.MethodGet, runPath(id, "nodes", node), nil, nil, &n)
}

// Cancel ends a run; now: without its exit handlers.
func (c *Client) Cancel(ctx context.Context, id string, now bool) (r wire.Run, err error) {
	return r, c.call(ctx, http.MethodPost, runPath(id, "cancel"), nil, wire.CancelRequest{Now: now}, &r)
}

// Retry begins what failed of an ended run again.
func (c *Client) Retry(ctx context.Context, id string) (r wire.Run, err error) {
	return r, c.call(ctx, http.MethodPost, runPath(id, "retry"), nil, nil, &r)
}

// Suspend begins no more tasks of a run.
func (c *Client) Suspend(ctx context.Context, id string) (r wire.Run, err error) {
	return r, c.call(ctx, http.MethodPost, runPath(id, "suspend"), nil, nil, &r)
}

// Resume goes on with a run, or with a node of it that waits.
func (c *Client) Resume(ctx context.Context, id string, q wire.ResumeRequest) (r wire.Run, err error) {
	return r, c.call(ctx, http.MethodPost, runPath(id, "resume"), nil, q, &r)
}

// Resubmit starts a new run of the same documents and arguments.
func (c *Client) Resubmit(ctx context.Context, id string) (r wire.Submitted, err error) {
	return r, c.call(ctx, http.MethodPost, runPath(id, "resubmit"), nil, nil, &r)
}

// DeleteRun forgets an ended run.
func (c *Client) DeleteRun(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, runPath(id), nil, nil, nil)
}

// LogQuery selects lines of logs.
type LogQuery struct {
	Task    string // only of this one
	Attempt int    // only this one
	Stream  string // stdout or stderr
	Grep    string // a regular expression (RE2)
	Since   time.Time
	Tail    int // so many lines from the end; 0: all
	Follow  bool
}

// Logs calls f with each line of a run's logs; with Follow until the run ends.
func (c *Client) Logs(ctx context.Context, id string, q LogQuery, f func(wire.LogLine) error) error {
	v := values("task", q.Task, "stream", q.Stream, "grep", q.Grep)
	if q.Attempt > 0 {
		v.Set("attempt", strconv.Itoa(q.Attempt))
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if q.Tail > 0 {
		v.Set("tail", strconv.Itoa(q.Tail))
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	return c.lines(ctx, http.MethodGet, runPath(id, "logs"), v, nil, func(b []byte) error {
		var l struct {
			Item wire.LogLine `json:"item"`
		}
		if err := json.Unmarshal(b, &l); err != nil {
			return err
		}
		return f(l.Item)
	}, nil)
}

// Artifact opens a file that a node left.
func (c *Client) Artifact(ctx context.Context, id, node, name string) (io.ReadCloser, error) {
	return c.send(ctx, http.MethodGet, runPath(id, "artifacts", node, name), nil, nil)
}

// Schedules are those that the caller may see.
func (c *Client) Schedules(ctx context.Context, namespace string) (l wire.ScheduleList, err error) {
	return l, c.call(ctx, http.MethodGet, "/api/v1/schedules", values("namespace", namespace), nil, &l)
}

// PutSchedule stores a CronWorkflow, in place of one of its name.
func (c *Client) PutSchedule(ctx context.Context, d wire.Document, pool string) (s wire.Schedule, err error) {
	return s, c.call(ctx, http.MethodPut, "/api/v1/schedules", values("pool", pool), d, &s)
}

// SuspendSchedule starts no more runs of a schedule, or does so again.
func (c *Client) SuspendSchedule(ctx context.Context, namespace, name string, on bool) (s wire.Schedule, err error) {
	verb := "/resume"
	if on {
		verb = "/suspend"
	}
	return s, c.call(ctx, http.MethodPost, schedulePath(namespace, name)+verb, nil, nil, &s)
}

// DeleteSchedule forgets a schedule; runs that it began go on.
func (c *Client) DeleteSchedule(ctx context.Context, namespace, name string) error {
	return c.call(ctx, http.MethodDelete, schedulePath(namespace, name), nil, nil, nil)
}

func runPath(id string, more ...string) string {
	p := "/api/v1/runs/" + url.PathEscape(id)
	for _, m := range more {
		p += "/" + url.PathEscape(m)
	}
	return p
}

func schedulePath(namespace, name string) string {
	return "/api/v1/schedules/" + url.PathEscape(namespace) + "/" + url.PathEscape(name)
}

func limit(v url.Values, n int) {
	if n > 0 {
		v.Set("limit", strconv.Itoa(n))
	}
}

// Templates are those that the caller may see, without their documents.
func (c *Client) Templates(ctx context.Context, namespace string) (l wire.TemplateList, err error) {
	return l, c.call(ctx, http.MethodGet, "/api/v1/templates", values("namespace", namespace), nil, &l)
}

// PutTemplates stores the templates of a file; namespace is of those that name
// none, "" for "default".
func (c *Client) PutTemplates(ctx context.Context, d wire.Document, namespace string) (l wire.TemplateList, err error) {
	return l, c.call(ctx, http.MethodPut, "/api/v1/templates", values("namespace", namespace), d, &l)
}

// Template is one with its document; kind "" is a WorkflowTemplate, namespace
// "" is "default".
func (c *Client) Template(ctx context.Context, kind, namespace, name string) (t wire.Template, err error) {
	return t, c.call(ctx, http.MethodGet, "/api/v1/template", values("kind", kind, "namespace", namespace, "name", name), nil, &t)
}

// DeleteTemplate forgets one.
func (c *Client) DeleteTemplate(ctx context.Context, kind, namespace, name string) error {
	return c.call(ctx, http.MethodDelete, "/api/v1/template", values("kind", kind, "namespace", namespace, "name", name), nil, nil)
}
