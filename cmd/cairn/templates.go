package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/workflow/front"
)

func (a *app) templatesCommand() *cobra.Command {
	return group("templates", "Templates on the server, which workflows refer to",
		`Templates on the server, which workflows refer to by their names:
WorkflowTemplates, named [NAMESPACE/]NAME, and ClusterWorkflowTemplates, which are
for all namespaces. Runs keep what they were started with.`,
		a.templatesLs(), a.templatesPut(), a.templatesGet(), a.templatesRm())
}

func (a *app) templatesLs() *cobra.Command {
	var namespace string
	c := &cobra.Command{
		Use:   "ls",
		Short: "List templates",
		Args:  takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			l, err := cl.Templates(cmd.Context(), namespace)
			if err != nil {
				return err
			}
			return a.print(l, func(row func(...string)) {
				row("NAMESPACE", "NAME", "KIND", "CHANGED", "BY")
				for _, t := range l.Templates {
					row(dash(t.Namespace), t.Name, t.Kind, day(t.Changed), t.By)
				}
			})
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "only of this namespace")
	return a.withOutput(c)
}

func (a *app) templatesPut() *cobra.Command {
	var namespace string
	c := &cobra.Command{
		Use:   "put FILE...",
		Short: "Store the templates of files, in place of those of their names",
		Args:  takes(1, 100),
		RunE: func(cmd *cobra.Command, files []string) error {
			s, err := a.readFiles(cmd.Context(), files)
			if err != nil {
				return err
			}
			if _, problems := a.compile(cmd.Context(), s, namespace); len(problems) > 0 {
				return s.wrong(problems)
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			l, err := cl.PutTemplates(cmd.Context(), wire.Document{Name: s.name(), Text: string(s.text)}, namespace)
			if err != nil {
				return err
			}
			for _, t := range l.Templates {
				fmt.Fprintf(a.stdout, "stored %s\n", templateName(t))
			}
			return nil
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "of templates that name none (default \"default\")")
	return c
}

func templateName(t wire.Template) string {
	if t.Namespace == "" {
		return t.Name + " for all namespaces"
	}
	return t.Namespace + "/" + t.Name
}

func (a *app) templatesGet() *cobra.Command {
	return a.oneTemplate("get", "Print the document of a template", func(ctx context.Context, cl *client.Client, kind, namespace, name string) error {
		t, err := cl.Template(ctx, kind, namespace, name)
		if err != nil {
			return err
		}
		_, err = io.WriteString(a.stdout, t.Text)
		return err
	})
}

func (a *app) templatesRm() *cobra.Command {
	return a.oneTemplate("rm", "Forget a template; runs that were started with it go on", func(ctx context.Context, cl *client.Client, kind, namespace, name string) error {
		if err := cl.DeleteTemplate(ctx, kind, namespace, name); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "removed %s\n", name)
		return nil
	})
}

// oneTemplate is a command for a single template.
func (a *app) oneTemplate(use, short string, f func(ctx context.Context, cl *client.Client, kind, namespace, name string) error) *cobra.Command {
	var cluster bool
	c := &cobra.Command{
		Use:   use + " [NAMESPACE/]NAME",
		Short: short,
		Args:  takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind := "WorkflowTemplate"
			namespace, name := scheduleName(args[0])
			if cluster {
				kind, namespace, name = "ClusterWorkflowTemplate", "", args[0]
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			return f(cmd.Context(), cl, kind, namespace, name)
		},
	}
	c.Flags().BoolVar(&cluster, "cluster", false, "a ClusterWorkflowTemplate")
	return c
}

// options let a document refer to templates that are on the server, which is
// asked only for those that are in no file. What kept it from answering is told
// by failed.
func (a *app) options(ctx context.Context, namespace string) (o front.Options, failed func() error) {
	var trouble error
	o.Templates = func(kind, of, name string) []byte {
		if of == "" {
			of = namespace
		}
		cl, err := a.client()
		if err != nil {
			trouble = err
			return nil
		}
		t, err := cl.Template(ctx, kind, of, name)
		if p, ok := errors.AsType[*wire.Problem](err); err != nil && (!ok || p.Status != http.StatusNotFound) {
			trouble = fmt.Errorf("look up the template %q, which is in no file: %w", name, err)
		}
		return []byte(t.Text)
	}
	return o, func() error { return trouble }
}
