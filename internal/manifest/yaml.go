package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"cairn.dev/cairn/internal/code"
)

// maxDepth bounds how deep nodes are nested; maxNodes how many are made of one
// file. An alias is not a copy, so that a bomb of aliases makes few of them.
const (
	maxDepth = 100
	maxNodes = 1_000_000
)

// An origin is where a node's text stands.
type origin struct {
	node  *yaml.Node // the scalar, or the collection
	alias *yaml.Node // through which alias it was reached, if it is a scalar
	via   *word      // the variables in it, if they were replaced
}

// placeholder is text that some other program replaces: Helm, envsubst, Flux.
var placeholder = regexp.MustCompile(`\{\{|\$\{|\$\(|<%`)

const placeheld = "a placeholder in it is filled in by another program; write the comment # cairn: image=REPOSITORY above the text that fills it in"

// yaml reads the documents of the file, each by what it is.
func (s *sheet) yaml() {
	if !s.mayHoldImage() {
		return
	}
	docs, err := parse(s.file.Data)
	if err != nil {
		s.unreadable(err)
		return
	}
	y := &reading{sheet: s, text: newText(s.file.Data), memo: map[*yaml.Node]*code.Node{}}
	for _, d := range docs {
		root := y.node(d.Content[0], 0)
		switch {
		case s.kind == compose:
			y.compose(root)
		case s.kind == kustomization:
			y.kustomization(root)
		case s.kind == chart:
			y.chart(root)
		case s.kind == pulumi && root.Get("resources") != nil:
			y.pulumi(root)
		case s.kind == stack:
		case str(root.Get("apiVersion")) != "" && str(root.Get("kind")) != "":
			y.object(root)
		case s.kind == values:
			y.values(root)
		}
	}
}

// mayHoldImage is a quick look: most YAML is of something else.
func (s *sheet) mayHoldImage() bool {
	if !utf8.Valid(s.file.Data) || bytes.IndexByte(s.file.Data, 0) >= 0 {
		return false
	}
	for _, word := range []string{"image", "Image", "epository", "oci://", "targetRevision"} {
		if bytes.Contains(s.file.Data, []byte(word)) {
			return true
		}
	}
	return false
}

// parse returns the documents that are not empty.
func parse(data []byte) (docs []*yaml.Node, err error) {
	defer func() {
		// The parser is another's. What it cannot stand is broken YAML to us.
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML cannot be parsed: %v", r)
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(data))
	for {
		n := &yaml.Node{}
		if err := d.Decode(n); errors.Is(err, io.EOF) {
			return docs, nil
		} else if err != nil {
			return nil, err
		}
		if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
			docs = append(docs, n)
		}
	}
}

var lineRE = regexp.MustCompile(`line (\d+)`)

// literalImage is an image that a template spells out in part.
var literalImage = regexp.MustCompile(`(?m)^[ \t]*(?:-[ \t]+)?(?:image|["']image["']):[ \t]*["']?[a-z0-9][a-z0-9._/-]*[:@/]`)

// unreadable says that the file is no YAML, if that costs an image.
func (s *sheet) unreadable(err error) {
	template := bytes.Contains(s.file.Data, []byte("{{"))
	spelled := literalImage.FindAllIndex(s.file.Data, -1)
	if template {
		for _, at := range spelled {
			s.templated = append(s.templated, at[1])
		}
		return
	}
	if spelled == nil && s.kind == plain && !bytes.Contains(s.file.Data, []byte("kind:")) {
		return
	}
	line := 0
	if m := lineRE.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1])
	}
	s.problem(line, "it is not valid YAML and is not read: "+strings.TrimPrefix(err.Error(), "yaml: "))
}

// templates says which images of a template are followed by nobody: those
// that no marker is about.
func (s *sheet) templates() {
	for _, at := range s.templated {
		line := code.PlaceOf(s.file, at).Line
		if !slices.ContainsFunc(s.found.images, func(i code.Image) bool { return i.Place.Line == line }) {
			s.problem(line, "an image in a template, which is not rendered; write the comment # cairn: image=REPOSITORY above it to have it followed")
		}
	}
}

// reading is a file of YAML that was parsed.
type reading struct {
	*sheet
	text *text
	memo map[*yaml.Node]*code.Node
}

// node makes a node of the walkers of one of the parser's.
func (y *reading) node(n *yaml.Node, depth int) *code.Node {
	if depth > maxDepth || len(y.memo) > maxNodes {
		return &code.Node{Kind: code.Unknown, Text: "it is nested too deeply, or the file is too large", Origin: origin{node: n}}
	}
	if n.Kind == yaml.AliasNode {
		if n.Alias.Kind == yaml.ScalarNode {
			return y.scalar(n.Alias, n)
		}
		n = n.Alias
	}
	if known, ok := y.memo[n]; ok {
		if known == nil {
			return &code.Node{Kind: code.Unknown, Text: "an anchor that holds itself", Origin: origin{node: n}}
		}
		return known
	}
	y.memo[n] = nil // until it is made
	made := &code.Node{Origin: origin{node: n}}
	switch n.Kind {
	case yaml.ScalarNode:
		made = y.scalar(n, nil)
	case yaml.SequenceNode:
		made.Kind = code.List
		for _, c := range n.Content {
			made.Items = append(made.Items, y.node(c, depth+1))
		}
	case yaml.MappingNode:
		made.Kind = code.Map
		y.fill(made, n, depth)
	}
	y.memo[n] = made
	return made
}

// fill adds the pairs of a mapping, those that are merged into it (<<) behind
// its own, each key once.
func (y *reading) fill(m *code.Node, n *yaml.Node, depth int) {
	at := map[string]int{}
	set := func(key string, value *code.Node, over bool) {
		if i, twice := at[key]; !twice {
			at[key] = len(m.Keys)
			m.Keys, m.Items = append(m.Keys, key), append(m.Items, value)
		} else if over {
			m.Items[i] = value
		}
	}
	var merged []*code.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], y.node(n.Content[i+1], depth+1)
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			continue
		}
		if k.Value != "<<" || k.Style != 0 && k.Style != yaml.TaggedStyle {
			set(k.Value, v, true)
		} else if v.Kind == code.List {
			merged = append(merged, v.Items...)
		} else {
			merged = append(merged, v)
		}
	}
	for _, v := range merged {
		for i, k := range v.Keys {
			if v.Kind == code.Map {
				set(k, v.Items[i], false)
			}
		}
	}
}

// scalar makes a node of a scalar as programs see it.
func (y *reading) scalar(n, alias *yaml.Node) *code.Node {
	made := &code.Node{Kind: code.String, Text: n.Value, Origin: origin{node: n, alias: alias}}
	if y.kind != compose && y.kind != pulumi && placeholder.MatchString(n.Value) {
		made.Kind, made.Text = code.Unknown, placeheld
		return made
	}
	switch n.ShortTag() {
	case "!!null":
		made.Kind, made.Text = code.Null, ""
	case "!!bool":
		var b bool
		if n.Decode(&b) == nil {
			made.Kind, made.Text = code.Scalar, strconv.FormatBool(b)
		}
	case "!!int":
		var i int64
		if n.Decode(&i) == nil {
			made.Kind, made.Text = code.Scalar, strconv.FormatInt(i, 10)
		}
	case "!!float":
		var f float64
		if n.Decode(&f) == nil {
			made.Kind, made.Text = code.Scalar, strconv.FormatFloat(f, 'g', -1, 64)
		}
	}
	return made
}

// str is the text of a node that says one; else "".
func str(n *code.Node) string {
	if n == nil || n.Kind != code.String && n.Kind != code.Scalar {
		return ""
	}
	return n.Text
}

// from turns what a walker found into an image.
func (y *reading) from(format code.Format, address string, f code.Found) code.Image {
	i := code.Image{Format: format, Address: address, Path: f.Path, Value: f.Value, Fixed: f.Fixed, Chart: f.Chart}
	for _, part := range f.Parts {
		o, ok := part.Origin.(origin)
		if !ok {
			continue
		}
		at := y.text.place(y.file, o.node)
		if i.Place.File == "" {
			i.Place = at
			if o.alias != nil {
				i.Place = y.text.place(y.file, o.alias)
			}
			i.Chain = append(i.Chain, code.Step{Name: f.Path, Place: i.Place})
		}
		if o.alias != nil {
			i.Chain = append(i.Chain, code.Step{Name: "&" + o.node.Anchor, Place: at})
		} else if len(f.Parts) > 1 {
			i.Chain = append(i.Chain, code.Step{Name: strconv.Quote(o.node.Value), Place: at})
		}
		if part.Kind == code.Scalar && part.Text != o.node.Value {
			i.Fixed = misread(o.node.Value, part.Text)
		}
		if start, end, ok := y.text.scalar(o.node); ok {
			i.Sources = append(i.Sources, code.Range{File: y.file.Path, Start: start, End: end})
		}
		if o.via != nil {
			i.Sources, i.Chain = append(i.Sources, o.via.sources...), append(i.Chain, o.via.steps...)
		}
	}
	return i
}

func misread(written, seen string) string {
	return "YAML reads " + written + " as the number " + seen + "; put it in quotes"
}
