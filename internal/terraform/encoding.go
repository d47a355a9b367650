package terraform

import (
	"encoding/base64"
	"net/url"
	"strings"
	"unicode/utf8"

	ctyyaml "github.com/zclconf/go-cty-yaml"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// hole stands in texts where a part of them is not known: in what jsonencode
// and yamlencode make, and in templates of several lines. One such part would
// otherwise make the whole text unknown, and with it every image that it
// plainly says. It is a number, because that fits wherever a value fits.
const hole = "271828182845904523536028"

// holed reports whether a part of a text is not known.
func holed(text string) bool { return strings.Contains(text, hole) }

// filled puts holes where a value is not known, for encoders.
func filled(v cty.Value) cty.Value {
	if v.IsWhollyKnown() {
		return v
	}
	t := v.Type()
	switch {
	case !v.IsKnown():
		return cty.StringVal(hole)
	case t.IsObjectType() || t.IsMapType():
		out := map[string]cty.Value{}
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			out[k.AsString()] = filled(e)
		}
		return cty.ObjectVal(out)
	}
	var out []cty.Value
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		out = append(out, filled(e))
	}
	return cty.TupleVal(out)
}

func encodingFunctions() map[string]function.Function {
	return map[string]function.Function{
		"jsonencode": encoder(stdlib.JSONEncodeFunc),
		"yamlencode": encoder(ctyyaml.YAMLEncodeFunc),
		"jsondecode": decoded(func(text string) (cty.Value, error) {
			if err := deepData([]byte(text)); err != nil {
				return cty.NilVal, err
			}
			return stdlib.JSONDecode(cty.StringVal(text))
		}),
		"yamldecode": decoded(func(text string) (cty.Value, error) {
			if err := bomb(text); err != nil {
				return cty.NilVal, err
			}
			return ctyyaml.YAMLDecodeFunc.Call([]cty.Value{cty.StringVal(text)})
		}),
		"csvdecode": stdlib.CSVDecodeFunc,
		"base64encode": ofText(func(a []string) (string, error) {
			return base64.StdEncoding.EncodeToString([]byte(a[0])), nil
		}, "text"),
		"base64decode": ofText(func(a []string) (string, error) {
			b, err := base64.StdEncoding.DecodeString(a[0])
			if err != nil || !utf8.Valid(b) {
				return "", &cause{"function base64decode is not given a text in base64"}
			}
			return string(b), nil
		}, "text"),
		"urlencode": ofText(func(a []string) (string, error) { return url.QueryEscape(a[0]), nil }, "text"),
		"urldecode": ofText(func(a []string) (string, error) {
			s, err := url.QueryUnescape(a[0])
			if err != nil {
				return "", &cause{"function urldecode is not given an escaped text"}
			}
			return s, nil
		}, "text"),
		"base64gzip": applied("base64gzip"), "base64gunzip": applied("base64gunzip"),
		"textencodebase64": applied("textencodebase64"), "textdecodebase64": applied("textdecodebase64"),
	}
}

// encoder makes one that encodes values that are partly known.
func encoder(f function.Function) function.Function {
	return of(cty.String, func(args []cty.Value) (cty.Value, error) {
		if !args[0].IsKnown() {
			return cty.UnknownVal(cty.String), nil
		}
		return f.Call([]cty.Value{filled(args[0])})
	}, function.Parameter{Name: "value", Type: cty.DynamicPseudoType, AllowUnknown: true, AllowDynamicType: true, AllowNull: true})
}

// decoded makes a decoder whose results say where in the text they stand.
func decoded(decode func(text string) (cty.Value, error)) function.Function {
	p := str("text")
	p.AllowMarked = true
	return function.New(&function.Spec{
		Params: []function.Parameter{p}, Type: function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			raw, marks := args[0].Unmark()
			if !raw.IsKnown() {
				return cty.DynamicVal.WithMarks(marks), nil
			}
			v, err := decode(raw.AsString())
			if err != nil {
				return cty.NilVal, err
			}
			return locate(v, raw.AsString(), marks), nil
		},
	})
}
