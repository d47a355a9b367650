package terraform

import (
	"errors"
	"strings"

	"github.com/zclconf/go-cty/cty"
	yamlv3 "go.yaml.in/yaml/v3"

	"cairn.dev/cairn/internal/code"
)

// locate marks what was decoded from a text. Where the text stands in a file
// as it is read, each scalar gets the bytes it was decoded from as its origin;
// where it does not, everything has all the text's marks.
func locate(v cty.Value, text string, marks cty.ValueMarks) cty.Value {
	if len(marks) == 0 {
		return v
	}
	l := &locator{text: text}
	var rest []any
	for m := range marks.All() {
		if o, ok := m.(origin); ok && o.literal.text == text && o.literal.End-o.literal.Start == len(text) {
			l.whole = append(l.whole, o)
		} else {
			rest = append(rest, m)
		}
	}
	var doc yamlv3.Node
	if len(l.whole) == 0 || len(l.whole) > 4 || yamlv3.Unmarshal([]byte(text), &doc) != nil || len(doc.Content) != 1 {
		return v.WithMarks(marks)
	}
	l.lines = []int{0}
	for i := range len(text) {
		if text[i] == '\n' {
			l.lines = append(l.lines, i+1)
		}
	}
	return l.value(v, doc.Content[0]).WithMarks(cty.NewValueMarks(rest...))
}

// A locator walks a decoded value and the nodes of its text side by side.
type locator struct {
	text  string
	lines []int
	whole []origin
}

func (l *locator) value(v cty.Value, n *yamlv3.Node) cty.Value {
	if n != nil && n.Kind == yamlv3.AliasNode {
		n = n.Alias
	}
	t := v.Type()
	switch {
	case n == nil || v.IsNull():
		return l.anywhere(v)
	case n.Kind == yamlv3.MappingNode && t.IsObjectType():
		members := map[string]*yamlv3.Node{}
		l.members(n, members, maxNesting)
		return remake(v, func(k, e cty.Value) cty.Value { return l.value(e, members[k.AsString()]) })
	case n.Kind == yamlv3.SequenceNode && t.IsTupleType() && v.LengthInt() == len(n.Content):
		i := -1
		return remake(v, func(_, e cty.Value) cty.Value { i++; return l.value(e, n.Content[i]) })
	case n.Kind == yamlv3.ScalarNode && t.IsPrimitiveType():
		return l.scalar(v, n)
	}
	return l.anywhere(v)
}

// members are the values of a mapping by their keys, merged ones first.
func (l *locator) members(n *yamlv3.Node, out map[string]*yamlv3.Node, depth int) {
	if n.Kind == yamlv3.AliasNode {
		n = n.Alias
	}
	if n == nil || depth == 0 {
		return
	}
	if n.Kind == yamlv3.SequenceNode {
		for i := len(n.Content) - 1; i >= 0; i-- {
			l.members(n.Content[i], out, depth-1)
		}
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag == "!!merge" {
			l.members(n.Content[i+1], out, depth-1)
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		out[n.Content[i].Value] = n.Content[i+1]
	}
}

// anywhere marks what has no place of its own with the whole text's.
func (l *locator) anywhere(v cty.Value) cty.Value {
	marks := make([]any, len(l.whole))
	for i, o := range l.whole {
		marks[i] = o
	}
	return v.WithMarks(cty.NewValueMarks(marks...))
}

func (l *locator) scalar(v cty.Value, n *yamlv3.Node) cty.Value {
	start, ok := l.offset(n.Line, n.Column)
	if !ok {
		return l.anywhere(v)
	}
	if n.Style&(yamlv3.DoubleQuotedStyle|yamlv3.SingleQuotedStyle) != 0 {
		start++
	}
	// With escapes or over several lines the text is not what it says.
	if !strings.HasPrefix(l.text[min(start, len(l.text)):], n.Value) {
		return l.anywhere(v)
	}
	var marks []any
	for _, o := range l.whole {
		part := &literal{text: n.Value, Range: code.Range{File: o.literal.File, Start: o.literal.Start + start, End: o.literal.Start + start + len(n.Value)}}
		part.place = code.Place{File: o.literal.File, Line: o.literal.place.Line + n.Line - 1, Column: start - l.lines[n.Line-1] + 1}
		if n.Line == 1 {
			part.place.Column += o.literal.place.Column - 1
		}
		marks = append(marks, origin{literal: part, via: o.via})
	}
	return v.WithMarks(cty.NewValueMarks(marks...))
}

// offset is where a line and a column are. Columns of YAML count characters.
func (l *locator) offset(line, column int) (int, bool) {
	if line < 1 || line > len(l.lines) || column < 1 {
		return 0, false
	}
	start := l.lines[line-1]
	for i := range l.text[start:] {
		if column--; column == 0 {
			return start + i, true
		}
	}
	return 0, false
}

// bomb says why a text of YAML must not be decoded: what aliases name may
// grow without end.
func bomb(text string) error {
	if err := deepData([]byte(text)); err != nil {
		return &cause{"function yamldecode: " + err.Error()}
	}
	if !strings.Contains(text, "*") {
		return nil
	}
	var doc yamlv3.Node
	if yamlv3.Unmarshal([]byte(text), &doc) != nil {
		return errors.New("not YAML")
	}
	if expanded(&doc, map[*yamlv3.Node]int{}) > maxNodes {
		return &cause{"function yamldecode: its aliases make too much of it"}
	}
	return nil
}

// expanded is how many nodes there are when aliases are what they name.
func expanded(n *yamlv3.Node, known map[*yamlv3.Node]int) int {
	if size, ok := known[n]; ok {
		return size
	}
	known[n] = maxNodes + 1 // within itself it has no end
	size := 1
	if n.Kind == yamlv3.AliasNode && n.Alias != nil {
		size += expanded(n.Alias, known)
	}
	for _, c := range n.Content {
		size = min(size+expanded(c, known), maxNodes+1)
	}
	known[n] = size
	return size
}
