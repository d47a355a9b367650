// Package condition reads what is waited for in an object of Kubernetes, such as
//
//	status.phase == Succeeded
//	status.succeeded > 0, status.active notin (1, 2)
//	status.conditions[type=Ready].status == True
//
// It owns that little language: requirements apart by commas, each a path, an
// operator and one value or several. It is that of label selectors (the section
// "Labels and Selectors" of the Kubernetes documentation) with a path in place of
// a label, which is what Argo made of it; >=, <=, values in quotes and the choice
// of an entry by one of its fields are ours. It promises to be pure, to read and
// decide in bounded time, and to say before anything is run what cannot be read.
// It fetches nothing.
package condition

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Bounds of a condition.
const (
	maxText         = 4 << 10
	maxRequirements = 50
)

// A Condition is requirements of an object. Make one with [Parse]; it is never
// changed.
type Condition struct{ requirements []requirement }

// requirement is one of them.
type requirement struct {
	text   string
	path   []step
	op     string // "", "!", "=", "!=", "in", "notin", ">", ">=", "<", "<="
	values []string
	limit  int64 // of an operator that compares numbers
}

// step is one field of a path; with is what chooses an entry of the list there.
type step struct {
	field     string
	with, has string // [with=has]
}

// All reports whether an object meets all requirements. The object is JSON as
// encoding/json decodes it, with numbers as json.Number or as float64.
func (c *Condition) All(object any) bool {
	return !slices.ContainsFunc(c.requirements, func(r requirement) bool { return !r.meets(object) })
}

// Any returns the first requirement that an object meets, as it was written.
func (c *Condition) Any(object any) (text string, met bool) {
	for _, r := range c.requirements {
		if r.meets(object) {
			return r.text, true
		}
	}
	return "", false
}

func (r *requirement) meets(object any) bool {
	v, there := find(object, r.path)
	switch r.op {
	case "":
		return there
	case "!":
		return !there
	case "=", "in":
		return there && slices.Contains(r.values, text(v))
	case "!=", "notin":
		return !there || !slices.Contains(r.values, text(v))
	}
	n, err := strconv.ParseInt(text(v), 10, 64)
	if !there || err != nil {
		return false
	}
	switch r.op {
	case ">":
		return n > r.limit
	case ">=":
		return n >= r.limit
	case "<":
		return n < r.limit
	}
	return n <= r.limit
}

// find goes down a path; entries of lists have their numbers for names.
func find(v any, path []step) (any, bool) {
	for _, s := range path {
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[s.field]; !ok {
				return nil, false
			}
		case []any:
			i, err := strconv.Atoi(s.field)
			if err != nil || i < 0 || i >= len(x) {
				return nil, false
			}
			v = x[i]
		default:
			return nil, false
		}
		if s.with == "" {
			continue
		}
		list, _ := v.([]any)
		i := slices.IndexFunc(list, func(e any) bool {
			m, _ := e.(map[string]any)
			f, ok := m[s.with]
			return ok && text(f) == s.has
		})
		if i < 0 {
			return nil, false
		}
		v = list[i]
	}
	return v, true
}

// text is a value as conditions write it: null is an empty one.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		if _, err := v.Int64(); err == nil {
			return v.String()
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return strconv.FormatFloat(f, 'f', -1, 64)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	}
	b, err := json.Marshal(v)
	if err != nil { // it came as JSON
		return ""
	}
	return string(b)
}

// Parse reads a condition. An error says what is wrong and where.
func Parse(s string) (*Condition, error) {
	if len(s) > maxText {
		return nil, fmt.Errorf("a condition of %d bytes: the limit is %d", len(s), maxText)
	}
	p := &parser{s: s}
	var c Condition
	for {
		r, err := p.requirement()
		if err != nil {
			return nil, fmt.Errorf("condition %.100q: %w", s, err)
		}
		c.requirements = append(c.requirements, r)
		if len(c.requirements) > maxRequirements {
			return nil, fmt.Errorf("condition %.100q: more than %d requirements", s, maxRequirements)
		}
		if p.space(); p.at == len(s) {
			return &c, nil
		}
		if !p.take(",") {
			return nil, fmt.Errorf("condition %.100q: a comma is expected before %.20q", s, s[p.at:])
		}
	}
}

// String is the condition with its requirements as they were written.
func (c *Condition) String() string {
	var out []string
	for _, r := range c.requirements {
		out = append(out, r.text)
	}
	return strings.Join(out, ", ")
}
