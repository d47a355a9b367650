package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/bump"
	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/rules"
	"cairn.dev/cairn/internal/scan"
)

func (a *app) scanCommand() *cobra.Command {
	var s source
	c := &cobra.Command{
		Use:   "scan [DIR]",
		Short: "List the images that code names, and where each comes from",
		Long: `List the images that a folder of code names: Terraform and OpenTofu, YAML of
Kubernetes, Kustomize, Helm, Pulumi and Compose, Dockerfiles, and text marked by
a comment:

  version = "1.2.3"   # cairn: image=ghcr.io/team/app ~1.2

Each image is shown with the way from where it is used to the bytes it comes
from. What cannot be edited says why. What .cairn.yaml in the folder ignores and
adds counts. Nothing is run, and no server and no registry is asked.`,
		Example: "  cairn scan\n  cairn scan infra --environment prod=prod.tfvars -o json",
		Args:    takes(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := s.read(cmd.Context(), args)
			if err != nil {
				return err
			}
			problems := f.problems
			if a.output == "table" {
				problems = nil // they follow
			}
			view := scanView{Images: f.result.Images, Problems: problems}
			if view.Images == nil {
				view.Images = []code.Image{}
			}
			if err := a.print(view, func(row func(...string)) {
				row("IMAGE", "PLACE", "USED BY", "COMES FROM")
				for _, i := range f.result.Images {
					row(dash(i.Value), i.Place.String(), usedBy(i), comesFrom(i))
				}
			}); err != nil {
				return err
			}
			if a.output == "table" {
				a.problems(f.problems)
			}
			return nil
		},
	}
	s.flags(c)
	return a.withOutput(c)
}

// scanView is what `cairn scan -o json` prints.
type scanView struct {
	Images   []code.Image   `json:"images"`
	Problems []code.Problem `json:"problems,omitempty"`
}

// problems says what could not be read, after what could.
func (a *app) problems(list []code.Problem) {
	for _, p := range list {
		fmt.Fprintf(a.stderr, "%s: %s\n", p.Place, p.Text)
	}
}

// usedBy is a sink, and the environment it was evaluated with.
func usedBy(i code.Image) string {
	s := i.Address + " " + i.Path
	if i.Dir != path.Dir(i.Place.File) && i.Dir != "." { // it stands in a module
		s += " of " + i.Dir
	}
	if i.Environment != "" {
		s += " (" + i.Environment + ")"
	}
	return s
}

// comesFrom is the way to the bytes behind an image, or why there is none.
func comesFrom(i code.Image) string {
	var steps []string
	for k, s := range i.Chain {
		if k == 0 {
			continue // the sink itself
		}
		steps = append(steps, s.Name+" "+seenFrom(s.Place, i.Place))
	}
	s := strings.Join(steps, ", ")
	if i.Fixed != "" {
		if s != "" {
			s += "; "
		}
		return s + "not editable: " + i.Fixed
	}
	return dash(s)
}

// seenFrom is a place as seen from another one: the line alone in the same file.
func seenFrom(p, from code.Place) string {
	if p.File == from.File && p.Line > 0 {
		return fmt.Sprintf(":%d", p.Line)
	}
	return p.String()
}

// source is the folder of code that a command works on.
type source struct {
	environments []string // NAME=file,file
}

func (s *source) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&s.environments, "environment", nil, "NAME=FILE,FILE: also read Terraform with these var-files, paths from DIR, instead of those in .cairn.yaml; may be repeated")
}

// folder is code that was read.
type folder struct {
	*scan.Folder
	scanner  *scan.Scanner
	rules    *bump.Rules
	tree     *code.Tree
	options  code.Options
	result   *code.Result
	problems []code.Problem // of loading and of reading
}

// read reads the folder that the arguments name, or this one.
func (s *source) read(ctx context.Context, args []string) (*folder, error) {
	dir := "."
	if len(args) > 0 {
		dir = args[0]
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, usagef("%s is not a folder of code", dir)
	}
	// The process ends soon: collecting its garbage often costs more than it frees.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	f := &folder{scanner: scan.New()}
	file, err := os.ReadFile(filepath.Join(dir, rules.Name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if f.rules, err = bump.ReadRules(file); err != nil {
		return nil, err
	}
	f.options = f.rules.Options
	more, err := environments(s.environments)
	if err != nil {
		return nil, err
	}
	if len(more) > 0 {
		f.options.Environments = more
	}
	if f.Folder, err = scan.OpenFolder(dir, f.options.Ignore, f.options.Marked); err != nil {
		return nil, err
	}
	loaded, err := f.Load(ctx)
	if err != nil {
		return nil, err
	}
	f.tree = loaded.Tree
	for name, files := range f.options.Environments {
		for _, p := range files {
			if _, err := f.tree.Read(p); err != nil {
				return nil, usagef("--environment %s: %w; name files by their paths from %s", name, err, dir)
			}
		}
	}
	if f.result, err = f.scanner.Scan(ctx, f.tree, f.options); err != nil {
		return nil, err
	}
	f.problems = append(loaded.Problems, f.result.Problems...)
	scan.SortProblems(f.problems)
	return f, nil
}

// environments reads NAME=FILE,FILE.
func environments(list []string) (map[string][]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	m := map[string][]string{}
	for _, e := range list {
		name, files, ok := strings.Cut(e, "=")
		if !ok || name == "" || files == "" {
			return nil, usagef("--environment %q: write NAME=FILE,FILE", e)
		}
		if _, twice := m[name]; twice {
			return nil, usagef("--environment %s is given twice: write all of its files behind one", name)
		}
		for p := range strings.SplitSeq(files, ",") {
			m[name] = append(m[name], path.Clean(p))
		}
	}
	return m, nil
}
