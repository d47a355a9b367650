package terraform

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/image"
)

// maxTemplates is how deep templates may use templatefile.
const maxTemplates = 16

// fileFunctions are those that read files: of the tree, and of nothing else.
// Paths are as seen from the root module's folder, where Terraform is run.
func (r *run) fileFunctions() map[string]function.Function {
	table := map[string]function.Function{
		"file":       r.ofFile("file", func(f code.File) (cty.Value, error) { return r.textOf("file", f) }),
		"fileexists": r.exists(),
		"fileset":    r.fileset(),
		"filebase64": r.ofFile("filebase64", func(f code.File) (cty.Value, error) {
			return cty.StringVal(base64.StdEncoding.EncodeToString(f.Data)), nil
		}),
		"templatefile": r.templateFile(),
		"templatestring": function.New(&function.Spec{
			Params: []function.Parameter{anything("template"), anything("vars")}, Type: function.StaticReturnType(cty.DynamicPseudoType),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return r.templateText(args[0], args[1]) },
		}),
		"basename":   ofText(func(a []string) (string, error) { return path.Base(a[0]), nil }, "path"),
		"dirname":    ofText(func(a []string) (string, error) { return path.Dir(a[0]), nil }, "path"),
		"abspath":    ofText(func(a []string) (string, error) { return path.Clean(a[0]), nil }, "path"),
		"pathexpand": ofText(func(a []string) (string, error) { return a[0], nil }, "path"),
	}
	for name, sum := range sums() {
		table["file"+name] = r.ofFile("file"+name, func(f code.File) (cty.Value, error) { return cty.StringVal(hex.EncodeToString(sum(f.Data))), nil })
		if name == "sha256" || name == "sha512" {
			table["filebase64"+name] = r.ofFile("filebase64"+name, func(f code.File) (cty.Value, error) {
				return cty.StringVal(base64.StdEncoding.EncodeToString(sum(f.Data))), nil
			})
		}
	}
	return table
}

// named is the path that a function is given, and its marks without the
// origins: where the name of a file is written is not where the text is.
func named(v cty.Value) (name string, marks cty.ValueMarks, ok bool) {
	raw, all := v.Unmark()
	var kept []any
	for m := range all.All() {
		if _, is := m.(origin); !is {
			kept = append(kept, m)
		}
	}
	name, ok = Text(raw)
	return name, cty.NewValueMarks(kept...), ok
}

// fileParam takes a path, known or not, with its marks.
func fileParam() function.Parameter {
	return function.Parameter{Name: "path", Type: cty.String, AllowMarked: true, AllowUnknown: true}
}

func (r *run) ofFile(name string, f func(code.File) (cty.Value, error)) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{fileParam()}, Type: function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			p, marks, ok := named(args[0])
			if !ok {
				return cty.UnknownVal(cty.String).WithMarks(marks), nil
			}
			file, err := r.open(name, p, marks)
			if err != nil {
				return cty.NilVal, err
			}
			v, err := f(file)
			if err != nil {
				return cty.NilVal, err
			}
			return v.WithMarks(marks), nil
		},
	})
}

// open reads a file of the tree for a function. Its name is in the error
// unless it is secret.
func (r *run) open(function, name string, marks cty.ValueMarks) (code.File, error) {
	fail := func(what string) (code.File, error) {
		if marks.Has(secret{}) {
			name = "a file"
		}
		return code.File{}, &cause{fmt.Sprintf("function %s: %s %s", function, name, what)}
	}
	p, err := r.files.resolve(r.root, name)
	if err != nil {
		return fail("leads out of the repository")
	}
	name = p
	f, err := r.files.read(p)
	switch {
	case err != nil:
		return fail("is not in the repository")
	case len(f.Data) > maxString:
		return fail(fmt.Sprintf("has %d bytes, more than the %d that are read", len(f.Data), maxString))
	}
	return f, nil
}

// textOf is a file's text, all of which is one literal.
func (r *run) textOf(function string, f code.File) (cty.Value, error) {
	if !utf8.Valid(f.Data) {
		return cty.NilVal, &cause{fmt.Sprintf("function %s: %s is not text", function, f.Path)}
	}
	l := r.texts[f.Path]
	if l == nil {
		l = &literal{Range: code.Range{File: f.Path, End: len(f.Data)}, place: code.Place{File: f.Path, Line: 1, Column: 1}, text: string(f.Data)}
		r.texts[f.Path] = l
	}
	return cty.StringVal(l.text).Mark(origin{literal: l}), nil
}

func (r *run) exists() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{fileParam()}, Type: function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			p, marks, ok := named(args[0])
			if !ok {
				return cty.UnknownVal(cty.Bool).WithMarks(marks), nil
			}
			_, err := r.open("fileexists", p, marks)
			return cty.BoolVal(err == nil).WithMarks(marks), nil
		},
	})
}

func (r *run) fileset() function.Function {
	return of(cty.Set(cty.String), func(args []cty.Value) (cty.Value, error) {
		dir, err := r.files.resolve(r.root, args[0].AsString())
		pattern := args[1].AsString()
		if err != nil || image.CheckGlob(pattern) != nil || len(pattern) > 256 {
			return cty.NilVal, &cause{"function fileset wants a folder of the repository and a pattern"}
		}
		var found []cty.Value
		for _, p := range r.files.below(dir) {
			if !r.gauge.spend(len(p)) {
				return cty.NilVal, &cause{"evaluating the module takes too much work"}
			}
			if image.Glob(strings.ReplaceAll(pattern, "**/", "**")).Match(p) {
				found = append(found, cty.StringVal(p))
			}
		}
		if len(found) == 0 {
			return cty.SetValEmpty(cty.String), nil
		}
		return cty.SetVal(found), nil
	}, str("path"), str("pattern"))
}

func (r *run) templateFile() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{fileParam(), anything("vars")}, Type: function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			p, marks, ok := named(args[0])
			if !ok {
				return cty.UnknownVal(cty.String).WithMarks(marks), nil
			}
			f, err := r.open("templatefile", p, marks)
			if err != nil {
				return cty.NilVal, err
			}
			t, ok := r.templates[f.Path]
			if !ok {
				t = template(f.Path, f.Data, code.Place{File: f.Path, Line: 1, Column: 1}, 0)
				r.templates[f.Path] = t
			}
			if t == nil {
				return cty.NilVal, &cause{fmt.Sprintf("function templatefile: %s is not a template", f.Path)}
			}
			v, err := r.render(t, args[1])
			if err != nil {
				return cty.NilVal, err
			}
			return v.WithMarks(marks), nil
		},
	})
}

// templateText renders a text that is a template. Its parts have places of
// their own where the text stands in a file as it is read.
func (r *run) templateText(text, vars cty.Value) (cty.Value, error) {
	raw, marks := text.Unmark()
	s, ok := Text(raw)
	if !ok {
		return cty.UnknownVal(cty.String).WithMarks(marks), nil
	}
	var t *arg
	var kept []any
	for m := range marks.All() {
		o, ok := m.(origin)
		if ok && t == nil && o.literal.text == s && o.literal.End-o.literal.Start == len(s) {
			t = template(o.literal.File, []byte(s), o.literal.place, o.literal.Start)
		} else {
			kept = append(kept, m)
		}
	}
	if t == nil {
		t = template("", []byte(s), code.Place{Line: 1, Column: 1}, 0)
	}
	if t == nil {
		return cty.NilVal, &cause{"a text is not a template"}
	}
	v, err := r.render(t, vars)
	if err != nil {
		return cty.NilVal, err
	}
	return v.WithMarks(cty.NewValueMarks(kept...)), nil
}

// template parses a text that begins at an offset of a file; nil if it cannot.
func template(file string, text []byte, place code.Place, start int) *arg {
	if tooDeep(text, true, hcl.InitialPos) != nil {
		return nil
	}
	e, diags := parseTemplate(text, file, hcl.Pos{Line: place.Line, Column: place.Column, Byte: start})
	if diags.HasErrors() || e == nil {
		return nil
	}
	p := &parser{file: file, offset: start, data: text}
	return p.arg("template", e, hcl.Pos{Line: place.Line, Column: place.Column, Byte: start})
}

func parseTemplate(text []byte, file string, at hcl.Pos) (e hclsyntax.Expression, diags hcl.Diagnostics) {
	defer func() {
		if recover() != nil {
			e = nil
		}
	}()
	return hclsyntax.ParseTemplate(text, file, at)
}

// render evaluates a template with its variables.
func (r *run) render(t *arg, vars cty.Value) (cty.Value, error) {
	if r.rendering >= maxTemplates {
		return cty.NilVal, &cause{"templates use templates too deeply"}
	}
	r.rendering++
	defer func() { r.rendering-- }()
	raw, marks := vars.Unmark()
	ctx := r.ctx.NewChild()
	ctx.Variables = map[string]cty.Value{}
	known := raw.IsKnown() && !raw.IsNull() && (raw.Type().IsObjectType() || raw.Type().IsMapType())
	if known {
		for it := raw.ElementIterator(); it.Next(); {
			k, e := it.Element()
			ctx.Variables[k.AsString()] = e
		}
	}
	for _, ref := range t.refs {
		name := ref.RootName()
		if _, ok := ctx.Variables[name]; ok {
			continue
		}
		if known {
			return cty.NilVal, &cause{fmt.Sprintf("template %s uses %s, which it is not given", t.place, name)}
		}
		ctx.Variables[name] = cty.DynamicVal.WithMarks(marks)
	}
	v, diags := value(t.expr, ctx)
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			return cty.NilVal, &cause{fmt.Sprintf("template %s: %s", t.place, failure(d))}
		}
	}
	return v.WithMarks(marks), nil
}
