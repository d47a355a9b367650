package terraform

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// maxParts is how many parts of a template are put together before their
// size is looked at.
const maxParts = 16

// prepare changes an expression as it was parsed into one that says where its
// strings come from and that stops when it takes too much: every literal
// string gets its origin as a mark; loops and templates are metered. Keys of
// objects stay as they are, because a mark on a key is one on all values.
func (p *parser) prepare(e hclsyntax.Expression, a *arg) hclsyntax.Expression {
	do := func(e hclsyntax.Expression) hclsyntax.Expression {
		if e == nil {
			return nil
		}
		return p.prepare(e, a)
	}
	switch e := e.(type) {
	case *hclsyntax.LiteralValueExpr:
		p.value(e)
	case *hclsyntax.TemplateExpr:
		text := lines(e.Parts)
		for i, part := range e.Parts {
			e.Parts[i] = do(part)
			if _, literal := part.(*hclsyntax.LiteralValueExpr); text && !literal {
				e.Parts[i] = holey{&hclsyntax.ParenthesesExpr{Expression: e.Parts[i], SrcRange: part.Range()}}
			}
		}
		if len(e.Parts) > 1 {
			return regroup(e.Parts, e.SrcRange)
		}
	case *hclsyntax.TemplateWrapExpr:
		e.Wrapped = do(e.Wrapped)
	case *hclsyntax.TemplateJoinExpr:
		e.Tuple = do(e.Tuple)
		return meter(e)
	case *hclsyntax.ForExpr:
		e.CollExpr, e.KeyExpr, e.ValExpr, e.CondExpr = meterLoop(do(e.CollExpr)), do(e.KeyExpr), do(e.ValExpr), do(e.CondExpr)
		return meter(e)
	case *hclsyntax.FunctionCallExpr:
		for i := range e.Args {
			e.Args[i] = do(e.Args[i])
		}
	case *hclsyntax.ConditionalExpr:
		e.Condition, e.TrueResult, e.FalseResult = do(e.Condition), do(e.TrueResult), do(e.FalseResult)
	case *hclsyntax.BinaryOpExpr:
		e.LHS, e.RHS = do(e.LHS), do(e.RHS)
		return meter(e) // numbers grow fastest here
	case *hclsyntax.UnaryOpExpr:
		e.Val = do(e.Val)
		return meter(e)
	case *hclsyntax.ParenthesesExpr:
		e.Expression = do(e.Expression)
	case *hclsyntax.IndexExpr:
		e.Collection, e.Key = do(e.Collection), do(e.Key)
	case *hclsyntax.RelativeTraversalExpr:
		e.Source = do(e.Source)
		if name, ok := e.Traversal[0].(hcl.TraverseAttr); ok {
			a.hints = append(a.hints, name.Name)
		}
	case *hclsyntax.SplatExpr:
		e.Source, e.Each = do(e.Source), do(e.Each)
	case *hclsyntax.TupleConsExpr:
		for i := range e.Exprs {
			p.number(e.Exprs[i])
			e.Exprs[i] = do(e.Exprs[i])
		}
	case *hclsyntax.ObjectConsExpr:
		for i, item := range e.Items {
			p.key(item.KeyExpr, a)
			p.number(item.ValueExpr)
			e.Items[i].ValueExpr = do(item.ValueExpr)
		}
	}
	return e
}

// value marks a literal string with its origin, and takes numbers away that
// would be millions of digits long.
func (p *parser) value(e *hclsyntax.LiteralValueExpr) {
	switch {
	case e.Val.IsMarked() || e.Val.IsNull() || !e.Val.IsKnown():
	case e.Val.Type() == cty.String && !p.unmarked:
		e.Val = e.Val.Mark(origin{literal: p.literal(e.SrcRange, e.Val.AsString())})
	case e.Val.Type() == cty.Number && huge(e.Val):
		e.Val = unknown(cty.Number, "a number is too large", p.place(e.SrcRange.Start))
	}
}

// number marks a number that is all of a value, as in tag = 17: a template
// makes a tag of it. Numbers within expressions count and compare.
func (p *parser) number(e hclsyntax.Expression) {
	l, ok := e.(*hclsyntax.LiteralValueExpr)
	if !ok || !l.Val.IsKnown() || l.Val.IsNull() || l.Val.Type() != cty.Number || huge(l.Val) {
		return
	}
	if text, ok := numberText(l.Val); ok {
		l.Val = l.Val.Mark(origin{literal: p.literal(l.SrcRange, text)})
	}
}

// key notes a key that is written as a string: for_each makes each.key of it,
// which may be (a part of) an image.
func (p *parser) key(e hclsyntax.Expression, a *arg) {
	k, ok := e.(*hclsyntax.ObjectConsKeyExpr)
	if !ok {
		return
	}
	if t, ok := k.Wrapped.(*hclsyntax.TemplateExpr); ok && t.IsStringLiteral() {
		part := t.Parts[0].(*hclsyntax.LiteralValueExpr)
		if text, ok := Text(part.Val); ok {
			p.keys = append(p.keys, p.literal(part.SrcRange, text))
		}
		return
	}
	outer := p.unmarked
	p.unmarked = true
	k.Wrapped = p.prepare(k.Wrapped, a)
	p.unmarked = outer
}

// lines reports whether a template is one of several lines: a text, and not a
// name that is put together.
func lines(parts []hclsyntax.Expression) bool {
	for _, part := range parts {
		if l, ok := part.(*hclsyntax.LiteralValueExpr); ok {
			if text, ok := Text(l.Val); ok && strings.Contains(text, "\n") {
				return true
			}
		}
	}
	return false
}

// holey is a part of a text that leaves a hole when it is not known.
type holey struct{ *hclsyntax.ParenthesesExpr }

// Value implements hcl.Expression.
func (h holey) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	v, diags := h.Expression.Value(ctx)
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			return cty.StringVal(hole).Mark(reason{text: failure(d), place: startOf(h)}), nil
		}
	}
	raw, marks := v.Unmark()
	if raw.IsNull() || !raw.IsKnown() {
		return cty.StringVal(hole).WithMarks(marks), nil
	}
	return v, diags
}

// regroup makes a tree of templates of a template with many parts, so that a
// result that is too large is noticed before it is put together.
func regroup(parts []hclsyntax.Expression, r hcl.Range) hclsyntax.Expression {
	for len(parts) > maxParts {
		var groups []hclsyntax.Expression
		for len(parts) > 0 {
			n := min(maxParts, len(parts))
			groups = append(groups, meter(&hclsyntax.TemplateExpr{Parts: parts[:n:n], SrcRange: r}))
			parts = parts[n:]
		}
		parts = groups
	}
	return meter(&hclsyntax.TemplateExpr{Parts: parts, SrcRange: r})
}
