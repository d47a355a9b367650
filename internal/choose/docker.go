package choose

import (
	"cmp"
	"slices"
	"strings"
)

// A spelling is a tag taken apart the way people put them together:
//
//	release-  1.2.3  -rc.1  -alpine3.19
//	prefix    number pre    suffix
//
// The number may be a date, with a time. Of the suffix, the numbers are
// ordered; its words, and the hashes of commits in it, are not.
type spelling struct {
	version
	date bool
}

// spell reads a tag; false when there is no number in the right place. Without
// dates, these are numbers like all others.
func spell(tag string, dates bool) (spelling, bool) {
	i := span(tag, func(c byte) bool { return !isDigit(c) })
	if i == len(tag) {
		return spelling{}, false
	}
	// The hash of a commit may begin with a letter, or with anything.
	start := strings.LastIndexAny(tag[:i], "._-") + 1
	if isHash(token(tag[start:])) {
		return spelling{}, false
	}
	var s spelling
	s.alike.prefix = tag[:i]
	rest := tag[i:]
	if dates {
		s.numbers, s.alike.form, rest = dated(rest)
		s.date = s.numbers != nil
	}
	if !s.date {
		s.numbers, rest = dotted(tag[i:])
		s.alike.form = points[:min(len(s.numbers), len(points))]
	}
	s.pre, rest = prerelease(rest)
	s.alike.suffix, s.trail = shape(rest)
	return s, true
}

// points are the form of a number of as many parts; a tag has room for 64.
const points = "................................................................"

// dotted reads 1, 1.2 and so on.
func dotted(s string) (numbers []string, rest string) {
	numbers = make([]string, 0, 4)
	for {
		n := span(s, isDigit)
		numbers, s = append(numbers, s[:n]), s[n:]
		if len(s) < 2 || s[0] != '.' || !isDigit(s[1]) {
			return numbers, s
		}
		s = s[1:]
	}
}

// isDate: YYYYMMDD of a day that can be, from 1980 to 2099.
func isDate(s string) bool {
	return len(s) == 8 && isDigits(s) && isYear(s[:4]) && isTwo(s[4:6], 1, 12) && isTwo(s[6:], 1, 31)
}

func isYear(s string) bool {
	return len(s) == 4 && isDigits(s) && s >= "1980" && s <= "2099"
}

func isTwo(s string, low, high int) bool {
	if len(s) != 2 || !isDigits(s) {
		return false
	}
	n := int(s[0]-'0')*10 + int(s[1]-'0')
	return low <= n && n <= high
}

// dated reads a date and what goes on with numbers: 20240115, 202401151200,
// 2024.1, 2024.01.15, 2024-01-15, 2024-01-15T12-30-00Z, 2024.01.15-2. A year
// alone is no date. form has its length and separators.
func dated(s string) (numbers []string, form, rest string) {
	n := span(s, isDigit)
	switch {
	case (n == 8 || n == 10 || n == 12 || n == 14) && isDate(s[:8]):
	case n == 4 && isYear(s[:4]) && len(s) > 5:
		m := span(s[5:], isDigit)
		switch s[4] {
		case '.': // 2024.1 and 2024.52, too
			if m == 0 || m > 2 {
				return nil, "", s
			}
		case '-', '_':
			if m != 2 || !isTwo(s[5:7], 1, 12) {
				return nil, "", s
			}
		default:
			return nil, "", s
		}
	default:
		return nil, "", s
	}
	var b strings.Builder
	b.WriteByte(byte('a' + n))
	for {
		n := span(s, isDigit)
		numbers, s = append(numbers, s[:n]), s[n:]
		if len(s) < 2 || !isSeparator(s[0]) && s[0] != 'T' || !isDigit(s[1]) || s[0] != 'T' && isHash(token(s[1:])) {
			return numbers, b.String(), s
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
}

// stages are the words of prereleases, from the earliest. A word on the right
// counts only with a number: 1.2-dev and 1.2-nightly are variants of 1.2.
var stages = []struct{ words, numbered []string }{
	{nil, []string{"dev", "snapshot", "nightly", "canary", "next", "edge"}},
	{[]string{"alpha"}, []string{"a"}},
	{[]string{"beta"}, []string{"b"}},
	{[]string{"milestone"}, []string{"m"}},
	{[]string{"pre", "preview"}, nil},
	{[]string{"rc"}, []string{"cr", "c"}},
}

// prerelease reads -rc.1, rc1, -beta-2, -M3 and their like from the start of
// what follows the numbers. A single letter has to stand at the number, because
// -b2 is a build to many.
func prerelease(s string) (pre []string, rest string) {
	sep := 0
	if s != "" && isSeparator(s[0]) {
		sep = 1
	}
	n := span(s[sep:], isLetter)
	if n == 0 {
		return nil, s
	}
	word := strings.ToLower(s[sep : sep+n])
	after := s[sep+n:]
	number := after
	if len(after) > 1 && isSeparator(after[0]) {
		number = after[1:]
	}
	digits := number[:span(number, isDigit)]
	if isHash(token(number)) {
		digits = ""
	}
	// A capital M is a milestone wherever it stands: 3.0.0-M1.
	single := n == 1 && sep == 1 && s[sep] != 'M'
	for i, stage := range stages {
		if !slices.Contains(stage.words, word) && (digits == "" || single || !slices.Contains(stage.numbered, word)) {
			continue
		}
		pre = []string{string(rune('a'+i)) + stageName(i, word)}
		if digits == "" {
			return pre, after
		}
		for {
			pre, number = append(pre, digits), number[len(digits):]
			if len(number) < 2 || number[0] != '.' || !isDigit(number[1]) {
				return pre, number
			}
			number = number[1:]
			digits = number[:span(number, isDigit)]
		}
	}
	return nil, s
}

// stageName makes the spellings of one stage equal, so that rc1 and RC.2 can
// be compared, but keeps words apart that mean different things.
func stageName(i int, word string) string {
	if full := stages[i].words; len(full) > 0 {
		return full[0]
	}
	return word
}

// shape is a suffix without what is ordered in it: '#' stands for a number, '*'
// for the hash of a commit.
func shape(s string) (string, []string) {
	if s == "" {
		return "", nil
	}
	var b strings.Builder
	var trail []string
	for s != "" {
		if !isDigit(s[0]) && !isLetter(s[0]) {
			b.WriteByte(s[0])
			s = s[1:]
			continue
		}
		t := token(s)
		s = s[len(t):]
		if isHash(t) || t[0] == 'g' && isHash(t[1:]) { // git describe: -4-g1a2b3c4
			b.WriteByte('*')
			continue
		}
		for t != "" {
			if n := span(t, isDigit); n > 0 {
				b.WriteByte('#')
				trail, t = append(trail, t[:n]), t[n:]
				continue
			}
			b.WriteByte(t[0])
			t = t[1:]
		}
	}
	return b.String(), trail
}

// bases are words whose number in a suffix is the version of something that
// the image is built on: less is older, and its first number is a major one.
var bases = []string{
	"alpine", "debian", "ubuntu", "ubi", "el", "rhel", "centos", "rocky", "alma", "oraclelinux", "fedora", "amzn", "al", "wolfi", "distroless",
	"windowsservercore", "nanoserver", "ltsc", "cuda", "cudnn", "rocm",
	"jdk", "jre", "java", "openjdk", "temurin", "corretto", "zulu", "graalvm", "jvm", "node", "nodejs", "python", "py", "php", "ruby",
	"go", "golang", "rust", "dotnet", "aspnet", "perl", "gcc", "clang", "llvm", "erlang", "otp", "elixir", "scala",
	"postgres", "postgresql", "pg", "mysql", "mariadb", "mongo", "redis", "nginx", "apache", "tomcat", "spark", "hadoop",
}

// A base is the place of such a version in the numbers of a suffix.
type base struct {
	word     string
	from, to int // of trail
}

// basesOf finds them in the shape of a suffix: -alpine#.#, -eclipse-temurin-#.
func basesOf(shape string, trail []string) (out []base) {
	word, n := "", 0
	for i := 0; i < len(shape); i++ {
		switch c := shape[i]; {
		case isLetter(c):
			j := i + span(shape[i:], isLetter)
			word, i = strings.ToLower(shape[i:j]), j-1
		case c == '#':
			from := n
			for n++; strings.HasPrefix(shape[i+1:], ".#"); n++ {
				i += 2
			}
			// Many digits are a date or a build; and what has parts is a version, too:
			// amd64-1.2.3, python3.11-1.2.3.
			if slices.Contains(bases, word) && len(trail[from]) < 6 || n-from > 1 && len(trail[from]) < 3 {
				out = append(out, base{cmp.Or(word, "version"), from, n})
			}
			word = ""
		}
	}
	return out
}
