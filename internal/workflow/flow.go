package workflow

import (
	"fmt"
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
		c.onExit(f, n)
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
func (c *compiler) onExit(f *flow, n *document.Node) {
	t := c.readTask(n)
	if t == nil {
		return
	}
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

// needsOf are the tasks that names refer to.
func needsOf(uses []string) []string {
	var out []string
	for _, u := range uses {
		if rest, ok := strings.CutPrefix(u, "tasks."); ok {
			t, _, _ := strings.Cut(rest, ".")
			if !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	return out
}

// task compiles one: to a template of its own and the call of it.
func (c *compiler) task(f *flow, t *taskDoc, flowKey string) *Call {
	n := t.node
	call := &Call{Name: t.name, Template: flowKey + "/" + t.name, AllowFailed: n.Get("allowFailure").Bool()}
	call.AllowError = call.AllowFailed
	var uses []string
	env, used, ok := c.each(f, t, call)
	uses = append(uses, used...)
	if !ok {
		return nil
	}
	if w := n.Get("when"); w != nil {
		if x, is := c.condition(w, env).(*celExpr); is {
			call.When, uses = x, append(uses, x.uses...)
		}
	}
	if t.uses != "" {
		call.Template = t.uses
		for _, a := range c.with(t, env) {
			call.Args, uses = append(call.Args, a.Arg), append(uses, a.uses...)
		}
	} else {
		tmpl := &Template{Name: call.Template, Outputs: t.declared(), Timeout: positive(n.Get("timeout")), Locks: c.locks(n.Get("locks"), inside(env)), Retry: c.readRetry(n.Get("retries"))}
		var used []string
		if s := n.Get("suspend"); s != nil {
			tmpl.Suspend = c.suspend(s)
		} else {
			leaf, u := c.leaf(t, env, false)
			if leaf == nil {
				return nil
			}
			tmpl.Leaf, used = leaf, u
		}
		tmpl.Memo = c.cache(n.Get("cache"), inside(env), &used)
		used = append(used, lockUses(tmpl.Locks)...)
		slices.Sort(used)
		// Inside a template only its inputs are seen: each name that is used
		// there is handed over under its own name.
		for _, u := range slices.Compact(used) {
			nm := env.names[u]
			if nm.path[0] == "workflow" {
				continue
			}
			tmpl.Inputs = append(tmpl.Inputs, Input{Name: u, Type: "json"})
			call.Args = append(call.Args, Arg{Name: u, Value: &celExpr{text: u, typ: nm.typ, uses: []string{u}, names: env.names, only: u}})
		}
		uses = append(uses, used...)
		c.g.Templates[call.Template] = tmpl
	}
	c.needs(f, t, call, uses)
	return call
}

func lockUses(locks []Lock) []string {
	var out []string
	for _, l := range locks {
		switch x := l.Name.(type) {
		case *celExpr:
			out = append(out, x.uses...)
		case mixed:
			for _, p := range x.parts {
				if e, ok := p.(*celExpr); ok {
					out = append(out, e.uses...)
				}
			}
		}
	}
	return out
}

// needs says after whom, and after which of their ends, a task runs.
func (c *compiler) needs(f *flow, t *taskDoc, call *Call, uses []string) {
	n := t.node
	for i, e := range n.Get("needs").List() {
		s := e.Text()
		if _, ok := f.index[s]; !ok {
			e.Fail("there is no task %q%s", s, document.Meant(s, taskNames(f)))
			continue
		}
		if slices.Contains(call.Needs, s) {
			e.Fail("%q is there twice", n.Get("needs").List()[i].Text())
			continue
		}
		call.Needs = append(call.Needs, s)
	}
	for _, s := range needsOf(uses) {
		if !slices.Contains(call.Needs, s) {
			call.Needs = append(call.Needs, s)
		}
	}
	runs := n.Get("runs")
	switch oneOf(runs, []string{"success", "failure", "always"}, "success") {
	case "always":
		call.Depends = Constant{true}
	case "failure":
		call.Depends = anyFailed(call.Needs)
	default:
		return
	}
	if len(call.Needs) == 0 {
		runs.Fail("the task waits for nobody: name some in needs")
	}
}

// anyFailed is true when one of these tasks did not end well.
type anyFailed []string

func (a anyFailed) String() string { return "one failed of " + strings.Join(a, ", ") }

// Eval implements [Expr].
func (a anyFailed) Eval(s Scope) (Value, error) {
	for _, t := range a {
		for _, how := range []string{"Failed", "Errored"} {
			if v, _ := s.Lookup("needs", t, how); v == true {
				return true, nil
			}
		}
	}
	return false, nil
}

func taskNames(f *flow) []string {
	var out []string
	for _, t := range f.tasks {
		out = append(out, t.name)
	}
	return out
}

// argUse is an argument and the names that it refers to.
type argUse struct {
	Arg
	uses []string
}

// with compiles what is handed to a template.
func (c *compiler) with(t *taskDoc, env *celEnv) []argUse {
	var out []argUse
	if t.sign == nil {
		return nil
	}
	find := func(s string) (input, bool) {
		i := slices.IndexFunc(t.sign.inputs, func(in input) bool { return in.Name == s })
		if i < 0 {
			return input{}, false
		}
		return t.sign.inputs[i], true
	}
	given := map[string]bool{}
	for _, e := range entries(t.node.Get("with"), "input") {
		in, ok := find(e.Key)
		if !ok {
			var known []string
			for _, in := range t.sign.inputs {
				known = append(known, in.Name)
			}
			e.Node.FailKey("the template has no input %q%s", e.Key, document.Meant(e.Key, known))
			continue
		}
		given[e.Key] = true
		w, err := env.compileNode(e.Node)
		if err != nil {
			e.Node.Fail("%v", err)
			continue
		}
		if v, is := w.constant(); is {
			if err := matches(v, in.Type); err != nil {
				e.Node.Fail("the input is of type %s: %v", in.Type, err)
			}
			if s, ok := v.(string); ok && len(in.Enum) > 0 && !slices.Contains(in.Enum, s) {
				e.Node.Fail("%q is none of %s", s, strings.Join(in.Enum, ", "))
			}
		} else if !fits(w.typ, in.Type) {
			e.Node.Fail("the input is of type %s, this is a %s", in.Type, w.typ)
		}
		out = append(out, argUse{Arg{Name: e.Key, Value: w.Expr}, w.uses})
	}
	for _, in := range t.sign.inputs {
		if !given[in.Name] && !in.set && !in.Optional {
			t.node.Get("uses").Fail("the template wants the input %q: write it in with", in.Name)
		}
	}
	return out
}

// compileNode compiles a text, or takes a list or map as it is.
func (e *celEnv) compileNode(n *document.Node) (written, error) {
	if n.IsText() {
		return e.compileText(n.Text())
	}
	return written{Expr: Constant{n.Value()}, typ: cel.DynType}, nil
}

func (c *compiler) suspend(n *document.Node) *Suspend {
	s := &Suspend{}
	if n.IsMap() {
		n.Known(suspendFields...)
		if d := n.Get("for"); d != nil {
			s.For = Constant{d.Duration().String()}
		}
		s.Supplied = n.Get("outputs").Texts()
		return s
	}
	if n.Text() != "true" {
		n.Fail("write suspend: true to wait for somebody, or suspend: {for: 10m}")
	}
	return s
}

func (c *compiler) cache(n *document.Node, env *celEnv, uses *[]string) *Memo {
	if n == nil {
		return nil
	}
	n.Known(cacheFields...)
	m := &Memo{Cache: n.Get("name").Text(), MaxAge: n.Get("maxAge").Duration()}
	k := n.Get("key")
	if k == nil {
		n.Fail("there is no key: write what the outputs depend on, such as ${{ item }}")
		return nil
	}
	w, err := env.compileText(k.Text())
	if err != nil {
		k.Fail("%v", err)
		return nil
	}
	if holdsFile(w.typ) {
		k.Fail("a file is no key")
	}
	m.Key = w.Expr
	*uses = append(*uses, w.uses...)
	return m
}

// each compiles forEach, and returns what is seen inside of it.
func (c *compiler) each(f *flow, t *taskDoc, call *Call) (*celEnv, []string, bool) {
	n := t.node.Get("forEach")
	if n == nil {
		if p := t.node.Get("parallelism"); p != nil {
			p.FailKey("parallelism is of a forEach; that of the run is spec.parallelism")
		}
		return f.env, nil, true
	}
	e := &Each{}
	call.Each = e
	if p := t.node.Get("parallelism"); p != nil {
		e.Parallelism = int(p.Int(1, 1_000_000))
	}
	item := name{text: "item", typ: cel.DynType, path: []string{"item"}}
	var uses []string
	take := func(n *document.Node) written {
		w, err := f.env.compileNode(n)
		if err != nil {
			n.Fail("%v", err)
		}
		uses = append(uses, w.uses...)
		return w
	}
	items := n
	if n.IsMap() {
		n.Known(eachFields...)
		items = n.Get("in")
		var kinds []string
		for _, k := range []string{"files", "s3", "count", "in"} {
			if n.Get(k) != nil {
				kinds = append(kinds, k)
			}
		}
		if len(kinds) != 1 {
			n.Fail("forEach has %d sources: write one of files, s3, count and in", len(kinds))
			return nil, nil, false
		}
		if k := kinds[0]; k != "files" && k != "s3" && n.Get("match") != nil {
			n.Get("match").FailKey("match is for files and s3")
		}
		if k := kinds[0]; k != "count" && (n.Get("start") != nil || n.Get("format") != nil) {
			n.Fail("start and format are for count")
		}
	}
	m := n.Get("match").Text()
	if !n.IsMap() {
		m = ""
	}
	switch {
	case items != nil:
		w := take(items)
		if w.Expr == nil {
			return nil, nil, false
		}
		if v, is := w.constant(); is {
			list, ok := v.([]any)
			if !ok {
				items.Fail("this has to be a list, or an expression that gives one")
				return nil, nil, false
			}
			item.typ = itemType(list)
		} else {
			switch {
			case w.typ.Kind() == cel.ListKind:
				item.typ = w.typ.Parameters()[0]
			case !w.typ.IsExactType(cel.DynType) && !w.typ.IsExactType(fileType):
				items.Fail("%s is a %s: forEach wants a list, or a file that holds one (a JSON array, or lines)", items.Text(), w.typ)
			}
		}
		e.Items = w.Expr
	case n.Get("files") != nil:
		w := take(n.Get("files"))
		e.Source, item.typ = &List{Files: w.Expr, Match: m}, fileType
	case n.Get("s3") != nil:
		w := take(n.Get("s3"))
		if v, is := w.constant(); is && !strings.HasPrefix(fmt.Sprint(v), "s3://") {
			n.Get("s3").Fail("%.80v: write s3://BUCKET/PREFIX", v)
		}
		e.Source, item.typ = &List{S3: w.Expr, Match: m}, fileType
	default:
		e.Count = &Sequence{Format: n.Get("format").Text()}
		w := take(n.Get("count"))
		if v, is := w.constant(); is {
			if v, ok := v.(float64); !ok || v < 0 || v != float64(int64(v)) {
				n.Get("count").Fail("this has to be a whole number")
			}
		}
		e.Count.Count = w.Expr
		if s := n.Get("start"); s != nil {
			e.Count.Start = take(s).Expr
		}
		item.typ = cel.IntType
		if e.Count.Format != "" {
			item.typ = cel.StringType
			if err := CheckFormat(e.Count.Format); err != nil {
				n.Get("format").Fail("%v", err)
			}
		}
	}
	env, err := f.env.with([]name{item})
	if err != nil {
		n.Fail("%v", err)
		return nil, nil, false
	}
	return env, uses, true
}

func itemType(list []any) *cel.Type {
	for _, v := range list {
		if _, ok := v.(string); !ok {
			return cel.DynType
		}
	}
	return cel.StringType
}

// CheckFormat reports whether s formats one whole number, such as %04d.
func CheckFormat(s string) error {
	verbs := 0
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		i++
		if i < len(s) && s[i] == '%' {
			continue
		}
		begin := i
		for i < len(s) && (s[i] == '0' || s[i] == '-' || s[i] == '+' || s[i] == ' ' || s[i] == '#' || s[i] >= '1' && s[i] <= '9') {
			i++
		}
		if i == len(s) || !strings.ContainsRune("dxXobO", rune(s[i])) || i-begin > 6 {
			return fmt.Errorf("%.40q formats no number: write such as %%04d or %%x", s)
		}
		verbs++
	}
	if verbs != 1 {
		return fmt.Errorf("%.40q has %d places for the number: write one, such as %%04d", s, verbs)
	}
	return nil
}
