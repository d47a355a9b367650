package logs

import (
	"regexp"
	"regexp/syntax"
)

// literal is a text that is in every line that re matches, the longest there
// is to be found; nil when there is none.
func literal(re *regexp.Regexp) []byte {
	tree, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil { // another syntax
		return nil
	}
	return []byte(required(tree.Simplify()))
}

// required is the longest literal without which a part of a pattern does not match.
func required(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
			return string(re.Rune)
		}
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpConcat:
		longest := ""
		for _, sub := range re.Sub {
			if l := required(sub); len(l) > len(longest) {
				longest = l
			}
		}
		return longest
	}
	return ""
}
