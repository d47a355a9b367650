package workflow

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/cel-go/cel"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/task/condition"
	"cairn.dev/cairn/internal/workflow/document"
)

var (
	actions = []string{"get", "create", "apply", "patch", "replace", "delete"}
	patches = []string{"strategic", "merge", "json"}
)

// request is the leaf of a task that makes a request to the API server of its
// cluster.
type request struct {
	action, patch             string
	manifest                  Expr
	success, failure, account Expr // nil for none
	owner                     bool
	outputs                   []reading
}

// reading is an output, made of the object that the task ended with.
type reading struct {
	name, kind string
	value      Expr
	def        Value
	set        bool
}

// objectEnv is what outputs of a request see.
func objectEnv() (*celEnv, error) {
	return newEnv([]name{{text: "object", typ: cel.DynType, path: []string{"object"}}})
}

// readReadings reads the outputs of a request.
func (t *taskDoc) readReadings(n *document.Node) {
	for _, e := range entries(n, "output") {
		if !e.Node.IsMap() {
			e.Node.Fail("say where in the object it is: %s: {value: \"${{ object.status.phase }}\"}", e.Key)
			continue
		}
		e.Node.Known(outputFields...)
		for _, k := range []string{"path", "optional"} {
			if x := e.Node.Get(k); x != nil {
				x.FailKey("%s goes with an image: here value says where it is in the object", k)
			}
		}
		o := output{kind: oneOf(e.Node.Get("type"), []string{"json", "lines", "text"}, "json"), path: []string{"parameters", e.Key}}
		o.typ, o.out = typeOf(o.kind), task.Output{Name: e.Key, Kind: task.Parameter, Type: o.kind}
		if e.Node.Get("value") == nil {
			e.Node.Fail("there is no value: write ${{ object.… }}, what it is in the object")
		}
		if d := e.Node.Get("default"); d != nil {
			o.def, o.set = d.Value(), true
			if err := matches(o.def, o.kind); err != nil {
				d.Fail("%v", err)
			}
		}
		t.outputs[e.Key] = o
		t.order = append(t.order, e.Key)
	}
}

// request compiles one, and returns the names it uses.
func (c *compiler) request(t *taskDoc, env *celEnv) (Leaf, []string) {
	n, before := t.node.Get("resource"), c.log.Len()
	n.Known(requestFields...)
	c.g.Cluster = "a task of it makes a request to the API server of one"
	r := &request{action: oneOf(n.Get("action"), actions, ""), patch: oneOf(n.Get("patch"), patches, ""), owner: n.Get("owner").Bool()}
	if n.Get("action") == nil {
		n.Fail("there is no action: write one of get, create, apply, patch, replace and delete")
	}
	if x := n.Get("patch"); x != nil && r.action != "patch" {
		x.FailKey("patch says how a patch is put in: it goes with action: patch")
	}
	var uses []string
	text := func(n *document.Node) Expr {
		if n == nil {
			return nil
		}
		w, err := env.compileText(n.Text())
		if err != nil {
			n.Fail("%v", err)
			return nil
		}
		uses = append(uses, w.uses...)
		return w.Expr
	}
	r.account = text(n.Get("account"))
	for key, into := range map[string]*Expr{"success": &r.success, "failure": &r.failure} {
		*into = text(n.Get(key))
		if k, ok := (*into).(Constant); ok {
			if _, err := condition.Parse(k.String()); err != nil {
				n.Get(key).Fail("%v", err)
			}
		}
	}
	at := n.Get("manifest")
	if at == nil {
		n.Fail("there is no manifest: write the object")
		return nil, nil
	}
	root := at
	if at.IsText() {
		if w, err := env.compileText(at.Text()); err == nil && isOne(w) {
			r.manifest, uses, root = w.Expr, append(uses, w.uses...), nil
		} else if root = document1(at); root == nil {
			return nil, nil
		}
	}
	if root != nil {
		if root.IsList() || !root.IsMap() || root.Get("apiVersion") == nil || root.Get("kind") == nil {
			at.Fail("the manifest has to be an object with apiVersion, kind and metadata")
		}
		r.manifest = c.tree(root, env, &uses)
	}
	object, err := objectEnv()
	if err != nil {
		n.Fail("%v", err)
		return nil, nil
	}
	for _, k := range t.order {
		o, from := t.outputs[k], t.node.Get("outputs").Get(k).Get("value")
		w, err := object.compileText(from.Text())
		if err != nil {
			from.Fail("%v", err)
			continue
		}
		r.outputs = append(r.outputs, reading{name: k, kind: o.kind, value: w.Expr, def: o.def, set: o.set})
	}
	if c.log.Len() > before {
		return nil, uses
	}
	return r, uses
}

// isOne reports whether a text is one expression and nothing beside it.
func isOne(w written) bool { _, is := w.Expr.(*celExpr); return is }

// document1 is the one document that stands in a text.
func document1(n *document.Node) *document.Node {
	var log document.Log
	docs := document.Read("", []byte(n.Text()), &log)
	if all := log.Problems(); len(all) > 0 {
		n.Fail("the manifest: line %d: %s", all[0].Line, all[0].Text)
		return nil
	}
	if len(docs) != 1 {
		n.Fail("the manifest is %d documents and has to be one: write a task for each", len(docs))
		return nil
	}
	return docs[0]
}

// branch is a list or map with expressions in its texts.
type branch struct {
	list   []Expr
	fields map[string]Expr
}

// String implements [Expr].
func (b branch) String() string { return "an object" }

// Eval implements [Expr].
func (b branch) Eval(s Scope) (Value, error) {
	if b.fields == nil {
		return listOf(len(b.list), func(i int) (Value, error) { return b.list[i].Eval(s) })
	}
	out := make(map[string]any, len(b.fields))
	for k, e := range b.fields {
		v, err := e.Eval(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		out[k] = v
	}
	return out, nil
}

// tree compiles a node; a text that is one expression is that value.
func (c *compiler) tree(n *document.Node, env *celEnv, uses *[]string) Expr {
	switch {
	case n.IsMap():
		b := branch{fields: map[string]Expr{}}
		for _, e := range n.Entries() {
			b.fields[e.Key] = c.tree(e.Node, env, uses)
		}
		return b
	case n.IsList():
		b := branch{}
		for _, e := range n.List() {
			b.list = append(b.list, c.tree(e, env, uses))
		}
		return b
	case !n.IsText():
		return Constant{n.Value()}
	}
	w, err := env.compileText(n.Text())
	if err != nil {
		n.Fail("%v", err)
		return Constant{""}
	}
	if w.typ != nil && holdsFile(w.typ) {
		n.Fail("a file cannot be put into an object")
	}
	*uses = append(*uses, w.uses...)
	return w.Expr
}

// Images implements [Leaf].
func (r *request) Images() []string { return nil }

// Render implements [Leaf].
func (r *request) Render(s Scope) (*task.Task, error) {
	out := &task.Resource{Action: r.action, Patch: r.patch}
	for what, of := range map[string]struct {
		from Expr
		to   *string
	}{"success": {r.success, &out.Success}, "failure": {r.failure, &out.Failure}} {
		if of.from == nil {
			continue
		}
		v, err := of.from.Eval(s)
		if err == nil {
			*of.to, err = Text(v)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	v, err := r.manifest.Eval(s)
	if text, is := v.(string); is && err == nil {
		v, err = parseManifest(text)
	}
	if err == nil {
		out.Manifest, err = json.Marshal(v)
	}
	if err == nil && len(out.Manifest) > task.MaxManifest {
		err = fmt.Errorf("it has %d bytes, the limit is %d", len(out.Manifest), task.MaxManifest)
	}
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if r.owner {
		out.Owner = &task.Owner{} // whose object the run is, the cluster's dispatcher knows
	}
	if n, ok := s.Lookup("retries"); ok {
		f, _ := n.(float64)
		out.Try = int(f)
	}
	t := &task.Task{Resource: out}
	if len(r.outputs) > 0 {
		t.Outputs = []task.Output{{Name: task.Object, Kind: task.Object}}
	}
	if r.account != nil {
		v, err := r.account.Eval(s)
		if err != nil {
			return nil, fmt.Errorf("account: %w", err)
		}
		name, err := Text(v)
		if err != nil {
			return nil, fmt.Errorf("account: %w", err)
		}
		t.Pod = map[string]any{"serviceAccountName": name}
	}
	return t, nil
}

// parseManifest reads an object that is handed over as a text.
func parseManifest(text string) (Value, error) {
	var log document.Log
	docs := document.Read("", []byte(text), &log)
	if all := log.Problems(); len(all) > 0 {
		return nil, errors.New(all[0].Text)
	}
	if len(docs) != 1 {
		return nil, fmt.Errorf("it is %d documents and has to be one", len(docs))
	}
	return docs[0].Value(), nil
}

// seen is what outputs see.
type seen struct{ object Value }

func (s seen) Lookup(path ...string) (Value, bool) {
	return s.object, len(path) == 1 && path[0] == "object" && s.object != nil
}

// Read implements [Reader].
func (r *request) Read(object string) (map[string]task.Produced, error) {
	var s seen
	if object != "" {
		if err := json.Unmarshal([]byte(object), &s.object); err != nil {
			return nil, fmt.Errorf("read the object: %w", err)
		}
	}
	out := map[string]task.Produced{}
	for _, o := range r.outputs {
		v, err := o.value.Eval(s)
		if err != nil && o.set {
			v, err = o.def, nil
		}
		text := ""
		if err == nil && o.kind == "json" {
			var b []byte
			b, err = json.Marshal(v)
			text = string(b)
		} else if err == nil {
			text, err = Text(v)
		}
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", o.name, err)
		}
		out[o.name] = task.Produced{Text: &text}
	}
	return out, nil
}

var _ Reader = (*request)(nil)
