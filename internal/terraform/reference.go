package terraform

import (
	"fmt"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"cairn.dev/cairn/internal/code"
)

// resource is what a reference to a resource means: an object of the members
// that are asked for, or as many of those as it has instances. "" among them
// asks for everything that is written.
func (in *instance) resource(name string, members []string, from code.Place) cty.Value {
	b := in.mod.byName[name]
	if b == nil {
		return unknown(cty.DynamicPseudoType, name+" is not defined", from)
	}
	whole := slices.Contains(members, "")
	key := name
	if !whole {
		members = slices.Compact(slices.Sorted(slices.Values(members)))
		key += "#" + strings.Join(members, ",")
	}
	return in.named(key, b.place, func() cty.Value {
		return in.together(in.expand(b), name, b, func(c copied) cty.Value {
			return in.partOf(name, b, c, members, whole)
		})
	})
}

// together puts the values of instances together as references see them.
func (in *instance) together(copies []copied, name string, b *block, value func(copied) cty.Value) cty.Value {
	if len(copies) == 1 && copies[0].key == "" {
		return value(copies[0])
	}
	if len(copies) == 1 && copies[0].all {
		switch {
		case !copies[0].dormant:
			return unknown(cty.DynamicPseudoType, "the instances of "+name+" are not known", b.place)
		case b.inside().arg("count") != nil:
			return cty.EmptyTupleVal
		}
		return cty.EmptyObjectVal
	}
	if b.inside().arg("count") != nil {
		list := make([]cty.Value, len(copies))
		for i, c := range copies {
			list[i] = value(c)
		}
		return cty.TupleVal(list)
	}
	object := make(map[string]cty.Value, len(copies))
	for _, c := range copies {
		k, _ := Text(c.value)
		object[k] = value(c)
	}
	return cty.ObjectVal(object)
}

// partOf evaluates the members of one instance. What is not written is the
// provider's to say.
func (in *instance) partOf(name string, b *block, c copied, members []string, whole bool) cty.Value {
	v, _ := in.body(b.inside(), c.frame, func(s string) bool {
		return notMeta(s) && (whole || slices.Contains(members, s) || slices.Contains(members, echo(b.label(0), s)))
	})
	written := v.AsValueMap()
	out := make(map[string]cty.Value, len(members))
	for k, e := range written {
		out[k] = e
		if a := b.inside().arg(k); a != nil {
			out[k] = through(name+"."+k, a, e)
		}
	}
	in.rendered(name, b, c, members, out)
	for _, m := range members {
		if _, ok := out[m]; ok || m == "" {
			continue
		}
		out[m] = unknown(cty.DynamicPseudoType, fmt.Sprintf("%s.%s is known only when applied", name, m), b.place)
		for k := range written {
			if echo(b.label(0), k) == m {
				out[m] = out[k]
			}
		}
	}
	return cty.ObjectVal(out)
}

// rendered is what the provider computes of a template: no more than the
// function does that came after it.
func (in *instance) rendered(name string, b *block, c copied, members []string, out map[string]cty.Value) {
	a := b.inside().arg("template")
	if b.typ != "data" || b.label(0) != "template_file" || a == nil || !slices.Contains(members, "rendered") {
		return
	}
	vars := cty.EmptyObjectVal
	if v := b.inside().arg("vars"); v != nil {
		vars = in.eval(v, c.frame)
	}
	if v, err := in.templateText(in.eval(a, c.frame), vars); err == nil {
		out["rendered"] = through(name+".rendered", a, v)
	}
}

// echo is the computed attribute that says what the argument says: the image
// that docker_image pulls is the one whose name it was given.
func echo(typ, argument string) string {
	switch typ + "." + argument {
	case "docker_image.name":
		return "image_id"
	case "terraform_data.input":
		return "output"
	case "null_data_source.inputs":
		return "outputs"
	}
	return ""
}

// outputsOf is what module.NAME means.
func (in *instance) outputsOf(name string, members []string, from code.Place) cty.Value {
	b := in.mod.byName["module."+name]
	if b == nil {
		return unknown(cty.DynamicPseudoType, "module."+name+" is not defined", from)
	}
	whole := slices.Contains(members, "")
	m, why := in.moduleOf(b)
	if m == nil {
		return unknown(cty.DynamicPseudoType, why, b.place)
	}
	if whole {
		for output := range m.outputs {
			members = append(members, output)
		}
	}
	members = slices.Compact(slices.Sorted(slices.Values(members)))
	children := in.children(b, m)
	at := map[string]*instance{}
	copies := make([]copied, len(children))
	for i, child := range children {
		copies[i] = child.copied
		at[child.copied.key] = child
	}
	return in.together(copies, "module."+name, b, func(c copied) cty.Value {
		out := map[string]cty.Value{}
		for _, member := range members {
			if member != "" {
				out[member] = at[c.key].output(name, member, from)
			}
		}
		return cty.ObjectVal(out)
	})
}

// output evaluates an output of a called module.
func (in *instance) output(call, name string, from code.Place) cty.Value {
	b := in.mod.outputs[name]
	if b == nil || b.inside().arg("value") == nil {
		return unknown(cty.DynamicPseudoType, fmt.Sprintf("module.%s has no output %s", call, name), from)
	}
	a := b.inside().arg("value")
	return in.named("output."+name, b.place, func() cty.Value {
		v := through(fmt.Sprintf("module.%s.%s", call, name), a, in.eval(a, nil))
		if plainly(b.inside().arg("sensitive"), true) {
			v = v.Mark(secret{})
		}
		return v
	})
}

// moduleOf finds the module that a call names; without one, why there is none.
func (in *instance) moduleOf(b *block) (*module, string) {
	a := b.inside().arg("source")
	if a == nil {
		return nil, fmt.Sprintf("module.%s has no source", b.label(0))
	}
	v := in.eval(a, nil)
	source, ok := Text(v)
	switch {
	case !ok:
		return nil, fmt.Sprintf("the source of module.%s is not known", b.label(0))
	case !isLocal(source):
		if TraceOf(v).Secret || strings.Contains(source, "@") {
			source = "of module." + b.label(0) // it may have a password in it
		}
		return nil, fmt.Sprintf("module source %s is not in the repository", source)
	}
	dir, err := in.files.resolve(in.mod.dir, source)
	if err != nil {
		return nil, fmt.Sprintf("module source %s leads out of the repository", source)
	}
	if in.level >= maxCalls {
		return nil, fmt.Sprintf("modules are more than %d deep", maxCalls)
	}
	for up := in; up != nil; up = up.parent {
		if up.mod.dir == dir {
			return nil, fmt.Sprintf("module.%s calls the module that it is in", b.label(0))
		}
	}
	m := in.files.module(dir)
	if m == nil {
		return nil, fmt.Sprintf("module source %s is not in the repository", source)
	}
	return m, ""
}

// isLocal reports whether a source is a path, by Terraform's rule: it begins
// with ./ or ../.
func isLocal(source string) bool {
	return strings.HasPrefix(source, "./") || strings.HasPrefix(source, "../") || source == "." || source == ".."
}

// children makes the instances of a module call, once.
func (in *instance) children(b *block, m *module) []*instance {
	name := "module." + b.label(0)
	if list, ok := in.called[name]; ok {
		return list
	}
	if in.busy[name] {
		in.problem(b.place, in.prefix+name+" depends on itself")
		return nil
	}
	in.busy[name] = true
	defer delete(in.busy, name)
	var list []*instance
	for _, c := range in.expand(b) {
		child := in.instance(m)
		child.prefix = in.prefix + name + c.key + "."
		child.level = in.level + 1
		child.parent, child.call, child.at, child.copied = in, b, c.frame, c
		child.dormant = in.dormant || c.dormant
		list = append(list, child)
	}
	in.called[name] = list
	return list
}

// everything evaluates the resources of this instance and of all modules that
// it calls and that may have some.
func (in *instance) everything() {
	in.resources()
	for _, b := range in.mod.calls {
		m, why := in.moduleOf(b)
		if m == nil {
			if source, ok := sourceOf(b); ok && isLocal(source) {
				in.problem(b.place, why)
			}
			continue
		}
		if !in.files.needed(m.dir) {
			continue
		}
		for _, child := range in.children(b, m) {
			child.everything()
		}
	}
}

func sourceOf(b *block) (string, bool) {
	a := b.inside().arg("source")
	if a == nil {
		return "", false
	}
	v, _ := value(a.expr, nil)
	return Text(v)
}
