package argo

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// Bounds of expressions.
const (
	maxExpr  = 10_000  // bytes
	maxSteps = 200_000 // calls of predicates
	stepName = "__step"
)

// roots are the names that an expression may begin with.
var roots = []string{"inputs", "outputs", "steps", "tasks", "item", "workflow", "lastRetry", "retries", "pod", "node", "cronworkflow"}

// given are the functions that an expression may call beside the language's own.
var given = []string{"asInt", "asFloat", "string", "toJson", "jsonpath", "sprig", "now"}

// expression is one of expr-lang, checked.
type expression struct {
	text   string
	prog   *vm.Program
	chains []chain
	holes  []workflow.Expr // values that were tags inside of the expression
}

// chain is a path that the expression looks at, and where it is found.
type chain struct {
	path []string
	expr workflow.Expr
}

// String implements [workflow.Expr].
func (x *expression) String() string { return "{{=" + x.text + "}}" }

// expression compiles one. Tags inside of it become variables that hold their
// values: what they hold is not read as part of the expression.
func (p *place) expression(text string) (*expression, error) {
	if len(text) > maxExpr {
		return nil, fmt.Errorf("an expression of %d bytes: the limit is %d", len(text), maxExpr)
	}
	x := &expression{text: text}
	source, err := p.holes(text, x)
	if err != nil {
		return nil, err
	}
	v := &visitor{place: p}
	opts := []expr.Option{expr.Env(map[string]any{}), expr.AllowUndefinedVariables(), expr.Patch(v), expr.MaxNodes(2000), expr.DisableBuiltin("now"), expr.DisableBuiltin("repeat")}
	opts = append(opts, functions()...)
	if x.prog, err = compileExpr(source, opts); err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return nil, fmt.Errorf("%.100q: %s", text, first)
	}
	if err := errors.Join(v.errs...); err != nil {
		return nil, fmt.Errorf("%.100q: %w", text, err)
	}
	if x.chains, err = v.settle(); err != nil {
		return nil, fmt.Errorf("%.100q: %w", text, err)
	}
	return x, nil
}

// compileExpr keeps what expr-lang panics with from ending the process.
func compileExpr(source string, opts []expr.Option) (p *vm.Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("this cannot be read: %v", r)
		}
	}()
	return expr.Compile(source, opts...)
}

// holes puts variables where tags stand.
func (p *place) holes(text string, x *expression) (string, error) {
	parts, err := split(text)
	if err != nil || len(parts) == 1 {
		return text, err
	}
	var b strings.Builder
	var quote rune
	for i, t := range parts {
		if i%2 == 0 {
			b.WriteString(t)
			escaped := false
			for _, c := range t {
				switch {
				case escaped:
					escaped = false
				case quote != 0 && c == '\\':
					escaped = true
				case quote != 0 && c == quote:
					quote = 0
				case quote == 0 && (c == '\'' || c == '"'):
					quote = c
				}
			}
			continue
		}
		e, err := p.tag(t)
		if err != nil {
			return "", err
		}
		hole := fmt.Sprintf("__%d", len(x.holes))
		if quote != 0 { // within a text: put together from pieces
			fmt.Fprintf(&b, "%c + string(%s) + %c", quote, hole, quote)
			x.holes = append(x.holes, e)
		} else {
			b.WriteString(hole)
			x.holes = append(x.holes, bare{e})
		}
	}
	return b.String(), nil
}

// bare is a value where Argo would paste its text into an expression: a number
// or truth value is one, all else is a text.
type bare struct{ workflow.Expr }

func (b bare) Eval(s workflow.Scope) (workflow.Value, error) {
	v, err := b.Expr.Eval(s)
	if t, ok := v.(string); ok && err == nil {
		return literal(t), nil
	}
	return v, err
}

// visitor finds what an expression looks at, and makes its loops countable.
type visitor struct {
	place  *place
	chains []found
	idents []string
	names  []string // that let declares
	errs   []error
}

type found struct {
	node ast.Node
	path []string
}

// Visit implements [ast.Visitor]; children come before their parents.
func (v *visitor) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.VariableDeclaratorNode:
		v.names = append(v.names, n.Name)
	case *ast.IdentifierNode:
		v.idents = append(v.idents, n.Value)
		if slices.Contains(roots, n.Value) {
			v.chains = append(v.chains, found{n, []string{n.Value}})
		}
	case *ast.MemberNode:
		i := v.index(n.Node)
		if c, ok := n.Node.(*ast.ChainNode); ok && i < 0 {
			i = v.index(c.Node)
		}
		if name, ok := n.Property.(*ast.StringNode); ok && i >= 0 && !n.Method {
			v.chains[i] = found{n, append(slices.Clone(v.chains[i].path), name.Value)}
		}
	case *ast.CallNode:
		// x.Method(): what is looked at is x.
		if m, ok := n.Callee.(*ast.MemberNode); ok {
			if i := v.index(m); i >= 0 {
				v.chains[i] = found{n, v.chains[i].path[:len(v.chains[i].path)-1]}
			}
		}
	case *ast.PredicateNode:
		if c, ok := n.Node.(*ast.ConditionalNode); ok {
			if call, ok := c.Cond.(*ast.CallNode); ok {
				if id, ok := call.Callee.(*ast.IdentifierNode); ok && id.Value == stepName {
					return // a second pass
				}
			}
		}
		n.Node = &ast.ConditionalNode{Cond: &ast.CallNode{Callee: &ast.IdentifierNode{Value: stepName}}, Exp1: n.Node, Exp2: n.Node}
	}
}

func (v *visitor) index(n ast.Node) int {
	return slices.IndexFunc(v.chains, func(f found) bool { return f.node == n })
}

// settle checks the paths and drops those that begin with another.
func (v *visitor) settle() ([]chain, error) {
	var out []chain
	var errs []error
	for _, id := range v.idents {
		if !slices.Contains(roots, id) && !slices.Contains(given, id) && !slices.Contains(v.names, id) && !strings.HasPrefix(id, "__") {
			errs = append(errs, fmt.Errorf("unknown name %s%s", id, document.Meant(id, append(slices.Clone(roots), given...))))
		}
	}
	slices.SortFunc(v.chains, func(a, b found) int { return len(a.path) - len(b.path) })
	for _, f := range v.chains {
		if slices.ContainsFunc(out, func(c chain) bool { return len(c.path) <= len(f.path) && slices.Equal(c.path, f.path[:len(c.path)]) }) {
			continue
		}
		if err := v.place.known(f.path); err != nil {
			errs = append(errs, err)
		}
		out = append(out, chain{f.path, v.place.look(f.path)})
	}
	return out, errors.Join(errs...)
}

// known refuses names that nothing here has.
func (p *place) known(path []string) error {
	switch {
	case path[0] == "inputs" && len(path) > 2 && path[1] == "parameters" && !p.inputs[path[2]],
		path[0] == "inputs" && len(path) > 2 && path[1] == "artifacts" && !p.artifacts[path[2]],
		path[0] == "workflow" && len(path) > 2 && path[1] == "parameters" && p.params != nil && !p.params[path[2]]:
		return fmt.Errorf("there is no %s", strings.Join(path[:3], "."))
	case (path[0] == "steps" || path[0] == "tasks") && len(path) > 1 && p.calls[path[1]] == nil:
		return fmt.Errorf("no call %q of this template has ended before this", path[1])
	}
	return nil
}

// look is how a path of an expression is found: as a tag would be, or as it is.
func (p *place) look(path []string) workflow.Expr {
	if path[0] == "item" {
		return ref{text: "item", path: []string{"item"}, raw: true}
	}
	if e, err := p.resolve(strings.Join(path, ".")); err == nil {
		if r, ok := e.(ref); !ok || !slices.Equal(r.path, []string{"workflow", "parameters"}) {
			return e
		}
	}
	return ref{text: strings.Join(path, "."), path: path, raw: true}
}

// Eval implements [workflow.Expr].
func (x *expression) Eval(s workflow.Scope) (workflow.Value, error) {
	steps := 0
	env := map[string]any{
		stepName: func() (bool, error) {
			if steps++; steps > maxSteps {
				return false, fmt.Errorf("it takes more than %d steps", maxSteps)
			}
			return true, nil
		},
		"now": func() (time.Time, error) {
			v, ok := s.Lookup("now")
			if !ok {
				return time.Time{}, errors.New("there is no now here: an expression gives the same whenever it is asked")
			}
			return asTime(v)
		},
	}
	if strings.Contains(x.text, "sprig") { // the map is not made a million times for nothing
		env["sprig"] = sprigFunctions()
	}
	for i, h := range x.holes {
		v, err := h.Eval(s)
		if err != nil {
			return nil, err
		}
		env[fmt.Sprintf("__%d", i)] = v
	}
	for _, c := range x.chains {
		if v, err := c.expr.Eval(s); err == nil {
			put(env, c.path, forExpr(c.path, v))
		} else {
			put(env, c.path, nil)
		}
	}
	out, err := runExpr(x.prog, env)
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return nil, fmt.Errorf("%s: %s", x, first)
	}
	if out == nil {
		return nil, fmt.Errorf("%s has no value here", x)
	}
	return normal(out, 0)
}

func runExpr(p *vm.Program, env map[string]any) (out any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it failed: %v", r)
		}
	}()
	m := vm.VM{MemoryBudget: 1_000_000}
	return m.Run(p, env)
}

// forExpr is a value as expressions of Argo see it.
func forExpr(path []string, v workflow.Value) any {
	if path[0] == "cronworkflow" && len(path) == 2 && strings.HasSuffix(path[1], "Time") {
		if t, err := asTime(v); err == nil {
			return t
		}
		return nil
	}
	return v
}

// put sets a value in nested maps, which it makes.
func put(env map[string]any, path []string, v any) {
	for _, k := range path[:len(path)-1] {
		next, ok := env[k].(map[string]any)
		if !ok {
			next = map[string]any{}
			env[k] = next
		}
		env = next
	}
	env[path[len(path)-1]] = v
}

// normal makes what expr-lang gives into what JSON knows.
func normal(v any, depth int) (workflow.Value, error) {
	if depth > 50 {
		return nil, errors.New("the value is nested too deep")
	}
	switch v := v.(type) {
	case nil, bool, string, float64, *workflow.File:
		return v, nil
	case int:
		return float64(v), nil
	case int64:
		return float64(v), nil
	case float32:
		return float64(v), nil
	case time.Time:
		return v.UTC().Format(time.RFC3339), nil
	case time.Duration:
		return v.String(), nil
	case []byte:
		return string(v), nil
	case []string:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = e
		}
		return out, nil
	case []int:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = float64(e)
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			var err error
			if out[i], err = normal(e, depth+1); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			var err error
			if out[k], err = normal(e, depth+1); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[any]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			var err error
			if out[fmt.Sprint(k)], err = normal(e, depth+1); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("a %T cannot be handed on", v)
}
