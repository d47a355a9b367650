// Package jsonpath reads values out of an object as kubectl's -o jsonpath does:
//
//	{.status.podIP}
//	{.status.conditions[?(@.type=="Ready")].status} of {.metadata.name}
//
// It owns the part of those templates (the page "JSONPath Support" of the
// Kubernetes documentation) that names values: fields, entries, all of them,
// those that a comparison chooses, those at any depth, and text around them.
// Several values come apart by spaces, and what is not there is nothing. It
// promises to be pure, to refuse the rest (range, slices, unions) when a template
// is read, and that what a template makes, and the work it takes, are bounded.
package jsonpath

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Bounds of templates and of what they make.
const (
	maxTemplate = 4 << 10
	maxSteps    = 50
	maxValues   = 100_000
	maxText     = 1 << 20
)

// A Template is text with paths in it. Make one with [Parse].
type Template struct{ parts []part }

// part is a text, or a path where steps are not nil.
type part struct {
	text  string
	steps []step
}

// step goes from values to those below them.
type step struct {
	what  byte   // '.': a field, '[': an entry, '*': all, '?': chosen ones, 'd': the value and all below it
	field string // of '.'
	index int    // of '['
	test  *test  // of '?'
}

// test compares what a path finds below an entry; without an operator it is
// enough that there is something.
type test struct {
	steps []step
	op    string
	value any
}

var errLarge = errors.New("it finds or makes more than is kept")

// Text fills the template in. found says whether any of its paths found
// something. The object is JSON as encoding/json decodes it.
func (t *Template) Text(object any) (text string, found bool, err error) {
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.text)
		if p.steps == nil {
			continue
		}
		budget := maxValues
		values, err := walk([]any{object}, p.steps, &budget)
		if err != nil {
			return "", false, err
		}
		found = found || len(values) > 0
		for i, v := range values {
			if i > 0 {
				b.WriteByte(' ')
			}
			if b.WriteString(written(v)); b.Len() > maxText {
				return "", false, errLarge
			}
		}
	}
	return b.String(), found, nil
}

func walk(values []any, steps []step, budget *int) ([]any, error) {
	for _, s := range steps {
		var next []any
		for _, v := range values {
			below, err := s.below(v, budget)
			if err != nil {
				return nil, err
			}
			next = append(next, below...)
		}
		values = next
	}
	return values, nil
}

func (s *step) below(v any, budget *int) (out []any, err error) {
	switch x := v.(type) {
	case map[string]any:
		switch s.what {
		case '.':
			if e, ok := x[s.field]; ok {
				out = []any{e}
			}
		case '*':
			for _, k := range slices.Sorted(maps.Keys(x)) {
				out = append(out, x[k])
			}
		}
	case []any:
		switch s.what {
		case '[':
			i := s.index
			if i < 0 {
				i += len(x)
			}
			if i >= 0 && i < len(x) {
				out = []any{x[i]}
			}
		case '*':
			out = slices.Clone(x)
		case '?':
			for _, e := range x {
				yes, err := s.test.holds(e, budget)
				if err != nil {
					return nil, err
				}
				if yes {
					out = append(out, e)
				}
			}
		}
	}
	if s.what == 'd' {
		out = deep(nil, v, *budget)
	}
	if *budget -= len(out) + 1; *budget < 0 {
		return nil, errLarge
	}
	return out, nil
}

// deep is a value and all below it, up to somewhat more than a number of them.
func deep(out []any, v any, most int) []any {
	out = append(out, v)
	if len(out) > most {
		return out
	}
	switch x := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(x)) {
			out = deep(out, x[k], most)
		}
	case []any:
		for _, e := range x {
			out = deep(out, e, most)
		}
	}
	return out
}

func (t *test) holds(v any, budget *int) (bool, error) {
	found, err := walk([]any{v}, t.steps, budget)
	if err != nil || len(found) == 0 || t.op == "" {
		return err == nil && len(found) > 0, err
	}
	c, comparable := compare(found[0], t.value)
	switch t.op {
	case "==":
		return comparable && c == 0, nil
	case "!=":
		return !comparable || c != 0, nil
	case "<":
		return comparable && c < 0, nil
	case "<=":
		return comparable && c <= 0, nil
	case ">":
		return comparable && c > 0, nil
	}
	return comparable && c >= 0, nil
}

// compare compares numbers, texts and truth values with their like.
func compare(a, b any) (int, bool) {
	if x, ok := number(a); ok {
		y, ok := number(b)
		switch {
		case !ok:
			return 0, false
		case x < y:
			return -1, true
		case x > y:
			return 1, true
		}
		return 0, true
	}
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		return strings.Compare(x, y), ok
	case bool:
		y, ok := b.(bool)
		if x == y {
			return 0, ok
		}
		return 1, ok
	}
	return 0, false
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	}
	return 0, false
}

// written is a value as text: objects and lists as JSON.
func written(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		return v.String()
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	b, err := json.Marshal(v)
	if err != nil { // it came as JSON
		return ""
	}
	return string(b)
}

// Parse reads a template.
func Parse(s string) (*Template, error) {
	if len(s) > maxTemplate {
		return nil, fmt.Errorf("a JSONPath of %d bytes: the limit is %d", len(s), maxTemplate)
	}
	var t Template
	for rest := s; rest != ""; {
		text, after, ok := strings.Cut(rest, "{")
		if text != "" {
			t.parts = append(t.parts, part{text: text})
		}
		if !ok {
			break
		}
		p := &parser{s: after}
		x, err := p.action()
		if err != nil {
			return nil, fmt.Errorf("JSONPath %.100q: %w", s, err)
		}
		t.parts = append(t.parts, x)
		rest = p.s[p.at:]
	}
	if !slices.ContainsFunc(t.parts, func(p part) bool { return p.steps != nil }) {
		return nil, fmt.Errorf("JSONPath %.100q names no value: write {.status.phase}, with braces", s)
	}
	return &t, nil
}
