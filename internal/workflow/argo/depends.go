package argo

import (
	"fmt"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/workflow"
)

// ends are the words that depends has for how a task ended.
var ends = []string{"Succeeded", "Failed", "Errored", "Skipped", "Omitted", "Daemoned", "AnySucceeded", "AllFailed"}

// dependency is what depends says, compiled.
type dependency struct {
	text  string
	root  workflow.Expr
	tasks []string // in their order
	plain bool     // nothing but tasks joined by &&: what the graph does by itself
}

func (d dependency) String() string { return d.text }

// Eval implements [workflow.Expr].
func (d dependency) Eval(s workflow.Scope) (workflow.Value, error) { return d.root.Eval(s) }

// need asks how a task ended.
type need struct{ task, end string }

func (n need) String() string { return n.task + "." + n.end }

// Eval implements [workflow.Expr].
func (n need) Eval(s workflow.Scope) (workflow.Value, error) {
	if n.end != "" {
		v, _ := s.Lookup("needs", n.task, n.end)
		return v == true, nil
	}
	for _, e := range []string{"Succeeded", "Skipped", "Daemoned"} {
		if v, _ := s.Lookup("needs", n.task, e); v == true {
			return true, nil
		}
	}
	return false, nil
}

// parseDepends reads the logic of depends: tasks, with .Succeeded and the like,
// joined by &&, || and !, in parentheses.
func parseDepends(s string) (*dependency, error) {
	if len(s) > maxWhen*10 {
		return nil, fmt.Errorf("depends has %d bytes, the limit is %d", len(s), maxWhen*10)
	}
	d := &dependency{text: s, plain: true}
	p := &dependsParser{rest: s, d: d}
	root, err := p.or(0)
	if err == nil && strings.TrimSpace(p.rest) != "" {
		err = fmt.Errorf("%.40q does not belong there", strings.TrimSpace(p.rest))
	}
	if err != nil {
		return nil, fmt.Errorf("depends %.80q: %w", s, err)
	}
	d.root = root
	return d, nil
}

type dependsParser struct {
	rest string
	d    *dependency
}

func (p *dependsParser) take(op string) bool {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	rest, ok := strings.CutPrefix(p.rest, op)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *dependsParser) or(depth int) (workflow.Expr, error) {
	left, err := p.and(depth)
	for err == nil && p.take("||") {
		p.d.plain = false
		var right workflow.Expr
		right, err = p.and(depth)
		left = binary{"||", left, right}
	}
	return left, err
}

func (p *dependsParser) and(depth int) (workflow.Expr, error) {
	left, err := p.one(depth)
	for err == nil && p.take("&&") {
		var right workflow.Expr
		right, err = p.one(depth)
		left = binary{"&&", left, right}
	}
	return left, err
}

func (p *dependsParser) one(depth int) (workflow.Expr, error) {
	if depth > 100 {
		return nil, fmt.Errorf("it is nested too deep")
	}
	if p.take("!") {
		p.d.plain = false
		e, err := p.one(depth + 1)
		return binary{"!", e, workflow.Constant{}}, err
	}
	if p.take("(") {
		e, err := p.or(depth + 1)
		if err == nil && !p.take(")") {
			err = fmt.Errorf("( has no )")
		}
		return e, err
	}
	p.take("")
	end := 0
	for end < len(p.rest) && (p.rest[end] == '-' || p.rest[end] == '_' || p.rest[end] == '.' || p.rest[end] >= '0' && p.rest[end] <= '9' || p.rest[end] >= 'a' && p.rest[end] <= 'z' || p.rest[end] >= 'A' && p.rest[end] <= 'Z') {
		end++
	}
	if end == 0 {
		return nil, fmt.Errorf("a task is missing before %.20q", p.rest)
	}
	word := p.rest[:end]
	p.rest = p.rest[end:]
	task, how, dotted := strings.Cut(word, ".")
	if dotted {
		p.d.plain = false
		if !slices.Contains(ends, how) {
			return nil, fmt.Errorf("%q: a task ends as one of %s", word, strings.Join(ends, ", "))
		}
	}
	if !slices.Contains(p.d.tasks, task) {
		p.d.tasks = append(p.d.tasks, task)
	}
	return need{task, how}, nil
}
