package workflow

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/ext"
)

// Bounds of expressions. The cost is CEL's own measure: about one for each
// step and each ten bytes of text that is looked at.
const (
	maxExpr = 10_000
	maxCost = 1_000_000
	maxText = 4 << 20 // of what an expression makes
)

// fileType is what files and folders are to expressions: they can be handed on
// and chosen among, and nothing else.
var fileType = cel.OpaqueType("file")

// A name is what an expression may refer to: how it is written, what it is,
// and where a Scope has it.
type name struct {
	text string
	typ  *cel.Type
	path []string
	// or is used when the scope has nothing there; set is whether there is one.
	or  Value
	set bool
}

// celEnv is what can be said where an expression stands.
type celEnv struct {
	env   *cel.Env
	names map[string]name
}

func newEnv(names []name) (*celEnv, error) {
	e := &celEnv{names: map[string]name{}}
	opts := []cel.EnvOption{
		ext.Strings(ext.StringsVersion(4)), ext.Lists(), ext.Math(), ext.Encoders(),
		cel.CrossTypeNumericComparisons(true), cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxExpr), cel.ParserRecursionLimit(100),
	}
	for _, n := range names {
		e.names[n.text] = n
		opts = append(opts, cel.Variable(n.text, n.typ))
	}
	var err error
	if e.env, err = cel.NewEnv(opts...); err != nil {
		return nil, fmt.Errorf("declare the names of expressions: %w", err)
	}
	return e, nil
}

// with is the same with more names.
func (e *celEnv) with(names []name) (*celEnv, error) {
	if len(names) == 0 {
		return e, nil
	}
	out := &celEnv{names: make(map[string]name, len(e.names)+len(names))}
	for k, n := range e.names {
		out.names[k] = n
	}
	var opts []cel.EnvOption
	for _, n := range names {
		out.names[n.text] = n
		opts = append(opts, cel.Variable(n.text, n.typ))
	}
	var err error
	if out.env, err = e.env.Extend(opts...); err != nil {
		return nil, fmt.Errorf("declare the names of expressions: %w", err)
	}
	return out, nil
}

// celExpr is one expression, checked.
type celExpr struct {
	text string
	typ  *cel.Type
	prog cel.Program
	// uses are the names that it refers to, sorted.
	uses  []string
	names map[string]name
	// only is the name when the expression is that and nothing else: then its
	// value is handed on as it is.
	only string
}

func (e *celEnv) compile(text string) (*celExpr, error) {
	if len(text) > maxExpr {
		return nil, fmt.Errorf("the expression has %d bytes, the limit is %d", len(text), maxExpr)
	}
	ast, issues := e.env.Compile(text)
	if issues != nil && issues.Err() != nil {
		var why []string
		for _, i := range issues.Errors() {
			why = append(why, strings.TrimSpace(i.Message))
			if len(why) == 3 {
				break
			}
		}
		return nil, e.explain(strings.Join(slices.Compact(why), "; "), text)
	}
	prog, err := e.env.Program(ast, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	x := &celExpr{text: text, typ: ast.OutputType(), prog: prog, names: e.names}
	for _, r := range ast.NativeRep().ReferenceMap() {
		if _, ok := e.names[r.Name]; ok && !slices.Contains(x.uses, r.Name) {
			x.uses = append(x.uses, r.Name)
		}
	}
	slices.Sort(x.uses)
	if t := strings.TrimSpace(text); len(x.uses) == 1 && x.uses[0] == t {
		x.only = t
	}
	return x, nil
}

// explain says which names there are when one is not known.
func (e *celEnv) explain(why, text string) error {
	if !strings.Contains(why, "undeclared reference") && !strings.Contains(why, "undefined field") {
		return fmt.Errorf("%q: %s", text, why)
	}
	var names []string
	for n := range e.names {
		names = append(names, n)
	}
	slices.Sort(names)
	if len(names) > 12 {
		names = append(names[:12], "…")
	}
	if len(names) == 0 {
		return fmt.Errorf("%q: %s; nothing can be referred to here", text, why)
	}
	return fmt.Errorf("%q: %s; there are %s", text, why, strings.Join(names, ", "))
}

// String implements [Expr].
func (x *celExpr) String() string { return x.text }

// Eval implements [Expr].
func (x *celExpr) Eval(s Scope) (Value, error) {
	if x.only != "" {
		return find(s, x.names[x.only])
	}
	a := &activation{scope: s, names: x.names}
	out, _, err := x.prog.Eval(a)
	if a.missing != nil {
		return nil, fmt.Errorf("%s: %w", x.text, a.missing)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", x.text, err)
	}
	v, err := fromCEL(out, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", x.text, err)
	}
	return v, nil
}

// find is the value of a name.
func find(s Scope, n name) (Value, error) {
	if v, ok := s.Lookup(n.path...); ok {
		return v, nil
	}
	if n.set {
		return n.or, nil
	}
	if len(n.path) > 1 && n.path[0] == "tasks" {
		how := "not known"
		if v, ok := s.Lookup("tasks", n.path[1], "status"); ok {
			how = fmt.Sprint(v)
		}
		return nil, fmt.Errorf("%s has no value: the task is %s; give the output a default", n.text, how)
	}
	return nil, fmt.Errorf("%s has no value", n.text)
}

// activation looks names up in a scope.
type activation struct {
	scope   Scope
	names   map[string]name
	missing error
}

func (a *activation) Parent() cel.Activation { return nil }

func (a *activation) ResolveName(s string) (any, bool) {
	n, ok := a.names[s]
	if !ok {
		return nil, false
	}
	v, err := find(a.scope, n)
	if err != nil {
		a.missing = err
		return nil, false
	}
	return toCEL(v), true
}

// file is a File as CEL carries it.
type file struct{ *File }

func (f file) ConvertToNative(reflect.Type) (any, error) {
	return nil, errors.New("a file has no other form")
}
func (f file) ConvertToType(t ref.Type) ref.Val {
	return types.NewErr("a file is no %s", t.TypeName())
}
func (f file) Equal(other ref.Val) ref.Val {
	o, ok := other.(file)
	return types.Bool(ok && *f.File == *o.File)
}
func (f file) Type() ref.Type { return fileType }
func (f file) Value() any     { return f.File }

// toCEL makes whole numbers integers, because that is how people write them.
func toCEL(v Value) any {
	return Replace(v, func(v Value) Value {
		switch v := v.(type) {
		case *File:
			return file{v}
		case float64:
			if v == float64(int64(v)) && v < 1<<53 && v > -1<<53 {
				return int64(v)
			}
		}
		return v
	})
}

var errDeep = errors.New("the value is nested too deep")

func fromCEL(v ref.Val, depth int) (Value, error) {
	if depth > 50 {
		return nil, errDeep
	}
	switch v := v.(type) {
	case file:
		return v.File, nil
	case types.Null:
		return nil, nil
	case types.Bool:
		return bool(v), nil
	case types.Int:
		return float64(v), nil
	case types.Uint:
		return float64(v), nil
	case types.Double:
		return float64(v), nil
	case types.String:
		if len(v) > maxText {
			return nil, fmt.Errorf("it makes a text of %d bytes, the limit is %d", len(v), maxText)
		}
		return string(v), nil
	case types.Bytes:
		return string(v), nil
	}
	switch x := v.Value().(type) {
	case []ref.Val:
		return listOf(len(x), func(i int) (Value, error) { return fromCEL(x[i], depth+1) })
	case []any:
		return listOf(len(x), func(i int) (Value, error) { return fromCEL(types.DefaultTypeAdapter.NativeToValue(x[i]), depth+1) })
	case []string:
		return listOf(len(x), func(i int) (Value, error) { return x[i], nil })
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			c, err := fromCEL(types.DefaultTypeAdapter.NativeToValue(e), depth+1)
			if err != nil {
				return nil, err
			}
			out[k] = c
		}
		return out, nil
	case map[ref.Val]ref.Val:
		out := make(map[string]any, len(x))
		for k, e := range x {
			key, ok := k.(types.String)
			if !ok {
				return nil, fmt.Errorf("the key %v of a map is no text", k.Value())
			}
			c, err := fromCEL(e, depth+1)
			if err != nil {
				return nil, err
			}
			out[string(key)] = c
		}
		return out, nil
	}
	if t, ok := v.ConvertToType(types.StringType).(types.String); ok { // times and durations
		return string(t), nil
	}
	return nil, fmt.Errorf("it makes a %s, which cannot be handed on", v.Type().TypeName())
}

func listOf(n int, at func(int) (Value, error)) (Value, error) {
	out := make([]any, n)
	for i := range out {
		var err error
		if out[i], err = at(i); err != nil {
			return nil, err
		}
	}
	return out, nil
}
