package terraform

import (
	"errors"
	"fmt"
	"io"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"

	"cairn.dev/cairn/internal/code"
)

// Bounds of texts that are decoded.
const (
	maxText      = 1 << 20
	maxTextNodes = 50_000
	maxDocuments = 1000
)

// object is a sink for a Kubernetes object written in HCL.
func object(path string) sink {
	return func(b *finder) {
		b.follow(path, func(at string, n *code.Node) {
			if n.Kind == code.Unknown {
				b.whole(at, n)
				return
			}
			b.addAll(at, code.KubernetesImages(n))
		})
	}
}

// yaml is a sink for an attribute that holds YAML, or JSON, which is YAML too,
// as a text or as a value.
func yaml(path string, walk func(*code.Node) []code.Found) sink {
	return func(b *finder) {
		b.follow(path, func(at string, n *code.Node) { b.decoded(at, n, walk) })
	}
}

// decoded adds the images of a text. One that cannot be decoded is said to be
// so: it may well hold images.
func (b *finder) decoded(at string, n *code.Node, walk func(*code.Node) []code.Found) {
	switch n.Kind {
	case code.Unknown:
		b.whole(at, n)
	case code.Map, code.List:
		b.addAll(at, walk(n))
	case code.String:
		docs, err := decode(n)
		if err != nil {
			b.add(code.Found{Path: at, Parts: []*code.Node{n}, Fixed: err.Error()})
			return
		}
		for i, doc := range docs {
			here := at
			if i > 0 {
				here = fmt.Sprintf("%s[%d]", at, i)
			}
			b.addAll(here, walk(doc))
		}
	}
}

// decode returns the documents of a text of YAML. Their nodes have its spot.
func decode(n *code.Node) ([]*code.Node, error) {
	if len(n.Text) > maxText {
		return nil, fmt.Errorf("its text has %d bytes, more than the %d that are read", len(n.Text), maxText)
	}
	if deepData([]byte(n.Text)) != nil {
		return nil, errors.New("its text is nested too deeply to be read")
	}
	d := &decoder{text: n.Text, origin: n.Origin, left: maxTextNodes, seen: map[*yamlv3.Node]*code.Node{}}
	var docs []*code.Node
	for dec := yamlv3.NewDecoder(strings.NewReader(n.Text)); len(docs) < maxDocuments; {
		var doc yamlv3.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			// The error may quote the text, which may be secret.
			return nil, errors.New("its text is not YAML")
		}
		if doc.Kind == yamlv3.DocumentNode && len(doc.Content) == 1 {
			docs = append(docs, d.node(doc.Content[0]))
		}
	}
	return nil, fmt.Errorf("its text has more than %d documents", maxDocuments)
}

// A decoder makes nodes of YAML. What is anchored is decoded once, so that
// aliases cost nothing however often they are used.
type decoder struct {
	text   string
	origin any
	left   int
	seen   map[*yamlv3.Node]*code.Node
}

func (d *decoder) node(y *yamlv3.Node) *code.Node {
	if n := d.seen[y]; n != nil {
		return n // an alias within what it names sees a part of it
	}
	n := &code.Node{Origin: d.origin}
	d.left--
	if d.left < 0 {
		return n
	}
	d.seen[y] = n
	switch y.Kind {
	case yamlv3.AliasNode:
		if y.Alias != nil {
			*n = *d.node(y.Alias)
		}
	case yamlv3.SequenceNode:
		n.Kind = code.List
		for _, item := range y.Content {
			n.Items = append(n.Items, d.node(item))
		}
	case yamlv3.MappingNode:
		n.Kind = code.Map
		d.mapping(n, y)
	case yamlv3.ScalarNode:
		scalar(n, y)
		at, ok := d.origin.(spot)
		if !ok {
			break
		}
		if holed(n.Text) {
			n.Kind, n.Text = code.Unknown, missing(at)
		}
		at.text, at.line = d.text, y.Line
		n.Origin = at
	}
	return n
}

// mapping fills a map. Keys that are merged in come first, so that the map's
// own, which come behind, count.
func (d *decoder) mapping(n *code.Node, y *yamlv3.Node) {
	for i := 0; i+1 < len(y.Content); i += 2 {
		if k := y.Content[i]; k.ShortTag() == "!!merge" {
			d.merge(n, d.node(y.Content[i+1]))
		}
	}
	for i := 0; i+1 < len(y.Content); i += 2 {
		if k := y.Content[i]; k.Kind == yamlv3.ScalarNode && k.ShortTag() != "!!merge" {
			n.Keys, n.Items = append(n.Keys, k.Value), append(n.Items, d.node(y.Content[i+1]))
		}
	}
}

func (d *decoder) merge(n, from *code.Node) {
	switch from.Kind {
	case code.List:
		for i := len(from.Items) - 1; i >= 0; i-- { // the first counts most
			if from.Items[i].Kind == code.Map {
				d.merge(n, from.Items[i])
			}
		}
	case code.Map:
		if d.left -= len(from.Keys); d.left >= 0 {
			n.Keys, n.Items = append(n.Keys, from.Keys...), append(n.Items, from.Items...)
		}
	}
}

// scalar says what a program that reads the YAML sees. Kubernetes and Helm
// turn YAML into JSON, in which all numbers are floating: 1.10 becomes 1.1 and
// 1000000 becomes 1e+06, and both read YAML 1.1, in which `on` is true.
func scalar(n *code.Node, y *yamlv3.Node) {
	n.Kind, n.Text = code.String, y.Value
	switch y.ShortTag() {
	case "!!null":
		n.Kind, n.Text = code.Null, ""
	case "!!int", "!!float":
		var f float64
		if y.Decode(&f) == nil {
			n.Kind, n.Text = code.Scalar, fmt.Sprint(f)
		}
	case "!!bool":
		n.Kind = code.Scalar
	case "!!str":
		if y.Style == 0 {
			switch strings.ToLower(y.Value) {
			case "on", "yes", "y":
				n.Kind, n.Text = code.Scalar, "true"
			case "off", "no", "n":
				n.Kind, n.Text = code.Scalar, "false"
			}
		}
	}
}

// listImages are the images of a list of containers, as ECS has it.
func listImages(n *code.Node) []code.Found {
	var found []code.Found
	if n.Kind == code.List {
		for i, item := range n.Items {
			follow(item, fmt.Sprintf("[%d]", i), []string{"image"}, wholeInto(&found))
		}
	}
	return found
}

// wholeImage is the image of one container.
func wholeImage(n *code.Node) []code.Found {
	var found []code.Found
	follow(n, "", []string{"image"}, wholeInto(&found))
	return found
}

// batchNodes are the images of a multi-node job of AWS Batch.
func batchNodes(n *code.Node) []code.Found {
	var found []code.Found
	follow(n, "", []string{"nodeRangeProperties[]", "container", "image"}, wholeInto(&found))
	return found
}

// composeImages are the images of a Compose file.
func composeImages(n *code.Node) []code.Found {
	var found []code.Found
	follow(n, "", []string{"services", "*", "image"}, wholeInto(&found))
	return found
}

// wholeInto collects nodes that spell an image out.
func wholeInto(found *[]code.Found) func(string, *code.Node) {
	return func(path string, n *code.Node) {
		if f, ok := spelled(path, n); ok {
			*found = append(*found, f)
		}
	}
}
