package workflow

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/cel-go/cel"
)

// Text is a value as a program's argument has it: a text as it is, a number or
// truth value as JSON writes it, lists and maps as JSON.
func Text(v Value) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case float64:
		if v == float64(int64(v)) && v < 1<<53 && v > -1<<53 {
			return strconv.FormatInt(int64(v), 10), nil
		}
		return strconv.FormatFloat(v, 'g', -1, 64), nil
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", fmt.Errorf("write a value as JSON: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// A Constant is an Expr that is always the same.
type Constant struct{ Value Value }

// Eval implements [Expr].
func (c Constant) Eval(Scope) (Value, error) { return c.Value, nil }

// String implements [Expr].
func (c Constant) String() string {
	s, err := Text(c.Value)
	if err != nil {
		return fmt.Sprint(c.Value)
	}
	return s
}

// mixed is text with expressions in it. What they give is put in as text and
// not looked at again.
type mixed struct {
	text  string
	parts []Expr
}

// String implements [Expr].
func (m mixed) String() string { return m.text }

// Eval implements [Expr].
func (m mixed) Eval(s Scope) (Value, error) {
	var b strings.Builder
	for _, p := range m.parts {
		v, err := p.Eval(s)
		if err != nil {
			return nil, err
		}
		t, err := Text(v)
		if err != nil {
			return nil, err
		}
		if b.Len()+len(t) > maxText {
			return nil, tooLong(m)
		}
		b.WriteString(t)
	}
	return b.String(), nil
}

func tooLong(m mixed) error {
	return fmt.Errorf("%.80s: it makes a text of more than %d bytes: hand it over as a file", m.text, maxText)
}

// written is a text of a document: constant, one expression, or a mixture.
type written struct {
	Expr
	typ  *cel.Type
	uses []string
}

// constant is its value when it is one.
func (w written) constant() (Value, bool) {
	c, ok := w.Expr.(Constant)
	return c.Value, ok
}

// compileText reads a text in which ${{ … }} are expressions.
func (e *celEnv) compileText(s string) (written, error) {
	var parts []Expr
	var uses []string
	rest := s
	var last *celExpr
	for {
		before, after, ok := strings.Cut(rest, "${{")
		if before != "" {
			parts = append(parts, Constant{before})
		}
		if !ok {
			break
		}
		end := closing(after)
		if end < 0 {
			return written{}, fmt.Errorf("%.80q: ${{ has no }}", s)
		}
		x, err := e.compile(strings.TrimSpace(after[:end]))
		if err != nil {
			return written{}, err
		}
		parts, uses, last = append(parts, x), append(uses, x.uses...), x
		rest = after[end+2:]
	}
	switch {
	case len(parts) == 0:
		return written{Expr: Constant{""}, typ: cel.StringType}, nil
	case last == nil:
		return written{Expr: Constant{s}, typ: cel.StringType}, nil
	case len(parts) == 1:
		return written{Expr: last, typ: last.typ, uses: uses}, nil
	}
	for _, p := range parts {
		if x, ok := p.(*celExpr); ok && holdsFile(x.typ) {
			return written{}, fmt.Errorf("%.80q: a file cannot be put into a text: write ${{ %s }} alone, and the argument is the file's path", s, x.text)
		}
	}
	return written{Expr: mixed{s, parts}, typ: cel.StringType, uses: uses}, nil
}

// closing finds the }} that ends an expression, beside those in its texts and
// after those of its maps.
func closing(s string) int {
	depth := 0
	var quote byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote != 0:
			if c == '\\' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '{':
			depth++
		case c == '}' && depth > 0:
			depth--
		case c == '}' && strings.HasPrefix(s[i:], "}}"):
			return i
		}
	}
	return -1
}

func holdsFile(t *cel.Type) bool {
	if t.IsExactType(fileType) {
		return true
	}
	for _, p := range t.Parameters() {
		if holdsFile(p) {
			return true
		}
	}
	return false
}
