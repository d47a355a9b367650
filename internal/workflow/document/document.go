// Package document reads YAML that people write, without losing the place of
// anything.
//
// It owns trees of nodes with their paths, lines and columns, and the list of
// everything found wrong in them. It promises to be pure, to bound what a
// document may cost (its size, its nodes with aliases followed, its depth), to
// refuse keys that come twice, and that reading a nil node is safe and gives
// nothing. What the fields mean it does not know.
package document

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Bounds of what is read.
const (
	MaxBytes    = 4 << 20
	maxNodes    = 500_000
	maxDepth    = 100
	maxProblems = 1000
)

// A Problem is something wrong in a document.
type Problem struct {
	File         string `json:"file,omitempty"`
	Line, Column int
	Path         string `json:"path"` // spec.tasks[2].when
	Text         string `json:"text"`
}

func (p Problem) String() string {
	s := p.File
	if p.Line > 0 {
		s += fmt.Sprintf(":%d:%d", p.Line, p.Column)
	}
	if p.Path != "" {
		s += ": " + p.Path
	}
	return s + ": " + p.Text
}

// A Log gathers problems. It is for one reading, by one goroutine.
type Log struct{ problems []Problem }

// Add appends a problem; beyond a bound nobody reads them.
func (l *Log) Add(p Problem) {
	if len(l.problems) < maxProblems && !slices.Contains(l.problems, p) {
		l.problems = append(l.problems, p)
	}
}

// Problems are those that were added, by their place.
func (l *Log) Problems() []Problem {
	out := slices.Clone(l.problems)
	slices.SortStableFunc(out, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return out
}

// Len is how many problems there are.
func (l *Log) Len() int { return len(l.problems) }

var lineRE = regexp.MustCompile(`line (\d+)`)

// Read returns the documents of a file. What is not YAML is a problem, and
// ends the reading.
func Read(file string, b []byte, log *Log) []*Node {
	fail := func(line int, format string, args ...any) {
		log.Add(Problem{File: file, Line: line, Column: min(line, 1), Text: fmt.Sprintf(format, args...)})
	}
	if len(b) > MaxBytes {
		fail(0, "the document has %d bytes, the limit is %d: hand large values over as files", len(b), MaxBytes)
		return nil
	}
	var out []*Node
	d := yaml.NewDecoder(bytes.NewReader(b))
	for {
		var y yaml.Node
		err := d.Decode(&y)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			line := 0
			if m := lineRE.FindStringSubmatch(err.Error()); m != nil {
				line, _ = strconv.Atoi(m[1])
			}
			fail(line, "this is not YAML: %v", err)
			return out
		}
		if len(y.Content) == 0 || y.Content[0].Tag == "!!null" {
			continue // a document of comments only
		}
		c := counter{file: file, log: log}
		if !c.check(y.Content[0], 0) {
			return out
		}
		out = append(out, &Node{y: y.Content[0], file: file, log: log})
	}
}

// counter walks a tree once as the readers will, so that they need not look
// for what grows out of bounds.
type counter struct {
	file string
	log  *Log
	n    int
}

func (c *counter) check(y *yaml.Node, depth int) bool {
	c.n++
	if c.n > maxNodes || depth > maxDepth {
		c.log.Add(Problem{File: c.file, Line: y.Line, Column: y.Column, Text: fmt.Sprintf("the document is too large once aliases are followed, or nested too deep: it may have %d nodes and %d levels", maxNodes, maxDepth)})
		return false
	}
	if y.Kind == yaml.AliasNode {
		return c.check(y.Alias, depth+1)
	}
	for i, k := range y.Content {
		if y.Kind == yaml.MappingNode && i%2 == 0 {
			if k.Kind != yaml.ScalarNode {
				c.log.Add(Problem{File: c.file, Line: k.Line, Column: k.Column, Text: "a key has to be a plain text"})
				return false
			}
			continue
		}
		if !c.check(k, depth+1) {
			return false
		}
	}
	if y.Kind == yaml.MappingNode {
		seen := make(map[string]bool, len(y.Content)/2)
		for i := 0; i+1 < len(y.Content); i += 2 {
			k := y.Content[i]
			if seen[k.Value] {
				c.log.Add(Problem{File: c.file, Line: k.Line, Column: k.Column, Text: fmt.Sprintf("the key %q is there twice: remove one", k.Value)})
				return false
			}
			seen[k.Value] = true
		}
	}
	return true
}
