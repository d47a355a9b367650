package document

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A Node is a place in a document. The nil Node is one that is not there.
type Node struct {
	y    *yaml.Node
	key  *yaml.Node // under which it stands in a map
	Path string
	file string
	log  *Log
}

// An Entry is a key of a map and what stands there.
type Entry struct {
	Key  string
	Node *Node
}

func (n *Node) target() *yaml.Node {
	if n == nil {
		return nil
	}
	y := n.y
	for y.Kind == yaml.AliasNode {
		y = y.Alias
	}
	return y
}

// Place is where the node begins.
func (n *Node) Place() (line, column int) {
	if n == nil {
		return 0, 0
	}
	return n.y.Line, n.y.Column
}

// Fail adds a problem at the node.
func (n *Node) Fail(format string, args ...any) {
	if n != nil {
		n.log.Add(Problem{File: n.file, Line: n.y.Line, Column: n.y.Column, Path: n.Path, Text: fmt.Sprintf(format, args...)})
	}
}

// FailKey adds a problem at the key under which the node stands.
func (n *Node) FailKey(format string, args ...any) {
	if n == nil {
		return
	}
	y := n.key
	if y == nil {
		y = n.y
	}
	n.log.Add(Problem{File: n.file, Line: y.Line, Column: y.Column, Path: n.Path, Text: fmt.Sprintf(format, args...)})
}

// IsMap, IsList, IsNull and IsText say of what kind the node is.
func (n *Node) IsMap() bool { y := n.target(); return y != nil && y.Kind == yaml.MappingNode }

// IsList reports whether the node is a list.
func (n *Node) IsList() bool { y := n.target(); return y != nil && y.Kind == yaml.SequenceNode }

// IsNull reports whether the node is not there or null.
func (n *Node) IsNull() bool { y := n.target(); return y == nil || y.ShortTag() == "!!null" }

// IsText reports whether the node is a text, and not a number or the like.
func (n *Node) IsText() bool { y := n.target(); return y != nil && y.ShortTag() == "!!str" }

// IsPlain reports whether the node is a text without quotes.
func (n *Node) IsPlain() bool { return n.IsText() && n.target().Style == 0 }

// Entries are those of a map, in their order; anything else is a problem.
func (n *Node) Entries() []Entry {
	if n.IsNull() {
		return nil
	}
	y := n.target()
	if y.Kind != yaml.MappingNode {
		n.Fail("this has to be a map of names to values")
		return nil
	}
	out := make([]Entry, 0, len(y.Content)/2)
	for i := 0; i+1 < len(y.Content); i += 2 {
		k := y.Content[i]
		path := k.Value
		if n.Path != "" {
			path = n.Path + "." + k.Value
		}
		out = append(out, Entry{k.Value, &Node{y: y.Content[i+1], key: k, Path: path, file: n.file, log: n.log}})
	}
	return out
}

// Get is what stands at a key; nil when that is nothing or null.
func (n *Node) Get(key string) *Node {
	if !n.IsMap() {
		return nil
	}
	for _, e := range n.Entries() {
		if e.Key == key && !e.Node.IsNull() {
			return e.Node
		}
	}
	return nil
}

// Known makes a problem of each key that is none of these, with the one that
// was probably meant.
func (n *Node) Known(keys ...string) {
	for _, e := range n.Entries() {
		if !contains(keys, e.Key) {
			e.Node.FailKey("unknown field %q%s", e.Key, Meant(e.Key, keys))
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// List is the entries of a list; anything else is a problem.
func (n *Node) List() []*Node {
	if n.IsNull() {
		return nil
	}
	y := n.target()
	if y.Kind != yaml.SequenceNode {
		n.Fail("this has to be a list")
		return nil
	}
	out := make([]*Node, len(y.Content))
	for i, c := range y.Content {
		out[i] = &Node{y: c, Path: n.Path + "[" + strconv.Itoa(i) + "]", file: n.file, log: n.log}
	}
	return out
}

// Text is a scalar as it is written; a map or list is a problem.
func (n *Node) Text() string {
	if n.IsNull() {
		return ""
	}
	y := n.target()
	if y.Kind != yaml.ScalarNode {
		n.Fail("this has to be a text")
		return ""
	}
	return y.Value
}

// Texts are those of a list of scalars.
func (n *Node) Texts() []string {
	var out []string
	for _, e := range n.List() {
		out = append(out, e.Text())
	}
	return out
}

// Bool is true or false; anything else is a problem.
func (n *Node) Bool() bool {
	if n.IsNull() {
		return false
	}
	if y := n.target(); y.ShortTag() != "!!bool" {
		n.Fail("this has to be true or false")
		return false
	}
	return strings.EqualFold(n.target().Value, "true")
}

// Int is a whole number between two bounds; anything else is a problem. A text
// that holds one is one, as Kubernetes has it for many fields.
func (n *Node) Int(low, high int64) int64 {
	if n.IsNull() {
		return 0
	}
	base := 10
	if n.target().Tag == "!!int" {
		base = 0 // 0755 and 0x1f are numbers of YAML
	}
	v, err := strconv.ParseInt(n.Text(), base, 64)
	if err != nil || v < low || v > high {
		n.Fail("%.40q: this has to be a whole number from %d to %d", n.Text(), low, high)
		return 0
	}
	return v
}

// Duration is 90s, 5m, 12h, 30d or a number of seconds; not negative.
func (n *Node) Duration() time.Duration {
	if n.IsNull() {
		return 0
	}
	d, err := ParseDuration(n.Text())
	if err != nil {
		n.Fail("%v", err)
		return 0
	}
	return d
}

// ParseDuration reads 90s, 5m, 1h30m, 30d or a number of seconds.
func ParseDuration(s string) (time.Duration, error) {
	wrong := fmt.Errorf("%.40q is no duration: write one such as 90s, 5m, 12h or 30d", s)
	days := time.Duration(0)
	rest := s
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if f < 0 || f > math.MaxInt64/1e9 || math.IsNaN(f) {
			return 0, wrong
		}
		return time.Duration(f * float64(time.Second)), nil
	}
	if i := strings.IndexByte(s, 'd'); i > 0 {
		n, err := strconv.ParseUint(s[:i], 10, 16)
		if err != nil {
			return 0, wrong
		}
		days, rest = time.Duration(n)*24*time.Hour, s[i+1:]
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-days {
		return 0, wrong
	}
	return days + d, nil
}

// Value is the node as JSON has it: nil, bool, float64, string, []any or
// map[string]any.
func (n *Node) Value() any {
	y := n.target()
	if y == nil {
		return nil
	}
	switch y.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(y.Content)/2)
		for _, e := range n.Entries() {
			m[e.Key] = e.Node.Value()
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, 0, len(y.Content))
		for _, e := range n.List() {
			list = append(list, e.Value())
		}
		return list
	}
	switch y.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		return n.Bool()
	case "!!int", "!!float":
		var f float64
		if err := y.Decode(&f); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f
		}
	}
	return y.Value
}

// JSON is the node as a text: a scalar as it is written, all else as JSON.
func (n *Node) JSON() string {
	if y := n.target(); y != nil && y.Kind == yaml.ScalarNode && y.ShortTag() != "!!null" {
		return y.Value
	}
	b, err := json.Marshal(n.Value())
	if err != nil { // only what JSON knows is in a Value
		return ""
	}
	return string(b)
}

// YAML writes the node as a document of its own.
func (n *Node) YAML() []byte {
	b, err := yaml.Marshal(n.target())
	if err != nil { // it was read from YAML
		return nil
	}
	return b
}

// Without is a map less one key; the document is not changed.
func (n *Node) Without(key string) *Node {
	if !n.IsMap() {
		return n
	}
	y := *n.target()
	y.Content = nil
	for i, c := 0, n.target().Content; i+1 < len(c); i += 2 {
		if c[i].Value != key {
			y.Content = append(y.Content, c[i], c[i+1])
		}
	}
	out := *n
	out.y = &y
	return &out
}
