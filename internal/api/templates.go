package api

import (
	"cmp"
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/workflow/front"
)

// Templates are documents that workflows refer to by their names.
type Templates interface {
	PutTemplates(ctx context.Context, list []work.Template) error
	Template(ctx context.Context, kind, namespace, name string) (work.Template, error)
	Templates(ctx context.Context) ([]work.Template, error)
	DeleteTemplate(ctx context.Context, kind, namespace, name string) error
}

// clusterTemplate is the kind of templates that are for all namespaces.
const clusterTemplate = "ClusterWorkflowTemplate"

func (a *API) templateRoutes() {
	huma.Register(a.huma, op("list-templates", http.MethodGet, "/api/v1/templates", "runs", "List templates of workflows, without their documents"), a.listTemplates)
	put := op("put-templates", http.MethodPut, "/api/v1/templates", "runs", "Store the templates of a file, in place of those of their names", 400, 422)
	put.Description = "Runs keep what they were started with. Those of kind ClusterWorkflowTemplate are for all namespaces, and need an account that may run workflows in all of them."
	huma.Register(a.huma, put, a.putTemplates)
	huma.Register(a.huma, op("get-template", http.MethodGet, "/api/v1/template", "runs", "Show a template", 404), a.getTemplate)
	huma.Register(a.huma, op("delete-template", http.MethodDelete, "/api/v1/template", "runs", "Forget a template; runs that were started with it go on", 404), a.deleteTemplate)
}

// mayChange refuses who may not change templates of the namespace.
func (a *API) mayChange(ctx context.Context, kind, namespace string) error {
	if kind == clusterTemplate {
		return a.mayRun(ctx, "")
	}
	return a.mayRun(ctx, namespace)
}

func (a *API) listTemplates(ctx context.Context, in *schedulesInput) (*output[wire.TemplateList], error) {
	if err := a.mayRunAny(ctx); err != nil {
		return nil, err
	}
	all, err := a.Work.Templates(ctx)
	if err != nil {
		return nil, a.runProblem(err, "list templates")
	}
	c := callerOf(ctx)
	out := wire.TemplateList{Templates: []wire.Template{}}
	for _, t := range all {
		seen := t.Kind == clusterTemplate || c.Can(access.Run, t.Namespace)
		if seen && (in.Namespace == "" || in.Namespace == t.Namespace) {
			out.Templates = append(out.Templates, templateOf(t))
		}
	}
	return &output[wire.TemplateList]{out}, nil
}

type putTemplatesInput struct {
	Namespace string `query:"namespace" maxLength:"253" doc:"of templates that name none (default \"default\")"`
	Body      wire.Document
}

func (a *API) putTemplates(ctx context.Context, in *putTemplatesInput) (*output[wire.TemplateList], error) {
	if err := a.mayRunAny(ctx); err != nil {
		return nil, err
	}
	d := in.Body
	d.Name = cmp.Or(d.Name, "request")
	var list []work.Template
	for _, t := range front.Templates(d.Name, []byte(d.Text)) {
		x := work.Template{Kind: t.Kind, Name: t.Name, By: actor(ctx), Document: t.Document}
		if t.Kind != clusterTemplate {
			x.Namespace = cmp.Or(t.Namespace, in.Namespace, defaultNamespace)
		}
		if err := a.mayChange(ctx, x.Kind, x.Namespace); err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	// Judged in the company of those it came with, and of those there are.
	_, problems := front.Compile(d.Name, []byte(d.Text), a.frontOptions(ctx, in.Namespace, ""))
	if len(problems) > 0 {
		return nil, documentProblem(d.Name, problems)
	}
	if len(list) == 0 {
		return nil, refuse(http.StatusUnprocessableEntity, "a WorkflowTemplate or ClusterWorkflowTemplate is one", "there is no template in %s", d.Name)
	}
	if err := a.Work.PutTemplates(ctx, list); err != nil {
		return nil, a.runProblem(err, "store the templates of "+d.Name)
	}
	out := wire.TemplateList{Templates: []wire.Template{}}
	for _, x := range list {
		x.Document, x.Changed = nil, a.Clock.Now()
		out.Templates = append(out.Templates, templateOf(x))
	}
	return &output[wire.TemplateList]{out}, nil
}

type templateInput struct {
	Kind      string `query:"kind" enum:"WorkflowTemplate,ClusterWorkflowTemplate" default:"WorkflowTemplate"`
	Namespace string `query:"namespace" maxLength:"253" doc:"default: \"default\""`
	Name      string `query:"name" required:"true" minLength:"1" maxLength:"253"`
}

func (in *templateInput) namespace() string {
	if in.Kind == clusterTemplate {
		return ""
	}
	return cmp.Or(in.Namespace, defaultNamespace)
}

func (a *API) getTemplate(ctx context.Context, in *templateInput) (*output[wire.Template], error) {
	err := a.mayRunAny(ctx)
	if err == nil && in.Kind != clusterTemplate {
		err = a.mayRun(ctx, in.namespace())
	}
	if err != nil {
		return nil, err
	}
	t, err := a.Work.Template(ctx, in.Kind, in.namespace(), in.Name)
	if err != nil {
		return nil, a.templateProblem(err, "look at")
	}
	return &output[wire.Template]{templateOf(t)}, nil
}

func (a *API) deleteTemplate(ctx context.Context, in *templateInput) (*struct{}, error) {
	if err := a.mayChange(ctx, in.Kind, in.namespace()); err != nil {
		return nil, err
	}
	if err := a.Work.DeleteTemplate(ctx, in.Kind, in.namespace(), in.Name); err != nil {
		return nil, a.templateProblem(err, "forget")
	}
	return nil, nil
}

func (a *API) templateProblem(err error, verb string) error {
	p := a.runProblem(err, verb+" a template")
	if x, ok := p.(*wire.Problem); ok && x.Status == http.StatusNotFound {
		x.Hint = "`cairn templates ls` lists those there are"
	}
	return p
}

func templateOf(t work.Template) wire.Template {
	return wire.Template{Kind: t.Kind, Namespace: t.Namespace, Name: t.Name, By: t.By, Changed: t.Changed, Text: string(t.Document)}
}
