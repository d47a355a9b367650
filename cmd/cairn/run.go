package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/front"
)

func (a *app) runCommand() *cobra.Command {
	var (
		j      job
		each   string
		files  []string
		args   []string
		o      wire.SubmitOptions
		dryRun bool
		wait   bool
	)
	c := &cobra.Command{
		Use:   "run IMAGE [-- COMMAND...]",
		Short: "Run a container, or a thousand, or a workflow",
		Long: `Run a container of an image, or one for each item of a list, or a workflow from
a file. The words behind -- are the arguments of the image's entrypoint, as
docker run has it.

--each runs the container once for each item: of a file or standard input (-)
that is a JSON array or has one item a line, or for each file that a path with
wildcards matches. {} in an argument is the item, as it is, in one argument and
without a shell; where there is no {}, it comes last. A file is handed in once,
and {} is its path inside the container. What no argument can hold (a NUL, more
than 128 KiB) is had with --item-file.

Without --wait the ID of the run is printed, and nothing is waited for. With it,
one container's output is shown and its exit code is that of the command; of
everything else the progress is shown, and the exit code says how the run ended.
A run goes on when the command that waits is interrupted.`,
		Example: `  cairn run --wait docker.io/library/alpine:3 -- echo hello
  cairn run alpine --each items.json --parallelism 50 --wait -- sh -c 'convert "$1"' sh {}
  find . -name '*.png' | cairn run tools/shrink --each - -- shrink {}
  cairn run tools/shrink --each 'photos/*.png' --wait -- shrink {}
  cairn run -f workflow.yaml --arg day=2026-01-01 --wait
  cairn run -f workflow.yaml --dry-run`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(files) > 0 && len(args) > 0:
				return usagef("name an image or a file with -f, not both")
			case len(files) == 0 && len(args) == 0:
				return usagef("name an image, or a workflow's file with -f")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, words []string) error {
			ctx := cmd.Context()
			if len(files) > 0 {
				if err := onlyWith(cmd, "an image", "each", "item-file", "parallelism", "env", "retries", "timeout", "cpu", "memory", "isolation", "fail-fast", "command"); err != nil {
					return err
				}
				s, err := a.readFiles(ctx, files)
				if err != nil {
					return err
				}
				return a.runFile(ctx, s, args, o, dryRun, wait)
			}
			if err := onlyWith(cmd, "a file (-f)", "arg"); err != nil {
				return err
			}
			j.image, j.words, j.each = words[0], words[1:], each != ""
			if !j.each {
				if err := onlyWith(cmd, "--each", "item-file", "parallelism", "fail-fast"); err != nil {
					return err
				}
			}
			return a.runJob(ctx, &j, each, o, dryRun, wait)
		},
	}
	f := c.Flags()
	f.StringArrayVarP(&files, "file", "f", nil, "file or URL of a workflow, - for standard input; may be repeated: templates may stand in files of their own")
	f.StringArrayVar(&args, "arg", nil, "NAME=VALUE of a parameter of the workflow; may be repeated")
	f.BoolVar(&dryRun, "dry-run", false, "print what would be run, and start nothing")
	f.BoolVarP(&wait, "wait", "w", false, "wait until the run has ended")
	f.StringVar(&each, "each", "", "run once for each item of this file, of standard input (-), or for each file that a path with wildcards matches")
	f.StringVar(&j.itemFile, "item-file", "", "path in the container of a file that holds the item")
	f.IntVar(&j.parallelism, "parallelism", 0, "so many items at a time (default: as many as there are workers)")
	f.BoolVar(&j.failFast, "fail-fast", false, "begin no more items once one has failed")
	f.StringArrayVarP(&j.env, "env", "e", nil, "NAME=VALUE, or NAME for its value here; may be repeated")
	f.IntVar(&j.retries, "retries", 0, "how often what failed is tried again")
	durationVar(f, &j.timeout, "timeout", "how long one container may take (default: for ever)")
	f.StringVar(&j.cpu, "cpu", "", "processors that each wants to itself, such as 2 or 500m")
	f.StringVar(&j.memory, "memory", "", "memory likewise, such as 512Mi")
	f.BoolVar(&j.command, "command", false, "the words are in place of the image's entrypoint, too")
	f.StringVar(&j.isolation, "isolation", "", "of tasks from one another: auto, overlay, readonly, pod or shared (default auto)")
	f.StringVar(&o.Name, "name", "", "name of the run; with a '-' at its end a name is made from it")
	f.StringVarP(&o.Namespace, "namespace", "n", "", "namespace of the run (default: the document's, or \"default\")")
	f.StringVar(&o.Pool, "pool", "", "the workers that run it (default \"default\")")
	f.StringVar(&o.Key, "key", "", "start it once: who uses the same key again gets the run that is there")
	_ = c.RegisterFlagCompletionFunc("isolation", cobra.FixedCompletions([]string{"auto", "overlay", "readonly", "pod", "shared"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// onlyWith refuses flags that make no sense here.
func onlyWith(cmd *cobra.Command, with string, flags ...string) error {
	for _, f := range flags {
		if cmd.Flags().Changed(f) {
			return usagef("--%s goes with %s", f, with)
		}
	}
	return nil
}

// runJob runs an image, perhaps for each item of a list.
func (a *app) runJob(ctx context.Context, j *job, each string, o wire.SubmitOptions, dryRun, wait bool) error {
	items, err := a.items(each)
	if err != nil {
		return err
	}
	j.files = items != nil && items.paths != nil
	doc, err := j.document(a.getenv)
	if err != nil {
		return err
	}
	const name = "command line"
	g, problems := front.Compile(name, doc, front.Options{})
	if len(problems) > 0 {
		return usagef("%s", jobProblem(problems[0]))
	}
	if dryRun {
		_, err := io.WriteString(a.stdout, g.String())
		return err
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	s := wire.Submission{Document: wire.Document{Name: name, Text: string(doc)}, Run: o}
	if items != nil {
		if err := a.handIn(ctx, cl, items, &s); err != nil {
			return err
		}
	}
	r, err := cl.Submit(ctx, s)
	if err != nil {
		return err
	}
	if !wait {
		a.started(r)
		return nil
	}
	if j.each {
		return a.watch(ctx, cl, r.ID)
	}
	return a.attach(ctx, cl, r.ID)
}

// jobProblem is a problem of the document that we made, in words of the command
// line that it was made of.
func jobProblem(p workflow.Problem) string {
	field := p.Path[strings.LastIndexByte(p.Path, '.')+1:]
	if field == "" {
		return p.Text
	}
	return field + ": " + p.Text
}

// runFile runs a workflow of files.
func (a *app) runFile(ctx context.Context, s *sources, args []string, o wire.SubmitOptions, dryRun, wait bool) error {
	g, problems := a.compile(ctx, s, o.Namespace)
	if len(problems) > 0 {
		if kind, _ := front.Kind(s.name(), s.text); kind == "CronWorkflow" {
			return &hinted{fmt.Errorf("%s is a CronWorkflow, which the clock starts", s.name()), "`cairn schedules put " + s.name() + "` hands it to the server"}
		}
		return s.wrong(problems)
	}
	if all := front.Workflows(s.name(), s.text); len(all) > 1 {
		return usagef("there are %d workflows: %s; start each by itself, or put what they share into a WorkflowTemplate", len(all), brief(strings.Join(all, ", ")))
	}
	given := map[string]string{}
	for _, kv := range args {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return usagef("--arg %q: write NAME=VALUE", kv)
		}
		given[k] = v
	}
	if _, err := g.Arguments(given, nil); err != nil {
		return usagef("%w", err)
	}
	if dryRun {
		_, err := io.WriteString(a.stdout, g.String())
		return err
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	r, err := cl.Submit(ctx, wire.Submission{Document: wire.Document{Name: s.name(), Text: string(s.text)}, Args: given, Run: o})
	if err != nil {
		return err
	}
	if !wait {
		a.started(r)
		return nil
	}
	return a.watch(ctx, cl, r.ID)
}

// compile makes the graph of files, or says what is wrong in them.
func (a *app) compile(ctx context.Context, s *sources, namespace string) (*workflow.Graph, []workflow.Problem) {
	o, failed := a.options(ctx, namespace)
	g, problems := front.Compile(s.name(), s.text, o)
	if err := failed(); err != nil && len(problems) > 0 {
		problems = append(problems, workflow.Problem{File: s.name(), Text: err.Error()})
	}
	return g, problems
}

// started says how to go on. The ID alone goes to stdout, so that a script can
// take it.
func (a *app) started(r wire.Submitted) {
	for _, w := range r.Warnings {
		fmt.Fprintf(a.stderr, "note: %s\n", w)
	}
	fmt.Fprintln(a.stdout, r.ID)
	fmt.Fprintf(a.stderr, "%s/%s was started; follow it by: cairn logs -f %s, look at it by: cairn runs get %s\n", r.Namespace, r.Name, r.ID, r.ID)
}

// attach shows what a run of one container prints, and ends as it does.
func (a *app) attach(ctx context.Context, cl *client.Client, id string) error {
	err := a.followOn(ctx, cl, id, client.LogQuery{}, false)
	if p, ok := errors.AsType[*wire.Problem](err); ok && p.Status == http.StatusNotFound {
		err = nil // it keeps no logs: there is only the end to wait for
	}
	if err != nil {
		return a.goesOn(ctx, id, err)
	}
	r, err := a.await(ctx, cl, id, nil)
	if err != nil {
		return a.goesOn(ctx, id, err)
	}
	return a.outcome(ctx, cl, r)
}

// outcome is how a run of one container ended, as an exit code: its own, where
// it has one.
func (a *app) outcome(ctx context.Context, cl *client.Client, r wire.Run) error {
	if r.Phase != "failed" {
		return ended(r)
	}
	var failed []wire.RunNode
	if err := failedTasks(ctx, cl, r.ID, "", 0, &failed); err != nil {
		return err
	}
	for _, n := range failed {
		if n.Kind == "task" && n.Exit > 0 && n.Exit < 256 {
			return &programError{run: r.ID, code: n.Exit, message: n.Message}
		}
	}
	return ended(r)
}

// sources are the files of a workflow, one behind the other.
type sources struct {
	files []string
	first []int // line in text with which each begins, from 0
	text  []byte
}

// name is what problems are told by that are of no single file.
func (s *sources) name() string { return s.files[0] }

// maxFile bounds a file of workflows.
const maxFile = 4 << 20

// readFiles reads files and URLs.
func (a *app) readFiles(ctx context.Context, names []string) (*sources, error) {
	s := &sources{files: names}
	for i, name := range names {
		b, err := a.readSource(ctx, name)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			s.text = append(s.text, "\n---\n"...)
		}
		s.first = append(s.first, strings.Count(string(s.text), "\n"))
		s.text = append(s.text, b...)
	}
	return s, nil
}

func (a *app) readSource(ctx context.Context, name string) ([]byte, error) {
	var r io.Reader
	switch {
	case name == "-":
		r = a.stdin
	case strings.HasPrefix(name, "http://"), strings.HasPrefix(name, "https://"):
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, name, nil)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("read %s: the server answers %s", name, resp.Status)
		}
		r = resp.Body
	default:
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("read %s: it has more than %s: hand long lists over as files", name, bytesText(maxFile))
	}
	return b, nil
}

// place puts a problem where it is in the files.
func (s *sources) place(p workflow.Problem) workflow.Problem {
	for i := len(s.files) - 1; i >= 0; i-- {
		if p.Line == 0 || p.Line > s.first[i] {
			p.File = s.files[i]
			if p.Line > 0 {
				p.Line -= s.first[i]
			} else {
				p.File = s.files[0]
			}
			break
		}
	}
	return p
}

// wrong is an error that says everything that is wrong in the files.
func (s *sources) wrong(problems []workflow.Problem) error {
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = s.place(p).String()
	}
	return errors.New(strings.Join(lines, "\n  "))
}
