package terraform

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"cairn.dev/cairn/internal/code"
)

// A source is one file, parsed: HCL and JSON look the same from here on. It
// is not changed after it is made, and may be shared.
type source struct {
	body     *body
	literals []*literal // by start
	keys     []*literal // those that are keys of objects
	problems []code.Problem
	data     []byte
}

// A body is arguments and nested blocks, each in the order they are written.
type body struct {
	args   []*arg
	blocks []*block
}

type arg struct {
	name  string
	expr  hclsyntax.Expression
	place code.Place
	data  []byte // of its file
	// What the expression refers to, and the names that it asks of things
	// that are only known when it is evaluated: a[each.key].NAME.
	refs  []hcl.Traversal
	hints []string
}

type block struct {
	typ    string
	labels []string
	place  code.Place
	inside func() *body // parsed by the first who asks
}

// whole is a block's inside that is there already.
func whole(b *body) func() *body { return func() *body { return b } }

func (b *body) arg(name string) *arg {
	for _, a := range b.args {
		if a.name == name {
			return a
		}
	}
	return nil
}

func (b *block) label(i int) string {
	if i < len(b.labels) {
		return b.labels[i]
	}
	return ""
}

// isJSON reports whether a file's name says that it is in JSON.
func isJSON(name string) bool { return strings.HasSuffix(name, ".json") }

// isConfig reports whether a file of that name is part of a module.
func isConfig(name string) bool {
	name = strings.TrimSuffix(name, ".json")
	return strings.HasSuffix(name, ".tf") || strings.HasSuffix(name, ".tofu")
}

// isVariables reports whether a file of that name gives values to variables.
func isVariables(name string) bool {
	return strings.HasSuffix(strings.TrimSuffix(name, ".json"), ".tfvars")
}

// parse reads a file of either syntax. What is wrong with it is among its
// problems, and the rest of it is there. Resources of types that are not among
// sinks are parsed only if somebody asks for them, but in files with markers,
// which may be about any literal.
func parse(f code.File, sinks map[string]bool) *source {
	p := &parser{file: f.Path, data: f.Data}
	s := &source{body: &body{}, data: f.Data}
	switch {
	case len(f.Data) > maxFile:
		p.problem(hcl.InitialPos, fmt.Sprintf("not read: it has %d bytes, more than %d", len(f.Data), maxFile))
	case isJSON(f.Path):
		s.body = p.json(isVariables(f.Path))
	default:
		parts, ok := []part(nil), false
		if isConfig(f.Path) && !bytes.Contains(f.Data, []byte("cairn:")) {
			parts, ok = outline(f.Data)
		}
		if ok {
			s.body = p.outlined(parts, sinks)
		} else {
			s.body = p.config(f.Data, hcl.InitialPos)
		}
	}
	slices.SortStableFunc(p.literals, func(a, b *literal) int { return a.Start - b.Start })
	s.literals, s.keys, s.problems = p.literals, p.keys, p.problems
	return s
}

type parser struct {
	file     string
	data     []byte
	offset   int  // of data in the file: not 0 for texts within it
	unmarked bool // within the key of an object
	literals []*literal
	keys     []*literal
	problems []code.Problem
}

func (p *parser) problem(at hcl.Pos, text string) {
	p.problems = append(p.problems, code.Problem{Place: p.place(at), Text: text})
}

// place turns a position into one for people, whose columns are bytes.
func (p *parser) place(at hcl.Pos) code.Place {
	if p.offset > 0 {
		return code.Place{File: p.file, Line: at.Line, Column: at.Column}
	}
	return placeIn(p.file, p.data, at)
}

func placeIn(file string, data []byte, at hcl.Pos) code.Place {
	offset := min(max(at.Byte, 0), len(data))
	return code.Place{File: file, Line: at.Line, Column: offset - bytes.LastIndexByte(data[:offset], '\n')}
}

// diagnostics keeps the first few of a file's errors: one missing brace makes many.
func (p *parser) diagnostics(diags hcl.Diagnostics) {
	const enough = 3
	n := 0
	for _, d := range diags {
		if d.Severity != hcl.DiagError || d.Subject == nil {
			continue
		}
		if n++; n > enough {
			return
		}
		p.problem(d.Subject.Start, "invalid: "+lower(d.Summary)+"; the rest of the file is read as far as possible")
	}
}

// lower makes a summary of hcl's begin as our errors do.
func lower(s string) string {
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && (s[1] < 'A' || s[1] > 'Z') {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

// config parses HCL that stands at a position of the file.
func (p *parser) config(data []byte, at hcl.Pos) *body {
	if err := tooDeep(data, false, at); err != nil {
		p.problem(at, "not read: "+err.Error())
		return &body{}
	}
	f, diags := parseConfig(data, p.file, at)
	p.diagnostics(diags)
	if f == nil {
		return &body{}
	}
	b, ok := f.Body.(*hclsyntax.Body)
	if !ok {
		return &body{}
	}
	return p.body(b)
}

// parseConfig is hcl's parser behind a fence: a file that makes it panic is a
// file that cannot be read, and not the end of a server.
func parseConfig(data []byte, name string, at hcl.Pos) (f *hcl.File, diags hcl.Diagnostics) {
	defer func() {
		if r := recover(); r != nil {
			f, diags = nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "The parser gave up", Subject: &hcl.Range{Filename: name, Start: at, End: at}}}
		}
	}()
	return hclsyntax.ParseConfig(data, name, at)
}

func (p *parser) body(b *hclsyntax.Body) *body {
	out := &body{args: make([]*arg, 0, len(b.Attributes)), blocks: make([]*block, 0, len(b.Blocks))}
	attributes := make([]*hclsyntax.Attribute, 0, len(b.Attributes))
	for _, a := range b.Attributes {
		attributes = append(attributes, a)
	}
	slices.SortFunc(attributes, func(a, b *hclsyntax.Attribute) int { return a.SrcRange.Start.Byte - b.SrcRange.Start.Byte })
	for _, a := range attributes {
		out.args = append(out.args, p.arg(a.Name, a.Expr, a.SrcRange.Start))
	}
	for _, k := range b.Blocks {
		out.blocks = append(out.blocks, &block{typ: k.Type, labels: k.Labels, place: p.place(k.TypeRange.Start), inside: whole(p.body(k.Body))})
	}
	return out
}

// arg makes an argument of an expression: its literals are marked, its loops
// and templates are put under the meter.
func (p *parser) arg(name string, e hclsyntax.Expression, at hcl.Pos) *arg {
	a := &arg{name: name, place: p.place(at), data: p.data}
	// Before the meter goes in: afterwards the tree has nodes that hcl does not know.
	a.refs = hclsyntax.Variables(e)
	p.number(e)
	a.expr = p.prepare(e, a)
	return a
}

// literal notes bytes that say a string.
func (p *parser) literal(r hcl.Range, text string) *literal {
	l := &literal{Range: code.Range{File: p.file, Start: r.Start.Byte, End: r.End.Byte}, place: p.place(r.Start), text: text, lined: r.End.Line-r.Start.Line == strings.Count(text, "\n")}
	p.literals = append(p.literals, l)
	return l
}
