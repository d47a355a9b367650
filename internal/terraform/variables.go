package terraform

import (
	"fmt"
	"path"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"cairn.dev/cairn/internal/code"
)

// given is a value that a var-file has for a variable.
type given struct{ arg *arg }

// variableFiles returns the files that Terraform reads by itself in the root
// module's folder, in the order in which later ones win.
func variableFiles(paths []string) []string {
	var first, auto []string
	for _, p := range paths {
		switch name := path.Base(p); {
		case name == "terraform.tfvars":
			first = append([]string{p}, first...)
		case name == "terraform.tfvars.json":
			first = append(first, p)
		case strings.HasSuffix(name, ".auto.tfvars"), strings.HasSuffix(name, ".auto.tfvars.json"):
			auto = append(auto, p)
		}
	}
	return append(first, auto...)
}

// readVariables takes what the var-files say, later ones over earlier.
func (r *run) readVariables(files []string) {
	for _, name := range files {
		s, err := r.files.source(name)
		if err != nil {
			r.problem(code.Place{File: name}, err.Error())
			continue
		}
		r.problems = append(r.problems, s.problems...)
		for _, k := range s.keys {
			r.keyed[k.text] = append(r.keyed[k.text], k)
		}
		for _, a := range s.body.args {
			r.given[a.name] = given{arg: a}
		}
	}
}

func (in *instance) variable(name string, from code.Place) cty.Value {
	b := in.mod.variables[name]
	if b == nil {
		return unknown(cty.DynamicPseudoType, "var."+name+" is not declared", from)
	}
	return in.named("var."+name, b.place, func() cty.Value {
		v := in.input(name, b)
		if plainly(b.inside().arg("sensitive"), true) {
			v = v.Mark(secret{})
		}
		return v
	})
}

// plainly reports whether an argument that takes no references has this value. One
// that is neither true nor false has none.
func plainly(a *arg, want bool) bool {
	if a == nil {
		return false
	}
	v, diags := value(a.expr, nil)
	v, _ = v.Unmark()
	if diags.HasErrors() || !v.IsKnown() || v.IsNull() {
		return false
	}
	v, err := convert.Convert(v, cty.Bool)
	return err == nil && v.True() == want
}

// input is what a variable is given: by the call of its module, by a
// var-file, else by default.
func (in *instance) input(name string, b *block) cty.Value {
	typ, defaults := in.typeOf(b)
	finish := func(step string, a *arg, v cty.Value) cty.Value {
		converted, err := convert.Convert(withDefaults(defaults, v), typ)
		if err != nil {
			text := fmt.Sprintf("%s does not fit the type of var.%s", step, name)
			in.problem(a.place, text)
			return unknown(typ, text, a.place)
		}
		return through(step, a, converted)
	}
	var v cty.Value
	var from *arg
	switch {
	case in.call != nil:
		if from = in.call.inside().arg(name); from != nil {
			v = in.parent.eval(from, in.at)
		}
	default:
		if g, ok := in.given[name]; ok {
			from, v = g.arg, in.eval(&arg{name: name, expr: g.arg.expr, place: g.arg.place, data: g.arg.data}, nil)
		}
	}
	def := b.inside().arg("default")
	if from != nil && (!v.IsNull() || def == nil || !plainly(b.inside().arg("nullable"), false)) {
		return finish("var."+name, from, v)
	}
	if def == nil {
		return unknown(typ, fmt.Sprintf("value not in the repository: var.%s has no default", name), b.place)
	}
	return finish("var."+name, def, in.eval(def, nil))
}

// typeOf reads a variable's type; what is no type fits everything.
func (in *instance) typeOf(b *block) (cty.Type, *typeexpr.Defaults) {
	a := b.inside().arg("type")
	if a == nil {
		return cty.DynamicPseudoType, nil
	}
	typ, defaults, diags := typeOf(a.expr)
	if diags.HasErrors() {
		return cty.DynamicPseudoType, nil
	}
	return typ, defaults
}

func typeOf(e hclsyntax.Expression) (typ cty.Type, defaults *typeexpr.Defaults, diags hcl.Diagnostics) {
	defer func() {
		if r := recover(); r != nil {
			diags = hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Invalid type"}}
		}
	}()
	typ, defaults, diags = typeexpr.TypeConstraintWithDefaults(e)
	return typ.WithoutOptionalAttributesDeep(), defaults, diags
}
