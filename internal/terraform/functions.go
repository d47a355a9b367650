package terraform

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// functions is the table of Terraform's functions for one root module. Each
// is metered: what it is given is weighed before it is called, and what it
// returns after.
func (r *run) functions() map[string]function.Function {
	table := plainFunctions()
	maps.Copy(table, textFunctions())
	maps.Copy(table, collectionFunctions())
	maps.Copy(table, encodingFunctions())
	maps.Copy(table, hashFunctions())
	maps.Copy(table, addressFunctions())
	maps.Copy(table, r.fileFunctions())
	out := make(map[string]function.Function, 2*len(table))
	for name, f := range table {
		f = r.metered(name, f)
		out[name], out["core::"+name] = f, f
	}
	// These take expressions and not values.
	for name, f := range map[string]function.Function{"try": tryFunction(), "can": canFunction()} {
		out[name], out["core::"+name] = f, f
	}
	return out
}

// metered puts a function under the gauge. It takes whatever it is given,
// marks and unknown values and all, and leaves it to the function within to
// deal with them.
func (r *run) metered(name string, f function.Function) function.Function {
	params := f.Params()
	for i := range params {
		open(&params[i])
	}
	rest := f.VarParam()
	if rest != nil {
		open(rest)
	}
	return function.New(&function.Spec{
		Params: params, VarParam: rest,
		Type: function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if err := r.afford(name, args); err != nil {
				return cty.NilVal, err
			}
			v, err := f.Call(args)
			if err != nil {
				return cty.NilVal, err
			}
			if w := (weight{nodes: maxNodes, bytes: maxBytes}); !w.add(v) {
				return cty.NilVal, &cause{fmt.Sprintf("what function %s returns is too large", name)}
			}
			return v, nil
		},
	})
}

func open(p *function.Parameter) {
	p.AllowNull, p.AllowUnknown, p.AllowDynamicType, p.AllowMarked = true, true, true, true
}

// afford refuses calls whose arguments or results would be too large, and
// spends their work.
func (r *run) afford(name string, args []cty.Value) error {
	if picks(name) {
		if !r.gauge.spend(turn) {
			return &cause{"evaluating the module takes too much work"}
		}
		return nil
	}
	w := weight{nodes: maxNodes, bytes: maxBytes}
	for _, a := range args {
		if !w.add(a) {
			return &cause{fmt.Sprintf("what function %s is given is too large", name)}
		}
	}
	nodes, bytes := maxNodes-w.nodes, maxBytes-w.bytes
	work, result := nodes+bytes/64, 0
	switch name {
	case "distinct", "compact", "matchkeys", "setsubtract", "setunion", "setintersection", "transpose":
		work += nodes * nodes / 16 // they compare each with each
	case "join", "concat", "merge", "flatten", "format", "jsonencode", "yamlencode":
		result = bytes
	case "setproduct", "chunklist":
		result = product(args)
	case "replace":
		result = replaced(args)
	case "indent":
		result = indented(args)
	}
	if result > maxBytes {
		return &cause{fmt.Sprintf("what function %s returns is too large", name)}
	}
	if (name == "format" || name == "formatlist") && wide(args) {
		return &cause{fmt.Sprintf("function %s is asked for too many digits", name)}
	}
	if !r.gauge.spend(work + result/64) {
		return &cause{"evaluating the module takes too much work"}
	}
	return nil
}

// picks reports whether a function returns one of the things it is given, or
// says how many there are. Those are called for every resource of large
// modules with the module's largest tables, and do not look at all of them.
func picks(name string) bool {
	return slices.Contains([]string{"lookup", "element", "coalesce", "length", "one"}, name)
}

// product is how many values the product of collections has.
func product(args []cty.Value) int {
	n := 1
	for _, a := range args {
		a, _ = a.Unmark()
		if a.IsKnown() && !a.IsNull() && a.CanIterateElements() {
			n = min(n*max(a.LengthInt(), 1), maxBytes+1)
		}
	}
	return n * 64 // a value is not a byte
}

// replaced bounds how long a text becomes when each match is replaced.
func replaced(args []cty.Value) int {
	if len(args) != 3 {
		return 0
	}
	text, _ := Text(args[0])
	old, _ := Text(args[1])
	with, _ := Text(args[2])
	matches := len(text) + 1
	if old != "" && !isPattern(old) {
		matches = strings.Count(text, old)
	} else {
		// Each $1 may be the whole text.
		return min(matches, maxBytes) * (len(with) + strings.Count(with, "$")*min(len(text), 64))
	}
	return matches * len(with)
}

func indented(args []cty.Value) int {
	if len(args) != 2 {
		return 0
	}
	n, _ := args[0].Unmark()
	text, _ := Text(args[1])
	if n.Type() != cty.Number || !n.IsKnown() || n.IsNull() {
		return 0
	}
	i, _ := n.AsBigFloat().Int64()
	return strings.Count(text, "\n") * int(min(max(i, 0), maxBytes+1))
}

var (
	wideVerb   = regexp.MustCompile(`%[^a-zA-Z%]*[0-9]{4}`)
	longNumber = regexp.MustCompile(`^[-+0-9.]+[eE][-+]?[0-9]{4}`)
)

// wide reports whether a format asks for a width of thousands, or a string
// among the arguments is a number with thousands of digits.
func wide(args []cty.Value) bool {
	for i, a := range args {
		text, _ := Text(a)
		if i == 0 && wideVerb.MatchString(text) {
			return true
		}
		if i > 0 && len(text) < 64 && longNumber.MatchString(text) {
			return true
		}
	}
	return false
}

// plainFunctions are those that cty has under the same meaning.
func plainFunctions() map[string]function.Function {
	return map[string]function.Function{
		"abs": stdlib.AbsoluteFunc, "ceil": stdlib.CeilFunc, "floor": stdlib.FloorFunc, "log": stdlib.LogFunc,
		"max": stdlib.MaxFunc, "min": stdlib.MinFunc, "parseint": stdlib.ParseIntFunc, "pow": stdlib.PowFunc, "signum": stdlib.SignumFunc,
		"chomp": stdlib.ChompFunc, "format": stdlib.FormatFunc, "formatlist": stdlib.FormatListFunc, "indent": stdlib.IndentFunc,
		"join": stdlib.JoinFunc, "lower": stdlib.LowerFunc, "regex": stdlib.RegexFunc, "regexall": stdlib.RegexAllFunc,
		"split": stdlib.SplitFunc, "strrev": stdlib.ReverseFunc, "substr": stdlib.SubstrFunc, "title": stdlib.TitleFunc,
		"trim": stdlib.TrimFunc, "trimprefix": stdlib.TrimPrefixFunc, "trimsuffix": stdlib.TrimSuffixFunc,
		"trimspace": stdlib.TrimSpaceFunc, "upper": stdlib.UpperFunc,
		"chunklist": stdlib.ChunklistFunc, "coalescelist": stdlib.CoalesceListFunc, "compact": stdlib.CompactFunc,
		"concat": stdlib.ConcatFunc, "contains": stdlib.ContainsFunc, "distinct": stdlib.DistinctFunc, "element": stdlib.ElementFunc,
		"flatten": stdlib.FlattenFunc, "keys": stdlib.KeysFunc, "merge": stdlib.MergeFunc, "range": stdlib.RangeFunc,
		"reverse": stdlib.ReverseListFunc, "setintersection": stdlib.SetIntersectionFunc, "setproduct": stdlib.SetProductFunc,
		"setsubtract": stdlib.SetSubtractFunc, "setunion": stdlib.SetUnionFunc, "slice": stdlib.SliceFunc, "sort": stdlib.SortFunc,
		"values": stdlib.ValuesFunc, "zipmap": stdlib.ZipmapFunc,
		"formatdate": stdlib.FormatDateFunc, "timeadd": stdlib.TimeAddFunc,
		"tostring": stdlib.MakeToFunc(cty.String), "tonumber": stdlib.MakeToFunc(cty.Number), "tobool": stdlib.MakeToFunc(cty.Bool),
		"tolist": stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)), "toset": stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)),
		"tomap": stdlib.MakeToFunc(cty.Map(cty.DynamicPseudoType)),

		"timestamp": applied("timestamp"), "plantimestamp": applied("plantimestamp"), "uuid": applied("uuid"),
		"bcrypt": applied("bcrypt"), "rsadecrypt": applied("rsadecrypt"), "ephemeralasnull": applied("ephemeralasnull"),
		"sensitive": function.New(&function.Spec{
			Params: []function.Parameter{anything("value")}, Type: typeOfFirst,
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return args[0].Mark(secret{}), nil },
		}),
		"nonsensitive": function.New(&function.Spec{
			Params: []function.Parameter{anything("value")}, Type: typeOfFirst,
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return public(args[0]), nil },
		}),
		"issensitive": function.New(&function.Spec{
			Params: []function.Parameter{anything("value")}, Type: function.StaticReturnType(cty.Bool),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				return cty.BoolVal(args[0].HasMark(secret{})), nil
			},
		}),
	}
}

func public(v cty.Value) cty.Value {
	v, marks := v.Unmark()
	kept := make([]any, 0, len(marks))
	for m := range marks.All() {
		if m != (secret{}) {
			kept = append(kept, m)
		}
	}
	return v.WithMarks(cty.NewValueMarks(kept...))
}

// anything is a parameter that takes every value as it is.
func anything(name string) function.Parameter {
	p := function.Parameter{Name: name, Type: cty.DynamicPseudoType}
	open(&p)
	return p
}

func typeOfFirst(args []cty.Value) (cty.Type, error) { return args[0].Type(), nil }

// applied is a function whose result nobody knows before it is run.
func applied(name string) function.Function {
	rest := anything("arguments")
	return function.New(&function.Spec{
		VarParam: &rest, Type: function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func([]cty.Value, cty.Type) (cty.Value, error) {
			return cty.DynamicVal.Mark(reason{text: name + "() is known only when applied"}), nil
		},
	})
}

func str(name string) function.Parameter { return function.Parameter{Name: name, Type: cty.String} }

// ofText is a function from strings to a string.
func ofText(f func(args []string) (string, error), names ...string) function.Function {
	return of(cty.String, func(args []cty.Value) (cty.Value, error) {
		texts := make([]string, len(args))
		for i, a := range args {
			texts[i] = a.AsString()
		}
		s, err := f(texts)
		return cty.StringVal(s), err
	}, strs(names)...)
}

func strs(names []string) []function.Parameter {
	params := make([]function.Parameter, len(names))
	for i, n := range names {
		params[i] = str(n)
	}
	return params
}

// of is a function of a fixed type.
func of(t cty.Type, f func(args []cty.Value) (cty.Value, error), params ...function.Parameter) function.Function {
	return function.New(&function.Spec{
		Params: params, Type: function.StaticReturnType(t),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return f(args) },
	})
}

// test is a function from two strings to a truth.
func test(f func(a, b string) bool) function.Function {
	return of(cty.Bool, func(args []cty.Value) (cty.Value, error) {
		return cty.BoolVal(f(args[0].AsString(), args[1].AsString())), nil
	}, str("text"), str("what"))
}

func textFunctions() map[string]function.Function {
	return map[string]function.Function{
		"timecmp": of(cty.Number, func(args []cty.Value) (cty.Value, error) {
			a, errA := time.Parse(time.RFC3339, args[0].AsString())
			b, errB := time.Parse(time.RFC3339, args[1].AsString())
			if errA != nil || errB != nil {
				return cty.NilVal, &cause{"function timecmp wants two times, 2006-01-02T15:04:05Z"}
			}
			return cty.NumberIntVal(int64(a.Compare(b))), nil
		}, str("a"), str("b")),
		"startswith":  test(strings.HasPrefix),
		"endswith":    test(strings.HasSuffix),
		"strcontains": test(strings.Contains),
		"replace": ofText(func(a []string) (string, error) {
			if !isPattern(a[1]) {
				return strings.ReplaceAll(a[0], a[1], a[2]), nil
			}
			re, err := regexp.Compile(a[1][1 : len(a[1])-1])
			if err != nil {
				return "", &cause{"function replace: its pattern is not a regular expression"}
			}
			return re.ReplaceAllString(a[0], a[2]), nil
		}, "text", "what", "with"),
	}
}

// isPattern reports whether replace is given a regular expression: one
// between slashes.
func isPattern(s string) bool {
	return len(s) > 1 && strings.HasPrefix(s, "/") && strings.HasSuffix(s, "/")
}

func collectionFunctions() map[string]function.Function {
	rest := anything("values")
	return map[string]function.Function{
		"length": of(cty.Number, length, function.Parameter{Name: "value", Type: cty.DynamicPseudoType, AllowDynamicType: true, AllowUnknown: true}),
		"coalesce": function.New(&function.Spec{
			VarParam: &rest, Type: function.StaticReturnType(cty.DynamicPseudoType),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return coalesce(args) },
		}),
		"lookup": function.New(&function.Spec{
			Params: []function.Parameter{anything("map"), anything("key")}, VarParam: &rest,
			Type: function.StaticReturnType(cty.DynamicPseudoType),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return lookup(args) },
		}),
		"one": of(cty.DynamicPseudoType, func(args []cty.Value) (cty.Value, error) {
			list := args[0].AsValueSlice()
			switch len(list) {
			case 0:
				return cty.NullVal(cty.DynamicPseudoType), nil
			case 1:
				return list[0], nil
			}
			return cty.NilVal, &cause{"function one is given more than one element"}
		}, function.Parameter{Name: "list", Type: cty.DynamicPseudoType}),
		"index": of(cty.Number, func(args []cty.Value) (cty.Value, error) {
			if args[0].CanIterateElements() {
				for i, e := range args[0].AsValueSlice() {
					if eq := e.Equals(args[1]); eq.IsKnown() && eq.True() {
						return cty.NumberIntVal(int64(i)), nil
					}
				}
			}
			return cty.NilVal, &cause{"function index does not find the element"}
		}, function.Parameter{Name: "list", Type: cty.DynamicPseudoType}, function.Parameter{Name: "value", Type: cty.DynamicPseudoType}),
		"alltrue":   of(cty.Bool, func(args []cty.Value) (cty.Value, error) { return cty.BoolVal(!has(args[0], cty.False)), nil }, listOf(cty.Bool)),
		"anytrue":   of(cty.Bool, func(args []cty.Value) (cty.Value, error) { return cty.BoolVal(has(args[0], cty.True)), nil }, listOf(cty.Bool)),
		"sum":       of(cty.Number, sum, listOf(cty.Number)),
		"matchkeys": of(cty.DynamicPseudoType, matchKeys, listOf(cty.DynamicPseudoType), listOf(cty.DynamicPseudoType), listOf(cty.DynamicPseudoType)),
		"transpose": of(cty.Map(cty.List(cty.String)), transpose, function.Parameter{Name: "map", Type: cty.Map(cty.List(cty.String))}),
	}
}

func listOf(t cty.Type) function.Parameter {
	return function.Parameter{Name: "list", Type: cty.List(t)}
}

func has(list, what cty.Value) bool {
	return slices.ContainsFunc(list.AsValueSlice(), func(e cty.Value) bool { return !e.IsNull() && e.IsKnown() && e.RawEquals(what) })
}

func length(args []cty.Value) (cty.Value, error) {
	v := args[0]
	switch {
	case v.Type() == cty.DynamicPseudoType:
		return cty.UnknownVal(cty.Number), nil
	case v.Type() == cty.String:
		return stdlib.Strlen(v)
	case v.Type().IsObjectType():
		return cty.NumberIntVal(int64(len(v.Type().AttributeTypes()))), nil
	case v.Type().IsTupleType():
		return cty.NumberIntVal(int64(v.Type().Length())), nil
	case v.Type().IsCollectionType():
		return v.Length(), nil
	}
	return cty.NilVal, &cause{"function length wants a collection or a string"}
}

// coalesce is the first argument that is neither null nor "", which is where
// Terraform differs from cty.
func coalesce(args []cty.Value) (cty.Value, error) {
	for _, a := range args {
		if !a.IsKnown() {
			return a, nil
		}
		if s, ok := Text(a); !a.IsNull() && (!ok || s != "") {
			return a, nil
		}
	}
	return cty.NilVal, &cause{"function coalesce is given nothing that is not empty"}
}

// lookup differs from cty's in that an element that is not known does not
// make the others so.
func lookup(args []cty.Value) (cty.Value, error) {
	object, marks := args[0].Unmark()
	key, keyMarks := args[1].Unmark()
	var def cty.Value
	if len(args) > 2 {
		def = args[2]
	}
	t := object.Type()
	if !object.IsKnown() || !key.IsKnown() {
		return cty.DynamicVal.WithMarks(marks, keyMarks), nil
	}
	key, err := convert.Convert(key, cty.String)
	if err != nil || key.IsNull() || object.IsNull() || !t.IsObjectType() && !t.IsMapType() {
		return cty.NilVal, &cause{"function lookup wants a map and a key"}
	}
	name := key.AsString()
	switch {
	case t.IsObjectType() && t.HasAttribute(name):
		return object.GetAttr(name).WithMarks(marks, keyMarks), nil
	case t.IsMapType() && object.HasIndex(key).True():
		return object.Index(key).WithMarks(marks, keyMarks), nil
	case len(args) > 2:
		return def.WithMarks(keyMarks), nil
	}
	return cty.NilVal, &cause{"function lookup does not find the key, and has no default"}
}

func sum(args []cty.Value) (cty.Value, error) {
	total := cty.Zero
	for _, e := range args[0].AsValueSlice() {
		if e.IsNull() {
			return cty.NilVal, &cause{"function sum is given null"}
		}
		total = total.Add(e)
	}
	return total, nil
}

// matchKeys keeps the values whose key, at the same place, is among those searched.
func matchKeys(args []cty.Value) (cty.Value, error) {
	values, keys := args[0].AsValueSlice(), args[1].AsValueSlice()
	if len(values) != len(keys) {
		return cty.NilVal, &cause{"function matchkeys wants as many keys as values"}
	}
	var out []cty.Value
	for i, v := range values {
		if has(args[2], keys[i]) {
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		return cty.ListValEmpty(args[0].Type().ElementType()), nil
	}
	return cty.ListVal(out), nil
}

// transpose turns a map of lists around: elements become keys.
func transpose(args []cty.Value) (cty.Value, error) {
	by := map[string][]cty.Value{}
	for it := args[0].ElementIterator(); it.Next(); {
		k, list := it.Element()
		if list.IsNull() || !list.IsKnown() {
			continue
		}
		for _, e := range list.AsValueSlice() {
			if s, ok := Text(e); ok {
				by[s] = append(by[s], k)
			}
		}
	}
	if len(by) == 0 {
		return cty.MapValEmpty(cty.List(cty.String)), nil
	}
	out := make(map[string]cty.Value, len(by))
	for k, list := range by {
		out[k] = cty.ListVal(list)
	}
	return cty.MapVal(out), nil
}
