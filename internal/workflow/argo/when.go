package argo

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cairn.dev/cairn/internal/workflow"
)

// condition is what stands at when: comparisons of words, texts and numbers. A
// tag in it is an operand, or part of one; its value is not read as more.
type condition struct {
	text string
	root workflow.Expr
}

func (w condition) String() string { return w.text }

// Eval implements [workflow.Expr].
func (w condition) Eval(s workflow.Scope) (workflow.Value, error) {
	v, err := w.root.Eval(s)
	if err != nil {
		return nil, err
	}
	if b, ok := v.(bool); ok {
		return b, nil
	}
	return nil, fmt.Errorf("%q is %.40q, neither true nor false", w.text, fmt.Sprint(v))
}

// literal is a bare word: a number, a truth value, or a text.
func literal(s string) workflow.Value {
	t := strings.TrimSpace(s)
	switch t {
	case "true":
		return true
	case "false":
		return false
	}
	if f, err := strconv.ParseFloat(t, 64); err == nil && numberRE.MatchString(t) {
		return f
	}
	return s
}

var numberRE = regexp.MustCompile(`^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// maxWhen bounds a condition, and with it how deep it nests.
const maxWhen = 4000

// when compiles a condition.
func (p *place) when(s string) (workflow.Expr, error) {
	if len(s) > maxWhen {
		return nil, fmt.Errorf("a condition of %d bytes: the limit is %d", len(s), maxWhen)
	}
	parts, err := split(s)
	if err != nil {
		return nil, err
	}
	w := &whenParser{place: p}
	if err := w.lex(parts); err != nil {
		return nil, fmt.Errorf("%.80q: %w", s, err)
	}
	root, err := w.or(0)
	if err == nil && w.at < len(w.tokens) {
		err = fmt.Errorf("what is %q to do there? Texts with blanks stand in quotes", w.tokens[w.at].word)
	}
	if err != nil {
		return nil, fmt.Errorf("%.80q: %w", s, err)
	}
	return condition{s, root}, nil
}

type token struct {
	word string        // an operator
	expr workflow.Expr // or an operand
}

type whenParser struct {
	place  *place
	tokens []token
	at     int
}

var operators = []string{"&&", "||", "==", "!=", "<=", ">=", "=~", "!~", "<", ">", "!", "(", ")", ",", "+", "*", "%"}

// lex cuts the condition into operators and operands.
func (w *whenParser) lex(parts []string) error {
	var pieces []workflow.Expr // of the operand that is being read
	quote := byte(0)
	quoted := false
	flush := func() {
		if len(pieces) == 0 && !quoted {
			return
		}
		var e workflow.Expr
		switch {
		case quoted:
			e = quotedText(pieces)
		case len(pieces) == 1:
			if c, ok := pieces[0].(workflow.Constant); ok {
				e = workflow.Constant{Value: literal(c.String())}
			} else {
				e = bare{pieces[0]}
			}
		default:
			e = bare{mixed{"", pieces}}
		}
		w.tokens = append(w.tokens, token{expr: e})
		pieces, quoted = nil, false
	}
	add := func(s string) { pieces = append(pieces, workflow.Constant{Value: s}) }
	for i, t := range parts {
		if i%2 == 1 {
			e, err := w.place.tag(t)
			if err != nil {
				return err
			}
			pieces = append(pieces, e)
			continue
		}
		for j := 0; j < len(t); {
			c := t[j]
			if quote != 0 {
				end := strings.IndexByte(t[j:], quote)
				if end < 0 {
					add(t[j:])
					break
				}
				add(t[j : j+end])
				j += end + 1
				quote = 0
				flush()
				continue
			}
			if c == '"' || c == '\'' {
				flush()
				quote, quoted = c, true
				j++
				continue
			}
			if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
				flush()
				j++
				continue
			}
			if op := slices.IndexFunc(operators, func(o string) bool { return strings.HasPrefix(t[j:], o) }); op >= 0 {
				flush()
				w.tokens = append(w.tokens, token{word: operators[op]})
				j += len(operators[op])
				continue
			}
			end := j
			for end < len(t) && !strings.ContainsRune(" \t\n\r\"'&|=!<>(),+*%", rune(t[end])) {
				end++
			}
			if end == j { // a lone & or |
				return fmt.Errorf("%q is no operator", string(c))
			}
			if word := t[j:end]; len(pieces) == 0 && (word == "in" || word == "-") {
				w.tokens = append(w.tokens, token{word: word})
			} else {
				add(word)
			}
			j = end
		}
	}
	if quote != 0 {
		return fmt.Errorf("a quote is not closed")
	}
	flush()
	return nil
}

// quotedText is what stands between quotes: a text, whatever it looks like.
func quotedText(pieces []workflow.Expr) workflow.Expr {
	var b strings.Builder
	for _, e := range pieces {
		k, ok := e.(workflow.Constant)
		if !ok {
			return mixed{"", pieces}
		}
		b.WriteString(k.String())
	}
	return workflow.Constant{Value: b.String()}
}

func (w *whenParser) take(words ...string) string {
	if w.at < len(w.tokens) && slices.Contains(words, w.tokens[w.at].word) && w.tokens[w.at].expr == nil {
		w.at++
		return w.tokens[w.at-1].word
	}
	return ""
}

// binary is an operator and its operands.
type binary struct {
	op          string
	left, right workflow.Expr
}

func (b binary) String() string { return b.left.String() + " " + b.op + " " + b.right.String() }

func (w *whenParser) or(depth int) (workflow.Expr, error) { return w.chain(depth, 0) }

// levels are the operators from the weakest to the strongest.
var levels = [][]string{{"||"}, {"&&"}, {"==", "!=", "<", "<=", ">", ">=", "=~", "!~", "in"}, {"+", "-"}, {"*", "%"}}

func (w *whenParser) chain(depth, level int) (workflow.Expr, error) {
	if depth > 100 {
		return nil, fmt.Errorf("it is nested too deep")
	}
	if level == len(levels) {
		return w.operand(depth)
	}
	left, err := w.chain(depth, level+1)
	for err == nil {
		op := w.take(levels[level]...)
		if op == "" {
			return left, nil
		}
		var right workflow.Expr
		if op == "in" {
			right, err = w.list(depth)
		} else {
			right, err = w.chain(depth, level+1)
		}
		if c, ok := right.(workflow.Constant); ok && err == nil && (op == "=~" || op == "!~") {
			if _, err := regexp.Compile(c.String()); err != nil {
				return nil, fmt.Errorf("%.40q is no regular expression: %w", c.String(), err)
			}
		}
		left = binary{op, left, right}
	}
	return nil, err
}

func (w *whenParser) operand(depth int) (workflow.Expr, error) {
	if w.take("!") != "" {
		e, err := w.operand(depth + 1)
		return binary{"!", e, workflow.Constant{}}, err
	}
	if w.take("-") != "" {
		e, err := w.operand(depth + 1)
		return binary{"-", workflow.Constant{Value: float64(0)}, e}, err
	}
	if w.take("(") != "" {
		e, err := w.or(depth + 1)
		if err == nil && w.take(")") == "" {
			err = fmt.Errorf("( has no )")
		}
		return e, err
	}
	if w.at < len(w.tokens) && w.tokens[w.at].expr != nil {
		w.at++
		return w.tokens[w.at-1].expr, nil
	}
	if w.at < len(w.tokens) {
		return nil, fmt.Errorf("something is missing before %q", w.tokens[w.at].word)
	}
	return nil, fmt.Errorf("something is missing at its end")
}

func (w *whenParser) list(depth int) (workflow.Expr, error) {
	if w.take("(") == "" {
		return nil, fmt.Errorf("in wants a list: in ('a', 'b')")
	}
	t := tree{list: []workflow.Expr{}}
	for {
		e, err := w.or(depth + 1)
		if err != nil {
			return nil, err
		}
		t.list = append(t.list, e)
		if w.take(")") != "" {
			return t, nil
		}
		if w.take(",") == "" {
			return nil, fmt.Errorf("a comma is missing in a list")
		}
	}
}

// Eval implements [workflow.Expr].
func (b binary) Eval(s workflow.Scope) (workflow.Value, error) {
	l, err := b.left.Eval(s)
	if err != nil {
		return nil, err
	}
	truth := func(v workflow.Value) (bool, error) {
		switch v := v.(type) {
		case bool:
			return v, nil
		case string:
			if x, ok := literal(v).(bool); ok {
				return x, nil
			}
		}
		return false, fmt.Errorf("%.40q is neither true nor false", fmt.Sprint(v))
	}
	if b.op == "!" || b.op == "&&" || b.op == "||" {
		x, err := truth(l)
		if err != nil {
			return nil, err
		}
		switch {
		case b.op == "!":
			return !x, nil
		case x == (b.op == "||"):
			return x, nil
		}
		r, err := b.right.Eval(s)
		if err != nil {
			return nil, err
		}
		return truth(r)
	}
	r, err := b.right.Eval(s)
	if err != nil {
		return nil, err
	}
	switch b.op {
	case "==":
		return same(l, r), nil
	case "!=":
		return !same(l, r), nil
	case "in":
		list, _ := r.([]any)
		return slices.ContainsFunc(list, func(e any) bool { return same(l, e) }), nil
	case "=~", "!~":
		re, err := regexp.Compile(word(r))
		if err != nil {
			return nil, fmt.Errorf("%.40q is no regular expression: %w", word(r), err)
		}
		return re.MatchString(word(l)) == (b.op == "=~"), nil
	}
	x, okx := number(l)
	y, oky := number(r)
	if !okx || !oky {
		c := strings.Compare(word(l), word(r))
		switch b.op {
		case "<":
			return c < 0, nil
		case "<=":
			return c <= 0, nil
		case ">":
			return c > 0, nil
		case ">=":
			return c >= 0, nil
		}
		return nil, fmt.Errorf("%.40q and %.40q are no numbers", word(l), word(r))
	}
	switch b.op {
	case "<":
		return x < y, nil
	case "<=":
		return x <= y, nil
	case ">":
		return x > y, nil
	case ">=":
		return x >= y, nil
	case "+":
		return x + y, nil
	case "-":
		return x - y, nil
	case "*":
		return x * y, nil
	}
	if y == 0 {
		return nil, fmt.Errorf("%v %% 0 is no number", x)
	}
	return math.Mod(x, y), nil
}

// same compares as people mean it: numbers as numbers when both are, all else
// by their texts.
func same(a, b workflow.Value) bool {
	if x, ok := number(a); ok {
		if y, ok := number(b); ok {
			return x == y
		}
	}
	return word(a) == word(b)
}

func number(v workflow.Value) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case string:
		f, ok := literal(v).(float64)
		return f, ok
	}
	return 0, false
}

func word(v workflow.Value) string {
	s, err := workflow.Text(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return s
}
