package api

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"cairn.dev/cairn/internal/api/wire"
)

// Logs is what tasks print. *logs.Store is one.
type Logs interface {
	Read(ctx context.Context, q LogQuery, f func(LogLine) error) error
}

type LogQuery struct {
	Run, Task string
	Attempt   int
	Grep      *regexp.Regexp
	Since     time.Time
	Tail      int
	Follow    bool
}

type LogLine struct {
	Task    string
	Attempt int
	Stream  byte
	At      time.Time
	Bytes   []byte
}

func (a *API) logRoutes() {
	logs := op("read-logs", http.MethodGet, "/api/v1/runs/{id}/logs", "runs", "Read what the tasks of a run printed, and follow what they print", 400, 404)
	logs.Description = "One JSON object per line: {\"item\": line} for each, then {\"end\": {}}, or {\"error\": problem}. With follow it goes on until the run has ended."
	huma.Register(a.huma, logs, a.readLogs)
}

type logsInput struct {
	runInput
	Task    string    `query:"task" maxLength:"64" doc:"only of this task"`
	Attempt int       `query:"attempt" minimum:"0" doc:"only of this attempt"`
	Stream  string    `query:"stream" enum:"stdout,stderr" doc:"only this one"`
	Grep    string    `query:"grep" maxLength:"1000" doc:"only lines that this regular expression (RE2) matches"`
	Since   time.Time `query:"since" doc:"only what was printed since, RFC 3339"`
	Tail    int       `query:"tail" minimum:"0" maximum:"1000000" doc:"only so many lines from the end; 0: all"`
	Follow  bool      `query:"follow" doc:"go on with what is printed from now on"`
}

func (a *API) readLogs(ctx context.Context, in *logsInput) (*huma.StreamResponse, error) {
	if _, err := a.seen(ctx, in.ID, "read the logs of run"); err != nil {
		return nil, err
	}
	if a.Logs == nil {
		return nil, refuse(http.StatusNotFound, "", "this server keeps no logs of runs")
	}
	q := LogQuery{Run: in.ID, Task: in.Task, Attempt: in.Attempt, Since: in.Since, Tail: in.Tail, Follow: in.Follow}
	if in.Grep != "" {
		re, err := regexp.Compile(in.Grep)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "write a regular expression as RE2 has them, such as error|warn", "grep: %v", err)
		}
		q.Grep = re
	}
	return a.stream(func(ctx context.Context, line func(any)) {
		err := a.Logs.Read(ctx, q, func(l LogLine) error {
			line(logItem{lineOf(l)})
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

func lineOf(l LogLine) wire.LogLine {
	out := wire.LogLine{Task: l.Task, Attempt: l.Attempt, Stream: "stdout", At: l.At}
	if l.Stream == 2 {
		out.Stream = "stderr"
	}
	if utf8.Valid(l.Bytes) {
		out.Text = string(l.Bytes)
	} else {
		out.Bytes = l.Bytes
	}
	return out
}

var _ = json.Marshal
var _ = humago.Unwrap
