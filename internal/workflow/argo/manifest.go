package argo

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// A manifest is YAML in a text. Its tags are put aside before it is read, so that
// a value goes into the tree at the place of its tag and can add nothing beside
// it. A tag that is a whole value without quotes becomes what its value is as
// JSON (3, true, {"a": "b"}), else a text; that a text is a document is for who
// writes a manifest that is one tag and nothing else.

// Tags are put aside as their numbers between two marks, which no manifest has.
const (
	open = "\uE000"
	shut = "\uE001"
)

// manifest compiles one. The value of the result is what JSON knows.
func (c *compiler) manifest(n *document.Node, p *place) workflow.Expr {
	if !n.IsText() {
		n.Fail("the manifest has to be a text: write manifest: | before it")
		return nil
	}
	parts, err := split(n.Text())
	if err == nil && strings.ContainsAny(n.Text(), open+shut) {
		err = fmt.Errorf("the manifest holds U+E000 or U+E001, which are nobody's letters")
	}
	if err != nil {
		n.Fail("%v", err)
		return nil
	}
	m := &aside{}
	var b strings.Builder
	for i, part := range parts {
		if i%2 == 0 {
			b.WriteString(part)
			continue
		}
		e, err := p.tag(part)
		if err != nil {
			n.Fail("%v", err)
			return nil
		}
		b.WriteString(open + strconv.Itoa(len(m.tags)) + shut)
		m.tags = append(m.tags, e)
	}
	if len(m.tags) == 1 && strings.TrimSpace(b.String()) == open+"0"+shut {
		return parsed{m.tags[0]}
	}
	doc, err := one(b.String())
	if err != nil {
		n.Fail("the manifest: %v", err)
		return nil
	}
	return m.tree(doc)
}

// one reads the one document of a text.
func one(text string) (*document.Node, error) {
	var log document.Log
	docs := document.Read("", []byte(text), &log)
	if all := log.Problems(); len(all) > 0 {
		return nil, fmt.Errorf("line %d: %s", all[0].Line, strings.NewReplacer(open, "{{", shut, "}}").Replace(all[0].Text))
	}
	if len(docs) != 1 {
		return nil, fmt.Errorf("it is %d documents and has to be one: write a template for each", len(docs))
	}
	return docs[0], nil
}

// parsed is a manifest that is a value as a whole.
type parsed struct{ text workflow.Expr }

func (m parsed) String() string { return m.text.String() }

// Eval implements [workflow.Expr].
func (m parsed) Eval(s workflow.Scope) (workflow.Value, error) {
	v, err := m.text.Eval(s)
	if err != nil {
		return nil, err
	}
	if _, is := v.(string); !is {
		return v, nil
	}
	doc, err := one(v.(string))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m, err)
	}
	return doc.Value(), nil
}

// aside are the tags of a manifest.
type aside struct{ tags []workflow.Expr }

// tree compiles a node in whose texts there are tags put aside.
func (m *aside) tree(n *document.Node) workflow.Expr {
	switch {
	case n.IsMap():
		t := dict{}
		for _, e := range n.Entries() {
			t = append(t, pair{m.scalar(e.Key, false), m.tree(e.Node)})
		}
		return t
	case n.IsList():
		t := tree{list: []workflow.Expr{}}
		for _, e := range n.List() {
			t.list = append(t.list, m.tree(e))
		}
		return t
	case n.IsText():
		return m.scalar(n.Text(), n.IsPlain())
	}
	return workflow.Constant{Value: n.Value()}
}

// scalar compiles a text; plain is that it has no quotes.
func (m *aside) scalar(s string, plain bool) workflow.Expr {
	var parts []workflow.Expr
	rest := s
	for {
		before, after, ok := strings.Cut(rest, open)
		if before != "" {
			parts = append(parts, workflow.Constant{Value: before})
		}
		if !ok {
			break
		}
		number, behind, _ := strings.Cut(after, shut)
		i, err := strconv.Atoi(number)
		if err != nil || i >= len(m.tags) { // they were written here
			return workflow.Constant{Value: s}
		}
		parts, rest = append(parts, m.tags[i]), behind
	}
	switch {
	case len(parts) == 0 || rest == s:
		return workflow.Constant{Value: s}
	case len(parts) == 1 && plain:
		return typed{parts[0]}
	}
	return mixed{s, parts}
}

// typed is a value as its JSON, if it is some.
type typed struct{ text workflow.Expr }

func (t typed) String() string { return t.text.String() }

// Eval implements [workflow.Expr].
func (t typed) Eval(s workflow.Scope) (workflow.Value, error) {
	v, err := t.text.Eval(s)
	if err != nil {
		return nil, err
	}
	text, is := v.(string)
	if !is {
		return v, nil
	}
	if json.Valid([]byte(text)) {
		return json.RawMessage(text), nil // its numbers stay as they are written
	}
	return text, nil
}

// dict is a map whose keys may have tags, too.
type dict []pair

type pair struct{ key, value workflow.Expr }

func (d dict) String() string {
	var out []string
	for _, e := range d {
		out = append(out, e.key.String()+": "+e.value.String())
	}
	return "{" + strings.Join(out, ", ") + "}"
}

// has reports whether a key without tags is there.
func (d dict) has(key string) bool {
	for _, e := range d {
		if k, ok := e.key.(workflow.Constant); ok && k.Value == key {
			return true
		}
	}
	return false
}

// Eval implements [workflow.Expr].
func (d dict) Eval(s workflow.Scope) (workflow.Value, error) {
	out := make(map[string]any, len(d))
	for _, e := range d {
		k, err := e.key.Eval(s)
		if err != nil {
			return nil, err
		}
		key, err := workflow.Text(k)
		if err != nil {
			return nil, err
		}
		if out[key], err = e.value.Eval(s); err != nil {
			return nil, err
		}
	}
	return out, nil
}
