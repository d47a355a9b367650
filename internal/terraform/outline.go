package terraform

import (
	"bytes"
	"sync"

	"github.com/hashicorp/hcl/v2"
)

// A part is one block at the top of a file, found without parsing it: what it
// begins with, and its bytes, the closing brace included.
type part struct {
	typ        string
	labels     []string
	start, end int
	line       int // of start
}

// outline cuts a file of HCL into its blocks. Most of a repository is
// resources that no image comes from, and finding their ends is some thirty
// times faster than parsing them. It is strict: ok is false for anything that
// is not plainly blocks, one after the other, and then the file is parsed.
func outline(data []byte) (parts []part, ok bool) {
	s := &skipper{data: data, line: 1}
	for s.blank(); s.at < len(data); s.blank() {
		p := part{start: s.at, line: s.line}
		p.typ = s.name()
		for p.typ != "" && s.at < len(data) && data[s.at] != '{' {
			label := s.label()
			if label == "" {
				return nil, false
			}
			p.labels = append(p.labels, label)
		}
		if p.typ == "" || !s.braces() || !s.endOfLine() {
			return nil, false
		}
		p.end = s.at
		parts = append(parts, p)
	}
	return parts, true
}

// A skipper goes over HCL.
type skipper struct {
	data  []byte
	at    int
	line  int
	depth int // of braces within templates
}

// maxSkipped bounds how deep templates are in one another; what is deeper is
// left to the parser's own bounds.
const maxSkipped = 50

func (s *skipper) has(prefix string) bool { return bytes.HasPrefix(s.data[s.at:], []byte(prefix)) }

// blank goes over blanks, lines and comments.
func (s *skipper) blank() {
	for s.at < len(s.data) {
		switch c := s.data[s.at]; {
		case c == '\n':
			s.line++
			s.at++
		case c == ' ' || c == '\t' || c == '\r':
			s.at++
		case c == '#' || s.has("//"):
			s.toLine()
		case s.has("/*"):
			if !s.comment() {
				return
			}
		default:
			return
		}
	}
}

// toLine goes to the end of the line.
func (s *skipper) toLine() {
	if i := bytes.IndexByte(s.data[s.at:], '\n'); i >= 0 {
		s.at += i
	} else {
		s.at = len(s.data)
	}
}

func (s *skipper) comment() bool {
	end := bytes.Index(s.data[s.at+2:], []byte("*/"))
	if end < 0 {
		return false
	}
	s.line += bytes.Count(s.data[s.at:s.at+2+end], []byte("\n"))
	s.at += 2 + end + 2
	return true
}

// name reads a plain identifier and the blanks behind it; "" if there is none.
func (s *skipper) name() string {
	start := s.at
	for s.at < len(s.data) && wordByte(s.data[s.at]) {
		s.at++
	}
	name := string(s.data[start:s.at])
	if name == "" || name[0] == '-' || '0' <= name[0] && name[0] <= '9' {
		return ""
	}
	s.spaces()
	return name
}

func (s *skipper) spaces() {
	for s.at < len(s.data) && (s.data[s.at] == ' ' || s.data[s.at] == '\t') {
		s.at++
	}
}

// label reads an identifier or a string that holds nothing special.
func (s *skipper) label() string {
	if s.data[s.at] != '"' {
		return s.name()
	}
	rest := s.data[s.at+1:]
	end := bytes.IndexAny(rest, "\"\\\n$%")
	if end <= 0 || rest[end] != '"' {
		return ""
	}
	s.at += end + 2
	s.spaces()
	return string(rest[:end])
}

// endOfLine reports whether nothing but a comment is behind a block.
func (s *skipper) endOfLine() bool {
	at := s.at
	for at < len(s.data) && (s.data[at] == ' ' || s.data[at] == '\t' || s.data[at] == '\r') {
		at++
	}
	return at == len(s.data) || s.data[at] == '\n' || s.data[at] == '#' || bytes.HasPrefix(s.data[at:], []byte("//"))
}

// braces goes from an opening brace behind the closing one.
func (s *skipper) braces() bool {
	if s.at >= len(s.data) || s.data[s.at] != '{' || s.depth > maxSkipped {
		return false
	}
	open := 0
	for s.at < len(s.data) {
		switch c := s.data[s.at]; c {
		case '{':
			open++
			s.at++
		case '}':
			s.at++
			if open--; open == 0 {
				return true
			}
		case '\n':
			s.line++
			s.at++
		case '"':
			s.at++
			if !s.template('"') {
				return false
			}
		case '#':
			s.toLine()
		case '/':
			if s.has("//") {
				s.toLine()
			} else if s.has("/*") {
				if !s.comment() {
					return false
				}
			} else {
				s.at++
			}
		case '<':
			if s.has("<<") {
				if !s.heredoc() {
					return false
				}
			} else {
				s.at++
			}
		default:
			s.at++
		}
	}
	return false
}

// template goes over the text of a template, behind its end.
func (s *skipper) template(end byte) bool {
	for s.at < len(s.data) {
		switch c := s.data[s.at]; {
		case c == end:
			s.at++
			return true
		case c == '\\':
			s.at += 2
		case c == '\n':
			return false
		case s.has("$${") || s.has("%%{"):
			s.at += 3
		case s.has("${") || s.has("%{"):
			if !s.interpolation() {
				return false
			}
		default:
			s.at++
		}
	}
	return false
}

// interpolation goes over ${…} or %{…}.
func (s *skipper) interpolation() bool {
	s.at++
	s.depth++
	done := s.braces()
	s.depth--
	return done
}

// heredoc goes over a here-document, to the end of its last line.
func (s *skipper) heredoc() bool {
	s.at += 2
	if s.has("-") {
		s.at++
	}
	start := s.at
	for s.at < len(s.data) && wordByte(s.data[s.at]) {
		s.at++
	}
	mark := s.data[start:s.at]
	if s.has("\r") {
		s.at++
	}
	if len(mark) == 0 || !s.has("\n") {
		return false
	}
	for s.at < len(s.data) {
		s.at++ // the end of the line before
		s.line++
		line := s.data[s.at:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i]
		}
		if bytes.Equal(bytes.TrimSpace(line), mark) {
			s.at += len(line)
			return true
		}
		for end := s.at + len(line); s.at < end; {
			switch {
			case s.has("$${") || s.has("%%{"):
				s.at += 3
			case s.has("${") || s.has("%{"):
				if !s.interpolation() {
					return false
				}
				if s.at > end { // it went over lines
					return false
				}
			default:
				s.at++
			}
		}
	}
	return false
}

// neverAsked are blocks that no expression of a module can refer to, and that
// no image is in.
func neverAsked(typ string) bool {
	switch typ {
	case "provider", "terraform", "moved", "removed", "import", "check":
		return true
	}
	return false
}

// later is a block that is parsed when somebody asks what is in it. What is
// wrong with it is nobody's problem then: it costs no image but those that
// refer to it, and these say that they do not know.
type later struct {
	file string
	data []byte // of the whole file
	part part
}

func (l later) parse() *body {
	p := &parser{file: l.file, data: l.data}
	for _, b := range p.segment(l.part.start, l.part.end, l.part.line).blocks {
		return b.inside()
	}
	return &body{}
}

// segment parses some bytes of the file, of which start is the first of a line.
func (p *parser) segment(start, end, line int) *body {
	return p.config(p.data[start:end], hcl.Pos{Byte: start, Line: line, Column: 1})
}

// outlined parses the blocks of a file that are needed for certain, and leaves
// the others for later: resources of types that hold no images.
func (p *parser) outlined(parts []part, sinks map[string]bool) *body {
	out := &body{}
	for i := 0; i < len(parts); i++ {
		first := parts[i]
		if neverAsked(first.typ) {
			continue
		}
		if p.canWait(first, sinks) {
			b := &block{typ: first.typ, labels: first.labels, place: p.place(hcl.Pos{Byte: first.start, Line: first.line})}
			b.inside = sync.OnceValue(later{p.file, p.data, first}.parse)
			out.blocks = append(out.blocks, b)
			continue
		}
		last := first
		for i+1 < len(parts) && !neverAsked(parts[i+1].typ) && !p.canWait(parts[i+1], sinks) {
			i++
			last = parts[i]
		}
		out.blocks = append(out.blocks, p.segment(first.start, last.end, first.line).blocks...)
	}
	return out
}

func (p *parser) canWait(b part, sinks map[string]bool) bool {
	return (b.typ == "resource" || b.typ == "data") && len(b.labels) == 2 && !sinks[b.labels[0]]
}
