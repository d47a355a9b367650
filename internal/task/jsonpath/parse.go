package jsonpath

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// parser reads what stands between braces.
type parser struct {
	s  string
	at int
}

func (p *parser) space() {
	for p.at < len(p.s) && p.s[p.at] == ' ' {
		p.at++
	}
}

func (p *parser) take(symbol string) bool {
	if !strings.HasPrefix(p.s[p.at:], symbol) {
		return false
	}
	p.at += len(symbol)
	return true
}

// action reads a text in quotes or a path, and the brace behind it.
func (p *parser) action() (x part, err error) {
	p.space()
	if p.at < len(p.s) && (p.s[p.at] == '"' || p.s[p.at] == '\'') {
		x.text, err = p.quoted()
	} else {
		if !p.take("$") {
			p.take("@")
		}
		if x.steps, err = p.path(); err == nil && x.steps == nil {
			x.steps = []step{} // the object itself
		}
	}
	if err != nil {
		return x, err
	}
	if p.space(); !p.take("}") {
		return x, fmt.Errorf("a } is expected before %.20q; range, slices and unions are not supported: write a jqFilter", p.s[p.at:])
	}
	return x, nil
}

// path reads steps, if there are any.
func (p *parser) path() (out []step, err error) {
	for len(out) <= maxSteps {
		switch {
		case p.take(".."):
			out = append(out, step{what: 'd'})
			if p.at < len(p.s) && p.s[p.at] != '[' {
				p.at-- // the dot of the field behind it
			}
			continue
		case p.take(".[") || p.take("["):
			s, err := p.bracket()
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		case p.take(".*"):
			out = append(out, step{what: '*'})
		case p.take("."):
			field := p.field()
			if field == "" {
				if len(out) == 0 { // {.} is the object
					return out, nil
				}
				return nil, fmt.Errorf("the name of a field is expected before %.20q", p.s[p.at:])
			}
			out = append(out, step{what: '.', field: field})
		default:
			return out, nil
		}
	}
	return nil, fmt.Errorf("a path of more than %d steps", maxSteps)
}

// field reads a name. A dot behind a backslash belongs to it.
func (p *parser) field() string {
	var b strings.Builder
	for p.at < len(p.s) {
		c := p.s[p.at]
		if c == '\\' && p.at+1 < len(p.s) {
			p.at++
			c = p.s[p.at]
		} else if strings.IndexByte(" .[]{}()=!<>'\",*?@$|&", c) >= 0 {
			break
		}
		b.WriteByte(c)
		p.at++
	}
	return b.String()
}

// bracket reads what stands in brackets.
func (p *parser) bracket() (s step, err error) {
	p.space()
	switch {
	case p.at == len(p.s):
		return s, errors.New("[ has no ]")
	case p.take("*"):
		s.what = '*'
	case p.s[p.at] == '\'' || p.s[p.at] == '"':
		s.what = '.'
		s.field, err = p.quoted()
	case p.take("?("):
		s.what = '?'
		s.test, err = p.test()
	default:
		s.what = '['
		begin := p.at
		for p.at < len(p.s) && (p.s[p.at] == '-' || p.s[p.at] >= '0' && p.s[p.at] <= '9') {
			p.at++
		}
		if s.index, err = strconv.Atoi(p.s[begin:p.at]); err != nil {
			err = fmt.Errorf("a number, a name in quotes, * or ?() is expected before %.20q", p.s[begin:])
		}
	}
	if p.space(); err == nil && !p.take("]") {
		err = fmt.Errorf("a ] is expected before %.20q; slices and unions are not supported: write a jqFilter", p.s[p.at:])
	}
	return s, err
}

// test reads a comparison, up to its parenthesis.
func (p *parser) test() (*test, error) {
	t := &test{}
	p.space()
	if !p.take("@") {
		return nil, errors.New("a comparison begins with @, the entry: ?(@.type==\"Ready\")")
	}
	var err error
	if t.steps, err = p.path(); err != nil {
		return nil, err
	}
	p.space()
	for _, op := range []string{"==", "!=", "<=", ">=", "<", ">"} {
		if p.take(op) {
			t.op = op
			break
		}
	}
	if t.op != "" {
		p.space()
		if t.value, err = p.literal(); err != nil {
			return nil, err
		}
	}
	if p.space(); !p.take(")") {
		return nil, fmt.Errorf("a ) is expected before %.20q", p.s[p.at:])
	}
	return t, nil
}

func (p *parser) literal() (any, error) {
	if p.at < len(p.s) && (p.s[p.at] == '"' || p.s[p.at] == '\'') {
		return p.quoted()
	}
	begin := p.at
	for p.at < len(p.s) && strings.IndexByte(" )", p.s[p.at]) < 0 {
		p.at++
	}
	switch word := p.s[begin:p.at]; word {
	case "true", "false":
		return word == "true", nil
	default:
		f, err := strconv.ParseFloat(word, 64)
		if err != nil {
			return nil, fmt.Errorf("%.20q: a text in quotes, a number, true or false is expected", word)
		}
		return f, nil
	}
}

// quoted reads a text in either kind of quotes.
func (p *parser) quoted() (string, error) {
	quote := p.s[p.at]
	p.at++
	var b strings.Builder
	for ; p.at < len(p.s); p.at++ {
		switch c := p.s[p.at]; c {
		case quote:
			p.at++
			return b.String(), nil
		case '\\':
			if p.at++; p.at == len(p.s) {
				continue
			}
			if e := strings.IndexByte("nt", p.s[p.at]); e >= 0 {
				b.WriteByte("\n\t"[e])
				continue
			}
			b.WriteByte(p.s[p.at])
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("a quote has no end")
}
