package api

import (
	"context"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/logs"
)

// Logs is what tasks print. *logs.Store is one.
type Logs interface {
	Read(ctx context.Context, q logs.Query, f func(logs.Line) error) error
	Expired(ctx context.Context, run string, ended time.Time) (time.Duration, error)
}

func (a *API) logRoutes() {
	read := op("read-logs", http.MethodGet, "/api/v1/runs/{id}/logs", "runs", "Read what the tasks of a run printed, and follow what they print", 400, 404, 410)
	read.Description = "One JSON object per line: {\"item\": line} for each, then {\"end\": {}}, or {\"error\": problem}. With follow it goes on until the run has ended."
	huma.Register(a.huma, read, a.readLogs)
}

type logsInput struct {
	ID      string    `path:"id" maxLength:"64"`
	Task    string    `query:"task" maxLength:"64" doc:"only of this task, or of the tasks of this node"`
	Attempt int       `query:"attempt" minimum:"0" doc:"only of this attempt"`
	Stream  string    `query:"stream" enum:"stdout,stderr" doc:"only this one"`
	Grep    string    `query:"grep" maxLength:"1000" doc:"only lines that this regular expression (RE2) matches"`
	Since   time.Time `query:"since" doc:"only what was printed since, RFC 3339"`
	Tail    int       `query:"tail" minimum:"0" maximum:"100000" doc:"only so many lines from the end; 0: all"`
	Follow  bool      `query:"follow" doc:"go on with what is printed from now on"`
}

func (a *API) readLogs(ctx context.Context, in *logsInput) (*huma.StreamResponse, error) {
	run, err := a.seen(ctx, in.ID, "read the logs of run")
	if err != nil {
		return nil, err
	}
	if a.Logs == nil {
		return nil, refuse(http.StatusNotFound, "", "this server keeps no logs of runs")
	}
	if kept, err := a.Logs.Expired(ctx, in.ID, run.Ended); err != nil {
		return nil, a.problem(err, "read the logs of run %s", in.ID)
	} else if kept > 0 {
		return nil, refuse(http.StatusGone, "the run itself is still there; work.log_keep says how long logs are", "the logs of run %s were kept for %s, until %s", in.ID, wire.Duration(kept), run.Ended.Add(kept).Format(time.RFC3339))
	}
	q := logs.Query{Run: in.ID, Task: in.Task, Attempt: in.Attempt, Since: in.Since, Tail: in.Tail, Follow: in.Follow}
	switch in.Stream {
	case "stdout":
		q.Stream = task.Stdout
	case "stderr":
		q.Stream = task.Stderr
	}
	if in.Grep != "" {
		if q.Grep, err = logs.Pattern(in.Grep); err != nil {
			return nil, refuse(http.StatusBadRequest, "write a regular expression as RE2 has them, such as error|warn", "grep: %v", err)
		}
	}
	gap := streamGap
	if in.Follow {
		gap = 0 // somebody looks at it
	}
	return a.streamEvery(gap, func(ctx context.Context, line func(any)) {
		names := a.Work.Names(in.ID)
		err := a.Logs.Read(ctx, q, func(l logs.Line) error {
			out := lineOf(l)
			out.Name, _ = names.Of(ctx, l.Task) // it has its number
			line(logItem{out})
			return ctx.Err()
		})
		if err != nil {
			line(errorLine{asProblem(a.problem(err, "read the logs of run %s", in.ID))})
			return
		}
		line(endLine{struct{}{}})
	}), nil
}

type logItem struct {
	Item wire.LogLine `json:"item"`
}

func lineOf(l logs.Line) wire.LogLine {
	out := wire.LogLine{Task: l.Task, Attempt: l.Attempt, Stream: "stdout", At: l.At, Part: l.Open, Cut: l.Cut}
	if l.Stream == task.Stderr {
		out.Stream = "stderr"
	}
	if utf8.Valid(l.Text) {
		out.Text = string(l.Text)
	} else {
		out.Bytes = l.Text
	}
	return out
}
