package terraform

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"cairn.dev/cairn/internal/code"
)

// A run is the evaluation of one root module with one set of var-files.
type run struct {
	root        string
	environment string
	files       *reads
	gauge       *gauge
	ctx         *hcl.EvalContext      // functions, and the gauge
	given       map[string]given      // what var-files say, and
	keyed       map[string][]*literal // the keys of objects in them
	wanted      map[string]bool       // types of resources that are evaluated by themselves
	emit        func(Resource)
	problems    []code.Problem
	reached     map[string]bool     // folders of modules that were evaluated
	texts       map[string]*literal // files that functions read
	templates   map[string]*arg
	made        int  // instances, and
	full        bool // that there are too many
	depth       int  // names that are being evaluated
	rendering   int  // templates
}

// An instance of a module: what its names mean. Names are evaluated when
// something needs them, and once.
type instance struct {
	*run
	mod    *module
	prefix string // of addresses: "module.api.", "" for the root
	level  int

	// Of a called module: where the call stands and what each and count are there.
	parent  *instance
	call    *block
	at      frame
	copied  copied
	dormant bool

	values map[string]cty.Value
	busy   map[string]bool
	called map[string][]*instance
	copies map[*block][]copied
}

// A frame is the names that only exist in one place: each, count, self, the
// iterators of dynamic blocks.
type frame map[string]cty.Value

func (f frame) with(name string, v cty.Value) frame {
	out := make(frame, len(f)+1)
	for k, v := range f {
		out[k] = v
	}
	out[name] = v
	return out
}

func (r *run) instance(m *module) *instance {
	r.reached[m.dir] = true
	return &instance{run: r, mod: m, values: map[string]cty.Value{}, busy: map[string]bool{}, called: map[string][]*instance{}, copies: map[*block][]copied{}}
}

func (r *run) problem(place code.Place, text string) {
	r.problems = append(r.problems, code.Problem{Place: place, Text: text})
}

// named evaluates a name once. A name that needs itself is unknown.
func (in *instance) named(name string, place code.Place, value func() cty.Value) cty.Value {
	if v, ok := in.values[name]; ok {
		return v
	}
	if in.busy[name] {
		text := in.prefix + name + " depends on itself"
		in.problem(place, text)
		return unknown(cty.DynamicPseudoType, text, place)
	}
	if in.depth >= maxNames {
		return unknown(cty.DynamicPseudoType, fmt.Sprintf("more than %d names depend on each other in a row", maxNames), place)
	}
	in.busy[name] = true
	depth := in.depth
	in.depth++
	v := unknown(cty.DynamicPseudoType, in.prefix+name+" cannot be evaluated", place)
	in.fenced(place, in.prefix+name, func() { v = in.gauge.weigh(value(), place) })
	in.depth = depth
	delete(in.busy, name)
	in.values[name] = v
	return v
}

// fenced runs f. Should hcl or cty panic in it, one thing cannot be evaluated,
// and that is not the end of a server.
func (r *run) fenced(place code.Place, what string, f func()) {
	defer func() {
		if recover() != nil {
			r.problem(place, what+" cannot be evaluated")
		}
	}()
	f()
}

// eval evaluates an argument where the frame's names hold.
func (in *instance) eval(a *arg, f frame) cty.Value {
	ctx := in.ctx.NewChild()
	ctx.Variables = in.variables(a, f)
	v, diags := value(a.expr, ctx)
	if v.IsWhollyKnown() {
		return v
	}
	return because(v, in.cause(a, diags, ctx.Variables))
}

// value evaluates an expression behind a fence: what makes hcl or cty panic
// is not known, and not the end of a server.
func value(e hclsyntax.Expression, ctx *hcl.EvalContext) (v cty.Value, diags hcl.Diagnostics) {
	defer func() {
		if r := recover(); r != nil {
			v, diags = unknown(cty.DynamicPseudoType, "it cannot be evaluated", startOf(e)), nil
		}
	}()
	return e.Value(ctx)
}

// cause is why an expression is not known: what went wrong in it, or what
// is not known of what it refers to.
func (in *instance) cause(a *arg, diags hcl.Diagnostics, vars map[string]cty.Value) reason {
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			place := a.place
			if d.Subject != nil {
				place = placeIn(d.Subject.Filename, a.data, d.Subject.Start)
			}
			return reason{text: fmt.Sprintf("%s at %s", failure(d), place), place: place}
		}
	}
	why := reason{text: "its value is known only when applied", place: a.place}
	first := true
	for _, v := range vars {
		if t := TraceOf(v); t.Reason != "" && (first || t.Reason < why.text) {
			why.text, first = t.Reason, false
		}
	}
	return why
}

// A cause is an error of a function that may be shown: it quotes no value.
type cause struct{ text string }

func (c *cause) Error() string { return c.text }

// failure is what a diagnostic says, without what it quotes of values: those
// may be secret.
func failure(d *hcl.Diagnostic) string {
	if extra, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallUnknownDiagExtra](d); ok {
		return fmt.Sprintf("function %s%s is not known", extra.CalledFunctionNamespace(), extra.CalledFunctionName())
	}
	if extra, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallDiagExtra](d); ok && extra.CalledFunctionName() != "" {
		if c, ok := errors.AsType[*cause](extra.FunctionCallError()); ok {
			return c.text
		}
		return fmt.Sprintf("function %s failed", extra.CalledFunctionName())
	}
	if d.Summary == "Unsupported attribute" {
		return lower(strings.TrimSuffix(d.Detail, "."))
	}
	return lower(d.Summary)
}

// because gives the reason to all that is not known within v and has none.
func because(v cty.Value, why reason) cty.Value {
	raw, marks := v.Unmark()
	if raw.IsKnown() && raw.Type().IsPrimitiveType() {
		return v
	}
	if !raw.IsKnown() {
		for m := range marks.All() {
			if _, ok := m.(reason); ok {
				return v
			}
		}
		return v.Mark(why)
	}
	return remake(raw, func(_ cty.Value, e cty.Value) cty.Value { return because(e, why) }).WithMarks(marks)
}

// remake replaces each element of a known, unmarked object, tuple, list or
// map; other values stay. f must not change the types of elements of lists and maps.
func remake(v cty.Value, f func(key, element cty.Value) cty.Value) cty.Value {
	t := v.Type()
	switch {
	case v.IsNull() || !v.IsKnown():
		return v
	case t.IsObjectType() || t.IsMapType():
		if v.LengthInt() == 0 {
			return v
		}
		out := make(map[string]cty.Value, v.LengthInt())
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			out[k.AsString()] = f(k, e)
		}
		if t.IsMapType() {
			return cty.MapVal(out)
		}
		return cty.ObjectVal(out)
	case t.IsTupleType() || t.IsListType():
		if v.LengthInt() == 0 {
			return v
		}
		out := make([]cty.Value, 0, v.LengthInt())
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			out = append(out, f(k, e))
		}
		if t.IsListType() {
			return cty.ListVal(out)
		}
		return cty.TupleVal(out)
	}
	return v
}

// variables is what the names that an expression refers to stand for. Only
// those are evaluated.
func (in *instance) variables(a *arg, f frame) map[string]cty.Value {
	out := map[string]cty.Value{}
	groups := map[string]map[string]cty.Value{}
	group := func(name string) map[string]cty.Value {
		if groups[name] == nil {
			groups[name] = map[string]cty.Value{}
		}
		return groups[name]
	}
	asked := map[string][]string{} // attributes of resources and modules, by name
	for _, t := range a.refs {
		root := t.RootName()
		if v, ok := f[root]; ok {
			out[root] = v
			continue
		}
		first := attribute(t, 1)
		switch root {
		case "local":
			if first != "" {
				group("local")[first] = in.local(first, a.place)
			}
		case "var":
			if first != "" {
				group("var")[first] = in.variable(first, a.place)
			}
		case "path":
			out["path"] = in.paths()
		case "terraform", "tofu":
			out[root] = cty.ObjectVal(map[string]cty.Value{"workspace": cty.StringVal("default"), "env": cty.StringVal("default"), "applying": cty.False})
		case "each", "count", "self":
			out[root] = unknown(cty.DynamicPseudoType, root+" means nothing here", a.place)
		case "data":
			if second := attribute(t, 2); second != "" {
				asked["data."+first+"."+second] = append(asked["data."+first+"."+second], member(t, 3))
			}
		default: // a resource, or module.name
			if first != "" {
				asked[root+"."+first] = append(asked[root+"."+first], member(t, 2))
			}
		}
	}
	data := map[string]map[string]cty.Value{}
	for name, members := range asked {
		for _, m := range members {
			if m == "" {
				members = append(members, a.hints...)
				break
			}
		}
		parts := strings.SplitN(name, ".", 3)
		switch {
		case parts[0] == "module":
			group("module")[parts[1]] = in.outputsOf(parts[1], members, a.place)
		case len(parts) == 3:
			if data[parts[1]] == nil {
				data[parts[1]] = map[string]cty.Value{}
			}
			data[parts[1]][parts[2]] = in.resource(name, members, a.place)
		default:
			group(parts[0])[parts[1]] = in.resource(name, members, a.place)
		}
	}
	for name, members := range data {
		group("data")[name] = cty.ObjectVal(members)
	}
	for name, members := range groups {
		out[name] = cty.ObjectVal(members)
	}
	return out
}

func attribute(t hcl.Traversal, i int) string {
	if i < len(t) {
		if a, ok := t[i].(hcl.TraverseAttr); ok {
			return a.Name
		}
	}
	return ""
}

// member is the attribute asked of something that may have instances:
// a.b.NAME or a.b["x"].NAME. It is "" for the thing as a whole.
func member(t hcl.Traversal, i int) string {
	if i < len(t) {
		if _, ok := t[i].(hcl.TraverseIndex); ok {
			i++
		}
	}
	return attribute(t, i)
}

// paths is the object `path`. Everything is as seen from the root module's
// folder, where Terraform is run.
func (in *instance) paths() cty.Value {
	return cty.ObjectVal(map[string]cty.Value{
		"module": cty.StringVal(relative(in.root, in.mod.dir)),
		"root":   cty.StringVal("."),
		"cwd":    cty.StringVal("."),
	})
}

// relative is the path from one folder of the tree to another.
func relative(from, to string) string {
	if from == to {
		return "."
	}
	up := ""
	for from != "." && to != from && !strings.HasPrefix(to, from+"/") {
		from = path.Dir(from)
		up += "../"
	}
	switch {
	case from == ".":
		return up + to
	case to == from:
		return strings.TrimSuffix(up, "/")
	}
	return up + strings.TrimPrefix(to, from+"/")
}

func (in *instance) local(name string, from code.Place) cty.Value {
	a := in.mod.locals[name]
	if a == nil {
		return unknown(cty.DynamicPseudoType, "local."+name+" is not defined", from)
	}
	return in.named("local."+name, a.place, func() cty.Value {
		return through("local."+name, a, in.eval(a, nil))
	})
}
