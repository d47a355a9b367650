package argo

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// kinds are what a template may be; exactly one.
var kinds = []string{"container", "script", "steps", "dag", "suspend", "http", "containerSet", "resource", "data", "plugin"}

// template compiles one of a bundle, once, and returns its key in the graph.
func (c *compiler) template(b *bundle, at *document.Node, name string) string {
	if strings.Contains(name, "{{") {
		at.Fail("%.80q: which template is called has to be known before the run", name)
		return ""
	}
	n := b.nodes[name]
	if n == nil {
		at.Fail("there is no template %q%s", name, document.Meant(name, slices.Collect(keys(b.nodes))))
		return ""
	}
	return c.compiled(b, n, b.prefix+name)
}

func (c *compiler) compiled(b *bundle, n *document.Node, key string) string {
	if c.g.Templates[key] != nil {
		return key
	}
	t := &workflow.Template{Name: key}
	c.g.Templates[key] = t // before what it calls, which may be itself
	n = c.withDefaults(n)
	c.check(n, "template")
	p := &place{params: c.params, inputs: map[string]bool{}, artifacts: map[string]bool{}, calls: map[string]*signature{}, paths: map[string]workflow.Expr{}}
	c.inputs(n, t, p)
	var is []string
	for _, k := range kinds {
		if n.Get(k) != nil || k == "suspend" && hasKey(n, k) {
			is = append(is, k)
		}
	}
	if len(is) != 1 {
		n.Fail("the template is %d of %s: it has to be one", len(is), strings.Join(kinds, ", "))
		return key
	}
	timeout := c.timeout(n, t, p)
	inner := p
	var program *leaf
	switch is[0] {
	case "container", "script":
		l := c.leaf(b, n, t, p, is[0])
		l.timeout, program = timeout, l
		t.Leaf, timeout = l, nil
	case "containerSet":
		l := c.set(b, n, t, p)
		l.timeout = timeout
		t.Leaf, timeout = l, nil
	case "http":
		l := c.http(n.Get("http"), p)
		l.timeout = timeout
		if s := n.Get("http").Get("timeoutSeconds"); s != nil && timeout == nil {
			l.timeout = c.durationExpr(s, p)
		}
		t.Leaf, timeout = l, nil
		t.Outputs = []workflow.Output{{Name: task.Result, Result: true}}
		l.base.Outputs = []task.Output{{Name: task.Result, Kind: task.Result}}
	case "resource":
		l := c.resource(n, t, p)
		l.timeout = timeout
		t.Leaf, timeout = l, nil
	case "steps":
		inner = c.steps(b, n.Get("steps"), t, p)
	case "dag":
		inner = c.dag(b, n.Get("dag"), t, p)
	case "suspend":
		t.Suspend = &workflow.Suspend{}
		s := n.Get("suspend")
		c.check(s, "suspend")
		if d := s.Get("duration"); d != nil {
			t.Suspend.For = c.durationExpr(d, p)
		}
	}
	if timeout != nil {
		n.Fail("a timeout with tags is supported for templates that run a program: write the time down")
	}
	c.daemon(n, t, program, is[0])
	c.outputs(n, t, inner, is[0])
	t.Retry = c.retry(n.Get("retryStrategy"), p)
	t.Locks = c.locks(n.Get("synchronization"), p)
	t.Memo = c.memo(n.Get("memoize"), p)
	if par := n.Get("parallelism"); par != nil {
		t.Parallelism = int(par.Int(1, 1_000_000))
	}
	if ff := n.Get("failFast"); ff != nil && t.DAG != nil {
		t.FailFast = ff.Bool()
	}
	return key
}

func hasKey(n *document.Node, key string) bool {
	return slices.ContainsFunc(n.Entries(), func(e document.Entry) bool { return e.Key == key })
}

// byName are the lists of templates that are merged by a field of their
// entries.
var byName = map[string]string{"parameters": "name", "artifacts": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath", "mutexes": "name"}

// withDefaults is a template with what the workflow's templateDefaults say, as
// far as they are of its kind.
func (c *compiler) withDefaults(n *document.Node) *document.Node {
	d := c.defaults
	for _, k := range kinds {
		if !hasKey(n, k) {
			d = d.Without(k)
		}
	}
	return document.Merge(d.Without("name"), n, byName)
}

// inputs compiles the inputs of a template.
func (c *compiler) inputs(tmpl *document.Node, t *workflow.Template, p *place) {
	n := tmpl.Get("inputs")
	c.check(n, "inputs")
	// A default is worked out where the template is called, which has other
	// inputs: it cannot name those of the template.
	outer := &place{params: c.params}
	program := tmpl.Get("container") != nil || tmpl.Get("script") != nil || tmpl.Get("containerSet") != nil
	for _, e := range n.Get("parameters").List() {
		c.check(e, "parameter")
		in := workflow.Input{Name: e.Get("name").Text(), Enum: e.Get("enum").Texts()}
		if in.Name == "" || p.inputs[in.Name] {
			e.Fail("the input has no name of its own")
			continue
		}
		value := e.Get("value")
		if value == nil {
			value = e.Get("default")
		}
		from := e.Get("valueFrom")
		c.check(from, "valueFrom")
		switch {
		case value != nil:
			in.Default = c.textOf(value, outer)
		case from.Get("configMapKeyRef") != nil:
			ref := from.Get("configMapKeyRef")
			v, ok := c.config(ref)
			if d := from.Get("default"); !ok && d != nil {
				v, ok = d.Text(), true
			}
			if ok {
				in.Default = workflow.Constant{Value: v}
			} else {
				ref.Fail("there is no key %q in a ConfigMap %q, neither in this file nor on the server", ref.Get("key").Text(), ref.Get("name").Text())
			}
		case from != nil:
			from.Fail("an input comes from a ConfigMap or from whoever calls")
		}
		p.inputs[in.Name] = true
		t.Inputs = append(t.Inputs, in)
	}
	for _, e := range n.Get("artifacts").List() {
		in := workflow.Input{Name: e.Get("name").Text(), Artifact: true, Optional: e.Get("optional").Bool()}
		if in.Name == "" || p.artifacts[in.Name] {
			e.Fail("the input has no name of its own")
			continue
		}
		p.artifacts[in.Name] = true
		if !program {
			in.Default = c.source(e, outer)
		} else if hasSource(e) { // worked out by the task itself, which sees all inputs
			in.Optional = true
		}
		for _, x := range e.Entries() {
			in.Optional = in.Optional || tables["artifact"][x.Key] == sources // told already
		}
		t.Inputs = append(t.Inputs, in)
	}
	for _, e := range n.Get("artifacts").List() { // after all inputs are known
		if path := e.Get("path"); path != nil {
			p.paths["inputs.artifacts."+e.Get("name").Text()+".path"] = c.textOf(path, p)
		}
	}
}

// hasSource reports whether the document says where an artifact comes from.
func hasSource(n *document.Node) bool {
	return slices.ContainsFunc([]string{"from", "fromExpression", "raw", "http", "git", "s3"}, func(k string) bool { return n.Get(k) != nil })
}

// textOf compiles a text, or a scalar or tree as its JSON.
func (c *compiler) textOf(n *document.Node, p *place) workflow.Expr {
	if n == nil {
		return nil
	}
	if !n.IsText() {
		return workflow.Constant{Value: n.JSON()}
	}
	e, err := p.text(n.Text())
	if err != nil {
		n.Fail("%v", err)
		return workflow.Constant{Value: ""}
	}
	return e
}

// seconds reads a number of seconds, of at least one.
func (c *compiler) seconds(n *document.Node) time.Duration {
	if strings.Contains(n.Text(), "{{") {
		n.Fail("a deadline with tags is supported for templates that run a program: write the time down")
		return 0
	}
	return time.Duration(n.Int(1, 1<<31)) * time.Second
}

// timeout compiles timeout and activeDeadlineSeconds; the result is one with
// tags, which only a leaf can work out.
func (c *compiler) timeout(tmpl *document.Node, t *workflow.Template, p *place) workflow.Expr {
	for _, k := range []string{"activeDeadlineSeconds", "timeout"} {
		n := tmpl.Get(k)
		if n == nil {
			continue
		}
		if strings.Contains(n.Text(), "{{") {
			return c.durationExpr(n, p)
		}
		if d := n.Duration(); d > 0 && (t.Timeout == 0 || d < t.Timeout) {
			t.Timeout = d
		} else if d == 0 {
			n.Fail("0 would end it at once: leave it out for no limit")
		}
	}
	return nil
}

func (c *compiler) durationExpr(n *document.Node, p *place) workflow.Expr {
	e := c.textOf(n, p)
	if k, ok := e.(workflow.Constant); ok {
		if _, err := document.ParseDuration(k.String()); err != nil {
			n.Fail("%v", err)
		}
	}
	return e
}

// retry compiles a retryStrategy.
func (c *compiler) retry(n *document.Node, p *place) *workflow.Retry {
	if n == nil {
		return nil
	}
	c.check(n, "retry")
	r := &workflow.Retry{On: "failure"}
	if n.Get("expression") != nil {
		r.On = "always"
		r.When = c.condition(n.Get("expression"), p.with(func(q *place) { q.retry = true }))
	}
	if k := n.Get("retryPolicy"); k != nil {
		words := map[string]string{"Always": "always", "OnFailure": "failure", "OnError": "error", "OnTransientError": "transient"}
		if r.On = words[k.Text()]; r.On == "" {
			k.Fail("%.40q: this has to be one of %s", k.Text(), strings.Join(slices.Sorted(keys(words)), ", "))
		}
	}
	if l := n.Get("limit"); l != nil {
		r.Limit = c.textOf(l, p)
		if k, ok := r.Limit.(workflow.Constant); ok {
			if f, is := literal(k.String()).(float64); !is || f < 0 || f != float64(int(f)) {
				l.Fail("%.40q: this has to be a whole number", k.String())
			}
		}
	}
	b := n.Get("backoff")
	c.check(b, "backoff")
	r.Delay, r.For, r.MaxDelay = b.Get("duration").Duration(), b.Get("maxDuration").Duration(), b.Get("cap").Duration()
	if f := b.Get("factor"); f != nil {
		v, is := literal(f.Text()).(float64)
		if !is || v < 1 || v > 100 {
			f.Fail("%.40q: this has to be a number from 1 to 100", f.Text())
		}
		r.Factor = v
	}
	return r
}

// locks compiles synchronization.
func (c *compiler) locks(n *document.Node, p *place) []workflow.Lock {
	if n == nil {
		return nil
	}
	c.check(n, "sync")
	var out []workflow.Lock
	mutex := func(e *document.Node) {
		c.check(e, "mutex")
		if e.Get("name") == nil {
			e.Fail("the mutex has no name")
			return
		}
		out = append(out, workflow.Lock{Name: c.textOf(e.Get("name"), p), Namespace: e.Get("namespace").Text()})
	}
	semaphore := func(e *document.Node) {
		c.check(e, "semaphore")
		ref := e.Get("configMapKeyRef")
		if ref == nil {
			if e.Get("database") == nil {
				e.Fail("the semaphore has no configMapKeyRef, which has its size")
			}
			return
		}
		v, ok := c.config(ref)
		size, is := literal(v).(float64)
		if !ok || !is || size < 1 || size != float64(int(size)) {
			ref.Fail("the key %q of the ConfigMap %q has to hold the semaphore's size, a whole number, in this file or on the server", ref.Get("key").Text(), ref.Get("name").Text())
			return
		}
		out = append(out, workflow.Lock{Name: workflow.Constant{Value: ref.Get("name").Text() + "/" + ref.Get("key").Text()}, Namespace: e.Get("namespace").Text(), Size: workflow.Constant{Value: size}})
	}
	if m := n.Get("mutex"); m != nil {
		mutex(m)
	}
	for _, e := range n.Get("mutexes").List() {
		mutex(e)
	}
	if s := n.Get("semaphore"); s != nil {
		semaphore(s)
	}
	for _, e := range n.Get("semaphores").List() {
		semaphore(e)
	}
	return out
}

// memo compiles memoize.
func (c *compiler) memo(n *document.Node, p *place) *workflow.Memo {
	if n == nil {
		return nil
	}
	c.check(n, "memoize")
	c.check(n.Get("cache"), "cache")
	c.check(n.Get("cache").Get("configMap"), "keyRef")
	m := &workflow.Memo{Cache: n.Get("cache").Get("configMap").Get("name").Text(), MaxAge: n.Get("maxAge").Duration()}
	if n.Get("key") == nil {
		n.Fail("there is no key")
		return nil
	}
	m.Key = c.textOf(n.Get("key"), p)
	return m
}

// signature reads what a template declares as outputs.
func (c *compiler) signature(b *bundle, n *document.Node) *signature {
	name := n.Path + n.Get("name").Text()
	if s := b.sigs[name]; s != nil {
		return s
	}
	s := &signature{params: map[string]*string{}, artifacts: map[string]bool{}}
	n = c.withDefaults(n)
	s.daemon = n.Get("daemon").Bool()
	for _, e := range n.Get("outputs").Get("parameters").List() {
		var def *string
		if d := e.Get("valueFrom").Get("default"); d != nil {
			v := d.Text()
			def = &v
		}
		s.params[e.Get("name").Text()] = def
	}
	for _, e := range n.Get("outputs").Get("artifacts").List() {
		s.artifacts[e.Get("name").Text()] = true
	}
	for _, k := range []string{"container", "script", "containerSet", "http"} {
		s.leaf = s.leaf || n.Get(k) != nil
	}
	b.sigs[name] = s
	return s
}

// outputs compiles what a template leaves.
func (c *compiler) outputs(tmpl *document.Node, t *workflow.Template, p *place, kind string) {
	n := tmpl.Get("outputs")
	c.check(n, "outputs")
	leaf, _ := t.Leaf.(*leaf)
	program := kind == "container" || kind == "script" || kind == "containerSet"
	for _, e := range n.Get("parameters").List() {
		c.check(e, "parameter")
		o := workflow.Output{Name: e.Get("name").Text(), Global: e.Get("globalName").Text()}
		from := e.Get("valueFrom")
		c.check(from, "valueFrom")
		if d := from.Get("default"); d != nil {
			o.Default = c.textOf(d, p)
		}
		if o.Name == "" {
			e.Fail("the output has no name")
		}
		switch {
		case from.Get("path") != nil && program:
			out := task.Output{Name: o.Name, Kind: task.Parameter, Type: "text"}
			if d := from.Get("default"); d != nil {
				v := d.Text()
				out.Default = &v
			}
			leaf.output(out, c.textOf(from.Get("path"), p))
		case kind == "resource" && leaf.resource.reads(e):
			o.Default = nil // the worker knows it
		case from.Get("parameter") != nil:
			x, err := p.value(from.Get("parameter").Text())
			if err != nil {
				from.Get("parameter").Fail("%v", err)
			}
			o.From = x
		case from.Get("expression") != nil:
			o.From = c.condition(from.Get("expression"), p)
		case hasKey(from, "supplied") && t.Suspend != nil:
			t.Suspend.Supplied = append(t.Suspend.Supplied, o.Name)
		case e.Get("value") != nil:
			o.From = c.textOf(e.Get("value"), p)
		case program && from == nil:
			e.Fail("the output has no valueFrom: write its path")
		default:
			e.Fail("a %s template has outputs from %s", kind, map[bool]string{true: "a path or an expression", false: "a parameter or an expression; supplied ones are of suspend"}[program])
		}
		t.Outputs = append(t.Outputs, o)
	}
	for _, e := range n.Get("artifacts").List() {
		c.check(e, "artifact")
		o := workflow.Output{Name: e.Get("name").Text(), Artifact: true, Global: e.Get("globalName").Text()}
		if o.Name == "" {
			e.Fail("the output has no name")
		}
		switch {
		case e.Get("path") != nil && e.Get("subPath") != nil:
			e.Get("subPath").FailKey("subPath stands where an artifact is handed on")
		case e.Get("path") != nil && program:
			out := task.Output{Name: o.Name, Kind: task.Artifact, Optional: e.Get("optional").Bool(), Archive: c.archive(e.Get("archive"))}
			if out.To = c.destination(e); out.To != nil && out.Archive == "" {
				out.Archive = "tar" // elsewhere it is read as Argo writes it
			}
			leaf.output(out, c.textOf(e.Get("path"), p))
		case e.Get("from") != nil:
			o.From = c.from(e.Get("from"), p)
		case e.Get("fromExpression") != nil:
			o.From = c.condition(e.Get("fromExpression"), p)
		default:
			e.Fail("the artifact has no %s", map[bool]string{true: "path", false: "from or fromExpression"}[program])
		}
		t.Outputs = append(t.Outputs, o)
	}
}

func (c *compiler) archive(n *document.Node) string {
	if n == nil {
		return ""
	}
	c.check(n, "archive")
	c.check(n.Get("tar"), "tar")
	for _, k := range []string{"none", "tar", "zip"} {
		if hasKey(n, k) {
			return k
		}
	}
	n.Fail("write none, tar or zip")
	return ""
}

// at is where a leaf's output lies.
func (l *leaf) output(o task.Output, path workflow.Expr) {
	l.base.Outputs = append(l.base.Outputs, o)
	l.outputPaths = append(l.outputPaths, path)
}

// duration is a text that says how long.
func duration(e workflow.Expr, s workflow.Scope) (time.Duration, error) {
	v, err := e.Eval(s)
	if err != nil {
		return 0, err
	}
	return document.ParseDuration(fmt.Sprint(v))
}
