package terraform

import (
	"fmt"
	"strconv"
	"strings"

	"cairn.dev/cairn/internal/code"
)

// maxSetIndex bounds the lists that `set` makes.
const maxSetIndex = 1000

// helm is the sink for a release: its chart, if that is in an OCI registry,
// and the images in its values, put together as Helm does: `values` from the
// first to the last, then `set`, then `set_list`. What set_sensitive and
// set_wo say is not looked at.
func helm(b *finder) {
	b.chart()
	values := b.values(b.root.Get("values"))
	for _, name := range []string{"set", "set_list"} {
		b.set(values, b.root.Get(name))
	}
	b.addAll("values", code.HelmImages(values))
}

// argocd is the sink for applications of Argo CD that have a Helm chart.
func argocd(b *finder) {
	b.follow("spec.source[]", func(at string, n *code.Node) {
		follow(n, at, []string{"helm"}, func(at string, h *code.Node) {
			values := b.values(h.Get("values"))
			b.set(values, h.Get("parameter"))
			b.addAll(at, code.HelmImages(values))
		})
	})
}

// values lays the texts of values on each other. One that is not known or
// not YAML may hold any image; it is said so once.
func (b *finder) values(n *code.Node) *code.Node {
	all := &code.Node{Kind: code.Map}
	list := []*code.Node{n}
	if n != nil && n.Kind == code.List {
		list = n.Items
	}
	for i, text := range list {
		if text == nil || text.Kind == code.Null {
			continue
		}
		at := fmt.Sprintf("values[%d]", i)
		switch text.Kind {
		case code.Map:
			all = code.Overlay(all, text)
		case code.String:
			docs, err := decode(text)
			if err != nil {
				b.add(code.Found{Path: at, Parts: []*code.Node{text}, Fixed: err.Error()})
				continue
			}
			if len(docs) > 0 && docs[0].Kind == code.Map {
				all = code.Overlay(all, docs[0])
			}
		case code.Unknown:
			b.add(code.Found{Path: at, Parts: []*code.Node{text}, Fixed: text.Text})
		}
	}
	return all
}

// set puts what blocks of name and value say into the values.
func (b *finder) set(values, blocks *code.Node) {
	if blocks == nil {
		return
	}
	for _, set := range blocks.Items {
		name, value := set.Get("name"), set.Get("value")
		if name == nil || value == nil || name.Kind != code.String || value.Kind == code.Null {
			continue
		}
		if steps, ok := setPath(name.Text); ok {
			put(values, steps, value)
		}
	}
}

// setPath takes apart a name as --set has it: a.b[0].c, with \. for a dot that
// is none. Numbers are indexes.
func setPath(name string) ([]any, bool) {
	var steps []any
	var word strings.Builder
	flush := func() {
		if word.Len() > 0 {
			steps = append(steps, word.String())
			word.Reset()
		}
	}
	for i := 0; i < len(name); i++ {
		switch c := name[i]; c {
		case '\\':
			if i++; i < len(name) {
				word.WriteByte(name[i])
			}
		case '.':
			flush()
		case '[':
			flush()
			digits, _, ok := strings.Cut(name[i+1:], "]")
			n, err := strconv.Atoi(digits)
			if !ok || err != nil || n < 0 || n > maxSetIndex {
				return nil, false
			}
			steps = append(steps, n)
			i += len(digits) + 1
		default:
			word.WriteByte(c)
		}
	}
	flush()
	return steps, len(steps) > 0
}

// put sets the value at the path, making what is missing on the way. The
// nodes on the way are copied: texts that are decoded may share them.
func put(n *code.Node, steps []any, value *code.Node) {
	for i, step := range steps {
		var slot **code.Node
		switch step := step.(type) {
		case string:
			if n.Kind != code.Map {
				*n = code.Node{Kind: code.Map, Origin: n.Origin}
			}
			slot = entry(n, step)
		case int:
			if n.Kind != code.List {
				*n = code.Node{Kind: code.List, Origin: n.Origin}
			}
			n.Items = append([]*code.Node(nil), n.Items...)
			for len(n.Items) <= step {
				n.Items = append(n.Items, &code.Node{})
			}
			slot = &n.Items[step]
		}
		if i == len(steps)-1 {
			*slot = value
			return
		}
		copied := **slot
		*slot, n = &copied, &copied
	}
}

// entry returns the slot of a key of a map, making it if it is missing.
func entry(n *code.Node, key string) **code.Node {
	n.Keys = append([]string(nil), n.Keys...)
	n.Items = append([]*code.Node(nil), n.Items...)
	for i := len(n.Keys) - 1; i >= 0; i-- {
		if n.Keys[i] == key {
			return &n.Items[i]
		}
	}
	n.Keys, n.Items = append(n.Keys, key), append(n.Items, &code.Node{})
	return &n.Items[len(n.Items)-1]
}

// chart adds the chart of a release that comes from an OCI registry, as the
// reference that Helm pulls: repository/chart:version, with _ for the + that a
// tag cannot hold.
func (b *finder) chart() {
	repository, chart, version := b.root.Get("repository"), b.root.Get("chart"), b.root.Get("version")
	name, parts := "", []*code.Node{}
	if s, ok := oci(repository); ok {
		if chart == nil || chart.Kind != code.String {
			return
		}
		name, parts = strings.TrimSuffix(s, "/")+"/"+chart.Text, append(parts, repository, chart)
	} else if s, ok := oci(chart); ok {
		name, parts = s, append(parts, chart)
	} else {
		return
	}
	f := code.Found{Path: "version", Chart: true, Parts: parts}
	switch {
	case version == nil || version.Kind == code.Null || version.Kind == code.String && version.Text == "":
		f.Fixed = "no version is set, so the newest is installed: set one to have it followed"
	case version.Kind == code.Unknown:
		f.Fixed, f.Parts = version.Text, append(parts, version)
	default:
		f.Parts = append(parts, version)
		f.Value = name + ":" + version.Text
		if _, err := code.ParseReference(f.Value); err != nil {
			f.Value, f.Fixed = "", fmt.Sprintf("the version %q is a range or has a + in it: write one version", version.Text)
		}
	}
	b.add(f)
}

// oci returns what stands behind oci:// in a text.
func oci(n *code.Node) (string, bool) {
	if n == nil || n.Kind != code.String {
		return "", false
	}
	return strings.CutPrefix(n.Text, "oci://")
}
