package workflow

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/google/cel-go/cel"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow/document"
)

// taskDoc is a task as it was read.
type taskDoc struct {
	node    *document.Node
	name    string
	outputs map[string]output
	order   []string
	each    bool
	uses    string // a template, in place of an image
	// resource: it makes a request to a cluster, in place of an image.
	resource bool
	sign     *signature
	pod      *document.Node // what its document says of all pods
}

// output is an output of a task: its type, and where a scope has it.
type output struct {
	typ  *cel.Type
	path []string // behind tasks.NAME.outputs
	kind string
	out  task.Output
	def  Value
	set  bool
}

// names are those under which expressions see the task.
func (t *taskDoc) names() []name {
	out := []name{{text: "tasks." + t.name + ".status", typ: cel.StringType, path: []string{"tasks", t.name, "status"}}}
	if t.uses == "" && !t.each && !t.resource {
		out = append(out, name{text: "tasks." + t.name + ".exitCode", typ: cel.IntType, path: []string{"tasks", t.name, "exitCode"}})
	}
	if t.node.Get("daemon").Bool() && !t.each {
		out = append(out, name{text: "tasks." + t.name + ".address", typ: cel.StringType, path: []string{"tasks", t.name, "ip"}})
	}
	for k, o := range t.outputs {
		n := name{text: "tasks." + t.name + ".outputs." + k, typ: o.typ, path: append([]string{"tasks", t.name, "outputs"}, o.path...), or: o.def, set: o.set}
		if t.each {
			n.typ, n.set = cel.ListType(o.typ), false
		}
		out = append(out, n)
	}
	return out
}

// declared are the outputs as the graph has them.
func (t *taskDoc) declared() []Output {
	var out []Output
	for _, k := range t.order {
		o := t.outputs[k]
		w := Output{Name: o.out.Name, Type: o.kind, Artifact: o.out.Kind == task.Artifact, Result: o.out.Kind == task.Result}
		if o.set {
			w.Default = Constant{o.def}
		}
		out = append(out, w)
	}
	return out
}

// readTask reads what can be read without knowing the other tasks.
func (c *compiler) readTask(n *document.Node) *taskDoc {
	if !n.IsMap() {
		n.Fail("this has to be a task: a map with name and image")
		return nil
	}
	n.Known(taskFields...)
	t := &taskDoc{node: n, name: n.Get("name").Text(), outputs: map[string]output{}, each: n.Get("forEach") != nil}
	if t.name == "" {
		n.Fail("the task has no name")
		return nil
	}
	if !checkName(n.Get("name"), "task", t.name) {
		return nil
	}
	var does []string
	for _, k := range []string{"image", "uses", "suspend", "resource"} {
		if n.Get(k) != nil {
			does = append(does, k)
		}
	}
	if len(does) != 1 {
		n.Fail("the task %q has to have one of image, uses, resource and suspend", t.name)
		return nil
	}
	if n.Get("uses") == nil && n.Get("with") != nil {
		n.Get("with").FailKey("with goes with uses")
	}
	if does[0] != "image" {
		for _, k := range []string{"command", "args", "script", "env", "workdir", "files", "outputs", "resources", "user", "isolation", "volumes", "grace", "logLimit", "daemon", "ready", "pod"} {
			if x := n.Get(k); x != nil && !(k == "outputs" && does[0] == "resource") {
				x.FailKey("%s goes with image, and not with %s", k, does[0])
			}
		}
	}
	if does[0] == "uses" {
		for _, k := range []string{"retries", "timeout", "locks", "cache"} {
			if x := n.Get(k); x != nil {
				x.FailKey("%s is for a task with an image: write it at the tasks of the template", k)
			}
		}
	}
	if s := n.Get("suspend"); s.IsMap() {
		for _, o := range s.Get("outputs").List() {
			if checkName(o, "output", o.Text()) {
				t.outputs[o.Text()] = output{typ: cel.DynType, path: []string{"parameters", o.Text()}}
			}
		}
	}
	if t.resource = does[0] == "resource"; t.resource {
		t.readReadings(n.Get("outputs"))
	} else {
		t.readOutputs(n.Get("outputs"))
	}
	return t
}

func (t *taskDoc) readOutputs(n *document.Node) {
	stdout := ""
	for _, e := range entries(n, "output") {
		o := output{kind: "text"}
		file := ""
		if e.Node.IsMap() {
			e.Node.Known(outputFields...)
			if x := e.Node.Get("value"); x != nil {
				x.FailKey("value reads an object of a cluster: it goes with resource")
			}
			o.kind = oneOf(e.Node.Get("type"), types_, "text")
			file = e.Node.Get("path").Text()
			o.out.Optional = e.Node.Get("optional").Bool()
			if d := e.Node.Get("default"); d != nil {
				o.def, o.set = d.Value(), true
				if o.kind == "text" && !d.IsMap() && !d.IsList() {
					o.def = d.Text()
				}
				if err := matches(o.def, o.kind); err != nil {
					d.Fail("%v", err)
				}
			}
		} else {
			o.kind = oneOf(e.Node, types_, "text")
		}
		o.typ, o.out.Name, o.out.Path, o.out.Type = typeOf(o.kind), e.Key, file, o.kind
		if file != "" && !path.IsAbs(file) {
			e.Node.Get("path").Fail("%.80q: write the whole path in the container, such as /out/%s", file, e.Key)
		}
		switch {
		case o.kind == "file" || o.kind == "folder":
			o.out.Kind, o.path = task.Artifact, []string{"artifacts", e.Key}
			if file == "" {
				e.Node.Fail("a %s has to have a path", o.kind)
			}
		case file == "":
			if stdout != "" {
				e.Node.Fail("the program's output is %q already: give this one a path", stdout)
			}
			stdout = e.Key
			// The engine knows standard output by this name.
			o.out.Name, o.out.Kind, o.path = task.Result, task.Result, []string{"result"}
		default:
			o.out.Kind, o.path = task.Parameter, []string{"parameters", e.Key}
			if e.Key == task.Result {
				e.Node.FailKey("an output with a path cannot be called %q", task.Result)
			}
			if o.set {
				if s, err := Text(o.def); err == nil {
					o.out.Default = &s
				}
			}
		}
		t.outputs[e.Key] = o
		t.order = append(t.order, e.Key)
	}
}

// program is the leaf of our documents: a task with expressions in it.
type program struct {
	base    task.Task
	image   Expr
	images  []string
	command []Expr
	args    []Expr
	script  Expr
	env     []namedExpr
	files   []namedExpr
}

type namedExpr struct {
	name string
	expr Expr
}

// leaf compiles a task that runs an image or makes a request, and returns the
// names it uses.
func (c *compiler) leaf(t *taskDoc, env *celEnv, exit bool) (Leaf, []string) {
	inner := env
	if !exit {
		inner = inside(env)
	}
	if t.resource {
		return c.request(t, inner)
	}
	n := t.node
	p := &program{}
	before := c.log.Len()
	var uses []string
	take := func(n *document.Node) Expr {
		w, err := inner.compileText(n.Text())
		if err != nil {
			n.Fail("%v", err)
			return nil
		}
		uses = append(uses, w.uses...)
		return w.Expr
	}
	if i := n.Get("image"); i != nil {
		p.image = take(i)
		if k, ok := p.image.(Constant); ok {
			ref := fmt.Sprint(k.Value)
			if err := CheckImage(ref); err != nil {
				i.Fail("%v", err)
			}
			p.images = []string{ref}
		}
	}
	list := func(key string) []Expr {
		var out []Expr
		at := n.Get(key)
		if at != nil && !at.IsList() {
			at.Fail("write a list, one entry for each argument: [\"sh\", \"-c\", \"…\"]")
			return nil
		}
		for _, e := range at.List() {
			out = append(out, take(e))
		}
		return out
	}
	p.command, p.args = list("command"), list("args")
	if s := n.Get("script"); s != nil {
		p.script = take(s)
		if _, ok := p.script.(Constant); !ok && p.script != nil {
			// A program is text that somebody parses: the one thing that values
			// are kept out of.
			s.Fail("a script has no expressions in it: hand values over by env or args")
		}
		if len(p.command) == 0 {
			s.Fail("who reads the script? Write command, such as [sh] or [python]")
		}
	}
	for _, e := range n.Get("env").Entries() {
		if e.Key == "" || strings.ContainsAny(e.Key, "=\x00") {
			e.Node.FailKey("%.40q is no name of a variable", e.Key)
		}
		p.env = append(p.env, namedExpr{e.Key, take(e.Node)})
	}
	for _, e := range n.Get("files").Entries() {
		if !path.IsAbs(e.Key) || path.Clean(e.Key) != e.Key {
			e.Node.FailKey("%.80q: write the whole path in the container, such as /in/list.json", e.Key)
		}
		p.files = append(p.files, namedExpr{e.Key, take(e.Node)})
	}
	b := &p.base
	b.WorkDir, b.User, b.Grace = n.Get("workdir").Text(), n.Get("user").Text(), n.Get("grace").Duration()
	b.Isolation = oneOf(n.Get("isolation"), isolations, "")
	daemon(n, b)
	c.pod(t.pod, n.Get("pod"), b)
	r := n.Get("resources")
	r.Known(resourceFields...)
	b.CPU, b.Memory = quantity(r.Get("cpu")), quantity(r.Get("memory"))/1000
	if l := n.Get("logLimit"); l != nil {
		b.LogLimit = quantity(l) / 1000
	}
	for _, v := range n.Get("volumes").List() {
		v.Known(volumeFields...)
		b.Volumes = append(b.Volumes, task.Volume{Name: v.Get("name").Text(), Path: v.Get("path").Text(), Claim: v.Get("claim").Text(), ReadOnly: v.Get("readOnly").Bool()})
		if !path.IsAbs(v.Get("path").Text()) {
			v.Fail("the volume has no path in the container")
		}
	}
	for _, k := range t.order {
		b.Outputs = append(b.Outputs, t.outputs[k].out)
	}
	if c.log.Len() > before {
		return nil, uses
	}
	return p, uses
}

// daemon reads what makes a task one that others need while it runs.
func daemon(n *document.Node, b *task.Task) {
	ready := n.Get("ready")
	if !n.Get("daemon").Bool() {
		if ready != nil {
			ready.FailKey("ready says when others may go on that need the task: it goes with daemon: true")
		}
		return
	}
	b.Daemon = true
	if b.Isolation != "" && b.Isolation != "pod" {
		n.Get("isolation").Fail("a daemon has a container to itself: leave isolation out")
	}
	b.Isolation = "pod"
	for _, k := range []string{"cache", "outputs"} {
		if x := n.Get(k); x != nil {
			x.FailKey("%s is for tasks that end by themselves, and a daemon is ended", k)
		}
	}
	if ready == nil {
		return
	}
	ready.Known(readyFields...)
	b.Ready = &task.Probe{Path: ready.Get("path").Text()}
	if p := ready.Get("port"); p != nil {
		b.Ready.Port = int(p.Int(1, 65535))
	} else {
		ready.Fail("there is no port: write the one that the program listens at")
	}
	if b.Ready.Path != "" {
		b.Ready.HTTP = "http"
	}
}

// inside is the same names as a template sees them: as its inputs, each under
// its own name.
func inside(env *celEnv) *celEnv {
	out := &celEnv{env: env.env, names: make(map[string]name, len(env.names))}
	for k, n := range env.names {
		if n.path[0] != "workflow" {
			n.path = []string{"inputs", "parameters", k}
		}
		out.names[k] = n
	}
	return out
}

// Images implements [Leaf].
func (p *program) Images() []string { return slices.Clone(p.images) }

// maxInline is how large a value may be that is written into a file of a task.
const maxInline = 1 << 20

// Render implements [Leaf].
func (p *program) Render(s Scope) (*task.Task, error) {
	t := p.base
	t.Outputs, t.Volumes = slices.Clone(p.base.Outputs), slices.Clone(p.base.Volumes)
	image, err := p.text(p.image, s, &t)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if err := CheckImage(image); err != nil {
		return nil, err
	}
	t.Image = image
	if t.Command, err = p.texts(p.command, s, &t); err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	if t.Args, err = p.texts(p.args, s, &t); err != nil {
		return nil, fmt.Errorf("args: %w", err)
	}
	if p.script != nil {
		if t.Script, err = p.text(p.script, s, &t); err != nil {
			return nil, fmt.Errorf("script: %w", err)
		}
	}
	for _, e := range p.env {
		v, err := p.text(e.expr, s, &t)
		if err != nil {
			return nil, fmt.Errorf("env %s: %w", e.name, err)
		}
		t.Env = append(t.Env, task.Env{Name: e.name, Value: v})
	}
	for _, e := range p.files {
		v, err := e.expr.Eval(s)
		if err == nil {
			err = place(&t, e.name, v)
		}
		if err != nil {
			return nil, fmt.Errorf("files %s: %w", e.name, err)
		}
	}
	return &t, nil
}

func (p *program) texts(list []Expr, s Scope, t *task.Task) ([]string, error) {
	var out []string
	for _, e := range list {
		v, err := p.text(e, s, t)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// text is a value as an argument; a file is put into the task, and the argument
// is where it lies.
func (p *program) text(e Expr, s Scope, t *task.Task) (string, error) {
	if m, ok := e.(mixed); ok { // of values whose types are not known before, one may be a file
		var b strings.Builder
		for _, x := range m.parts {
			part, err := p.text(x, s, t)
			if err != nil {
				return "", err
			}
			if b.Len()+len(part) > maxText {
				return "", tooLong(m)
			}
			b.WriteString(part)
		}
		return b.String(), nil
	}
	v, err := e.Eval(s)
	if err != nil {
		return "", err
	}
	if f, ok := v.(*File); ok {
		at := path.Join("/cairn/in", strconv.Itoa(len(t.Inputs)), fileName(f))
		return at, place(t, at, f)
	}
	text, err := Text(v)
	if err == nil && strings.ContainsRune(text, 0) {
		return "", fmt.Errorf("%s holds a NUL, which no argument can: hand it over as a file", e)
	}
	return text, err
}

// fileName is the name of a file that came from elsewhere, harmless.
func fileName(f *File) string {
	n := path.Base(f.Name)
	if f.Name == "" || n == "." || n == ".." || n == "/" || strings.ContainsRune(n, 0) || len(n) > 200 {
		return "file"
	}
	return n
}

// place puts a value at a path of the task: a file as it is, a list that holds
// files as a folder of them, a text as it is, all else as JSON.
func place(t *task.Task, at string, v Value) error {
	in := task.Input{Name: "in" + strconv.Itoa(len(t.Inputs)), Path: at}
	if f, ok := v.(*File); ok {
		in.Digest, in.Size, in.Folder, in.Source = f.Digest, f.Size, f.Folder, f.Source
		t.Inputs = append(t.Inputs, in)
		return nil
	}
	if list, ok := v.([]any); ok && slices.ContainsFunc(list, func(e any) bool { _, is := e.(*File); return is }) {
		for i, e := range list {
			// Numbered, because two may have the same name.
			name := fmt.Sprintf("%06d", i)
			if f, ok := e.(*File); ok && f.Name != "" {
				name += "-" + fileName(f)
			}
			if err := place(t, path.Join(at, name), e); err != nil {
				return err
			}
		}
		return nil
	}
	s, err := Text(v)
	if err != nil {
		return err
	}
	if len(s) > maxInline {
		return fmt.Errorf("the value has %d bytes, the limit is %d: make it an output of type file", len(s), maxInline)
	}
	in.Content = []byte(s)
	t.Inputs = append(t.Inputs, in)
	return nil
}
