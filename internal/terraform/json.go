package terraform

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// A jsonNode is a value of a JSON file and the bytes it stands in. hcl has a
// reader of JSON of its own, which does not say where in a string something
// stands; edits need exactly that.
type jsonNode struct {
	start, end int
	value      any // nil, bool, json.Number, string; []*jsonNode; []jsonMember
}

type jsonMember struct {
	key   *jsonNode
	value *jsonNode
}

// jsonReader makes bodies of JSON, in the mapping of Terraform's JSON syntax.
type jsonReader struct {
	*parser
	dec   *json.Decoder
	lines []int // where each begins
	plain bool  // strings are strings and not templates
}

func (p *parser) json(plain bool) *body {
	r := &jsonReader{parser: p, plain: plain}
	if err := deepData(p.data); err != nil {
		p.problem(hcl.InitialPos, "not read: "+err.Error())
		return &body{}
	}
	r.lines = []int{0}
	for i, c := range p.data {
		if c == '\n' {
			r.lines = append(r.lines, i+1)
		}
	}
	bom := len(p.data) - len(bytes.TrimPrefix(p.data, []byte("\xef\xbb\xbf")))
	r.dec = json.NewDecoder(bytes.NewReader(p.data[bom:]))
	r.dec.UseNumber()
	root, err := r.node(bom)
	if err == nil && r.dec.More() {
		err = errors.New("there is more after the end")
	}
	if err != nil {
		p.problem(r.pos(bom+int(r.dec.InputOffset())), "not read: invalid JSON: "+jsonError(err))
		return &body{}
	}
	if plain {
		return r.body(root)
	}
	return r.root(root)
}

// jsonError leaves out what the decoder quotes from the file: it may be a secret.
func jsonError(err error) string {
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return "a syntax error"
	}
	return err.Error()
}

func (r *jsonReader) pos(offset int) hcl.Pos {
	line := sort.Search(len(r.lines), func(i int) bool { return r.lines[i] > offset })
	return hcl.Pos{Byte: offset, Line: line, Column: offset - r.lines[line-1] + 1}
}

func (r *jsonReader) rng(n *jsonNode) hcl.Range {
	return hcl.Range{Filename: r.file, Start: r.pos(n.start), End: r.pos(n.end)}
}

// node reads the next value. The decoder says where a token ends; where it
// begins is behind the white space and the one sign that may stand between.
func (r *jsonReader) node(bom int) (*jsonNode, error) {
	start := bom + int(r.dec.InputOffset())
	token, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	for start < len(r.data) && bytes.IndexByte([]byte(" \t\r\n:,"), r.data[start]) >= 0 {
		start++
	}
	n := &jsonNode{start: start, value: token}
	switch token {
	case json.Delim('['):
		items := []*jsonNode{}
		for r.dec.More() {
			item, err := r.node(bom)
			if err != nil {
				return nil, err
			}
			items = append(items, item)
		}
		n.value = items
		_, err = r.dec.Token()
	case json.Delim('{'):
		members := []jsonMember{}
		for r.dec.More() {
			k, err := r.node(bom)
			if err != nil {
				return nil, err
			}
			v, err := r.node(bom)
			if err != nil {
				return nil, err
			}
			members = append(members, jsonMember{k, v})
		}
		n.value = members
		_, err = r.dec.Token()
	}
	n.end = bom + int(r.dec.InputOffset())
	return n, err
}

// objects returns n, or its elements when it is a list: JSON may say either.
func (n *jsonNode) objects() []*jsonNode {
	if list, ok := n.value.([]*jsonNode); ok {
		return list
	}
	return []*jsonNode{n}
}

// members returns those of an object; "//" is how JSON writes a comment.
func (n *jsonNode) members() []jsonMember {
	all, _ := n.value.([]jsonMember)
	out := make([]jsonMember, 0, len(all))
	for _, m := range all {
		if m.key.value != "//" {
			out = append(out, m)
		}
	}
	return out
}

func (m jsonMember) name() string {
	s, _ := m.key.value.(string)
	return s
}

func (r *jsonReader) root(n *jsonNode) *body {
	out := &body{}
	labels := map[string]int{"resource": 2, "data": 2, "ephemeral": 2, "module": 1, "variable": 1, "output": 1, "provider": 1, "locals": 0, "terraform": 0}
	for _, object := range n.objects() {
		for _, m := range object.members() {
			if n, ok := labels[m.name()]; ok {
				r.blocks(out, m.name(), nil, n, m.key, m.value)
			}
		}
	}
	return out
}

// blocks adds the blocks of a type, as many as there are labels below.
func (r *jsonReader) blocks(out *body, typ string, labels []string, left int, key, n *jsonNode) {
	for _, object := range n.objects() {
		if left > 0 {
			for _, m := range object.members() {
				r.blocks(out, typ, append(labels[:len(labels):len(labels)], m.name()), left-1, m.key, m.value)
			}
			continue
		}
		if _, ok := object.value.([]jsonMember); !ok {
			r.problem(r.pos(object.start), fmt.Sprintf("invalid: %s wants an object", typ))
			continue
		}
		outer := r.plain
		// What a variable is by default is said, not computed.
		r.plain = outer || typ == "variable"
		b := &block{typ: typ, labels: labels, place: r.place(r.pos(key.start)), inside: whole(r.body(object))}
		r.plain = outer
		out.blocks = append(out.blocks, b)
	}
}

// body makes arguments of all members, but blocks of what has a `dynamic` in it.
func (r *jsonReader) body(n *jsonNode) *body {
	out := &body{}
	for _, m := range n.members() {
		switch {
		case m.name() == "dynamic" && !r.plain:
			for _, object := range m.value.objects() {
				for _, d := range object.members() {
					r.dynamic(out, d)
				}
			}
		case !r.plain && hasDynamic(m.value):
			r.blocks(out, m.name(), nil, 0, m.key, m.value)
		default:
			out.args = append(out.args, r.arg(m.name(), r.expression(m), r.pos(m.key.start)))
		}
	}
	return out
}

func (r *jsonReader) dynamic(out *body, d jsonMember) {
	for _, object := range d.value.objects() {
		inner := &body{}
		b := &block{typ: "dynamic", labels: []string{d.name()}, place: r.place(r.pos(d.key.start)), inside: whole(inner)}
		for _, m := range object.members() {
			if m.name() == "content" {
				r.blocks(inner, "content", nil, 0, m.key, m.value)
				continue
			}
			e := r.expression(m)
			if s, ok := m.value.value.(string); ok && m.name() == "iterator" {
				e = keyword(s, r.rng(m.value))
			}
			inner.args = append(inner.args, r.arg(m.name(), e, r.pos(m.key.start)))
		}
		out.blocks = append(out.blocks, b)
	}
}

func keyword(s string, at hcl.Range) hclsyntax.Expression {
	return &hclsyntax.ScopeTraversalExpr{Traversal: hcl.Traversal{hcl.TraverseRoot{Name: s, SrcRange: at}}, SrcRange: at}
}

func hasDynamic(n *jsonNode) bool {
	if list, ok := n.value.([]*jsonNode); ok {
		for _, item := range list {
			if hasDynamic(item) {
				return true
			}
		}
	}
	for _, m := range n.members() {
		if m.name() == "dynamic" || hasDynamic(m.value) {
			return true
		}
	}
	return false
}

// expression makes one of the value of a member. A type is written as it is
// in HCL, within a string.
func (r *jsonReader) expression(m jsonMember) hclsyntax.Expression {
	if s, ok := m.value.value.(string); ok && r.plain && m.name() == "type" {
		text := strings.TrimSuffix(strings.TrimPrefix(s, "${"), "}")
		if tooDeep([]byte(text), false, hcl.InitialPos) == nil {
			if e, diags := hclsyntax.ParseExpression([]byte(text), r.file, r.pos(m.value.start+1)); !diags.HasErrors() {
				return e
			}
		}
	}
	return r.valueExpr(m.value)
}

func (r *jsonReader) valueExpr(n *jsonNode) hclsyntax.Expression {
	at := r.rng(n)
	switch v := n.value.(type) {
	case string:
		return r.text(n, v)
	case bool:
		return &hclsyntax.LiteralValueExpr{Val: cty.BoolVal(v), SrcRange: at}
	case json.Number:
		if number, err := cty.ParseNumberVal(v.String()); err == nil {
			return &hclsyntax.LiteralValueExpr{Val: number, SrcRange: at}
		}
	case []*jsonNode:
		e := &hclsyntax.TupleConsExpr{SrcRange: at, OpenRange: at}
		for _, item := range v {
			e.Exprs = append(e.Exprs, r.valueExpr(item))
		}
		return e
	case []jsonMember:
		e := &hclsyntax.ObjectConsExpr{SrcRange: at, OpenRange: at}
		for _, m := range n.members() {
			e.Items = append(e.Items, hclsyntax.ObjectConsItem{
				KeyExpr:   &hclsyntax.ObjectConsKeyExpr{Wrapped: r.text(m.key, m.name())},
				ValueExpr: r.valueExpr(m.value),
			})
		}
		return e
	}
	return &hclsyntax.LiteralValueExpr{Val: cty.NullVal(cty.DynamicPseudoType), SrcRange: at}
}

// text makes an expression of a string. When it is written without escapes
// its parts stand where they are read; else all of them stand somewhere
// between the quotes.
func (r *jsonReader) text(n *jsonNode, s string) hclsyntax.Expression {
	inner := &jsonNode{start: n.start + 1, end: max(n.end-1, n.start+1)}
	at := r.rng(inner)
	whole := &hclsyntax.TemplateExpr{Parts: []hclsyntax.Expression{&hclsyntax.LiteralValueExpr{Val: cty.StringVal(s), SrcRange: at}}, SrcRange: at}
	if r.plain || !strings.Contains(s, "${") && !strings.Contains(s, "%{") {
		return whole
	}
	if err := tooDeep([]byte(s), true, hcl.InitialPos); err != nil {
		r.problem(at.Start, "not read as a template: "+err.Error())
		return whole
	}
	e, diags := hclsyntax.ParseTemplate([]byte(s), r.file, at.Start)
	if diags.HasErrors() {
		r.problem(at.Start, "invalid: "+lower(diags[0].Summary))
		return whole
	}
	if string(r.data[inner.start:inner.end]) != s {
		relocate(e, at)
	}
	return e
}

// relocate says of all literals of an expression that they stand at one range.
func relocate(e hclsyntax.Expression, at hcl.Range) {
	// The walk cannot fail: the function that visits does not.
	_ = hclsyntax.VisitAll(e, func(n hclsyntax.Node) hcl.Diagnostics {
		if l, ok := n.(*hclsyntax.LiteralValueExpr); ok {
			l.SrcRange = at
		}
		return nil
	})
}
