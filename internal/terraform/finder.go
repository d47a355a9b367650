package terraform

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"cairn.dev/cairn/internal/code"
)

// nodeOf makes a node of a value. What a container is marked with, all within
// it is marked with.
func nodeOf(v cty.Value, p cty.Path) *code.Node {
	v, marks := v.Unmark()
	n := &code.Node{Origin: spot{value: v.WithMarks(marks), path: p}}
	t := v.Type()
	switch {
	case !v.IsKnown():
		n.Kind, n.Text = code.Unknown, TraceOf(v.WithMarks(marks)).Reason
	case v.IsNull():
	case t == cty.String:
		n.Kind, n.Text = code.String, v.AsString()
	case t == cty.Bool:
		n.Kind, n.Text = code.Scalar, strconv.FormatBool(v.True())
	case t == cty.Number:
		if text, ok := numberText(v); ok {
			n.Kind, n.Text = code.Scalar, text
		}
	case t.IsObjectType() || t.IsMapType():
		n.Kind = code.Map
		for it := v.ElementIterator(); it.Next(); {
			k, item := it.Element()
			k, _ = k.Unmark()
			var step cty.PathStep = cty.GetAttrStep{Name: k.AsString()}
			if t.IsMapType() {
				step = cty.IndexStep{Key: k}
			}
			n.Keys = append(n.Keys, k.AsString())
			n.Items = append(n.Items, nodeOf(item.WithMarks(marks), append(slices.Clone(p), step)))
		}
	case t.IsListType() || t.IsSetType() || t.IsTupleType():
		n.Kind = code.List
		for it := v.ElementIterator(); it.Next(); {
			_, item := it.Element()
			n.Items = append(n.Items, nodeOf(item.WithMarks(marks), append(slices.Clone(p), cty.IndexStep{Key: cty.NumberIntVal(int64(len(n.Items)))})))
		}
	}
	return n
}

// follow calls visit with each node at the path; see [at] for its spelling.
func (b *finder) follow(path string, visit func(path string, n *code.Node)) {
	follow(b.root, "", strings.Split(path, "."), visit)
}

func follow(n *code.Node, at string, path []string, visit func(string, *code.Node)) {
	if n == nil || n.Kind == code.Null {
		return
	}
	if len(path) == 0 || n.Kind == code.Unknown {
		visit(at, n)
		return
	}
	name, numbered := strings.CutSuffix(path[0], "[]")
	next := n.Get(name)
	if name == "*" && n.Kind == code.Map {
		for i, k := range n.Keys {
			follow(n.Items[i], dot(at, k), path[1:], visit)
		}
		return
	}
	if next == nil {
		return
	}
	at = dot(at, name)
	if next.Kind != code.List {
		follow(next, at, path[1:], visit)
		return
	}
	for i, item := range next.Items {
		here := at
		if numbered || i > 0 {
			here += "[" + strconv.Itoa(i) + "]"
		}
		follow(item, here, path[1:], visit)
	}
}

func dot(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

// has reports whether an image at the path was found already.
func (b *finder) has(path string) bool {
	path = strings.ReplaceAll(path, "[]", "")
	return slices.ContainsFunc(b.images, func(i code.Image) bool { return plainPath(i.Path) == path })
}

// plainPath is a path without its indexes.
func plainPath(p string) string {
	var s strings.Builder
	depth := 0
	for _, c := range p {
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case depth == 0:
			s.WriteRune(c)
		}
	}
	return s.String()
}

// whole adds the image that a node spells out.
func (b *finder) whole(path string, n *code.Node) {
	if f, ok := spelled(path, n); ok {
		b.add(f)
	}
}

// spelled is the image that a node spells out, if it may.
func spelled(path string, n *code.Node) (code.Found, bool) {
	f := code.Found{Path: path, Parts: []*code.Node{n}}
	switch {
	case n.Kind == code.Unknown:
		f.Fixed = n.Text
	case holed(n.Text):
		at, _ := n.Origin.(spot)
		f.Fixed = missing(at)
	case n.Kind == code.String && n.Text != "", n.Kind == code.Scalar:
		if _, err := code.ParseReference(n.Text); err != nil {
			f.Fixed = fmt.Sprintf("it does not read as a reference (%v): write repository:tag", err)
			break
		}
		f.Value = n.Text
	default:
		return f, false
	}
	return f, true
}

// missing says why a part of a text is not known.
func missing(at spot) string {
	if at.value != cty.NilVal {
		if why := TraceOf(at.value).Holes; why != "" {
			return why
		}
	}
	return "a part of it is known only when applied"
}

// addAll adds what a walker found below a path.
func (b *finder) addAll(path string, found []code.Found) {
	for _, f := range found {
		switch {
		case path == "":
		case f.Path == "" || strings.HasPrefix(f.Path, "["):
			f.Path = path + f.Path
		default:
			f.Path = path + "." + f.Path
		}
		b.add(f)
	}
}

// add makes an image of what was found.
func (b *finder) add(f code.Found) {
	r := b.resource
	if f.Value == "" && r.Dormant {
		return
	}
	img := code.Image{
		Format: code.Terraform, Dir: r.Dir, Address: r.Address, Path: f.Path, Environment: r.Environment,
		Value: f.Value, Chart: f.Chart, Fixed: f.Fixed, Place: r.Place(),
	}
	img.ID = "terraform:" + path.Clean(r.Dir) + ":" + stable(r.Address, f.Value) + "." + f.Path
	if r.Environment != "" {
		img.ID += "@" + r.Environment
	}
	var origins []Origin
	for _, part := range f.Parts {
		s, ok := part.Origin.(spot)
		if !ok {
			continue
		}
		img.Place = r.At(s.path)
		origins = append(origins, s.origins(part)...)
	}
	origins = relevant(origins, f.Value)
	img.Chain = append([]code.Step{{Name: r.Address + "." + f.Path, Place: img.Place}}, chain(origins, f.Value, img.Place)...)
	for _, o := range origins {
		if !slices.Contains(img.Sources, o.Range) {
			img.Sources = append(img.Sources, o.Range)
		}
	}
	if img.Value != "" && img.Fixed == "" && len(img.Sources) == 0 {
		img.Fixed = "no literal in the repository says it: write the reference down"
	}
	b.images = append(b.images, img)
}

// stable is an address without the tag that a for_each over references puts
// into it: ["nginx:1.2"] is ["nginx:*"], before and after a bump.
func stable(address, value string) string {
	ref, err := code.ParseReference(value)
	if err != nil || ref.Tag == "" && ref.Digest == "" {
		return address
	}
	return strings.ReplaceAll(address, strconv.Quote(value), strconv.Quote(ref.Name+":*"))
}

// relevant keeps the origins that say a part of the value: a text that was
// decoded comes from all its literals, and an image in it from few. When none
// of them does, all are kept.
func relevant(origins []Origin, value string) []Origin {
	ref, err := code.ParseReference(value)
	if err != nil {
		return origins
	}
	kept := slices.DeleteFunc(slices.Clone(origins), func(o Origin) bool { return says(o, ref) == 0 })
	if len(kept) == 0 {
		return origins
	}
	return kept
}

// says is how much of a reference a literal says; 0 is nothing.
func says(o Origin, ref code.Reference) int {
	hex := ""
	if ref.Digest != "" {
		hex = ref.Digest.Encoded()
	}
	switch {
	case o.Text == "":
		return 0
	case strings.Contains(o.Text, ref.String()):
		return 6
	case ref.Tag != "" && o.Text == ref.Tag, hex != "" && o.Text == string(ref.Digest):
		return 5
	case ref.Tag != "" && strings.Contains(o.Text, ref.Tag), hex != "" && strings.Contains(o.Text, hex):
		return 4
	case ref.Tag != "" && strings.Contains(ref.Tag, o.Text):
		return 3
	case strings.Contains(o.Text, ref.Name):
		return 2
	case strings.Contains(ref.String(), o.Text):
		return 1
	}
	return 0
}

// chain leads to the literal that says most of the value, and to the one with
// the digest if that is another.
func chain(origins []Origin, value string, sink code.Place) []code.Step {
	ref, err := code.ParseReference(value)
	if err != nil || len(origins) == 0 {
		return nil
	}
	best := slices.MaxFunc(origins, func(a, b Origin) int { return cmp.Compare(says(a, ref), says(b, ref)) })
	steps := stepsOf(best, ref, sink)
	if ref.Tag == "" || ref.Digest == "" || strings.Contains(best.Text, string(ref.Digest)) {
		return steps
	}
	for _, o := range origins {
		if strings.Contains(o.Text, ref.Digest.Encoded()) {
			return append(steps, stepsOf(o, ref, sink)...)
		}
	}
	return steps
}

// stepsOf is the way to a literal, with the literal itself at its end where
// it stands on a line of its own.
func stepsOf(o Origin, ref code.Reference, sink code.Place) []code.Step {
	steps := slices.Clone(o.Steps)
	last := sink
	if len(steps) > 0 {
		last = steps[len(steps)-1].Place
	}
	word := wordOf(o.Text, ref)
	if at := placeOf(o, word); at.File != last.File || at.Line != last.Line {
		steps = append(steps, code.Step{Name: strconv.Quote(word), Place: at})
	}
	return steps
}

// wordOf is what a text says of a reference, as much of it as it says.
func wordOf(text string, ref code.Reference) string {
	for _, w := range []string{ref.String(), ref.Tag, string(ref.Digest), ref.Name} {
		if w != "" && strings.Contains(text, w) {
			return w
		}
	}
	return text
}

// placeOf is where a word of a literal stands: in a text of many lines, the
// line, if the word is there once.
func placeOf(o Origin, word string) code.Place {
	i := strings.Index(o.Text, word)
	if !o.Lined || i < 0 || strings.LastIndex(o.Text, word) != i {
		return o.Place
	}
	if n := strings.Count(o.Text[:i], "\n"); n > 0 {
		return code.Place{File: o.Place.File, Line: o.Place.Line + n}
	}
	return o.Place
}
