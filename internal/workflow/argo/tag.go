package argo

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// resultRE finds calls whose standard output is asked for, in any text.
var resultRE = regexp.MustCompile(`(?:steps|tasks)(?:\.([A-Za-z0-9_-]+)|\[\s*['"]([A-Za-z0-9_-]+)['"]\s*\])\.outputs\.result`)

// Bounds of texts.
const (
	maxText = 4 << 20
	maxTags = 1000
)

// place is where a text stands: what its tags may refer to.
type place struct {
	inputs    map[string]bool
	artifacts map[string]bool
	calls     map[string]*signature // of the same template that have ended here
	unended   map[string]bool       // those that have not: for a better message
	params    map[string]bool       // of the run; nil: not known here
	item      bool
	retry     bool
	paths     map[string]workflow.Expr // inputs.artifacts.NAME.path and so on
	cron      bool
}

// with returns a copy that differs as f says.
func (p *place) with(f func(*place)) *place {
	q := *p
	f(&q)
	return &q
}

// signature is what is known of a call's outputs.
type signature struct {
	params    map[string]*string // their defaults
	artifacts map[string]bool
	leaf      bool
	daemon    bool
	each      bool
}

// ref is a tag that names something.
type ref struct {
	text string
	path []string
	or   *string // where the scope has nothing
	raw  bool    // the value itself, not its text
}

// String implements [workflow.Expr].
func (r ref) String() string { return "{{" + r.text + "}}" }

// Eval implements [workflow.Expr].
func (r ref) Eval(s workflow.Scope) (workflow.Value, error) {
	v, ok := s.Lookup(r.path...)
	if !ok {
		if r.or != nil {
			return *r.or, nil
		}
		return nil, fmt.Errorf("%s has no value here", r)
	}
	if n := len(r.path); r.path[n-1] == "parameters" {
		v = zip(v)
	}
	if f, ok := v.(float64); ok && r.path[0] == "lastRetry" {
		v = math.Trunc(f) // Argo's times have seconds
	}
	if _, file := v.(*workflow.File); file || r.raw {
		return v, nil
	}
	return workflow.Text(v)
}

// zip makes lists by name into a list of objects, which is how the parameters
// of a fan-out are seen together.
func zip(v workflow.Value) workflow.Value {
	m, ok := v.(map[string]any)
	if !ok || len(m) == 0 {
		return v
	}
	n := -1
	for _, e := range m {
		l, ok := e.([]any)
		if !ok || n >= 0 && len(l) != n {
			return v
		}
		n = len(l)
	}
	out := make([]any, n)
	for i := range out {
		row := map[string]any{}
		for k, e := range m {
			row[k] = e.([]any)[i]
		}
		out[i] = row
	}
	return out
}

var errUnknown = errors.New("there is no such variable here")

// resolve finds what a tag names.
func (p *place) resolve(text string) (workflow.Expr, error) {
	if e, ok := p.paths[text]; ok {
		return e, nil
	}
	parts := strings.Split(text, ".")
	r := ref{text: text, path: parts}
	unknown := func() (workflow.Expr, error) { return nil, fmt.Errorf("{{%.100s}}: %w", text, errUnknown) }
	switch parts[0] {
	case "inputs":
		if len(parts) == 2 && parts[1] == "parameters" {
			return all{text, slices.Sorted(keys(p.inputs))}, nil
		}
		if len(parts) < 3 {
			return unknown()
		}
		name, known := strings.Join(parts[2:], "."), p.inputs
		if parts[1] == "artifacts" {
			known = p.artifacts
		} else if parts[1] != "parameters" {
			return unknown()
		}
		if !known[name] {
			return nil, fmt.Errorf("{{%.100s}}: the template has no such input%s", text, document.Meant(name, slices.Collect(keys(known))))
		}
		r.path = []string{"inputs", parts[1], name}
	case "steps", "tasks":
		if len(parts) < 3 {
			return unknown()
		}
		return p.call(r, parts)
	case "item":
		if !p.item {
			return nil, fmt.Errorf("{{%.100s}}: there are items only where withItems, withParam or withSequence stands", text)
		}
		r.raw = true
	case "workflow":
		return p.run(r, parts)
	case "retries":
	case "pod", "node":
		if len(parts) != 2 || parts[1] != "name" {
			return unknown()
		}
	case "lastRetry":
		if !p.retry || len(parts) != 2 || !slices.Contains([]string{"exitCode", "status", "duration", "message"}, parts[1]) {
			return unknown()
		}
	case "cronworkflow":
		if !p.cron {
			return unknown()
		}
		r.raw = true
	default:
		return unknown()
	}
	return r, nil
}

// call finds what a tag says of another call.
func (p *place) call(r ref, parts []string) (workflow.Expr, error) {
	s, ok := p.calls[parts[1]]
	switch {
	case !ok && p.unended[parts[1]]:
		return nil, fmt.Errorf("{{%.100s}}: %q has not ended before this one begins: make this one depend on it", r.text, parts[1])
	case !ok:
		return nil, fmt.Errorf("{{%.100s}}: there is no such call in this template%s", r.text, document.Meant(parts[1], slices.Collect(keys(p.calls))))
	}
	switch rest := strings.Join(parts[2:], "."); {
	case rest == "ip" && s.daemon && !s.each:
	case rest == "ip":
		return nil, fmt.Errorf("{{%.100s}}: %q is no daemon, and has ended: what has an address says daemon: true", r.text, parts[1])
	case rest == "hostNodeName":
		return nil, fmt.Errorf("{{%.100s}}: where %q runs is not known before it does", r.text, parts[1])
	case rest == "outputs.result":
		if !s.leaf {
			return nil, fmt.Errorf("{{%.100s}}: what %s calls runs no program itself, it has no result: give it an output", r.text, parts[1])
		}
	case slices.Contains([]string{"status", "id", "exitCode", "startedAt", "finishedAt", "message", "name"}, rest), rest == "outputs.exitCode":
		if rest == "outputs.exitCode" {
			r.path = []string{parts[0], parts[1], "exitCode"}
		}
	case rest == "outputs.parameters", rest == "outputs", rest == "outputs.artifacts":
		r.raw = rest != "outputs.parameters"
	case len(parts) >= 5 && parts[2] == "outputs" && parts[3] == "parameters":
		name := strings.Join(parts[4:], ".")
		def, ok := s.params[name]
		if !ok {
			return nil, fmt.Errorf("{{%.100s}}: what %s calls has no such output%s", r.text, parts[1], document.Meant(name, slices.Collect(keys(s.params))))
		}
		r.path, r.or = []string{parts[0], parts[1], "outputs", "parameters", name}, def
	case len(parts) >= 5 && parts[2] == "outputs" && parts[3] == "artifacts":
		name := strings.Join(parts[4:], ".")
		if !s.artifacts[name] {
			return nil, fmt.Errorf("{{%.100s}}: what %s calls has no such output%s", r.text, parts[1], document.Meant(name, slices.Collect(keys(s.artifacts))))
		}
		r.path = []string{parts[0], parts[1], "outputs", "artifacts", name}
	default:
		return nil, fmt.Errorf("{{%.100s}}: %w", r.text, errUnknown)
	}
	return r, nil
}

// run finds what a tag says of the whole run.
func (p *place) run(r ref, parts []string) (workflow.Expr, error) {
	if len(parts) < 2 {
		return nil, fmt.Errorf("{{%.100s}}: %w", r.text, errUnknown)
	}
	rest := strings.Join(parts[2:], ".")
	switch parts[1] {
	case "parameters":
		if len(parts) == 2 || rest == "json" {
			r.path = []string{"workflow", "parameters"}
			return r, nil
		}
		if p.params != nil && !p.params[rest] {
			return nil, fmt.Errorf("{{%.100s}}: the workflow has no such parameter%s", r.text, document.Meant(rest, slices.Collect(keys(p.params))))
		}
		r.path = []string{"workflow", "parameters", rest}
	case "outputs":
		if len(parts) < 4 || parts[2] != "parameters" && parts[2] != "artifacts" {
			return nil, fmt.Errorf("{{%.100s}}: %w", r.text, errUnknown)
		}
		r.path = []string{"workflow", "outputs", parts[2], strings.Join(parts[3:], ".")}
	case "labels", "annotations":
		if parts[1] == "annotations" || rest == "" {
			return nil, fmt.Errorf("{{%.100s}}: only single labels can be asked for", r.text)
		}
		r.path = []string{"workflow", "labels", rest}
	case "creationTimestamp":
		if rest = strings.TrimPrefix(rest, "%"); rest != "" {
			r.path = []string{"workflow", "creationTimestamp", rest}
		}
	case "name", "namespace", "uid", "status", "duration", "priority", "mainEntrypoint", "failures", "scheduledTime":
		if rest != "" {
			return nil, fmt.Errorf("{{%.100s}}: %w", r.text, errUnknown)
		}
	case "serviceAccountName":
		return nil, fmt.Errorf("{{%.100s}}: outside of a cluster a task speaks for no account", r.text)
	default:
		return nil, fmt.Errorf("{{%.100s}}: %w", r.text, errUnknown)
	}
	return r, nil
}

// all is all inputs together, as Argo writes them: a list of names and values.
type all struct {
	text  string
	names []string
}

func (a all) String() string { return "{{" + a.text + "}}" }

// Eval implements [workflow.Expr].
func (a all) Eval(s workflow.Scope) (workflow.Value, error) {
	out := []any{}
	for _, n := range a.names {
		if v, ok := s.Lookup("inputs", "parameters", n); ok {
			out = append(out, map[string]any{"name": n, "value": v})
		}
	}
	return workflow.Text(out)
}

// mixed is a text with tags in it, each replaced by the text of its value.
type mixed struct {
	text  string
	parts []workflow.Expr
}

func (m mixed) String() string { return m.text }

// Eval implements [workflow.Expr].
func (m mixed) Eval(s workflow.Scope) (workflow.Value, error) {
	var b strings.Builder
	for _, e := range m.parts {
		v, err := e.Eval(s)
		if err != nil {
			return nil, err
		}
		t, err := workflow.Text(v)
		if err != nil {
			return nil, err
		}
		if b.Len()+len(t) > maxText {
			return nil, fmt.Errorf("%.60q makes a text of more than %d bytes: hand it on as an artifact", m.text, maxText)
		}
		b.WriteString(t)
	}
	return b.String(), nil
}

// split cuts a text into what stands between tags and the tags themselves,
// alternating, beginning and ending with text.
func split(s string) ([]string, error) {
	var out []string
	for {
		before, after, ok := strings.Cut(s, "{{")
		if !ok {
			return append(out, s), nil
		}
		end := strings.Index(after, "}}")
		if strings.HasPrefix(strings.TrimSpace(after), "=") {
			end = closing(after)
		}
		if end < 0 || len(out) > 2*maxTags {
			return nil, fmt.Errorf("%.60q: {{ has no }}, or there are more than %d tags", "{{"+after, maxTags)
		}
		out = append(out, before, strings.TrimSpace(after[:end]))
		s = after[end+2:]
	}
}

// closing finds the }} that ends an expression, outside of its texts and maps.
func closing(s string) int {
	depth := 0
	var quote byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0:
			if c == '\\' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'' || c == '`':
			quote = c
		case c == '{':
			depth++
		case c == '}' && depth > 0:
			depth--
		case c == '}' && strings.HasPrefix(s[i:], "}}"):
			return i
		}
	}
	return -1
}

// tag compiles what stands between braces.
func (p *place) tag(s string) (workflow.Expr, error) {
	if in, ok := strings.CutPrefix(s, "="); ok {
		return p.expression(strings.TrimSpace(in))
	}
	return p.resolve(s)
}

// text compiles a text with tags; its value is a text.
func (p *place) text(s string) (workflow.Expr, error) {
	e, err := p.value(s)
	if err != nil {
		return nil, err
	}
	if _, ok := e.(workflow.Constant); ok {
		return e, nil
	}
	if m, ok := e.(mixed); ok {
		return m, nil
	}
	return mixed{s, []workflow.Expr{e}}, nil
}

// value is text, but a text that is one tag keeps the value as it is.
func (p *place) value(s string) (workflow.Expr, error) {
	parts, err := split(s)
	if err != nil {
		return nil, err
	}
	if len(parts) == 1 {
		return workflow.Constant{Value: s}, nil
	}
	var out []workflow.Expr
	var errs []error
	for i, t := range parts {
		if i%2 == 0 {
			if t != "" {
				out = append(out, workflow.Constant{Value: t})
			}
			continue
		}
		e, err := p.tag(t)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, e)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if len(out) == 1 {
		if r, ok := out[0].(ref); ok {
			r.raw = true
			return r, nil
		}
		return out[0], nil
	}
	return mixed{s, out}, nil
}

// tree is an object tree with tags in its texts.
type tree struct {
	list   []workflow.Expr
	fields map[string]workflow.Expr
}

func (t tree) String() string {
	if t.list != nil {
		var out []string
		for _, e := range t.list {
			out = append(out, e.String())
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	var out []string
	for _, k := range slices.Sorted(keys(t.fields)) {
		out = append(out, k+": "+t.fields[k].String())
	}
	return "{" + strings.Join(out, ", ") + "}"
}

// Eval implements [workflow.Expr].
func (t tree) Eval(s workflow.Scope) (workflow.Value, error) {
	if t.list != nil {
		out := make([]any, len(t.list))
		for i, e := range t.list {
			var err error
			if out[i], err = e.Eval(s); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	out := map[string]any{}
	for k, e := range t.fields {
		v, err := e.Eval(s)
		if err != nil {
			return nil, err
		}
		out[k] = v
	}
	return out, nil
}

// tree compiles a node with tags anywhere in its texts.
func (p *place) tree(n *document.Node) (workflow.Expr, error) {
	constant := true
	note := func(e workflow.Expr) workflow.Expr {
		if _, ok := e.(workflow.Constant); !ok {
			constant = false
		}
		return e
	}
	var t tree
	switch {
	case n.IsText():
		return p.value(n.Text())
	case n.IsList():
		t.list = []workflow.Expr{}
		for _, e := range n.List() {
			x, err := p.tree(e)
			if err != nil {
				return nil, err
			}
			t.list = append(t.list, note(x))
		}
	case n.IsMap():
		t.fields = map[string]workflow.Expr{}
		for _, e := range n.Entries() {
			x, err := p.tree(e.Node)
			if err != nil {
				return nil, err
			}
			t.fields[e.Key] = note(x)
		}
	}
	if constant {
		return workflow.Constant{Value: n.Value()}, nil
	}
	return t, nil
}

// keys are those of a map, in any order.
func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
