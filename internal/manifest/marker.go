package manifest

import (
	"bytes"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"cairn.dev/cairn/internal/code"
)

// markers reads the comments that name an image. They are found line by line,
// so that they work in templates and in formats that nothing here parses.
func (s *sheet) markers() {
	if !bytes.Contains(s.file.Data, []byte("cairn:")) {
		return
	}
	at, n := 0, 0
	var waiting *code.MarkerComment // it stood on a line of its own
	since := 0
	lost := func() {
		if waiting != nil {
			s.problem(since, "the marker of "+waiting.Image+" marks nothing: write it above the line with the tag, or at its end")
		}
		waiting = nil
	}
	for line := range strings.Lines(string(s.file.Data)) {
		n++
		begin := at
		at += len(line)
		if m, ok := code.ParseMarker(line); ok {
			lost()
			if strings.TrimSpace(m.Before) != "" {
				s.marked(m, m.Before, begin, n)
			} else {
				waiting, since = &m, n
			}
			continue
		}
		if waiting == nil || commentOrBlank(line) {
			continue
		}
		s.marked(*waiting, line, begin, n)
		waiting = nil
	}
	lost()
}

func commentOrBlank(line string) bool {
	line = strings.TrimSpace(line)
	return line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "//")
}

// marked adds what the marker says about a line, or about the part of it in
// front of the marker.
func (s *sheet) marked(m code.MarkerComment, line string, begin, n int) {
	start, end := markedText(m, line)
	seen, fixed := s.seen(line, start, end), ""
	value, ok := m.Marked(seen)
	if ok && seen != line[start:end] {
		fixed = misread(line[start:end], seen)
	}
	if colon := strings.LastIndexByte(line[start:end], ':'); !ok && colon >= 0 { // other/name:TAG
		start += colon + 1
		value, ok = m.Marked(line[start:end])
	}
	if !ok {
		s.problem(n, "the marker of "+m.Image+" finds no tag or digest on its line; write the value last, alone or in quotes")
		return
	}
	from := code.Range{File: s.file.Path, Start: begin + start, End: begin + end}
	if s.alreadyFound(m, from, n) {
		return
	}
	place := code.PlaceOf(s.file, from.Start)
	s.add(code.Image{Format: code.Marker, Address: m.Image, Path: "marker", Place: place, Value: value, Policy: m.Policy, Fixed: fixed,
		Sources: []code.Range{from}, Chain: []code.Step{{Name: "marker", Place: place}, {Name: line[start:end], Place: place}}})
}

// alreadyFound gives the policy of a marker to the image that it is beside, if
// the format says itself that there is one. One that lacks its repository is
// replaced by what the marker says.
func (s *sheet) alreadyFound(m code.MarkerComment, at code.Range, line int) bool {
	wanted, _ := code.ParseReference(m.Image)
	beside := func(i code.Image) bool {
		return slices.ContainsFunc(i.Sources, func(r code.Range) bool {
			return r.File == at.File && r.Start < at.End && at.Start < r.End
		})
	}
	s.found.images = slices.DeleteFunc(s.found.images, func(i code.Image) bool { return i.Value == "" && beside(i) })
	any := false
	for k, i := range s.found.images {
		if !beside(i) {
			continue
		}
		any = true
		if r, err := code.ParseReference(i.Value); err != nil || r.Repository() != wanted.Repository() {
			s.problem(line, "the marker says "+m.Image+", but the image beside it is "+i.Value+"; the marker is passed over")
			continue
		}
		s.found.images[k].Policy = m.Policy
	}
	return any
}

// markedText returns where in the line the marked text is: the reference, if
// the line spells the image out, else the last value.
func markedText(m code.MarkerComment, line string) (start, end int) {
	for _, sep := range []string{":", "@"} {
		if start = strings.Index(line, m.Image+sep); start >= 0 {
			end = start + len(m.Image)
			for end < len(line) && strings.IndexByte(":@._-", line[end]) >= 0 || end < len(line) && alphanumeric(line[end]) {
				end++
			}
			return start, end
		}
	}
	end = len(strings.TrimRight(line, " \t\r\n,;"))
	if end > 0 && (line[end-1] == '"' || line[end-1] == '\'') {
		if start = strings.LastIndexByte(line[:end-1], line[end-1]); start >= 0 {
			return start + 1, end - 1
		}
	}
	return strings.LastIndexAny(line[:end], " \t=\"'") + 1, end
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// seen is the marked text as programs see it: in YAML, 1.10 without quotes is
// the number 1.1, and must not be written.
func (s *sheet) seen(line string, start, end int) string {
	text := line[start:end]
	before := strings.TrimSpace(line[:start])
	if s.kind == dockerfile || s.kind == marked || !strings.HasSuffix(before, ":") && !strings.HasSuffix(before, "-") {
		return text
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: text}
	if made := (&reading{sheet: s}).scalar(n, nil); made.Kind == code.Scalar {
		return made.Text
	}
	return text
}
