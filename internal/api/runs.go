package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/front"
)

// Runs are what is begun and looked at. *work.Server is all of Runs,
// RunControl, Schedules and Templates.
type Runs interface {
	Submit(ctx context.Context, g *workflow.Graph, by string, o work.Options) (string, error)
	Get(ctx context.Context, id string) (work.Info, error)
	Runs(ctx context.Context, f work.RunFilter, after string, limit int) ([]work.Info, string, error)
	Nodes(ctx context.Context, id, parent, after string, limit int, f machine.Filter) ([]machine.View, bool, error)
	Node(ctx context.Context, id, node string) (machine.View, error)
	Names(run string) *work.Names
}

// Work is the work server.
type Work interface {
	Runs
	RunControl
	Schedules
	Templates
}

// maxSubmission bounds the body of a submission, documents and arguments.
const maxSubmission = 32 << 20

func (a *API) runRoutes() {
	submit := op("submit-run", http.MethodPost, "/api/v1/runs", "runs", "Start a run of a workflow", 400, 404, 413, 422, 429)
	submit.Description = "As application/yaml the body is the documents and the query the rest: name, namespace, pool, key, and arg=NAME=VALUE as often as needed. As application/json it is a submission, or a document. What is wrong in a document is told with its place, all at once (422)."
	raw[wire.Submission, wire.Submitted](a, submit, "application/json", a.submitRun)

	check := op("check-documents", http.MethodPost, "/api/v1/runs/check", "runs", "Say what is wrong in documents, and what they make when nothing is", 400)
	huma.Register(a.huma, check, a.checkDocuments)
	huma.Register(a.huma, op("list-runs", http.MethodGet, "/api/v1/runs", "runs", "List runs, newest first", 400), a.listRuns)
	huma.Register(a.huma, op("get-run", http.MethodGet, "/api/v1/runs/{id}", "runs", "Show a run", 404), a.getRun)
	huma.Register(a.huma, op("list-nodes", http.MethodGet, "/api/v1/runs/{id}/nodes", "runs", "List the nodes of a run, right below one of them", 400, 404), a.listNodes)
	huma.Register(a.huma, op("get-node", http.MethodGet, "/api/v1/runs/{id}/nodes/{node}", "runs", "Show a node of a run, or an item of a fan-out, with its outputs", 400, 404), a.getNode)
}

// mayRun refuses who may not do anything with runs of the namespace; "" is all
// of them.
func (a *API) mayRun(ctx context.Context, namespace string) error {
	if a.Work == nil {
		return refuse(http.StatusNotFound, "", "this server runs no workflows")
	}
	err := a.may(ctx, access.Run, namespace)
	if p, ok := errors.AsType[*wire.Problem](err); ok && namespace != "" {
		p.Detail = strings.Replace(p.Detail, " in "+namespace, " in the namespace "+namespace, 1)
	} else if c := callerOf(ctx); ok && c != nil {
		if mine := c.Scope(access.Run); len(mine) > 0 {
			p.Hint = "name a namespace: yours are " + strings.Join(mine, ", ")
		}
	}
	return err
}

// mayRunAny refuses who may not do anything with runs of any namespace.
func (a *API) mayRunAny(ctx context.Context) error {
	if c := callerOf(ctx); a.Work != nil && c != nil && len(c.Scope(access.Run)) > 0 {
		return nil
	}
	return a.mayRun(ctx, "")
}

// seen is a run that the caller may see.
func (a *API) seen(ctx context.Context, id, tried string) (work.Info, error) {
	// Whether there is such a run is not theirs to know who may see none.
	if err := a.mayRunAny(ctx); err != nil {
		return work.Info{}, err
	}
	i, err := a.Work.Get(ctx, id)
	if err != nil {
		return i, a.runProblem(err, tried+" "+id)
	}
	return i, a.mayRun(ctx, i.Namespace)
}

// submitRun is no handler of huma's, because it takes YAML, too.
func (a *API) submitRun(r *http.Request) (*wire.Submitted, error) {
	ctx := r.Context()
	if err := a.mayRunAny(ctx); err != nil { // before reading what they send
		return nil, err
	}
	s, err := readSubmission(r)
	if err != nil {
		return nil, err
	}
	g, problems := front.Compile(s.Name, []byte(s.Text), a.frontOptions(ctx, s.Run.Namespace, s.Run.Pool))
	if len(problems) > 0 {
		if kind, _ := front.Kind(s.Name, []byte(s.Text)); kind == "CronWorkflow" {
			return nil, refuse(http.StatusUnprocessableEntity, "hand it in with PUT /api/v1/schedules (`cairn schedules put`), or submit a Workflow", "%s: a CronWorkflow is not run, but started by the clock", s.Name)
		}
		return nil, documentProblem(s.Name, problems)
	}
	namespace := s.Run.Namespace
	if namespace == "" {
		namespace = g.Namespace
	}
	if namespace == "" {
		namespace = defaultNamespace
	}
	if err := a.mayRun(ctx, namespace); err != nil {
		return nil, err
	}
	o := work.Options{Name: s.Run.Name, Namespace: namespace, Pool: s.Run.Pool}
	if s.Run.Key != "" { // nobody is to find, or to be, somebody else's run by it
		o.Key = "api/" + namespace + "/" + s.Run.Key
	}
	files, adopt, err := a.files(&s)
	if err != nil {
		return nil, err
	}
	o.Before = adopt
	if o.Args, err = g.Arguments(s.Args, files); err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, "", "start %s: %v", g.Name, err)
	}
	id, err := a.Work.Submit(ctx, g, actor(ctx), o)
	if err != nil {
		return nil, a.runProblem(err, "start "+g.Name)
	}
	i, err := a.Work.Get(ctx, id)
	if err != nil {
		return nil, a.runProblem(err, "look at run "+id)
	}
	out := &wire.Submitted{ID: id, Name: i.Name, Namespace: i.Namespace}
	if all := front.Workflows(s.Name, []byte(s.Text)); len(all) > 1 {
		out.Warnings = []string{fmt.Sprintf("only the first workflow was started; these were not: %s", strings.Join(all[1:], ", "))}
	}
	return out, nil
}

// defaultNamespace is that of runs which name none.
const defaultNamespace = "default"

// frontOptions finds templates that documents refer to: those that the caller
// may see. In a document without a namespace that is the run's.
func (a *API) frontOptions(ctx context.Context, namespace, pool string) front.Options {
	return front.Options{Cluster: strings.HasPrefix(pool, work.ClusterPool), Templates: func(kind, of, name string) []byte {
		if kind == clusterTemplate {
			of = ""
		} else if of = cmp.Or(of, namespace, defaultNamespace); a.mayRun(ctx, of) != nil {
			return nil
		}
		t, err := a.Work.Template(ctx, kind, of, name)
		if err != nil {
			if !errors.Is(err, work.ErrNotFound) {
				a.log.Error("look up a template", "kind", kind, "namespace", of, "name", name, "err", err)
			}
			return nil
		}
		return t.Document
	}}
}

// readSubmission reads the body as what it says it is.
func readSubmission(r *http.Request) (s wire.Submission, err error) {
	body, err := readBody(r, maxSubmission)
	if err != nil {
		return s, err
	}
	q := r.URL.Query()
	s.Name, s.Text = "request", string(body)
	s.Run = wire.SubmitOptions{Name: q.Get("name"), Namespace: q.Get("namespace"), Key: q.Get("key"), Pool: q.Get("pool")}
	s.Args = map[string]string{}
	for _, kv := range q["arg"] {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return s, refuse(http.StatusBadRequest, "write arg=NAME=VALUE", "%.80q is no argument", kv)
		}
		s.Args[k] = v
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		return s, nil
	}
	var probe struct {
		Version *string `json:"apiVersion"`
	}
	if json.Unmarshal(body, &probe) == nil && probe.Version != nil {
		return s, nil // a document, which is YAML as well
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, refuse(http.StatusBadRequest, "send a submission as /api/openapi.json describes it, or documents as application/yaml", "read the submission: %v", err)
	}
	if s.Name == "" {
		s.Name = "request"
	}
	return s, nil
}

// documentProblem is what is wrong in documents, as an answer.
func documentProblem(name string, problems []workflow.Problem) error {
	p := &wire.Problem{Status: http.StatusUnprocessableEntity, Title: http.StatusText(http.StatusUnprocessableEntity), Detail: name + " is no workflow that can be run"}
	for _, x := range problems {
		place := workflow.Problem{File: x.File, Line: x.Line, Column: x.Column, Path: x.Path}.String()
		p.Errors = append(p.Errors, wire.Detail{Location: strings.TrimSuffix(place, ": "), Message: x.Text})
	}
	return p
}

func (a *API) checkDocuments(ctx context.Context, in *input[wire.Document]) (*output[wire.Checked], error) {
	if err := a.mayRunAny(ctx); err != nil {
		return nil, err
	}
	out := wire.Checked{Problems: []wire.DocumentProblem{}}
	d := in.Body
	kind, problems := front.Kind(d.Name, []byte(d.Text))
	if len(problems) == 0 {
		out.Kind = kind
		var g *workflow.Graph
		if kind == "CronWorkflow" {
			var s *workflow.Schedule
			if s, problems = front.CompileSchedule(d.Name, []byte(d.Text), a.frontOptions(ctx, "", "")); s != nil {
				g = s.Graph
			}
		} else {
			g, problems = front.Compile(d.Name, []byte(d.Text), a.frontOptions(ctx, "", ""))
		}
		if g != nil {
			out.Graph = g.String()
		}
	}
	for _, p := range problems {
		out.Problems = append(out.Problems, wire.DocumentProblem{File: p.File, Line: p.Line, Column: p.Column, Path: p.Path, Text: p.Text})
	}
	return &output[wire.Checked]{out}, nil
}

type runsInput struct {
	Namespace string `query:"namespace" maxLength:"253" doc:"only of this namespace"`
	Name      string `query:"name" maxLength:"253"`
	Schedule  string `query:"schedule" maxLength:"600" doc:"only those that this schedule began: NAMESPACE/NAME"`
	Phase     string `query:"phase" enum:"live,waiting,running,succeeded,failed,error,canceled" doc:"live: all that have not ended"`
	After     string `query:"after" maxLength:"64" doc:"\"next\" of the page before"`
	Limit     int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

func (a *API) listRuns(ctx context.Context, in *runsInput) (*output[wire.RunList], error) {
	if c := callerOf(ctx); in.Namespace == "" && a.Work != nil && c != nil && !c.Can(access.Run, "") {
		if mine := c.Scope(access.Run); len(mine) == 1 && !strings.ContainsAny(mine[0], "*?[{") {
			in.Namespace = mine[0] // they can mean nothing else
		}
	}
	if err := a.mayRun(ctx, in.Namespace); err != nil {
		return nil, err
	}
	list, next, err := a.Work.Runs(ctx, work.RunFilter{Namespace: in.Namespace, Name: in.Name, Schedule: in.Schedule, Phase: in.Phase}, in.After, in.Limit)
	if err != nil {
		return nil, a.runProblem(err, "list runs")
	}
	out := wire.RunList{Runs: make([]wire.Run, len(list)), Next: next}
	for i, x := range list {
		out.Runs[i] = runOf(x)
	}
	return &output[wire.RunList]{out}, nil
}

type runInput struct {
	ID string `path:"id" maxLength:"64"`
}

func (a *API) getRun(ctx context.Context, in *runInput) (*output[wire.Run], error) {
	i, err := a.seen(ctx, in.ID, "look at run")
	if err != nil {
		return nil, err
	}
	r := runOf(i)
	if a.Logs != nil {
		kept, err := a.Logs.Expired(ctx, in.ID, i.Ended)
		if err != nil {
			return nil, a.problem(err, "look at run %s", in.ID)
		}
		r.LogsKept = wire.Duration(kept)
	}
	return &output[wire.Run]{r}, nil
}

type nodesInput struct {
	ID     string   `path:"id" maxLength:"64"`
	Parent string   `query:"parent" maxLength:"64" doc:"right below this node; the top when left out"`
	Phase  []string `query:"phase,explode" maxItems:"8" doc:"only these phases"`
	After  string   `query:"after" maxLength:"64" doc:"\"next\" of the page before"`
	Limit  int      `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

func (a *API) listNodes(ctx context.Context, in *nodesInput) (*output[wire.NodeList], error) {
	if _, err := a.seen(ctx, in.ID, "look at run"); err != nil {
		return nil, err
	}
	var f machine.Filter
	for _, s := range in.Phase {
		p, err := machine.ParsePhase(s)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "", "list nodes: %v", err)
		}
		f.Phases = append(f.Phases, p)
	}
	list, more, err := a.Work.Nodes(ctx, in.ID, in.Parent, in.After, in.Limit, f)
	if err != nil {
		return nil, a.runProblem(err, "list nodes of run "+in.ID)
	}
	out := wire.NodeList{Nodes: make([]wire.RunNode, len(list))}
	for i, v := range list {
		v.Outputs = nil // of a single node only: they may be large
		out.Nodes[i] = nodeOf(v)
	}
	if more {
		out.Next = list[len(list)-1].ID
	}
	return &output[wire.NodeList]{out}, nil
}

type nodeInput struct {
	ID   string `path:"id" maxLength:"64"`
	Node string `path:"node" maxLength:"64"`
}

func (a *API) getNode(ctx context.Context, in *nodeInput) (*output[wire.RunNode], error) {
	if _, err := a.seen(ctx, in.ID, "look at run"); err != nil {
		return nil, err
	}
	v, err := a.Work.Node(ctx, in.ID, in.Node)
	if err != nil {
		return nil, a.runProblem(err, "look at node "+in.Node)
	}
	return &output[wire.RunNode]{nodeOf(v)}, nil
}

func runOf(i work.Info) wire.Run {
	c := i.Counts
	r := wire.Run{ID: i.ID, Name: i.Name, Namespace: i.Namespace, Pool: i.Pool, By: i.By, Schedule: i.Schedule, Phase: i.Phase.String(), Message: i.Message,
		Suspended: i.Suspended, Created: i.Created, Ended: i.Ended, Isolation: i.Isolation,
		Tasks: wire.TaskCounts{Total: c.Total, Active: c.Active, Succeeded: c.Succeeded, Failed: c.Failed, Skipped: c.Skipped, Canceled: c.Canceled, Retries: c.Retries, Crashes: c.Crashes}}
	r.Outputs, _ = shown(i.Outputs).(map[string]any)
	return r
}

func nodeOf(v machine.View) wire.RunNode {
	n := wire.RunNode{ID: v.ID, Name: v.Name, Template: v.Template, Kind: v.Kind, Phase: v.Phase.String(), Message: v.Message, Exit: v.Exit, Attempt: v.Attempt,
		Worker: v.Worker, Started: v.Started, Ended: v.Ended, Children: v.Children, Waits: v.Waits, Address: v.Address}
	if v.Kind == "tasks" || v.Kind == "items" {
		n.Items = &wire.ItemCounts{Total: v.Items, Active: v.Active, Succeeded: v.Succeeded, Failed: v.Failed, Skipped: v.Skipped, Canceled: v.Canceled}
	}
	n.Outputs, _ = shown(v.Outputs).(map[string]any)
	return n
}

// shown is a value as people may see it: of a file, what it is, and not where
// it comes from, which may hold what signs on there.
func shown(v workflow.Value) any {
	return workflow.Replace(v, func(v workflow.Value) workflow.Value {
		if f, ok := v.(*workflow.File); ok {
			known := *f
			known.Source = nil
			return known
		}
		return v
	})
}

// runProblem is an error of the work server as an answer.
func (a *API) runProblem(err error, tried string) error {
	switch {
	case errors.Is(err, work.ErrNotFound):
		return refuse(http.StatusNotFound, "`cairn runs ls` lists the runs there are", "%s: %v", tried, err)
	case errors.Is(err, work.ErrConflict):
		return refuse(http.StatusConflict, "", "%s: %v", tried, err)
	case errors.Is(err, work.ErrInvalid):
		return refuse(http.StatusBadRequest, "", "%s: %v", tried, err)
	case errors.Is(err, work.ErrBusy):
		return refuse(http.StatusTooManyRequests, "", "%s: %v", tried, err)
	case errors.Is(err, work.ErrClosed):
		return refuse(http.StatusServiceUnavailable, "try again in a moment", "%s: %v", tried, err)
	}
	return a.problem(err, "%s", tried)
}
