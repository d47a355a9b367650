package choose

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Versionings are the ways to read tags, besides regex:EXPR.
//
//	auto    docker, dates, or hashes of commits: what the current tag looks like
//	semver  semver.org 2.0.0, strictly: everything behind a dash is a prerelease
//	docker  any number of parts, and a suffix that has to stay: 1.2-alpine
//	calver  dates: no number is a major version
//	pushed  any tag, ordered by when it was pushed or first seen
//	digest  the tag stays, its digest moves
var Versionings = []string{"auto", "semver", "docker", "calver", "pushed", "digest"}

// Majors are the policies about new major versions: none, in a pull request of
// their own, or like all others.
var Majors = []string{"off", "separate", "together"}

// Groups are the names of groups that a regex:EXPR may have. The numbers are
// ordered from major to revision; compatibility has to stay as it is.
var Groups = []string{"major", "minor", "patch", "build", "revision", "prerelease", "compatibility"}

// maxExpr bounds an expression; nobody reads longer ones.
const maxExpr = 1000

// A scheme reads tags as versions.
type scheme interface {
	read(tag string) (version, bool)
	// major reports whether to is a new major version beside from.
	major(from, to version) bool
}

// strict is semver. A '+' of the specification is an '_' in a tag, which can
// hold none.
type strict struct{}

func (strict) read(tag string) (version, bool) {
	v := version{}
	core, meta, hasMeta := strings.Cut(tag, "_")
	core, pre, hasPre := strings.Cut(core, "-")
	rest, prefixed := strings.CutPrefix(core, "v")
	v.numbers = strings.Split(rest, ".")
	if len(v.numbers) != 3 {
		return version{}, false
	}
	for _, n := range v.numbers {
		if !isDigits(n) || len(n) > 1 && n[0] == '0' {
			return version{}, false
		}
	}
	if hasPre {
		v.pre = strings.Split(pre, ".")
		for _, id := range v.pre {
			if id == "" || isDigits(id) && len(id) > 1 && id[0] == '0' {
				return version{}, false
			}
		}
	}
	if hasMeta && meta == "" {
		return version{}, false
	}
	// Build metadata is not ordered; whether there is any, stays.
	if prefixed {
		v.alike.prefix = "v"
	}
	if hasMeta {
		v.alike.suffix = "_"
	}
	return v, true
}

func (strict) major(from, to version) bool {
	return compareDigits(from.numbers[0], to.numbers[0]) != 0
}

// loose is docker, calver and what auto makes of a tag.
type loose struct {
	dates  bool // dates are something else than versions
	majors bool // the first number is a major version
	digits int  // of a current version that is one number; else 0
	bases  []base
}

// newLoose reads as the current tag is written; false when that is no version.
func newLoose(versioning, current string) (loose, bool) {
	l := loose{dates: versioning != "docker", majors: versioning != "calver"}
	s, ok := spell(current, l.dates)
	if !ok {
		return loose{}, false
	}
	l.bases = basesOf(s.alike.suffix, s.trail)
	if s.date {
		l.majors = false
	} else if len(s.numbers) == 1 {
		l.digits = len(s.numbers[0])
	}
	return l, true
}

func (l loose) read(tag string) (version, bool) {
	s, ok := spell(tag, l.dates)
	if !ok {
		return version{}, false
	}
	// 17 and 20240115 are two things, and so are 17 and a hash of digits only.
	if l.digits > 0 && len(s.numbers) == 1 && len(s.numbers[0]) > l.digits+1 {
		return version{}, false
	}
	return s.version, true
}

func (l loose) major(from, to version) bool {
	for _, b := range l.bases {
		if compareDigits(from.trail[b.from], to.trail[b.from]) != 0 {
			return true
		}
	}
	if !l.majors || compareDigits(from.numbers[0], to.numbers[0]) == 0 {
		return false
	}
	// A number alone that is this long counts builds.
	return len(from.numbers) > 1 || len(from.numbers[0]) < 5
}

// older says what a version that is newer in itself is built on, if that is
// older than now; "" if not.
func (l loose) older(from, to version) string {
	for _, b := range l.bases {
		if compareNumbers(to.trail[b.from:b.to], from.trail[b.from:b.to]) < 0 {
			return b.word
		}
	}
	return ""
}

// grouped is regex:EXPR.
type grouped struct {
	re     *regexp.Regexp
	groups [7]int // of Groups; -1 where there is none
}

func newGrouped(expr string) (*grouped, error) {
	if len(expr) > maxExpr {
		return nil, fmt.Errorf("expression of %d characters: the limit is %d", len(expr), maxExpr)
	}
	if _, err := regexp.Compile(expr); err != nil {
		return nil, fmt.Errorf("expression %q: %w", expr, err)
	}
	re, err := regexp.Compile(`^(?:` + expr + `)$`)
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", expr, err)
	}
	g := &grouped{re: re}
	ordered := false
	for i, name := range Groups {
		g.groups[i] = re.SubexpIndex(name)
		ordered = ordered || g.groups[i] >= 0 && i < 5
	}
	for _, name := range re.SubexpNames() {
		if name != "" && !slices.Contains(Groups, name) {
			return nil, fmt.Errorf("expression %q: group %q is not known: there are %s", expr, name, strings.Join(Groups, ", "))
		}
	}
	if !ordered {
		return nil, fmt.Errorf("expression %q has no number to order by: name a group, such as (?P<major>[0-9]+)", expr)
	}
	return g, nil
}

func (g *grouped) read(tag string) (version, bool) {
	m := g.re.FindStringSubmatchIndex(tag)
	if m == nil {
		return version{}, false
	}
	group := func(i int) string {
		if n := g.groups[i]; n >= 0 && m[2*n] >= 0 {
			return tag[m[2*n]:m[2*n+1]]
		}
		return ""
	}
	v := version{alike: likeness{suffix: group(6)}}
	for i := range 5 {
		n := group(i)
		if n == "" {
			n = "0"
		}
		if !isDigits(n) {
			return version{}, false
		}
		v.numbers = append(v.numbers, n)
	}
	if p := group(5); p != "" {
		var rest string
		if v.pre, rest = prerelease(p); v.pre == nil || rest != "" {
			v.pre = strings.FieldsFunc(p, func(r rune) bool { return r == '.' || r == '-' || r == '_' })
		}
	}
	return v, true
}

func (g *grouped) major(from, to version) bool {
	return g.groups[0] >= 0 && compareDigits(from.numbers[0], to.numbers[0]) != 0
}
