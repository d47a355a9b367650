package terraform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"cairn.dev/cairn/internal/code"
)

// Bounds. They are far above what people write, and what is beyond them is
// unknown, with the reason; nothing fails.
const (
	maxFile      = 4 << 20   // bytes of a file
	maxNesting   = 400       // brackets within brackets
	maxOperators = 20_000    // in one expression: each may be a level of recursion
	maxString    = 1 << 20   // bytes of one string
	maxBytes     = 16 << 20  // bytes of all strings in one value
	maxNodes     = 100_000   // values within one value
	maxDigits    = 1024      // binary digits before or after a number's point
	maxWork      = 20 << 20  // steps of the evaluation of one root module in one environment
	maxInstances = 10_000    // of resources and modules in one root module
	maxCopies    = 2000      // of one of them
	maxCalls     = 64        // modules within modules
	maxNames     = 500       // locals that need locals that need locals
	maxFileBytes = 256 << 20 // of all files that functions read in one root module
)

// A gauge counts the work of evaluating one root module. It is used by one
// goroutine.
type gauge struct {
	ctx  context.Context
	left int
}

// slice lets one resource have a part of what is left, and no more, so that
// there is something left for the others. What it returns ends that.
func (g *gauge) slice() func() {
	all := g.left
	g.left = min(all, maxWork/4)
	part := g.left
	return func() { g.left = all - part + g.left }
}

// spend takes n steps off what is left; false when there is nothing left.
func (g *gauge) spend(n int) bool {
	if g.left <= 0 {
		return false
	}
	if g.left -= n + 1; g.left <= 0 || g.ctx.Err() != nil {
		g.left = 0
		return false
	}
	return true
}

func (g *gauge) exhausted(place code.Place) cty.Value {
	return unknown(cty.DynamicPseudoType, "evaluating the module takes too much work", place)
}

// weigh returns the value, or an unknown one in its place when it is too large.
func (g *gauge) weigh(v cty.Value, place code.Place) cty.Value {
	w := weight{nodes: maxNodes, bytes: maxBytes}
	ok := w.add(v)
	if !g.spend(maxNodes - w.nodes + (maxBytes-w.bytes)/64) {
		return g.exhausted(place)
	}
	if !ok {
		return unknown(cty.DynamicPseudoType, "a value is too large", place)
	}
	return v
}

// weight is what is left for a value to have.
type weight struct{ nodes, bytes int }

func (w *weight) add(v cty.Value) bool {
	if w.nodes--; w.nodes < 0 {
		return false
	}
	v, _ = v.Unmark()
	if v.IsNull() || !v.IsKnown() {
		return true
	}
	switch t := v.Type(); {
	case t == cty.String:
		n := len(v.AsString())
		w.bytes -= n
		return n <= maxString && w.bytes >= 0
	case t == cty.Number:
		return !huge(v)
	case t.IsObjectType():
		for name := range t.AttributeTypes() {
			if !w.add(v.GetAttr(name)) {
				return false
			}
		}
	case v.CanIterateElements():
		for it := v.ElementIterator(); it.Next(); {
			if _, e := it.Element(); !w.add(e) {
				return false
			}
		}
	}
	return true
}

// huge reports whether a number has more digits than anybody would print.
func huge(v cty.Value) bool {
	f := v.AsBigFloat()
	exp := f.MantExp(nil)
	return f.IsInf() || exp > maxDigits || exp < -maxDigits
}

// numberText is a number as a template writes it. Nearly all are small and
// whole, and their text costs a hundredth of what a fraction's does.
func numberText(v cty.Value) (string, bool) {
	if i, exact := v.AsBigFloat().Int64(); exact == big.Exact {
		return strconv.FormatInt(i, 10), true
	}
	text, err := convert.Convert(v, cty.String)
	if err != nil {
		return "", false
	}
	return text.AsString(), true
}

// gaugeName is where contexts of evaluation keep their gauge. No identifier
// of HCL has a space.
const gaugeName = "the gauge"

var gaugeType = cty.Capsule("gauge", reflect.TypeFor[gauge]())

// metered is an expression that stops when there is no work left, and whose
// result is not too large. The parentheses are there so that walks of the
// tree see what is within.
type metered struct {
	*hclsyntax.ParenthesesExpr
	loop bool // it is what a loop goes over: each element is a turn
}

// turn is what one turn of a loop costs, beside what is evaluated in it.
const turn = 16

func meter(e hclsyntax.Expression) hclsyntax.Expression {
	return metered{ParenthesesExpr: &hclsyntax.ParenthesesExpr{Expression: e, SrcRange: e.Range()}}
}

func meterLoop(e hclsyntax.Expression) hclsyntax.Expression {
	return metered{ParenthesesExpr: &hclsyntax.ParenthesesExpr{Expression: e, SrcRange: e.Range()}, loop: true}
}

// Value implements hcl.Expression.
func (m metered) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	g := gaugeOf(ctx)
	if g == nil {
		return m.Expression.Value(ctx)
	}
	if !g.spend(1) {
		return g.exhausted(startOf(m)), nil
	}
	v, diags := m.Expression.Value(ctx)
	if raw, _ := v.Unmark(); m.loop && raw.IsKnown() && !raw.IsNull() && raw.CanIterateElements() && !g.spend(turn*raw.LengthInt()) {
		return g.exhausted(startOf(m)), nil
	}
	return g.weigh(v, startOf(m)), diags
}

func gaugeOf(ctx *hcl.EvalContext) *gauge {
	for ; ctx != nil; ctx = ctx.Parent() {
		if v, ok := ctx.Variables[gaugeName]; ok {
			g, _ := v.EncapsulatedValue().(*gauge)
			return g
		}
	}
	return nil
}

// tooDeep says why text must not be given to hcl's parser and evaluator, which
// recurse: for each bracket and for each operator there may be a level. Counting
// bytes overestimates, so what looks deep is looked at again as tokens.
func tooDeep(data []byte, template bool, at hcl.Pos) error {
	depth, deepest, operators := 0, 0, 0
	for _, c := range data {
		switch c {
		case '(', '[', '{':
			depth++
			operators++
			deepest = max(deepest, depth)
		case ')', ']', '}':
			depth = max(depth-1, 0)
		case '+', '-', '*', '/', '%', '!', '<', '>', '=', '&', '|', '?', ':':
			operators++
		}
	}
	if deepest <= maxNesting && operators <= maxOperators {
		return nil
	}
	return deepTokens(data, template, at)
}

func deepTokens(data []byte, template bool, at hcl.Pos) error {
	lex := hclsyntax.LexConfig
	if template {
		lex = hclsyntax.LexTemplate
	}
	tokens, _ := lex(data, "", at)
	var open []hclsyntax.TokenType
	operators := 0
	for _, t := range tokens {
		if operators > maxOperators {
			return fmt.Errorf("line %d: an expression has more than %d operators", t.Range.Start.Line, maxOperators)
		}
		switch t.Type {
		case hclsyntax.TokenOParen, hclsyntax.TokenOBrack, hclsyntax.TokenOBrace, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			open = append(open, t.Type)
			operators++
			if len(open) > maxNesting {
				return fmt.Errorf("line %d: brackets are more than %d deep", t.Range.Start.Line, maxNesting)
			}
		case hclsyntax.TokenCParen, hclsyntax.TokenCBrack, hclsyntax.TokenCBrace, hclsyntax.TokenTemplateSeqEnd:
			if len(open) > 0 {
				open = open[:len(open)-1]
			}
		case hclsyntax.TokenNewline:
			// Within braces a new line begins a new item.
			if len(open) == 0 || open[len(open)-1] == hclsyntax.TokenOBrace {
				operators = 0
			}
		case hclsyntax.TokenComma, hclsyntax.TokenStringLit, hclsyntax.TokenQuotedLit, hclsyntax.TokenIdent, hclsyntax.TokenNumberLit, hclsyntax.TokenOQuote, hclsyntax.TokenCQuote, hclsyntax.TokenComment, hclsyntax.TokenEqual:
		default:
			operators++
		}
	}
	return nil
}

// deepData says why JSON or YAML must not be given to a decoder that recurses.
func deepData(data []byte) error {
	depth := 0
	for line := range bytes.Lines(data) {
		// Each of these may open a level of a block: "- - - a".
		if n := len(line) - len(bytes.TrimLeft(line, " -?\t")); n > 2*maxNesting {
			return fmt.Errorf("it is more than %d levels deep", maxNesting)
		}
		for _, c := range line {
			switch c {
			case '[', '{':
				if depth++; depth > maxNesting {
					return errors.New("brackets are too many levels deep")
				}
			case ']', '}':
				depth = max(depth-1, 0)
			}
		}
	}
	return nil
}

// startOf is where an expression begins; its columns are hcl's, of characters.
func startOf(e hclsyntax.Expression) code.Place {
	r := e.Range()
	return code.Place{File: r.Filename, Line: r.Start.Line, Column: r.Start.Column}
}
