package argo

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// leaf is a template that runs a program, or makes a request.
type leaf struct {
	base        task.Task
	image       workflow.Expr
	images      []string
	command     []workflow.Expr
	args        []workflow.Expr
	env         []variable
	workdir     workflow.Expr
	script      workflow.Expr
	inputs      []inputFile
	outputPaths []workflow.Expr // of base.Outputs
	timeout     workflow.Expr
	request     *request
	resource    *resource
	pod         map[string]workflow.Expr // Task.Pod
}

type variable struct {
	name  string
	value workflow.Expr
}

type inputFile struct {
	name   string
	path   workflow.Expr
	mode   uint32
	source workflow.Expr // when nobody hands it over; may be nil
	own    bool          // nobody does: it is no input of the template
}

type request struct {
	method, url, body workflow.Expr
	headers           map[string]workflow.Expr
	success           string
}

// leaf compiles a container or script.
func (c *compiler) leaf(b *bundle, tmpl *document.Node, t *workflow.Template, p *place, kind string) *leaf {
	return c.program(b, tmpl, tmpl.Get(kind), t, p, kind)
}

// program compiles n, the container of a template.
func (c *compiler) program(b *bundle, tmpl, n *document.Node, t *workflow.Template, p *place, kind string) *leaf {
	l := &leaf{}
	known := n
	if tmpl.Get("daemon").Bool() {
		known = without(n, "readinessProbe") // which the worker asks wherever it is
	}
	if kind == "script" {
		c.check(without(known, "source"), "container")
		if n.Get("source") == nil {
			n.Fail("the script has no source")
		}
		if n.Get("command") == nil {
			n.Fail("who reads the script? Write command, such as [sh] or [python]")
		}
	} else {
		c.check(known, "container")
	}
	// The places of outputs are known to the program.
	for _, k := range []string{"parameters", "artifacts"} {
		for _, e := range tmpl.Get("outputs").Get(k).List() {
			at := e.Get("path")
			if k == "parameters" {
				at = e.Get("valueFrom").Get("path")
			}
			if at != nil {
				p.paths["outputs."+k+"."+e.Get("name").Text()+".path"] = c.textOf(at, p)
			}
		}
	}
	l.image = c.textOf(n.Get("image"), p)
	if l.image == nil {
		n.Fail("there is no image")
		l.image = workflow.Constant{Value: ""}
	} else if k, ok := l.image.(workflow.Constant); ok {
		if err := workflow.CheckImage(k.String()); err != nil {
			n.Get("image").Fail("%v", err)
		}
		l.images = []string{k.String()}
	}
	for _, e := range n.Get("command").List() {
		l.command = append(l.command, c.textOf(e, p))
	}
	for _, e := range n.Get("args").List() {
		l.args = append(l.args, c.textOf(e, p))
	}
	l.script, l.workdir = c.textOf(n.Get("source"), p), c.textOf(n.Get("workingDir"), p)
	for _, e := range n.Get("env").List() {
		c.check(e, "env")
		v := variable{e.Get("name").Text(), c.textOf(e.Get("value"), p)}
		if from := e.Get("valueFrom"); from != nil {
			c.check(from, "envFrom")
			if c.opts.Cluster && has(from, "envFrom") {
				continue // the pod has it
			}
			if ref := from.Get("configMapKeyRef"); ref != nil {
				s, ok := c.config(ref)
				if !ok && !ref.Get("optional").Bool() {
					ref.Fail("there is no key %q in a ConfigMap %q, neither in this file nor on the server", ref.Get("key").Text(), ref.Get("name").Text())
				}
				v.value = workflow.Constant{Value: s}
			}
		}
		if v.value == nil {
			v.value = workflow.Constant{Value: ""}
		}
		if v.name == "" || strings.ContainsAny(v.name, "=\x00") {
			e.Fail("%.40q is no name of a variable", v.name)
		}
		l.env = append(l.env, v)
	}
	r := n.Get("resources")
	c.check(r, "resources")
	for _, k := range []string{"limits", "requests"} { // requests are what is counted with
		c.check(r.Get(k), "quantities")
		if q := r.Get(k).Get("cpu"); q != nil {
			l.base.CPU = c.quantity(q)
		}
		if q := r.Get(k).Get("memory"); q != nil {
			l.base.Memory = c.quantity(q) / 1000
		}
	}
	s := n.Get("securityContext")
	c.check(s, "security")
	if u := s.Get("runAsUser"); u != nil {
		l.base.User = strconv.FormatInt(u.Int(0, 1<<31), 10)
		if g := s.Get("runAsGroup"); g != nil {
			l.base.User += ":" + strconv.FormatInt(g.Int(0, 1<<31), 10)
		}
	}
	c.volumes(b, tmpl, n.Get("volumeMounts"), l)
	for _, e := range tmpl.Get("inputs").Get("artifacts").List() {
		in := inputFile{name: e.Get("name").Text(), path: p.paths["inputs.artifacts."+e.Get("name").Text()+".path"], source: c.source(e, p)}
		if in.path == nil {
			e.Fail("the artifact has no path")
			continue
		}
		if m := e.Get("mode"); m != nil {
			in.mode = uint32(m.Int(0, 0o777))
		}
		l.inputs = append(l.inputs, in)
	}
	l.pod = c.pod(tmpl, n, p)
	return l
}

// without is the same map, less a key that another table does not have.
func without(n *document.Node, key string) *document.Node { return n.Without(key) }

func (c *compiler) quantity(n *document.Node) int64 {
	v, err := workflow.ParseQuantity(n.Text())
	if err != nil {
		n.Fail("%v", err)
	}
	return v
}

// volumes compiles mounts of folders: new ones for each task, and claims, which
// tasks share.
func (c *compiler) volumes(b *bundle, tmpl, mounts *document.Node, l *leaf) {
	known, claims := map[string]bool{}, map[string]*document.Node{}
	for _, list := range []*document.Node{b.merged("volumes"), tmpl.Get("volumes")} {
		for _, v := range list.List() {
			c.check(v, "volume")
			name := v.Get("name").Text()
			known[name], claims[name] = true, v.Get("persistentVolumeClaim")
		}
	}
	for _, v := range b.merged("volumeClaimTemplates").List() {
		known[v.Get("metadata").Get("name").Text()] = true // refused already, or the pod's
	}
	for _, m := range mounts.List() {
		c.check(m, "volumeMount")
		name, at := m.Get("name").Text(), m.Get("mountPath").Text()
		if !known[name] {
			m.Fail("there is no volume %q", name)
		}
		if !path.IsAbs(at) {
			m.Fail("mountPath %.80q has to be a whole path", at)
		}
		v := task.Volume{Name: name, Path: at, ReadOnly: m.Get("readOnly").Bool()}
		if claim := claims[name]; claim != nil {
			c.check(claim, "claim")
			v.Claim, v.ReadOnly = claim.Get("claimName").Text(), v.ReadOnly || claim.Get("readOnly").Bool()
			if v.Claim == "" || strings.Contains(v.Claim, "{{") {
				claim.Fail("claimName has to be the name of a claim, without tags")
			}
		}
		l.base.Volumes = append(l.base.Volumes, v)
	}
}

// http compiles a request that the server makes.
func (c *compiler) http(n *document.Node, p *place) *leaf {
	c.check(n, "http")
	r := &request{method: workflow.Constant{Value: "GET"}, url: c.textOf(n.Get("url"), p), body: c.textOf(n.Get("body"), p), headers: c.headers(n.Get("headers"), p)}
	if m := n.Get("method"); m != nil {
		r.method = c.textOf(m, p)
	}
	if r.url == nil {
		n.Fail("there is no url")
	}
	if s := n.Get("successCondition"); s != nil {
		r.success = s.Text()
		if strings.Contains(r.success, "{{") {
			s.Fail("tags are not supported in a successCondition: it sees response and request")
		} else if err := CheckSuccess(r.success); err != nil {
			s.Fail("%v", err)
		}
	}
	return &leaf{request: r}
}

// Images implements [workflow.Leaf].
func (l *leaf) Images() []string { return slices.Clone(l.images) }

// Set implements [workflow.Crew].
func (l *leaf) Set() *task.Set { return l.base.Set }

// Render implements [workflow.Leaf].
func (l *leaf) Render(s workflow.Scope) (*task.Task, error) {
	t := l.base
	t.Outputs, t.Volumes = slices.Clone(l.base.Outputs), slices.Clone(l.base.Volumes)
	r := rendering{scope: s}
	for i, e := range l.outputPaths {
		// http's result comes first and has no path; programs have one for each.
		t.Outputs[i].Path = r.text("output "+t.Outputs[i].Name, e)
	}
	if l.timeout != nil {
		d, err := duration(l.timeout, s)
		r.note("timeout", err)
		t.Timeout = max(d, time.Second)
	}
	if l.resource != nil {
		l.resource.render(&r, &t, l.pod)
		return r.done(&t)
	}
	if l.request != nil {
		t.HTTP = &task.HTTP{Method: r.text("method", l.request.method), URL: r.text("url", l.request.url), Body: r.text("body", l.request.body), Success: l.request.success}
		for k, e := range l.request.headers {
			if t.HTTP.Headers == nil {
				t.HTTP.Headers = map[string]string{}
			}
			t.HTTP.Headers[k] = r.text("header "+k, e)
		}
		return r.done(&t)
	}
	t.Image = r.text("image", l.image)
	if r.err == nil {
		r.note("image", workflow.CheckImage(t.Image))
	}
	for _, e := range l.command {
		t.Command = append(t.Command, r.argument("command", e))
	}
	for _, e := range l.args {
		t.Args = append(t.Args, r.argument("args", e))
	}
	for _, v := range l.env {
		t.Env = append(t.Env, task.Env{Name: v.name, Value: r.argument("env "+v.name, v.value)})
	}
	r.pod(&t, l.pod)
	t.WorkDir, t.Script = r.argument("workingDir", l.workdir), r.text("source", l.script)
	for _, in := range l.inputs {
		if i, given := r.input(in); given {
			t.Inputs = append(t.Inputs, i)
		}
	}
	return r.done(&t)
}

// input is an artifact that a task gets. One that is optional may not be given:
// of others the run would not have come here.
func (r *rendering) input(in inputFile) (i task.Input, given bool) {
	var v workflow.Value
	ok := false
	if !in.own {
		v, ok = r.scope.Lookup("inputs", "artifacts", in.name)
	}
	if !ok && in.source != nil {
		var err error
		v, err = in.source.Eval(r.scope)
		r.note("artifact "+in.name, err)
	}
	f, is := v.(*workflow.File)
	if !is || f == nil {
		return i, false
	}
	i = task.Input{Name: in.name, Path: r.argument("artifact "+in.name, in.path), Mode: in.mode, Digest: f.Digest, Size: f.Size, Folder: f.Folder, Source: f.Source}
	if f.Source != nil && f.Source.Kind == "raw" {
		i.Content, i.Source = []byte(f.Source.Raw), nil
	}
	return i, true
}

// pod fills in what Kubernetes is told.
func (r *rendering) pod(t *task.Task, fields map[string]workflow.Expr) {
	for k, e := range fields {
		v, err := e.Eval(r.scope)
		r.note(k, err)
		if t.Pod == nil {
			t.Pod = map[string]any{}
		}
		t.Pod[k] = v
	}
}

// rendering fills in texts until the first that cannot be.
type rendering struct {
	scope workflow.Scope
	err   error
}

func (r *rendering) note(what string, err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("%s: %w", what, err)
	}
}

func (r *rendering) text(what string, e workflow.Expr) string {
	if e == nil || r.err != nil {
		return ""
	}
	v, err := e.Eval(r.scope)
	if err == nil {
		var s string
		if s, err = workflow.Text(v); err == nil {
			return s
		}
	}
	r.note(what, err)
	return ""
}

var errNUL = errors.New("it holds a NUL, which neither arguments nor variables can: hand it on as an artifact")

func (r *rendering) argument(what string, e workflow.Expr) string {
	s := r.text(what, e)
	if strings.ContainsRune(s, 0) {
		r.note(what, errNUL)
	}
	return s
}

func (r *rendering) done(t *task.Task) (*task.Task, error) {
	if r.err != nil {
		return nil, r.err
	}
	return t, nil
}
