package workflow

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"

	"cairn.dev/cairn/internal/workflow/document"
)

// Templates returns the document of a template that another document refers to
// and that does not stand beside it; nil when there is none.
type Templates func(kind, namespace, name string) []byte

// Compile makes the graph of the first Workflow (or, when there is none, of the
// first WorkflowTemplate) in a file of our documents. Templates in the same
// file are found without asking for them. file is what problems name. A graph
// is returned only when there is no problem.
func Compile(file string, doc []byte, templates Templates) (*Graph, []Problem) {
	var log document.Log
	c := newCompiler(file, doc, templates, &log)
	o := c.first("Workflow", "WorkflowTemplate")
	if o == nil {
		if log.Len() == 0 {
			log.Add(Problem{File: file, Text: "there is no Workflow of " + Version + " in it"})
		}
		return nil, log.Problems()
	}
	g := c.graph(o, o.spec)
	if log.Len() > 0 {
		return nil, log.Problems()
	}
	return g, nil
}

// CompileSchedule does the same for the first CronWorkflow.
func CompileSchedule(file string, doc []byte, templates Templates) (*Schedule, []Problem) {
	var log document.Log
	c := newCompiler(file, doc, templates, &log)
	o := c.first("CronWorkflow")
	if o == nil {
		if log.Len() == 0 {
			log.Add(Problem{File: file, Text: "there is no CronWorkflow of " + Version + " in it"})
		}
		return nil, log.Problems()
	}
	s := c.schedule(o)
	if log.Len() > 0 {
		return nil, log.Problems()
	}
	return s, nil
}

// compiler is the reading of one file.
type compiler struct {
	objects   []*object
	templates Templates
	log       *document.Log
	docs      [][]byte // all that were read, for Graph.Documents
	g         *Graph
	open      []string // templates being compiled, to find those that use themselves
	signs     map[string]*signature
}

// signature is what a template takes and gives.
type signature struct {
	inputs  []input
	outputs map[string]*cel.Type
}

func newCompiler(file string, doc []byte, templates Templates, log *document.Log) *compiler {
	c := &compiler{templates: templates, log: log, signs: map[string]*signature{}}
	c.read(file, doc)
	return c
}

func (c *compiler) read(file string, doc []byte) {
	c.docs = append(c.docs, doc)
	for _, n := range document.Read(file, doc, c.log) {
		if v := n.Get("apiVersion").Text(); v != Version {
			n.Fail("apiVersion is %.80q: this reads %s", v, Version)
			continue
		}
		kinds := []string{"Workflow", "WorkflowTemplate", "CronWorkflow"}
		if k := n.Get("kind"); !slices.Contains(kinds, k.Text()) {
			n.Fail("kind is %.80q: there are %s%s", k.Text(), strings.Join(kinds, ", "), document.Meant(k.Text(), kinds))
			continue
		}
		if o := readObject(n); o != nil {
			c.objects = append(c.objects, o)
		}
	}
}

func (c *compiler) first(kinds ...string) *object {
	for _, k := range kinds {
		for _, o := range c.objects {
			if o.kind == k {
				return o
			}
		}
	}
	return nil
}

// graph compiles the spec of a workflow.
func (c *compiler) graph(o *object, spec *document.Node) *Graph {
	spec.Known(workflowFields...)
	c.g = &Graph{
		Front: "cairn", Name: o.name, Namespace: o.namespace, Labels: o.labels, Entry: "main",
		Args: map[string]Value{}, Templates: map[string]*Template{},
		Priority:  int(spec.Get("priority").Int(-1000, 1000)),
		Deadline:  positive(spec.Get("timeout")),
		Keep:      spec.Get("keep").Duration(),
		Suspended: spec.Get("suspended").Bool(),
		Isolation: oneOf(spec.Get("isolation"), isolations, ""),
	}
	if n := spec.Get("parallelism"); n != nil {
		c.g.Parallelism = int(n.Int(1, 1_000_000))
	}
	if n := spec.Get("retryBudget"); n != nil {
		c.g.RetryBudget = int(n.Int(1, 1000))
	}
	d := c.flow(spec, "main", true)
	if env, err := newEnv(append(slices.Clone(runNames), d.runInputs()...)); err == nil {
		c.g.Locks = c.locks(spec.Get("locks"), env)
	}
	c.g.Documents = bytes.Join(c.docs, []byte("\n---\n"))
	return c.g
}

// schedule compiles a CronWorkflow.
func (c *compiler) schedule(o *object) *Schedule {
	spec := o.spec
	spec.Known(cronFields...)
	s := &Schedule{
		Name: o.name, Namespace: o.namespace, Timezone: spec.Get("timezone").Text(),
		Overlap: oneOf(spec.Get("overlap"), []string{"allow", "forbid", "replace"}, "allow"),
		Suspend: spec.Get("suspended").Bool(), Late: spec.Get("late").Duration(), KeepGood: 3, KeepBad: 1,
	}
	n := spec.Get("schedules")
	switch {
	case n == nil:
		spec.Fail("there are no schedules: write some such as \"0 3 * * *\"")
	case n.IsText():
		s.Crons = []string{n.Text()}
	default:
		s.Crons = n.Texts()
	}
	for i, cron := range s.Crons {
		at := n
		if n.IsList() {
			at = n.List()[i]
		}
		if err := CheckCron(cron); err != nil {
			at.Fail("%v", err)
		}
	}
	if err := CheckZone(s.Timezone); err != nil {
		spec.Get("timezone").Fail("%v", err)
	}
	if k := spec.Get("keepSucceeded"); k != nil {
		s.KeepGood = int(k.Int(0, 10_000))
	}
	if k := spec.Get("keepFailed"); k != nil {
		s.KeepBad = int(k.Int(0, 10_000))
	}
	w := spec.Get("workflow")
	if w == nil {
		spec.Fail("there is no workflow: write what a Workflow has as its spec")
		return s
	}
	run := *o
	run.name = strings.TrimSuffix(o.name, "-") + "-"
	s.Graph = c.graph(&run, w)
	s.Documents = s.Graph.Documents
	return s
}

// use compiles a template that a task names, once, and returns its key.
func (c *compiler) use(n *document.Node, namespace string) (string, *signature) {
	ref := n.Text()
	key := "template/" + ref
	if slices.Contains(c.open, key) {
		n.Fail("the template %q uses itself: %s", ref, strings.ReplaceAll(strings.Join(append(c.open, key), " → "), "template/", ""))
		return "", nil
	}
	if s := c.signs[key]; s != nil {
		return key, s
	}
	if len(c.open) >= maxUses {
		n.Fail("templates are nested more than %d deep", maxUses)
		return "", nil
	}
	find := func() *object {
		for _, o := range c.objects {
			if o.kind == "WorkflowTemplate" && o.name == ref {
				return o
			}
		}
		return nil
	}
	o := find()
	if o == nil && c.templates != nil {
		if b := c.templates("WorkflowTemplate", namespace, ref); b != nil {
			c.read("WorkflowTemplate "+ref, b)
			o = find()
		}
	}
	if o == nil {
		n.Fail("there is no WorkflowTemplate %q, neither in this file nor on the server", ref)
		return "", nil
	}
	o.spec.Known(workflowFields...)
	c.open = append(c.open, key)
	f := c.flow(o.spec, key, false)
	c.open = c.open[:len(c.open)-1]
	s := &signature{inputs: f.inputs, outputs: f.outputs}
	c.signs[key] = s
	return key, s
}

// condition compiles what has to be true or false.
func (c *compiler) condition(n *document.Node, env *celEnv) Expr {
	text := strings.TrimSpace(n.Text())
	if in, ok := strings.CutPrefix(text, "${{"); ok && strings.HasSuffix(in, "}}") {
		text = strings.TrimSuffix(in, "}}")
	}
	x, err := env.compile(strings.TrimSpace(text))
	if err != nil {
		n.Fail("%v", err)
		return nil
	}
	if !x.typ.IsAssignableType(cel.BoolType) && !x.typ.IsExactType(cel.DynType) {
		n.Fail("%q is a %s: this has to be true or false", x.text, x.typ)
		return nil
	}
	return x
}

// locks compiles mutexes and semaphores.
func (c *compiler) locks(n *document.Node, env *celEnv) []Lock {
	var out []Lock
	for _, e := range n.List() {
		l := Lock{}
		at := e
		if e.IsMap() {
			e.Known(lockFields...)
			if at = e.Get("name"); at == nil {
				e.Fail("the lock has no name")
				continue
			}
			if s := e.Get("size"); s != nil {
				l.Size = Constant{float64(s.Int(1, 1_000_000))}
			}
		}
		w, err := env.compileText(at.Text())
		if err != nil {
			at.Fail("%v", err)
			continue
		}
		l.Name = w.Expr
		out = append(out, l)
	}
	return out
}

// typeOf is the type of an input or output as expressions see it.
func typeOf(kind string) *cel.Type {
	switch kind {
	case "json":
		return cel.DynType
	case "lines":
		return cel.ListType(cel.StringType)
	case "file", "folder":
		return fileType
	}
	return cel.StringType
}

// fits reports whether a value of one type can be handed to an input of another.
func fits(got *cel.Type, kind string) bool {
	want := typeOf(kind)
	switch {
	case got.IsExactType(cel.DynType), want.IsExactType(cel.DynType) && !holdsFile(got):
		return true
	case kind == "text":
		return !holdsFile(got) && got.Kind() != cel.ListKind && got.Kind() != cel.MapKind
	}
	return want.IsAssignableType(got)
}

// matches reports whether a constant is one of a type.
func matches(v Value, kind string) error {
	switch kind {
	case "file", "folder":
		return fmt.Errorf("a %s cannot be written down here", kind)
	case "lines":
		list, ok := v.([]any)
		if !ok {
			return fmt.Errorf("this has to be a list of texts")
		}
		for _, e := range list {
			if _, ok := e.(string); !ok {
				return fmt.Errorf("this has to be a list of texts")
			}
		}
	case "text", "":
		switch v.(type) {
		case []any, map[string]any:
			return fmt.Errorf("this has to be a text: say type: json for lists and maps")
		}
	}
	return nil
}
