package terraform

import (
	"cmp"
	"maps"
	"slices"

	"github.com/zclconf/go-cty/cty"

	"cairn.dev/cairn/internal/code"
)

// maxOrigins bounds how many literals one value carries. What is put together
// from more is not an image that a person would want edited.
const maxOrigins = 256

// A literal is bytes of a file that say a string. It is made when a file is
// parsed, and is known by its address after that.
type literal struct {
	code.Range
	place code.Place
	text  string // as evaluated
	lined bool   // its lines are those of the file
}

// A via is one named station that a value came through, and those between it
// and the literal.
type via struct {
	step code.Step
	next *via
}

// Marks. Values carry them through the whole evaluation: cty unites the marks
// of what an operation was given on what it returns.
type (
	// origin: the value may have come from this literal, this way.
	origin struct {
		literal *literal
		via     *via
	}
	// reason: why the value is not known.
	reason struct {
		text  string
		place code.Place
	}
	// secret: the value must not be shown.
	secret struct{}
)

// An Origin is a literal that a value may have come from.
type Origin struct {
	code.Range
	Text  string      // as evaluated
	Place code.Place  // of the literal
	Steps []code.Step // from the value down to the literal: local.tag, var.tag, …
	Lined bool        // the text's lines are those of the file
}

// A Trace is what a value says about itself.
type Trace struct {
	Origins []Origin // by place, each literal once
	// Reason says why the value is not wholly known; "" if it is. Holes is the
	// same of a text that is known but for some parts; see [hole].
	Reason, Holes string
	// Secret: it depends on something sensitive. Such a value may be used and
	// must not be shown, unless it is the image itself.
	Secret bool
}

// TraceOf returns what is known of the way to the value and to all within it.
func TraceOf(v cty.Value) Trace {
	plain, marks := v.UnmarkDeep()
	var t Trace
	best := map[*literal]*via{}
	for m := range marks.All() {
		switch m := m.(type) {
		case origin:
			if old, ok := best[m.literal]; !ok || shorter(m.via, old) {
				best[m.literal] = m.via
			}
		case reason:
			// One of them, and always the same one.
			if t.Reason == "" || m.text < t.Reason {
				t.Reason = m.text
			}
		case secret:
			t.Secret = true
		}
	}
	if plain.IsWhollyKnown() {
		t.Reason, t.Holes = "", t.Reason
	} else if t.Reason == "" {
		t.Reason = "its value is known only when applied"
	}
	for l, steps := range best {
		o := Origin{Range: l.Range, Text: l.text, Place: l.place, Lined: l.lined || l.End-l.Start == len(l.text)}
		for s := steps; s != nil; s = s.next {
			o.Steps = append(o.Steps, s.step)
		}
		t.Origins = append(t.Origins, o)
	}
	slices.SortFunc(t.Origins, func(a, b Origin) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End))
	})
	return t
}

// Text returns the string that v is, if it is a known one; marks are no
// hindrance. Numbers and booleans are not strings.
func Text(v cty.Value) (string, bool) {
	v, _ = v.Unmark()
	if v.Type() != cty.String || !v.IsKnown() || v.IsNull() {
		return "", false
	}
	return v.AsString(), true
}

// shorter orders ways to the same literal: by length, then by what they say,
// so that the same tree is always explained in the same words.
func shorter(a, b *via) bool {
	x, y := a, b
	for ; x != nil && y != nil; x, y = x.next, y.next {
	}
	if x != nil || y != nil {
		return x == nil
	}
	for x, y = a, b; x != nil; x, y = x.next, y.next {
		// The longer name says more: local.images.api, not local.images.
		if c := cmp.Or(len(y.step.Name)-len(x.step.Name), cmp.Compare(x.step.Name, y.step.Name), cmp.Compare(x.step.Place.File, y.step.Place.File), cmp.Compare(x.step.Place.Line, y.step.Place.Line)); c != 0 {
			return c < 0
		}
	}
	return false
}

// unknown is a value of the type that is not known, and why.
func unknown(t cty.Type, why string, place code.Place) cty.Value {
	return cty.UnknownVal(t).Mark(reason{text: why, place: place})
}

// through says of all origins within v that they came through the name, whose
// definition is a. Within objects and lists the name grows: local.images.api.
func through(name string, a *arg, v cty.Value) cty.Value {
	if !v.ContainsMarked() {
		return v
	}
	return (&passage{arg: a}).through(v, name)
}

type passage struct{ arg *arg }

func (p *passage) through(v cty.Value, name string) cty.Value {
	raw, marks := v.Unmark()
	if t := raw.Type(); !t.IsPrimitiveType() && !t.IsSetType() {
		raw = remake(raw, func(k, e cty.Value) cty.Value {
			if e.Type().IsPrimitiveType() && !e.IsMarked() {
				return e
			}
			if k.Type() == cty.Number {
				return p.through(e, name+"["+k.AsBigFloat().Text('f', 0)+"]")
			}
			return p.through(e, name+"."+k.AsString())
		})
	}
	return raw.WithMarks(p.step(marks, name))
}

// step adds the station to the origins among the marks, of which it keeps one
// for each literal: values that are put together from each other would
// otherwise double their ways at every name.
func (p *passage) step(marks cty.ValueMarks, name string) cty.ValueMarks {
	if len(marks) == 0 {
		return marks
	}
	best := map[*literal]*via{}
	kept := make([]any, 0, len(marks))
	for m := range marks.All() {
		o, ok := m.(origin)
		if !ok {
			kept = append(kept, m)
			continue
		}
		if old, twice := best[o.literal]; !twice || shorter(o.via, old) {
			best[o.literal] = o.via
		}
	}
	for _, l := range few(best) {
		kept = append(kept, origin{literal: l, via: p.via(name, best[l], l)})
	}
	return cty.NewValueMarks(kept...)
}

// few returns the literals, or as many as a value may carry.
func few(all map[*literal]*via) []*literal {
	list := slices.Collect(maps.Keys(all))
	if len(list) > maxOrigins {
		slices.SortFunc(list, func(a, b *literal) int { return cmp.Or(cmp.Compare(a.File, b.File), a.Start-b.Start) })
		list = list[:maxOrigins]
	}
	return list
}

// via is the station's step. It stands where the name is defined; where the
// definition spells the literal out, at the literal.
func (p *passage) via(name string, next *via, l *literal) *via {
	place := p.arg.place
	r := p.arg.expr.Range()
	if next == nil && l.File == r.Filename && r.Start.Byte <= l.Start && l.End <= r.End.Byte {
		place = l.place
	}
	return &via{step: code.Step{Name: name, Place: place}, next: next}
}
