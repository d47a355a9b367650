package terraform

import (
	"strconv"

	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty"
)

// withDefaults fills in the defaults of optional() where a value has none or
// null. typeexpr has the same, and cannot take values with marks. What comes
// out may still want conversion to the type.
func withDefaults(d *typeexpr.Defaults, v cty.Value) cty.Value {
	if d == nil {
		return v
	}
	raw, marks := v.Unmark()
	if !raw.IsKnown() || raw.IsNull() {
		return v
	}
	child := func(name string) *typeexpr.Defaults {
		if c := d.Children[name]; c != nil && (d.Type.IsObjectType() || d.Type.IsTupleType()) {
			return c
		}
		return d.Children[""] // of all elements
	}
	switch t := raw.Type(); {
	case t.IsObjectType() || t.IsMapType():
		out := make(map[string]cty.Value, len(d.DefaultValues)+raw.LengthInt())
		for it := raw.ElementIterator(); it.Next(); {
			k, e := it.Element()
			out[k.AsString()] = withDefaults(child(k.AsString()), e)
		}
		if d.Type.IsObjectType() {
			for name, def := range d.DefaultValues {
				if old, ok := out[name]; !ok || old.IsNull() {
					out[name] = withDefaults(child(name), def)
				}
			}
		}
		return cty.ObjectVal(out).WithMarks(marks)
	case t.IsTupleType() || t.IsListType() || t.IsSetType():
		var out []cty.Value
		for it := raw.ElementIterator(); it.Next(); {
			_, e := it.Element()
			out = append(out, withDefaults(child(strconv.Itoa(len(out))), e))
		}
		return cty.TupleVal(out).WithMarks(marks)
	}
	return v
}
