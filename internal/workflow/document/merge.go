package document

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// Merge is what over says, and beneath it what under says: maps are merged key
// by key, null takes a key away, and a list of maps whose key in lists names a
// field is merged by that field; of anything else there is over only. Neither
// document is changed, and problems are told where each part stands. These are
// Kubernetes' rules of a strategic merge patch.
func Merge(under, over *Node, lists map[string]string) *Node {
	switch {
	case over == nil:
		return under
	case under == nil:
		return over
	}
	out := *over
	out.y = merge(under.target(), over.target(), "", lists)
	return &out
}

func merge(under, over *yaml.Node, key string, lists map[string]string) *yaml.Node {
	under, over = follow(under), follow(over)
	field := lists[key]
	switch {
	case under.Kind == yaml.MappingNode && over.Kind == yaml.MappingNode:
		return mergeMaps(under, over, lists)
	case under.Kind == yaml.SequenceNode && over.Kind == yaml.SequenceNode && field != "":
		return mergeLists(under, over, field, lists)
	}
	return over
}

func follow(y *yaml.Node) *yaml.Node {
	for y.Kind == yaml.AliasNode {
		y = y.Alias
	}
	return y
}

func mergeMaps(under, over *yaml.Node, lists map[string]string) *yaml.Node {
	out := *over
	out.Content = nil
	find := func(y *yaml.Node, key string) *yaml.Node {
		for i := 0; i+1 < len(y.Content); i += 2 {
			if y.Content[i].Value == key {
				return y.Content[i+1]
			}
		}
		return nil
	}
	for i := 0; i+1 < len(over.Content); i += 2 {
		k, v := over.Content[i], over.Content[i+1]
		if u := find(under, k.Value); u != nil {
			v = merge(u, v, k.Value, lists)
		}
		out.Content = append(out.Content, k, v)
	}
	for i := 0; i+1 < len(under.Content); i += 2 {
		if find(over, under.Content[i].Value) == nil {
			out.Content = append(out.Content, under.Content[i], under.Content[i+1])
		}
	}
	return &out
}

func mergeLists(under, over *yaml.Node, field string, lists map[string]string) *yaml.Node {
	name := func(y *yaml.Node) string {
		for y, i := follow(y), 0; y.Kind == yaml.MappingNode && i+1 < len(y.Content); i += 2 {
			if y.Content[i].Value == field {
				return follow(y.Content[i+1]).Value
			}
		}
		return ""
	}
	out := *over
	out.Content = slices.Clone(over.Content)
	for _, u := range under.Content {
		i := slices.IndexFunc(over.Content, func(y *yaml.Node) bool { return name(y) != "" && name(y) == name(u) })
		if i >= 0 {
			out.Content[i] = merge(u, over.Content[i], "", lists)
		} else {
			out.Content = append(out.Content, u)
		}
	}
	return &out
}
