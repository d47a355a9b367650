package terraform

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// A copied block is one of the instances that count or for_each make of it.
type copied struct {
	key     string    // of addresses: "", "[0]", `["a"]`, "[*]"
	value   cty.Value // each.key or count.index
	frame   frame
	dormant bool
	all     bool // the instances are not known, or none: this one stands for all
}

// expand makes the instances of a resource or a module call, once. Where they
// are not known, or there are none, one stands for all: what is written in it
// is read all the same.
func (in *instance) expand(b *block) []copied {
	list, ok := in.copies[b]
	if !ok {
		list = in.instances(b)
		list = list[:in.take(len(list), b)]
		in.copies[b] = list
	}
	return list
}

// take counts instances, and gives fewer when there are too many.
func (in *instance) take(n int, b *block) int {
	if n > maxCopies {
		n = maxCopies
		in.problem(b.place, fmt.Sprintf("there are more than %d instances of it: the rest is not looked at", maxCopies))
	}
	if left := max(maxInstances-in.made, 0); n > left {
		n = left
		if !in.full {
			in.problem(b.place, fmt.Sprintf("the root module has more than %d instances of resources and modules: the rest is not looked at", maxInstances))
		}
		in.full = true
	}
	in.made += n
	return n
}

func (in *instance) instances(b *block) []copied {
	count, each := b.inside().arg("count"), b.inside().arg("for_each")
	switch {
	case count != nil:
		return in.count(count)
	case each != nil:
		return in.forEach(each)
	}
	return []copied{{}}
}

func (in *instance) count(a *arg) []copied {
	v := in.eval(a, nil)
	why := TraceOf(v).Reason
	raw, _ := v.Unmark()
	number, err := convert.Convert(raw, cty.Number)
	n := 0
	switch {
	case why != "" || err != nil || number.IsNull() || !number.IsKnown():
		return []copied{star("count", "index", why, a)}
	default:
		i, _ := number.AsBigFloat().Int64()
		n = int(min(max(i, 0), maxCopies+1))
	}
	if n == 0 {
		c := star("count", "index", "there are none of it", a)
		c.dormant = true
		return []copied{c}
	}
	out := make([]copied, n)
	for i := range out {
		index := cty.NumberIntVal(int64(i))
		out[i] = copied{key: "[" + strconv.Itoa(i) + "]", value: index, frame: frame{"count": cty.ObjectVal(map[string]cty.Value{"index": index})}}
	}
	return out
}

// star is the instance that stands for all.
func star(object, attribute, why string, a *arg) copied {
	if why == "" {
		why = object + " is not known"
	}
	members := map[string]cty.Value{attribute: unknown(cty.DynamicPseudoType, why, a.place)}
	if object == "each" {
		members["key"] = unknown(cty.String, why, a.place)
	}
	return copied{key: "[*]", all: true, frame: frame{object: cty.ObjectVal(members)}}
}

func (in *instance) forEach(a *arg) []copied {
	v := in.eval(a, nil)
	raw, marks := v.Unmark()
	if !raw.IsKnown() || raw.IsNull() || !raw.CanIterateElements() || raw.Type().IsListType() || raw.Type().IsTupleType() {
		why := TraceOf(v).Reason
		if why == "" {
			why = "for_each wants a map or a set of strings"
		}
		return []copied{star("each", "value", why, a)}
	}
	if raw.LengthInt() == 0 {
		c := star("each", "value", "there are none of it", a)
		c.dormant = true
		return []copied{c}
	}
	out := make([]copied, 0, raw.LengthInt())
	for it := raw.ElementIterator(); it.Next(); {
		k, e := it.Element()
		if raw.Type().IsSetType() {
			k = e
		}
		key, value, name := in.element(k, e, marks, raw.Type().IsSetType())
		out = append(out, copied{
			key: "[" + strconv.Quote(name) + "]", value: key,
			frame: frame{"each": cty.ObjectVal(map[string]cty.Value{"key": key, "value": value})},
		})
	}
	return out
}

// element marks the key and the value of one turn of for_each. Keys lose
// their origin in objects and sets; they get those back that say the same.
func (in *instance) element(k, e cty.Value, marks cty.ValueMarks, set bool) (key, value cty.Value, name string) {
	name, _ = Text(k)
	key, _ = k.Unmark()
	var same, rest []any
	for m := range marks.All() {
		if o, ok := m.(origin); ok && o.literal.text == name {
			same = append(same, m)
		} else {
			rest = append(rest, m)
		}
	}
	for _, l := range in.keysOf(name) {
		same = append(same, origin{literal: l})
	}
	if len(same) == 0 {
		same = rest
	}
	key = key.WithMarks(cty.NewValueMarks(same...))
	if set {
		return key, key, name
	}
	return key, e.WithMarks(marks), name
}

// keysOf are the keys of objects that say the name: in this module, in those
// that call it and hand it their values, and in var-files.
func (in *instance) keysOf(name string) []*literal {
	found := slices.Clone(in.keyed[name])
	for up := in; up != nil; up = up.parent {
		found = append(found, up.mod.keyed[name]...)
	}
	return found[:min(len(found), maxOrigins)]
}

// resources evaluates the instances of all resources that are wanted.
func (in *instance) resources() {
	for _, b := range in.mod.resources {
		if !in.wanted[b.label(0)] {
			continue
		}
		for _, c := range in.expand(b) {
			done := in.gauge.slice()
			in.fenced(b.place, in.prefix+b.label(0)+"."+b.label(1), func() { in.emit(in.resourceOf(b, c)) })
			done()
		}
	}
}

func (in *instance) resourceOf(b *block, c copied) Resource {
	r := Resource{
		Address: in.prefix, Mode: Managed, Type: b.label(0), Name: b.label(1),
		Dir: in.root, Module: in.mod.dir, Environment: in.environment,
		Dormant: in.dormant || c.dormant, place: b.place,
	}
	if b.typ == "data" {
		r.Mode = Data
		r.Address += "data."
	}
	r.Address += r.Type + "." + r.Name + c.key
	r.Body, r.layout = in.body(b.inside(), c.frame, notMeta)
	return r
}

// notMeta reports whether a name in a resource is the provider's and not
// Terraform's own.
func notMeta(name string) bool {
	return !slices.Contains([]string{"count", "for_each", "depends_on", "provider", "lifecycle", "provisioner", "connection"}, name)
}

// body evaluates what keep wants of a body.
func (in *instance) body(b *body, f frame, keep func(string) bool) (cty.Value, *layout) {
	values := map[string]cty.Value{}
	l := &layout{args: map[string]*layout{}, blocks: map[string][]*layout{}}
	for _, a := range b.args {
		if keep(a.name) {
			values[a.name] = in.eval(a, f)
			l.args[a.name] = &layout{place: a.place, expr: a.expr, data: a.data}
		}
	}
	nested := map[string][]cty.Value{}
	add := func(k *block, content *body, f frame) {
		v, inner := in.body(content, f, all)
		inner.place = k.place
		nested[k.nested()] = append(nested[k.nested()], v)
		l.blocks[k.nested()] = append(l.blocks[k.nested()], inner)
	}
	for _, k := range b.blocks {
		switch {
		case !keep(k.nested()):
		case k.typ == "dynamic":
			in.dynamic(k, f, add)
		default:
			add(k, k.inside(), f)
		}
	}
	for name, list := range nested {
		values[name] = cty.TupleVal(list)
	}
	return cty.ObjectVal(values), l
}

func all(string) bool { return true }

// dynamic makes the blocks of a `dynamic` one: one for each element; one that
// stands for all when they are not known.
func (in *instance) dynamic(k *block, f frame, add func(*block, *body, frame)) {
	each := k.inside().arg("for_each")
	i := slices.IndexFunc(k.inside().blocks, func(b *block) bool { return b.typ == "content" })
	if each == nil || i < 0 {
		return
	}
	content := k.inside().blocks[i].inside()
	iterator := k.label(0)
	if a := k.inside().arg("iterator"); a != nil {
		if name := hcl.ExprAsKeyword(a.expr); name != "" {
			iterator = name
		}
	}
	v := in.eval(each, f)
	raw, marks := v.Unmark()
	if !raw.IsKnown() || raw.IsNull() || !raw.CanIterateElements() {
		why := TraceOf(v).Reason
		if why == "" {
			why = "for_each wants a collection"
		}
		something := unknown(cty.DynamicPseudoType, why, each.place)
		add(k, content, f.with(iterator, cty.ObjectVal(map[string]cty.Value{"key": something, "value": something})))
		return
	}
	for it := raw.ElementIterator(); it.Next() && in.gauge.spend(1); {
		key, e := it.Element()
		if raw.Type().IsSetType() {
			key = e
		}
		if key.Type() == cty.String {
			key, e, _ = in.element(key, e, marks, raw.Type().IsSetType())
		} else {
			e = e.WithMarks(marks)
		}
		add(k, content, f.with(iterator, cty.ObjectVal(map[string]cty.Value{"key": key, "value": e})))
	}
}
