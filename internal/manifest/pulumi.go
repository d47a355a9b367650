package manifest

import (
	"strings"

	"cairn.dev/cairn/internal/code"
)

// pulumi reads the resources of a Pulumi YAML program. Its configuration is
// known by the defaults, its variables where they are plain text; what stacks
// and functions give is not.
func (y *reading) pulumi(root *code.Node) {
	resources := root.Get("resources")
	if resources == nil || resources.Kind != code.Map {
		return
	}
	lookup := func(name string) (word, bool) {
		n := root.Get("variables").Get(name)
		path := "variables." + name
		if n == nil {
			n, path = root.Get("config").Get(name), "config."+name
			if n == nil {
				n = root.Get("configuration").Get(name) // its older name
			}
			if d := n.Get("default"); d != nil {
				n, path = d, path+".default"
			}
		}
		if n == nil || n.Kind != code.String && n.Kind != code.Scalar {
			return word{}, false
		}
		i := y.from(code.Pulumi, "", code.Found{Path: path, Parts: []*code.Node{n}})
		w := word{value: n.Text, sources: i.Sources, steps: i.Chain}
		if strings.Contains(n.Text, "$") {
			w.unknown = path + " is put together of other values"
		}
		return w, true
	}
	for i, name := range resources.Keys {
		r := resources.Items[i]
		properties := r.Get("properties")
		if properties == nil || properties.Kind != code.Map || !bounded(properties, new(int)) {
			continue
		}
		address := "resource " + name
		p := expanded(properties, lookup)
		switch kind := str(r.Get("type")); {
		case strings.HasPrefix(kind, "kubernetes:helm.sh/"):
			if at, ok := strings.CutPrefix(str(p.Get("chart")), "oci://"); ok && at != "" {
				y.chartAt(code.Pulumi, address, "properties.chart", p.Get("chart"), nil, p.Get("version"))
			}
			y.below(address, "properties.values", code.HelmImages(p.Get("values")))
		case strings.HasPrefix(kind, "kubernetes:"):
			y.below(address, "properties", code.PodImages("", p))
		case kind == "docker:RemoteImage" || kind == "docker:index:RemoteImage" || kind == "docker:index/remoteImage:RemoteImage":
			if n := p.Get("name"); n != nil {
				y.below(address, "properties", []code.Found{whole("name", n)})
			}
		default:
			y.below(address, "properties", code.HelmImages(p))
		}
	}
}

// below adds what a walker found below path.
func (y *reading) below(address, path string, list []code.Found) {
	for _, f := range list {
		f.Path = strings.TrimSuffix(path+"."+f.Path, ".")
		y.add(y.from(code.Pulumi, address, f))
	}
}

// bounded reports whether a copy of the node, in which aliases are copies, has
// a size that can be made.
func bounded(n *code.Node, seen *int) bool {
	if *seen++; *seen > maxNodes {
		return false
	}
	for _, item := range n.Items {
		if !bounded(item, seen) {
			return false
		}
	}
	return true
}
