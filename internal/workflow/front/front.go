// Package front reads documents of workflows, whichever of the two front ends
// they are written for.
//
// It owns the choice, by their apiVersion, and how it is remembered: the first
// line of [workflow.Graph.Documents] says by whom they were read and for where,
// so that reading them again gives the same graph. It promises to be pure, and
// that a file is read by one front end only. What documents mean it does not
// know.
package front

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/argo"
	"cairn.dev/cairn/internal/workflow/document"
)

// Options are what the reading of a document may ask for.
type Options struct {
	// Templates returns the document of a template that stands in no file that
	// was given; nil when there is none. May be nil.
	Templates workflow.Templates
	// ConfigMap returns the value at a key of a ConfigMap. May be nil.
	ConfigMap func(namespace, name, key string) (string, bool)
	// Cluster: the tasks will be pods, so that what only Kubernetes can do is
	// handed on to it.
	Cluster bool
}

// The first line of documents that were compiled.
const (
	mark    = "# compiled "
	ours    = "cairn"
	argos   = "argo"
	cron    = " schedule"
	cluster = " cluster"
)

// Compile makes the graph of the first Workflow in a file, else of its first
// template, as if that were started now. Problems name the file. A graph is
// returned only when there is none.
func Compile(file string, doc []byte, o Options) (*workflow.Graph, []workflow.Problem) {
	who, problems := reader(file, doc)
	if len(problems) > 0 {
		return nil, problems
	}
	g, problems := compile(who, file, doc, o)
	if g != nil {
		g.Documents = marked(who, "", o, g.Documents)
	}
	return g, problems
}

// CompileSchedule reads the first CronWorkflow in a file.
func CompileSchedule(file string, doc []byte, o Options) (*workflow.Schedule, []workflow.Problem) {
	who, problems := reader(file, doc)
	if len(problems) > 0 {
		return nil, problems
	}
	s, problems := compileSchedule(who, file, doc, o)
	if s != nil {
		s.Documents = marked(who, cron, o, s.Documents)
		s.Graph.Documents = s.Documents
	}
	return s, problems
}

// Again makes the graph of documents that were compiled before: that of the
// runs, where they are a schedule's.
func Again(documents []byte) (*workflow.Graph, error) {
	who, schedule, o, err := unmark(documents)
	if err != nil {
		return nil, err
	}
	if schedule {
		s, err := ScheduleAgain(documents)
		if err != nil {
			return nil, err
		}
		return s.Graph, nil
	}
	g, problems := compile(who, "stored documents", documents, o)
	if g == nil {
		return nil, failure(problems)
	}
	g.Documents = documents
	return g, nil
}

// ScheduleAgain makes the schedule of documents that were compiled before.
func ScheduleAgain(documents []byte) (*workflow.Schedule, error) {
	who, _, o, err := unmark(documents)
	if err != nil {
		return nil, err
	}
	s, problems := compileSchedule(who, "stored documents", documents, o)
	if s == nil {
		return nil, failure(problems)
	}
	s.Documents, s.Graph.Documents = documents, documents
	return s, nil
}

func compile(who, file string, doc []byte, o Options) (*workflow.Graph, []workflow.Problem) {
	if who == ours {
		return workflow.Compile(file, doc, o.Templates)
	}
	return argo.Compile(file, doc, argo.Options{Templates: o.Templates, ConfigMap: o.ConfigMap, Cluster: o.Cluster})
}

func compileSchedule(who, file string, doc []byte, o Options) (*workflow.Schedule, []workflow.Problem) {
	if who == ours {
		return workflow.CompileSchedule(file, doc, o.Templates)
	}
	return argo.CompileSchedule(file, doc, argo.Options{Templates: o.Templates, ConfigMap: o.ConfigMap, Cluster: o.Cluster})
}

// Kind is what a file is there for: "CronWorkflow" when there is one in it and
// no Workflow, else "Workflow".
func Kind(file string, doc []byte) (string, []workflow.Problem) {
	headers, problems := workflow.Headers(file, doc)
	has := func(kind string) bool {
		return slices.ContainsFunc(headers, func(h workflow.Header) bool { return h.Kind == kind })
	}
	if has("CronWorkflow") && !has("Workflow") {
		return "CronWorkflow", problems
	}
	return "Workflow", problems
}

// A Template is a document that others refer to by its name.
type Template struct {
	workflow.Header
	Document []byte
}

// Templates are those in a file, each as a document of its own.
func Templates(file string, doc []byte) []Template {
	var out []Template
	headers, _ := workflow.Headers(file, doc)
	for i, n := range document.Read(file, doc, &document.Log{}) {
		if i < len(headers) && (headers[i].Kind == "WorkflowTemplate" || headers[i].Kind == "ClusterWorkflowTemplate") {
			out = append(out, Template{headers[i], n.YAML()})
		}
	}
	return out
}

// Workflows are the names of those in a file, of which [Compile] takes the
// first.
func Workflows(file string, doc []byte) (names []string) {
	headers, _ := workflow.Headers(file, doc)
	for _, h := range headers {
		if h.Kind == "Workflow" {
			names = append(names, h.Name)
		}
	}
	return names
}

// reader says whose documents these are.
func reader(file string, doc []byte) (who string, problems []workflow.Problem) {
	headers, problems := workflow.Headers(file, doc)
	if len(problems) > 0 {
		return "", problems
	}
	for _, h := range headers {
		of := ""
		switch h.Version {
		case workflow.Version:
			of = ours
		case argo.Version:
			of = argos
		case "v1": // a ConfigMap beside Argo's
			continue
		default:
			return "", []workflow.Problem{{File: file, Line: h.Line, Column: h.Column, Path: "apiVersion",
				Text: fmt.Sprintf("%.80q is neither %s (ours) nor %s (Argo's)", h.Version, workflow.Version, argo.Version)}}
		}
		if who != "" && of != who {
			return "", []workflow.Problem{{File: file, Line: h.Line, Column: h.Column, Path: "apiVersion",
				Text: fmt.Sprintf("documents of %s and of %s in one file: put them into two", workflow.Version, argo.Version)}}
		}
		who = of
	}
	if who == "" {
		return "", []workflow.Problem{{File: file, Text: fmt.Sprintf("there is no workflow in it: a document has apiVersion %s or %s", workflow.Version, argo.Version)}}
	}
	return who, nil
}

func marked(who, kind string, o Options, documents []byte) []byte {
	first := mark + who + kind
	if o.Cluster {
		first += cluster
	}
	return append([]byte(first+"\n"), documents...)
}

func unmark(documents []byte) (who string, schedule bool, o Options, err error) {
	line, _, _ := bytes.Cut(documents, []byte("\n"))
	rest, ok := strings.CutPrefix(string(line), mark)
	if ok {
		rest, o.Cluster = strings.CutSuffix(rest, cluster)
		who, schedule = strings.CutSuffix(rest, cron)
	}
	if who != ours && who != argos {
		return "", false, o, fmt.Errorf("stored documents begin with %.80q, not with who compiled them", line)
	}
	return who, schedule, o, nil
}

func failure(problems []workflow.Problem) error {
	if len(problems) == 0 {
		return fmt.Errorf("stored documents are not read any more")
	}
	return fmt.Errorf("stored documents are not read any more: %s", problems[0])
}
