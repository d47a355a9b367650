package manifest

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"cairn.dev/cairn/internal/code"
)

// dockerfile reads what a Dockerfile builds on: FROM, COPY --from,
// RUN --mount=from= and the syntax directive. ARG before the first FROM is
// traced to its default (Dockerfile reference, "Understand how ARG and FROM
// interact").
func (s *sheet) dockerfile() {
	if !utf8.Valid(s.file.Data) || bytes.IndexByte(s.file.Data, 0) >= 0 {
		return
	}
	d := &dock{sheet: s, args: map[string]word{}, stages: map[string]bool{}}
	for _, i := range instructions(s.file.Data) {
		d.instruction(i)
	}
}

// dock is a Dockerfile being read.
type dock struct {
	*sheet
	args   map[string]word // before the first FROM
	stages map[string]bool
	count  int    // of stages
	stage  string // the one we are in
}

// A token is a word of an instruction, and where it starts.
type token struct {
	text string
	at   int
}

// An instruction with its words, the first in upper case.
type instruction struct {
	name   string
	tokens []token
}

var syntaxRE = regexp.MustCompile(`(?i)^#[ \t]*syntax[ \t]*=[ \t]*(\S+)`)

// instructions cuts a Dockerfile into instructions. Continued lines are joined,
// comments and here-documents left out.
func instructions(data []byte) []instruction {
	var list []instruction
	var current *instruction
	escape, directives, waiting := byte('\\'), true, []string(nil)
	for at := 0; at < len(data); {
		line := data[at:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i+1]
		}
		begin := at
		at += len(line)
		if begin == 0 {
			begin += len(line) - len(bytes.TrimPrefix(line, []byte("\ufeff")))
			line = data[begin:at]
		}
		trimmed := strings.TrimSpace(string(line))
		if len(waiting) > 0 { // in a here-document
			if trimmed == waiting[0] {
				waiting = waiting[1:]
			}
			continue
		}
		if strings.HasPrefix(trimmed, "#") {
			if m := syntaxRE.FindStringSubmatchIndex(trimmed); directives && m != nil {
				indent := bytes.IndexByte(line, '#')
				list = append(list, instruction{"SYNTAX", []token{{trimmed[m[2]:m[3]], begin + indent + m[2]}}})
			}
			if _, v, ok := strings.Cut(strings.ToLower(trimmed), "escape="); directives && ok && strings.HasPrefix(v, "`") {
				escape = '`'
			}
			continue
		}
		if trimmed == "" {
			continue
		}
		directives = false
		text := strings.TrimRight(string(line), " \t\r\n")
		continued := strings.HasSuffix(text, string(escape))
		if continued {
			text = text[:len(text)-1]
		}
		tokens := words(text, begin)
		if current == nil {
			if len(tokens) == 0 {
				continue
			}
			current = &instruction{name: strings.ToUpper(tokens[0].text)}
			tokens = tokens[1:]
		}
		current.tokens = append(current.tokens, tokens...)
		if !continued {
			list = append(list, *current)
			waiting, current = heredocs(*current), nil
		}
	}
	if current != nil {
		list = append(list, *current)
	}
	return list
}

var heredocRE = regexp.MustCompile(`<<-?["']?([A-Za-z_][A-Za-z0-9_]*)["']?`)

// heredocs are the ends of the here-documents that an instruction begins.
func heredocs(i instruction) []string {
	if i.name != "RUN" && i.name != "COPY" && i.name != "ADD" {
		return nil
	}
	var ends []string
	for _, t := range i.tokens {
		for _, m := range heredocRE.FindAllStringSubmatch(t.text, -1) {
			ends = append(ends, m[1])
		}
	}
	return ends
}

// words cuts a line at blanks that are not within quotes.
func words(line string, at int) []token {
	var list []token
	for i := 0; i < len(line); {
		if line[i] == ' ' || line[i] == '\t' {
			i++
			continue
		}
		start, quote := i, byte(0)
		for ; i < len(line) && (quote != 0 || line[i] != ' ' && line[i] != '\t'); i++ {
			switch {
			case quote != 0 && line[i] == quote:
				quote = 0
			case quote == 0 && (line[i] == '"' || line[i] == '\''):
				quote = line[i]
			}
		}
		list = append(list, token{line[start:i], at + start})
	}
	return list
}

func (d *dock) instruction(i instruction) {
	switch i.name {
	case "SYNTAX":
		d.found("file", "syntax", i.tokens[0], nil)
	case "ARG":
		if d.count == 0 {
			for _, t := range i.tokens {
				d.arg(t)
			}
		}
	case "FROM":
		d.from(i.tokens)
	case "COPY":
		for _, t := range i.tokens {
			if from, ok := strings.CutPrefix(t.text, "--from="); ok {
				d.other("COPY --from", token{from, t.at + len("--from=")})
			}
		}
	case "RUN":
		for _, t := range i.tokens {
			mount, ok := strings.CutPrefix(t.text, "--mount=")
			at := t.at + len("--mount=")
			for part := range strings.SplitSeq(mount, ",") {
				if from, is := strings.CutPrefix(part, "from="); ok && is {
					d.other("RUN --mount", token{from, at + len("from=")})
				}
				at += len(part) + 1
			}
		}
	}
}

// arg remembers NAME=default.
func (d *dock) arg(t token) {
	name, value, set := strings.Cut(t.text, "=")
	if !set {
		if _, known := d.args[name]; !known {
			d.args[name] = word{unknown: "value not in the repository: ARG " + name + " has no default"}
		}
		return
	}
	v := unquoted(token{value, t.at + len(name) + 1})
	w := expand(v.text, []code.Range{d.rangeOf(v)}, d.lookup)
	w.steps = append([]code.Step{{Name: "ARG " + name, Place: code.PlaceOf(d.file, t.at)}}, w.steps...)
	d.args[name] = w
}

func (d *dock) lookup(name string) (word, bool) {
	w, ok := d.args[name]
	return w, ok
}

func (d *dock) rangeOf(t token) code.Range {
	return code.Range{File: d.file.Path, Start: t.at, End: t.at + len(t.text)}
}

// unquoted is the token without the quotes around all of it.
func unquoted(t token) token {
	if q := quoteOf(t.text); q != 0 && len(t.text) > 1 && t.text[len(t.text)-1] == q {
		return token{t.text[1 : len(t.text)-1], t.at + 1}
	}
	return t
}

// from reads FROM [--platform=P] image [AS name].
func (d *dock) from(tokens []token) {
	for len(tokens) > 0 && strings.HasPrefix(tokens[0].text, "--") {
		tokens = tokens[1:]
	}
	if len(tokens) == 0 {
		return
	}
	name := strconv.Itoa(d.count)
	d.count++
	if len(tokens) == 3 && strings.EqualFold(tokens[1].text, "as") {
		name = tokens[2].text
	}
	img := tokens[0]
	d.stage = "stage " + name
	if !d.stages[strings.ToLower(img.text)] && img.text != "scratch" {
		d.found(d.stage, "FROM", img, d.lookup)
	}
	d.stages[strings.ToLower(name)] = true
}

// other reads an image that an instruction names besides FROM. Variables are
// not replaced there.
func (d *dock) other(path string, t token) {
	t = unquoted(t)
	if _, err := strconv.Atoi(t.text); err == nil || d.stages[strings.ToLower(t.text)] || t.text == "" {
		return
	}
	if !strings.ContainsAny(t.text, ":@/$") {
		return // a context of the build, or an image without a version
	}
	d.found(d.stage, path, t, nil)
}

// found adds an image that a token spells.
func (d *dock) found(address, path string, t token, lookup func(string) (word, bool)) {
	t = unquoted(t)
	place := code.PlaceOf(d.file, t.at)
	w := word{value: t.text, sources: []code.Range{d.rangeOf(t)}}
	if lookup != nil {
		w = expand(t.text, w.sources, lookup)
	} else if strings.Contains(t.text, "$") {
		w.unknown = "variables are not replaced here"
	}
	i := code.Image{Format: code.Dockerfile, Address: address, Path: path, Place: place, Value: w.value, Sources: w.sources,
		Chain: append([]code.Step{{Name: path, Place: place}}, w.steps...), Fixed: w.unknown}
	if _, err := code.ParseReference(w.value); err != nil && i.Fixed == "" {
		i.Fixed = err.Error()
	}
	if i.Fixed != "" {
		i.Value = ""
	}
	d.add(i)
}
