package machine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cairn.dev/cairn/internal/workflow"
)

// bind works out what a template is given.
func (m *Machine) bind(n *node) error {
	var args []workflow.Arg
	s := scope{m: m}
	switch n.role {
	case roleRoot:
		return m.bindEntry(n)
	case roleCall, roleItem:
		above := n.parent
		if n.role == roleItem {
			above = n.parent.parent
		}
		args = n.call.Args
		s = m.caller(above, n.call, n.value, n.role == roleItem)
	case roleHook:
		args = m.hookOf(n).Args
	}
	if n.parent != nil && (n.role == roleExit || n.role == roleHook) {
		if n.role == roleExit {
			args = n.parent.call.OnExitArgs
		}
		s = m.caller(n.parent.parent, n.parent.call, nil, false)
	}
	for i := range n.tmpl.Inputs {
		in := &n.tmpl.Inputs[i]
		v, ok, err := give(in, args, s)
		if err != nil {
			return err
		}
		if ok {
			n.hand(in, v)
		}
	}
	return nil
}

// bindEntry gives the entry what the run was given.
func (m *Machine) bindEntry(n *node) error {
	for i := range n.tmpl.Inputs {
		in := &n.tmpl.Inputs[i]
		v, ok := m.args[in.Name]
		if !ok {
			v, ok = m.graph.Args[in.Name]
		}
		if !ok {
			var err error
			if v, ok, err = give(in, nil, scope{m: m}); err != nil {
				return err
			}
		}
		if ok {
			n.hand(in, v)
		}
	}
	return nil
}

func (n *node) hand(in *workflow.Input, v workflow.Value) {
	to := &n.inputs
	if in.Artifact {
		to = &n.files
	}
	if *to == nil {
		*to = map[string]workflow.Value{}
	}
	(*to)[in.Name] = v
}

// give is the value of one input.
func give(in *workflow.Input, args []workflow.Arg, s scope) (v workflow.Value, ok bool, err error) {
	what := "parameter"
	if in.Artifact {
		what = "artifact"
	}
	for i := range args {
		if a := &args[i]; a.Name == in.Name && a.Artifact == in.Artifact {
			if v, err = a.Value.Eval(s); err != nil {
				if in.Optional || in.Default != nil {
					break
				}
				return nil, false, fmt.Errorf("%s %q: %w", what, in.Name, err)
			}
			ok = true
			break
		}
	}
	if !ok && in.Default != nil {
		if v, err = in.Default.Eval(s); err != nil {
			return nil, false, fmt.Errorf("default of %s %q: %w", what, in.Name, err)
		}
		ok = true
	}
	if !ok {
		if in.Optional {
			return nil, false, nil
		}
		return nil, false, fmt.Errorf("%s %q was not given", what, in.Name)
	}
	if len(in.Enum) > 0 {
		if t, is := v.(string); !is || !slices.Contains(in.Enum, t) {
			return nil, false, fmt.Errorf("%s %q is %v: it has to be one of %s", what, in.Name, v, strings.Join(in.Enum, ", "))
		}
	}
	return v, true, nil
}

// compute works out outputs that expressions give.
func (m *Machine) compute(n *node) error {
	s := m.inside(n)
	var params, files map[string]any
	if n.outputs != nil {
		params, _ = n.outputs["parameters"].(map[string]any)
		files, _ = n.outputs["artifacts"].(map[string]any)
	}
	set := func(o *workflow.Output, v workflow.Value) {
		if n.outputs == nil {
			n.outputs = map[string]workflow.Value{}
		}
		switch {
		case o.Result:
			n.outputs["result"] = v
		case o.Artifact:
			if files == nil {
				files = map[string]any{}
				n.outputs["artifacts"] = files
			}
			files[o.Name] = v
		default:
			if params == nil {
				params = map[string]any{}
				n.outputs["parameters"] = params
			}
			params[o.Name] = v
		}
	}
	for i := range n.tmpl.Outputs {
		o := &n.tmpl.Outputs[i]
		if o.From != nil {
			v, err := o.From.Eval(s)
			if err != nil && o.Default != nil {
				v, err = o.Default.Eval(s)
			}
			if err != nil {
				return fmt.Errorf("output %q: %w", o.Name, err)
			}
			set(o, v)
		}
		if o.Global != "" {
			m.global(n, o)
		}
	}
	return nil
}

// global makes an output one of the whole run.
func (m *Machine) global(n *node, o *workflow.Output) {
	kind := "parameters"
	if o.Artifact {
		kind = "artifacts"
	}
	all, _ := n.outputs[kind].(map[string]any)
	v, ok := all[o.Name]
	if o.Result && n.outputs != nil {
		v, ok = n.outputs["result"]
	}
	if !ok {
		return
	}
	to, _ := m.globals[kind].(map[string]any)
	if to == nil {
		to = map[string]any{}
		m.globals[kind] = to
	}
	to[o.Global] = v
}

// typed reads a text as an output's type says. What is not what it should be
// stays text: the program wrote it, and whoever uses it will say what is wrong.
func typed(kind, s string) workflow.Value {
	switch kind {
	case "json":
		var v any
		if err := json.Unmarshal([]byte(s), &v); err == nil {
			return v
		}
	case "lines":
		list := []any{}
		for line := range strings.Lines(s) {
			if line = strings.TrimRight(line, "\r\n"); line != "" {
				list = append(list, line)
			}
		}
		return list
	}
	return s
}

// truth is a condition.
func truth(e workflow.Expr, s scope) (bool, error) {
	v, err := e.Eval(s)
	if err != nil {
		return false, err
	}
	switch v := v.(type) {
	case bool:
		return v, nil
	case string:
		if b, err := strconv.ParseBool(v); err == nil {
			return b, nil
		}
	}
	return false, fmt.Errorf("%s is %v, neither true nor false", e, v)
}

// number is an expression that has to be one.
func number(e workflow.Expr, s scope) (float64, error) {
	v, err := e.Eval(s)
	if err != nil {
		return 0, err
	}
	switch v := v.(type) {
	case float64:
		return v, nil
	case int:
		return float64(v), nil
	case int64:
		return float64(v), nil
	case string:
		if f, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil {
			return f, nil
		}
	}
	return 0, fmt.Errorf("%s is %v, no number", e, v)
}

// text is an expression as a name or key.
func text(e workflow.Expr, s scope) (string, error) {
	v, err := e.Eval(s)
	if err != nil {
		return "", err
	}
	switch v := v.(type) {
	case string:
		return v, nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case bool:
		return strconv.FormatBool(v), nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}
