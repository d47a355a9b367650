package argo

import (
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// bundle is the templates of one document, which call each other by name.
type bundle struct {
	prefix string // of their keys in the graph
	spec   *document.Node
	nodes  map[string]*document.Node
	// merged finds a field of the spec, or of that which it refers to.
	merged func(string) *document.Node
	sigs   map[string]*signature
}

func (c *compiler) bundle(prefix string, spec *document.Node, merged func(string) *document.Node) *bundle {
	b := &bundle{prefix: prefix, spec: spec, merged: merged, nodes: map[string]*document.Node{}, sigs: map[string]*signature{}}
	for _, t := range merged("templates").List() {
		name := t.Get("name").Text()
		switch {
		case name == "":
			t.Fail("the template has no name")
		case b.nodes[name] != nil:
			t.Get("name").Fail("there are two templates called %q", name)
		default:
			b.nodes[name] = t
		}
	}
	return b
}

// lookup finds a template document, in the file or on the server.
func (c *compiler) lookup(n *document.Node, cluster bool, name string) *object {
	kind := "WorkflowTemplate"
	if cluster {
		kind = "ClusterWorkflowTemplate"
	}
	find := func() *object {
		for _, o := range c.objects {
			if o.kind == kind && o.name == name {
				return o
			}
		}
		return nil
	}
	if o := find(); o != nil {
		return o
	}
	if len(c.docs) >= maxDocuments {
		n.Fail("more than %d templates are referred to", maxDocuments)
		return nil
	}
	if c.opts.Templates != nil {
		ns := c.g.Namespace
		if cluster {
			ns = ""
		}
		if b := c.opts.Templates(kind, ns, name); b != nil {
			c.read(kind+" "+name, b)
			if o := find(); o != nil {
				return o
			}
		}
	}
	n.Fail("there is no %s %q, neither in this file nor on the server", kind, name)
	return nil
}

// other is the bundle of another document.
func (c *compiler) other(n *document.Node, cluster bool, name string) *bundle {
	prefix := name + "/"
	if cluster {
		prefix = "cluster/" + name + "/"
	}
	if b := c.bundles[prefix]; b != nil {
		return b
	}
	o := c.lookup(n, cluster, name)
	if o == nil {
		return nil
	}
	c.check(o.spec, "spec")
	b := c.bundle(prefix, o.spec, o.spec.Get)
	c.bundles[prefix] = b
	return b
}

// graph compiles a workflow's spec.
func (c *compiler) graph(o *object, spec *document.Node) *workflow.Graph {
	c.g = &workflow.Graph{Front: "argo", Name: o.name, Namespace: o.namespace, Labels: map[string]string{}, Args: map[string]workflow.Value{}, Templates: map[string]*workflow.Template{}}
	labels := []*document.Node{o.node.Get("metadata").Get("labels")}
	if o.kind == "CronWorkflow" {
		c.check(o.spec, "cron")
		c.check(o.spec.Get("workflowMetadata"), "workflowMetadata")
		labels = append(labels, o.spec.Get("workflowMetadata").Get("labels"))
		if spec == o.spec {
			if spec = o.spec.Get("workflowSpec"); spec == nil {
				o.spec.Fail("there is no workflowSpec")
				return nil
			}
		}
		c.g.Name = strings.TrimSuffix(o.name, "-") + "-"
	}
	c.check(o.node.Get("metadata"), "metadata")
	c.check(spec, "spec")
	c.check(spec.Get("workflowMetadata"), "workflowMetadata")
	for _, l := range append(labels, spec.Get("workflowMetadata").Get("labels")) {
		for _, e := range l.Entries() {
			c.g.Labels[e.Key] = e.Node.Text()
		}
	}
	merged := spec.Get
	args := []*document.Node{spec.Get("arguments")}
	if ref := spec.Get("workflowTemplateRef"); ref != nil {
		c.check(ref, "workflowRef")
		if t := spec.Get("templates"); t != nil {
			t.FailKey("templates cannot stand beside workflowTemplateRef: they come from there")
		}
		b := c.other(ref, ref.Get("clusterScope").Bool(), ref.Get("name").Text())
		if b == nil {
			return nil
		}
		merged = func(k string) *document.Node {
			if n := spec.Get(k); n != nil {
				return n
			}
			return b.spec.Get(k)
		}
		args = []*document.Node{b.spec.Get("arguments"), spec.Get("arguments")}
	}
	c.spec = merged
	c.arguments(args)
	if strings.HasSuffix(o.kind, "Template") {
		c.params = nil // whoever refers to it may have others
	}
	g := c.g
	g.Parallelism, g.Priority, g.Suspended = int(merged("parallelism").Int(1, 1_000_000)), int(merged("priority").Int(-1<<31, 1<<31-1)), merged("suspend").Bool()
	p := &place{params: c.params}
	if n := merged("activeDeadlineSeconds"); n != nil {
		g.Deadline = c.seconds(n)
	}
	c.check(merged("ttlStrategy"), "ttl")
	g.Keep, g.KeepFailed = c.ttl(merged("ttlStrategy"))
	g.Locks = c.locks(merged("synchronization"), p)
	wrong := c.log.Len()
	if c.check(merged("templateDefaults"), "template"); c.log.Len() == wrong { // else each template would tell again
		c.defaults = merged("templateDefaults")
	}
	main := c.bundle("", spec, merged)
	entry := merged("entrypoint")
	switch {
	case entry == nil && strings.HasSuffix(o.kind, "Template"):
	case entry == nil:
		spec.Fail("there is no entrypoint: name the template that the workflow is")
	default:
		g.Entry = c.template(main, entry, entry.Text())
	}
	if strings.HasSuffix(o.kind, "Template") || entry != nil { // those that nobody calls are read, too
		for _, t := range merged("templates").List() {
			if name := t.Get("name"); name != nil {
				c.template(main, name, name.Text())
			}
		}
	}
	c.hooks(main, p, merged("onExit"), merged("hooks"))
	if e := g.Templates[g.Entry]; e != nil && o.kind != "WorkflowTemplate" && o.kind != "ClusterWorkflowTemplate" {
		for _, in := range e.Inputs {
			if _, ok := g.Args[in.Name]; !ok && in.Default == nil && !in.Optional && !slices.Contains(g.Required, in.Name) {
				entry.Fail("the template wants the input %q, and spec.arguments has none", in.Name)
			}
		}
	}
	g.Documents = c.documents()
	return g
}

// ttl reads how long a run stays that succeeded, and one that did not, where
// that is another time.
func (c *compiler) ttl(n *document.Node) (keep, failed time.Duration) {
	of := func(key string) time.Duration {
		x := n.Get(key)
		if x == nil {
			if x = n.Get("secondsAfterCompletion"); x == nil {
				return 0
			}
		}
		return time.Duration(max(x.Int(0, 1<<31), 1)) * time.Second
	}
	keep, failed = of("secondsAfterSuccess"), of("secondsAfterFailure")
	switch {
	case (keep == 0) != (failed == 0):
		n.Fail("write secondsAfterCompletion, too: how long does a run stay that ends otherwise?")
	case keep == failed:
		failed = 0
	}
	return keep, failed
}

// arguments are those of the run: later ones replace earlier ones.
func (c *compiler) arguments(list []*document.Node) {
	missing := map[string]*document.Node{}
	for _, args := range list {
		c.check(args, "arguments")
		for _, n := range args.Get("parameters").List() {
			c.check(n, "parameter")
			name := n.Get("name").Text()
			c.params[name] = true
			delete(missing, name)
			value := n.Get("value")
			if value == nil {
				value = n.Get("default")
			}
			from := n.Get("valueFrom")
			c.check(from, "valueFrom")
			switch {
			case value != nil:
				v := value.JSON()
				if strings.Contains(v, "{{") {
					value.Fail("a parameter of the workflow is a value: tags in it would not be replaced; write it where it is used")
				}
				if enum := n.Get("enum").Texts(); len(enum) > 0 && !slices.Contains(enum, v) {
					value.Fail("%.80q is none of %s", v, strings.Join(enum, ", "))
				}
				c.g.Args[name] = v
			case from.Get("configMapKeyRef") != nil:
				ref := from.Get("configMapKeyRef")
				v, ok := c.config(ref)
				if d := from.Get("default"); !ok && d != nil {
					v, ok = d.Text(), true
				}
				if !ok {
					ref.Fail("there is no key %q in a ConfigMap %q, neither in this file nor on the server", ref.Get("key").Text(), ref.Get("name").Text())
				}
				c.g.Args[name] = v
			case from != nil && from.Get("supplied") == nil:
				from.Fail("a parameter of the workflow comes from a ConfigMap or from whoever starts it")
			case c.g.Args[name] == nil:
				missing[name] = n
			}
		}
		for _, n := range args.Get("artifacts").List() {
			if e := c.source(n, &place{params: c.params}); e != nil {
				if v, err := e.Eval(nothing{}); err == nil {
					c.g.Args[n.Get("name").Text()] = v
				} else {
					n.Fail("an artifact of the workflow has no tags: %v", err)
				}
			} else {
				n.Fail("the artifact %q has no source: write raw, http, git or s3", n.Get("name").Text())
			}
		}
	}
	for name := range missing {
		c.g.Required = append(c.g.Required, name)
	}
	slices.Sort(c.g.Required)
}

// nothing is a scope without anything in it.
type nothing struct{}

func (nothing) Lookup(...string) (workflow.Value, bool) { return nil, false }

// hooks compiles what the whole run calls.
func (c *compiler) hooks(b *bundle, p *place, onExit, hooks *document.Node) {
	if onExit != nil {
		c.g.OnExit = c.template(b, onExit, onExit.Text())
	}
	for _, e := range hooks.Entries() {
		c.check(e.Node, "hook")
		key, args := c.hookTarget(b, e.Node, p, "")
		if key == "" {
			continue
		}
		if e.Key != "exit" {
			if h := c.hook(e, key, args, p); h != nil {
				c.g.Hooks = append(c.g.Hooks, *h)
			}
			continue
		}
		if onExit != nil {
			e.Node.FailKey("there is onExit, too: keep one")
		}
		c.g.OnExit = key
		if len(args) > 0 || e.Node.Get("expression") != nil {
			// A run hands nothing to what it calls at its end: a template between
			// them does.
			call := &workflow.Call{Name: "exit", Template: key, Args: args}
			if x := e.Node.Get("expression"); x != nil {
				call.When = c.condition(x, p)
			}
			c.g.OnExit = "hooks/exit"
			c.g.Templates[c.g.OnExit] = &workflow.Template{Name: c.g.OnExit, DAG: &workflow.DAG{Calls: []*workflow.Call{call}}}
		}
	}
}

// hookTarget compiles the template that a hook calls.
func (c *compiler) hookTarget(b *bundle, n *document.Node, p *place, inline string) (string, []workflow.Arg) {
	t := c.target(b, n, inline)
	if t == nil {
		return "", nil
	}
	return t.key, c.args(n.Get("arguments"), t, p, n)
}

func (c *compiler) hook(e document.Entry, key string, args []workflow.Arg, p *place) *workflow.Hook {
	x := e.Node.Get("expression")
	if x == nil {
		e.Node.Fail("the hook has no expression: only the one called exit runs without")
		return nil
	}
	return &workflow.Hook{Name: e.Key, Template: key, Args: args, When: c.condition(x, p)}
}

// condition compiles a text that is an expression as a whole.
func (c *compiler) condition(n *document.Node, p *place) workflow.Expr {
	s := strings.TrimSpace(n.Text())
	if in, ok := strings.CutPrefix(s, "{{="); ok && strings.HasSuffix(in, "}}") && closing(in) == len(in)-2 {
		s = strings.TrimSpace(strings.TrimSuffix(in, "}}"))
	}
	x, err := p.expression(s)
	if err != nil {
		n.Fail("%v", err)
		return nil
	}
	return x
}
