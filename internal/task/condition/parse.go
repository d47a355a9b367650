package condition

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// parser reads a condition from left to right.
type parser struct {
	s  string
	at int
}

func (p *parser) space() {
	for p.at < len(p.s) && strings.IndexByte(" \t\r\n", p.s[p.at]) >= 0 {
		p.at++
	}
}

// take goes past a symbol if it comes next.
func (p *parser) take(symbol string) bool {
	p.space()
	if !strings.HasPrefix(p.s[p.at:], symbol) {
		return false
	}
	p.at += len(symbol)
	return true
}

// operators are tried in this order: longer ones first.
var operators = []string{"==", "!=", ">=", "<=", "=", ">", "<"}

func (p *parser) requirement() (r requirement, err error) {
	p.space()
	begin := p.at
	defer func() { r.text = strings.Trim(p.s[begin:p.at], " \t\r\n") }()
	absent := p.take("!")
	if r.path, err = p.path(); err != nil {
		return r, err
	}
	if absent {
		r.op = "!"
		return r, nil
	}
	for _, op := range operators {
		if p.take(op) {
			return p.compared(r, op)
		}
	}
	end := p.at
	p.space()
	switch word := p.word(); word {
	case "in", "notin":
		r.op = word
		r.values, err = p.set()
	case "":
		p.at = end // it is enough that it is there
	default:
		err = fmt.Errorf("%.20q is no operator: there are =, ==, !=, >, >=, <, <=, in and notin", word)
	}
	return r, err
}

// compared reads what a path is compared with.
func (p *parser) compared(r requirement, op string) (requirement, error) {
	v, err := p.value()
	if err != nil {
		return r, err
	}
	switch op {
	case "=", "==":
		r.op, r.values = "=", []string{v}
	case "!=":
		r.op, r.values = op, []string{v}
	default:
		r.op = op
		if r.limit, err = strconv.ParseInt(v, 10, 64); err != nil {
			return r, fmt.Errorf("%.20q: %s compares with a whole number", v, op)
		}
	}
	return r, nil
}

// path reads fields apart by dots. A dot or bracket behind a backslash belongs to
// its field.
func (p *parser) path() ([]step, error) {
	p.space()
	var out []step
	for {
		var s step
		var err error
		if s.field, err = p.field(); err != nil {
			return nil, err
		}
		if p.at < len(p.s) && p.s[p.at] == '[' {
			p.at++
			if s.with, err = p.field(); err != nil {
				return nil, err
			}
			if !p.take("==") && !p.take("=") {
				return nil, errors.New("an entry is chosen like this: conditions[type=Ready]")
			}
			if s.has, err = p.value(); err != nil {
				return nil, err
			}
			if !p.take("]") {
				return nil, errors.New("[ has no ]")
			}
		}
		out = append(out, s)
		if p.at == len(p.s) || p.s[p.at] != '.' {
			return out, nil
		}
		p.at++
	}
}

func (p *parser) field() (string, error) {
	var b strings.Builder
	for p.at < len(p.s) {
		c := p.s[p.at]
		if c == '\\' && p.at+1 < len(p.s) && strings.IndexByte(`.[]\`, p.s[p.at+1]) >= 0 {
			p.at++
			c = p.s[p.at]
		} else if !letter(c) && c != '/' {
			break
		}
		b.WriteByte(c)
		p.at++
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("a path such as status.phase is expected before %.20q", p.s[p.at:])
	}
	return b.String(), nil
}

// letter reports what stands in names and plain values; beyond ASCII, too.
func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c >= 0x80
}

func (p *parser) word() string {
	begin := p.at
	for p.at < len(p.s) && letter(p.s[p.at]) {
		p.at++
	}
	return p.s[begin:p.at]
}

// value reads one, which may be empty, or in quotes.
func (p *parser) value() (string, error) {
	p.space()
	if p.at < len(p.s) && p.s[p.at] == '"' {
		q, err := strconv.QuotedPrefix(p.s[p.at:])
		if err != nil {
			return "", errors.New("a quote has no end")
		}
		p.at += len(q)
		return strconv.Unquote(q)
	}
	begin := p.at
	for p.at < len(p.s) && (letter(p.s[p.at]) || strings.IndexByte("./:+", p.s[p.at]) >= 0) {
		p.at++
	}
	return p.s[begin:p.at], nil
}

// set reads values in parentheses.
func (p *parser) set() ([]string, error) {
	if !p.take("(") {
		return nil, errors.New("values in parentheses are expected: in (Failed, Error)")
	}
	var out []string
	for {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		switch {
		case p.take(")"):
			return out, nil
		case !p.take(","):
			return nil, fmt.Errorf("a comma or ) is expected before %.20q", p.s[p.at:])
		}
	}
}
