package argo

import (
	"maps"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// maxCalls bounds the calls of one template.
const maxCalls = 2000

// target is the template that a call names.
type target struct {
	key  string
	node *document.Node
	sig  *signature
	tmpl *workflow.Template
}

// target compiles what a step, task or hook calls.
func (c *compiler) target(b *bundle, n *document.Node, inline string) *target {
	var is []string
	for _, k := range []string{"template", "templateRef", "inline"} {
		if n.Get(k) != nil {
			is = append(is, k)
		}
	}
	if len(is) != 1 {
		n.Fail("this has to have one of template, templateRef and inline")
		return nil
	}
	t := &target{}
	at := n.Get(is[0])
	switch is[0] {
	case "template":
		t.key = c.template(b, at, at.Text())
		t.node = b.nodes[at.Text()]
	case "templateRef":
		c.check(at, "templateRef")
		name := at.Get("template")
		if at.Get("name") == nil || name == nil {
			at.Fail("templateRef has to have name and template")
			return nil
		}
		if strings.Contains(at.Get("name").Text()+name.Text(), "{{") {
			at.Fail("which template is called has to be known before the run")
			return nil
		}
		if b = c.other(at, at.Get("clusterScope").Bool(), at.Get("name").Text()); b == nil {
			return nil
		}
		t.key = c.template(b, name, name.Text())
		t.node = b.nodes[name.Text()]
	case "inline":
		t.node = at
		t.key = c.compiled(b, at, inline)
	}
	if t.key == "" {
		return nil
	}
	t.sig, t.tmpl = c.signature(b, t.node), c.g.Templates[t.key]
	return t
}

// args compiles what is handed over.
func (c *compiler) args(n *document.Node, t *target, p *place, at *document.Node) []workflow.Arg {
	c.check(n, "arguments")
	var out []workflow.Arg
	given := map[string]bool{}
	wants := func(name string, artifact bool) bool {
		return slices.ContainsFunc(t.tmpl.Inputs, func(in workflow.Input) bool { return in.Name == name && in.Artifact == artifact })
	}
	var names []string
	for _, in := range t.tmpl.Inputs {
		names = append(names, in.Name)
	}
	for _, e := range n.Get("parameters").List() {
		c.check(e, "parameter")
		name := e.Get("name").Text()
		if !wants(name, false) {
			// As with Argo, more may be handed over than is asked for. What looks
			// like a slip is told all the same.
			if why := document.Meant(name, names); why != "" && len(n.Get("parameters").List()) <= len(names) {
				e.Fail("the template has no parameter %q%s", name, why)
			}
			continue
		}
		value, from := e.Get("value"), e.Get("valueFrom")
		c.check(from, "valueFrom")
		a := workflow.Arg{Name: name}
		switch {
		case value != nil:
			a.Value = c.textOf(value, p)
		case from.Get("expression") != nil:
			a.Value = c.condition(from.Get("expression"), p)
		case from.Get("parameter") != nil:
			a.Value = c.textOf(from.Get("parameter"), p)
		case from.Get("configMapKeyRef") != nil:
			v, ok := c.config(from.Get("configMapKeyRef"))
			if !ok {
				from.Fail("there is no such key in a ConfigMap, neither in this file nor on the server")
			}
			a.Value = workflow.Constant{Value: v}
		case from != nil:
			from.Fail("an argument has a value, an expression or a key of a ConfigMap")
			continue
		default:
			continue // the template's own
		}
		for _, in := range t.tmpl.Inputs {
			if k, ok := a.Value.(workflow.Constant); ok && in.Name == name && !in.Artifact && len(in.Enum) > 0 && !slices.Contains(in.Enum, k.String()) {
				e.Fail("%.80q is none of %s", k.String(), strings.Join(in.Enum, ", "))
			}
		}
		given[name] = true
		out = append(out, a)
	}
	for _, e := range n.Get("artifacts").List() {
		name := e.Get("name").Text()
		if !wants(name, true) {
			e.Fail("the template has no artifact %q%s", name, document.Meant(name, names))
			continue
		}
		given["artifact "+name] = true
		v := c.source(e, p)
		if v == nil {
			e.Fail("the artifact has no source: write from, raw, http, git or s3")
			continue
		}
		out = append(out, workflow.Arg{Name: name, Artifact: true, Value: v})
	}
	for _, in := range t.tmpl.Inputs {
		what := in.Name
		if in.Artifact {
			what = "artifact " + in.Name
		}
		if !given[what] && in.Default == nil && !in.Optional {
			at.Fail("the template wants %s %q, which is not handed over", map[bool]string{true: "the artifact", false: "the parameter"}[in.Artifact], in.Name)
		}
	}
	return out
}

// calling is a step or task while its template is compiled.
type calling struct {
	node    *document.Node
	name    string
	target  *target
	sig     *signature
	needs   []string
	depends *dependency
	plain   bool // depends is not used
}

// open reads the name and target of a step or task.
func (c *compiler) open(b *bundle, n *document.Node, table string, t *workflow.Template, seen map[string]bool) *calling {
	c.check(n, table)
	k := &calling{node: n, name: n.Get("name").Text()}
	if k.name == "" || seen[k.name] {
		n.Fail("the call has no name of its own in this template")
		return nil
	}
	seen[k.name] = true
	if k.target = c.target(b, n, t.Name+"/"+k.name); k.target == nil {
		k.sig = &signature{} // already told
		return k
	}
	sig := *k.target.sig
	sig.each = n.Get("withItems") != nil || n.Get("withParam") != nil || n.Get("withSequence") != nil
	k.sig = &sig
	if c.results[k.name] {
		k.target.wantResult()
	}
	return k
}

// wantResult makes a program's standard output one of its outputs.
func (t *target) wantResult() {
	l, ok := t.tmpl.Leaf.(*leaf)
	if !ok || slices.ContainsFunc(l.base.Outputs, func(o task.Output) bool { return o.Kind == task.Result }) {
		return
	}
	l.base.Outputs = append(l.base.Outputs, task.Output{Name: task.Result, Kind: task.Result, Type: "text"})
	t.tmpl.Outputs = append(t.tmpl.Outputs, workflow.Output{Name: task.Result, Type: "text", Result: true})
}

// steps compiles groups that run one after the other.
func (c *compiler) steps(b *bundle, n *document.Node, t *workflow.Template, p *place) *place {
	t.DAG, t.FailFast = &workflow.DAG{}, true
	seen := map[string]bool{}
	var before []string
	ended, all := map[string]*signature{}, map[string]*signature{}
	for _, group := range n.List() {
		list := []*document.Node{group}
		if group.IsList() {
			list = group.List()
		}
		var now []*calling
		unended := map[string]bool{}
		for _, s := range list {
			if len(seen) >= maxCalls {
				s.Fail("there are more than %d steps", maxCalls)
				return p
			}
			if k := c.open(b, s, "step", t, seen); k != nil {
				now = append(now, k)
				unended[k.name] = true
			}
		}
		at := p.with(func(q *place) { q.calls, q.unended = maps.Clone(ended), unended })
		var names []string
		for _, k := range now {
			k.needs = before
			k.plain = true
			if call := c.call(b, k, t, at); call != nil {
				t.DAG.Calls = append(t.DAG.Calls, call)
				names = append(names, k.name)
			}
		}
		for _, k := range now {
			ended[k.name], all[k.name] = k.sig, k.sig
		}
		if len(names) > 0 {
			before = names
		}
	}
	if len(all) == 0 {
		n.Fail("there are no steps")
	}
	return p.with(func(q *place) { q.calls = all })
}

// dag compiles tasks that depend on each other.
func (c *compiler) dag(b *bundle, n *document.Node, t *workflow.Template, p *place) *place {
	c.check(n, "dag")
	t.DAG, t.FailFast = &workflow.DAG{}, true
	if f := n.Get("failFast"); f != nil {
		t.FailFast = f.Bool()
	}
	byName := map[string]*calling{}
	var list []*calling
	seen := map[string]bool{}
	nodes := n.Get("tasks").List()
	if len(nodes) == 0 || len(nodes) > maxCalls {
		n.Fail("%d tasks: there have to be 1 to %d", len(nodes), maxCalls)
		return p
	}
	for _, s := range nodes {
		if k := c.open(b, s, "task", t, seen); k != nil {
			list = append(list, k)
			byName[k.name] = k
		}
	}
	for _, k := range list {
		c.needs(k, byName)
	}
	if !c.acyclic(list, byName) {
		return p
	}
	for _, k := range list {
		ended, unended := map[string]*signature{}, map[string]bool{}
		before := ancestors(k, byName)
		for name, o := range byName {
			if before[name] {
				ended[name] = o.sig
			} else {
				unended[name] = true
			}
		}
		at := p.with(func(q *place) { q.calls, q.unended = ended, unended })
		if call := c.call(b, k, t, at); call != nil {
			t.DAG.Calls = append(t.DAG.Calls, call)
		}
	}
	if target := n.Get("target"); target != nil && strings.Contains(target.Text(), "{{") {
		t.DAG.Target = c.textOf(target, p)
	} else if target != nil {
		for name := range strings.FieldsSeq(target.Text()) {
			if byName[name] == nil {
				target.Fail("there is no task %q%s", name, document.Meant(name, slices.Collect(keys(byName))))
			}
			t.DAG.Targets = append(t.DAG.Targets, name)
		}
	}
	all := map[string]*signature{}
	for name, k := range byName {
		all[name] = k.sig
	}
	return p.with(func(q *place) { q.calls = all })
}

// needs reads depends or dependencies.
func (c *compiler) needs(k *calling, byName map[string]*calling) {
	dep, list := k.node.Get("depends"), k.node.Get("dependencies")
	at := dep
	switch {
	case dep != nil && list != nil:
		list.FailKey("depends and dependencies exclude each other")
		return
	case dep != nil:
		d, err := parseDepends(dep.Text())
		if err != nil {
			dep.Fail("%v", err)
			return
		}
		k.needs, k.plain = d.tasks, d.plain
		if !d.plain {
			k.depends = d
		}
	default:
		k.plain = true
		at = list
		for _, e := range list.List() {
			if !slices.Contains(k.needs, e.Text()) {
				k.needs = append(k.needs, e.Text())
			}
		}
	}
	k.needs = slices.DeleteFunc(slices.Clone(k.needs), func(name string) bool {
		if byName[name] == nil {
			at.Fail("there is no task %q%s", name, document.Meant(name, slices.Collect(keys(byName))))
			return true
		}
		return false
	})
}

func (c *compiler) acyclic(list []*calling, byName map[string]*calling) bool {
	state := map[string]int{}
	ok := true
	var way []string
	var visit func(*calling)
	visit = func(k *calling) {
		if state[k.name] == 1 {
			k.node.Fail("the task waits for itself: %s → %s", strings.Join(way[slices.Index(way, k.name):], " → "), k.name)
			ok = false
		}
		if state[k.name] != 0 {
			return
		}
		state[k.name] = 1
		way = append(way, k.name)
		for _, n := range k.needs {
			visit(byName[n])
		}
		way = way[:len(way)-1]
		state[k.name] = 2
	}
	for _, k := range list {
		visit(k)
	}
	return ok
}

func ancestors(k *calling, byName map[string]*calling) map[string]bool {
	out := map[string]bool{}
	todo := slices.Clone(k.needs)
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !out[n] {
			out[n] = true
			todo = append(todo, byName[n].needs...)
		}
	}
	return out
}

// call compiles one step or task; p sees those that have ended before it.
func (c *compiler) call(b *bundle, k *calling, t *workflow.Template, p *place) *workflow.Call {
	if k.target == nil {
		return nil
	}
	n := k.node
	out := &workflow.Call{Name: k.name, Template: k.target.key, Needs: k.needs}
	if k.depends != nil {
		out.Depends = *k.depends
	}
	if on := n.Get("continueOn"); on != nil {
		c.check(on, "continueOn")
		if n.Get("depends") != nil {
			on.FailKey("continueOn and depends exclude each other: ask for .Failed in the depends of those that go on")
		}
		out.AllowFailed, out.AllowError = on.Get("failed").Bool(), on.Get("error").Bool()
	}
	out.Each = c.each(n, p)
	inner := p
	if out.Each != nil {
		inner = p.with(func(q *place) { q.item = true })
	}
	if w := n.Get("when"); w != nil {
		e, err := inner.when(w.Text())
		if err != nil {
			w.Fail("%v", err)
		}
		out.When = e
	}
	out.Args = c.args(n.Get("arguments"), k.target, inner, n)
	// What is called because of a call may ask how that went.
	after := inner.with(func(q *place) {
		q.calls = maps.Clone(q.calls)
		if q.calls == nil {
			q.calls = map[string]*signature{}
		}
		q.calls[k.name] = k.sig
	})
	if x := n.Get("onExit"); x != nil {
		out.OnExit = c.template(b, x, x.Text())
	}
	for _, e := range n.Get("hooks").Entries() {
		c.check(e.Node, "hook")
		key, args := c.hookTarget(b, e.Node, after, t.Name+"/"+k.name+"/"+e.Key)
		if key == "" {
			continue
		}
		if e.Key == "exit" {
			if out.OnExit != "" {
				e.Node.FailKey("there is onExit, too: keep one")
			}
			out.OnExit, out.OnExitArgs = key, args
			if x := e.Node.Get("expression"); x != nil {
				x.FailKey("the hook called exit always runs: give it another name")
			}
			continue
		}
		if h := c.hook(e, key, args, after); h != nil {
			out.Hooks = append(out.Hooks, *h)
		}
	}
	return out
}

// each compiles loops.
func (c *compiler) each(n *document.Node, p *place) *workflow.Each {
	var is []string
	for _, k := range []string{"withItems", "withParam", "withSequence"} {
		if n.Get(k) != nil {
			is = append(is, k)
		}
	}
	if len(is) == 0 {
		return nil
	}
	if len(is) > 1 {
		n.Fail("%s exclude each other", strings.Join(is, " and "))
	}
	x := n.Get(is[0])
	switch is[0] {
	case "withItems":
		if !x.IsList() {
			x.Fail("withItems has to be a list: for one that is worked out there is withParam")
			return nil
		}
		e, err := p.tree(x)
		if err != nil {
			x.Fail("%v", err)
			return nil
		}
		return &workflow.Each{Items: e}
	case "withParam":
		e, err := p.value(x.Text())
		if err != nil {
			x.Fail("%v", err)
			return nil
		}
		if k, ok := e.(workflow.Constant); ok && !strings.HasPrefix(strings.TrimSpace(k.String()), "[") {
			x.Fail("%.80q is no list in JSON", k.String())
		}
		return &workflow.Each{Items: e}
	}
	c.check(x, "sequence")
	s := &workflow.Sequence{Start: c.textOf(x.Get("start"), p), End: c.textOf(x.Get("end"), p), Count: c.textOf(x.Get("count"), p), Format: x.Get("format").Text()}
	if (s.End == nil) == (s.Count == nil) {
		x.Fail("write one of count and end")
	}
	for name, e := range map[string]workflow.Expr{"start": s.Start, "end": s.End, "count": s.Count} {
		if k, ok := e.(workflow.Constant); ok {
			if f, is := literal(k.String()).(float64); !is || f != float64(int(f)) {
				x.Get(name).Fail("%.40q is no whole number", k.String())
			}
		}
	}
	if s.Format != "" {
		if err := workflow.CheckFormat(s.Format); err != nil {
			x.Get("format").Fail("%v", err)
		}
	}
	return &workflow.Each{Count: s}
}
