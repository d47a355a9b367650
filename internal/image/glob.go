package image

import (
	"fmt"
	"strings"
)

// A Glob names repositories or tags: '*' is any run of characters without
// '/', '**' any run with them, '?' one character. "app/**" matches everything
// below app/ and not app itself; "**" matches everything.
type Glob string

// CheckGlob reports whether g can be used as a glob. Everything but the empty
// string and absurd lengths can.
func CheckGlob(g string) error {
	if g == "" {
		return fmt.Errorf("empty glob: write %q for everything", "**")
	}
	if len(g) > MaxRepository {
		return fmt.Errorf("glob of %d characters: the limit is %d", len(g), MaxRepository)
	}
	return nil
}

// Match reports whether s as a whole matches. It needs no memory, and usually
// time proportional to len(s); at worst, for globs made for it, len(g)·len(s)².
func (g Glob) Match(s string) bool {
	p := string(g)
	if p == "**" {
		return true
	}
	// The usual two-pointer walk, with one backtrack point for the last '*'
	// and one for the last '**'; a later star always makes an earlier one of
	// the same or lesser reach irrelevant.
	var (
		pi, si         int
		starP, starS   = -1, 0
		dstarP, dstarS = -1, 0
	)
	for si < len(s) {
		switch {
		case strings.HasPrefix(p[pi:], "**"):
			pi += 2
			dstarP, dstarS = pi, si
			starP = -1
			continue
		case pi < len(p) && p[pi] == '*':
			pi++
			starP, starS = pi, si
			continue
		case pi < len(p) && (p[pi] == s[si] || p[pi] == '?' && s[si] != '/'):
			pi++
			si++
			continue
		}
		if starP >= 0 && s[starS] != '/' {
			starS++
			pi, si = starP, starS
			continue
		}
		if dstarP >= 0 {
			dstarS++
			pi, si = dstarP, dstarS
			starP = -1
			continue
		}
		return false
	}
	return strings.Trim(p[pi:], "*") == ""
}

// MatchAny reports whether one of gs matches s.
func MatchAny(gs []string, s string) bool {
	for _, g := range gs {
		if Glob(g).Match(s) {
			return true
		}
	}
	return false
}
