package workflow

import (
	"slices"
	"strings"

	"github.com/google/cel-go/cel"

	"cairn.dev/cairn/internal/workflow/document"
)

// What every expression sees, and what those of retries see besides.
var (
	runNames = []name{
		{text: "run.name", typ: cel.StringType, path: []string{"workflow", "name"}},
		{text: "run.id", typ: cel.StringType, path: []string{"workflow", "uid"}},
		{text: "run.namespace", typ: cel.StringType, path: []string{"workflow", "namespace"}},
	}
	exitNames = []name{
		{text: "run.status", typ: cel.StringType, path: []string{"workflow", "status"}},
		{text: "run.failures", typ: cel.DynType, path: []string{"workflow", "failures"}},
	}
	retryNames = []name{
		{text: "retries", typ: cel.IntType, path: []string{"retries"}},
		{text: "last.exitCode", typ: cel.IntType, path: []string{"lastRetry", "exitCode"}},
		{text: "last.status", typ: cel.StringType, path: []string{"lastRetry", "status"}},
		{text: "last.message", typ: cel.StringType, path: []string{"lastRetry", "message"}},
	}
)

// input is an input of a workflow or template.
type input struct {
	Input
	def Value
	set bool
}

// flow is a list of tasks: that of a workflow or of a template.
type flow struct {
	inputs  []input
	outputs map[string]*cel.Type
	tasks   []*taskDoc
	index   map[string]int
	env     *celEnv
}

// runInputs are the inputs as they are seen outside of the tasks.
func (f *flow) runInputs() []name {
	out := f.inputNames()
	for i := range out {
		out[i].path = []string{"workflow", "parameters", out[i].path[2]}
	}
	return out
}

func (f *flow) inputNames() []name {
	var out []name
	for _, in := range f.inputs {
		out = append(out, name{text: "inputs." + in.Name, typ: typeOf(in.Type), path: []string{"inputs", "parameters", in.Name}, or: in.def, set: in.set || in.Optional})
	}
	return out
}

// flow compiles the tasks of a spec to the template called key.
func (c *compiler) flow(spec *document.Node, key string, run bool) *flow {
	f := &flow{index: map[string]int{}, outputs: map[string]*cel.Type{}}
	f.readInputs(spec.Get("inputs"))
	list := spec.Get("tasks")
	if list == nil {
		spec.Fail("there are no tasks")
		return f
	}
	nodes := list.List()
	if len(nodes) == 0 || len(nodes) > maxTasks {
		list.Fail("%d tasks: there have to be 1 to %d; forEach makes many of one", len(nodes), maxTasks)
		return f
	}
	names := append(slices.Clone(runNames), f.inputNames()...)
	for _, n := range nodes {
		t := c.readTask(n)
		if t == nil {
			continue
		}
		if _, ok := f.index[t.name]; ok {
			n.Get("name").Fail("there are two tasks called %q", t.name)
			continue
		}
		t.pod = spec.Get("pod")
		f.index[t.name] = len(f.tasks)
		f.tasks = append(f.tasks, t)
	}
	for _, t := range f.tasks {
		if u := t.node.Get("uses"); u != nil {
			t.uses, t.sign = c.use(u, c.g.Namespace)
			if t.sign != nil {
				t.outputs = map[string]output{}
				for k, typ := range t.sign.outputs {
					t.outputs[k] = output{typ: typ, path: []string{"parameters", k}}
				}
			}
		}
		names = append(names, t.names()...)
	}
	var err error
	if f.env, err = newEnv(names); err != nil {
		spec.Fail("%v", err)
		return f
	}
	tmpl := &Template{Name: key, FailFast: true, DAG: &DAG{}}
	if n := spec.Get("failFast"); n != nil {
		tmpl.FailFast = n.Bool()
	}
	if !run {
		if n := spec.Get("parallelism"); n != nil {
			tmpl.Parallelism = int(n.Int(1, 1_000_000))
		}
		for _, k := range []string{"onExit", "timeout", "priority", "locks", "keep", "retryBudget", "suspended", "isolation"} {
			if n := spec.Get(k); n != nil {
				n.FailKey("%s is for a Workflow; a template's tasks are part of whose run it is", k)
			}
		}
	}
	for _, in := range f.inputs {
		tmpl.Inputs = append(tmpl.Inputs, in.Input)
	}
	for _, t := range f.tasks {
		if call := c.task(f, t, key); call != nil {
			tmpl.DAG.Calls = append(tmpl.DAG.Calls, call)
		}
	}
	c.cycles(f, tmpl.DAG)
	f.readOutputs(spec.Get("outputs"), tmpl)
	c.g.Templates[key] = tmpl
	if n := spec.Get("onExit"); n != nil && run {
		c.onExit(f, n, spec.Get("pod"))
	}
	return f
}

func (f *flow) readInputs(n *document.Node) {
	for _, e := range entries(n, "input") {
		in := input{Input: Input{Name: e.Key}}
		if e.Node.IsMap() {
			e.Node.Known(inputFields...)
			in.Type = oneOf(e.Node.Get("type"), types_, "text")
			in.Optional = e.Node.Get("optional").Bool()
			in.Enum = e.Node.Get("enum").Texts()
			if d := e.Node.Get("default"); d != nil {
				in.def, in.set = d.Value(), true
				if in.Type == "text" && !d.IsMap() && !d.IsList() {
					in.def = d.Text()
				}
				if err := matches(in.def, in.Type); err != nil {
					d.Fail("%v", err)
				}
				if t, ok := in.def.(string); ok && len(in.Enum) > 0 && !slices.Contains(in.Enum, t) {
					d.Fail("%q is not one of enum", t)
				}
				in.Default = Constant{in.def}
			}
		} else {
			in.Type = oneOf(e.Node, types_, "text")
		}
		f.inputs = append(f.inputs, in)
	}
}

func (f *flow) readOutputs(n *document.Node, tmpl *Template) {
	for _, e := range entries(n, "output") {
		at, kind := e.Node, "json"
		o := Output{Name: e.Key}
		if e.Node.IsMap() {
			e.Node.Known(valueFields...)
			kind = oneOf(e.Node.Get("type"), types_, "json")
			if d := e.Node.Get("default"); d != nil {
				o.Default = Constant{d.Value()}
			}
			if at = e.Node.Get("value"); at == nil {
				e.Node.Fail("the output has no value: write one such as ${{ tasks.a.outputs.b }}")
				continue
			}
		}
		w, err := f.env.compileText(at.Text())
		if err != nil {
			at.Fail("%v", err)
			continue
		}
		if !e.Node.IsMap() && w.typ.IsExactType(fileType) {
			kind = "file"
		}
		if !fits(w.typ, kind) {
			at.Fail("the output is a %s, %s is a %s", kind, at.Text(), w.typ)
		}
		o.Type, o.From = kind, w.Expr
		tmpl.Outputs = append(tmpl.Outputs, o)
		f.outputs[e.Key] = typeOf(kind)
	}
}

// cycles finds tasks that wait for themselves.
func (c *compiler) cycles(f *flow, d *DAG) {
	calls := map[string]*Call{}
	for _, k := range d.Calls {
		calls[k.Name] = k
	}
	state := map[string]int{} // 1: on the way, 2: done
	var way []string
	var visit func(string)
	visit = func(n string) {
		if calls[n] == nil || state[n] == 2 {
			return
		}
		if state[n] == 1 {
			i := slices.Index(way, n)
			f.tasks[f.index[n]].node.Get("name").Fail("the task waits for itself: %s → %s", strings.Join(way[i:], " → "), n)
			return
		}
		state[n] = 1
		way = append(way, n)
		for _, k := range calls[n].Needs {
			visit(k)
		}
		way = way[:len(way)-1]
		state[n] = 2
	}
	for _, k := range d.Calls {
		visit(k.Name)
	}
}

// onExit compiles the task that runs when all others have ended.
func (c *compiler) onExit(f *flow, n, pod *document.Node) {
	t := c.readTask(n)
	if t == nil {
		return
	}
	t.pod = pod
	for _, k := range []string{"needs", "runs", "forEach", "uses", "suspend", "allowFailure", "when", "locks", "cache"} {
		if x := n.Get(k); x != nil {
			x.FailKey("%s has no meaning in onExit: it runs once, when all else has ended", k)
		}
	}
	env, err := newEnv(slices.Concat(runNames, exitNames, f.runInputs()))
	if err != nil {
		n.Fail("%v", err)
		return
	}
	leaf, _ := c.leaf(t, env, true)
	if leaf == nil {
		return
	}
	key := "exit/" + t.name
	c.g.Templates[key] = &Template{Name: key, Leaf: leaf, Outputs: t.declared(), Retry: c.readRetry(n.Get("retries")), Timeout: positive(n.Get("timeout"))}
	c.g.OnExit = key
}
