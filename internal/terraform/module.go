package terraform

import (
	"path"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/code"
)

// A module is the files of one folder as one configuration, overrides applied.
// It is not changed after it is made.
type module struct {
	dir       string
	variables map[string]*block
	locals    map[string]*arg
	outputs   map[string]*block
	calls     []*block              // `module` blocks, as written
	resources []*block              // `resource` and `data` blocks, as written
	byName    map[string]*block     // resources and data by "data.type.name", "type.name"; calls by "module.name"
	keyed     map[string][]*literal // keys of objects that are written as strings, by what they say
	problems  []code.Problem
}

// configFiles returns the files of the folder that make its module, in the
// order in which they count: a .tofu file stands in for the .tf of its name,
// and overrides come last.
func configFiles(paths []string) []string {
	var files, overrides []string
	for _, p := range paths {
		if !isConfig(p) || shadowed(p, paths) {
			continue
		}
		if isOverride(path.Base(p)) {
			overrides = append(overrides, p)
		} else {
			files = append(files, p)
		}
	}
	return append(files, overrides...)
}

func shadowed(p string, paths []string) bool {
	for _, ext := range []string{".tf", ".tf.json"} {
		if stem, ok := strings.CutSuffix(p, ext); ok {
			_, found := slices.BinarySearch(paths, stem+strings.Replace(ext, ".tf", ".tofu", 1))
			return found
		}
	}
	return false
}

func isOverride(name string) bool {
	name = strings.TrimSuffix(name, ".json")
	name = strings.TrimSuffix(strings.TrimSuffix(name, ".tf"), ".tofu")
	return name == "override" || strings.HasSuffix(name, "_override")
}

// newModule puts files together, overrides last.
func newModule(dir string, files []*source, names []string) *module {
	m := &module{dir: dir, variables: map[string]*block{}, locals: map[string]*arg{}, outputs: map[string]*block{}, byName: map[string]*block{}, keyed: map[string][]*literal{}}
	for i, f := range files {
		m.problems = append(m.problems, f.problems...)
		for _, k := range f.keys {
			m.keyed[k.text] = append(m.keyed[k.text], k)
		}
		for _, b := range f.body.blocks {
			m.add(b, isOverride(path.Base(names[i])))
		}
	}
	return m
}

func (m *module) add(b *block, override bool) {
	switch b.typ {
	case "variable":
		m.variables[b.label(0)] = merged(m.variables[b.label(0)], b, override)
	case "output":
		m.outputs[b.label(0)] = merged(m.outputs[b.label(0)], b, override)
	case "locals":
		for _, a := range b.inside().args {
			m.locals[a.name] = a
		}
	case "module":
		m.calls = m.put(m.calls, "module."+b.label(0), b, override)
	case "resource":
		m.resources = m.put(m.resources, b.label(0)+"."+b.label(1), b, override)
	case "data":
		m.resources = m.put(m.resources, "data."+b.label(0)+"."+b.label(1), b, override)
	}
}

func (m *module) put(list []*block, name string, b *block, override bool) []*block {
	old := m.byName[name]
	b = merged(old, b, override)
	m.byName[name] = b
	if i := slices.Index(list, old); i >= 0 && override {
		list[i] = b
		return list
	}
	return append(list, b)
}

// merged is what an override makes of a block: its arguments replace those of
// the same name, and its nested blocks all those of the same type
// (Terraform's "Override Files"). Without anything to override it is itself.
func merged(old, b *block, override bool) *block {
	if old == nil || !override {
		return b
	}
	was, is, inner := old.inside(), b.inside(), &body{}
	out := &block{typ: old.typ, labels: old.labels, place: old.place, inside: whole(inner)}
	for _, a := range was.args {
		if is.arg(a.name) == nil {
			inner.args = append(inner.args, a)
		}
	}
	inner.args = append(inner.args, is.args...)
	replaced := map[string]bool{}
	for _, k := range is.blocks {
		replaced[k.nested()] = true
	}
	for _, k := range was.blocks {
		if !replaced[k.nested()] {
			inner.blocks = append(inner.blocks, k)
		}
	}
	inner.blocks = append(inner.blocks, is.blocks...)
	return out
}

// nested is the type that a nested block has, or makes if it is dynamic.
func (b *block) nested() string {
	if b.typ == "dynamic" {
		return b.label(0)
	}
	return b.typ
}
