package manifest

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"cairn.dev/cairn/internal/code"
)

// text is YAML's bytes with its lines, to find what the parser's lines and
// columns mean.
type text struct {
	data  []byte
	lines []int // offset of the start of each
}

func newText(data []byte) *text {
	t := &text{data: data, lines: []int{0}}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		t.lines[0] = len("\ufeff") // the parser does not count it
	}
	for i := 0; i < len(data); {
		n := lineBreak(data[i:])
		if n > 0 {
			t.lines = append(t.lines, i+n)
		}
		i += max(n, 1)
	}
	return t
}

// lineBreak is the length of the line break that b begins with; 0 if it is
// none. YAML 1.1 has more of them than text files do.
func lineBreak(b []byte) int {
	switch {
	case b[0] == '\n':
		return 1
	case b[0] == '\r':
		if len(b) > 1 && b[1] == '\n' {
			return 2
		}
		return 1
	case b[0] == 0xC2 && len(b) > 1 && b[1] == 0x85: // NEL
		return 2
	case b[0] == 0xE2 && len(b) > 2 && b[1] == 0x80 && (b[2] == 0xA8 || b[2] == 0xA9): // LS, PS
		return 3
	}
	return 0
}

// offset returns where line and column (from 1, in characters) are; -1 if nowhere.
func (t *text) offset(line, column int) int {
	if line < 1 || line > len(t.lines) || column < 1 {
		return -1
	}
	at := t.lines[line-1]
	for range column - 1 {
		if at >= len(t.data) {
			return -1
		}
		_, n := utf8.DecodeRune(t.data[at:])
		at += n
	}
	return at
}

// scalar returns the bytes of a scalar's content: between its quotes, or the
// lines of a block. ok is false when they cannot be told for certain.
func (t *text) scalar(n *yaml.Node) (start, end int, ok bool) {
	at := t.offset(n.Line, n.Column)
	if at < 0 || n.Kind != yaml.ScalarNode {
		return 0, 0, false
	}
	at = t.properties(at)
	rest := t.data[at:]
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		return t.quoted(at, '"')
	case n.Style&yaml.SingleQuotedStyle != 0:
		return t.quoted(at, '\'')
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return t.block(at)
	}
	if n.Value == "" || !bytes.HasPrefix(rest, []byte(n.Value)) {
		return 0, 0, false // empty, or over several lines
	}
	return at, at + len(n.Value), true
}

// properties skips the anchor and the tag in front of a node.
func (t *text) properties(at int) int {
	for at < len(t.data) && (t.data[at] == '&' || t.data[at] == '!') {
		for at < len(t.data) && !strings.ContainsRune(" \t\r\n", rune(t.data[at])) {
			at++
		}
		for at < len(t.data) && strings.ContainsRune(" \t\r\n", rune(t.data[at])) {
			at++
		}
	}
	return at
}

func (t *text) quoted(at int, quote byte) (start, end int, ok bool) {
	if at >= len(t.data) || t.data[at] != quote {
		return 0, 0, false
	}
	start = at + 1
	for i := start; i < len(t.data); i++ {
		switch {
		case quote == '"' && t.data[i] == '\\':
			i++
		case t.data[i] != quote:
		case quote == '\'' && i+1 < len(t.data) && t.data[i+1] == '\'':
			i++
		default:
			return start, i, true
		}
	}
	return 0, 0, false
}

// block returns the lines below the header of a literal or folded scalar that
// are indented as its first one is.
func (t *text) block(at int) (start, end int, ok bool) {
	if at >= len(t.data) || t.data[at] != '|' && t.data[at] != '>' {
		return 0, 0, false
	}
	line := bytes.IndexByte(t.data[at:], '\n')
	if line < 0 {
		return 0, 0, false
	}
	start = at + line + 1
	end = start
	indent := -1
	for i := start; i < len(t.data); {
		l := t.data[i:]
		if j := bytes.IndexByte(l, '\n'); j >= 0 {
			l = l[:j+1]
		}
		content := bytes.TrimLeft(l, " ")
		blank := len(bytes.TrimSpace(content)) == 0
		if !blank {
			if indent < 0 {
				indent = len(l) - len(content)
			}
			if indent == 0 || len(l)-len(content) < indent {
				break
			}
			end = i + len(bytes.TrimRight(l, "\r\n"))
		}
		i += len(l)
	}
	return start, end, end > start
}

// place is where a node stands, for people.
func (t *text) place(f code.File, n *yaml.Node) code.Place {
	if at := t.offset(n.Line, n.Column); at >= 0 {
		return code.PlaceOf(f, t.properties(at))
	}
	return code.Place{File: f.Path, Line: n.Line}
}
