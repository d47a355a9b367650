// Package terraform reads Terraform and OpenTofu: it evaluates the modules of
// a tree as far as a repository can say, and traces every image to the bytes
// it comes from.
//
// It owns what HCL means: modules and who calls them, variables and their
// files, locals, functions, count, for_each and dynamic blocks; the table of
// attributes that hold images ([Resource] to code.Image); comment markers.
// It promises to be pure, to end in bounded time and memory whatever the
// files say, never to follow a path out of the tree, and to say of each value
// it does not know why not. It runs no provider, asks no registry, reads no
// state and edits nothing.
package terraform

import (
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"cairn.dev/cairn/internal/code"
)

// A Mode tells what is managed from what is only looked up.
type Mode string

// The modes of resources.
const (
	Managed Mode = "managed"
	Data    Mode = "data"
)

// A Resource is one instance of a resource or data source, evaluated.
type Resource struct {
	// Address is what plans call it: module.api["x"].kubernetes_deployment.web[0].
	// Where the instances are not known, or there are none, the key is [*].
	Address    string
	Mode       Mode
	Type, Name string
	// Dir is the root module's folder, Module that of the module it stands in.
	Dir, Module string
	// Environment is the set of var-files it was evaluated with; "" is the default.
	Environment string
	// Dormant says that there are no instances of it (count = 0, an empty
	// for_each), here or of a module around it: what cannot be known of it is
	// not worth a word.
	Dormant bool
	// Body is an object: arguments by name, and for each type of nested block a
	// tuple of objects, `dynamic` ones in their place. It carries marks; see
	// [Trace]. Meta-arguments (count, for_each, provider, lifecycle, …) are not in it.
	Body cty.Value

	place  code.Place
	layout *layout
}

// Place is where the resource begins.
func (r Resource) Place() code.Place { return r.place }

// At is where a part of the body stands: the value itself if it is written
// there, else the innermost thing around it that is.
func (r Resource) At(path cty.Path) code.Place {
	if r.layout == nil {
		return r.place
	}
	return r.layout.at(path, r.place)
}

// layout mirrors a body as it was evaluated: which source each part has.
type layout struct {
	place  code.Place
	expr   hclsyntax.Expression // of an argument, and
	data   []byte               // of its file
	args   map[string]*layout
	blocks map[string][]*layout
}

func (l *layout) at(path cty.Path, place code.Place) code.Place {
	if l.place.File != "" {
		place = l.place
	}
	if l.expr != nil {
		return within(l.expr, l.data, path, place)
	}
	if len(path) == 0 {
		return place
	}
	name, ok := path[0].(cty.GetAttrStep)
	if !ok {
		return place
	}
	if arg := l.args[name.Name]; arg != nil {
		return arg.at(path[1:], place)
	}
	list := l.blocks[name.Name]
	if len(list) == 0 {
		return place
	}
	if len(path) == 1 {
		return list[0].at(nil, place)
	}
	if i, ok := index(path[1]); ok && i < len(list) {
		return list[i].at(path[2:], place)
	}
	return place
}

// within follows a path into objects and tuples that are written out.
func within(e hclsyntax.Expression, data []byte, path cty.Path, place code.Place) code.Place {
	if len(path) == 0 {
		return place
	}
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr:
		return within(e.Expression, data, path, place)
	case *hclsyntax.ObjectConsExpr:
		name, ok := key(path[0])
		for _, item := range e.Items {
			if k, diags := item.KeyExpr.Value(nil); ok && !diags.HasErrors() && isString(k, name) {
				return within(item.ValueExpr, data, path[1:], placeIn(item.ValueExpr.Range().Filename, data, item.ValueExpr.Range().Start))
			}
		}
	case *hclsyntax.TupleConsExpr:
		if i, ok := index(path[0]); ok && i < len(e.Exprs) {
			return within(e.Exprs[i], data, path[1:], placeIn(e.Exprs[i].Range().Filename, data, e.Exprs[i].Range().Start))
		}
	}
	return place
}

func isString(v cty.Value, s string) bool {
	v, _ = v.Unmark()
	return v.Type() == cty.String && v.IsKnown() && !v.IsNull() && v.AsString() == s
}

// key returns the name that a step of a path has in an object or a map.
func key(s cty.PathStep) (string, bool) {
	switch s := s.(type) {
	case cty.GetAttrStep:
		return s.Name, true
	case cty.IndexStep:
		if s.Key.Type() == cty.String {
			return s.Key.AsString(), true
		}
	}
	return "", false
}

func index(s cty.PathStep) (int, bool) {
	if s, ok := s.(cty.IndexStep); ok && s.Key.Type() == cty.Number {
		i, _ := s.Key.AsBigFloat().Int64()
		return int(i), i >= 0
	}
	return 0, false
}
