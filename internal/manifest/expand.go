package manifest

import (
	"strconv"
	"strings"

	"cairn.dev/cairn/internal/code"
)

// A word is text with where it comes from.
type word struct {
	value   string
	sources []code.Range
	steps   []code.Step
	unknown string // why the value is not known
}

// maxExpanded bounds what variables may grow a reference to. The longest real
// one has about 400 bytes.
const maxExpanded = 4096

// expanded returns the node with the variables in all its strings replaced. A
// string whose value is not known then becomes unknown.
func expanded(n *code.Node, lookup func(string) (word, bool)) *code.Node {
	return expandedBelow(n, lookup, maxDepth)
}

func expandedBelow(n *code.Node, lookup func(string) (word, bool), depth int) *code.Node {
	if n == nil || depth == 0 {
		return n
	}
	if n.Kind == code.String && strings.Contains(n.Text, "$") {
		w := expand(n.Text, nil, lookup)
		made := &code.Node{Kind: code.String, Text: w.value}
		if w.unknown != "" {
			made.Kind, made.Text = code.Unknown, w.unknown
		}
		o, _ := n.Origin.(origin)
		o.via = &w
		made.Origin = o
		return made
	}
	if len(n.Items) == 0 {
		return n
	}
	made := &code.Node{Kind: n.Kind, Keys: n.Keys, Origin: n.Origin, Items: make([]*code.Node, len(n.Items))}
	for i, item := range n.Items {
		made.Items[i] = expandedBelow(item, lookup, depth-1)
	}
	return made
}

// expand replaces the variables of a text that stands at the sources:
// $X, ${X}, ${X:-default}, ${X-default}, ${X:+other}, ${X+other}, ${X:?message},
// and $$ for a dollar (the forms that Compose and Dockerfiles share).
func expand(text string, sources []code.Range, lookup func(string) (word, bool)) word {
	out := word{sources: sources}
	out.value = out.expand(text, lookup, 0)
	return out
}

func (w *word) expand(text string, lookup func(string) (word, bool), depth int) string {
	var b strings.Builder
	for text != "" && w.unknown == "" {
		before, rest, ok := strings.Cut(text, "$")
		b.WriteString(before)
		if text = rest; !ok {
			break
		}
		switch {
		case strings.HasPrefix(text, "$"):
			b.WriteByte('$')
			text = text[1:]
		case strings.HasPrefix(text, "{"):
			inner := braces(text)
			if inner < 0 || depth > 8 {
				w.unknown = "a ${ without its }"
				break
			}
			b.WriteString(w.variable(text[1:inner], lookup, depth))
			text = text[inner+1:]
		default:
			n := nameLength(text)
			if n == 0 {
				b.WriteByte('$')
				break
			}
			b.WriteString(w.variable(text[:n], lookup, depth))
			text = text[n:]
		}
		if b.Len() > maxExpanded {
			w.unknown = "it is longer than " + strconv.Itoa(maxExpanded) + " bytes when its variables are replaced"
		}
	}
	return b.String()
}

// variable returns what stands for the inside of ${…}.
func (w *word) variable(inside string, lookup func(string) (word, bool), depth int) string {
	n := nameLength(inside)
	name, op := inside[:n], inside[n:]
	v, set := lookup(name)
	use := func() string {
		w.sources = append(w.sources, v.sources...)
		w.steps = append(w.steps, v.steps...)
		if v.unknown != "" {
			w.unknown = v.unknown
		}
		return v.value
	}
	filled := set && v.value != ""
	switch {
	case n == 0:
	case op == "" && set, strings.HasPrefix(op, ":-") && filled, strings.HasPrefix(op, "-") && set,
		strings.HasPrefix(op, ":?") && filled, strings.HasPrefix(op, "?") && set:
		return use()
	case strings.HasPrefix(op, ":-"), strings.HasPrefix(op, "-"):
		return w.expand(strings.TrimPrefix(strings.TrimPrefix(op, ":"), "-"), lookup, depth+1)
	case strings.HasPrefix(op, ":+") && filled, strings.HasPrefix(op, "+") && set:
		return w.expand(strings.TrimPrefix(strings.TrimPrefix(op, ":"), "+"), lookup, depth+1)
	case strings.HasPrefix(op, ":+"), strings.HasPrefix(op, "+"):
		return ""
	case op == "" || strings.HasPrefix(op, ":?") || strings.HasPrefix(op, "?"):
		w.unknown = "value not in the repository: " + name + " has no default"
		return ""
	}
	w.unknown = "the form ${" + inside[:min(len(inside), 40)] + "} is not known"
	return ""
}

// braces returns where the } is that closes the { that s begins with; -1 if nowhere.
func braces(s string) int {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func nameLength(s string) int {
	n := 0
	for n < len(s) && (s[n] == '_' || 'a' <= s[n] && s[n] <= 'z' || 'A' <= s[n] && s[n] <= 'Z' || n > 0 && '0' <= s[n] && s[n] <= '9') {
		n++
	}
	return n
}
