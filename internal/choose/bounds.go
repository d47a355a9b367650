package choose

import (
	"fmt"
	"slices"
	"strings"
)

// maxRange bounds the text of a range; nobody reads longer ones.
const maxRange = 500

// bounds are what a range allows: one of the lists, all of its conditions.
type bounds [][]condition

// A condition compares a version with another one, by as many parts as that
// one has: 1.2.9 is = 1.2, and not > 1.2.
type condition struct {
	op    string // = != < <= > >=, and "in": = that lets prereleases pass
	than  version
	parts int // of than, that are compared; 0 is always true
}

// CheckRange reports what is wrong with a range. It is alternatives divided by
// ||, each a list of conditions that all have to hold:
//
//	1.2  =1.2  1.2.x        1.2 and all that begins so
//	>=1.2 <2, !=1.4         also with commas; >1.2 begins at 1.3
//	1.2 - 1.5               both ends belong to it
//	~1.2.3                  >=1.2.3 and 1.2
//	^1.2.3                  >=1.2.3 up to the first part that is not 0: 1
//	~> 1.2                  as Terraform has it: >=1.2, and the last part may grow
//
// A prerelease of a version is less than it, and is in no range that ends or
// begins there unless the range names a prerelease.
func CheckRange(s string) error {
	_, err := parseRange(s, prerelease)
	return err
}

// parseRange reads prereleases with the function that the tags are read with;
// it returns nil for what it does not know.
func parseRange(s string, pre func(string) ([]string, string)) (bounds, error) {
	if len(s) > maxRange {
		return nil, fmt.Errorf("range of %d characters: the limit is %d", len(s), maxRange)
	}
	var out bounds
	for alternative := range strings.SplitSeq(s, "||") {
		all, err := parseAll(strings.Fields(strings.ReplaceAll(alternative, ",", " ")), pre)
		if err != nil {
			return nil, fmt.Errorf("range %q: %w", s, err)
		}
		out = append(out, all)
	}
	return out, nil
}

func parseAll(words []string, pre func(string) ([]string, string)) (all []condition, err error) {
	if len(words) == 0 {
		return nil, fmt.Errorf("there is an empty part: write conditions such as >=1.2 <2, or ~1.2")
	}
	for len(words) > 0 {
		if len(words) >= 3 && words[1] == "-" {
			for i, op := range []string{">=", "<="} {
				v, err := parseBound(words[2*i], pre)
				if err != nil {
					return nil, err
				}
				all = append(all, condition{op, v, len(v.numbers)})
			}
			words = words[3:]
			continue
		}
		n := span(words[0], func(c byte) bool { return strings.IndexByte("=<>!~^", c) >= 0 })
		op, text := words[0][:n], words[0][n:]
		words = words[1:]
		if text == "" {
			if len(words) == 0 {
				return nil, fmt.Errorf("nothing follows %s: write a version behind it", op)
			}
			text, words = words[0], words[1:]
		}
		v, err := parseBound(text, pre)
		if err != nil {
			return nil, err
		}
		part, err := conditions(op, v)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}

// conditions is what an operator of the range means.
func conditions(op string, v version) ([]condition, error) {
	all := len(v.numbers)
	least := condition{">=", v, all}
	switch op {
	case "", "=", "==":
		return []condition{{"=", v, all}}, nil
	case "!=", "<", "<=", ">", ">=":
		return []condition{{op, v, all}}, nil
	case "~":
		return []condition{least, {"in", v, min(2, all)}}, nil
	case "~>":
		return []condition{least, {"in", v, max(0, all-1)}}, nil
	case "^":
		first := slices.IndexFunc(v.numbers, func(n string) bool { return strings.Trim(n, "0") != "" })
		if first < 0 {
			first = all - 1
		}
		return []condition{least, {"in", v, first + 1}}, nil
	}
	return nil, fmt.Errorf("%q is no operator: there are =, !=, <, <=, >, >=, ~, ~> and ^", op)
}

// parseBound reads a version of any number of parts, 1.2.x, or * for all.
func parseBound(s string, readPre func(string) ([]string, string)) (version, error) {
	bad := fmt.Errorf("%.40q is no version: write numbers such as 1.2, 1.2.x or 1.2.3-rc.1", s)
	core, pre, hasPre := strings.Cut(strings.TrimPrefix(s, "v"), "-")
	var v version
	wild := false
	for part := range strings.SplitSeq(core, ".") {
		switch {
		case part == "x" || part == "X" || part == "*":
			wild = true
		case wild || !isDigits(part):
			return version{}, bad
		default:
			v.numbers = append(v.numbers, part)
		}
	}
	if hasPre {
		if wild || pre == "" {
			return version{}, bad
		}
		var rest string
		if v.pre, rest = readPre("-" + pre); v.pre == nil || rest != "" {
			v.pre = strings.Split(pre, ".")
		}
	}
	return v, nil
}

// hold reports whether the version is in the range.
func (b bounds) hold(v version) bool {
	return slices.ContainsFunc(b, func(all []condition) bool {
		return !slices.ContainsFunc(all, func(c condition) bool { return !c.holds(v) })
	})
}

func (c condition) holds(v version) bool {
	if c.parts == 0 {
		return true
	}
	o := 0
	for i := 0; i < c.parts && o == 0; i++ {
		o = compareDigits(part(v, i), c.than.numbers[i])
	}
	if c.op == "in" {
		return o == 0
	}
	if o == 0 && (len(v.pre) > 0 || len(c.than.pre) > 0) {
		rest := false // v is beyond than in parts that than does not have
		for i := c.parts; i < len(v.numbers); i++ {
			rest = rest || strings.Trim(v.numbers[i], "0") != ""
		}
		switch {
		case rest && len(c.than.pre) > 0:
			o = 1
		case rest: // 1.2.5-rc.1 is = 1.2
		case len(c.than.pre) > 0:
			o = comparePre(v.pre, c.than.pre)
		case c.op == "<": // 2.0.0-rc.1 is not < 2
		default:
			o = -1
		}
	}
	switch c.op {
	case "=":
		return o == 0
	case "!=":
		return o != 0
	case "<":
		return o < 0
	case "<=":
		return o <= 0
	case ">":
		return o > 0
	default:
		return o >= 0
	}
}

func part(v version, i int) string {
	if i < len(v.numbers) {
		return v.numbers[i]
	}
	return ""
}
