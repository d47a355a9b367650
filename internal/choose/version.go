package choose

import (
	"cmp"
	"slices"
	"strings"
)

// A version is what a tag says about its place among those that are written
// like it.
type version struct {
	// numbers are strings of digits, major first: tags hold numbers that no
	// integer does.
	numbers []string
	// pre are the identifiers of a prerelease (semver.org 2.0.0, 9); nil: a release.
	pre []string
	// trail are the numbers behind: of the suffix, in order.
	trail []string
	// alike is equal for tags that can be compared.
	alike likeness
}

// A likeness is everything of a tag that is not ordered.
type likeness struct {
	prefix string
	form   string // of the number: how many parts, what separates them
	suffix string // '#' stands for a number, '*' for the hash of a commit
}

// compare orders versions that are alike. It is a total preorder for all: what
// compares equal is the same version in another spelling.
func compare(a, b version) int {
	if c := compareNumbers(a.numbers, b.numbers); c != 0 {
		return c
	}
	if c := comparePre(a.pre, b.pre); c != 0 {
		return c
	}
	return compareNumbers(a.trail, b.trail)
}

// compareNumbers goes from the left; what is missing is less than 0.
func compareNumbers(a, b []string) int {
	for i := range min(len(a), len(b)) {
		if c := compareDigits(a[i], b[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

// compareDigits compares numbers of any length, leading zeros left away.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if c := cmp.Compare(len(a), len(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

// comparePre is semver.org 2.0.0, 11.3 and 11.4.
func comparePre(a, b []string) int {
	switch {
	case len(a) == 0 && len(b) == 0:
		return 0
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return slices.CompareFunc(a, b, func(x, y string) int {
		switch nx, ny := isDigits(x), isDigits(y); {
		case nx && ny:
			return compareDigits(x, y)
		case nx:
			return -1
		case ny:
			return 1
		}
		return strings.Compare(x, y)
	})
}

func isDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// isSeparator: what divides the tokens of a tag.
func isSeparator(c byte) bool { return c == '.' || c == '-' || c == '_' }

// span is how many bytes at the start of s are of the kind.
func span(s string, of func(byte) bool) int {
	for i := range len(s) {
		if !of(s[i]) {
			return i
		}
	}
	return len(s)
}

// token is the start of s up to its first separator.
func token(s string) string {
	return s[:span(s, func(c byte) bool { return !isSeparator(c) })]
}

// isHash reports whether a token can be nothing but the hash of a commit,
// perhaps shortened: 7 to 64 hex digits, letters and digits among them, or as
// many as a whole hash has. Digits alone are a number to everybody, and so are
// a number and one letter, such as the 8 digits of a date and a letter.
func isHash(s string) bool {
	if len(s) < 7 || len(s) > 64 {
		return false
	}
	letters := 0
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'f':
			letters++
		case !isDigit(c):
			return false
		}
	}
	if len(s) == 40 || len(s) == 64 {
		return true
	}
	return letters > 0 && letters < len(s) && !isDate(s[:min(8, len(s))])
}
