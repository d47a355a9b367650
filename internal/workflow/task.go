package workflow

import (
	"slices"
	"strings"

	"github.com/google/cel-go/cel"

	"cairn.dev/cairn/internal/workflow/document"
)

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
		tmpl := &Template{Name: call.Template, Outputs: t.declared(), Timeout: positive(n.Get("timeout")), Locks: c.locks(n.Get("locks"), inside(env)), Retry: c.readRetry(n.Get("retries")), Daemon: n.Get("daemon").Bool()}
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
		tmpl.Memo = c.cache(n.Get("cache"), call.Template, inside(env), &used)
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

func (c *compiler) cache(n *document.Node, template string, env *celEnv, uses *[]string) *Memo {
	if n == nil {
		return nil
	}
	n.Known(cacheFields...)
	m := &Memo{Cache: n.Get("name").Text(), MaxAge: n.Get("maxAge").Duration()}
	if m.Cache == "" {
		// Two tasks with one key, such as the item, are not the same task.
		m.Cache = template
		if own, ok := strings.CutPrefix(template, "main/"); ok {
			m.Cache = "workflow/" + strings.TrimSuffix(c.g.Name, "-") + "/" + own
		}
	}
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
